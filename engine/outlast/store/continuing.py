"""`continue_as_new`: a run completes and its successor starts, in one transaction.

Owns the making of a successor, which inherits the key, the place under a parent and what a start had set. Refuses a run whose claim is
lost. Where submitted steps of the run are still open, its successor is there but claimable by nobody until they have ended.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..operations import ContinueAsNew
from ..states import Ending, Status
from . import ending, starting
from .transaction import Transaction

_HELD = """
select t.cancel_requested_at, t.parent_id, t.parent_path, coalesce(t.root_id, t.id), t.unique_key,
       (select p.deadline_at from outlast_task p where p.id = t.parent_id), i.key, i.options, i.timeout, i.max_crashes
from outlast_task t join outlast_input i on i.task_id = t.id
where t.id = :id and t.claim = :claim and t.status = 'running' and t.ending is null
"""

_LET_GO = "update outlast_task set unique_key = null where id = :id"

_NAME_SUCCESSOR = """
insert into outlast_outcome (task_id, output, successor_id) values (:id, :output, :successor_id)
on conflict (task_id) do update set output = excluded.output, error = null, successor_id = excluded.successor_id
"""

# The run in line of a unique key waits for the end of the line, not of its first.
_WAIT_ON = "update outlast_successor set after_id = :successor_id where after_id = :id"

# While the overlap rule looks at a tick's run, that is the one which goes on.
_KEEP_TICK = """
update outlast_tick set run_id = :uid
where run_id = (select uid from outlast_task where id = :id) and place is not null
"""

# A pause that came while the run was about to go on holds the one that goes on.
_HOLD_BACK = """
update outlast_task set due_at = null, paused_at = (select paused_at from outlast_task where id = :before) where id = :id
"""


def continue_as_new(transaction: Transaction, operation: ContinueAsNew) -> Status:
    """Complete a claimed run and start its successor. If the process dies before the commit, neither has happened."""
    fence = operation.fence
    row = transaction.one(_HELD, {"id": fence.task_id, "claim": fence.claim})
    if row is None:
        raise fence.lost()
    cancel_requested_at, parent_id, parent_path, root_id, unique_key, deadline_at, key, options, timeout, max_crashes = row
    if cancel_requested_at is not None:
        return ending.decide(transaction, fence.task_id, Ending.CANCELLED)
    transaction.execute(_LET_GO, {"id": fence.task_id})
    started = starting.insert(
        transaction,
        replace(
            operation.start,
            parent_id=parent_id,
            parent_path=parent_path,
            root_id=root_id,
            unique_key=unique_key,
            # A workflow's own timeout begins anew with its first start; what a parent has left stays what it is.
            deadline_at=deadline_at,
            key=key,
            options=options,
            timeout=timeout,
            max_crashes=max_crashes,
        ),
    )
    transaction.execute(_HOLD_BACK, {"id": started.task_id, "before": fence.task_id})
    transaction.execute(_WAIT_ON, {"id": fence.task_id, "successor_id": started.task_id})
    if operation.start.tick is not None:
        transaction.execute(_KEEP_TICK, {"id": fence.task_id, "uid": started.uid})
    transaction.execute(_NAME_SUCCESSOR, {"id": fence.task_id, "output": b"null", "successor_id": started.task_id})
    return ending.decide(transaction, fence.task_id, Ending.COMPLETED)

"""`continue_as_new`: a run completes and its successor starts, in one transaction; and the way from a run to the last of its line.

Owns the link `outlast_outcome.successor_id` and what passes along it: key, parent, tags, unread signals. Refuses a run whose claim is lost.
Where submitted steps of the run are still open, its successor is there but claimable by nobody until they have ended.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec.structs import replace

from ..errors import LeaseLost
from ..operations import ContinueAsNew
from ..states import Ending, Status
from . import ending, starting
from .transaction import Transaction

_HELD = """
select t.cancel_requested_at, t.parent_id, t.parent_path, t.root_id, t.unique_key,
       (select p.deadline_at from outlast_task p where p.id = t.parent_id), i.key, i.options, i.timeout, i.max_crashes
from outlast_task t join outlast_input i on i.task_id = t.id
where t.id = :id and t.claim = :claim and t.status = 'running' and t.ending is null
"""

_LET_GO = "update outlast_task set unique_key = null where id = :id"

_NAME_SUCCESSOR = """
insert into outlast_outcome (task_id, output, successor_id) values (:id, :output, :successor_id)
on conflict (task_id) do update set output = excluded.output, error = null, successor_id = excluded.successor_id
"""

_HOLD_BACK = "update outlast_task set due_at = null where id = :id"


def continue_as_new(transaction: Transaction, operation: ContinueAsNew) -> Status:
    """Complete a claimed run and start its successor. If the process dies before the commit, neither has happened."""
    fence = operation.fence
    row = transaction.one(_HELD, {"id": fence.task_id, "claim": fence.claim})
    if row is None:
        raise LeaseLost(f"The lease of task {fence.task_id} (claim {fence.claim}) is lost.")
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
    transaction.execute(_HOLD_BACK, {"id": started.task_id})
    transaction.execute(
        _NAME_SUCCESSOR, {"id": fence.task_id, "output": b"null", "successor_id": started.task_id}
    )
    return ending.decide(transaction, fence.task_id, Ending.COMPLETED)


_SUCCESSOR = "select successor_id from outlast_outcome where task_id = :id and successor_id is not null"

_PASS_SIGNALS = "update or ignore outlast_signal set task_id = :successor_id where task_id = :id and taken_path is null"

_PASS_FOLLOWERS = "update or ignore outlast_follower set task_id = :successor_id where task_id = :id"

_RELEASE = "update outlast_task set due_at = :now where id = :id and status = 'pending' and due_at is null and claim = 0"


def pass_on(transaction: Transaction, task_id: int, status: Status) -> bool:
    """A run has become final: let its successor begin, or end it too where the run did not complete. False without one."""
    row = transaction.one(_SUCCESSOR, {"id": task_id})
    if row is None:
        return False
    successor_id = row[0]
    if status is Status.COMPLETED:
        transaction.execute(_PASS_SIGNALS, {"id": task_id, "successor_id": successor_id})
        transaction.execute(_PASS_FOLLOWERS, {"id": task_id, "successor_id": successor_id})
        transaction.execute(_RELEASE, {"id": successor_id, "now": transaction.now})
        transaction.ring = True
        return True
    transaction.execute(_CUT, {"id": task_id})
    ending.decide(transaction, successor_id, Ending.CANCELLED)
    return False


_CUT = "update outlast_outcome set successor_id = null where task_id = :id"

_LINE = """
with recursive line(id) as (
  select id from outlast_task where uid = :uid
  union select o.successor_id from line join outlast_outcome o on o.task_id = line.id where o.successor_id is not null)
select t.uid from line join outlast_task t on t.id = line.id
where not exists (select 1 from outlast_outcome o where o.task_id = line.id and o.successor_id is not null)
"""


def last_of_line(connection: Any, uid: str) -> str:
    """The run that goes on with what this one began: itself, or the last of its successors."""
    row = connection.execute(_LINE, {"uid": uid}).fetchone()
    found: str = row[0] if row is not None else uid
    return found


_OWN = """
with recursive line(id) as (
  select value from json_each(:parts)
  union select o.successor_id from line join outlast_outcome o on o.task_id = line.id where o.successor_id is not null)
select t.id from line join outlast_task t on t.id = line.id where t.parent_id = :id and t.finished_at is null
"""


def own_parts(transaction: Transaction, task_id: int, parts: tuple[int, ...]) -> list[int]:
    """Those of the parts that go on and are the task's own: a run that its key led to is somebody else's."""
    rows = transaction.execute(_OWN, {"id": task_id, "parts": json.dumps(parts)}).fetchall()
    return [part_id for (part_id,) in rows]

"""Tasks that a person has to decide about: what a halt writes, and what follows from it.

Owns the move to `halted` of what an agent holds, the reason beside it, and the halt of the run whose step it is. Refuses to end anything,
but for a cancel that waits: the moves of endings are `ending`'s.
"""

from __future__ import annotations

from ..operations import Halt
from ..states import Ending
from . import journal
from .ending import NOTIFY, cancel, decide
from .last_writes import add_strays
from .transaction import Transaction

_HOLDER = "select agent_id from outlast_task where id = :id and agent_id is not null"

_HALT = """
update outlast_task
set status = 'halted', halt_reason = :reason, halted_at = :now, agent_id = null, due_at = null, notice = 0, suspect = 0
where id = :id and claim = :claim
  and (status in ('running', 'compensating') and agent_id is not null
       or :is_parked and status in ('waiting', 'pending') and agent_id is null and ending is null)
returning parent_id, kind, cancel_requested_at, ending
"""

_KEEP_UNDO_ERROR = """
insert into outlast_outcome (task_id, undo_error) values (:id, :error)
on conflict (task_id) do update set undo_error = excluded.undo_error
"""

_FAIL_UNDO = "update outlast_task set undo = 'failed' where id = :id and undo = 'pending' and ending is not null"

_KEEP_ERROR = """
insert into outlast_outcome (task_id, error) values (:id, :error)
on conflict (task_id) do update set error = coalesce(excluded.error, error)
"""


def halt(transaction: Transaction, operation: Halt) -> None:
    """Stop a claimed task until a person decides; the deadline stands still. A halted submitted step halts its run."""
    fence = operation.fence
    for part_id in journal.set_aside(transaction, fence, operation.failed, operation.branches):
        cancel(transaction, part_id)
    agent = transaction.one(_HOLDER, {"id": fence.task_id})
    row = transaction.one(
        _HALT,
        {
            "id": fence.task_id,
            "claim": fence.claim,
            "reason": operation.reason,
            "now": transaction.now,
            "is_parked": operation.is_parked,
        },
    )
    if row is None:
        raise fence.lost()
    if operation.question is not None:
        journal.write_next(transaction, fence, operation.question)
    if agent is not None:
        add_strays(transaction, fence.task_id, operation.strays, agent_id=agent[0])
    after_halt(transaction, fence.task_id, operation.reason, error=operation.error)


_HALTED = "select parent_id, kind, cancel_requested_at, ending from outlast_task where id = :id"

_HALT_PARENT = """
update outlast_task
set status = 'halted', halt_reason = :reason, halted_at = :now, due_at = null
where id = :id and status in ('pending', 'waiting') and ending is null
"""

_STEP_NAME = "select name from outlast_task where id = :id"


def after_halt(transaction: Transaction, task_id: int, reason: str, *, error: bytes | None = None) -> None:
    """What follows when a task was halted: keep its error, halt the run of a step, heed a cancel that waits."""
    if transaction.execute(_FAIL_UNDO, {"id": task_id}).rowcount:
        # The undo's error stands beside the one that ended the run, never in its place.
        transaction.execute(_KEEP_UNDO_ERROR, {"id": task_id, "error": error})
    elif error is not None:
        transaction.execute(_KEEP_ERROR, {"id": task_id, "error": error})
    transaction.ring = True
    row = transaction.one(_HALTED, {"id": task_id})
    assert row is not None
    parent_id, kind, cancel_requested_at, ending = row
    if cancel_requested_at is not None and ending is None:
        decide(transaction, task_id, Ending.CANCELLED)
    elif kind == "step" and parent_id is not None:
        name = transaction.one(_STEP_NAME, {"id": task_id})
        text = f"its step {name[0] if name else '?'} is halted: {reason}"
        halted = transaction.execute(_HALT_PARENT, {"id": parent_id, "reason": text, "now": transaction.now}).rowcount
        if not halted:
            transaction.execute(NOTIFY, {"id": parent_id})

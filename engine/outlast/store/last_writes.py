"""The writes with which a holder ends its task, each under its fence.

Owns what an agent says as a task leaves it: how it ended, what a retry would set aside, which of its threads go on, and later that one of
them has ended. Refuses a write whose claim is over (`LeaseLost`). What follows from an end, for its parts and its parent, is `ending`'s.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..operations import CancelParts, End, EndUndo, StrayEnded
from ..operations.claimed import Fence
from ..states import Ending, Status
from . import journal, succession
from .ending import INSERT_OUTCOME, cancel, close, decide, stray_gone, tell_followers, tell_parent
from .transaction import Transaction

# A step that has ended before the cancel came to it has ended so: what it did is there, and its run's undo must know.
_FINISH = """
update outlast_task
set status = :status, ending = :status, agent_id = null, due_at = null, suspect = 0, notice = 0, tries = :tries,
    finished_at = :wall, ended_at = :now
where id = :id and claim = :claim and status = 'running' and ending is null
  and (cancel_requested_at is null or kind = 'step')
  and (kind = 'step' or :status = 'completed' or not exists (select 1 from outlast_stray s where s.task_id = outlast_task.id))
returning parent_id
"""


def end(transaction: Transaction, operation: End) -> Status:
    """Record how a claimed task ends. If the process dies before the commit, the task is claimed again after its lease."""
    fence = operation.fence
    if not operation.simple:
        return _end_with_parts(transaction, operation)
    row = transaction.one(
        _FINISH,
        {
            "status": operation.ending,
            "tries": operation.tries,
            "wall": transaction.wall,
            "now": transaction.now,
            "id": fence.task_id,
            "claim": fence.claim,
        },
    )
    if row is None:
        # Lost, or a cancel came that the agent has not read yet, or a process before it may still execute a try.
        return _end_with_parts(transaction, operation)
    transaction.execute(INSERT_OUTCOME, {"id": fence.task_id, "output": operation.output, "error": operation.error})
    keep_aside(transaction, operation)
    tell_followers(transaction, fence.task_id, failed=operation.ending is not Ending.COMPLETED)
    if row[0] is not None:
        tell_parent(transaction, row[0], fence.task_id, failed=operation.ending is not Ending.COMPLETED)
    else:
        transaction.ring = True
    return Status(operation.ending)


# As many rows in one statement as there may be: `executemany` lets the interpreter's lock go after each.
_INSERT_OUTCOMES = """
insert into outlast_outcome (task_id, output, error) values {rows}
on conflict (task_id) do update set output = excluded.output, error = excluded.error
"""
_INSERTS = {count: _INSERT_OUTCOMES.format(rows=", ".join(["(?, ?, ?)"] * count)) for count in (256, 64, 16, 4, 1)}


def write_outcomes(transaction: Transaction, operations: Sequence[End]) -> None:
    """Store what came of tasks that end in this transaction."""
    begin = 0
    for count, insert in _INSERTS.items():
        while len(operations) - begin >= count:
            values: list[Any] = []
            for one in operations[begin : begin + count]:
                values += one.fence.task_id, one.output, one.error
            transaction.execute(insert, values)
            begin += count


_FENCED = """
select cancel_requested_at, agent_id from outlast_task
where id = :id and claim = :claim and status = 'running' and ending is null
"""

_SET_TRIES = "update outlast_task set tries = :tries where id = :id and tries < :tries"


def _end_with_parts(transaction: Transaction, operation: End) -> Status:
    fence = operation.fence
    held = transaction.one(_FENCED, {"id": fence.task_id, "claim": fence.claim})
    if held is None:
        raise fence.lost()
    if operation.tries:
        transaction.execute(_SET_TRIES, {"id": fence.task_id, "tries": operation.tries})
    add_strays(transaction, fence.task_id, operation.strays, agent_id=held[1])
    if held[0] is not None:
        # Whoever asked for the cancel was told that it will be: it wins over an end that came a moment later.
        return decide(transaction, fence.task_id, Ending.CANCELLED, undo=operation.undo)
    keep_aside(transaction, operation)
    return decide(
        transaction,
        fence.task_id,
        operation.ending,
        output=operation.output,
        error=operation.error,
        undo=operation.undo,
    )


_KEEP_ASIDE = """
insert into outlast_outcome (task_id, aside) values (:id, :aside) on conflict (task_id) do update set aside = excluded.aside
"""


def keep_aside(transaction: Transaction, operation: End) -> None:
    """What a retry of the run will set aside: only the code that ends now knows where its error came from."""
    if operation.failed:
        aside = json.dumps({"failed": operation.failed, "branches": operation.branches})
        transaction.execute(_KEEP_ASIDE, {"id": operation.fence.task_id, "aside": aside})


_ADD_STRAY = """
insert or ignore into outlast_stray (task_id, agent_id, path, since_at) values (:id, :agent_id, :path, :wall)
"""


def add_strays(transaction: Transaction, task_id: int, paths: tuple[str, ...], *, agent_id: int) -> None:
    for path in paths:
        transaction.execute(_ADD_STRAY, {"id": task_id, "agent_id": agent_id, "path": path, "wall": transaction.wall})


def cancel_parts(transaction: Transaction, operation: CancelParts) -> None:
    """Cancel parts that a claimed run no longer waits for."""
    fence = operation.fence
    if transaction.one(_FENCED, {"id": fence.task_id, "claim": fence.claim}) is None:
        raise fence.lost()
    for part_id in succession.own_parts(transaction, fence.task_id, operation.parts):
        cancel(transaction, part_id)


_DROP_STRAY = "delete from outlast_stray where task_id = :task_id and agent_id = :agent_id and path = :path"

# Only where the ending is decided: a run that goes on gives the next number of its journal itself, and has no use for this.
_CLAIM_OF = "select claim from outlast_task where id = :id and finished_at is null and ending is not null"


def stray_ended(transaction: Transaction, operation: StrayEnded) -> None:
    """A try that outlived its run's ending has ended: keep its outcome for the undo, and settle."""
    transaction.execute(
        _DROP_STRAY,
        {"task_id": operation.task_id, "agent_id": operation.agent_id, "path": operation.path},
    )
    if operation.entry is not None:
        run_id = operation.run_id or operation.task_id
        claim = transaction.one(_CLAIM_OF, {"id": run_id})
        if claim is not None:
            journal.write_late(transaction, Fence(run_id, claim[0]), operation.entry)
    stray_gone(transaction, operation.task_id)


_UNDOING = """
select parent_id, ending from outlast_task
where id = :id and claim = :claim and status = 'compensating' and agent_id is not null
"""


def end_undo(transaction: Transaction, operation: EndUndo) -> Status:
    """All is undone: the run gets its last status, by the ending that was decided."""
    fence = operation.fence
    row = transaction.one(_UNDOING, {"id": fence.task_id, "claim": fence.claim})
    if row is None:
        raise fence.lost()
    parent_id, ending = row
    status = Status.CANCELLED if ending == Ending.CANCELLED else Status.COMPENSATED
    close(transaction, fence.task_id, status, parent_id=parent_id, undo="completed")
    return status

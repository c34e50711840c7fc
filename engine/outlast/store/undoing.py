"""The undo in the store: its start, its record, its end.

Owns the move to `compensating` and the entries of compensations. Refuses to interpret code: the plan comes from the journal alone, and
the row names the code that the next compensation needs, so that an agent without the workflow can still undo it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..journal.entry import Entry
from ..journal.plan import Undo, undo_plan
from ..model import compensation_code
from ..operations import PassUndo, RecordUndo
from ..operations.claimed import Fence
from ..states import Status, event_of_end
from . import journal
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

# An outcome from before its place was set aside is that of another part.
_PARTS_OUTSIDE_JOURNAL = """
with aside(path, seq) as materialized (
  select path, max(seq) from outlast_journal where task_id = :id and event = 'set_aside' group by path)
select t.parent_path, t.kind, t.name, t.status, t.tries, t.started_at, t.finished_at, o.output, o.error, t.claim
from outlast_task t left join outlast_outcome o on o.task_id = t.id
where t.parent_id = :id and t.finished_at is not null and o.successor_id is null
  and not exists (
    select 1 from outlast_journal j
    where j.task_id = :id and j.path = t.parent_path
      and j.seq > coalesce((select a.seq from aside a where a.path = j.path), j.seq - 1)
      -- What a run wrote off as cancelled may have ended otherwise before the cancel came to it, or never have begun.
      and (j.event in ('completed', 'failed') or (j.event = 'cancelled' and t.status = 'cancelled' and (t.claim > 0 or j.try_number = 0))))
order by t.ended_at
"""

_HAS_PARTS = "select 1 from outlast_task where parent_id = :id limit 1"

_CLAIM = "select claim from outlast_task where id = :id"


def gather_outcomes(transaction: Transaction, task_id: int) -> None:
    """Copy outcomes of parts that nobody took into the journal, for the undo's sake and so that pruning a part breaks nothing."""
    claim = transaction.one(_CLAIM, {"id": task_id})
    assert claim is not None
    for entry in outcomes_not_taken(transaction.connection, task_id):
        journal.write_late(transaction, Fence(task_id, claim[0]), entry)


def outcomes_not_taken(connection: sqlite3.Connection, task_id: int) -> list[Entry]:
    """What became of final parts, as entries that the journal does not have; their numbers are to be given."""
    if connection.execute(_HAS_PARTS, {"id": task_id}).fetchone() is None:
        return []
    return [
        Entry(
            seq=0,
            path=path,
            event=event_of_end(Status(status)),
            kind="child" if kind == "run" else "task",
            name=name,
            at=finished_at,
            try_number=max(tries, 1) if claims else 0,
            started_at=started_at,
            data=output if status == Status.COMPLETED else error,
        )
        for path, kind, name, status, tries, started_at, finished_at, output, error, claims in connection.execute(
            _PARTS_OUTSIDE_JOURNAL, {"id": task_id}
        ).fetchall()
    ]


_HAS_COMPENSABLE = """
select 1 from outlast_journal where task_id = :id and flags & 1 and event = 'started' limit 1
"""

_BEGIN = """
update outlast_task
set status = 'compensating', undo = 'pending', needs = :needs, agent_id = null, notice = 0,
    -- A compensation that overran before the undo gave up may still be under way.
    due_at = case when exists (select 1 from outlast_stray s where s.task_id = outlast_task.id) then null else :now end,
    suspect = 0, halt_reason = null, halted_at = null, deadline_at = null, claim = claim + 1
where id = :id and status in ('pending', 'running', 'waiting', 'halted')
"""


def begin(transaction: Transaction, task_id: int) -> bool:
    """Move a run whose ending is decided to `compensating`; false where there is nothing to undo."""
    plan = read_plan(transaction.connection, task_id)
    if not plan:
        return False
    transaction.execute(_BEGIN, {"id": task_id, "needs": compensation_code(plan[0].name), "now": transaction.now})
    transaction.ring = True
    return True


def read_plan(connection: sqlite3.Connection, task_id: int) -> list[Undo]:
    """What is left to undo of a run."""
    if connection.execute(_HAS_COMPENSABLE, {"id": task_id}).fetchone() is None:
        return []
    return undo_plan(journal.load(connection, task_id))


# The runs of a chain are the first, by its id, and its retries, by an index of their own.
_UNDONE_BEFORE = """
select count(*) from outlast_journal j
where j.kind = 'compensation' and j.event = 'completed' and (j.path = :path or j.path glob :path || '~[0-9]*')
  and j.task_id in (
    select id from outlast_task where uid = :chain and id < :id
    union select task_id from outlast_input where chain = :chain and retry_of is not null and task_id < :id)
"""


def undone_before(connection: sqlite3.Connection, task_id: int, chain: str, path: str) -> int:
    """How often the runs of the chain before this one have undone what stood at a place.

    Each of those undid a step of its own; but what a run has inherited and another one failed to undo is the same step still.
    """
    count: int = connection.execute(_UNDONE_BEFORE, {"id": task_id, "chain": chain, "path": path}).fetchone()[0]
    return count


def record(transaction: Transaction, operation: RecordUndo) -> None:
    """Journal a compensation's failed try or its success; the success is committed once."""
    entry = operation.entry
    fence = operation.fence
    held = transaction.one(_HELD, {"id": fence.task_id, "claim": fence.claim})
    if held is None:
        raise fence.lost()
    if transaction.one(_IS_UNDONE, {"id": fence.task_id, "path": entry.path}) is None:
        journal.write_next(transaction, fence, entry)
    transaction.execute(_CLEAR_SUSPICION, {"id": fence.task_id})


_IS_UNDONE = """
select 1 from outlast_journal where task_id = :id and path = :path and event = 'completed' limit 1
"""

_CLEAR_SUSPICION = "update outlast_task set suspect = 0 where id = :id and suspect = 1"

_HELD = """
select parent_id, ending from outlast_task
where id = :id and claim = :claim and status = 'compensating' and agent_id is not null
"""

_PASS = """
update outlast_task
set agent_id = null, notice = 0, due_at = :due_at, needs = coalesce(:needs, needs)
where id = :id and claim = :claim and status = 'compensating' and agent_id is not null
"""


def pass_on(transaction: Transaction, operation: PassUndo) -> None:
    """Release a compensating run; its next compensation is due after the delay."""
    fence = operation.fence
    plan = read_plan(transaction.connection, fence.task_id)
    cursor = transaction.execute(
        _PASS,
        {
            "id": fence.task_id,
            "claim": fence.claim,
            "due_at": transaction.now + operation.delay,
            "needs": compensation_code(plan[0].name) if plan else None,
        },
    )
    if cursor.rowcount == 0:
        raise fence.lost()
    transaction.ring = True

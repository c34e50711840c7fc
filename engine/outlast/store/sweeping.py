"""What time leaves behind: deadlines, endings that nobody settled, undo that nobody can run, starts at a wall instant.

Owns the supervisor's looks by timestamp; each names its rows by an index, so that a sweep of a quiet file reads a handful of pages.
Refuses to guess: a run is moved only for what the file says. Any number of supervisors may sweep at once; the second finds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codec import encode_error
from ..errors import DeadlineExceeded
from ..operations import Sweep
from ..states import Ending
from . import ending, halting
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3


def sweep(transaction: Transaction, operation: Sweep) -> list[str]:
    """Look once; gives a line for each run that was moved."""
    changed = _end_late(transaction)
    changed += _settle_endings(transaction)
    changed += _halt_undo_without_code(transaction, operation.lease)
    _align_wall_starts(transaction)
    if changed:
        transaction.ring = True
    return changed


_LATE = """
select id, uid, name, agent_id from outlast_task
where deadline_at <= :now and finished_at is null and ending is null and status in ('pending', 'waiting')
"""


def _end_late(transaction: Transaction) -> list[str]:
    """Runs past their deadline that no agent holds; a leaseholder ends its own."""
    late = transaction.execute(_LATE, {"now": transaction.now}).fetchall()
    for task_id, uid, _, _ in late:
        ending.decide(transaction, task_id, Ending.FAILED, error=encode_error(DeadlineExceeded(uid)))
    return [f"ended {name} {uid}: past its deadline" for _, uid, name, _ in late]


_DECIDED = "select id, uid, name from outlast_task where ending is not null and finished_at is null"


def _settle_endings(transaction: Transaction) -> list[str]:
    decided = transaction.execute(_DECIDED).fetchall()
    return [f"settled {name} {uid}" for task_id, uid, name in decided if ending.settle(transaction, task_id)]


_UNDO_WITHOUT_CODE = """
select id, uid, name, needs from outlast_task
where ending is not null and finished_at is null and status = 'compensating' and agent_id is null
  and due_at <= :long_due and paused_at is null
  and not exists (select 1 from outlast_agent_code c join outlast_agent a on a.id = c.agent_id
                  where c.needs = outlast_task.needs and a.status in ('active', 'draining')
                    and (a.root_id is null or a.root_id = coalesce(outlast_task.root_id, outlast_task.id)))
  and exists (select 1 from outlast_agent a
              where a.status in ('active', 'draining') and a.status = 'active' and a.started_at <= :wall_before
                and (a.root_id is null or a.root_id = coalesce(outlast_task.root_id, outlast_task.id)))
"""

_HALT = """
update outlast_task
set status = 'halted', halt_reason = :reason, halted_at = :now, due_at = null
where id = :id and status = 'compensating' and agent_id is null
"""


def _halt_undo_without_code(transaction: Transaction, lease: int) -> list[str]:
    """An undo whose next compensation no live agent has had for a lease: never skipped, halted."""
    stuck = transaction.execute(
        _UNDO_WITHOUT_CODE,
        {"long_due": transaction.now - lease, "wall_before": transaction.wall - lease},
    ).fetchall()
    changed = []
    for task_id, uid, name, needs in stuck:
        reason = f"no live agent has the {needs.replace(':', ' of step ', 1)} that its undo needs"
        transaction.execute(_HALT, {"id": task_id, "reason": reason, "now": transaction.now})
        halting.after_halt(transaction, task_id, reason)
        changed.append(f"halted {name} {uid}: {reason}")
    return changed


_WALL_STARTS = """
select t.id, t.due_at, i.at_wall
from outlast_input i join outlast_task t on t.id = i.task_id
where i.at_wall is not null and t.status = 'pending' and t.claim = 0 and t.due_at is not null
  and i.at_wall > :long_ago
"""

_SET_DUE = "update outlast_task set due_at = :due_at where id = :id and status = 'pending' and claim = 0 and due_at is not null"

_TOLERANCE = 500_000


def _align_wall_starts(transaction: Transaction) -> None:
    """Starts at a wall instant follow the wall clock when it jumps; their due_at is only its image in engine time."""
    skew = transaction.wall - transaction.now
    for task_id, due_at, at_wall in transaction.execute(_WALL_STARTS, {"long_ago": transaction.wall - 400 * 86_400_000_000}).fetchall():
        if abs(due_at + skew - at_wall) > _TOLERANCE and not (due_at <= transaction.now and at_wall <= transaction.wall):
            transaction.execute(_SET_DUE, {"id": task_id, "due_at": max(at_wall - skew, 0)})


_LATE_BY = """
select min(deadline_at) from outlast_task
where deadline_at is not null and finished_at is null and ending is null
"""


def next_deadline_at(connection: sqlite3.Connection) -> int | None:
    """The engine instant of the next deadline."""
    row = connection.execute(_LATE_BY).fetchone()
    due_at: int | None = row[0] if row is not None else None
    return due_at

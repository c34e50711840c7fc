"""What became of a run's parts, as its leaseholder sees it.

Owns the two looks at children and submitted steps: which have ended since the last look, and whether a step is halted. Refuses writes:
the run copies what it takes into its own journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..states import Status, event_of_end

if TYPE_CHECKING:
    from ..store.library import sqlite3

_ENDED = """
select t.parent_path, t.uid, t.status, t.tries, t.started_at, t.finished_at, t.ended_at, o.output, o.error
from outlast_task t left join outlast_outcome o on o.task_id = t.id
where t.parent_id = :id and t.ended_at >= :since and o.successor_id is null
union all
select f.path, t.uid, t.status, t.tries, t.started_at, t.finished_at, t.ended_at, o.output, o.error
from outlast_follower f join outlast_task t on t.id = f.task_id left join outlast_outcome o on o.task_id = t.id
where f.parent_id = :id and t.ended_at is not null and o.successor_id is null
order by 7, 1
"""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A part that is final."""

    path: str
    uid: str
    status: Status
    tries: int
    started_at: int | None
    finished_at: int
    ended_at: int
    output: bytes | None
    error: bytes | None

    @property
    def event(self) -> str:
        return event_of_end(self.status)

    def facts(self) -> dict[str, Any]:
        """The fields of the journal entry that takes it."""
        data = {"completed": self.output, "failed": self.error, "cancelled": self.uid.encode()}[self.event]
        # A part that never began a try has nothing to undo: its number of tries says so.
        began = self.started_at is not None
        return {"try_number": max(self.tries, 1) if began else 0, "started_at": self.started_at, "data": data}


def arrived(connection: sqlite3.Connection, task_id: int, since: int) -> list[Arrival]:
    """The parts that ended at or after an engine instant. One instant may hold several: those seen come again."""
    return [Arrival(row[0], row[1], Status(row[2]), *row[3:]) for row in connection.execute(_ENDED, {"id": task_id, "since": since})]


_HALTED_STEP = """
select name, halt_reason from outlast_task
where parent_id = :id and ended_at is null and status = 'halted' and kind = 'step' limit 1
"""


def halted_step(connection: sqlite3.Connection, task_id: int) -> str | None:
    """Why the run cannot go on, where a submitted step of it is halted."""
    row = connection.execute(_HALTED_STEP, {"id": task_id}).fetchone()
    return f"its step {row[0]} is halted: {row[1]}" if row is not None else None

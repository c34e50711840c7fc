"""Places: what the limits of a queue leave of it for one claim.

Owns the count of who holds a place, the choice of the place that a task uses, and what can be claimed although no
place is free: with `hold="unfinished"`, a run's own tasks and its waking up use the place that it keeps, one at a
time, so that a run that waits for its own queue never waits for ever. Refuses to keep counts: they are read from
the tasks themselves, so a dead agent's place comes back with its lease.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .queues import Limits, add_starts, starts_left
from .transaction import Transaction
from .turns import Candidate

if TYPE_CHECKING:
    from .library import sqlite3

_LEASED = """
select coalesce(partition, ''), count(*) from outlast_task
where queue = :queue and slot is not null and agent_id is not null
group by partition
"""

_KEPT = """
select t.slot, max(t.agent_id is not null), (select coalesce(h.partition, '') from outlast_task h where h.id = t.slot)
from outlast_task t
where t.queue = :queue and t.slot is not null and t.finished_at is null
group by t.slot
"""


class Places:
    """The places of one queue during one claim; `take` counts what the claim has taken."""

    def __init__(self, connection: sqlite3.Connection, limits: Limits, *, now: int) -> None:
        self.limits = limits
        self.now = now
        self._connection = connection
        self._starts_left = starts_left(connection, limits, now=now) if limits.rate is not None else None
        self._started = 0
        self._held: dict[str, int] = {}
        """How many places each partition has taken."""
        self._idle: dict[int, bool] = {}
        """With `hold="unfinished"`: the places that are kept, and whether nobody uses them at the moment."""
        if not limits.has_places:
            return
        if limits.keeps_place:
            for slot, is_used, partition in connection.execute(_KEPT, {"queue": limits.queue}):
                self._idle[slot] = not is_used
                self._held[partition or ""] = self._held.get(partition or "", 0) + 1
        else:
            self._held = dict(connection.execute(_LEASED, {"queue": limits.queue}).fetchall())

    @property
    def taken(self) -> int:
        return sum(self._held.values())

    @property
    def places_left(self) -> int | None:
        """How many places are free; None is no limit."""
        concurrency = self.limits.concurrency
        return None if concurrency is None else max(0, concurrency - self.taken)

    @property
    def starts_left(self) -> int | None:
        """How many tasks may start; None is no limit."""
        return self._starts_left

    @property
    def may_start(self) -> bool:
        """Whether a task that has not run yet could be taken, and a new place with it."""
        return self.limits.paused_at is None and self.places_left != 0 and self._starts_left != 0

    def held_by(self, partition: str) -> int:
        return self._held.get(partition, 0)

    def full_partitions(self) -> list[str]:
        limit = self.limits.per_partition
        return [] if limit is None else [name for name, count in self._held.items() if count >= limit]

    def room(self, limit: int) -> int:
        """How many candidates it makes sense to look at, of at most `limit`."""
        return limit if self.places_left is None else min(limit, self.places_left)

    def place_for(self, candidate: Candidate) -> int | None:
        """The place that a task would use, or None where the limits do not let it be taken now."""
        if self.limits.paused_at is not None or (candidate.is_start and self._starts_left == 0):
            return None
        if self._idle:
            kept = self._kept_place(candidate)
            if kept is not None:
                return kept if self._idle[kept] else None
        if self.places_left == 0:
            return None
        per_partition = self.limits.per_partition
        if per_partition is not None and self.held_by(candidate.partition) >= per_partition:
            return None
        return candidate.task_id

    def uses_kept_place(self, candidate: Candidate) -> bool:
        """Whether a task belongs to a run that keeps a place, and uses that one."""
        return self._kept_place(candidate) is not None

    def _kept_place(self, candidate: Candidate) -> int | None:
        if candidate.slot in self._idle:
            return candidate.slot
        if candidate.parent_id is None:
            return None
        return self._place_above(candidate.parent_id)

    def _place_above(self, task_id: int) -> int | None:
        for (slot,) in self._connection.execute(_PLACES_ABOVE, {"id": task_id, "queue": self.limits.queue}):
            if slot in self._idle:
                return int(slot)
        return None

    def take(self, candidate: Candidate, place: int) -> None:
        """Count a task that was claimed."""
        if candidate.is_start and self._starts_left is not None:
            self._starts_left -= 1
            self._started += 1
        if self.limits.has_places and place not in self._idle:
            self._held[candidate.partition] = self.held_by(candidate.partition) + 1
        if self.limits.keeps_place:
            self._idle[place] = False

    def record(self, transaction: Transaction) -> None:
        """Write down the starts that the claim has made."""
        if self._started:
            add_starts(transaction, self.limits, self._started)

    def coming_back(self, code: frozenset[str], *, limit: int) -> list[Candidate]:
        """What may be taken although nothing may start: tasks that have run before, and, in a place that is kept, the
        next of its own tasks.
        """
        if self.limits.paused_at is not None:
            return []
        if self.limits.keeps_place and self.limits.has_places:
            return self._into_kept_places(code, limit=limit)
        if self.places_left == 0 or self._starts_left != 0:
            return []
        return self._woken(code, None, self.full_partitions(), limit=limit)

    def _into_kept_places(self, code: frozenset[str], *, limit: int) -> list[Candidate]:
        idle = [slot for slot, is_idle in self._idle.items() if is_idle]
        if not idle:
            return []
        found = self._woken(code, idle, [], limit=limit)
        if self._starts_left != 0:
            rows = self._connection.execute(
                _NEXT_BELOW,
                {"slots": json.dumps(idle), "queue": self.limits.queue, "now": self.now, "code": _listed(code), "limit": 2 * limit},
            )
            found += self._candidates(rows)
        return found

    def _woken(self, code: frozenset[str], slots: list[int] | None, full: list[str], *, limit: int) -> list[Candidate]:
        rows = self._connection.execute(
            _WOKEN,
            {
                "queue": self.limits.queue,
                "now": self.now,
                "code": _listed(code),
                "slots": None if slots is None else json.dumps(slots),
                "full": json.dumps(full),
                "limit": limit,
            },
        )
        return self._candidates(rows)

    def _candidates(self, rows: Any) -> list[Candidate]:
        return [
            Candidate(
                task_id, due_at, partition or "", bool(is_start), slot, parent_id, self.limits.queue, priority,
                needs,
            )
            for task_id, due_at, partition, is_start, slot, parent_id, priority, needs in rows
        ]  # fmt: skip


def _listed(code: frozenset[str]) -> str:
    return json.dumps(sorted(code))


# Nearest first.
_PLACES_ABOVE = """
with recursive line(id, parent_id, queue, slot) as (
  select id, parent_id, queue, slot from outlast_task where id = :id
  union all
  select t.id, t.parent_id, t.queue, t.slot from line join outlast_task t on t.id = line.parent_id)
select slot from line where queue = :queue and slot is not null
"""

_WOKEN = """
select id, due_at, partition, started_at is null, slot, parent_id, priority, needs from outlast_task
where queue = :queue and due_at <= :now and due_at is not null and paused_at is null and slot is not null
  and suspect = 0 and needs in (select value from json_each(:code))
  and (:slots is null or slot in (select value from json_each(:slots)))
  and coalesce(partition, '') not in (select value from json_each(:full))
order by due_at, id limit :limit + 0
"""

# Of each place the first in the order in which they were submitted; what has ended is passed over by the index.
_NEXT_BELOW = """
select t.id, t.due_at, t.partition, t.started_at is null, t.slot, t.parent_id, t.priority, t.needs
from json_each(:slots) place cross join outlast_task t on t.id = (
  with recursive below(id) as (
    select place.value
    union all
    select b.id from below cross join outlast_task b on b.parent_id = below.id where b.ended_at is null)
  select b.id from below cross join outlast_task b on b.id = below.id
  where b.queue = :queue and b.due_at <= :now and b.paused_at is null and b.started_at is null
    and b.needs in (select value from json_each(:code))
  limit 1)
limit :limit + 0
"""

_SET_PLACE = "update outlast_task set slot = :slot where id = :id"


def set_place(transaction: Transaction, task_id: int, place: int) -> None:
    """Note the place that a claimed task uses; it is free again when the task leaves its agent, or ends."""
    transaction.execute(_SET_PLACE, {"id": task_id, "slot": place})

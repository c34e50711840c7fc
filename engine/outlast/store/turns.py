"""Turns: the partitions of a queue are served one after the other, whatever each has waiting.

Owns the walk from partition to partition in the index, and the order that comes of it. Refuses to look at more
than a bounded number of partitions at once: where most of them only sleep, the walk stops, goes on from there
at the next claim, and the longest due are taken meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

_MOST_VISITED = 2_000


class Candidate(Struct, gc=False):
    """A due task of a queue that has limits or partitions. `partition` is '' where it has none."""

    task_id: int
    due_at: int
    partition: str
    is_start: bool
    slot: int | None
    parent_id: int | None
    queue: str
    priority: int
    needs: str


class Pool(Struct, frozen=True):
    """One (queue, priority, code), of which due tasks are asked for. Suspects are never among them."""

    queue: str
    priority: int
    needs: str
    now: int
    full: str = "[]"
    """The partitions from which nothing may be taken, as a JSON list."""
    skips_kept: bool = False
    """Whether to pass over the tasks of runs that keep a place: they use that one, and are found from there."""

    def parameters(self, **more: Any) -> dict[str, Any]:
        return {
            "queue": self.queue,
            "priority": self.priority,
            "needs": self.needs,
            "now": self.now,
            "skips_kept": int(self.skips_kept),
            **more,
        }

    def candidates(self, rows: Iterable[tuple[Any, ...]]) -> list[Candidate]:
        return [
            Candidate(
                task_id, due_at, partition or "", bool(is_start), slot, parent_id, self.queue, self.priority,
                self.needs,
            )
            for task_id, due_at, partition, is_start, slot, parent_id in rows
        ]  # fmt: skip


_WITHOUT_PARTITION = """
select id, due_at, partition, started_at is null, slot, parent_id from outlast_task
where due_at <= :now and due_at is not null and paused_at is null and partition is null
  and queue = :queue and priority = :priority and needs = :needs and suspect = 0
  and not (:skips_kept and parent_id is not null and exists (
    select 1 from outlast_task above join outlast_task kept on kept.queue = :queue and kept.slot = above.slot
    where above.id = outlast_task.parent_id and above.queue = :queue
      and kept.slot is not null and kept.finished_at is null))
order by due_at, id limit :limit + 0
"""


def without_partition(connection: sqlite3.Connection, pool: Pool, *, limit: int) -> list[Candidate]:
    """The tasks without a partition that are longest due."""
    return pool.candidates(connection.execute(_WITHOUT_PARTITION, pool.parameters(limit=limit)))


_ANY_DUE = """
select 1 from outlast_task
where due_at <= :now and due_at is not null and paused_at is null and partition is not null
  and queue = :queue and priority = :priority and needs = :needs
limit 1
"""

_LONGEST_DUE = """
select id, due_at, partition, started_at is null, slot, parent_id from outlast_task
where due_at <= :now and due_at is not null and paused_at is null and partition is not null
  and queue = :queue and priority = :priority and needs = :needs and suspect = 0
  and partition not in (select value from json_each(:full))
  and not (:skips_kept and parent_id is not null and exists (
    select 1 from outlast_task above join outlast_task kept on kept.queue = :queue and kept.slot = above.slot
    where above.id = outlast_task.parent_id and above.queue = :queue
      and kept.slot is not null and kept.finished_at is null))
order by due_at, id limit :limit + 0
"""


def with_partition(connection: sqlite3.Connection, pool: Pool, *, limit: int, after: str) -> tuple[list[Candidate], str | None]:
    """Due tasks of as many partitions as there are tasks to take, from the one after `after` on, and all around.

    With them, where the walk had to stop early: the partition to go on from.
    """
    if connection.execute(_ANY_DUE, pool.parameters()).fetchone() is None:
        return [], None
    heads, stopped_at = _walk(connection, pool, after=after, until=None, limit=limit)
    if stopped_at is None and len(heads) < limit and after:
        around, stopped_at = _walk(connection, pool, after="", until=after, limit=limit - len(heads))
        heads += around
    if len(heads) < limit and stopped_at is None:
        return _more_of_each(connection, pool, heads, limit=limit), None
    if len(heads) < limit:
        seen = {head.task_id for head in heads}
        rows = connection.execute(_LONGEST_DUE, pool.parameters(full=pool.full, limit=limit))
        heads += [one for one in pool.candidates(rows) if one.task_id not in seen]
    return heads, stopped_at


# From partition to partition by a jump in the index for each. The last one visited is among the rows even where it has nothing
# due, so that the caller knows where to go on.
_WALK = """
with recursive turn(partition, number) as (
  select (
    select partition from outlast_task
    where due_at is not null and paused_at is null and partition is not null
      and queue = :queue and priority = :priority and needs = :needs and partition > :after
    order by partition limit 1), 1
  union all
  select (
    select t.partition from outlast_task t
    where t.due_at is not null and t.paused_at is null and t.partition is not null
      and t.queue = :queue and t.priority = :priority and t.needs = :needs and t.partition > turn.partition
    order by t.partition limit 1), number + 1
  from turn
  where turn.partition is not null and number < :visits),
head(partition, number, id) as (
  select partition, number, case when turn.partition not in (select value from json_each(:full)) then (
    select id from outlast_task
    where due_at <= :now and due_at is not null and paused_at is null and partition is not null
      and queue = :queue and priority = :priority and needs = :needs and partition = turn.partition
      and suspect = 0
      and not (:skips_kept and parent_id is not null and exists (
        select 1 from outlast_task above join outlast_task kept on kept.queue = :queue and kept.slot = above.slot
        where above.id = outlast_task.parent_id and above.queue = :queue
          and kept.slot is not null and kept.finished_at is null))
    order by due_at, id limit 1) end
  from turn
  where turn.partition is not null and (:until is null or turn.partition <= :until))
select t.id, t.due_at, head.partition, t.started_at is null, t.slot, t.parent_id, head.number
from head left join outlast_task t on t.id = head.id
where head.id is not null or head.number = :visits
limit :limit + 0
"""


def _walk(connection: sqlite3.Connection, pool: Pool, *, after: str, until: str | None, limit: int) -> tuple[list[Candidate], str | None]:
    """The longest due of each partition on the way; with them, where the walk stopped because it grew too long."""
    rows = connection.execute(
        _WALK,
        pool.parameters(after=after, until=until, full=pool.full, visits=_MOST_VISITED, limit=limit),
    ).fetchall()
    heads = pool.candidates(row[:6] for row in rows if row[0] is not None)
    is_cut = bool(rows) and rows[-1][6] == _MOST_VISITED and len(heads) < limit
    return heads, rows[-1][2] if is_cut else None


_NEXT_OF_PARTITION = """
select id, due_at, partition, started_at is null, slot, parent_id from outlast_task
where due_at <= :now and due_at is not null and paused_at is null and partition is not null
  and queue = :queue and priority = :priority and needs = :needs and partition = :partition and suspect = 0
  and not (:skips_kept and parent_id is not null and exists (
    select 1 from outlast_task above join outlast_task kept on kept.queue = :queue and kept.slot = above.slot
    where above.id = outlast_task.parent_id and above.queue = :queue
      and kept.slot is not null and kept.finished_at is null))
order by due_at, id limit :limit + 0 offset 1
"""


def _more_of_each(connection: sqlite3.Connection, pool: Pool, heads: list[Candidate], *, limit: int) -> list[Candidate]:
    """There are fewer partitions than tasks to take: as many of each as make up the number."""
    if not heads:
        return heads
    each = -(-limit // len(heads)) - 1
    found = list(heads)
    for head in heads:
        rows = connection.execute(_NEXT_OF_PARTITION, pool.parameters(partition=head.partition, limit=each))
        found += pool.candidates(rows)
    return found


def in_turn(candidates: list[Candidate], *, after: str) -> list[tuple[int, int, Candidate]]:
    """Candidates of one queue as (priority, due, candidate), in the order in which they are to be taken.

    Within a priority the partitions take turns, from the one after `after` on. The due instants are handed out
    anew in that order, so that sorting by them among other queues keeps it.
    """
    by_priority: dict[int, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_priority[candidate.priority].append(candidate)
    ordered = []
    for priority, equals in by_priority.items():
        equals.sort(key=attrgetter("due_at", "task_id"))
        rounds: dict[str, int] = defaultdict(int)
        places = []
        for position, candidate in enumerate(equals):
            partition = candidate.partition
            places.append((rounds[partition], partition <= after, partition, position))
            rounds[partition] += 1
        places.sort()
        dues = [candidate.due_at for candidate in equals]
        ordered += [(priority, due_at, equals[place[3]]) for due_at, place in zip(dues, places, strict=True)]
    return ordered


_TURN = "select partition from outlast_turn where queue = :queue"


def last_served(connection: sqlite3.Connection, queue: str) -> str:
    """The partition whose turn it was last; '' is that of tasks without one."""
    row = connection.execute(_TURN, {"queue": queue}).fetchone()
    return row[0] if row is not None else ""


_SET_TURN = """
insert into outlast_turn (queue, partition) values (:queue, :partition)
on conflict (queue) do update set partition = excluded.partition
"""


def serve(transaction: Transaction, queue: str, partition: str) -> None:
    """Note whose turn it was."""
    transaction.execute(_SET_TURN, {"queue": queue, "partition": partition})

"""The walk over what waits: every (queue, priority, code) that some unleased task has, by a jump in the index for each.

Owns the statements of the jumps, over the index of tasks without a partition and over that of the others. Refuses to
read tasks: how many there are of each kind costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .library import sqlite3

Combination = tuple[str, int, str]
"""A queue, a priority, and the code that is needed."""


class Jumps(NamedTuple):
    """The statements of a walk over one index."""

    next_queue: str
    next_priority: str
    next_needs: str


PLAIN = Jumps(
    """
    select queue from outlast_task
    where due_at is not null and paused_at is null and partition is null and queue > :queue order by queue limit 1
    """,
    """
    select priority from outlast_task
    where due_at is not null and paused_at is null and partition is null and queue = :queue and priority < :priority
    order by priority desc limit 1
    """,
    """
    select needs from outlast_task
    where due_at is not null and paused_at is null and partition is null
      and queue = :queue and priority = :priority and needs > :needs
    order by needs limit 1
    """,
)

PARTITIONED = Jumps(
    """
    select queue from outlast_task
    where due_at is not null and paused_at is null and partition is not null and queue > :queue order by queue limit 1
    """,
    """
    select priority from outlast_task
    where due_at is not null and paused_at is null and partition is not null
      and queue = :queue and priority < :priority
    order by priority desc limit 1
    """,
    """
    select needs from outlast_task
    where due_at is not null and paused_at is null and partition is not null
      and queue = :queue and priority = :priority and needs > :needs
    order by needs limit 1
    """,
)

_HIGHEST = 1 << 62


def combinations(connection: sqlite3.Connection, queues: tuple[str, ...] | None, jumps: Jumps) -> Iterator[Combination]:
    """Every combination that there is, of these queues or of all."""
    for queue in queues if queues is not None else _walk_queues(connection, jumps):
        priority = _HIGHEST
        while True:
            row = connection.execute(jumps.next_priority, {"queue": queue, "priority": priority}).fetchone()
            if row is None:
                break
            priority = row[0]
            needs = ""
            while True:
                row = connection.execute(jumps.next_needs, {"queue": queue, "priority": priority, "needs": needs}).fetchone()
                if row is None:
                    break
                needs = row[0]
                yield queue, priority, needs


def _walk_queues(connection: sqlite3.Connection, jumps: Jumps) -> Iterator[str]:
    queue = ""
    while True:
        row = connection.execute(jumps.next_queue, {"queue": queue}).fetchone()
        if row is None:
            return
        queue = row[0]
        yield queue

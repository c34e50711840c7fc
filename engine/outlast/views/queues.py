"""Queues as JSON: what waits, what runs, and the limits in force.

Owns the shape of a queue. Refuses to keep any figure: they are counted when asked for. The limits are those of the
file; of a queue that no agent has brought there yet, those that the app declares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import clock
from ..store import queues as stored

if TYPE_CHECKING:
    from ..definition.registry import Registry
    from ..store.sqlite import SqliteStore

# In two, since an index of its own holds the tasks that have a partition.
_DEPTHS = """
select queue, count(*), min(due_at) from outlast_task
where due_at <= :now and due_at is not null and paused_at is null and partition is null
group by queue
union all
select queue, count(*), min(due_at) from outlast_task
where due_at <= :now and due_at is not null and paused_at is null and partition is not null
group by queue
"""

_RUNNING = "select queue, count(*) from outlast_task where agent_id is not null group by queue"


def queues_json(store: SqliteStore, registry: Registry | None = None) -> list[dict[str, Any]]:
    """The queues that are declared, set or hold something, by name. `depth` counts what is due and not taken."""
    connection, now = store.connection(), store.now()
    depths: dict[str, tuple[int, int]] = {}
    for queue, count, due_at in connection.execute(_DEPTHS, {"now": now}):
        before = depths.get(queue, (0, due_at))
        depths[queue] = (before[0] + count, min(before[1], due_at))
    running = dict(connection.execute(_RUNNING).fetchall())
    known: dict[str, Any] = dict(registry.queues()) if registry is not None else {}
    in_force = stored.known(connection)
    return [
        _queue_json(
            name,
            in_force.get(name, known.get(name)),
            depths.get(name),
            running.get(name, 0),
            now=now,
            is_paused=name in in_force and in_force[name].paused_at is not None,
        )
        for name in sorted({*known, *in_force, *depths, *running})
    ]


def _queue_json(name: str, limits: Any, depth: tuple[int, int] | None, running: int, *, now: int, is_paused: bool) -> dict[str, Any]:
    return {
        "name": name,
        "depth": depth[0] if depth is not None else 0,
        "running": running,
        "oldest_seconds": None if depth is None else round((now - depth[1]) / clock.SECOND, 3),
        "concurrency": limits.concurrency if limits is not None else None,
        "rate": limits.rate if limits is not None else None,
        "per_partition": limits.per_partition if limits is not None else None,
        "paused": is_paused,
    }

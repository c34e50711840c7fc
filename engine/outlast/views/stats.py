"""Counts: runs by status, queues by depth, agents by status, and how long the oldest task has been due.

Owns the figures of `stats` and `queues`. Refuses to keep any: they are counted when asked for.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .. import clock
from .agents import agents_json

if TYPE_CHECKING:
    from ..registry import Registry
    from ..store.sqlite import SqliteStore

_BY_STATUS = """
select kind,
       case when paused_at is not null and agent_id is null
             and status in ('pending', 'waiting', 'compensating') then 'paused' else status end as shown,
       count(*)
from outlast_task group by kind, shown
"""


def stats_json(store: SqliteStore, registry: Registry | None = None) -> dict[str, Any]:
    """The figures of the whole file."""
    runs: dict[str, int] = {}
    steps: dict[str, int] = {}
    for kind, status, count in store.connection().execute(_BY_STATUS):
        (runs if kind == "run" else steps)[status] = count
    queues = queues_json(store, registry)
    agents = agents_json(store)
    waits = [queue["oldest_seconds"] for queue in queues if queue["oldest_seconds"] is not None]
    return {
        "runs": dict(sorted(runs.items())),
        "submitted_steps": dict(sorted(steps.items())),
        "depth": sum(queue["depth"] for queue in queues),
        "running": sum(queue["running"] for queue in queues),
        "oldest_seconds": max(waits, default=None),
        "queues": queues,
        "agents": dict(sorted(Counter(agent["status"] for agent in agents).items())),
        "slots": sum(agent["slots"] for agent in agents if agent["status"] == "active"),
    }


_DEPTHS = """
select queue, count(*), min(due_at) from outlast_task
where due_at <= :now and due_at is not null and paused_at is null
group by queue
"""

_RUNNING = "select queue, count(*) from outlast_task where agent_id is not null group by queue"


def queues_json(store: SqliteStore, registry: Registry | None = None) -> list[dict[str, Any]]:
    """The queues that are declared or hold something, by name. `depth` counts what is due and not taken."""
    connection, now = store.connection(), store.now()
    depths = {queue: (count, due_at) for queue, count, due_at in connection.execute(_DEPTHS, {"now": now})}
    running = dict(connection.execute(_RUNNING).fetchall())
    declared = registry.queues() if registry is not None else {}
    found = []
    for name in sorted({*declared, *depths, *running}):
        depth, due_at = depths.get(name, (0, None))
        queue = declared.get(name)
        found.append(
            {
                "name": name,
                "depth": depth,
                "running": running.get(name, 0),
                "oldest_seconds": None if due_at is None else round((now - due_at) / clock.SECOND, 3),
                "concurrency": queue.concurrency if queue is not None else None,
                "rate": queue.rate if queue is not None else None,
                "per_partition": queue.per_partition if queue is not None else None,
                "paused": False,
            }
        )
    return found

"""Counts: runs by status, queues by depth, agents by status, and how long the oldest task has been due.

Owns the figures of `stats`. Refuses to keep any: they are counted when asked for.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from .agents import agents_json
from .queues import queues_json

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_BY_STATUS = """
select kind,
       case when paused_at is not null and agent_id is null
             and status in ('pending', 'waiting', 'compensating') then 'paused' else status end as shown,
       count(*)
from outlast_task group by kind, shown
"""


def stats_json(store: SqliteStore) -> dict[str, Any]:
    """The figures of the whole file."""
    runs: dict[str, int] = {}
    steps: dict[str, int] = {}
    for kind, status, count in store.connection().execute(_BY_STATUS):
        (runs if kind == "run" else steps)[status] = count
    queues = queues_json(store)
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

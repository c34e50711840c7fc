"""Agents as JSON: who may claim, who holds what, and who has gone silent.

Owns the shape of an agent. Refuses to declare anybody dead: that is the supervisor's; one whose lease is
over is shown as `silent`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .values import wall_json

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_AGENTS = """
select a.uid, a.host, a.pid, a.queues, a.status, a.lease_until, a.heartbeat_at, a.slots, a.started_at,
       (select count(*) from outlast_task t where t.agent_id = a.id)
from outlast_agent a
where :everyone or a.status in ('active', 'draining')
order by a.id desc
"""


def agents_json(store: SqliteStore, *, everyone: bool = False) -> list[dict[str, Any]]:
    """The agents that are up, the newest first; with `everyone` also those that have ended."""
    now = store.now()
    rows = store.connection().execute(_AGENTS, {"everyone": everyone})
    return [
        {
            "id": uid,
            "host": host_name(host),
            "pid": pid,
            "queues": queue_names(queues),
            "status": "silent" if status in ("active", "draining") and lease_until < now else status,
            "running": running,
            "slots": slots,
            "started_at": wall_json(started_at),
            "heartbeat_at": wall_json(heartbeat_at),
        }
        for uid, host, pid, queues, status, lease_until, heartbeat_at, slots, started_at, running in rows
    ]


def host_name(host: str) -> str:
    """The name alone: the machine and the namespace of its pids are nobody's reading."""
    return host.partition("/")[0]


def queue_names(text: str | None) -> list[str] | None:
    """The queues that an agent serves; None is all of them."""
    if text is None:
        return None
    if text.startswith("["):
        names: list[str] = json.loads(text)
        return names
    return [name for name in text.split(",") if name]

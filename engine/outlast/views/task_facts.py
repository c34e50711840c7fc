"""What is known of one task: its row, with what lies beside it, and the agent that holds it.

Owns these values, which `why` explains. Refuses to judge them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..model import code_alone
from .agents import host_name

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class Holder:
    """The agent that holds a task."""

    uid: str
    host: str
    pid: int
    lease_until: int
    heartbeat_at: int
    status: str


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task that was read from the file. What is named as a column is that column."""

    id: int
    uid: str
    kind: str
    status: str
    queue: str
    partition: str | None
    slot: int | None
    priority: int
    due_at: int | None
    claim: int
    suspect: int
    alone: int
    crashes: int
    tries: int
    wait_count: int | None
    wait_fails_fast: int
    parent_id: int | None
    root_id: int
    """Its own, if nothing is above it."""
    ending: str | None
    undo: str | None
    cancel_requested_at: int | None
    paused_at: int | None
    deadline_at: int | None
    started_at: int | None
    finished_at: int | None
    halt_reason: str | None
    at_wall: int | None
    error: bytes | None
    undo_error: bytes | None
    parent_uid: str | None
    needs: str
    """The code alone, without what a claim knows of it besides."""
    awaits: list[str]
    """The signals that wake it."""
    refused: list[str]
    """The code that disagreed with its journal."""
    holder: Holder | None

    @property
    def run_uid(self) -> str:
        """The run that commands act on: of a submitted step, its run."""
        return self.uid if self.kind == "run" else self.parent_uid or self.uid


_TASK = """
select t.id, t.uid, t.kind, t.status, t.queue, t.partition, t.slot, t.priority, t.due_at, t.claim, t.suspect, t.alone,
       t.crashes, t.tries, t.wait_count, t.wait_fails_fast, t.parent_id, coalesce(t.root_id, t.id), t.ending, t.undo,
       t.cancel_requested_at, t.paused_at, t.deadline_at, t.started_at, t.finished_at, t.halt_reason, i.at_wall, o.error, o.undo_error,
       p.uid, t.needs, t.awaits, i.refused, a.uid, a.host, a.pid, a.lease_until, a.heartbeat_at, a.status
from outlast_task t
left join outlast_input i on i.task_id = t.id
left join outlast_outcome o on o.task_id = t.id
left join outlast_task p on p.id = t.parent_id
left join outlast_agent a on a.id = t.agent_id
where t.id = :id
"""


def task_facts(store: SqliteStore, task_id: int) -> TaskFacts | None:
    """What the file says of a task, if it has it."""
    row = store.connection().execute(_TASK, {"id": task_id}).fetchone()
    if row is None:
        return None
    *columns, needs, awaits, refused, agent, host, pid, lease_until, heartbeat_at, status = row
    holder = None if agent is None else Holder(agent, host_name(host), pid, lease_until, heartbeat_at, status)
    columns += [code_alone(needs), names_in(awaits), names_in(refused), holder]
    return TaskFacts(*columns)


def names_in(text: str | None) -> list[str]:
    """A stored list; where it is damaged, nothing is known of it."""
    try:
        names = json.loads(text) if text else []
    except (ValueError, RecursionError):
        names = []
    return names if isinstance(names, list) else []

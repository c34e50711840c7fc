"""What a task waits for, as facts: open waits in its journal, unread signals, open parts, strays, and who
could take it.

Owns the looks that `why` and `doctor` share. Refuses to judge: it says what the file says, and the
sentences are theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..journal.entry import Entry
from ..store import journal
from ..store.process import ProcessIdentity, is_alive
from .agents import host_name, queue_names
from .task_facts import TaskFacts, names_in
from .values import engine_json, wall_json

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_CLOSING = frozenset({"completed", "failed", "cancelled", "unknown", "set_aside"})
_WAITING_KINDS = frozenset({"timer", "signal", "task", "child", "step", "transaction", "compensation"})


def open_entries(entries: Iterable[Entry]) -> list[Entry]:
    """The last entry of each place that has begun and has no outcome: timers, signals, parts, steps and
    their backoffs.
    """
    last: dict[str, Entry] = {}
    for entry in entries:
        if entry.event in _CLOSING:
            last.pop(entry.path, None)
        elif entry.kind in _WAITING_KINDS:
            last[entry.path] = entry
    return sorted(last.values(), key=lambda entry: entry.seq)


ENDINGS = {"completed": "has returned", "failed": "has failed", "cancelled": "is being cancelled"}
"""What is said of a run whose ending is decided."""

_STANDS = """
select t.awaits, t.due_at, t.started_at, a.lease_until, t.ending
from outlast_task t left join outlast_agent a on a.id = t.agent_id
where t.id = :id and (t.status = 'waiting' or t.status = 'running' and t.ending is null and a.lease_until >= :now)
"""


def waits_json(store: SqliteStore, task_id: int) -> list[dict[str, Any]]:
    """What a run waits for: timers, signals, next tries; its parts where there is nothing else. Of one on an agent that waits for nothing
    and executes no step that the journal knows, that it is at work, and since when nothing has been written.
    """
    row = store.connection().execute(_STANDS, {"id": task_id, "now": store.now()}).fetchone()
    if row is None:
        return []
    if row[4] is not None:
        return [{"kind": "ending", "name": ENDINGS[row[4]], "due_at": None}]
    is_held = row[3] is not None
    journalled = journal.load(store.connection(), task_id)
    entries = [entry for entry in open_entries(journalled) if entry.kind != "compensation"]
    # A try that is due is executed on the agent: its step is drawn as running.
    open_now = [entry for entry in entries if not is_held or entry.event != "tried" or (entry.due_at or 0) > store.now()]
    found = [
        {"kind": "retry" if entry.event == "tried" else entry.kind, "name": entry.name, "due_at": engine_json(store, entry.due_at)}
        for entry in open_now
        if entry.kind in ("timer", "signal") or (entry.event == "tried" and entry.due_at is not None)
    ]
    if is_held:
        since = wall_json(journalled[-1].at if journalled else row[2])
        return found if entries else [{"kind": "work", "name": "", "due_at": None, "since": since}]
    told = {one["name"] for one in found if one["kind"] == "signal"}
    found += [{"kind": "signal", "name": name, "due_at": None} for name in names_in(row[0]) if name not in told]
    if not found:
        found = [{"kind": entry.kind, "name": entry.name, "due_at": None} for entry in entries if entry.kind in ("task", "child")]
    if not found and row[1] is not None:
        found = [{"kind": "timer", "name": "", "due_at": engine_json(store, row[1])}]
    return found


_UNREAD = """
select name, count(*) from outlast_signal
where task_id = :id and taken_path is null group by name order by name
"""


def unread_signals(store: SqliteStore, task_id: int) -> dict[str, int]:
    """How many signals of each name nobody has taken."""
    return dict(store.connection().execute(_UNREAD, {"id": task_id}).fetchall())


_OPEN_PARTS = """
select id, uid, kind, name, status, parent_path from outlast_task
where parent_id = :id and finished_at is null order by id limit :limit
"""

_COUNT_OPEN_PARTS = """
select count(*) from outlast_task
where parent_id = :id and finished_at is null and (kind = 'step' or :with_children)
"""


@dataclass(frozen=True, slots=True)
class Part:
    """A child or a submitted step that is not final."""

    task_id: int
    uid: str
    kind: str
    name: str
    status: str
    path: str


def open_parts(store: SqliteStore, task_id: int, *, limit: int) -> list[Part]:
    rows = store.connection().execute(_OPEN_PARTS, {"id": task_id, "limit": limit})
    return [Part(*row) for row in rows]


def count_open_parts(store: SqliteStore, task_id: int, *, with_children: bool = True) -> int:
    row = store.connection().execute(_COUNT_OPEN_PARTS, {"id": task_id, "with_children": with_children}).fetchone()
    count: int = row[0]
    return count


_STRAYS = """
with recursive tree(id) as (
  select :id
  union all
  select t.id from outlast_task t join tree on t.parent_id = tree.id)
select s.path, s.since_at, a.uid, a.host, a.boot_id, a.pid, a.process_started
from outlast_stray s join outlast_agent a on a.id = s.agent_id
where s.task_id in (select id from tree)
order by s.since_at
"""


@dataclass(frozen=True, slots=True)
class Stray:
    """A try that may still be under way although its task has moved on."""

    path: str
    since_at: int
    agent: str
    host: str
    pid: int
    lives: bool | None
    """None where it cannot be seen from here."""


def strays(store: SqliteStore, task_id: int) -> list[Stray]:
    """The strays of a task and of its parts."""
    rows = store.connection().execute(_STRAYS, {"id": task_id})
    return [
        Stray(path, since_at, uid, host_name(host), pid, is_alive(ProcessIdentity(host, boot, pid, started)))
        for path, since_at, uid, host, boot, pid, started in rows
    ]


_LIVE = """
select a.id, a.uid, a.host, a.pid, a.slots, a.queues, a.status, a.lease_until, a.heartbeat_at,
       (select c.fingerprint from outlast_agent_code c where c.agent_id = a.id and c.needs = :needs),
       (select count(*) from outlast_task t where t.agent_id = a.id)
from outlast_agent a
where a.status in ('active', 'draining') and (a.root_id is null or a.root_id = :root_id)
order by a.id
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent that is up, beside a task: whether it could take it."""

    agent_id: int
    uid: str
    host: str
    pid: int
    slots: int
    queues: list[str] | None
    status: str
    lease_until: int
    heartbeat_at: int
    fingerprint: str | None
    """Of the code that the task needs; None where the agent does not have it."""
    running: int

    def serves(self, queue: str) -> bool:
        return self.queues is None or queue in self.queues


def candidates(store: SqliteStore, facts: TaskFacts) -> list[Candidate]:
    """The agents whose lease holds, with the fingerprint of the code that a task needs; none that works on another run alone."""
    now = store.now()
    found = []
    for row in store.connection().execute(_LIVE, {"needs": facts.needs, "root_id": facts.root_id}):
        agent_id, uid, host, pid, slots, queues, status, lease_until, heartbeat_at, fingerprint, running = row
        if lease_until >= now:
            found.append(
                Candidate(
                    agent_id,
                    uid,
                    host_name(host),
                    pid,
                    slots,
                    queue_names(queues),
                    status,
                    lease_until,
                    heartbeat_at,
                    fingerprint,
                    running,
                )
            )
    return found


_OTHER_VERSIONS = """
select distinct c.needs from outlast_agent_code c join outlast_agent a on a.id = c.agent_id
where a.status = 'active' and (c.needs = :code or c.needs >= :code || '@' and c.needs < :code || 'A')
order by c.needs
"""


def other_versions(store: SqliteStore, needs: str) -> list[str]:
    """The versions of the workflow that live agents do have."""
    rows = store.connection().execute(_OTHER_VERSIONS, {"code": needs.partition("@")[0]})
    return [found.partition("@")[2] or "(none)" for (found,) in rows if found != needs]


_AHEAD = """
select count(*) from (
  select 1 from outlast_task
  where queue = :queue and due_at is not null and paused_at is null and partition is null and due_at <= :now and suspect = 0
    and (priority > :priority or priority = :priority and (due_at < :due_at or due_at = :due_at and id < :id))
  limit 100000)
"""


_AHEAD_IN_PARTITION = """
select count(*) from (
  select 1 from outlast_task
  where queue = :queue and due_at is not null and paused_at is null and partition = :partition and partition is not null
    and due_at <= :now and suspect = 0
    and (priority > :priority or priority = :priority and (due_at < :due_at or due_at = :due_at and id < :id))
  limit 100000)
"""


def count_ahead(store: SqliteStore, facts: TaskFacts) -> int:
    """How many due tasks go before this one: of its queue, or, since partitions take turns, of its partition."""
    parameters = {name: getattr(facts, name) for name in ("queue", "partition", "priority", "due_at", "id")}
    statement = _AHEAD if facts.partition is None else _AHEAD_IN_PARTITION
    count: int = store.connection().execute(statement, {**parameters, "now": store.now()}).fetchone()[0]
    return count

"""Runs as JSON: one, a list by filter, and one with its steps and children.

Owns the shape of a run and the status that the outside sees: a paused run says `paused` once it stands
still, unless it is halted, which asks for more. Refuses to write. A list walks the rows from the newest, so
a limit makes it quick whatever the file holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, RunNotFound
from ..states import Status
from .steps import steps_json
from .values import engine_json, error_json, tags_json, value_json, wall_json
from .waiting import waits_json

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

PAUSED = "paused"
STATUSES = (*(str(status) for status in Status), PAUSED)
"""What a filter may ask for."""

_STATUS = """
select case when paused_at is not null and agent_id is null
             and status in ('pending', 'waiting', 'compensating') then 'paused' else status end
from outlast_task where id = :id
"""


def status_of(store: SqliteStore, task_id: int) -> str:
    """The status of a run as the outside sees it."""
    row = store.connection().execute(_STATUS, {"id": task_id}).fetchone()
    if row is None:
        raise RunNotFound(str(task_id))
    status: str = row[0]
    return status


_RUN = """
select t.id, t.uid, t.name, t.version,
       case when t.paused_at is not null and t.agent_id is null
             and t.status in ('pending', 'waiting', 'compensating') then 'paused' else t.status end,
       t.status, t.queue, t.partition, i.key, i.data, o.output, o.error, t.claim, t.crashes, p.uid,
       i.retry_of, i.tags, t.created_at, t.started_at, t.finished_at, t.due_at, t.deadline_at,
       t.halt_reason, t.undo, o.undo_error, i.at_wall
from outlast_task t
left join outlast_input i on i.task_id = t.id
left join outlast_outcome o on o.task_id = t.id
left join outlast_task p on p.id = t.parent_id
where t.id = :id
"""


def run_json(store: SqliteStore, task_id: int, *, raw: bool = False) -> dict[str, Any]:
    """One run. Values are readable JSON; with `raw` they have their tags. Raises `RunNotFound`."""
    row = store.connection().execute(_RUN, {"id": task_id}).fetchone()
    if row is None:
        raise RunNotFound(str(task_id))
    return _run(store, row, raw=raw)


_IDS = """
select t.id, t.uid
from outlast_task t
left join outlast_input i on i.task_id = t.id
where t.kind = 'run'
  and (:statuses is null
       or case when t.paused_at is not null and t.agent_id is null
                and t.status in ('pending', 'waiting', 'compensating') then 'paused' else t.status end
          in (select value from json_each(:statuses)))
  and (:workflow is null or t.name = :workflow)
  and (:version is null or t.version = :version)
  and (:since is null or t.created_at >= :since)
  and (:until is null or t.created_at < :until)
  and (:tags is null or not exists (
    select 1 from json_each(:tags) wanted
    where not exists (
      select 1 from json_each(iif(json_valid(i.tags), i.tags, '{}')) given where given.key = wanted.key and given.value = wanted.value)))
order by t.id desc limit :limit
"""


def find_runs(
    store: SqliteStore,
    *,
    status: str | Iterable[str] | None = None,
    workflow: str | None = None,
    tags: Mapping[str, str] | None = None,
    since: int | None = None,
    until: int | None = None,
    limit: int | None = 100,
) -> list[tuple[int, str]]:
    """The row and the id of the runs that fit every filter, the newest first.

    `since` and `until` are wall microseconds. `workflow` is a name, or `name@version`. Raises
    `InvalidInput` for a status that there is not.
    """
    name, at_sign, version = workflow.partition("@") if workflow is not None else (None, "", "")
    rows = store.connection().execute(
        _IDS,
        {
            "statuses": json.dumps(checked_statuses(status)) if status is not None else None,
            "workflow": name,
            "version": version if at_sign else None,
            "tags": json.dumps(dict(tags)) if tags else None,
            "since": since,
            "until": until,
            "limit": -1 if limit is None else max(limit, 0),
        },
    )
    return [(row[0], row[1]) for row in rows]


def runs_json(
    store: SqliteStore,
    *,
    status: str | Iterable[str] | None = None,
    workflow: str | None = None,
    tags: Mapping[str, str] | None = None,
    since: int | None = None,
    until: int | None = None,
    limit: int | None = 100,
    raw: bool = False,
) -> list[dict[str, Any]]:
    """The runs that fit every filter, the newest first, as `find_runs` finds them."""
    found = find_runs(store, status=status, workflow=workflow, tags=tags, since=since, until=until, limit=limit)
    return [run_json(store, task_id, raw=raw) for task_id, _ in found]


def checked_statuses(status: str | Iterable[str]) -> list[str]:
    """The statuses to filter by; `InvalidInput` lists what there is."""
    wanted = [status] if isinstance(status, str) else list(status)
    for one in wanted:
        if one not in STATUSES:
            raise InvalidInput(f"There is no status {one!r}.", hint=f"A run is one of {', '.join(STATUSES)}.")
    return [str(one) for one in wanted]


_CHILDREN = "select id, uid from outlast_task where parent_id = :id and kind = 'run' order by id"


def children_ids(store: SqliteStore, task_id: int) -> list[tuple[int, str]]:
    """The row and the id of every child of a run, in order of their start."""
    return [(row[0], row[1]) for row in store.connection().execute(_CHILDREN, {"id": task_id})]


def show_json(store: SqliteStore, task_id: int, *, raw: bool = False, waits: bool = True) -> dict[str, Any]:
    """A run with its `steps`, what it `waits` for, its `tick`, and its `children`, which are shown the same way, down to the last."""
    whole = _shown(store, task_id, raw=raw, waits=waits)
    open_nodes, seen = [(task_id, whole)], {task_id}
    while open_nodes:
        parent_id, node = open_nodes.pop()
        for child_id, _ in children_ids(store, parent_id):
            if child_id in seen:
                continue  # Only in a damaged file is a run its own descendant; without an end it would fill the memory.
            seen.add(child_id)
            child = _shown(store, child_id, raw=raw, waits=waits)
            node["children"].append(child)
            open_nodes.append((child_id, child))
    return whole


_TICK = "select tick from outlast_input where task_id = :id"


def _tick(store: SqliteStore, task_id: int) -> str | None:
    """The nominal instant that a schedule started a run for."""
    row = store.connection().execute(_TICK, {"id": task_id}).fetchone()
    return None if row is None else wall_json(row[0])


def _shown(store: SqliteStore, task_id: int, *, raw: bool, waits: bool) -> dict[str, Any]:
    waiting = {"waits": waits_json(store, task_id), "tick": _tick(store, task_id)} if waits else {}
    return {**run_json(store, task_id, raw=raw), "steps": steps_json(store, task_id, raw=raw, drawn=waits), **waiting, "children": []}


def _run(store: SqliteStore, row: tuple[Any, ...], *, raw: bool) -> dict[str, Any]:
    (_, uid, name, version, shown, status, queue, partition, key, given, output, error, claim, crashes,
     parent, retry_of, tags, created_at, started_at, finished_at, due_at, deadline_at,
     halt_reason, undo, undo_error, at_wall) = row  # fmt: skip
    # Of a start at a wall instant, due_at is only the image in engine time.
    waits_for_wall = at_wall is not None and due_at is not None and claim == 0
    return {
        "id": uid,
        "workflow": name,
        "version": version,
        "status": shown,
        "queue": queue,
        "partition": partition,
        "key": key,
        "input": value_json(given, raw=raw),
        "output": value_json(output, raw=raw) if status == Status.COMPLETED else None,
        "error": error_json(error),
        "claim": claim,
        "crashes": crashes,
        "parent_id": parent,
        "retry_of": retry_of,
        "tags": tags_json(tags),
        "created_at": wall_json(created_at),
        "started_at": wall_json(started_at),
        "finished_at": wall_json(finished_at),
        "due_at": wall_json(at_wall) if waits_for_wall else engine_json(store, due_at),
        "deadline_at": engine_json(store, deadline_at),
        "halt_reason": halt_reason,
        "undo": None if undo is None else {"status": undo, "error": error_json(undo_error)},
    }

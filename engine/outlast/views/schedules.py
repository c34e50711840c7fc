"""Schedules and their ticks as JSON: what comes, what became of each tick, and why one does not fire.

Owns the shapes of a schedule, of a tick and of what comes next. Refuses to decide and to import code: a rule
that is an object of code is shown by its description, and its coming ticks only to whoever has loaded it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import clock, scheduling
from ..clock import SECOND, iso, to_datetime
from ..definition.source import shown
from ..errors import InvalidInput, OutlastError, ScheduleNotFound
from ..scheduling import Declared
from ..store import schedulers, schedules
from ..store.schedules import StoredSchedule
from ..text.duration import describe
from .values import value_json, wall_json

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore
    from ..timetable import Schedule

_LATE_SECONDS = 10.0
_LAST_TICK = 253_402_214_400_000_000


def schedules_json(store: SqliteStore, code: Mapping[str, Declared], *, raw: bool = False) -> list[dict[str, Any]]:
    """All schedules by name; with those of `code` that no scheduler has taken up yet."""
    connection = store.connection()
    live = [name for row in schedulers.live(connection) for name in json.loads(row.workflows)]
    found = [_json(store, one, code, live, raw=raw) for one in schedules.everything(connection)]
    known = {one["name"] for one in found}
    found += [declared_json(name, one, raw=raw) for name, one in code.items() if name not in known]
    return sorted(found, key=lambda one: str(one["name"]))


def schedule_json(store: SqliteStore, name: str, code: Mapping[str, Declared], *, raw: bool = False) -> dict[str, Any]:
    """One schedule. Raises `ScheduleNotFound`."""
    stored = schedules.find(store.connection(), name)
    if stored is None:
        if name in code:
            return declared_json(name, code[name], raw=raw)
        raise ScheduleNotFound(name)
    live = [one for row in schedulers.live(store.connection()) for one in json.loads(row.workflows)]
    return _json(store, stored, code, live, raw=raw)


def declared_json(name: str, one: Declared, *, raw: bool = False) -> dict[str, Any]:
    """A schedule that is in code alone as yet."""
    coming = one.schedule.timetable.next(clock.wall())
    why = "No scheduler has taken it up yet; it begins when one comes up, as by `outlast up`."
    return {
        **_facts(name, one.workflow.name, one.schedule.describe(), one.schedule.to_json()),
        "input": value_json(one.input, raw=raw),
        "source": "code",
        "file": shown(one.workflow.file),
        "status": "new",
        "pause_reason": None,
        "error": None,
        "next": None if coming is None else instant_json(one.schedule, coming),
        "last": None,
        "created_at": None,
        "paused_at": None,
        "gone_at": None,
        "why": why,
    }


_TICKS = """
select schedule, tick, until, count, outcome, reason, run_id from outlast_tick
where schedule = :name
  and until >= coalesce(:since, until) and tick <= coalesce(:until, tick)
  and outcome = coalesce(:outcome, outcome)
order by tick desc, by_hand desc
limit :limit
"""


def ticks_json(
    store: SqliteStore,
    name: str,
    *,
    since: int | None = None,
    until: int | None = None,
    outcome: str | None = None,
    limit: int | None = 100,
) -> list[dict[str, Any]]:
    """What became of a schedule's ticks, the newest first. Raises `ScheduleNotFound`."""
    connection = store.connection()
    if schedules.find(connection, name) is None:
        raise ScheduleNotFound(name)
    values = {
        "name": name,
        "since": since,
        "until": until,
        "outcome": outcome,
        "limit": -1 if limit is None else limit,
    }
    return [tick_json(*row) for row in connection.execute(_TICKS, values)]


def tick_json(
    schedule: str,
    tick: int,
    until: int,
    count: int | None,
    outcome: str,
    reason: str | None,
    run_id: str | None,
) -> dict[str, Any]:
    return {
        "schedule": schedule,
        "tick": wall_json(tick),
        "until": wall_json(until),
        "count": count,
        "outcome": outcome,
        "reason": reason,
        "run_id": run_id,
    }


def next_json(made: Schedule, after: int, count: int) -> list[dict[str, Any]]:
    """The coming ticks of a rule, in UTC and as the clock on the wall shows them."""
    found: list[dict[str, Any]] = []
    at = after
    while len(found) < count and (tick := made.timetable.next(at)) is not None:
        found.append(instant_json(made, tick))
        at = tick
    return found


def instant_json(made: Schedule, tick: int) -> dict[str, Any]:
    at = to_datetime(tick)
    local = at.astimezone(None if made.zone is None else made.zone.info)
    timespec = "seconds" if local.microsecond == 0 else "milliseconds"
    return {"tick": iso(tick), "local": local.isoformat(timespec=timespec)}


def _json(store: SqliteStore, stored: StoredSchedule, code: Mapping[str, Declared], live: list[str], *, raw: bool) -> dict[str, Any]:
    status, error, coming = _status(stored), stored.error, None
    if status in ("active", "paused"):
        try:
            coming = _coming(store, stored, code)
        except OutlastError as unread:
            # No scheduler has met it yet. It must not hide the others.
            status, error = "broken", str(unread)
    last = ticks_of(store, stored.name, 1)
    return {
        **_stored_facts(stored),
        "input": value_json(stored.input, raw=raw),
        "source": stored.source,
        "file": None if stored.origin is None else shown(stored.origin),
        "status": status,
        "pause_reason": stored.pause_reason if stored.paused_at is not None else None,
        "error": error,
        "next": coming,
        "last": last[0] if last else None,
        "created_at": wall_json(stored.created_at),
        "paused_at": wall_json(stored.paused_at),
        "gone_at": wall_json(stored.gone_at),
        "why": f"It cannot fire: {error}" if status == "broken" else _why(stored, status, live),
    }


def ticks_of(store: SqliteStore, name: str, limit: int) -> list[dict[str, Any]]:
    """The newest rows of a ledger."""
    values = {"name": name, "since": None, "until": None, "outcome": None, "limit": limit}
    return [tick_json(*row) for row in store.connection().execute(_TICKS, values)]


def _stored_facts(stored: StoredSchedule) -> dict[str, Any]:
    try:
        return _facts(stored.name, stored.workflow, stored.description, json.loads(stored.rule))
    except (ValueError, TypeError, LookupError, RecursionError):
        return _facts(stored.name, stored.workflow, f"{stored.description} (its rule cannot be read)", _UNREAD)


_UNREAD = dict.fromkeys(("catch_up", "catch_up_window", "overlap", "jitter", "start", "end"))


def _facts(name: str, workflow: str, description: str, rule: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "workflow": workflow,
        "rule": description,
        "catch_up": rule["catch_up"],
        "catch_up_window_seconds": rule["catch_up_window"],
        "overlap": rule["overlap"],
        "jitter_seconds": rule["jitter"],
        "start": _utc(rule["start"]),
        "end": _utc(rule["end"]),
    }


def _utc(text: str | None) -> str | None:
    if text is None:
        return None
    from datetime import datetime

    return iso(clock.from_datetime(datetime.fromisoformat(text)))


def _status(stored: StoredSchedule) -> str:
    if stored.gone_at is not None:
        return "gone"
    if stored.error is not None:
        return "broken"
    if stored.paused_at is not None:
        return "paused"
    return "ended" if stored.next_tick is None else "active"


def _coming(store: SqliteStore, stored: StoredSchedule, code: Mapping[str, Declared]) -> dict[str, Any] | None:
    """The next tick: the one that is due, while no scheduler has decided it."""
    if stored.next_tick is None:
        return None
    if stored.next_tick > _LAST_TICK:
        raise InvalidInput("Its next tick is after the year 9999.", hint="Delete it and create it again.")
    made = scheduling.read(stored, store.path, code)
    if made is None:
        return {
            "tick": iso(stored.next_tick),
            "local": to_datetime(stored.next_tick).astimezone().isoformat(),
        }
    return instant_json(made, stored.next_tick)


def _why(stored: StoredSchedule, status: str, live: list[str]) -> str:
    name, now = stored.name, clock.wall()
    if status == "gone":
        where = shown(stored.origin or "its code")
        return (
            f"It disappeared from {where} and no longer fires, since {wall_json(stored.gone_at)}; "
            f"`outlast schedule delete {name}` forgets it."
        )
    if status == "paused":
        because = f" ({stored.pause_reason})" if stored.pause_reason else ""
        return f"It is paused since {wall_json(stored.paused_at)}{because}; `outlast schedule resume {name}` ends that."
    if stored.next_tick is None or stored.next_at is None:
        return "It has ended: its rule has no tick any more."
    if stored.workflow not in live:
        tick = iso(stored.next_tick)
        due = f"Its tick of {tick}" if stored.next_at <= now else f"Its next tick, {tick},"
        return f"{due} waits for a scheduler: none that has the workflow {stored.workflow} is up; `outlast up` starts one."
    late = (now - stored.next_at) / SECOND
    if late > _LATE_SECONDS:
        return f"Its tick of {iso(stored.next_tick)} is {describe(late)} late: no scheduler has fired it yet."
    ahead = describe(max(0.0, -late))
    return f"It fires at {iso(stored.next_at)}, in {ahead}."

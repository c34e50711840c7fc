"""From what was given to schedules with names, and from stored data back to a schedule.

Owns what `schedule=` may be, lists included, and the reading of what `Schedule.to_json` wrote, so that a
schedule made on the command line lives in a table as data. Refuses to guess: unnamed entries of a list whose
options differ, names given twice, data of an unknown kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidDefinition, InvalidInput
from .cron import CronTable
from .plain import AtTable, EveryTable
from .schedule import Schedule, options_of
from .table import AnyOf, Between, Timetable
from .zone import find_zone

_OPTIONS = ("name", "catch_up", "catch_up_window", "overlap", "jitter", "start", "end")


def schedules_of(value: object, name: str) -> dict[str, Schedule]:
    """The schedules that `schedule=` of a workflow, or `engine.schedule`, means, by name; `name` is the
    default.

    Entries of a list that have a name of their own are schedules of their own. The others are one schedule
    that ticks when any of them does, so their options must agree.
    """
    entries = [_as_schedule(entry) for entry in (value if isinstance(value, list | tuple) else [value])]
    if not entries:
        raise InvalidDefinition(f"The list of schedules of {name!r} is empty.", hint="Leave schedule= out, or give one.")
    found: dict[str, Schedule] = {}
    unnamed = [entry for entry in entries if entry.name is None]
    if unnamed:
        found[name] = unnamed[0] if len(unnamed) == 1 else _union(unnamed, name)
    for entry in entries:
        if entry.name is None:
            continue
        if entry.name in found:
            raise InvalidDefinition(f"Two schedules of {name!r} are named {entry.name!r}.", hint="Give each a name= of its own.")
        found[entry.name] = entry
    return found


def from_json(data: Mapping[str, Any]) -> Schedule:
    """The schedule that `to_json` wrote. Raises `InvalidInput` for a foreign trigger, which lives in code."""
    options: dict[str, Any] = {key: data[key] for key in _OPTIONS if key in data}
    try:
        table = _table(data["trigger"])
    except (KeyError, TypeError, AttributeError):
        raise InvalidInput(f"This is not a stored schedule: {data!r}.", hint="Delete it and create it again.") from None
    return Schedule(table, **options)


def from_text(text: str, name: str) -> Schedule:
    """The same of what the table holds, which somebody may have damaged."""
    try:
        return from_json(json.loads(text))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"The rule of the schedule {name} cannot be read: {text[:60]!r}.", hint="Delete it and create it again."
        ) from error


def _as_schedule(value: object) -> Schedule:
    return value if isinstance(value, Schedule) else Schedule(value)


def _union(entries: list[Schedule], name: str) -> Schedule:
    first = entries[0]
    if any(options_of(entry) != options_of(first) or entry.input != first.input for entry in entries):
        raise InvalidDefinition(
            f"The schedules of {name!r} share one name, but not their options.",
            hint="Give those that differ a name= each.",
        )
    window = first.catch_up_window_seconds
    return Schedule(
        AnyOf([entry.timetable for entry in entries]),
        catch_up=first.catch_up,
        catch_up_window=window,
        overlap=first.overlap,
        jitter=first.jitter_limit_seconds,
        input=first.input,
    )


def _table(data: Mapping[str, Any]) -> Timetable:
    match data["kind"]:
        case "cron":
            return CronTable(data["text"], find_zone(data["timezone"]))
        case "every":
            return EveryTable(data["interval"], data["anchor"])
        case "at":
            return AtTable(data["at"])
        case "any":
            return AnyOf([_table(entry) for entry in data["of"]])
        case "between":
            return Between(_table(data["of"]), data["start"], data["end"])
        case "foreign":
            raise InvalidInput(
                f"The trigger {data['description']!r} lives in code.",
                hint="Load the workflow file that has it.",
            )
        case kind:
            raise InvalidInput(f"There is no kind of schedule {kind!r}.", hint="Newer code wrote it; upgrade outlast.")

"""Making schedules: those that code declares, those of `engine.schedule`, those of the command line.

Owns the way from a `Schedule` and a workflow to a row: the input checked against the workflow's signature and
encoded, the next tick computed, the ticks that an older rule leaves undecided written off. Refuses a schedule
whose workflow needs arguments that nobody gives, and a name that belongs to the other kind: what code
declares is changed in the code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .. import clock, codec
from ..codec import payloads
from ..definition.options import DEFAULT
from ..definition.scheduled import check, checked_input
from ..errors import AlreadyExists, Conflict, InvalidInput, OutlastError, PayloadTooLarge, PayloadUnreadable, ScheduleNotFound
from ..model import derived_id, new_id
from ..operations import Start
from ..operations.schedules import DeleteSchedule, GoneSchedule, ScheduleRow, ScheduleWrite, TickRow, WriteSchedules
from ..settings import Settings
from ..starts import start_operation
from ..text.names import checked_name
from ..timetable import Schedule, from_text, schedules_of
from ..timetable.catch_up import next_of, undecided

if TYPE_CHECKING:
    from ..definition import Workflow
    from ..definition.registry import Registry
    from ..store.schedules import StoredSchedule
    from ..store.sqlite import SqliteStore

_TRIES = 10

# Triggers that are objects, by file and name: no table can hold them, so this process alone can fire them.
_kept: dict[tuple[str, str], Schedule] = {}


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule as code declares it."""

    schedule: Schedule
    workflow: Workflow[..., Any]
    input: bytes


def schedule(
    store: SqliteStore,
    registry: Registry,
    name: str,
    workflow: Workflow[..., Any] | str,
    trigger: object,
    *,
    input: object = None,
    settings: Settings | None = None,
) -> None:
    """Make a schedule, or change the one of this name to this. Calling it again changes nothing.

    A new one begins now, and a changed rule never fires for the past. Raises `InvalidInput`,
    `InvalidDefinition`, `WorkflowNotFound`, and `Conflict` for a name that `@workflow(schedule=...)` has.
    """
    checked_name(name, place="The name of a schedule")
    refuse_declared(registry, name)
    definition = registry.workflow(workflow) if isinstance(workflow, str) else workflow.definition
    made = _only_one(trigger, name)
    given = made.input if input is None else input
    put(store, name, made, definition.name, encoded_input(name, definition, given, settings or Settings()))


def refuse_declared(registry: Registry, name: str) -> None:
    """Raise `Conflict` for a name that the code of this process declares, whether or not a scheduler has seen it yet."""
    for one in registry.workflows():
        if one.schedule is not None and registry.workflow(one.name) is one and name in check(one):
            raise of_code(name, one.file, "change it there")


def put(
    store: SqliteStore,
    name: str,
    made: Schedule,
    workflow: str,
    input: bytes,
    *,
    is_new: bool = False,
) -> None:
    """Write a schedule made by hand. With `is_new` there must be none of this name that still fires."""
    from ..store import schedules

    for _ in range(_TRIES):
        wall = clock.wall()
        found = schedules.find(store.connection(), name)
        if found is not None and found.gone_at is None:
            if is_new:
                raise AlreadyExists(
                    f"There is a schedule {name} already, of workflow {found.workflow}.",
                    hint=f"`outlast schedule update {name}` changes it.",
                )
            if found.source == "code":
                raise of_code(name, found.origin, "change it there")
        if found is None:
            write: ScheduleWrite | None = new(name, made, workflow, input, source="command", wall=wall)
        else:
            write = change(store, found, made, workflow, input, source="command", wall=wall)
        if write is None or not store.commit(WriteSchedules((write,))):
            break
    else:
        raise Conflict(f"Schedule {name} is being changed by others.", hint="Try again.")
    if is_object(made):
        _kept[store.path, name] = made


def unschedule(store: SqliteStore, name: str) -> None:
    """Forget a schedule and its ledger; its runs stay. Raises `ScheduleNotFound`, and `Conflict` for one that
    code declares.
    """
    from ..store import schedules

    found = schedules.find(store.connection(), name)
    if found is None:
        raise ScheduleNotFound(name)
    if found.source == "code" and found.gone_at is None:
        raise of_code(name, found.origin, "remove it there")
    store.commit(DeleteSchedule(name))
    _kept.pop((store.path, name), None)


def take_up(store: SqliteStore, name: str, one: Declared) -> bool:
    """Make the schedule that code declares, as the next scheduler would; false where it is there already."""
    from ..store import schedules
    from ..store.process import this_process

    if schedules.find(store.connection(), name) is not None:
        return False
    origin = (os.path.abspath(one.workflow.file), this_process().host)  # noqa: PTH100
    write = new(name, one.schedule, one.workflow.name, one.input, source="code", wall=clock.wall(), origin=origin)
    return not store.commit(WriteSchedules((write,)))


def declared(registry: Registry) -> tuple[dict[str, Declared], list[str]]:
    """The schedules that the code of this process declares, and a sentence for each that is wrong.

    Of a workflow with several versions it is the newest that counts.
    """
    found: dict[str, Declared] = {}
    problems: list[str] = []
    for one in registry.workflows():
        if one.schedule is None or registry.workflow(one.name) is not one:
            continue
        try:
            for name, made in check(one).items():
                if name in found:
                    other = found[name].workflow
                    problems.append(
                        f"Two schedules are named {name}: of {other.name} in {other.place} "
                        f"and of {one.name} in {one.place}. Give one a name=...; the first is used."
                    )
                    continue
                found[name] = Declared(made, one, encoded_input(name, one, made.input, Settings()))
        except OutlastError as error:
            problems.append(f"The schedule of {one.name} in {one.place} is wrong: {error}")
    return found, problems


def encoded_input(name: str, workflow: Workflow[..., Any], given: object, settings: Settings) -> bytes:
    """The input of a schedule as its runs get it."""
    place = f"the input of the schedule {name}"
    data = codec.encode(checked_input(name, workflow, given), place=place)
    if len(data) > settings.max_payload:
        raise PayloadTooLarge(place, len(data), settings.max_payload)
    return data


def new(
    name: str,
    made: Schedule,
    workflow: str,
    input: bytes,
    *,
    source: str,
    wall: int,
    origin: tuple[str, str] | None = None,
) -> ScheduleWrite:
    """A schedule that begins now."""
    return ScheduleWrite(_row(name, made, workflow, input, source=source, origin=origin, cursor=wall), uid=new_id(wall))


def change(
    store: SqliteStore,
    stored: StoredSchedule,
    made: Schedule,
    workflow: str,
    input: bytes,
    *,
    source: str,
    wall: int,
    origin: tuple[str, str] | None = None,
) -> ScheduleWrite | None:
    """What turns the stored schedule into this one; None where it is this one.

    A new rule begins now. What the old one left undecided is missed, and the ledger says why: by neither rule
    is anything fired for the past. One that was gone begins anew, too.
    """
    is_revived = stored.gone_at is not None
    is_new_rule = stored.fingerprint != made.fingerprint or is_revived
    cursor = max(stored.cursor, wall) if is_new_rule else stored.cursor
    row = _row(stored.name, made, workflow, input, source=source, origin=origin, cursor=cursor)
    if stored.error is None and not is_new_rule and _same(stored, row):
        return None
    reason = "it was gone from its code" if is_revived else "the schedule was changed"
    missed = _left_undecided(store, stored, wall, reason) if is_new_rule else ()
    return ScheduleWrite(row, uid=stored.uid, revision=stored.revision, missed=missed)


def gone(store: SqliteStore, stored: StoredSchedule, wall: int) -> GoneSchedule:
    """A schedule that its code declares no more. What had come due meanwhile is missed."""
    missed = _left_undecided(store, stored, wall, "it was gone from its code")
    return GoneSchedule(stored.name, stored.revision, max(stored.cursor, wall), missed)


def read(stored: StoredSchedule, path: str, code: Mapping[str, Declared]) -> Schedule | None:
    """The rule of a stored schedule; None for an object that this process does not have."""
    try:
        return from_text(stored.rule, stored.name)
    except InvalidInput:
        if '"kind": "foreign"' not in stored.rule:
            raise
    here = code[stored.name].schedule if stored.name in code else _kept.get((path, stored.name))
    return here if here is not None and here.fingerprint == stored.fingerprint else None


def run_id(uid: str, tick: int) -> str:
    """The id of the run of a tick: the same for whoever fires it."""
    return derived_id(f"{new_id(tick)[:4]}{uid}", str(tick))


def start_of(store: SqliteStore, definition: Workflow[..., Any], input: bytes, settings: Settings) -> Start:
    """The start of a scheduled run. Raises `InvalidInput` where the workflow takes other arguments by now."""
    from ..store import queues

    named = codec.decode(input)
    try:
        definition.signature.call(named)
    except InvalidInput as error:
        raise InvalidInput(f"Its input does not fit any more. {error.message}", hint=error.hint) from None
    operation = start_operation(definition, {}, DEFAULT, settings, has_queue=lambda name: queues.exists(store.connection(), name))
    return replace(operation, input=input)


def for_tick(template: Start, uid: str, tick: int) -> Start:
    """The start of the run of one tick: its id is the same for whoever fires it."""
    return for_run(template, run_id(uid, tick), tick)


def for_run(template: Start, uid: str, tick: int | None) -> Start:
    """The start of one run of a schedule."""
    return replace(template, uid=uid, chain=uid, tick=tick)


def is_object(made: Schedule) -> bool:
    """Whether the rule is somebody's object, which data cannot hold."""
    return '"kind": "foreign"' in json.dumps(made.to_json()["trigger"])


def of_code(name: str, origin: str | None, action: str) -> Conflict:
    from ..definition.source import shown

    return Conflict(
        f"Schedule {name} is declared by code, in {shown(origin or '')}.",
        hint=f"Only {action}; `outlast schedule pause {name}` holds it meanwhile.",
    )


def _only_one(trigger: object, name: str) -> Schedule:
    found = schedules_of(trigger, name)
    if set(found) != {name}:
        others = ", ".join(sorted(set(found) - {name}))
        raise InvalidInput(f"The schedule {name} was given with another name: {others}.", hint="Name it once.")
    return found[name]


def _row(
    name: str,
    made: Schedule,
    workflow: str,
    input: bytes,
    *,
    source: str,
    origin: tuple[str, str] | None,
    cursor: int,
) -> ScheduleRow:
    next_tick, next_at = next_of(name, made, cursor)
    return ScheduleRow(
        name=name,
        workflow=workflow,
        rule=json.dumps(made.to_json()),
        description=made.describe(),
        fingerprint=made.fingerprint,
        input=input,
        source=source,
        origin=None if origin is None else origin[0],
        origin_host=None if origin is None else origin[1],
        cursor=cursor,
        next_tick=next_tick,
        next_at=next_at,
    )


def _same(stored: StoredSchedule, row: ScheduleRow) -> bool:
    fields = ("workflow", "rule", "source", "origin")
    return all(getattr(stored, field) == getattr(row, field) for field in fields) and _is_stored_so(stored.input, row.input)


def _is_stored_so(stored: bytes, given: bytes) -> bool:
    """Whether an input is stored already, and as it would be now: another codec, or none, has it written anew."""
    try:
        return payloads.is_current(stored) and payloads.opened(stored) == payloads.opened(given)
    except PayloadUnreadable:
        return False


def _left_undecided(store: SqliteStore, stored: StoredSchedule, wall: int, reason: str) -> tuple[TickRow, ...]:
    from ..store import schedules

    try:
        old = from_text(stored.rule, stored.name)
    except InvalidInput:
        return ()  # An object of code that is gone: nobody can say any more when it would have ticked.
    if wall <= stored.cursor:
        return ()
    fired = schedules.ran(store.connection(), stored.name, stored.cursor, wall)
    return undecided(old, stored.cursor, wall, reason, fired)

"""What a person starts of a schedule: one run now, or the runs of ticks in the past.

Owns the choice of the ticks of a backfill and what it leaves of the ledger's rows. Refuses to start the run
of a tick a second time, a range of which the ledger was pruned, and the future. A backfill that dies half
way, given again, does the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .. import clock, scheduling
from ..errors import Conflict, InvalidInput, ScheduleNotFound
from ..model import new_id
from ..operations.schedules import Backfill, Decided, TickRow, TriggerSchedule
from ..store import schedules
from ..timetable import Schedule
from ..timetable.catch_up import without
from . import Declared

if TYPE_CHECKING:
    from ..definition.registry import Registry
    from ..settings import Settings
    from ..store.schedules import StoredSchedule
    from ..store.sqlite import SqliteStore

MOST_TICKS = 100_000
_BATCH = 200


def trigger(store: SqliteStore, registry: Registry, settings: Settings, name: str) -> Decided:
    """Start a run of a schedule now; a pause does not hold it. Raises `NotFound`."""
    stored = found(store, name)
    template = scheduling.start_of(store, registry.workflow(stored.workflow), stored.input, settings)
    start = scheduling.for_run(template, new_id(clock.wall()), None)
    return store.commit(TriggerSchedule(name, start))


def missing_ticks(store: SqliteStore, code: Mapping[str, Declared], name: str, first: int, last: int) -> list[int]:
    """The ticks from `first` to `last`, both included, that have no run. Raises what a backfill would."""
    stored = found(store, name)
    made = _rule(store, code, stored)
    if last < first:
        raise InvalidInput(f"The range ends ({clock.iso(last)}) before it begins ({clock.iso(first)}).")
    if last > clock.wall():
        raise InvalidInput(f"{clock.iso(last)} lies ahead: a backfill is for the past.", hint="Give an earlier --to.")
    if stored.low_water is not None and first <= stored.low_water:
        raise Conflict(
            f"The ticks of {name} up to {clock.iso(stored.low_water)} were pruned: nobody can say any more which of them fired.",
            hint="Begin the backfill after that.",
        )
    fired = set(schedules.ran(store.connection(), name, first - 1, last))
    ticks: list[int] = []
    tick = made.timetable.next(first - 1)
    while tick is not None and tick <= last:
        if tick not in fired:
            ticks.append(tick)
        if len(ticks) > MOST_TICKS:
            raise InvalidInput(f"There are more than {MOST_TICKS:,} ticks in that range.", hint="Backfill it in parts.")
        tick = made.timetable.next(tick)
    return ticks


def backfill(
    store: SqliteStore,
    registry: Registry,
    settings: Settings,
    code: Mapping[str, Declared],
    name: str,
    first: int,
    last: int,
) -> list[Decided]:
    """Start the runs that are missing from `first` to `last`, the oldest first."""
    done: list[Decided] = []
    stored = found(store, name)
    template = scheduling.start_of(store, registry.workflow(stored.workflow), stored.input, settings)
    while ticks := missing_ticks(store, code, name, first, last)[:_BATCH]:
        stored = found(store, name)
        made = _rule(store, code, stored)
        rows = schedules.rows_between(store.connection(), name, ticks[0], ticks[-1])
        cut = [row for row in rows if _is_of(made, row) or row.tick in ticks]
        decided = store.commit(
            Backfill(
                name,
                stored.revision,
                starts=tuple(scheduling.for_tick(template, stored.uid, tick) for tick in ticks),
                removed=tuple(row.tick for row in cut),
                rows=tuple(part for row in cut for part in without(made, row, ticks[0], ticks[-1])),
            )
        )
        # None: a scheduler has decided a tick since we looked. Look again.
        done += decided or []
    return done


def found(store: SqliteStore, name: str) -> StoredSchedule:
    """The schedule of this name. Raises `ScheduleNotFound`."""
    stored = schedules.find(store.connection(), name)
    if stored is None:
        raise ScheduleNotFound(name)
    return stored


def _rule(store: SqliteStore, code: Mapping[str, Declared], stored: StoredSchedule) -> Schedule:
    made = scheduling.read(stored, store.path, code)
    if made is None:
        raise Conflict(
            f"The trigger of schedule {stored.name} is an object in code that is not loaded here.",
            hint="Name the code that has it with --app.",
        )
    return made


def _is_of(made: Schedule, row: TickRow) -> bool:
    """Whether a row of the ledger is of this rule, and not of one that the schedule had before."""
    ends: Iterable[int] = (row.tick, row.until)
    return all(made.timetable.next(at - 1) == at for at in ends)

"""What people write: `Cron`, `Every`, `At`, and `Schedule` around anything else.

Owns the options that a schedule has besides its rule, their checking (everything is checked when the object
is made, nothing in the scheduler's loop), the rule's fingerprint, and the way to data and back for schedules
that the command line made. Refuses a rule that cannot tick between its `start` and `end`, and to hold a
workflow, its input's meaning, or what has fired.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any, Literal, TypedDict, Unpack, cast, get_args

from ..clock import SECOND, from_datetime, iso, to_datetime
from ..errors import InvalidDefinition, InvalidInput
from ..handles import Duration
from ..text.duration import describe, seconds
from ..text.names import checked_name
from .cron import CronTable
from .foreign import wrap
from .plain import SHORTEST, AtTable, EveryTable
from .table import AnyOf, Between, Timetable
from .zone import FIRST, LAST, Zone, find_zone

CatchUp = Literal["latest", "all", "none"]
Overlap = Literal["skip", "allow", "queue_one", "cancel_running"]
Instant = datetime | str


class Options(TypedDict, total=False):
    """What every kind of schedule takes besides its rule; `Schedule` explains them."""

    name: str | None
    catch_up: CatchUp
    catch_up_window: Duration | None
    overlap: Overlap
    jitter: Duration | None
    start: Instant | None
    end: Instant | None
    input: Any


class Schedule:
    """A rule with its options. `trigger` is a cron string, a schedule, an object with `get_next_fire_time`,
    or a list of these.

    `catch_up` says what follows downtime: the latest missed tick, all of them, or none; `catch_up_window` how
    old a tick may be for that (None: any age). `overlap` says what follows when the last run is unfinished.
    `jitter` delays each tick by up to that long, the same for a tick in every process. `start` and `end`
    bound the ticks, both inclusive; a naive one is in the schedule's zone, or local where it has none. `name`
    is the workflow's by default, `input` what its runs get.
    """

    def __init__(
        self,
        trigger: object,
        *,
        name: str | None = None,
        catch_up: CatchUp = "latest",
        catch_up_window: Duration | None = "1d",
        overlap: Overlap = "skip",
        jitter: Duration | None = None,
        start: Instant | None = None,
        end: Instant | None = None,
        input: Any = None,
    ) -> None:
        table, own_jitter, zone = _read_trigger(trigger)
        self._table = table
        self.zone = zone
        """The zone that the rule names; None for one that needs none."""
        self.name = None if name is None else checked_name(name, place="name")
        self.catch_up = cast(CatchUp, _choice("catch_up", catch_up, get_args(CatchUp)))
        self.overlap = cast(Overlap, _choice("overlap", overlap, get_args(Overlap)))
        self.catch_up_window_seconds: float | None = None if catch_up_window is None else seconds(catch_up_window, place="catch_up_window")
        self.jitter_limit_seconds = own_jitter if jitter is None else seconds(jitter, place="jitter")
        self.start_at = _instant("start", start, zone)
        self.end_at = _instant("end", end, zone)
        self.input = input
        self.timetable = self._bound(table)
        """What the scheduler asks: ticks as integers, within `start` and `end`."""

    def next(self, after: datetime, count: int = 1) -> list[datetime]:
        """The next instants after one, in UTC (so that their differences and comparisons hold in a repeated
        hour too).
        """
        if not isinstance(after, datetime):
            raise InvalidInput(f"next() counts from a datetime, not {after!r}.", hint="As datetime.now(UTC).")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise InvalidInput(f"count must be a number from 0 on, not {count!r}.")
        found: list[datetime] = []
        at = _microseconds(after, self.zone)
        while len(found) < count and (tick := self.timetable.next(at)) is not None:
            found.append(to_datetime(tick))
            at = tick
        return found

    def previous(self, before: datetime) -> datetime | None:
        """The latest instant at or before one, in UTC."""
        tick = self.timetable.latest(_microseconds(before, self.zone))
        return None if tick is None else to_datetime(tick)

    def jitter_seconds(self, name: str, tick: int) -> float:
        """By how much this schedule's tick is delayed: the same in every process, even over [0, jitter).

        Never until the next tick: two that fall due together would be one that is caught up by the other.
        """
        if not self.jitter_limit_seconds:
            return 0.0
        from hashlib import blake2b

        limit, following = round(self.jitter_limit_seconds * SECOND), self.timetable.next(tick)
        if following is not None:
            limit = min(limit, following - tick)
        digest = blake2b(f"{name}\0{tick}".encode(), digest_size=8).digest()
        return int(int.from_bytes(digest, "big") * limit >> 64) / SECOND

    def describe(self) -> str:
        """One line for people."""
        return self.timetable.describe() + (f", up to {describe(self.jitter_limit_seconds)} late" if self.jitter_limit_seconds else "")

    @property
    def fingerprint(self) -> str:
        """Changes if the nominal ticks may change: by the rule, its zone, or its bounds; not by other options
        or spelling.
        """
        import json
        from hashlib import sha256

        text = json.dumps(self.timetable.rule(), sort_keys=True, separators=(",", ":"))
        return sha256(text.encode()).hexdigest()[:24]

    def to_json(self) -> dict[str, Any]:
        """The schedule as JSON data, all but its `input`, which is the codec's. A foreign trigger is only
        described.
        """
        return {
            "trigger": self._table.to_json(),
            "name": self.name,
            "catch_up": self.catch_up,
            "catch_up_window": self.catch_up_window_seconds,
            "overlap": self.overlap,
            "jitter": self.jitter_limit_seconds,
            "start": None if self.start_at is None else to_datetime(self.start_at).isoformat(),
            "end": None if self.end_at is None else to_datetime(self.end_at).isoformat(),
        }

    def trigger(self) -> Any:
        """This schedule as an APScheduler 3 trigger."""
        from .trigger import TimetableTrigger

        return TimetableTrigger(self.timetable)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe()}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        return (self.fingerprint, self.name, self.input, options_of(self)) == (
            other.fingerprint,
            other.name,
            other.input,
            options_of(other),
        )

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def _bound(self, table: Timetable) -> Timetable:
        start, end = self.start_at, self.end_at
        if start is None and end is None:
            return table
        if start is not None and end is not None and end < start:
            raise InvalidInput(f"The schedule ends ({iso(end)}) before it starts ({iso(start)}).", hint="Swap start and end.")
        bounded = Between(table, start, end)
        if start is not None and bounded.next(start - 1) is None:
            until = "" if end is None else f" until {iso(end)}"
            raise InvalidInput(
                f"The schedule never ticks from {iso(start)} on{until}: {table.describe()}.",
                hint="Check start and end.",
            )
        return bounded


class Cron(Schedule):
    """Cron text, as Vixie cron reads it, in a time zone.

    `timezone` is an IANA name, UTC by default whatever the machine's zone is; None is the machine's own.
    docs/cron.md has the rule where wall time repeats or is skipped.
    """

    def __init__(self, text: str, *, timezone: str | tzinfo | None = "UTC", **options: Unpack[Options]) -> None:
        super().__init__(CronTable(text, find_zone(timezone)), **options)


class Every(Schedule):
    """An interval of elapsed time, counted from `start`, else from 1970-01-01 UTC: all processes agree, and
    no zone's shift matters.
    """

    def __init__(self, interval: Duration, **options: Unpack[Options]) -> None:
        length = round(seconds(interval, place="interval") * SECOND)
        if length < SHORTEST:
            raise InvalidInput(f"An interval of {interval!r} is too short.", hint="The shortest is 100 ms.")
        super().__init__(EveryTable(length, _instant("start", options.get("start"), None)), **options)


class At(Schedule):
    """One instant. A naive datetime is local time, as everywhere in Python."""

    def __init__(self, at: Instant, **options: Unpack[Options]) -> None:
        tick = _instant("An instant", at, None, last=LAST * SECOND)
        if tick is None:
            raise InvalidInput("At() needs an instant.", hint="A datetime, or ISO 8601 text.")
        super().__init__(AtTable(tick), **options)


def options_of(schedule: Schedule) -> tuple[object, ...]:
    """The options that several rules under one name must share."""
    return (
        schedule.catch_up,
        schedule.catch_up_window_seconds,
        schedule.overlap,
        schedule.jitter_limit_seconds,
    )


def _read_trigger(trigger: object) -> tuple[Timetable, float, Zone | None]:
    """The rule of whatever was given, the jitter that comes with it, and its zone."""
    if isinstance(trigger, CronTable):
        return trigger, 0.0, trigger.zone
    if isinstance(trigger, EveryTable | AtTable | AnyOf | Between):
        return trigger, 0.0, None
    if isinstance(trigger, str):
        table = CronTable(trigger, find_zone("UTC"))
        return table, 0.0, table.zone
    if isinstance(trigger, Schedule):
        plain = (trigger.name, trigger.input, *options_of(trigger)) == (
            None,
            None,
            "latest",
            86_400.0,
            "skip",
            0.0,
        )
        if not plain:
            raise InvalidDefinition(f"{trigger!r} has options of its own.", hint="Give all options in one place.")
        return trigger.timetable, 0.0, trigger.zone
    if isinstance(trigger, list | tuple) and trigger:
        parts = [_read_trigger(part) for part in trigger]
        zones = {zone.name: zone for _, _, zone in parts if zone is not None}
        zone = next(iter(zones.values())) if len(zones) == 1 else None
        return AnyOf([table for table, _, _ in parts]), max(jitter for _, jitter, _ in parts), zone
    if hasattr(trigger, "get_next_fire_time") and not isinstance(trigger, type):
        table_of_it, jitter = wrap(cast(Any, trigger))
        return table_of_it, jitter, None
    raise InvalidDefinition(
        f"{trigger!r} is not a schedule.",
        hint="Give cron text, Cron(), Every(), At(), an APScheduler trigger, or a list of these.",
    )


def _choice(what: str, value: object, allowed: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in allowed:
        return value
    raise InvalidInput(f"{what} cannot be {value!r}.", hint=f"It is one of {', '.join(map(repr, allowed))}.")


def _instant(what: str, value: object, zone: Zone | None, *, last: int | None = None) -> int | None:
    if value is None:
        return None
    read = value
    if isinstance(value, str):
        try:
            read = datetime.fromisoformat(value.strip())
        except ValueError:
            read = None
    if not isinstance(read, datetime):
        raise InvalidInput(
            f"{what} must be a datetime or ISO 8601 text, not {value!r}.",
            hint='As "2026-10-25T02:30:00+01:00".',
        )
    try:
        found: int | None = _microseconds(read, zone)
    except (ValueError, OverflowError, OSError):
        found = None
    # One of a zone ahead of UTC may lie in the year 0, which no datetime has.
    if found is None or found < FIRST * SECOND or (last is not None and found > last):
        raise InvalidInput(f"{what} of {value!r} is out of range.", hint="Years 2 to 9998 will do.")
    return found


def _microseconds(value: datetime, zone: Zone | None) -> int:
    if value.tzinfo is None and zone is not None:
        value = value.replace(tzinfo=zone.info)
    return from_datetime(value)

"""What becomes of ticks that are due: the catch-up rules, as a pure function of the rule, the ledger and now.

Owns the choice of which due ticks fire and which are coalesced, missed or paused, and what of the ledger is
undecided again after a step back of the clock. Refuses to look at runs (overlap is the store's, in its
transaction), to read a clock, and to loop over what does not fire: years of downtime are one row with a
count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..clock import SECOND
from ..operations.schedules import TickRow
from ..text.duration import describe
from . import Schedule, Timetable

ON_TIME_SECONDS = 5.0
"""A tick that is later than this was not fired on time, and is caught up."""
MOST_FIRED = 500
"""So many ticks of one schedule fire in one transaction; further ones in the next."""
_MOST_JITTERED = 10_000

COALESCED = "caught up by a later tick"
NOT_CAUGHT_UP = "no scheduler was up, and catch_up is none"


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick that fires; one that is caught up because `catch_up="all"` stands in line."""

    at: int
    in_line: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The decisions about due ticks, in order; then every tick up to `cursor` is decided."""

    decisions: tuple[TickRow | Tick, ...]
    cursor: int
    next_tick: int | None
    next_at: int | None


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that lasts, or one that ended at `until` with ticks in it that nobody has decided."""

    reason: str | None
    until: int | None = None


def plan(
    name: str,
    schedule: Schedule,
    *,
    cursor: int,
    wall: int,
    fired: Sequence[int] = (),
    pause: Pause | None = None,
) -> Plan:
    """Decide every tick after `cursor` that is due at `wall`.

    `fired` are ticks after the cursor that the ledger has as fired already (the clock was set back, or a
    person backfilled them): they are passed over.
    """
    view = _View(name, schedule, tuple(sorted(fired)))
    decisions: list[TickRow | Tick] = []
    if pause is not None:
        last = view.due(cursor, wall if pause.until is None else min(wall, pause.until))
        if last is not None:
            decisions += view.rows(cursor, last, "paused", pause.reason)
            cursor = last
    last = None if pause is not None and pause.until is None else view.due(cursor, wall)
    if last is not None:
        caught, cursor = _caught_up(view, cursor, last, wall)
        decisions += caught
    following = view.table.next(cursor)
    return Plan(tuple(decisions), cursor, following, None if following is None else view.fires_at(following))


def next_of(name: str, schedule: Schedule, cursor: int) -> tuple[int | None, int | None]:
    """The next tick after the cursor, and the instant at which it fires."""
    following = schedule.timetable.next(cursor)
    if following is None:
        return None, None
    return following, following + round(schedule.jitter_seconds(name, following) * SECOND)


def undecided(schedule: Schedule, cursor: int, until: int, reason: str, fired: Sequence[int] = ()) -> tuple[TickRow, ...]:
    """The ticks of a rule that goes, as missed."""
    view = _View("", schedule, tuple(sorted(fired)))
    return tuple(view.rows(cursor, until, "missed", reason))


def without(schedule: Schedule, row: TickRow, first: int, last: int) -> tuple[TickRow, ...]:
    """What is left of a row of the ledger when the ticks from `first` to `last` are taken out of it."""
    table, left = schedule.timetable, []
    if row.tick < first:
        until = table.latest(first - 1, after=row.tick - 1)
        if until is not None:
            count = table.count(row.tick - 1, until)
            left.append(TickRow(row.tick, max(until, row.tick), count, row.outcome, row.reason))
    if row.until > last:
        begin = table.next(last)
        if begin is not None and begin <= row.until:
            left.append(TickRow(begin, row.until, table.count(last, row.until), row.outcome, row.reason))
    return tuple(left)


def _caught_up(view: _View, cursor: int, last: int, wall: int) -> tuple[list[TickRow | Tick], int]:
    """Apply `catch_up` within its window to the due ticks after the cursor, of which `last` is the last."""
    schedule = view.schedule
    window = schedule.catch_up_window_seconds
    is_on_time = view.is_on_time(last, wall)
    # The last tick that fires whatever the rules say is no tick of the past: it is left out of what is old.
    past = view.table.latest(last - 1, after=cursor) if is_on_time else last
    old = None if window is None else view.due(cursor, wall - round(window * SECOND) - 1)
    if old is not None and past is not None:
        old = min(old, past)
    elif past is None:
        old = None
    decisions: list[TickRow | Tick] = []
    if schedule.catch_up == "none":
        if past is not None:
            decisions += view.rows(cursor, past, "missed", NOT_CAUGHT_UP)
    elif old is not None and window is not None:
        decisions += view.rows(cursor, old, "missed", f"older than the catch-up window of {describe(window)}")
    begin = cursor if old is None else old
    if schedule.catch_up == "all":
        return _each(view, begin, last, wall, decisions)
    if schedule.catch_up == "latest":
        if old == last:
            return decisions, last
        before = view.table.latest(last - 1, after=begin)
        if before is not None:
            decisions += view.rows(begin, before, "coalesced", COALESCED)
    elif not is_on_time:
        return decisions, last
    if last not in view.fired:
        decisions.append(Tick(last, in_line=False))
    return decisions, last


def _each(view: _View, begin: int, last: int, wall: int, decisions: list[TickRow | Tick]) -> tuple[list[TickRow | Tick], int]:
    cursor, count = begin, 0
    tick = view.table.next(begin)
    # Ticks that follow a late one belong to the same downtime, however young they are.
    in_line = tick is not None and not view.is_on_time(tick, wall)
    while tick is not None and tick <= last and count < MOST_FIRED:
        if tick not in view.fired:
            decisions.append(Tick(tick, in_line=in_line))
            count += 1
        cursor = tick
        tick = view.table.next(tick)
    return decisions, cursor


@dataclass(frozen=True, slots=True)
class _View:
    """One schedule, as the rules look at it."""

    name: str
    schedule: Schedule
    fired: tuple[int, ...]

    @property
    def table(self) -> Timetable:
        return self.schedule.timetable

    def fires_at(self, tick: int) -> int:
        return tick + round(self.schedule.jitter_seconds(self.name, tick) * SECOND)

    def is_on_time(self, tick: int, wall: int) -> bool:
        return wall - self.fires_at(tick) <= ON_TIME_SECONDS * SECOND

    def due(self, cursor: int, wall: int) -> int | None:
        """The last tick after the cursor that is due at `wall`, its jitter over.

        Ticks fire in their order: one whose jitter is short waits for the one before it. That delays none by
        more than the limit.
        """
        limit = round(self.schedule.jitter_limit_seconds * SECOND)
        if not limit:
            return self.table.latest(wall, after=cursor) if wall > cursor else None
        # Every tick older than the limit is due; only the others need a look each.
        last = self.table.latest(wall - limit, after=cursor) if wall - limit > cursor else None
        at = max(cursor, wall - limit)
        for _ in range(_MOST_JITTERED):
            tick = self.table.next(at)
            if tick is None or self.fires_at(tick) > wall:
                break
            last = at = tick
        return last

    def rows(self, after: int, until: int, outcome: str, reason: str | None) -> Iterator[TickRow]:
        """The ticks of `after < tick <= until` as rows of one outcome, cut where one of them fired."""
        for low, high in self._stretches(after, until):
            first = self.table.next(low)
            if first is None or first > high:
                continue
            last = self.table.latest(high, after=low)
            if last is not None:
                yield TickRow(first, last, self.table.count(low, high), outcome, reason)

    def _stretches(self, after: int, until: int) -> Iterator[tuple[int, int]]:
        low = after
        for tick in self.fired:
            if after < tick <= until:
                yield low, tick - 1
                low = tick
        if low < until:
            yield low, until

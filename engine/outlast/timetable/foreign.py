"""Triggers that others wrote: any object with `get_next_fire_time(previous, now)`, as APScheduler 3 has them.

Owns their wrapping as a timetable. Such a trigger can only be asked for what comes next, so "the latest" is
found by galloping back and halving, and counting stops at a limit. Refuses randomness (a jitter of the
trigger's own becomes the schedule's, which all processes compute alike), triggers that answer with no
datetime, never get past an instant or begin whenever they are asked, and to be read back from data: the object
lives in code.
"""

from __future__ import annotations

import copy
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any, Protocol

from ..clock import SECOND, from_datetime, to_datetime
from ..errors import InvalidDefinition, InvalidInput
from .plain import EveryTable
from .table import Between, Timetable, count_one_by_one
from .zone import FIRST, LAST

_STEPS = 100_000


class Trigger(Protocol):
    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None: ...


class ForeignTable:
    """A foreign trigger's ticks."""

    kind = "foreign"

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        # The last tick computed: triggers that only step from tick to tick go on from it instead of from
        # their beginning.
        self._known: int | None = None

    def next(self, after: int) -> int | None:
        if not FIRST * SECOND < after < LAST * SECOND:
            return None if after > 0 else self.next(FIRST * SECOND + 1)
        now = to_datetime(after + 1)
        fire = self._ask(None, now)
        known = self._known
        if fire is not None and known is not None and from_datetime(fire) <= known <= after:
            fire = to_datetime(known)
        for _ in range(_STEPS):
            if fire is None:
                return None
            tick = from_datetime(fire)
            if tick > after:
                return tick
            self._known = tick
            fire = self._ask(fire, now)
            if fire is not None and from_datetime(fire) <= tick:
                raise InvalidDefinition(
                    f"The trigger {self.describe()} does not get past {to_datetime(tick).isoformat()}.",
                    hint="get_next_fire_time(previous, now) must return an instant after `previous`.",
                )
        raise InvalidDefinition(
            f"The trigger {self.describe()} does not reach {now.isoformat()} in {_STEPS:,} steps.",
            hint="get_next_fire_time(None, now) should return the first instant from `now` on.",
        )

    def latest(self, until: int, *, after: int | None = None) -> int | None:
        if after is None:
            after, span = until - SECOND, SECOND
            while (found := self.next(after)) is None or found > until:
                if after < FIRST * SECOND:
                    return None
                span *= 4
                after = until - span
        low = self.next(after)
        if low is None or low > until:
            return None
        # Nothing ticks from `high` to `until`. Double the reach from the known tick, then halve what is left.
        high = until + 1
        while low < high - 1:
            following = self.next(low)
            if following is None or following > until:
                return low
            low = following
            middle = self.next((low + high) // 2)
            if middle is None or middle > until:
                high = (low + high) // 2 + 1
            else:
                low = middle
        return low

    def count(self, after: int, until: int) -> int | None:
        return count_one_by_one(self, after, until)

    def describe(self) -> str:
        cls = type(self.trigger)
        own = cls.__str__ is not object.__str__ or cls.__repr__ is not object.__repr__
        return str(self.trigger) if own else f"{cls.__module__}.{cls.__qualname__}"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "description": self.describe()}

    def rule(self) -> dict[str, Any]:
        return {"kind": self.kind, "facts": _facts(self.trigger, 0)}

    def _ask(self, previous: datetime | None, now: datetime) -> datetime | None:
        try:
            fire = self.trigger.get_next_fire_time(previous, now)
        except Exception as error:
            raise InvalidDefinition(f"The trigger {self.describe()} raised {type(error).__name__}: {error}.") from error
        if fire is not None and (not isinstance(fire, datetime) or fire.tzinfo is None):
            raise InvalidDefinition(
                f"The trigger {self.describe()} answered {fire!r}.",
                hint="get_next_fire_time must return an aware datetime, or None.",
            )
        return fire


def wrap(trigger: Trigger) -> tuple[Timetable, float]:
    """The timetable of a foreign trigger, and the jitter in seconds that it asked for."""
    trigger, jitter = _without_jitter(trigger)
    cls = type(trigger)
    if cls.__module__ == "apscheduler.triggers.interval" and cls.__qualname__ == "IntervalTrigger":
        return _interval(trigger), jitter
    return _steps_alone(trigger) or ForeignTable(trigger), jitter


_PROBES = (datetime(2001, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
_MOMENT = timedelta(microseconds=1)


def _steps_alone(trigger: Trigger) -> Timetable | None:
    """The timetable of a trigger that knows no instants, only a step: `(previous or now) + step`, or `now` at first.

    Asked what comes after an instant, it would answer differently at each, a moment later for ever. So its step is counted from 1970, as
    that of an interval without a start is. Where there is no one step, it has no ticks that two processes could agree on.
    """
    if type(trigger).__module__.startswith("apscheduler."):
        return None
    ask = trigger.get_next_fire_time
    try:
        firsts = [(ask(None, at), ask(None, at + _MOMENT)) for at in _PROBES]
        if not any(one is not None and other is not None and other - one == _MOMENT for one, other in firsts):
            return None
        following = [ask(at, at) for at in _PROBES]
    except Exception:  # noqa: BLE001 - what it raises is told where a tick is asked for
        return None
    steps = {None if after is None else (after - at) // _MOMENT for at, after in zip(_PROBES, following, strict=True)}
    step = steps.pop()
    if steps or step is None or step <= 0:
        raise InvalidDefinition(
            f"The trigger {ForeignTable(trigger).describe()} has no instants of its own: it begins whenever it is asked.",
            hint="get_next_fire_time(None, now) must return the first of fixed instants from `now` on.",
        )
    return EveryTable(step, None)


def _interval(trigger: Any) -> Timetable:
    """An APScheduler interval, which without a start begins when it was made, so in each process at another
    instant.

    Such a start has microseconds; one that was given hardly ever has. It is left out: the interval is counted
    from 1970, as `Every` does, and all processes agree.
    """
    interval = trigger.interval // timedelta(microseconds=1)
    if interval <= 0:
        raise InvalidInput(f"The interval of {trigger!r} must be longer than nothing.")
    start = None if trigger.start_date.microsecond else from_datetime(trigger.start_date)
    end = None if trigger.end_date is None else from_datetime(trigger.end_date)
    table = EveryTable(interval, start)
    return table if start is None and end is None else Between(table, start, end)


def _without_jitter(trigger: Any) -> tuple[Any, float]:
    jitter = getattr(trigger, "jitter", None)
    inner = getattr(trigger, "triggers", None)
    seconds = float(jitter) if isinstance(jitter, int | float) else 0.0
    if not seconds and not isinstance(inner, list | tuple):
        return trigger, 0.0
    plain = copy.copy(trigger)
    if seconds:
        plain.jitter = None
    if isinstance(inner, list | tuple):
        parts = [_without_jitter(part) for part in inner]
        plain.triggers = [part for part, _ in parts]
        seconds = max([seconds, *(part for _, part in parts)])
    return plain, seconds


def _facts(value: Any, depth: int) -> Any:
    """What a trigger consists of, as data that is the same in every process."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta | tzinfo):
        return str(value)
    if depth > 6:
        return type(value).__qualname__
    if isinstance(value, dict):
        return {str(key): _facts(item, depth + 1) for key, item in sorted(value.items(), key=lambda pair: str(pair[0]))}
    if isinstance(value, list | tuple):
        return [_facts(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_facts(item, depth + 1) for item in value), key=repr)
    slots = [name for cls in type(value).__mro__ for name in _names(getattr(cls, "__slots__", ()))]
    names = sorted({*slots, *getattr(value, "__dict__", {})})
    facts = {name: _facts(getattr(value, name), depth + 1) for name in names if hasattr(value, name)}
    return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **facts}


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)

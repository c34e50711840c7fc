"""What Vixie cron would do, derived from its rule and from nothing of ours.

A walk over real time, second by second where a zone's clock shifts and minute by minute elsewhere, looks at
the wall at every whole minute. A rule with `*` in front of its minute or hour runs when the wall matches.
Another keeps the highest wall minute seen so far; each time the wall goes beyond it, every minute passed
(more than one after a jump) is looked at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@lru_cache(maxsize=512)
def walk(zone: str, start: int, stop: int) -> list[tuple[int, datetime]]:
    """Every instant of `[start, stop)` at which a whole minute begins on the wall, with the wall there."""
    info = ZoneInfo(zone)

    def wall(at: int) -> datetime:
        return datetime.fromtimestamp(at, info).replace(tzinfo=None, fold=0)

    seen = []
    at, here = start, wall(start)
    while at < stop:
        if here.second == 0:
            seen.append((at, here))
        ahead = wall(at + 60)
        smooth = here.second == 0 and ahead - here == timedelta(minutes=1)
        at, here = (at + 60, ahead) if smooth else (at + 1, wall(at + 1))
    return seen


@dataclass
class Rule:
    fields: list[set[int]]
    days_and_weekdays: bool
    by_elapsed_time: bool

    def matches(self, wall: datetime) -> bool:
        minutes, hours, days, months, weekdays = self.fields
        if wall.minute not in minutes or wall.hour not in hours or wall.month not in months:
            return False
        day = wall.day in days
        weekday = wall.isoweekday() % 7 in weekdays
        return (day and weekday) if self.days_and_weekdays else (day or weekday)


def parse(text: str) -> Rule:
    words = text.split()
    fields = []
    for word, (low, high) in zip(words, BOUNDS, strict=True):
        values: set[int] = set()
        for term in word.split(","):
            span, _, step = term.partition("/")
            first, _, last = span.partition("-")
            begin, end = (low, high) if span == "*" else (int(first), int(last or (high if step else first)))
            values |= set(range(begin, end + 1, int(step or 1)))
        fields.append(values)
    fields[4] = {day % 7 for day in fields[4]}
    return Rule(fields, words[2][0] == "*" or words[4][0] == "*", words[0][0] == "*" or words[1][0] == "*")


def ticks(text: str, zone: str, start: int, stop: int, *, lead: int = 3600) -> list[int]:
    """The instants of `[start, stop)` at which crond, started `lead` earlier, would run the rule."""
    rule = parse(text)
    found: list[int] = []
    high: datetime | None = None
    for at, wall in walk(zone, start - lead, stop):
        if rule.by_elapsed_time:
            fires = rule.matches(wall)
        elif high is None or wall > high:
            passed = [wall] if high is None else [high + timedelta(minutes=n) for n in range(1, _minutes(wall - high) + 1)]
            fires = any(rule.matches(minute) for minute in passed)
            high = wall
        else:
            fires = False
        if fires and at >= start:
            found.append(at)
    return found


def _minutes(delta: timedelta) -> int:
    return delta // timedelta(minutes=1)


def shifts(zone: str, first_year: int, last_year: int) -> list[int]:
    """The seconds at which a zone's offset changes, found by an hourly look and a linear one within it."""
    info = ZoneInfo(zone)

    def offset(at: int) -> timedelta | None:
        return datetime.fromtimestamp(at, info).utcoffset()

    start = int(datetime(first_year, 1, 1, tzinfo=UTC).timestamp())
    stop = int(datetime(last_year + 1, 1, 1, tzinfo=UTC).timestamp())
    found = []
    before = offset(start)
    for hour in range(start, stop, 3600):
        after = offset(hour + 3600)
        if after != before:
            found.append(next(at for at in range(hour + 1, hour + 3601) if offset(at) == after))
            before = after
    return found


def expression(dice: random.Random, *, near_midnight: bool = False) -> str:
    """A random cron text with numbers; hours around those in which clocks shift, where asked."""
    return " ".join(
        (
            _field(dice, 0, 59),
            _field(dice, 0, 4) if near_midnight and dice.random() < 0.6 else _field(dice, 0, 23),
            "*" if dice.random() < 0.7 else _field(dice, 1, 31),
            "*" if dice.random() < 0.7 else _field(dice, 1, 12),
            "*" if dice.random() < 0.6 else _field(dice, 0, 6),
        )
    )


def _field(dice: random.Random, low: int, high: int) -> str:
    def term() -> str:
        begin = dice.randint(low, high)
        end = dice.randint(begin, high)
        return dice.choice((str(begin), f"{begin}-{end}", f"{begin}-{end}/{dice.randint(1, 9)}"))

    kind = dice.randint(0, 5)
    if kind == 0:
        return "*"
    if kind == 1:
        return f"*/{dice.randint(2, 13)}"
    return ",".join(term() for _ in range(dice.choice((1, 1, 1, 2, 3))))

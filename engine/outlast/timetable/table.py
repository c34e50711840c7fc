"""What the scheduler asks of a rule, and the rules that are made of other rules.

Owns the protocol `Timetable`: instants are integers of microseconds since 1970 (wall time, UTC), and every
answer is a function of its arguments alone, so that any process gives the same one. Refuses to read a clock,
to keep what has fired, and to move ticks by jitter: a tick is its nominal instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

COUNT_LIMIT = 5_000
"""A rule that can only be counted tick by tick is counted this far; then the answer is None."""


class Timetable(Protocol):
    """A rule that names instants. Every range is `after < tick <= until`."""

    def next(self, after: int) -> int | None:
        """The first tick after an instant; None if there is none any more."""

    def latest(self, until: int, *, after: int | None = None) -> int | None:
        """The last tick up to an instant; None if there is none (after `after`, where that is given)."""

    def count(self, after: int, until: int) -> int | None:
        """How many ticks there are; None if there are more than can be counted one by one (`COUNT_LIMIT`)."""

    def describe(self) -> str:
        """One line for people."""

    def to_json(self) -> dict[str, Any]:
        """The rule as data that `from_json` reads, or that says why it cannot be read back."""

    def rule(self) -> dict[str, Any]:
        """The rule as data in its canonical form: two that tick alike by their text are equal. For the
        fingerprint.
        """


class Between:
    """A rule within bounds, both inclusive."""

    kind = "between"

    def __init__(self, inner: Timetable, start: int | None, end: int | None) -> None:
        self.inner = inner
        self.start = start
        self.end = end

    def next(self, after: int) -> int | None:
        found = self.inner.next(after if self.start is None else max(after, self.start - 1))
        return None if found is None or (self.end is not None and found > self.end) else found

    def latest(self, until: int, *, after: int | None = None) -> int | None:
        if self.start is not None:
            after = self.start - 1 if after is None else max(after, self.start - 1)
        until = until if self.end is None else min(until, self.end)
        return None if after is not None and until <= after else self.inner.latest(until, after=after)

    def count(self, after: int, until: int) -> int | None:
        after = after if self.start is None else max(after, self.start - 1)
        until = until if self.end is None else min(until, self.end)
        return self.inner.count(after, until) if until > after else 0

    def describe(self) -> str:
        from ..clock import iso

        start = "" if self.start is None else f", from {iso(self.start)}"
        return f"{self.inner.describe()}{start}" + ("" if self.end is None else f", until {iso(self.end)}")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "of": self.inner.to_json(), "start": self.start, "end": self.end}

    def rule(self) -> dict[str, Any]:
        return {"kind": self.kind, "of": self.inner.rule(), "start": self.start, "end": self.end}


class AnyOf:
    """Several rules as one: it ticks when any of them does, once where several do."""

    kind = "any"

    def __init__(self, tables: Sequence[Timetable]) -> None:
        self.tables = tuple(tables)

    def next(self, after: int) -> int | None:
        return min((tick for table in self.tables if (tick := table.next(after)) is not None), default=None)

    def latest(self, until: int, *, after: int | None = None) -> int | None:
        ticks = (table.latest(until, after=after) for table in self.tables)
        return max((tick for tick in ticks if tick is not None), default=None)

    def count(self, after: int, until: int) -> int | None:
        # Rules with nothing in the range cannot share a tick with another; one alone counts by itself.
        live = [table for table in self.tables if (first := table.next(after)) is not None and first <= until]
        return live[0].count(after, until) if len(live) == 1 else count_one_by_one(AnyOf(live), after, until)

    def describe(self) -> str:
        return "; or ".join(table.describe() for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "of": [table.to_json() for table in self.tables]}

    def rule(self) -> dict[str, Any]:
        return {"kind": self.kind, "of": sorted((table.rule() for table in self.tables), key=repr)}


def count_one_by_one(table: Timetable, after: int, until: int) -> int | None:
    """Count by stepping, up to `COUNT_LIMIT`."""
    total = 0
    tick = table.next(after)
    while tick is not None and tick <= until:
        total += 1
        if total > COUNT_LIMIT:
            return None
        tick = table.next(tick)
    return total

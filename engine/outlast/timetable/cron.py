"""The cron rule in time: wall times to instants, as Vixie cron does it.

Owns the mapping of a pattern's wall times to UTC where wall time repeats or is skipped. A rule whose minute
or hour begins with `*` goes by elapsed time: it ticks at every whole minute that the wall clock shows and the
pattern matches, so through both passes of a repeated hour and not at all in a skipped one. A rule at fixed
times ticks once for each time, at the first moment when the clock shows that time or a later one: the first
pass where it repeats, just after the gap where it is skipped; several times in one gap are one tick. Ticks
fall on whole minutes of the wall. Refuses `fold`, and every loop over ticks: each answer costs a few looks at
the zone's stretches, however many ticks lie between.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..clock import SECOND
from .pattern import Pattern
from .zone import DAY, FIRST, LAST, Zone

# No zone was ever set back by more than a day, or was further than 26 hours from UTC: what the wall shows
# from an instant on is never more than two days behind what it showed there.
_BACK = 2 * DAY


class CronTable:
    """The ticks of a cron text in a zone."""

    kind = "cron"

    def __init__(self, text: str, zone: Zone) -> None:
        self.text = " ".join(text.split()) if isinstance(text, str) else text
        self.pattern = Pattern(text)
        self.zone = zone

    def next(self, after: int) -> int | None:
        start = max(after // SECOND + 1, FIRST + 4 * DAY)
        found = self._next_elapsed(start) if self.pattern.by_elapsed_time else self._next_fixed(start)
        return None if found is None else found * SECOND

    def latest(self, until: int, *, after: int | None = None) -> int | None:
        stop = min(until // SECOND, LAST - 4 * DAY)
        found = self._latest_elapsed(stop) if self.pattern.by_elapsed_time else self._latest_fixed(stop)
        return None if found is None or (after is not None and found * SECOND <= after) else found * SECOND

    def count(self, after: int, until: int) -> int:
        start, stop = max(after // SECOND + 1, FIRST + 4 * DAY), min(until // SECOND + 1, LAST - 4 * DAY)
        if stop <= start:
            return 0
        count = self.pattern.count
        if self.pattern.by_elapsed_time:
            return sum(count(low, high) for low, high, _ in self._minutes(start, stop))
        total, shown = 0, self._shown(start)
        for low, high, _ in self._minutes(start, stop):
            if shown is not None and low > shown + 1:
                total += min(1, count(shown + 1, low + 1))
                shown = low
            begin = low if shown is None else max(low, shown + 1)
            total += count(begin, high)
            shown = high - 1 if shown is None else max(shown, high - 1)
        return total

    def describe(self) -> str:
        return f"cron {self.text} ({self.zone.name}): {self.pattern.explain()}"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text, "timezone": self.zone.name}

    def rule(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.pattern.text, "timezone": self.zone.name}

    def _minutes(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The wall minutes, low to high without the high, that begin within each stretch; and the stretch's
        offset.
        """
        for begin, end, offset in self.zone.stretches(start, stop):
            low, high = -(-(begin + offset) // 60), -(-(end + offset) // 60)
            if low < high:
                yield low, high, offset

    def _shown(self, before: int) -> int | None:
        """The highest wall minute that began before an instant."""
        return max((high - 1 for _, high, _ in self._minutes(before - _BACK, before)), default=None)

    def _next_elapsed(self, start: int) -> int | None:
        while start < LAST:
            stop = start + 4 * DAY
            for low, high, offset in self._minutes(start, stop):
                found = self.pattern.first(low)
                if found is None:
                    return None
                if found < high:
                    return found * 60 - offset
            # Nothing in four days: go to two days before the next wall time that matches.
            local = (stop + self.zone.offset(min(stop, LAST))) // 60
            found = self.pattern.first(local - _BACK // 60)
            if found is None:
                return None
            start = max(stop, found * 60 - _BACK)
        return None

    def _latest_elapsed(self, stop: int) -> int | None:
        while stop > FIRST + 4 * DAY:
            start = stop - 4 * DAY
            for low, high, offset in reversed(list(self._minutes(start, stop + 1))):
                found = self.pattern.last(high - 1)
                if found is None:
                    return None
                if found >= low:
                    return found * 60 - offset
            local = (start + self.zone.offset(start)) // 60
            found = self.pattern.last(local + _BACK // 60)
            if found is None:
                return None
            stop = min(start - 1, found * 60 + _BACK)
        return None

    def _next_fixed(self, start: int) -> int | None:
        shown = self._shown(start)
        if shown is None:
            return None
        wanted = self.pattern.first(shown + 1)
        return None if wanted is None else self._place(wanted, start)

    def _latest_fixed(self, stop: int) -> int | None:
        shown = self._shown(stop + 1)
        wanted = None if shown is None else self.pattern.last(shown)
        return None if wanted is None else self._place(wanted, FIRST)

    def _place(self, wanted: int, start: int) -> int | None:
        """The first instant, from `start` on, when the wall shows this minute or a later one."""
        begin = max(start, wanted * 60 - _BACK)
        for low, high, offset in self._minutes(begin, wanted * 60 + 2 * _BACK):
            if wanted < high:
                return max(low, wanted) * 60 - offset
        return None

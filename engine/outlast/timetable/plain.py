"""The two rules that need no calendar: every so often, and once.

Owns elapsed-time intervals, which no shift of a zone touches because they are counted in UTC from an anchor
that all processes agree on (the schedule's `start`, else 1970), and single instants. Refuses intervals under
a tenth of a second: each tick is a durable row.
"""

from __future__ import annotations

from typing import Any

from ..clock import SECOND, iso
from ..text.duration import describe
from .zone import LAST

SHORTEST = SECOND // 10


class EveryTable:
    """Ticks at the anchor plus every multiple of the interval, backwards too."""

    kind = "every"

    def __init__(self, interval: int, anchor: int | None = None) -> None:
        self.interval = interval
        self.anchor = anchor or 0

    def next(self, after: int) -> int | None:
        found = self.anchor + ((after - self.anchor) // self.interval + 1) * self.interval
        return found if found < LAST * SECOND else None

    def latest(self, until: int, *, after: int | None = None) -> int | None:
        found = self.anchor + (until - self.anchor) // self.interval * self.interval
        return None if after is not None and found <= after else found

    def count(self, after: int, until: int) -> int:
        return max(0, (until - self.anchor) // self.interval - (after - self.anchor) // self.interval)

    def describe(self) -> str:
        return f"every {describe(self.interval / SECOND)}"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "interval": self.interval, "anchor": self.anchor}

    def rule(self) -> dict[str, Any]:
        return {"kind": self.kind, "interval": self.interval, "anchor": self.anchor % self.interval}


class AtTable:
    """One tick."""

    kind = "at"

    def __init__(self, at: int) -> None:
        self.at = at

    def next(self, after: int) -> int | None:
        return self.at if self.at > after else None

    def latest(self, until: int, *, after: int | None = None) -> int | None:
        return self.at if self.at <= until and (after is None or self.at > after) else None

    def count(self, after: int, until: int) -> int:
        return int(after < self.at <= until)

    def describe(self) -> str:
        return f"once, at {iso(self.at)}"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "at": self.at}

    def rule(self) -> dict[str, Any]:
        return self.to_json()

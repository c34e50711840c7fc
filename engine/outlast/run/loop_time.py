"""What `loop.time()` says in an async workflow: elapsed time, as its journal has it.

Owns the sum of what passed between the outcomes that were delivered, so that `asyncio.timeout_at` and a loop that asks for the time
go by elapsed time, whatever the wall clock did, and say the same on every replay. Refuses to read a clock: an outcome brings the engine
instant of its writing along. Where the one before has none (the start of the run, an older journal), the wall clock has to do.
"""

from __future__ import annotations

from ..clock import SECOND
from ..journal.entry import Entry
from .pending import Pending


class LoopTime:
    """The time of one run's loop, in microseconds; never falling."""

    def __init__(self, began_at: int) -> None:
        """`began_at`: the wall instant of the run's start, by which the time counts."""
        self.at = began_at
        self._wall_at = began_at
        self._engine_at: int | None = None

    def delivered(self, entry: Entry, pending: Pending | None) -> None:
        """Go on to the instant of an outcome."""
        engine_at = entry.due_at
        timer = None if pending is None else pending.timer
        if pending is not None and timer is not None and engine_at is not None and pending.over_at is not None:
            # What the code had asked for, and by how much it came later: exact even before any other outcome.
            at = round(timer.when() * SECOND) + engine_at - pending.over_at
        elif engine_at is not None and self._engine_at is not None:
            at = self.at + engine_at - self._engine_at
        else:
            at = self.at + entry.at - self._wall_at
        self.at = max(self.at, at)
        self._wall_at = max(self._wall_at, entry.at)
        self._engine_at = engine_at

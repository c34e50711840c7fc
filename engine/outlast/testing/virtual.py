"""Virtual time: both clocks stand still until a test moves them.

Owns the clock that a driven engine reads. It begins at the real instant and keeps the machine's boot, so that
processes can still be told apart. Where freezegun has frozen the time, that is the wall clock: moving one moves
the other, and the engine's durations pass with it.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any, Protocol

from ..clock import SystemClock


class Instants(Protocol):
    """Two whole numbers that can be set."""

    def __getitem__(self, index: int, /) -> int: ...

    def __setitem__(self, index: int, value: int, /) -> None: ...


class VirtualClock:
    """A `clock.Clock` that moves by `advance` alone."""

    def __init__(self, instants: Instants | None = None) -> None:
        """`instants` holds what it shows, wall and elapsed; one in shared memory outlives the process that moved it."""
        self._real = real = SystemClock()
        self._boot_id = real.boot_id()
        self._instants: Instants = [real.wall(), real.elapsed()] if instants is None else instants

    def wall(self) -> int:
        self._follow()
        return self._instants[0]

    def elapsed(self) -> int:
        self._follow()
        return self._instants[1]

    def boot_id(self) -> str:
        return self._boot_id

    def advance(self, microseconds: int) -> None:
        """Let time pass on both clocks, and for freezegun."""
        self._follow()
        frozen = _frozen()
        if frozen is not None:
            frozen.tick(timedelta(microseconds=microseconds))
        self._instants[0] += microseconds
        self._instants[1] += microseconds

    def _follow(self) -> None:
        """Take up what a test has done to freezegun's time: a step ahead is time that passed, a step back a jump."""
        if _frozen() is None:
            return
        wall = self._real.wall()
        moved = wall - self._instants[0]
        if moved:
            self._instants[0] = wall
            self._instants[1] += max(0, moved)


def _frozen() -> Any:
    """What freezegun has frozen last, if it has."""
    api = sys.modules.get("freezegun.api")
    frozen = getattr(api, "freeze_factories", None)
    return frozen[-1] if frozen else None

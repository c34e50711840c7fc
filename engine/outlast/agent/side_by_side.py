"""The agents of one process: when one of them dies all do, so a suspect runs alone only where none of the others works.

Owns which of them may claim. Without it two agents in one process take a poison task and an innocent one again and again, each the only
task of its agent, and the crashes count against both. Refuses to know of other processes: those die by themselves.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol


class Side(Protocol):
    """What an agent shows to those beside it."""

    @property
    def is_busy(self) -> bool:
        """Whether it holds tasks, or may have claimed some."""
        ...

    @property
    def is_alone(self) -> bool:
        """Whether it holds a suspect, or may have claimed one."""
        ...


class SideBySide:
    """Those that are there, each in a thread of its own."""

    def __init__(self) -> None:
        self.forget_others_after_fork()
        os.register_at_fork(after_in_child=self.forget_others_after_fork)

    def forget_others_after_fork(self) -> None:
        """Begin with nobody: the agents of a parent are not of this process."""
        self.claiming = threading.Lock()
        """Held from the question to the claim: else two would see that the other has nothing."""
        self._sides: list[Side] = []
        self._first: Side | None = None
        """Who has a suspect to run, and waits until all have nothing."""
        self._since = 0.0
        self._has_begun = False
        """Whether it has claimed one: until it asks again, nobody else claims."""

    def others_of(self, side: Side) -> list[Side]:
        """Those beside it, which has come to stay. With `claiming` held, as for what follows."""
        if side not in self._sides:
            self._sides.append(side)
        return [other for other in self._sides if other is not side]

    def may_claim(self, side: Side, *, has_suspects: bool, gives_way: Callable[[float], bool]) -> bool | None:
        """Whether it may claim now, and that a suspect; None where it may claim nothing.

        `gives_way` tells of the seconds for which a suspect has waited whether those that are busy take nothing new meanwhile.
        """
        others = self.others_of(side)
        if any(other.is_alone for other in others):
            return None
        now = time.monotonic()
        if self._first not in (None, side):
            return None if self._has_begun or gives_way(now - self._since) else False
        if not has_suspects:
            self._first = None
            return False
        if self._first is None or self._has_begun:
            self._first, self._since = side, now
        self._has_begun = not (side.is_busy or any(other.is_busy for other in others))
        return True if self._has_begun else None if gives_way(now - self._since) else False

    def found_nothing(self, side: Side) -> None:
        """Its claim has come back empty: it may not ask again for long."""
        with self.claiming:
            if self._first is side and self._has_begun:
                self._first = None

    def leave(self, side: Side) -> None:
        """It has ended."""
        with self.claiming:
            self._sides = self.others_of(side)
            if self._first is side:
                self._first = None


in_this_process = SideBySide()

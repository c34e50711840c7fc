"""The agents of one process: when one of them dies all do, so a suspect runs alone only where none of the others works.

Owns which of them may claim. Without it two agents in one process take a poison task and an innocent one again and again, each the only
task of its agent, and the crashes count against both. Refuses to know of other processes: those die by themselves.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol


class Side(Protocol):
    """What an agent shows to those beside it."""

    @property
    def is_busy(self) -> bool:
        """Whether it holds tasks, or may have claimed some."""
        ...

    @property
    def is_alone(self) -> bool:
        """Whether it holds a suspect."""
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
        """Who runs suspects, or waits until the others have nothing: meanwhile, nobody else claims."""

    def others_of(self, side: Side) -> list[Side]:
        """Those beside it, which has come to stay. With `claiming` held, as for what follows."""
        if side not in self._sides:
            self._sides.append(side)
        return [other for other in self._sides if other is not side]

    def may_claim(self, side: Side, *, has_suspects: bool) -> bool | None:
        """Whether it may claim now, and that a suspect; None where it may claim nothing."""
        others = self.others_of(side)
        if self._first not in (None, side) or any(other.is_alone for other in others):
            return None
        self._first = side if has_suspects else None
        if not has_suspects:
            return False
        return None if side.is_busy or any(other.is_busy for other in others) else True

    def leave(self, side: Side) -> None:
        """It has ended."""
        with self.claiming:
            self._sides = self.others_of(side)
            if self._first is side:
                self._first = None

"""The callers whose answers are there, and who go on one after the other.

Owns who is woken when. Sixty threads woken at once take the interpreter's lock from each other: each is woken, finds it taken, and
waits again. So each is woken by the one before, as that comes to wait for its next commit. Refuses to let one hold up the others: where
those that were woken take their time, since their steps do, all are woken at once for a while.
"""

from __future__ import annotations

import time
from collections import deque

from .one_processor import Trial
from .waiting_place import Place, borrow, held_lock

_SLOW_SECONDS = 0.00025
"""What a caller may take, from being woken to its next commit, if the next is to wait for it."""
_SLACK_SECONDS = 0.004
"""What is forgiven to all of them together: a machine that was busy with something else for a moment."""
_CROWD = 16
"""A few that happen to take turns say nothing of where they should wake, and gain nothing."""
LEAST_PATIENCE_SECONDS, _MOST_PATIENCE_SECONDS = 0.001, 0.01
_LEAST_HASTE_SECONDS, _MOST_HASTE_SECONDS = 0.005, 0.2
"""For how long all are woken at once: longer with each time that somebody was waited for in vain."""


class Answered:
    """The places at which answered callers wait. Any thread may use it."""

    def __init__(self) -> None:
        self._waiting: deque[Place] = deque()
        self._began = 0.0
        self._woken = 0
        """How many have been woken since then, if others wait."""
        self._seen = 0
        self._turn_seconds = _SLOW_SECONDS / 2
        """A moving mean of what one takes."""
        self._trial = Trial()
        self._haste_until = 0.0
        self._haste_seconds = _LEAST_HASTE_SECONDS

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def bound(self) -> bool:
        """Whether who waits is to be bound to one processor meanwhile."""
        return self._trial.bound and not self._haste_until

    def place(self) -> Place:
        """Where a caller is to wait for its answer."""
        return held_lock() if self._haste_until and _now() < self._haste_until else borrow()

    def add(self, caller: Place) -> None:
        """A caller has its answer; `let_next_go` follows."""
        self._waiting.append(caller)

    def let_next_go(self) -> None:
        """Wake one caller: by one that has come to wait again, or by who has answered."""
        if not self._waiting:
            return
        now = _now()
        if self._woken == 0:
            self._began = now
        elif now - self._began > _SLACK_SECONDS + _SLOW_SECONDS * self._woken:
            self._hurry(now)
        if now < self._haste_until:
            self.let_all_go()
            return
        self._haste_until = 0.0
        try:
            caller = self._waiting.popleft()
        except IndexError:
            return
        if self._waiting:
            self._woken += 1
        else:
            if self._woken:
                turn_seconds = (now - self._began) / self._woken
                self._turn_seconds += 0.1 * (turn_seconds - self._turn_seconds)
                if self._woken >= _CROWD:
                    self._trial.took(turn_seconds)
            self._woken, self._seen, self._haste_seconds = 0, 0, _LEAST_HASTE_SECONDS
        caller.release()

    def let_all_go(self) -> None:
        """Wake all."""
        self._woken = self._seen = 0
        while self._waiting:
            try:
                self._waiting.popleft().release()
            except IndexError:
                return

    def patience_seconds(self) -> float | None:
        """After how long somebody should look whether they go on; None where nobody waits."""
        count = len(self._waiting)
        if not count:
            return None
        return min(max(2 * self._turn_seconds * count, LEAST_PATIENCE_SECONDS), _MOST_PATIENCE_SECONDS)

    def goes_on(self) -> bool:
        """Whether somebody was woken since the last look and others wait; if nobody was, all are."""
        if self._waiting and self._woken != self._seen:
            self._seen = self._woken
            return True
        if self._waiting:
            self._hurry(_now())
        self.let_all_go()
        return False

    def _hurry(self, now: float) -> None:
        self._trial.begin_anew()
        self._haste_until = now + self._haste_seconds
        self._haste_seconds = min(2 * self._haste_seconds, _MOST_HASTE_SECONDS)


def _now() -> float:
    # A real wait for real threads: no test's clock may stop it.
    return time.clock_gettime(time.CLOCK_MONOTONIC)

"""Threads that take turns are woken on one processor, where that is quicker.

Owns where a waiting thread may wake. The kernel wakes it on whichever processor idles, although the thread that has woken it is about to
sleep: an interrupt of another core, and caches that know nothing of the run. Where all of a crowd wake on the same one, a step may cost a
fifth less; where other programs want that one too, a fifth more: so both ways are tried, now and then. Refuses to bind a thread that
runs: the user's code, and whatever processes and threads that starts, would inherit it.
"""

from __future__ import annotations

import os
from collections import deque

_TRIED, _SETTLED = 9, 400
"""For how many rounds of a crowd a way is tried, and how many go by until the other one is tried again."""
_CLEARLY = 0.95
_can_bind = hasattr(os, "sched_setaffinity")
_home = frozenset((-1,))
"""The processor of this process' crowd."""


class Trial:
    """Which way is the quicker one. Pure; races between threads cost a measurement at most."""

    def __init__(self) -> None:
        self.bound = False
        """The way of the next round."""
        self._is_tried = False
        self._is_first = True
        self._left = _TRIED
        self._turns: deque[float] = deque(maxlen=_TRIED)
        self._before = 0.0

    def took(self, turn_seconds: float) -> None:
        """A round is over, in which one turn took so long in the mean."""
        if self._is_first:
            self._is_first = False  # Its callers came to wait before the way was changed.
            return
        self._turns.append(turn_seconds)
        self._left -= 1
        if self._left > 0:
            return
        turn = sorted(self._turns)[len(self._turns) // 2]
        if self._is_tried:
            self._go_on(bound=self.bound if turn < _CLEARLY * self._before else not self.bound, rounds=_SETTLED)
        else:
            self._before = turn
            self._go_on(bound=not self.bound, rounds=_TRIED)
        self._is_tried = not self._is_tried

    def begin_anew(self) -> None:
        """The crowd did not take turns this time: who wakes all at once is not to wake them on one processor."""
        self._is_tried = False
        self._go_on(bound=False, rounds=_TRIED)

    def _go_on(self, *, bound: bool, rounds: int) -> None:
        self._is_first = bound is not self.bound
        self.bound, self._left = bound, rounds
        self._turns.clear()


def bind() -> set[int] | None:
    """Let the calling thread wake on the crowd's processor alone; gives what `unbind` is to restore, None where nothing was done."""
    global _home, _can_bind
    if not _can_bind:
        return None
    try:
        # Each time anew: an administrator, or the user's code in this thread, may have changed it.
        allowed = os.sched_getaffinity(0)
        if len(allowed) == 1:
            return None
        if not _home <= allowed:
            # The processes of one machine are spread. Two threads that choose at once choose the same.
            _home = frozenset((sorted(allowed)[os.getpid() % len(allowed)],))
        os.sched_setaffinity(0, _home)
    except OSError:
        _can_bind = False  # A sandbox forbids it.
        return None
    return allowed


def unbind(allowed: set[int]) -> None:
    """Let the calling thread run where it might before."""
    try:
        os.sched_setaffinity(0, allowed)
    except OSError:
        # All of those were taken from the process meanwhile, and the kernel has chosen others.
        return

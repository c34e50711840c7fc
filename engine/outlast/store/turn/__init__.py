"""The turn: whose write transaction comes next, among the threads and processes of one file.

Owns the file `<db>-turn` and two bytes of it. SQLite's own busy handler sleeps longer the longer it has
waited, so under load the latest comer wins and somebody starves; here one waiter at a time holds `next` while
it waits for `turn`, and whoever has just let go queues behind it. The kernel drops the locks of a process
that dies. Refuses to be the truth: the turn is a courtesy, SQLite's write lock decides; whoever has waited
long enough, say for a stopped process, goes on without it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref

from .locks import NEXT, TURN, Locks, open_locks

IMPATIENT_SECONDS = 0.002
"""How long a turn is awaited after a timeout, until it is found free again: its holder seems stuck."""

SLICE_SECONDS = 0.002
"""How long a process may go on when its turn has come. Short transactions would otherwise spend more on
changing hands, and on reading pages that the other has written, than on their work.
"""

_SHARED_SECONDS = 0.1
"""For how long another process that we waited for is taken to want the turn again."""

_LOOK_AGAIN_SECONDS = (0.005, 0.002)
"""The longest pause before another look at `next` and at the turn, should a wakeup be lost. Looking at `next`
often would put whoever happens to look first ahead of those whom the kernel wakes in the order of their
coming.
"""

_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


class Turn:
    """One per file and process; its threads share it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(path) + "-turn"
        self._locks: Locks | None = None
        self._is_impatient = False
        self._reset()
        _turns.add(self)

    def acquire(self, timeout_seconds: float) -> bool:
        """Wait for the turn; False when it was not had in time, and the caller may go on without it."""
        if self.try_acquire():
            return True
        now = _now()
        if now < self._slice_until and self._take_again():
            return True
        deadline = now + timeout_seconds
        # Fair among threads by the same two steps: one that has just let go finds `next` taken by the waiter.
        if not self._thread_next.acquire(timeout=timeout_seconds):
            return False
        try:
            if not self._thread_turn.acquire(timeout=max(0.0, deadline - _now())):
                return False
        finally:
            self._thread_next.release()
        held = False
        try:
            held = self._wait_for_processes(deadline)
        finally:
            if not held:
                self._thread_turn.release()
        return held

    def try_acquire(self) -> bool:
        """Take the turn if it is free and nobody waits for it; never wait. For an event loop."""
        if self._thread_next.locked() or not self._thread_turn.acquire(blocking=False):
            return False
        held = False
        try:
            held = (self._locks or self._open()).take_if_free()
        finally:
            if not held:
                self._thread_turn.release()
        if self._is_impatient and held:
            self._is_impatient = False
        return held

    def release(self) -> None:
        """Let the next one go. Only after an acquisition that returned True."""
        if self._locks is not None:
            self._locks.free_turn()
        self._thread_turn.release()

    @property
    def is_shared(self) -> bool:
        """Whether this process had to wait for another one a moment ago."""
        return _now() - self._waited_at < _SHARED_SECONDS

    def close(self) -> None:
        """Close the file. The turn may be taken again afterwards, which opens it anew."""
        if self._locks is not None:
            self._locks.close()
            self._locks = None

    def _wait_for_processes(self, deadline: float) -> bool:
        locks = self._locks or self._open()
        if self._is_impatient:
            deadline = min(deadline, _now() + IMPATIENT_SECONDS)
        self._is_impatient = True
        while not locks.take_next():
            if not self._pause(locks, NEXT, deadline):
                return False
        try:
            while not locks.take_turn():
                if not self._pause(locks, TURN, deadline):
                    return False
        finally:
            locks.free_next()
        self._is_impatient = False
        self._slice_until = _now() + SLICE_SECONDS
        return True

    def _take_again(self) -> bool:
        """Take the turn ahead of the one that waits, within the slice that our own wait has earned."""
        if self._thread_next.locked() or not self._thread_turn.acquire(blocking=False):
            return False
        held = False
        try:
            held = (self._locks or self._open()).take_turn()
        finally:
            if not held:
                self._thread_turn.release()
        return held

    def _pause(self, locks: Locks, lock: int, deadline: float) -> bool:
        remaining = deadline - _now()
        if remaining <= 0:
            return False
        self._waited_at = _now()
        locks.pause(lock, min(remaining, _LOOK_AGAIN_SECONDS[lock]))
        return True

    def _open(self) -> Locks:
        self._locks = open_locks(self.path)
        return self._locks

    def _reset(self) -> None:
        self._thread_next = threading.Lock()
        self._thread_turn = threading.Lock()
        self._locks = None
        self._is_impatient = False
        self._slice_until = 0.0
        self._waited_at = -_SHARED_SECONDS

    def forget_after_fork(self) -> None:
        """Close what the parent had opened."""
        # The child shares the parent's open file, hence its locks: a turn that the parent holds would not end
        # with the parent as long as the child keeps the descriptor. Closing it here leaves the parent's hold
        # untouched.
        locks = self._locks
        self._reset()
        if locks is not None:
            locks.close()


def _now() -> float:
    # A real wait for real processes: neither a test's clock nor freezegun may stop it.
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _forget_all_after_fork() -> None:
    for turn in list(_turns):
        turn.forget_after_fork()


os.register_at_fork(after_in_child=_forget_all_after_fork)

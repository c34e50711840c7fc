"""The slots of an agent: how many of its tasks may be at work at once.

Owns the count and the queue of those that wait to go on. Refuses to know tasks. A run that waits durably leaves its slot; in a thread
it waits for one to go on, on the loop (where nothing may block) it is counted over the limit until others leave.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Slots:
    """`on_free` is called, on the leaving thread, when a slot is free and nobody waits for it."""

    def __init__(self, count: int, on_free: Callable[[], None]) -> None:
        self.count = count
        self._free = count
        self._on_free = on_free
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @property
    def free(self) -> int:
        return self._free

    @property
    def is_wanted(self) -> bool:
        """Whether somebody that comes back from a wait needs a slot."""
        return bool(self._queue)

    def try_take(self) -> bool:
        with self._lock:
            if self._free <= 0 or self._queue:
                return False
            self._free -= 1
            return True

    def take(self) -> None:
        """Wait for a slot. Those that come back from a wait go before new tasks."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return
            turn = threading.Event()
            self._queue.append(turn)
        turn.wait()

    def take_now(self) -> None:
        with self._lock:
            self._free -= 1

    def leave(self) -> None:
        with self._lock:
            if self._queue and self._free >= 0:
                self._queue.popleft().set()
                return
            self._free += 1
            is_free = self._free > 0
        if is_free:
            self._on_free()

"""The threads in which an agent's sync code runs.

Owns a backlog of claimed work and as many threads as slots need: a thread takes from the backlog while there is a slot, one piece after
the other without a hand-over, which is what makes short runs cheap. Refuses to know what the work is. A thread whose run waits
durably leaves its slot to the next one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from .slots import Slots


class Runners:
    """Executes `work(item)` for each item of the backlog, in at most as many threads as there are slots."""

    def __init__(self, slots: Slots, work: Callable[[Any], None]) -> None:
        self._slots = slots
        self._work = work
        self._backlog: deque[tuple[float, Any]] = deque()
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._signalled = 0
        self.seconds = 0.01
        """A moving mean of how long a piece of work held its slot."""

    def __len__(self) -> int:
        return len(self._backlog)

    def add(self, items: list[Any]) -> None:
        now = time.monotonic()
        for item in items:
            self._backlog.append((now, item))
        for _ in range(min(len(items), max(1, self._slots.free))):
            self.wake()

    def wake(self) -> None:
        """See that a thread looks at the backlog."""
        if not self._backlog:
            return
        with self._lock:
            if self._signalled < self._idle:
                self._signalled += 1
            else:
                threading.Thread(target=self._run, name="outlast-runner", daemon=True).start()
                return
        self._tokens.put(True)

    def take_back(self, *, older_than_seconds: float = 0.0) -> list[Any]:
        """Remove what nobody has begun: all of it, or what has waited too long behind slow work."""
        taken: list[Any] = []
        before = time.monotonic() - older_than_seconds
        while True:
            try:
                since, item = self._backlog.popleft()
            except IndexError:
                return taken
            if since > before:
                self._backlog.appendleft((since, item))
                return taken
            taken.append(item)

    def close(self) -> None:
        """Let idle threads end."""
        with self._lock:
            idle = self._idle
        for _ in range(idle):
            self._tokens.put(False)

    def _run(self) -> None:
        while True:
            self._empty_backlog()
            with self._lock:
                self._idle += 1
            go_on = self._tokens.get()
            with self._lock:
                self._idle -= 1
                self._signalled = max(0, self._signalled - 1)
            if not go_on:
                return

    def _empty_backlog(self) -> None:
        while self._backlog and self._slots.try_take():
            try:
                _, item = self._backlog.popleft()
            except IndexError:
                self._slots.leave()
                return
            began = time.monotonic()
            try:
                self._work(item)
            finally:
                self._slots.leave()
            self.seconds += 0.05 * (time.monotonic() - began - self.seconds)

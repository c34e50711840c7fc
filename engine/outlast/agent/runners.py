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
from typing import Generic, TypeVar

from .slots import Slots

_SHORT_SECONDS = 0.02
_ALONE_SECONDS = 0.0002
"""Less than a commit takes: a piece of work that is so short has waited for nothing."""


Item = TypeVar("Item")


class Runners(Generic[Item]):
    """Executes `work(item)` for each item of the backlog, in at most as many threads as there are slots."""

    def __init__(self, slots: Slots, work: Callable[[Item], None]) -> None:
        self._slots = slots
        self._work = work
        self._backlog: deque[tuple[float, Item]] = deque()
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._signalled = 0
        self._is_closed = False
        self.seconds = 0.01
        """A moving mean of how long a piece of work held its slot."""
        self._here = threading.local()
        self._begun = 0
        self._seen = 0

    @property
    def is_short(self) -> bool:
        """Whether a piece of work is done in less time than a claim for it takes: then more are claimed than there are slots."""
        return self.seconds < _SHORT_SECONDS

    def __len__(self) -> int:
        return len(self._backlog)

    def add(self, items: list[Item]) -> bool:
        """Add to the backlog; gives whether somebody must look by `stir` that all of it is begun."""
        is_backlog = bool(self._backlog)
        now = time.monotonic()
        for item in items:
            self._backlog.append((now, item))
        # What waits for nothing is done sooner by one thread than by many, which only take the interpreter's lock from each other.
        threads = 1 if self.seconds < _ALONE_SECONDS else min(len(items), max(1, self._slots.free))
        for _ in range(threads):
            self.wake()
        return is_backlog or threads < len(items)

    def stir(self) -> bool:
        """Wake as many threads as there are slots where nothing has been begun since the last look; whether to look again soon."""
        if not self._backlog:
            return False
        if self._begun == self._seen:
            for _ in range(min(len(self._backlog), self._slots.free)):
                self.wake()
        self._seen = self._begun
        return True

    def waits(self) -> None:
        """The work in this thread gives up its slot for a while."""
        self._here.since = time.monotonic()

    def goes_on(self) -> None:
        """It has a slot again; the time between does not count."""
        now = time.monotonic()
        self._here.waited = getattr(self._here, "waited", 0.0) + now - getattr(self._here, "since", now)

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

    def take_back(self, *, older_than_seconds: float = 0.0) -> list[Item]:
        """Remove what nobody has begun: all of it, or what has waited too long behind slow work."""
        taken: list[Item] = []
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
        """Let the threads end: those that are idle now, the others as they come to be."""
        with self._lock:
            self._is_closed = True
            idle = self._idle
        for _ in range(idle):
            self._tokens.put(False)

    def _run(self) -> None:
        while True:
            self._empty_backlog()
            with self._lock:
                if self._is_closed:
                    return
                self._idle += 1
            go_on = self._tokens.get()
            with self._lock:
                self._idle -= 1
                self._signalled = max(0, self._signalled - 1)
            if not go_on:
                return

    def _empty_backlog(self) -> None:
        backlog, slots = self._backlog, self._slots
        while backlog and slots.try_take():
            try:
                # One piece after the other on the same slot, unless somebody that comes back from a wait needs it.
                while not slots.is_wanted:
                    try:
                        _, item = backlog.popleft()
                    except IndexError:
                        break
                    self._begun += 1
                    self._here.waited = 0.0
                    began = time.monotonic()
                    self._work(item)
                    self.seconds += 0.05 * (time.monotonic() - began - self._here.waited - self.seconds)
            finally:
                slots.leave()

"""Between the committer's thread and an agent's loop.

Owns the way of operations to the disk and of their answers back to the loop: in order, and many answers for one wakeup. Refuses to call
anything on the writer's thread: there, a slow callback would hold up every commit of the process.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ..operations.atomic import Operation
from ..store.committer.group import Done
from ..store.sqlite import SqliteStore


class Answers:
    """Submits operations for one loop."""

    def __init__(self, store: SqliteStore, loop: asyncio.AbstractEventLoop) -> None:
        self._committer = store.committer
        self._loop = loop
        self._thread = threading.get_ident()
        self._is_leading = False
        self._arrived: deque[tuple[Done, Any, BaseException | None]] = deque()
        self._is_called = False

    def begin(self) -> None:
        """Hear of answers, until the `end`."""
        self._committer.when_answered.append(self._call)

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Execute an operation; `done` is called on the loop, in the order of the calls. From any thread."""
        if threading.get_ident() != self._thread:
            self._committer.submit(operation, partial(self._arrive, done))
            return
        self._committer.submit_led(operation, partial(self._arrive, done))
        if not self._is_leading:
            self._is_leading = True
            self._loop.call_soon(self._lead)

    def _lead(self) -> None:
        # What the loop has still to do now may ask for more, and a commit costs more than its rows.
        self._is_leading = False
        self._committer.lead()

    def end(self) -> None:
        """The loop ends. Its thread's number may be another's by the time an answer comes: then nobody is on the loop any more."""
        self._thread = 0
        self._committer.when_answered.remove(self._call)

    def on_loop(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on the loop, from any thread; nothing where the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # What is left undone goes back with the lease.

    def _arrive(self, done: Done, result: Any, error: BaseException | None) -> None:
        self._arrived.append((done, result, error))

    def _call(self) -> None:
        """Have the loop hand out what has arrived. Once for a group: the loop would else take the interpreter's lock after each answer."""
        if self._arrived and not self._is_called:
            self._is_called = True
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._hand_out)
            else:
                self.on_loop(self._hand_out)

    def _hand_out(self) -> None:
        # Said first: an answer that comes after the last look calls again.
        self._is_called = False
        arrived = self._arrived
        while arrived:
            done, result, error = arrived.popleft()
            done(result, error)


def nothing(_: Any, __: BaseException | None) -> None:
    """Nobody waits for the answer."""

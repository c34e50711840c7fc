"""Waiting for news of the file: for a thread, or for an event loop.

Owns the pairing of the doorbell, which wakes at once, with a slow read of SQLite's data version, which
finds commits by processes that ring no bell. Refuses to say what has changed: whoever is woken looks at the
tables. Nothing is read from a table meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ..store.doorbell import Listener
    from ..store.sqlite import SqliteStore

_SLICE_SECONDS = 0.05
"""How often the data version is read while no bell rings."""


class Watch:
    """Waits for news of the file, for one thread or event loop: it returns when something may have changed.

    Look at the tables after it was made, then wait, then look again: what is committed between a look and
    the wait ends the wait.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._listener: Listener | None = store.doorbell.take_spare()
        self._version: int | None = None
        """None until it is read for the first time, which counts as a change: what was committed before is found by the look after it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._listener is not None:
            self._store.doorbell.give_back(self._listener)

    def wait_until(self, instant: float) -> None:
        """Wait for the bell until an instant of `monotonic`, if a listener is at hand. Whatever has come before, look afterwards."""
        if self._listener is not None and (left := instant - monotonic()) > 0:
            self._listener.wait(left)

    def wait(self, at_most_seconds: float | None) -> None:
        """Wait for news, for at most so long. Where there was no spare listener the first call only makes one,
        and says to look once more.
        """
        listener = self._listener
        if listener is None:
            return self._begin()
        deadline = None if at_most_seconds is None else monotonic() + at_most_seconds
        while True:
            left = _SLICE_SECONDS if deadline is None else min(_SLICE_SECONDS, deadline - monotonic())
            if left <= 0 or listener.wait(left) or self._has_changed():
                return None

    async def wait_async(self) -> None:
        """Wait for news without blocking the loop; the first call as that of `wait`."""
        listener = self._listener
        if listener is None:
            return self._begin()
        loop, rung = asyncio.get_running_loop(), asyncio.Event()
        number = listener.fileno()
        hears = False
        if number >= 0:
            with contextlib.suppress(NotImplementedError):
                loop.add_reader(number, rung.set)
                hears = True
        try:
            while not (rung.is_set() or self._has_changed()):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(rung.wait(), _SLICE_SECONDS)
        finally:
            if hears:
                loop.remove_reader(number)
        listener.drain()
        return None

    def _begin(self) -> None:
        # Most runs have ended by the first look: a socket is made for the second alone, and what was committed before it could be
        # rung is found by looking again.
        self._listener = self._store.listen()

    def _has_changed(self) -> bool:
        version = self._store.data_version()
        changed = version != self._version
        self._version = version
        return changed


def monotonic() -> float:
    # A real wait for real processes: neither a test's clock nor freezegun may stop it.
    return time.clock_gettime(time.CLOCK_MONOTONIC)

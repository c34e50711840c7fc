"""The loop of a role: waits, ticks, stops, and contains errors.

Owns the sleeping between two ticks of a scheduler, agent or supervisor: until the delay that the tick asked
for is over, the bell rings, a watched descriptor has news, or somebody stops it. It is the one place that
contains errors: a full disk or a locked file is logged once, the next tick comes later and later, and the
role goes on when the cause has gone; it ends where the file has. Refuses to poll: nothing wakes an idle loop,
but for `PRAGMA data_version` where a role asks for that, or has no bell.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from .errors import OutlastError, StoreReplaced
from .store.doorbell import Listener
from .store.library import sqlite3
from .store.translation import translate

_log = logging.getLogger("outlast")

_FIRST_DELAY_SECONDS = 0.1
_LONGEST_DELAY_SECONDS = 10.0
_VERSION_SECONDS = 0.05
_CALM_SECONDS = 0.01
"""The least time from the end of a tick to one that news asks for: ten thousand rings a second are one tick
in ten milliseconds.
"""


class LoopStore(Protocol):
    """What the loop needs of a store."""

    path: str

    def now(self) -> int: ...

    def listen(self) -> Listener: ...

    def data_version(self) -> int: ...


def _nothing_watched() -> Iterable[int]:
    return ()


class RoleLoop:
    """Runs `tick(now) -> delay in seconds` until stopped, in this thread (`run`) or in one of its own
    (`start`).
    """

    def __init__(
        self,
        name: str,
        tick: Callable[[int], float],
        store: LoopStore,
        *,
        listens: bool = False,
        reads_version: bool = False,
        watched: Callable[[], Iterable[int]] = _nothing_watched,
    ) -> None:
        """`listens`: a ring of the file's bell brings the next tick. `reads_version`: so does a commit that
        rang no bell, within 50 ms. `watched` gives, before each wait, the descriptors whose readability
        brings it (pidfds, pipes).
        """
        self.name = name
        self._tick = tick
        self._store = store
        self._listens = listens
        self._reads_version = reads_version
        self._watched = watched
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._is_woken = False
        self._wake_read, self._wake_write = _pipe()
        self._closing = threading.RLock()
        self._is_closed = False
        self._listener: Listener | None = None
        self._version: int | None = None
        self._failed: set[str] = set()
        self._delay_after_error = _FIRST_DELAY_SECONDS

    def start(self) -> None:
        """Run in a background thread. It is a daemon: a process that ends without `stop` is not kept alive by
        it.
        """
        if self._thread is not None:
            raise RuntimeError(f"the loop of the {self.name} was started already")
        self._thread = threading.Thread(target=self._run_to_the_end, name=f"outlast-{self.name}", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Run in this thread until `stop`. In the main thread, a signal ends the wait at once, so that its
        handler can run.
        """
        if threading.current_thread() is not threading.main_thread():
            self._run()
            return
        # A signal that arrives after the interpreter's last look and before the poll would wait for the
        # poll's end: Python runs handlers between bytecodes only. The descriptor is written to by the C
        # handler itself, so the poll returns.
        before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            self._run()
        finally:
            signal.set_wakeup_fd(before)
            self._close()

    def stop(self, timeout_seconds: float | None = None) -> bool:
        """End the loop after the tick that is under way, and wait for its thread; false if that took longer
        than given.

        May be called again, from a tick, and from a signal handler.
        """
        self._stopping.set()
        self._write_wake()
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout_seconds)
        return not thread.is_alive()

    def wake(self) -> None:
        """Bring the next tick now. From any thread or signal handler."""
        self._is_woken = True
        self._write_wake()

    def _run_to_the_end(self) -> None:
        try:
            self._run()
        except StoreReplaced as error:
            _log.error("The %s has ended: %s", self.name, error)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                delay_seconds, failed = self._tick_contained()
                self._wait(delay_seconds, failed=failed)
        finally:
            if self._listener is not None:
                self._listener.close()
                self._listener = None
            if threading.current_thread() is not threading.main_thread():
                self._close()

    def _tick_contained(self) -> tuple[float, bool]:
        self._is_woken = False
        try:
            if self._listens and self._listener is None:
                self._listener = self._store.listen()
            # Before the tick looks at the tables, never after: a ring that comes during the look must bring
            # another.
            if self._listener is not None:
                self._listener.drain()
            if self._version_is_read():
                self._version = self._store.data_version()
            delay_seconds = self._tick(self._store.now())
        except StoreReplaced:
            raise
        except Exception as error:  # noqa: BLE001 - the one place that contains what a role raises
            return self._contain(error), True
        if self._failed:
            _log.info("The %s goes on.", self.name)
            self._failed.clear()
        self._delay_after_error = _FIRST_DELAY_SECONDS
        return delay_seconds, False

    def _contain(self, error: Exception) -> float:
        kind = type(error).__qualname__
        if kind not in self._failed:
            self._failed.add(kind)
            if isinstance(error, sqlite3.Error):
                error = translate(error, self._store.path)
            if isinstance(error, OutlastError):
                _log.warning("The %s will try again: %s", self.name, error)
            else:
                _log.error("The %s will try again after an unexpected error.", self.name, exc_info=error)
        delay_seconds = self._delay_after_error
        self._delay_after_error = min(delay_seconds * 2, _LONGEST_DELAY_SECONDS)
        return delay_seconds

    def _version_is_read(self) -> bool:
        return self._reads_version or (self._listener is not None and self._listener.fileno() == -1)

    def _wait(self, delay_seconds: float, *, failed: bool) -> None:
        began = time.monotonic()
        ends = began + max(0.0, delay_seconds)
        if failed:
            # News does not shorten the wait after an error: what failed would fail again at each ring.
            self._wait_until(ends)
            return
        self._wait_until(min(began + _CALM_SECONDS, ends))
        fds = list(self._watched())
        if self._listener is not None and self._listener.fileno() >= 0:
            fds.append(self._listener.fileno())
        self._wait_until(ends, fds, reads_version=self._version_is_read())

    def _wait_until(self, ends: float, fds: Iterable[int] = (), *, reads_version: bool = False) -> None:
        poll = select.poll()
        for fd in (self._wake_read, *fds):
            poll.register(fd, select.POLLIN)
        while not (self._stopping.is_set() or self._is_woken):
            left = ends - time.monotonic()
            if left <= 0:
                return
            if reads_version:
                left = min(left, _VERSION_SECONDS)
            ready = {fd for fd, _ in poll.poll(-int(-left * 1000 // 1))}
            if self._wake_read in ready:
                self._read_wake()
                ready.discard(self._wake_read)
            if ready or (reads_version and self._version_changed()):
                return

    def _version_changed(self) -> bool:
        try:
            return self._store.data_version() != self._version
        except Exception:  # noqa: BLE001 - the tick meets the same error, where it is contained
            return True

    def _read_wake(self) -> None:
        try:
            while os.read(self._wake_read, 512):
                pass
        except OSError:
            pass

    def _write_wake(self) -> None:
        # Under the lock: a descriptor that the ending loop has closed may be another file's by now. The lock
        # may be taken again by its holder, since a signal handler can interrupt this very function.
        with self._closing:
            try:
                if not self._is_closed:
                    os.write(self._wake_write, b"!")
            except BlockingIOError:
                pass  # Full: it is awake already.

    def _close(self) -> None:
        with self._closing:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._wake_read)
                os.close(self._wake_write)


def _pipe() -> tuple[int, int]:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    return read, write

"""The turn: whose write transaction comes next, among the threads and processes of one file.

Owns the file `<db>-turn` and two bytes of it. SQLite's own busy handler sleeps longer the longer it has
waited, so under load the latest comer wins and somebody starves; here one waiter at a time holds `next` while
it waits for `turn`, and whoever has just let go queues behind it. The kernel drops the locks of a process
that dies. Refuses to be the truth: the turn is a courtesy, SQLite's write lock decides; whoever has waited
long enough, say for a stopped process, goes on without it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import threading
import time
import weakref
from pathlib import Path
from typing import Protocol

IMPATIENT_SECONDS = 0.002
"""How long a turn is awaited after a timeout, until it is found free again: its holder seems stuck."""

_POLL_SECONDS = 0.00005
_POLL_MAXIMUM_SECONDS = 0.001
_NEXT_POLL_SECONDS = 0.0002

_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


class Turn:
    """One per file and process; its threads share it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(path) + "-turn"
        self._locks: _Locks | None = None
        self._reset()
        _turns.add(self)

    def acquire(self, timeout_seconds: float) -> bool:
        """Wait for the turn; False when it was not had in time, and the caller may go on without it."""
        deadline = _now() + timeout_seconds
        # Fair among threads by the same two steps: a thread that has just let go finds `next` taken by the
        # one that waits.
        if not self._thread_next.acquire(timeout=timeout_seconds):
            return False
        try:
            if not self._thread_turn.acquire(timeout=max(0.0, deadline - _now())):
                return False
        finally:
            self._thread_next.release()
        held = False
        try:
            held = self._acquire_between_processes(deadline)
        finally:
            if not held:
                self._thread_turn.release()
        return held

    def try_acquire(self) -> bool:
        """Take the turn if it is free and nobody waits for it;

        never wait. For the thread of an event loop.
        """
        if not self._thread_next.acquire(blocking=False):
            return False
        try:
            if not self._thread_turn.acquire(blocking=False):
                return False
        finally:
            self._thread_next.release()
        held = False
        try:
            locks = self._locks or self._open()
            held = locks.take_both()
            if held:
                locks.free_next()
                self._is_impatient = False
        finally:
            if not held:
                self._thread_turn.release()
        return held

    def release(self) -> None:
        """Let the next one go. Only after an acquisition that returned True."""
        if self._locks is not None:
            self._locks.free_turn()
        self._thread_turn.release()

    def close(self) -> None:
        """Close the file. The turn may be taken again afterwards, which opens it anew."""
        if self._locks is not None:
            self._locks.close()
            self._locks = None

    def _acquire_between_processes(self, deadline: float) -> bool:
        locks = self._locks or self._open()
        if locks.take_both():
            locks.free_next()
            self._is_impatient = False
            return True
        if self._is_impatient:
            deadline = min(deadline, _now() + IMPATIENT_SECONDS)
        # Waiters for `next` poll at one steady rate: were it to grow, whoever came last would look most often
        # and win.
        while not locks.take_next():
            if _now() >= deadline:
                self._is_impatient = True
                return False
            time.sleep(_NEXT_POLL_SECONDS)
        try:
            pause = _POLL_SECONDS
            while not locks.take_turn():
                if _now() >= deadline:
                    self._is_impatient = True
                    return False
                time.sleep(pause)
                pause = min(pause * 1.2, _POLL_MAXIMUM_SECONDS)
        finally:
            locks.free_next()
        self._is_impatient = False
        return True

    def _open(self) -> _Locks:
        try:
            self._locks = (
                _OpenFileLocks(self.path) if hasattr(fcntl, "F_OFD_SETLK") else _WholeFileLocks(self.path)
            )
        except OSError:
            # A folder or a file that may not be written, or a file system without these locks: then SQLite's
            # lock alone decides.
            self._locks = _NoLocks()
        return self._locks

    def _reset(self) -> None:
        self._thread_next = threading.Lock()
        self._thread_turn = threading.Lock()
        self._locks = None
        self._is_impatient = False

    def _forget_after_fork(self) -> None:
        # The child shares the parent's open file, hence its locks: a turn that the parent holds would not end
        # with the parent as long as the child keeps the descriptor. Closing it here leaves the parent's hold
        # untouched.
        locks = self._locks
        self._reset()
        if locks is not None:
            locks.close()


class _Locks(Protocol):
    def take_both(self) -> bool: ...

    def take_next(self) -> bool: ...

    def take_turn(self) -> bool: ...

    def free_next(self) -> None: ...

    def free_turn(self) -> None: ...

    def close(self) -> None: ...


def _change(kind: int, start: int, length: int) -> bytes:
    # struct flock as on 64-bit Linux: type, whence, start, length, pid (0 for these locks), padding.
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)


_TAKE_BOTH = _change(fcntl.F_WRLCK, 0, 2)
_TAKE_NEXT = _change(fcntl.F_WRLCK, 0, 1)
_TAKE_TURN = _change(fcntl.F_WRLCK, 1, 1)
_FREE_NEXT = _change(fcntl.F_UNLCK, 0, 1)
_FREE_TURN = _change(fcntl.F_UNLCK, 1, 1)


class _OpenFileLocks:
    """Linux: byte ranges that belong to the open file, not to the process: no other close drops them."""

    def __init__(self, path: str) -> None:
        self._descriptor = _open_beside(path)
        self._command = fcntl.F_OFD_SETLK
        try:
            self._set(_FREE_TURN)
        except OSError:
            os.close(self._descriptor)
            raise

    def take_both(self) -> bool:
        return self._set(_TAKE_BOTH)

    def take_next(self) -> bool:
        return self._set(_TAKE_NEXT)

    def take_turn(self) -> bool:
        return self._set(_TAKE_TURN)

    def free_next(self) -> None:
        self._set(_FREE_NEXT)

    def free_turn(self) -> None:
        self._set(_FREE_TURN)

    def close(self) -> None:
        os.close(self._descriptor)

    def _set(self, change: bytes) -> bool:
        try:
            fcntl.fcntl(self._descriptor, self._command, change)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True


class _WholeFileLocks:
    """Elsewhere: `flock`, of the open file too, but without ranges; hence a second file for `next`."""

    def __init__(self, path: str) -> None:
        self._turn = _open_beside(path)
        try:
            self._next = _open_beside(path + "-next", like=path.removesuffix("-turn"))
        except OSError:
            os.close(self._turn)
            raise

    def take_both(self) -> bool:
        if not self.take_next():
            return False
        if self.take_turn():
            return True
        self.free_next()
        return False

    def take_next(self) -> bool:
        return _flock(self._next)

    def take_turn(self) -> bool:
        return _flock(self._turn)

    def free_next(self) -> None:
        fcntl.flock(self._next, fcntl.LOCK_UN)

    def free_turn(self) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turn)
        os.close(self._next)


class _NoLocks:
    """Where no lock can be had: everyone's turn, always."""

    def take_both(self) -> bool:
        return True

    take_next = take_turn = take_both

    def free_next(self) -> None:
        pass

    free_turn = close = free_next


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_beside(path: str, *, like: str | None = None) -> int:
    """Open or create a lock file with the rights of the database that it stands beside."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        pass
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)
    try:
        database = Path(like or path.removesuffix("-turn")).stat()
        os.fchmod(descriptor, stat.S_IMODE(database.st_mode) & 0o666)
        if os.geteuid() == 0:
            # Made by an administrator's command, it must still serve the owner of the file.
            os.fchown(descriptor, database.st_uid, database.st_gid)
    except OSError:
        pass
    return descriptor


def _now() -> float:
    # A real wait for real processes: neither a test's clock nor freezegun may stop it.
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def _forget_all_after_fork() -> None:
    for turn in list(_turns):
        turn._forget_after_fork()


os.register_at_fork(after_in_child=_forget_all_after_fork)

"""The two locks that make up the turn, as each system has them, and the wakeups that go with them.

Owns the bytes of `<db>-turn`: `NEXT` and `TURN`. On Linux they are byte ranges of the open file, elsewhere
two files under `flock`; where neither works there is nothing, and SQLite's lock alone decides. Refuses locks
that belong to the process (`lockf`): any close of any descriptor of the file would drop them, and threads
would share them.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import struct
import sys
import time
from pathlib import Path
from typing import Protocol

NEXT, TURN = 0, 1

_SLEEP_SECONDS = 0.0001
"""The pause where the kernel cannot wake us.

Constant: if it grew, whoever came last would look most often.
"""


def open_locks(path: str) -> Locks:
    """The locks in the file `path`, which is made if it is not there."""
    try:
        return OpenFileLocks(path) if hasattr(fcntl, "F_OFD_SETLK") else WholeFileLocks(path)
    except OSError:
        # A folder or a file that may not be written, or a file system without locks.
        return NoLocks()


class Locks(Protocol):
    def take_if_free(self) -> bool:
        """Take the turn unless somebody has it, or waits for it."""

    def take_next(self) -> bool: ...

    def take_turn(self) -> bool: ...

    def pause(self, lock: int, seconds: float, /) -> None: ...

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

_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
"""The number of the system call; the C library has no function for it."""


class OpenFileLocks:
    """Linux: byte ranges that belong to the open file, not to the process: no other close drops them."""

    def __init__(self, path: str) -> None:
        self._descriptor = _open_beside(path)
        self._command = fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(self._descriptor, self._command, _FREE_TURN)
        except OSError:
            os.close(self._descriptor)
            raise
        self._wakes = _Wakes.make(self._descriptor)

    def take_if_free(self) -> bool:
        # Both bytes in one call, all or nothing; `next` is given back at once, for whoever comes to wait.
        if not self._set(_TAKE_BOTH):
            return False
        self._set(_FREE_NEXT)
        return True

    def take_next(self) -> bool:
        self._wakes.look()
        return self._set(_TAKE_NEXT)

    def take_turn(self) -> bool:
        return self._set(_TAKE_TURN)

    def pause(self, lock: int, seconds: float) -> None:
        self._wakes.pause(lock, seconds)

    def free_next(self) -> None:
        self._wakes.announce()
        self._set(_FREE_NEXT)
        self._wakes.wake(NEXT)

    def free_turn(self) -> None:
        self._set(_FREE_TURN)
        self._wakes.wake(TURN)

    def close(self) -> None:
        os.close(self._descriptor)

    def _set(self, change: bytes) -> bool:
        try:
            fcntl.fcntl(self._descriptor, self._command, change)
        except OSError as error:
            # A system that has run out of locks must not stop anybody: the turn is a courtesy.
            return error.errno not in (errno.EAGAIN, errno.EACCES)
        return True


class _Wakes:
    """Without the kernel's help: a short sleep, and nobody is woken."""

    def look(self) -> None:
        """Note what `announce` will change: a pause after it does not sleep."""

    def announce(self) -> None:
        """Say that `next` is about to be free. Only its holder may."""

    def pause(self, _lock: int, seconds: float) -> None:
        time.sleep(min(seconds, _SLEEP_SECONDS))

    def wake(self, lock: int) -> None:
        """Wake the one that has waited longest."""

    @staticmethod
    def make(descriptor: int) -> _Wakes:
        number = _FUTEX.get(os.uname().machine)
        if number is None or sys.platform != "linux" or sys.maxsize < 1 << 32:
            return _Wakes()
        try:
            return _FutexWakes(descriptor, number)
        except (ImportError, OSError, AttributeError):
            return _Wakes()


class _FutexWakes(_Wakes):
    """A waiter sleeps in the kernel on a word of the file until woken: 0.1 ms, where a sleep may take ten
    times that.

    The file is mapped only as the place of those words. They are read and written by system calls, since a
    touch of the mapping would kill the process if somebody had truncated the file, or the disk was full. The
    word of the turn never changes, for speed: a release between a waiter's look and its sleep goes unnoticed
    until it looks again.
    """

    def __init__(self, descriptor: int, number: int) -> None:
        import ctypes

        self._descriptor = descriptor
        if os.fstat(descriptor).st_size < mmap.PAGESIZE:
            os.ftruncate(descriptor, mmap.PAGESIZE)
        self._map = mmap.mmap(descriptor, mmap.PAGESIZE, mmap.MAP_SHARED)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._addresses = tuple(ctypes.c_void_p(address + 4 * lock) for lock in (NEXT, TURN))
        # Waiting lets the other threads of the process run; waking is too short to be worth it.
        self._wait = ctypes.CDLL(None).syscall
        self._wake = ctypes.PyDLL(None).syscall
        self._number = ctypes.c_long(number)
        self._timespec = ctypes.c_long * 2
        self._seen = 0

    def look(self) -> None:
        self._seen = int.from_bytes(os.pread(self._descriptor, 4, 0), sys.byteorder)

    def announce(self) -> None:
        try:
            os.pwrite(self._descriptor, ((self._seen + 1) & 0x7FFFFFFF).to_bytes(4, sys.byteorder), 0)
        except OSError:
            pass  # A full disk: then waiters look again by themselves.

    def pause(self, lock: int, seconds: float) -> None:
        timeout = self._timespec(int(seconds), int(seconds % 1 * 1e9))
        expected = self._seen if lock == NEXT else 0
        self._wait(self._number, self._addresses[lock], _FUTEX_WAIT, expected, timeout, None, 0)

    def wake(self, lock: int) -> None:
        self._wake(self._number, self._addresses[lock], _FUTEX_WAKE, 1)


class WholeFileLocks:
    """Elsewhere: `flock`, of the open file too, but without ranges; hence a second file for `next`."""

    def __init__(self, path: str) -> None:
        self._turn = _open_beside(path)
        try:
            self._next = _open_beside(path + "-next", like=path.removesuffix("-turn"))
        except OSError:
            os.close(self._turn)
            raise

    def take_if_free(self) -> bool:
        if not self.take_next():
            return False
        held = self.take_turn()
        self.free_next()
        return held

    def take_next(self) -> bool:
        return _flock(self._next)

    def take_turn(self) -> bool:
        return _flock(self._turn)

    def pause(self, _lock: int, seconds: float) -> None:
        time.sleep(min(seconds, _SLEEP_SECONDS))

    def free_next(self) -> None:
        fcntl.flock(self._next, fcntl.LOCK_UN)

    def free_turn(self) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turn)
        os.close(self._next)


class NoLocks:
    """Where no lock can be had: everyone's turn, always."""

    def take_if_free(self) -> bool:
        return True

    take_next = take_turn = take_if_free

    def pause(self, lock: int, seconds: float) -> None:
        pass

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

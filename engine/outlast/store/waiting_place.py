"""Where a thread waits until another lets it go on.

Owns the choice between a lock and a kernel descriptor. A thread that releases a lock holds the interpreter's lock while it does: the woken
thread takes the processor, finds that it may not run, and waits a second time. A write to a descriptor is made without the interpreter's
lock, so the woken thread runs at once: half the switches where threads take turns. Refuses to be shared: a place is borrowed for one
wait and given back only if that ended well, so that a late release is never taken for the answer to another wait.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol

_ONE = (1).to_bytes(8, "little")


class Place(Protocol):
    """As a lock that is held: `acquire` waits for the one `release`."""

    def acquire(self) -> object: ...

    def release(self) -> object: ...


class _Descriptor:
    __slots__ = ("_number",)

    def __init__(self) -> None:
        self._number = os.eventfd(0, os.EFD_CLOEXEC)

    def acquire(self) -> None:
        os.read(self._number, 8)

    def release(self) -> None:
        os.write(self._number, _ONE)

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)


class _Here(threading.local):
    def __init__(self) -> None:
        self.kept: list[_Descriptor] = []


_here = _Here()


def held_lock() -> Place:
    """A place for one of many that are woken at once: their waker keeps the interpreter's lock until it has woken them all."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def borrow() -> Place:
    """A place for one that is woken by somebody who then waits himself."""
    try:
        return _here.kept.pop()
    except IndexError:
        pass
    try:
        return _Descriptor()
    except (AttributeError, OSError):  # Not Linux, or no descriptor is left.
        return held_lock()


def give_back(place: Place) -> None:
    """The wait has ended well: this thread's next may be at the same place."""
    if isinstance(place, _Descriptor):
        _here.kept.append(place)


# A child shares the descriptors of the thread that forked: it would hear what its parent is told.
os.register_at_fork(after_in_child=lambda: _here.kept.clear())

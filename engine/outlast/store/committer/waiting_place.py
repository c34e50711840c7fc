"""Where a thread waits until another lets it go on.

Owns the choice between a lock and a kernel descriptor. A thread that releases a lock holds the interpreter's lock while it does: the woken
thread takes the processor, finds that it may not run, and waits a second time. A write to a descriptor is made without the interpreter's
lock, so the woken thread runs at once: half the switches where threads take turns. Refuses to be shared: a place is borrowed for one
wait and given back only if that ended well, so that a late release is never taken for the answer to another wait.
"""

from __future__ import annotations

import os
import resource
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

from ..descriptor import beyond_standard

_ONE = (1).to_bytes(8, "little")
_SHARE, _MOST = 8, 1_024
"""One in so many of the descriptors that the process may have: the steps need them too, for their sockets and files."""


class Place(Protocol):
    """As a lock that is held: `acquire` waits for the one `release`."""

    def acquire(self) -> object: ...

    def release(self) -> object: ...


class _Descriptor:
    __slots__ = ("_number", "acquire", "release")

    def __init__(self, number: int) -> None:
        self._number = number
        # No methods: a frame of Python's for each would cost as much as the call that it makes.
        self.acquire: Callable[[], object] = partial(os.read, number, 8)
        self.release: Callable[[], object] = partial(os.write, number, _ONE)

    def __del__(self) -> None:
        os.close(self._number)
        _allowed.append(None)


_kept: deque[_Descriptor] = deque()
"""Those at which nobody waits."""


def _allowance() -> int:
    if not hasattr(os, "eventfd"):
        return 0
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST if limit == resource.RLIM_INFINITY else min(limit // _SHARE, _MOST)


_allowed: list[None] = [None] * _allowance()
"""One entry for each that may still be made. A list, since its `pop` and `append` need no lock."""


def held_lock() -> Place:
    """A place for one of many that are woken at once: their waker keeps the interpreter's lock until it has woken them all."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def borrow() -> Place:
    """A place for one that is woken by somebody who then waits himself."""
    try:
        return _kept.pop()
    except IndexError:
        pass
    try:
        _allowed.pop()
    except IndexError:
        return held_lock()
    try:
        # What a stranger writes to it would be taken for an answer, of a commit that is not on disk.
        return _Descriptor(beyond_standard(os.eventfd(0, os.EFD_CLOEXEC)))
    except OSError:
        _allowed.append(None)
        return held_lock()


def give_back(place: Place) -> None:
    """The wait has ended well: somebody else may wait there."""
    if isinstance(place, _Descriptor):
        _kept.append(place)


# A child shares the descriptors of its parent: it would hear what that is told.
os.register_at_fork(after_in_child=_kept.clear)

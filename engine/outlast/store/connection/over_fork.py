"""What a fork must not do to the file: connections are never used, or closed, in a child.

Owns the connections that are open in this process, and the lock under which one is opened. Refuses to know what they are for. SQLite
forbids even the closing of a connection that was carried over a fork, so a child keeps those beyond the end of its interpreter.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..library import sqlite3

opening = threading.Lock()
"""Between the creation of a file and the closing of that descriptor no other thread may open it: the closing would drop its locks. Nor
does this process fork until a connection that is opened has been read for the first time."""

_OPENING_SECONDS = 1.0
"""How long a fork waits for threads that open the file; for ever would be a deadlock where a signal's handler forks in the middle of it."""

_kept_shut: list[threading.Lock] = []
"""`opening`, while a fork holds it."""
_open: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
_held: list[sqlite3.Connection] = []


def keep(connection: sqlite3.Connection) -> None:
    """It is open from now on, until nobody holds it."""
    _open.add(connection)


def never_close(connection: sqlite3.Connection) -> None:
    """Keep it open beyond the end of the interpreter, which closes what it finds."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _before_fork() -> None:
    # The child has a copy of SQLite's own locks, and of one that another thread has now nobody there lets go. They are held long only
    # while a file is opened and first read.
    if opening.acquire(timeout=_OPENING_SECONDS):
        _kept_shut.append(opening)
    # In the child, the thread-local storage of the parent's other threads is torn down before any hook runs,
    # which would close their connections there; a reference taken now keeps them.
    _held.extend(_open)


def _after_fork_in_parent() -> None:
    _held.clear()
    while _kept_shut:
        _kept_shut.pop().release()


def _after_fork_in_child() -> None:
    global opening
    opening = threading.Lock()
    _kept_shut.clear()
    for connection in _held:
        never_close(connection)
    _held.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

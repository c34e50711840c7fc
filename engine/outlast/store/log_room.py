"""Room in the WAL before there is need for it: a commit that makes a file longer costs half as much again.

Owns the one growth of a WAL to the size of some two thousand pages. A file system that journals, as ext4 does, writes down the new length
of a file with the same fsync: each commit into a young WAL takes 0.1 to 0.2 ms longer than into one that is written anew from its
beginning, since it has been copied into the database. SQLite removes the WAL with the last connection, and where there is little traffic
it stays young for days. Refuses to write to the WAL but by SQLite itself: what a transaction spills and rolls back stays there,
counts for nothing, and is overwritten. Refuses too to take room where there is little.
"""

from __future__ import annotations

import os

from . import library
from .connection import StoreConnection
from .library import sqlite3
from .translation import is_of_the_file

_BYTES = 8 << 20
"""What takes a quick disk 30 ms, and one that writes ten megabytes a second less than one."""
_HELD_BACK_BYTES = 1 << 20
"""More than the cache of the connection keeps of a transaction, which then does not get into the WAL."""
_SCARCE_BYTES = 64 * _BYTES

_FILLER = "insert into outlast_filler values (zeroblob(:bytes))"


def make_room(connection: StoreConnection) -> bool:
    """Let the WAL be as long as it will be soon; whether it is now.

    The next commit has the disk write all of it. On a connection with a small cache, since only what that does not hold is written; with
    the turn, and without waiting for SQLite's lock.
    """
    path = f"{connection.path}-wal"
    try:
        if not library.safe or os.stat(path).st_size >= _BYTES or _free_bytes(path) < _SCARCE_BYTES:  # noqa: PTH116
            return False
    except OSError:
        return False
    try:
        connection.execute("begin immediate")
        connection.execute("create table outlast_filler (content)")
        connection.execute(_FILLER, {"bytes": _BYTES + _HELD_BACK_BYTES})
    except sqlite3.OperationalError as error:
        if not is_of_the_file(error):
            raise
        return False  # A lock, or a limit on the size of files: it does without.
    finally:
        if connection.in_transaction:
            connection.execute("rollback")
    return True


def _free_bytes(path: str) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize

"""What SQLite's errors mean for the file: each becomes one of ours, with what to do next.

Owns the reading of result codes. Refuses the errors of a single statement (a constraint, a wrong column):
those belong to whoever wrote it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import (
    FileMissing,
    NotADatabase,
    OutlastError,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
)
from .library import sqlite3

BUSY_SECONDS = 5.0
"""How long a lock is waited for before `StoreLocked`."""

_ROOM_BYTES = 1 << 20

# SQLite's primary result codes; pysqlite3 and the standard library name few of them.
_PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB = 3, 5, 6, 8, 10, 11, 13, 14, 26
_OF_THE_FILE = frozenset((_PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _NOTADB))


def translate(error: sqlite3.Error, path: str | os.PathLike[str], *, seconds: float = BUSY_SECONDS) -> OutlastError:
    """Our error for one of SQLite's. `seconds` is what was waited for a lock."""
    name = os.fspath(path)
    match _code(error):
        case 5 | 6:
            return StoreLocked(name, seconds)
        case 13:
            return StoreFull(name)
        case 11:
            return StoreDamaged(name, str(error))
        case 26:
            return NotADatabase(name)
        case 3 | 8:
            return StoreReadOnly(name)
        case 14:
            return _cannot_open(name)
        case 10:
            # SQLite says "full" of a failed write alone; a failed growth of the shared memory or a quota
            # comes as an I/O error.
            if _is_full(name):
                return StoreFull(name)
            failed = StoreError(f"{name} cannot be read or written: {error}.", hint="Check the disk, and the limit of a file's size.")
            # So it is with a disk that fails for a while, and with a limit (ulimit -f, a quota): no fault of the work that it meets.
            failed.may_pass = True
            return failed
        case _:
            return StoreError(f"{name}: {error}.")


def is_of_the_file(error: sqlite3.Error) -> bool:
    """Whether the error speaks of the file as a whole (locked, full, damaged …), not of one statement."""
    return _code(error) in _OF_THE_FILE


def is_lock(error: sqlite3.Error) -> bool:
    """Whether somebody else's lock was in the way."""
    return _code(error) in (_BUSY, _LOCKED)


def _code(error: sqlite3.Error) -> int:
    """The primary result code; by its message where the library gives no code."""
    code: Any = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & 0xFF
    text = str(error)
    for part, meaning in _MESSAGES:
        if part in text:
            return meaning
    return 0


_MESSAGES = (
    ("is locked", _BUSY),
    ("is full", _FULL),
    ("malformed", _CORRUPT),
    ("not a database", _NOTADB),
    ("readonly", _READONLY),
    ("unable to open", _CANTOPEN),
    ("I/O error", _IOERR),
)


def file_missing(name: str) -> FileMissing:
    """What is said of a database that is not there: that its folder is not, or who would make it."""
    folder = Path(name).parent
    if not folder.is_dir():
        return FileMissing(name, hint=f"Its folder {folder} does not exist; create it first.")
    return FileMissing(name, hint="`outlast up`, `start` or `run` creates it; --db names another one.")


def _cannot_open(name: str) -> OutlastError:
    if not Path(name).exists():
        return file_missing(name)
    hint = "Check the rights of the file, its folder and its -wal and -shm, and the limit of open files (ulimit -n)."
    failed = StoreError(f"{name} cannot be opened.", hint=hint)
    # Steps that leak descriptors are no fault of the run that meets the limit next.
    failed.may_pass = True
    return failed


def _is_full(name: str) -> bool:
    try:
        disk = os.statvfs(os.path.dirname(name) or ".")  # noqa: PTH120
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _ROOM_BYTES

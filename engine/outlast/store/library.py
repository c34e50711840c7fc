"""Which SQLite this process uses, and the watch that nobody opens the engine's file with the other one.

Owns the choice: Python's own `sqlite3` where it links 3.51.3 or later (older ones have the WAL-reset bug,
which needs several writers, WAL and checkpoints: exactly what the engine does), else `pysqlite3` where that
is newer, else Python's own with `safe` false. Everything imports `sqlite3` from here, users too (`from
outlast import sqlite3`). Refuses a second library on the same file: POSIX locks belong to the process, so
that closing a descriptor in one library drops, unseen, the locks of the other.

An `ATTACH` by the other library raises no event and is not seen; nor is `pysqlite3` where Python's own
library is in use, since `pysqlite3` raises no audit event.
"""

from __future__ import annotations

import os
import sqlite3 as _standard
import sys
import threading
import weakref
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ..errors import WrongSQLite

FIRST_SAFE = (3, 51, 3)
"""The first release without the WAL-reset bug."""


def choose(standard: ModuleType, other: ModuleType | None) -> tuple[ModuleType, bool]:
    """Pick Python's own library or `pysqlite3` (None where there is none); say whether that is safe."""
    chosen = standard
    if other is not None and standard.sqlite_version_info < FIRST_SAFE and other.sqlite_version_info > standard.sqlite_version_info:
        chosen = other
    return chosen, chosen.sqlite_version_info >= FIRST_SAFE


def _pysqlite3() -> ModuleType | None:
    if _standard.sqlite_version_info >= FIRST_SAFE:
        return None
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        return None
    module: ModuleType = dbapi2
    return module


_chosen, safe = choose(_standard, _pysqlite3())
if TYPE_CHECKING:
    import sqlite3 as sqlite3
else:
    sqlite3 = _chosen

# The library asks for an adapter at each parameter that is no exact int, float or str; where there is none it looks on by other
# ways, and pysqlite3 even raises an error and drops it: 1.2 us instead of 0.2, for each null and blob of each row. These change nothing.
for _type, _same in ((bytes, bytes), (bool, int), (type(None), {}.get)):
    if (_type, _chosen.PrepareProtocol) not in _chosen.adapters:
        _chosen.register_adapter(_type, _same)

differs = _chosen is not _standard
"""Whether the process has two SQLite libraries that could meet on one file."""

_REMEMBERED = 256
_users: dict[str, weakref.WeakSet[object]] = {}
_opened_by_standard: dict[str, None] = {}
_registering = threading.Lock()
_watching = [True]


class _MemoryName(str):
    """The name of our probe's database, told apart by identity."""


_PROBE = _MemoryName(":memory:")


class _WholeProcess:
    """Uses a file until the process ends."""


_whole_process = _WholeProcess()


def guard(path: str | os.PathLike[str], user: object = _whole_process) -> None:
    """Refuse the other library on this file while `user` lives (by default: as long as the process does).

    Raises `WrongSQLite` where the other library has the file open already.
    """
    real = os.path.realpath(path)
    with _registering:
        if differs and real in _opened_by_standard and not _users.get(real) and _is_open_here(real):
            raise _refusal(real)
        _users.setdefault(real, weakref.WeakSet()).add(user)


def release(path: str | os.PathLike[str], user: object) -> None:
    """Forget a user that has closed the file."""
    real = os.path.realpath(path)
    with _registering:
        users = _users.get(real)
        if users is not None:
            users.discard(user)
            if not users:
                del _users[real]


def _watch(event: str, args: tuple[Any, ...]) -> None:
    # Called for every audited event of the process: anything else leaves at once. The event precedes the
    # opening of the file; afterwards it would be too late, since already the closing of that descriptor drops
    # our locks.
    if event != "sqlite3.connect":
        return
    if args[0] is _PROBE:
        _watching.clear()
    if not _watching:
        return
    for name in _possible_files(args[0]):
        try:
            found = Path(name).stat()
        except (OSError, ValueError):
            continue
        for real, users in list(_users.items()):
            if users and _is_same(real, found):
                raise _refusal(real)
    # Remembered for an engine that opens the same file later.
    for name in _possible_files(args[0]):
        while len(_opened_by_standard) >= _REMEMBERED:
            _opened_by_standard.pop(next(iter(_opened_by_standard)), None)
        _opened_by_standard[os.path.realpath(name)] = None


def _possible_files(database: Any) -> list[str]:
    """The files that the argument may mean: the event does not say whether it is a URI, so both count."""
    try:
        name = os.fsdecode(database)
    except TypeError:
        return []
    if name in ("", ":memory:") or "\0" in name:
        return []
    names = [name]
    if name.startswith("file:"):
        names.append(unquote(urlsplit(name).path))
    return names


def _is_same(real: str, found: os.stat_result) -> bool:
    try:
        ours = Path(real).stat()
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino)


def _is_open_here(real: str) -> bool:
    """Whether some descriptor of this process is the file.

    It is looked up by number: opening it to compare would drop locks.
    """
    try:
        numbers = [entry.name for entry in Path("/dev/fd").iterdir()]
    except OSError:
        return False
    for number in numbers:
        try:
            if _is_same(real, os.fstat(int(number))):
                return True
        except OSError:
            continue
    return False


def _refusal(real: str) -> WrongSQLite:
    return WrongSQLite(
        f"{real} belongs to the engine, which has SQLite {_chosen.sqlite_version}: Python's own sqlite3"
        f" ({_standard.sqlite_version}) must not open it too, since each would lose the other's locks.",
        hint="Write `from outlast import sqlite3` instead of `import sqlite3`.",
    )


if differs:
    sys.addaudithook(_watch)
    # Were our library to raise the same event (0.6.1 does not), the two could not be told apart before the
    # file is open; then nothing is watched rather than the right one refused.
    _chosen.connect(_PROBE).close()

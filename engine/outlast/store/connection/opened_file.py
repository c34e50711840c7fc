"""Which files a connection has open, by their inodes, and whether they are still the ones at its path.

Owns that look, a tenth of a second old at most whenever the connection is used. SQLite itself goes on with a file that was removed, or that
a restored backup has been moved over: whoever opens the path next works on another one, and each believes that they share. So it is, page
by page, where the -wal or the -shm of a live file is deleted. Refuses to open anything, and to mend it: who has lost the file ends.
"""

from __future__ import annotations

import os
import time
from weakref import WeakValueDictionary

from ...errors import StoreReplaced

_SECONDS = 0.1
"""How old a look may be. What is committed within it is as if it had been committed before the file went."""

_PARTS = ("", "-wal", "-shm")
_UNSEEN = (-1, -1)
"""Of a part that could not be looked at, for want of a right."""

Inode = tuple[int, int]


class _Look:
    """What is at a path and beside it, as some connection of this process has seen it a moment ago.

    One for all of them: an agent's timer looks more often than it must, so that no claim has to.
    """

    __slots__ = ("__weakref__", "_at", "_path", "found")

    def __init__(self, path: str) -> None:
        self._path = path
        self.found: tuple[Inode | None, ...] = ()
        self._at = 0.0

    def is_old(self) -> bool:
        return _now() - self._at >= _SECONDS

    def renew(self) -> None:
        self._at = _now()
        found = tuple(_inode(self._path + part) for part in _PARTS)
        if found != self.found:
            self.found = found


_looks: WeakValueDictionary[str, _Look] = WeakValueDictionary()


class OpenedFile:
    """What one connection has open. SQLite keeps all three files for as long as any connection is."""

    __slots__ = ("_compared", "_inodes", "_look", "_path", "others_write")

    def __init__(self, path: str) -> None:
        """To be made when the connection has read for the first time."""
        self._path = path
        self._look = _looks.get(path) or _looks.setdefault(path, _Look(path))
        # What was seen before this file was opened says nothing of it.
        self._look.renew()
        self._compared = self._look.found
        self._inodes = list(self._compared)
        self.others_write = False
        """Whether others work on the file with another -wal or -shm: to be closed, SQLite would write what it has over theirs."""

    @property
    def inode(self) -> Inode | None:
        """Of the database itself."""
        return self._inodes[0]

    def is_there(self) -> bool:
        """Whether the path still leads to it."""
        try:
            self.check()
        except StoreReplaced:
            return False
        return True

    def check(self) -> None:
        """Raise `StoreReplaced` where the path leads to another file by now, or to none."""
        look = self._look
        if look.is_old():
            look.renew()
        found = look.found
        if found is self._compared:
            return
        for place, part in enumerate(_PARTS):
            if self._inodes[place] in (None, _UNSEEN):
                self._inodes[place] = found[place]
            elif found[place] not in (self._inodes[place], _UNSEEN):
                self.others_write = bool(part) and found[place] is not None
                raise StoreReplaced(self._path + part, is_gone=found[place] is None)
        self._compared = found


def refuse_other(path: str, opened: Inode | None) -> None:
    """Raise `StoreReplaced` where another file is at the path than the one that was opened there, or none."""
    found = _inode(path)
    if found not in (opened, _UNSEEN) and opened not in (None, _UNSEEN):
        raise StoreReplaced(path, is_gone=found is None)


def _inode(name: str) -> Inode | None:
    try:
        found = os.stat(name)  # noqa: PTH116 - half as dear as by a Path
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _UNSEEN
    return found.st_dev, found.st_ino


def _now() -> float:
    # A real wait for real processes: neither a test's clock nor freezegun may stop it.
    return time.clock_gettime(time.CLOCK_MONOTONIC)

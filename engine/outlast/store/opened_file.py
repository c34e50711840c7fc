"""Which files a connection has open, by their inodes, and whether they are still the ones at its path.

Owns that look, a few milliseconds old at most whenever the connection is used. SQLite itself goes on with a file that was removed, or that
a restored backup has been moved over: whoever opens the path next works on another one, and each believes that they share. So it is, page
by page, where the -wal or the -shm of a live file is deleted. Refuses to open anything, and to mend it: who has lost the file ends.
"""

from __future__ import annotations

import os
import time

from ..errors import StoreReplaced

_SECONDS = 0.02
"""How old a look may be. What is committed within it is as if it had been committed before the file went."""

_PARTS = ("", "-wal", "-shm")
_UNSEEN = (-1, -1)
"""Of a part that could not be looked at, for want of a right."""

Inode = tuple[int, int]


class OpenedFile:
    """What one connection has open. SQLite keeps all three files for as long as any connection is."""

    __slots__ = ("_inodes", "_looked_at", "_path", "others_write")

    def __init__(self, path: str) -> None:
        """To be made when the connection has read for the first time."""
        self._path = path
        self._inodes = [_inode(path + part) for part in _PARTS]
        self._looked_at = _now()
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
        now = _now()
        if now - self._looked_at < _SECONDS:
            return
        for place, part in enumerate(_PARTS):
            if self._inodes[place] in (None, _UNSEEN):
                self._inodes[place] = _inode(self._path + part)
                continue
            try:
                refuse_other(self._path + part, self._inodes[place])
            except StoreReplaced as error:
                self.others_write = bool(part) and not error.is_gone
                raise
        self._looked_at = now


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

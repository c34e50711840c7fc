"""Whether somebody has committed to the file who rings no bell.

Owns what `PRAGMA data_version` has said last. It tells of every commit by another connection, and so of those of this process: while
there are some, a look is worth little and costs the interpreter's lock at a bad time, and most looks are spared. Refuses to say what
was committed: the tables do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sqlite import SqliteStore

_MOST_SPARED = 4


class SilentCommits:
    """Those of others since the last look. Of one thread."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._version = store.data_version()
        self._own = store.committer.commits
        self._spared = 0

    def are_there(self) -> bool:
        """Whether there may be some; where this process commits too, they are seen with every fifth look."""
        own = self._store.committer.commits
        if own != self._own and self._spared < _MOST_SPARED:
            self._own = own
            self._spared += 1
            return False
        self._spared = 0
        version = self._store.data_version()
        is_new = version != self._version
        self._version = version
        return is_new

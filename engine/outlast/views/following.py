"""Following a stream: from a run to those that go on with what it began by `continue_as_new`.

Owns the place where a reader stands, a run and a number: each run numbers its own messages from 1, and the number to begin after is of the
run that was named. Refuses to wait: who follows rings, or sleeps, and looks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..states import FINAL
from .runs import status_of
from .state import messages

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_GOES_ON_AS = "select successor_id from outlast_outcome where task_id = :id and successor_id is not null"


Message = tuple[int, tuple[int, bytes, int, str | None, int | None]]
"""The task of a run, and what `messages` gives."""


class Follower:
    """One reader of one stream, along a line of runs."""

    def __init__(self, store: SqliteStore, task_id: int, stream: str, after: int) -> None:
        self._store = store
        self._task_id = task_id
        self._stream = stream
        self._after = after

    def look(self) -> list[Message] | None:
        """The messages that have come since the last look, perhaps none so far; None when there will be no more."""
        while True:
            # The status first: a message between the two looks would otherwise be left behind.
            is_final = status_of(self._store, self._task_id) in FINAL
            found = messages(self._store, self._task_id, self._stream, after=self._after)
            if found:
                self._after = found[-1][0]
                return [(self._task_id, one) for one in found]
            if not is_final:
                return []
            row = self._store.connection().execute(_GOES_ON_AS, {"id": self._task_id}).fetchone()
            if row is None:
                return None
            self._task_id, self._after = row[0], 0

"""What an agent does while its file fails it: tells of it once, and looks again later and later.

Owns the containment of what the callbacks of an agent's loop read and claim. Refuses to go on where the file is not there any more, since
what is written into it would be lost: then the agent ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import StoreError, StoreReplaced
from ..store.library import sqlite3
from ..store.translation import translate

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_log = logging.getLogger("outlast")

_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 10.0


class Trouble:
    """That of one agent, on its loop."""

    def __init__(self, store: SqliteStore, *, look_again: Callable[[], object], end: Callable[[], object]) -> None:
        self._store = store
        self._look_again = look_again
        self._end = end
        self._told = ""
        self._until = 0.0
        self._seconds = _FIRST_SECONDS
        self.lost: StoreReplaced | None = None
        """Said by the file once it had gone."""

    @property
    def is_fresh(self) -> bool:
        """Whether it is too soon to claim again: what failed would fail at each ring of the bell."""
        return time.monotonic() < self._until

    def contained(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function that reads the file."""
        try:
            function(*args)
        except StoreError as error:
            self.has_come(error)
        except sqlite3.Error as error:
            self.has_come(translate(error, self._store.path))

    def has_come(self, error: BaseException | None) -> None:
        """Something failed: look again in a moment."""
        if isinstance(error, StoreReplaced):
            if self.lost is None:
                self.lost = error
                self._end()
            return
        if str(error) != self._told:
            self._told = str(error)
            _log.warning("this agent will try again: %s", error)
        if self.is_fresh:
            return
        self._until = time.monotonic() + self._seconds
        asyncio.get_running_loop().call_later(self._seconds, self._look_again)
        # What passes by itself, as a full disk and a lock, is looked at as often as ever.
        if not (isinstance(error, StoreError) and error.may_pass):
            self._seconds = min(2 * self._seconds, _LONGEST_SECONDS)

    def has_passed(self) -> None:
        """A claim has been answered."""
        self._seconds = _FIRST_SECONDS
        if self._told:
            self._told = ""
            _log.info("this agent goes on")

"""The outbox: a run that is there if, and only if, the caller's own changes are.

Owns the start inside the caller's transaction, and the bell that is rung once the caller has committed. Refuses a
connection of the other SQLite library, to another file, of another thread, or in no transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import FileMissing, InvalidInput, StoreError, WrongSQLite
from ..operations import Start, Started
from ..store import starting
from ..store.library import sqlite3
from ..store.sealing import sealed
from ..store.transaction import Transaction
from ..store.translation import is_of_the_file, translate

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore


def start_within(store: SqliteStore, connection: sqlite3.Connection, operation: Start) -> Started:
    """Write a start into the caller's transaction: it is there when, and only when, the caller commits.

    Its durability is the caller's `synchronous` then. The bell is rung once the caller has committed. A
    connection with an `isolation_level` gets its transaction begun here, as it would by the caller's next
    write; one in autocommit must have begun its own. Where this raises, nothing of it is left in the
    transaction.
    """
    _check(store, connection)
    operation = sealed(operation)
    engine_time = store.engine_time()
    try:
        if not connection.in_transaction:
            if connection.isolation_level is None:
                raise InvalidInput(
                    "connection is in no transaction: the run would outlive a rollback.",
                    hint="Execute BEGIN IMMEDIATE first, or leave out connection=.",
                )
            connection.execute("begin immediate")
        with _plain_rows(connection):
            connection.execute("savepoint outlast_start")
            try:
                # The first statement that writes takes the lock, if the caller has not;
                # `now` may precede it by the wait.
                now = engine_time.now()
                started = starting.start(Transaction(connection, now=now, wall=engine_time.to_wall(now)), operation)
            except BaseException:
                connection.execute("rollback to outlast_start")
                connection.execute("release outlast_start")
                raise
            connection.execute("release outlast_start")
    except sqlite3.Error as error:
        if is_of_the_file(error):
            raise translate(error, store.path) from error
        raise
    _bell.expect(store, started.uid)
    return started


def _check(store: SqliteStore, connection: sqlite3.Connection) -> None:
    if not isinstance(connection, sqlite3.Connection):
        kind = type(connection)
        raise WrongSQLite(
            f"connection is of {kind.__module__}, the engine's file needs {sqlite3.__name__}.",
            hint="Write `from outlast import sqlite3` and connect by that.",
        )
    try:
        with _plain_rows(connection):
            found = connection.execute("pragma database_list").fetchall()
    except sqlite3.ProgrammingError as error:
        raise InvalidInput(f"connection cannot be used here: {error}", hint="Give an open connection of this thread.") from error
    store.check_file()  # By its name, a connection to the file that was there before looks as good.
    name = next((file for _, schema, file in found if schema == "main"), "")
    if not name or not Path(name).samefile(store.path):
        raise InvalidInput(
            f"connection is to {name or 'a database in memory'}, the engine's file is {store.path}.",
            hint="Connect to the engine's file: only one file can be in one transaction.",
        )


@contextmanager
def _plain_rows(connection: sqlite3.Connection) -> Iterator[None]:
    """Rows as tuples and text as str inside the block, whatever the caller has set."""
    row_factory, text_factory = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    try:
        yield
    finally:
        connection.row_factory, connection.text_factory = row_factory, text_factory


_IS_THERE = "select 1 from outlast_task where uid = :uid"

_WATCH_SECONDS = 2.0
_SLICE_SECONDS = 0.001


@dataclass(slots=True)
class _Expected:
    """A run that is there once its caller commits."""

    store: SqliteStore
    uid: str
    until: float
    version: int | None = None
    """The data version at the last look."""

    def is_over(self) -> bool:
        """Look; ring if the run is there; say whether to look no more."""
        try:
            # The version before the row: a commit between the two is found by the next look.
            version = self.store.data_version()
            if version == self.version:
                return time.monotonic() > self.until
            self.version = version
            if self.store.connection().execute(_IS_THERE, {"uid": self.uid}).fetchone() is None:
                return time.monotonic() > self.until
        except (StoreError, FileMissing, sqlite3.Error):
            return True  # It has been closed or removed meanwhile, or cannot be read: nobody is to be woken.
        self.store.ring()
        return True


class _Bell:
    """Rings when a caller's transaction has been committed.

    SQLite tells nobody of another connection's commit, so one thread reads the data version every millisecond while
    such a transaction is open, for two seconds at most. A caller that takes longer is found as commits by strangers
    are, by the slow reading of those who wait.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expected: list[_Expected] = []
        self._thread: threading.Thread | None = None

    def expect(self, store: SqliteStore, uid: str) -> None:
        with self._lock:
            self._expected.append(_Expected(store, uid, time.monotonic() + _WATCH_SECONDS))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="outlast-outbox", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while True:
            with self._lock:
                expected, self._expected = self._expected, []
            waiting = [one for one in expected if not one.is_over()]
            with self._lock:
                self._expected.extend(waiting)
                if not self._expected:
                    self._thread = None
                    return
            time.sleep(_SLICE_SECONDS)


_bell = _Bell()

"""The product's store over the recording disk: its own SQL, pragmas and commits, executed by the SQLite that apsw carries.

Owns the stand-in for a connection of `sqlite3`, and the record of what was committed: before each COMMIT what the file then holds, and
after it that the caller was answered. Refuses to change a statement, but for the size of the WAL (so that a short record has many
checkpoints) and, to show that the test would notice, `synchronous`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import apsw
import pytest

from outlast import sqlite3
from outlast.store import connection as product
from outlast.store import library
from outlast.store.connection import ThreadConnections
from outlast.store.sqlite import SqliteStore

from .power_disk import Disk, open_recorded

_CHECKPOINT_PAGES = 25


@dataclass(slots=True)
class State:
    """What the file holds after a commit, and the places in the disk's events at which that began and was answered."""

    digest: str
    began: int
    answered: int | None = None
    is_promised: bool = True
    """Not where the engine asks for no fsync: an idle agent's claim."""


class Record:
    """What happened to one file."""

    def __init__(self, disk: Disk, *, synchronous: str | None = None) -> None:
        self.disk = disk
        self.synchronous = synchronous
        """In place of whatever the engine asks for."""
        self.states = [State(digest_of([]), 0, 0)]
        self.is_normal = False
        """Whether the engine is to run so: then what it answers is no promise, but counted all the same."""
        self.cut_off_at = 0
        """The wall clock at its end."""
        self.checkpoint_pages = _CHECKPOINT_PAGES

    def begins(self, digest: str, *, is_promised: bool) -> State:
        with self.disk.lock:
            # What changes nothing writes and promises nothing: it may come after a claim that nobody has fsynced.
            is_promised = is_promised and digest != self.states[-1].digest
            state = State(digest, self.disk.place(), is_promised=is_promised)
            self.states.append(state)
            return state

    def ends(self, state: State) -> None:
        with self.disk.lock:
            state.answered = self.disk.place()


_records: list[Record] = []


def digest_of(rows: list[Any]) -> str:
    return hashlib.blake2b(repr(rows).encode(), digest_size=12).hexdigest()


def digest(execute: Any) -> str:
    """Everything that is in the file."""
    schema = list(execute("select type, name, tbl_name, sql from sqlite_schema order by 1, 2"))
    found: list[Any] = [schema] if schema else []
    for kind, name, *_ in schema:
        if kind == "table":
            found.append([name, list(execute(f'select * from "{name}"'))])
    return digest_of(found)


class Recorded:
    """What the engine uses of `sqlite3.Connection`, on a connection of apsw."""

    row_factory = None
    isolation_level = None

    def __init__(self, path: str, record: Record) -> None:
        self.path = path
        self._record = record
        self._real = open_recorded(path)
        self._synchronous = "full"
        self._real.set_busy_timeout(5_000)

    @property
    def in_transaction(self) -> bool:
        return self._real.in_transaction

    def execute(self, sql: str, values: Any = None) -> Rows:
        text = sql.strip().lower()
        if text == "commit":
            return self._commit()
        if text.startswith("pragma synchronous ="):
            self._synchronous = text.rpartition("=")[2].strip()
            sql = f"pragma synchronous = {self._record.synchronous or self._synchronous}"
        if text.startswith("pragma wal_autocheckpoint"):
            sql = f"pragma wal_autocheckpoint = {self._record.checkpoint_pages}"
        before = self._real.total_changes()
        rows = self._execute(sql, values)
        if not self._real.in_transaction and self._real.total_changes() != before:
            raise AssertionError(f"a write outside a transaction: {sql}")
        return rows

    def _promises(self) -> bool:
        """Whether the engine asks for what no power cut takes: without a WAL, that is more."""
        return self._synchronous == "extra" or (library.safe and self._synchronous == "full")

    def _commit(self) -> Rows:
        # Whoever commits holds the write lock, so that the order of these notes is that of the commits.
        state = self._record.begins(digest(self._real.execute), is_promised=self._promises() or self._record.is_normal)
        rows = self._execute("commit", None)
        self._record.ends(state)
        return rows

    def _execute(self, sql: str, values: Any) -> Rows:
        try:
            cursor = self._real.execute(sql, values)
            return Rows(list(cursor), self._real.changes(), self._real.last_insert_rowid())
        except apsw.Error as error:
            raise _translated(error) from error

    def executemany(self, sql: str, rows: Any) -> None:
        for values in rows:
            self.execute(sql, values)

    @contextmanager
    def opened(self, *_: Any, **__: Any) -> Iterator[None]:
        yield

    def tolerates(self, error: Exception) -> bool:
        return False

    def close(self) -> None:
        self._real.close()


class Rows:
    """A cursor that has been read to its end."""

    description = ()

    def __init__(self, rows: list[Any], rowcount: int, lastrowid: int) -> None:
        self._rows = rows
        self._next = 0
        self.rowcount = rowcount
        self.lastrowid = lastrowid

    def fetchone(self) -> Any:
        for row in self:
            return row
        return None

    def fetchall(self) -> list[Any]:
        return list(self)

    def __iter__(self) -> Iterator[Any]:
        while self._next < len(self._rows):
            self._next += 1
            yield self._rows[self._next - 1]


def _translated(error: apsw.Error) -> sqlite3.Error:
    code = getattr(error, "extendedresult", 0)
    kind = sqlite3.IntegrityError if isinstance(error, apsw.ConstraintError) else sqlite3.OperationalError
    found = kind(str(error))
    found.sqlite_errorcode = code
    return found


class RecordedConnections(ThreadConnections):
    """A recorded connection for each thread, configured by the product."""

    def get(self) -> Any:
        held = getattr(self._local, "recorded", None)
        if held is None:
            is_new = not os.path.exists(self.path)
            if is_new:
                product._create_file(self.path)
                _records[0].disk.made(self.path, by_sqlite=False)
            held = self._local.recorded = Recorded(self.path, _records[0])
            _connections.append(held)
            product._configure(held, may_convert=True, is_new=is_new, durability=self.durability)  # type: ignore[arg-type]
        return held

    def close(self) -> None:
        self._local.recorded = None


_connections: list[Recorded] = []


class RecordedStore(SqliteStore):
    connections_type = RecordedConnections


@contextmanager
def recorded(record: Record) -> Iterator[None]:
    """Stores of this block are recorded, their `@transaction` steps too."""
    from outlast.run import guarded

    local = threading.local()

    def take(path: str, durability: str) -> Recorded:
        if not hasattr(local, "db"):
            local.db = Recorded(path, record)
            _connections.append(local.db)
            local.db.execute(f"pragma synchronous = {guarded.synchronous(durability)}")
            local.db.execute(f"pragma wal_autocheckpoint = {record.checkpoint_pages}")
        return local.db  # type: ignore[no-any-return]

    def give_back(db: Recorded) -> None:
        if db.in_transaction:
            db.execute("rollback")

    _records.append(record)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(guarded, "take", take)
            patched.setattr(guarded, "give_back", give_back)
            yield
    finally:
        for one in _connections:
            one.close()
        _connections.clear()
        _records.clear()

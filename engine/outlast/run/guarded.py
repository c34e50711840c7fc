"""The connection that a `@transaction` step gets: the application's SQL, and nothing that ends the transaction.

Owns what such a step may do. Refuses COMMIT, ROLLBACK, BEGIN, ATTACH, `executescript`, changes of PRAGMAs and writes to the engine's
tables; `with db:` is a savepoint. A thread keeps its connection from one transaction to the next, but not what user code left on it:
factories are set back, and a connection that was altered otherwise (functions, temporary tables) is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from ..errors import OutlastError
from ..store.connection.opened_file import OpenedFile
from ..store.connection.pragmas import synchronous
from ..store.descriptor import occupy_standard
from ..store.library import sqlite3
from ..store.translation import translate


def _codes(*names: str) -> frozenset[int]:
    return frozenset(getattr(sqlite3, name) for name in names)


_WRITES = _codes(
    "SQLITE_INSERT", "SQLITE_UPDATE", "SQLITE_DELETE", "SQLITE_ALTER_TABLE",
    "SQLITE_CREATE_TABLE", "SQLITE_CREATE_INDEX", "SQLITE_CREATE_VIEW", "SQLITE_CREATE_TRIGGER", "SQLITE_CREATE_VTABLE",
    "SQLITE_DROP_TABLE", "SQLITE_DROP_INDEX", "SQLITE_DROP_VIEW", "SQLITE_DROP_TRIGGER", "SQLITE_DROP_VTABLE",
)  # fmt: skip
_TEMPORARY = _codes("SQLITE_CREATE_TEMP_TABLE", "SQLITE_CREATE_TEMP_INDEX", "SQLITE_CREATE_TEMP_VIEW", "SQLITE_CREATE_TEMP_TRIGGER")
_ENDS = _codes("SQLITE_TRANSACTION", "SQLITE_ATTACH", "SQLITE_DETACH")

_LOOKS = frozenset(
    (
        *("table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"),
        *("foreign_key_check", "integrity_check", "quick_check", "defer_foreign_keys"),
    )
)
"""PRAGMAs that may have an argument: they look, or end with the transaction."""
_ACTS = frozenset(("wal_checkpoint", "incremental_vacuum", "optimize", "shrink_memory"))
"""PRAGMAs that act without one."""


class Cursor(sqlite3.Cursor):
    """Knows when the transaction is over: SQLite itself rolls it back for `OR ROLLBACK`, `RAISE(ROLLBACK)` and a full disk."""

    def execute(self, *args: Any) -> Any:
        self._check()
        return super().execute(*args)

    def executemany(self, *args: Any) -> Any:
        self._check()
        return super().executemany(*args)

    def executescript(self, *_: Any) -> Any:
        raise refusal("executescript()")

    def _check(self) -> None:
        connection = self.connection
        if isinstance(connection, Guarded):
            connection.check_transaction()


class Guarded(sqlite3.Connection):
    """`db`. `with db:` is a savepoint; commit and rollback are the engine's."""

    _depth = 0
    _is_open = False
    is_altered = False
    opened_file: OpenedFile

    # What the engine does with it.

    @contextmanager
    def opened(self, watch: Callable[[], int], *, steps: int) -> Iterator[None]:
        """User code may use it inside the block, and nowhere else; `watch` interrupts a statement by a true answer."""
        super().set_progress_handler(watch, steps)
        super().set_authorizer(self._deny)
        self._is_open, self._depth = True, 0
        try:
            yield
        finally:
            self._is_open = False
            super().set_authorizer(None)
            super().set_progress_handler(None, 0)
            self.row_factory, self.text_factory = None, str

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """The engine's own statements in the middle of user code."""
        self._is_open = False
        super().set_authorizer(None)
        try:
            yield
        finally:
            super().set_authorizer(self._deny)
            self._is_open = True

    def check_transaction(self) -> None:
        if self._is_open and not self.in_transaction:
            raise rolled_back()

    def shut(self) -> None:
        """Nobody uses it from now on, until it is opened again: a reference that user code has kept is of no use."""
        super().set_authorizer(_deny_all)

    def unshut(self) -> None:
        super().set_authorizer(None)

    def really_close(self) -> None:
        super().close()

    def _deny(self, action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
        if action in _ENDS:
            return sqlite3.SQLITE_DENY
        if action in _TEMPORARY:
            self.is_altered = True
        if action in _WRITES or action in _TEMPORARY:
            is_ours = any(name is not None and name.lower().startswith("outlast_") for name in (first, second))
            return sqlite3.SQLITE_DENY if is_ours else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA:
            name = (first or "").lower()
            may = name in _LOOKS if second is not None else name not in _ACTS
            return sqlite3.SQLITE_OK if may else sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    # What user code sees.

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(Cursor if factory is None else factory)

    def commit(self) -> None:
        raise refusal("commit()")

    def rollback(self) -> None:
        raise refusal("rollback()")

    def executescript(self, *_: Any) -> Any:
        raise refusal("executescript()")

    def close(self) -> None:
        raise refusal("close()")

    def set_authorizer(self, *_: Any) -> None:
        raise refusal("set_authorizer()")

    def set_progress_handler(self, *_: Any, **__: Any) -> None:
        raise refusal("set_progress_handler()")

    def backup(self, *_: Any, **__: Any) -> None:
        # SQLite cannot copy what this very connection is writing, and Python would wait for it for ever.
        raise refusal("backup()")

    def blobopen(self, table: str, *args: Any, **kwargs: Any) -> Any:
        # No authorizer sees what is written to a blob.
        if table.lower().startswith("outlast_"):
            raise refusal("blobopen()", detail=table)
        return super().blobopen(table, *args, **kwargs)

    def __enter__(self) -> Self:
        self._depth += 1
        self.execute(f"savepoint outlast_{self._depth}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Literal[False]:
        name = f"outlast_{self._depth}"
        self._depth -= 1
        # After an OR ROLLBACK there is no savepoint any more; its error is on its way already.
        if self.in_transaction:
            if kind is not None:
                self.execute(f"rollback to {name}")
            self.execute(f"release {name}")
        return False


def _altering(name: str) -> Any:
    def method(self: Guarded, *args: Any, **kwargs: Any) -> Any:
        self.is_altered = True
        return getattr(super(Guarded, self), name)(*args, **kwargs)

    method.__name__ = name
    return method


for _name in (
    *("create_function", "create_aggregate", "create_window_function", "create_collation", "set_trace_callback"),
    *("enable_load_extension", "load_extension", "setlimit", "setconfig", "deserialize"),
):
    if hasattr(sqlite3.Connection, _name):
        setattr(Guarded, _name, _altering(_name))

_BUSY_SECONDS = 5.0
_thread = threading.local()


def take(path: str, durability: str) -> Guarded:
    """This thread's connection to the file."""
    held: tuple[tuple[str, str], Guarded] | None = getattr(_thread, "held", None)
    if held is not None and held[0] == (path, durability) and held[1].opened_file.is_there():
        held[1].unshut()
        return held[1]
    if held is not None:
        _thread.held = None
        held[1].really_close()
    try:
        occupy_standard()
        # Not made anew where it was removed: the store has it open.
        name = f"file:{quote(path)}?mode=rw"
        db = sqlite3.connect(name, timeout=_BUSY_SECONDS, isolation_level=None, factory=Guarded, uri=True)
        db.execute(f"pragma synchronous = {synchronous(durability)}")
        db.execute("pragma foreign_keys = on")
        db.execute("select 1 from sqlite_schema limit 1").fetchone()
        db.opened_file = OpenedFile(path)
    except sqlite3.Error as error:
        raise translate(error, path) from error
    _thread.held = ((path, durability), db)
    return db


def give_back(db: Guarded) -> None:
    """Roll back what is open, and keep the connection for the next transaction if it is as it was."""
    try:
        if db.in_transaction:
            db.execute("rollback")
        if db.is_altered or db.isolation_level is not None:
            raise sqlite3.ProgrammingError("altered")
        db.shut()
    except sqlite3.Error:
        _thread.held = None
        db.really_close()


def refusal(what: str, *, detail: str = "") -> OutlastError:
    suffix = f" ({detail})" if detail else ""
    return OutlastError(
        f"A @transaction step must not use {what}{suffix}: the engine commits its SQL together with the journal entry.",
        hint="Use `with db:` for a savepoint, and plain execute().",
    )


def rolled_back() -> OutlastError:
    return OutlastError(
        "SQLite has rolled back the transaction of this @transaction step; nothing of it remains.",
        hint="Write OR ABORT instead of OR ROLLBACK, and RAISE(ABORT, ...) instead of RAISE(ROLLBACK, ...).",
    )


def _deny_all(*_: object) -> int:
    denied: int = sqlite3.SQLITE_DENY
    return denied

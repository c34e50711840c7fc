"""`@transaction` steps: the application's SQL and the journal entry in one SQLite transaction, exactly once.

Owns the connection that the step gets, guarded by an authorizer: the step cannot commit, roll back, begin, attach, or write to the
engine's tables. Refuses to run inside a group commit: the fence is read first, the entry is written last, on a transaction of its own.
If the process dies before the commit, nothing of it was done, and the step runs again.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Literal, Self

from .. import clock
from ..caller import active
from ..errors import LeaseLost, OutlastError, StepTimeout
from ..operations import Entry
from ..store import journal
from ..store.connection import translate
from ..store.library import sqlite3
from ..store.transaction import Transaction
from .execute import StepCall
from .tries import Tried

_WRITES = frozenset(
    getattr(sqlite3, name)
    for name in (
        "SQLITE_INSERT", "SQLITE_UPDATE", "SQLITE_DELETE", "SQLITE_DROP_TABLE", "SQLITE_ALTER_TABLE",
        "SQLITE_CREATE_TRIGGER", "SQLITE_DROP_TRIGGER", "SQLITE_DROP_INDEX", "SQLITE_CREATE_INDEX", "SQLITE_CREATE_TABLE",
    )
)  # fmt: skip
DEFAULT_TIMEOUT_SECONDS = 5.0
_PROGRESS_STEPS = 20_000


class Guarded(sqlite3.Connection):
    """The connection that a `@transaction` step gets. `with db:` is a savepoint; commit and rollback are the engine's."""

    _depth = 0

    def commit(self) -> None:
        raise _refusal("commit()")

    def rollback(self) -> None:
        raise _refusal("rollback()")

    def executescript(self, *_: Any) -> Any:
        raise _refusal("executescript()")

    def close(self) -> None:
        raise _refusal("close()")

    def set_authorizer(self, *_: Any) -> None:
        raise _refusal("set_authorizer()")

    def really_close(self) -> None:
        super().close()

    def guard(self, deny: Any) -> None:
        super().set_authorizer(deny)

    def __enter__(self) -> Self:
        self._depth += 1
        self.execute(f"savepoint outlast_{self._depth}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Literal[False]:
        name = f"outlast_{self._depth}"
        self._depth -= 1
        if kind is not None:
            self.execute(f"rollback to {name}")
        self.execute(f"release {name}")
        return False


_thread = threading.local()
under_way: dict[int, float] = {}
"""Thread to the monotonic instant by which its transaction should have ended: whoever hangs in one holds the only write lock."""


def run_transaction(call: StepCall, number: int, *, entry_of: Any, committed: Any, fence_sql: str = "running") -> Tried:
    """Execute one try in a transaction of its own; `entry_of(output)` makes the entry that is committed with it.

    `LeaseLost` where the claim does not hold: then user code has not run. A step that raises is rolled back, and its failed try is
    the driver's to journal, after the rollback.
    """
    started_at = clock.wall()
    store = call.store
    timeout = call.timeout_seconds if call.timeout_seconds is not None else DEFAULT_TIMEOUT_SECONDS
    db = _connection(store.path)
    try:
        with store.turn_taken():
            db.execute("begin immediate")
    except sqlite3.Error as error:
        return Tried(started_at, error=translate(error, store.path))
    overran = False

    def watch() -> int:
        nonlocal overran
        overran = time.monotonic() > deadline
        return int(overran)

    deadline = time.monotonic() + timeout
    under_way[threading.get_ident()] = deadline
    try:
        held = db.execute(_HELD, {"id": call.fence.task_id, "claim": call.fence.claim, "status": fence_sql}).fetchone()
        if held is None:
            raise LeaseLost(f"The lease of task {call.fence.task_id} (claim {call.fence.claim}) is lost.")
        db.set_progress_handler(watch, _PROGRESS_STEPS)
        db.guard(_deny)
        token = active.set(call.caller(number))
        try:
            args, kwargs = call.arguments()
            output = call.encode(call.function(db, *args, **kwargs))
        finally:
            active.reset(token)
            db.guard(None)
            db.set_progress_handler(None, 0)
        if time.monotonic() > deadline:
            overran = True
            raise StepTimeout(call.definition.name, timeout)
        entry: Entry = entry_of(output, started_at)
        context = Transaction(db, now=store.now(), wall=clock.wall())
        committed(context, entry)
        db.execute("commit")
    except LeaseLost:
        _roll_back(db)
        raise
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is the try's outcome
        _roll_back(db)
        if overran:
            return Tried(started_at, error=StepTimeout(call.definition.name, timeout))
        if isinstance(error, sqlite3.OperationalError) and "not authorized" in str(error):
            return Tried(started_at, error=_refusal("that statement", detail=str(error)))
        return Tried(started_at, error=error)
    finally:
        under_way.pop(threading.get_ident(), None)
    if context.ring:
        store.ring()
    return Tried(started_at, output=output, committed=entry)


_HELD = """
select 1 from outlast_task
where id = :id and claim = :claim and status = :status and agent_id is not null
  and (ending is null or status = 'compensating')
"""


def journal_entry(call: StepCall) -> Any:
    """How an inline `@transaction` commits its entry: fenced, last, in the same transaction."""

    def write(context: Transaction, entry: Entry) -> None:
        journal.write_entry(context, call.fence, entry)

    return write


def _connection(path: str) -> Guarded:
    held: tuple[str, Guarded] | None = getattr(_thread, "held", None)
    if held is not None and held[0] == path:
        return held[1]
    if held is not None:
        held[1].really_close()
    try:
        db = sqlite3.connect(path, timeout=5.0, isolation_level=None, factory=Guarded)
        db.execute("pragma synchronous = full")
        db.execute("pragma foreign_keys = on")
    except sqlite3.Error as error:
        raise translate(error, path) from error
    _thread.held = (path, db)
    return db


def _deny(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
        return sqlite3.SQLITE_DENY
    if action in _WRITES:
        for name in (first, second):
            if name is not None and name.startswith("outlast_"):
                return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _roll_back(db: Guarded) -> None:
    if db.in_transaction:
        try:
            db.execute("rollback")
        except sqlite3.Error:
            db.really_close()
            _thread.held = None


def _refusal(what: str, *, detail: str = "") -> OutlastError:
    suffix = f" ({detail})" if detail else ""
    return OutlastError(
        f"A @transaction step must not use {what}{suffix}: the engine commits its SQL together with the journal entry.",
        hint="Use `with db:` for a savepoint, and plain execute().",
    )

"""`@transaction` steps: the application's SQL and the journal entry in one SQLite transaction, exactly once.

Owns the transaction: the fence first, user code on a `Guarded` connection, the entry last. Refuses to run inside a group commit. If
the process dies before the commit, nothing of it was done, and the step runs again. A lock that is held too long and a full disk are no
outcome of the step: the transaction is rolled back and made again, while the lease lasts.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .. import clock
from ..caller import active
from ..errors import LeaseLost, StepTimeout, StoreError, StoreReplaced
from ..journal.entry import Entry
from ..store import journal
from ..store.library import sqlite3
from ..store.sealing import sealed
from ..store.transaction import Transaction
from ..store.translation import is_of_the_file, translate
from . import forked, guarded
from .execute import StepCall
from .guarded import Guarded
from .tries import Tried

DEFAULT_TIMEOUT_SECONDS = 5.0
_PROGRESS_STEPS = 20_000
_PAUSE_SECONDS = 0.5

_under_way: dict[int, float] = {}
"""Thread to the monotonic instant by which its transaction should have ended: whoever hangs in one holds the only write lock."""


def overdue_seconds() -> float:
    """How long ago the transaction of this process that hangs the longest should have ended; less than 0 where none hangs."""
    return time.monotonic() - min(_under_way.copy().values(), default=math.inf)


Committed = Callable[[Transaction, Entry], object]
"""What else is written in a step's transaction, last before the commit."""


class _NotNow(Exception):
    """The file is locked or full: the whole transaction is made again."""


def run_transaction(
    call: StepCall, number: int, *, entry_of: Callable[[bytes, int], Entry], committed: Committed, fence_sql: str = "running"
) -> Tried:
    """Execute one try in a transaction of its own; `entry_of(output)` makes the entry that is committed with it.

    `LeaseLost` where the claim does not hold: then user code has not run. A step that raises is rolled back, and its failed try is
    the driver's to journal, after the rollback.
    """
    transaction = _StepTransaction(call, number, entry_of, committed, fence_sql, clock.wall())
    while True:
        try:
            return transaction.run()
        except _NotNow:
            # The next begin looks at the fence again, so that this ends with the lease.
            time.sleep(_PAUSE_SECONDS)


@dataclass(slots=True)
class _StepTransaction:
    call: StepCall
    number: int
    entry_of: Callable[[bytes, int], Entry]
    committed: Committed
    fence_status: str
    started_at: int

    def run(self) -> Tried:
        try:
            self.call.store.connection()
        except StoreReplaced as error:
            raise LeaseLost(f"The file of the run is gone: {error}") from error
        db = guarded.take(self.call.store.path, self.call.store.durability)
        timeout = self.call.timeout_seconds if self.call.timeout_seconds is not None else DEFAULT_TIMEOUT_SECONDS
        try:
            self._begin(db)
            deadline = time.monotonic() + timeout
            _under_way[threading.get_ident()] = deadline
            try:
                return self._execute(db, deadline)
            except (LeaseLost, _NotNow):
                raise
            except BaseException as error:  # noqa: BLE001 - whatever user code raises is the try's outcome
                if time.monotonic() > deadline:
                    return Tried(self.started_at, error=StepTimeout(self.call.definition.name, timeout))
                if isinstance(error, sqlite3.DatabaseError) and "not authorized" in str(error):
                    return Tried(self.started_at, error=guarded.refusal("that statement", detail=str(error)))
                return Tried(self.started_at, error=error)
        finally:
            # Rolled back first, then no longer counted as a holder of the write lock.
            guarded.give_back(db)
            _under_way.pop(threading.get_ident(), None)

    def _begin(self, db: Guarded) -> None:
        try:
            with self.call.store.turn_taken():
                db.execute("begin immediate")
        except sqlite3.Error as error:
            raise self._of_the_file(error) from error
        fence = self.call.fence
        held = db.execute(_HELD, {"id": fence.task_id, "claim": fence.claim, "status": self.fence_status}).fetchone()
        if held is None:
            raise fence.lost()

    def _execute(self, db: Guarded, deadline: float) -> Tried:
        caller = self.call.caller(self.number, db)
        token = active.set(caller)
        generation = forked.generation()
        try:
            with db.opened(lambda: int(time.monotonic() > deadline), steps=_PROGRESS_STEPS):
                args, kwargs = self.call.arguments()
                value = self.call.function(db, *args, **kwargs)
                forked.end_child(generation, self.call.definition.name)
                output = self.call.encode(value)
        except sqlite3.Error as error:
            forked.end_child(generation, self.call.definition.name, error)
            # SQLite rolls back by itself when it cannot write: then it was this file, and not another of the step's.
            if is_of_the_file(error) and not db.in_transaction:
                raise self._of_the_file(error) from error
            raise
        except BaseException as error:
            forked.end_child(generation, self.call.definition.name, error)
            raise
        finally:
            active.reset(token)
        if time.monotonic() > deadline:
            raise TimeoutError
        if not db.in_transaction:
            raise guarded.rolled_back()
        entry = self.entry_of(output, self.started_at)
        context = Transaction(db, now=self.call.store.now(), wall=clock.wall())
        try:
            self.committed(context, sealed(entry))
            self.call.store.commit_step(db, self.call.definition.name)
        except sqlite3.Error as error:
            if is_of_the_file(error):
                raise self._of_the_file(error) from error
            raise
        if context.ring or caller.starts:
            self.call.store.ring()
        return Tried(self.started_at, output=output, committed=entry)

    def _of_the_file(self, error: sqlite3.Error) -> Exception:
        translated = translate(error, self.call.store.path)
        return _NotNow() if isinstance(translated, StoreError) and translated.may_pass else translated


_HELD = """
select 1 from outlast_task
where id = :id and claim = :claim and status = :status and agent_id is not null
  and (ending is null or status = 'compensating')
"""


def journal_entry(call: StepCall, heed: Callable[[object], None]) -> Committed:
    """How an inline `@transaction` commits its entry: fenced, last, in the same transaction."""

    def write(context: Transaction, entry: Entry) -> None:
        journal.write_entry(context, call.fence, entry)
        heed(journal.wanted(context, call.fence.task_id))

    return write

"""A group of operations in one transaction: each all or nothing by itself.

Owns the three ways to execute a group. In the common case all run bare, many of a kind by one statement, each fence first; if one breaks
after it has written, everything is rolled back and each runs again in a savepoint of its own, so it fails alone. A group whose commit
failed may be in the file all the same, and is looked up before it is written again. Refuses to answer anybody: that is the committer's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ...errors import OutlastError, StoreError
from ...operations.atomic import Operation
from ..connection import ThreadConnections, transaction
from ..engine_time import EngineTime
from ..library import sqlite3
from ..transaction import Transaction
from ..translation import BUSY_SECONDS, is_of_the_file
from ..turn import Turn
from . import lost_answers
from .together import TOGETHER, Uneven, runs_of_a_kind
from .waiting_place import Place

Done = Callable[[Any, BaseException | None], None]


class Handler(Protocol):
    def __call__(self, transaction: Transaction, operation: Any, /) -> Any: ...


class Pending:
    __slots__ = ("again", "done", "error", "operation", "result", "takes_turns", "waits")

    def __init__(self, operation: Operation[Any], done: Done, *, again: bool = False) -> None:
        self.operation = operation
        self.done = done
        self.again = again
        """A transaction that held it failed as a whole: it may be in the file all the same."""
        self.waits: Place | None = None
        """Not released until the answer is there, where its caller's thread waits for it."""
        self.takes_turns = hasattr(operation, "fence")
        """Whether a run waits for it, which comes back with another and wakes the next: an application that starts runs does not."""
        self.result: Any = None
        self.error: BaseException | None = None


class GroupTransactions:
    """Executes groups on one file, each on the connection of the calling thread."""

    def __init__(
        self,
        connections: ThreadConnections,
        claiming: ThreadConnections,
        turn: Turn,
        handlers: Mapping[type, Handler],
        engine_time: Callable[[], EngineTime],
        ring: Callable[[], None],
    ) -> None:
        self._connections = connections
        self._claiming = claiming
        """Those of `try_claim`: they wait for no lock, and not for the disk."""
        self._turn = turn
        self._handlers = handlers
        self._engine_time = engine_time
        self._ring = ring
        self.commits = 0
        """How many groups this process has committed."""
        self._group_seconds = 0.0
        """A moving mean of how long a group takes."""

    def _run_group(self, group: list[Pending], *, has_turn: bool = False) -> None:
        """Execute and commit. With the turn in hand it waits for nothing but the disk."""
        began = now()
        connection = self._connections.get()
        turn, patience = (None, 0.0) if has_turn else (self._turn, BUSY_SECONDS)
        run = self._run_careful if any(pending.again for pending in group) else self._run_together
        while True:
            try:
                with transaction(connection, turn, timeout_seconds=patience):
                    context = self._context(connection)
                    run(context, group)
                break
            except (StoreError, sqlite3.OperationalError) as error:
                if not connection.tolerates(error):
                    raise
            except Uneven:
                run = self._run_one_by_one
            except BaseException:
                if run == self._run_careful:
                    raise
                run = self._run_careful
        self.commits += 1
        self._group_seconds += 0.1 * (now() - began - self._group_seconds)
        if context.ring:
            self._ring()

    def _run_here(self, pending: Pending) -> bool:
        """`try_claim`'s one transaction, on the claiming connection, with the turn held; false where it must be handed over."""
        try:
            connection = self._claiming.get()
            connection.execute("begin immediate")
        except (StoreError, sqlite3.OperationalError):
            return False
        try:
            context = self._context(connection)
            self._run_bare(context, pending)
            connection.execute("commit")
        except BaseException:  # noqa: BLE001 - handed to the writer, which raises it again
            if connection.in_transaction:
                connection.execute("rollback")
            pending.result = pending.error = None
            return False
        if context.ring:
            self._ring()
        return True

    def _context(self, connection: sqlite3.Connection) -> Transaction:
        engine_time = self._engine_time()
        instant = engine_time.now()
        return Transaction(connection, now=instant, wall=instant + engine_time.skew())

    def _run_together(self, context: Transaction, group: list[Pending]) -> None:
        for kind, some in runs_of_a_kind(group):
            together = TOGETHER.get(kind) if len(some) > 1 else None
            if together is None:
                self._run_one_by_one(context, some)
                continue
            for pending, result in zip(some, together(context, [pending.operation for pending in some]), strict=True):
                pending.result, pending.error = result, None

    def _run_one_by_one(self, context: Transaction, group: list[Pending]) -> None:
        for pending in group:
            self._run_bare(context, pending)

    def _run_careful(self, context: Transaction, group: list[Pending]) -> None:
        for pending in group:
            self._run_alone(context, pending)

    def _run_bare(self, context: Transaction, pending: Pending) -> None:
        operation = pending.operation
        try:
            pending.result = self._handlers[type(operation)](context, operation)
            pending.error = None
        except StoreError:
            raise
        except OutlastError as error:
            # Operations raise these before they have written anything: the fence and every check come first.
            pending.error = error

    def _run_alone(self, context: Transaction, pending: Pending) -> None:
        context.execute("savepoint operation")
        try:
            pending.result = self._handlers[type(pending.operation)](context, pending.operation)
            pending.error = None
        except BaseException as error:
            if isinstance(error, StoreError) or (isinstance(error, sqlite3.Error) and is_of_the_file(error)):
                raise  # A full disk answers nobody: the group waits for room.
            context.execute("rollback to operation")
            pending.error = error
            if pending.again:
                found = lost_answers.find(context, pending.operation, error)
                if found is not None:
                    pending.result, pending.error = found, None
        context.execute("release operation")


def now() -> float:
    # A real wait for real threads: no test's clock may stop it.
    return time.clock_gettime(time.CLOCK_MONOTONIC)

"""Group commit: what a process wants to commit in one moment goes to disk in one transaction.

Owns the queue of operations, the writer thread and the answers after COMMIT. Refuses to answer before the disk has it, and refuses
partial operations: in the common case all of a group run bare in one transaction, each fence first; if one breaks after it has
written, everything is rolled back and each runs again in a savepoint of its own, so it fails alone. Whoever finds the writer idle
commits by itself, since handing over to a thread costs a lone caller half its rate.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from .. import payloads
from ..errors import OutlastError, StoreError
from ..operations import Claim, Operation, R, RegisterAgent
from . import lost_answers
from .connection import BUSY_SECONDS, StoreConnection, ThreadConnections, set_busy_seconds, transaction
from .engine_time import EngineTime
from .library import sqlite3
from .pragmas import synchronous
from .sealing import sealed_or_refused
from .together import TOGETHER, Uneven, runs_of_a_kind
from .transaction import Transaction
from .translation import is_of_the_file, may_pass
from .turn import Turn

Done = Callable[[Any, BaseException | None], None]

_LARGEST_GROUP = 512
_RETRY_SECONDS = 0.25
_PATIENCE_SECONDS = 0.0005
"""How long callers wait for one of them that was woken and does not come back."""
_FEW, _CROWD = 2, 16
_LINGER_SECONDS = 0.0005
"""How long a group of a crowd waits for more, since a commit costs more than its rows."""


class Handler(Protocol):
    def __call__(self, transaction: Transaction, operation: Any, /) -> Any: ...


class _Pending:
    __slots__ = ("again", "done", "error", "operation", "result", "waits")

    def __init__(self, operation: Operation[Any], done: Done, *, again: bool = False) -> None:
        self.operation = operation
        self.done = done
        self.again = again
        """A transaction that held it failed as a whole: it may be in the file all the same."""
        self.waits: threading.Lock | None = None
        """Held until the answer is there, where its caller's thread waits for it."""
        self.result: Any = None
        self.error: BaseException | None = None


class Committer:
    """Executes operations on one file, in the order in which they were handed over."""

    def __init__(
        self,
        connections: ThreadConnections,
        turn: Turn,
        handlers: Mapping[type, Handler],
        engine_time: Callable[[], EngineTime],
        ring: Callable[[], None],
        *,
        patient: Callable[[], bool],
    ) -> None:
        self._connections = connections
        self._turn = turn
        self._handlers = handlers
        self._engine_time = engine_time
        self._ring = ring
        self._patient = patient
        self._queue: SimpleQueue[_Pending | None] = SimpleQueue()
        self._busy = threading.Lock()
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None
        self._writer_of = 0
        """The process whose writer it is: a fork has none."""
        self._answered: deque[threading.Lock] = deque()
        """The callers whose answers are there, and who have not been woken."""
        self.callers = 0
        """How many runs an agent of this process has at work: from a few on, a group is worth the hand-over to the writer."""

    def commit(self, operation: Operation[R]) -> R:
        """Execute and wait for the disk. Raises what the operation raises, or a `StoreError`."""
        if payloads.writer is not None:
            operation = sealed_or_refused(operation)
        again = False
        if self.callers <= _FEW and self._queue.empty() and self._busy.acquire(blocking=False):
            try:
                if self._queue.empty():
                    pending = _Pending(operation, _nobody)
                    self._run_group([pending])
                    if pending.error is not None:
                        raise pending.error
                    result: R = pending.result
                    return result
            except StoreError as error:
                if not (self._patient() and may_pass(error)):
                    raise
                again = True
            finally:
                self._busy.release()
        pending = _Pending(operation, _nobody, again=again)
        waits = pending.waits = threading.Lock()
        waits.acquire()
        self._hand_over(pending)
        self._let_next_go()
        waits.acquire()
        if pending.error is not None:
            raise pending.error
        handed_over: R = pending.result
        return handed_over

    def _let_next_go(self) -> None:
        """Wake one caller that has its answer.

        They go one by one, each woken by the one before when that comes to wait again: sixty threads woken at once would only
        take the interpreter's lock from each other. The writer sees to it that nobody waits long for one that does not come back.
        """
        try:
            self._answered.popleft().release()
        except IndexError:
            pass

    def _let_all_go(self) -> None:
        while self._answered:
            self._let_next_go()

    def submit(self, operation: Operation[Any], done: Done | None = None) -> None:
        """Execute soon, in order; `done` is called on the writer thread after the commit."""
        if payloads.writer is not None:
            operation = sealed_or_refused(operation)
        self._hand_over(_Pending(operation, done or _nobody))

    def _hand_over(self, pending: _Pending) -> None:
        if self._writer_of != os.getpid():
            self._start_writer()
        self._queue.put(pending)

    def try_claim(self, operation: Claim, done: Done) -> bool:
        """Claim here and now if nobody else writes, without waiting for a lock or the disk; else do nothing and give false.

        A claim is promised to nobody: a power cut that takes it takes the agent too, and leaves the task as it was. What the
        claimed run then writes is fsynced, and with it the claim before it in the WAL.
        """
        if not self._queue.empty() or not self._busy.acquire(blocking=False):
            return False
        try:
            if not self._queue.empty() or not self._turn.try_acquire():
                return False
            pending = _Pending(operation, done)
            try:
                if not self._run_here(pending):
                    return False
            finally:
                self._turn.release()
        finally:
            self._busy.release()
        pending.done(pending.result, pending.error)
        return True

    def close(self) -> None:
        """Write what is queued and end the writer."""
        writer = self._writer
        if writer is not None and writer.is_alive():
            self._queue.put(None)
            if writer is not threading.current_thread():
                writer.join()
        self._writer, self._writer_of = None, 0

    def _start_writer(self) -> None:
        with self._starting:
            if self._writer is None or not self._writer.is_alive():
                self._writer = threading.Thread(target=self._write, name="outlast-writer", daemon=True)
                self._writer.start()
            self._writer_of = os.getpid()

    def _write(self) -> None:
        queue = self._queue
        while True:
            try:
                first = queue.get(timeout=_PATIENCE_SECONDS if self._answered else None)
            except Empty:
                self._let_all_go()
                continue
            if first is None:
                break
            if self.callers > _CROWD:
                time.sleep(_LINGER_SECONDS)
            ends = False
            with self._busy:
                group = [first]
                while len(group) < _LARGEST_GROUP and not queue.empty():
                    pending = queue.get()
                    if pending is None:
                        ends = True
                        break
                    group.append(pending)
                self._run_patiently(group)
            self._let_all_go()
            for pending in group:
                self._answer(pending)
            self._let_next_go()
            if ends:
                break
        self._let_all_go()

    def _answer(self, pending: _Pending) -> None:
        if pending.waits is not None:
            self._answered.append(pending.waits)
        else:
            pending.done(pending.result, pending.error)

    def _run_patiently(self, group: list[_Pending]) -> None:
        """Run a group; what cannot be written for want of room or a lock is held and tried again while an agent lives."""
        while True:
            try:
                self._run_group(group)
                return
            except StoreError as error:
                if not (self._patient() and may_pass(error)):
                    for pending in group:
                        pending.error = error
                    return
                # New work is not taken while the file cannot be written; what has been done is held.
                for pending in [p for p in group if isinstance(p.operation, Claim | RegisterAgent)]:
                    pending.error = error
                    group.remove(pending)
                    self._answer(pending)
                self._let_all_go()
                if not group:
                    return
            except BaseException as error:  # noqa: BLE001 - each caller gets it as its answer
                for pending in group:
                    pending.error = error
                return
            for pending in group:
                pending.again = True
            threading.Event().wait(_RETRY_SECONDS)

    def _run_group(self, group: list[_Pending]) -> None:
        connection = self._connections.get()
        run = self._run_careful if any(pending.again for pending in group) else self._run_together
        while True:
            try:
                with transaction(connection, self._turn):
                    context = self._context(connection)
                    run(context, group)
                break
            except (StoreError, sqlite3.OperationalError):
                raise
            except Uneven:
                run = self._run_one_by_one
            except BaseException:
                if run == self._run_careful:
                    raise
                run = self._run_careful
        if context.ring:
            self._ring()

    def _run_here(self, pending: _Pending) -> bool:
        """`try_claim`'s one transaction, on the caller's connection, with the turn held; false where it must be handed over."""
        connection = self._connections.get()
        set_busy_seconds(connection, 0)
        connection.execute("pragma synchronous = normal")
        try:
            return self._run_within(connection, pending)
        finally:
            set_busy_seconds(connection, BUSY_SECONDS)
            connection.execute(f"pragma synchronous = {synchronous(self._connections.durability)}")

    def _run_within(self, connection: StoreConnection, pending: _Pending) -> bool:
        try:
            connection.execute("begin immediate")
        except sqlite3.OperationalError:
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

    def _context(self, connection: Any) -> Transaction:
        engine_time = self._engine_time()
        now = engine_time.now()
        return Transaction(connection, now=now, wall=now + engine_time.skew())

    def _run_together(self, context: Transaction, group: list[_Pending]) -> None:
        for kind, some in runs_of_a_kind(group):
            together = TOGETHER.get(kind) if len(some) > 1 else None
            if together is None:
                self._run_one_by_one(context, some)
                continue
            for pending, result in zip(some, together(context, [pending.operation for pending in some]), strict=True):
                pending.result, pending.error = result, None

    def _run_one_by_one(self, context: Transaction, group: list[_Pending]) -> None:
        for pending in group:
            self._run_bare(context, pending)

    def _run_careful(self, context: Transaction, group: list[_Pending]) -> None:
        for pending in group:
            self._run_alone(context, pending)

    def _run_bare(self, context: Transaction, pending: _Pending) -> None:
        operation = pending.operation
        try:
            pending.result = self._handlers[type(operation)](context, operation)
            pending.error = None
        except StoreError:
            raise
        except OutlastError as error:
            # Operations raise these before they have written anything: the fence and every check come first.
            pending.error = error

    def _run_alone(self, context: Transaction, pending: _Pending) -> None:
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


def _nobody(result: Any, error: BaseException | None) -> None:
    """Nobody waits for the answer."""

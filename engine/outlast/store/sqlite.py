"""The store on SQLite: one file, opened and migrated, with a committer for writes and a connection per thread for reads.

Owns the table that maps each operation to the function that executes it, and the life of the file's connections, turn lock and
doorbell. Refuses files of other schemas. It is one implementation of `protocol.Store`; PostgreSQL will be another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import operations as op
from ..operations import queues as queue_operations
from ..operations import retention as rop
from ..operations import schedules as sop
from ..operations.atomic import Operation, R, Refused
from . import (
    agents,
    claiming,
    continuing,
    control,
    engine_time,
    halting,
    journal,
    last_writes,
    log_room,
    migrations,
    parking,
    parts,
    pruning,
    queues,
    retrying,
    schedulers,
    schedules,
    signals,
    starting,
    sweeping,
    ticks,
    undoing,
)  # fmt: skip
from .committer import Committer
from .committer.group import Done, Handler
from .connection import StoreConnection, ThreadConnections, transaction
from .doorbell import Doorbell, Listener
from .engine_time import EngineTime
from .library import sqlite3
from .transaction import Transaction
from .translation import BUSY_SECONDS
from .turn import Turn

if TYPE_CHECKING:
    from .protocol import Store


def refuse(_: Transaction, operation: Refused) -> None:
    """Answer with the error that stands in the operation's place."""
    raise operation.error


HANDLERS: dict[type, Handler] = {
    Refused: refuse,
    op.Start: starting.start,
    op.StartPart: parts.start_part,
    op.Claim: claiming.claim,
    op.Append: journal.append,
    op.Publish: journal.publish,
    op.Emit: journal.emit,
    op.End: last_writes.end,
    op.Again: parking.again,
    op.RetryRun: parking.retry_run,
    op.ContinueAsNew: continuing.continue_as_new,
    op.Park: parking.park,
    op.GiveBack: parking.give_back,
    op.Halt: halting.halt,
    op.Acknowledge: parking.acknowledge,
    op.StrayEnded: last_writes.stray_ended,
    op.CancelParts: last_writes.cancel_parts,
    op.RecordUndo: undoing.record,
    op.PassUndo: undoing.pass_on,
    op.EndUndo: last_writes.end_undo,
    op.Signal: signals.signal,
    op.Cancel: control.cancel,
    op.Pause: control.pause,
    op.Resume: control.resume,
    op.StartRetry: retrying.retry,
    op.RegisterAgent: agents.register,
    op.LearnCode: agents.learn,
    op.Heartbeat: agents.heartbeat,
    op.LeaveAgent: agents.leave,
    op.AgentEnded: agents.ended,
    op.Sweep: sweeping.sweep,
    queue_operations.DeclareQueues: queues.declare,
    queue_operations.SetQueue: queues.set_limits,
    queue_operations.PauseQueue: queues.pause,
    queue_operations.ResumeQueue: queues.resume,
    rop.DeclareRetention: pruning.declare,
    rop.Prune: pruning.prune,
    rop.Discard: pruning.discard,
    rop.PruneAgents: pruning.prune_agents,
    sop.FireDue: ticks.fire_due,
    sop.PassLine: ticks.pass_line,
    sop.TriggerSchedule: ticks.trigger,
    sop.Backfill: ticks.backfill,
    sop.Rewind: ticks.rewind,
    sop.PruneTicks: ticks.prune,
    sop.WriteSchedules: schedules.write,
    sop.DeleteSchedule: schedules.delete,
    sop.PauseSchedule: schedules.pause,
    sop.ResumeSchedule: schedules.resume,
    sop.BreakSchedule: schedules.break_one,
    sop.KeepScheduler: schedulers.keep,
    sop.LeaveSchedulers: schedulers.leave,
}


class SqliteStore:
    """One file. Thread-safe: every thread has a connection of its own, writes go through one committer."""

    connections_type: type[ThreadConnections] = ThreadConnections
    committer_type: type[Committer] = Committer
    """Tests put others in their place: ones that crash at a commit, or do not wait for the disk."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        migrate: bool = False,
        allow_network: bool = False,
        durability: str = "full",
    ) -> None:
        """Open the file. `create` makes it (and its tables) where there is none, `migrate` brings an old one up to date.

        Raises `FileMissing`, `NotADatabase`, `StoreTooNew`, `StoreTooOld` and the other `StoreError`s.
        """
        self.path = str(Path(path).absolute())
        self.durability = durability
        """"full", or "normal" where its user accepts that a power cut takes the last commits."""
        self._connections = self.connections_type(self.path, create=create, allow_network=allow_network, durability=durability)
        self._claiming = self.connections_type(
            self.path, allow_network=allow_network, durability="normal", for_claims=True, beside=self._connections
        )
        self.turn = Turn(self.path)
        self.doorbell = Doorbell(self.path)
        self._has_room = durability != "full"
        """Whether there is enough of it in the WAL; where no commit is fsynced, room made beforehand is worth nothing."""
        self.patient = False
        """Set by an agent: then what cannot be written for want of room is held and tried again, not refused."""
        try:
            self._prepare(create=create, migrate=migrate)
        except BaseException:
            self.close()
            raise
        self.committer = self.committer_type(
            self._connections,
            self._claiming,
            self.turn,
            HANDLERS,
            self.engine_time,
            self.doorbell.ring,
            patient=lambda: self.patient,
        )

    def _prepare(self, *, create: bool, migrate: bool) -> None:
        connection = self._connections.get()
        if migrate or (create and migrations.schema_version(connection) is None):
            migrations.migrate(connection, self.path)
        else:
            migrations.check(connection, self.path)
        time = engine_time.load(connection)
        if time is None:
            with transaction(connection, self.turn):
                time = engine_time.load_or_adopt(connection)
        self._time = time

    def commit(self, operation: Operation[R]) -> R:
        """Execute one operation and wait for the disk. Any thread; never from an event loop."""
        return self.committer.commit(operation)

    def submit(self, operation: Operation[Any], done: Done | None = None) -> None:
        """Execute soon, in the order of the calls; `done(result, error)` is called on the writer thread after the commit."""
        self.committer.submit(operation, done)

    def connection(self) -> StoreConnection:
        """The calling thread's connection, for reads outside a transaction."""
        return self._connections.get()

    def transaction(self, connection: StoreConnection | None = None) -> transaction:
        """A write transaction of the caller's own: the turn, `BEGIN IMMEDIATE`, and COMMIT."""
        return transaction(connection or self._connections.get(), self.turn)

    @contextmanager
    def turn_taken(self) -> Iterator[None]:
        """Hold the turn for a moment: whoever begins a transaction of its own begins it here, and so waits in line."""
        held = self.turn.acquire(BUSY_SECONDS / 2)
        try:
            yield
        finally:
            if held:
                self.turn.release()

    def commit_step(self, connection: sqlite3.Connection, name: str) -> None:
        """Commit the transaction in which a `@transaction` step and its entry are."""
        connection.execute("commit")

    def engine_time(self) -> EngineTime:
        """The file's engine time; taken over into this boot where the machine restarted meanwhile (tests do)."""
        if not self._time.is_current():
            connection = self._connections.get()
            if connection.in_transaction:
                self._time = engine_time.load_or_adopt(connection)
            else:
                with transaction(connection, self.turn):
                    self._time = engine_time.load_or_adopt(connection)
        return self._time

    def now(self) -> int:
        """The engine instant, in microseconds."""
        return self.engine_time().now()

    def make_room(self) -> bool:
        """Let a young WAL grow, if nobody writes now; whether it has. Once at most, on the loop of an agent that comes up."""
        if self._has_room or not self.turn.try_acquire():
            return False
        self._has_room = True
        try:
            return log_room.make_room(self._claiming.get())
        finally:
            self.turn.release()

    def ring(self) -> None:
        """Wake whoever listens."""
        self.doorbell.ring()

    def listen(self) -> Listener:
        return self.doorbell.listen()

    def data_version(self) -> int:
        """A number that changes when another connection has committed."""
        version: int = self._connections.get().execute("pragma data_version").fetchone()[0]
        return version

    def check_file(self) -> None:
        """Raise `StoreReplaced` where the file was removed, or another is in its place."""
        self._connections.check()

    def close(self) -> None:
        """Write what is queued, then close. Threads that still use the store get a `StoreError`."""
        # An agent that fails must not wait for room, or for a lock that its own step has spoilt, for ever.
        committer: Committer | None = getattr(self, "committer", None)
        if committer is not None:
            # Said first: what fails after the next line must not be told to its run.
            committer.gives_up |= self.patient
        self.patient = False
        if committer is not None:
            committer.close()
        self._connections.close()
        self._claiming.close()
        self.doorbell.close()
        self.turn.close()


if TYPE_CHECKING:

    def _fulfils_the_protocol(store: SqliteStore) -> Store:
        return store

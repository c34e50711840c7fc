"""Group commit: what a process wants to commit in one moment goes to disk in one transaction.

Owns the queue of operations, who writes it, and the answers after COMMIT. Refuses to answer before the disk has it. Handing over to
another thread costs more than a quick disk's commit: a lone caller commits by itself, an agent's loop leads for the runs on it, and the
writer thread takes the rest, in groups as large as come together.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from ...codec import payloads
from ...errors import LeaseLost, OutlastError, StoreError, StoreLocked, StoreReplaced
from ...operations import Claim, RegisterAgent
from ...operations.atomic import Operation, R
from ..connection import ThreadConnections
from ..engine_time import EngineTime
from ..sealing import sealed_or_refused
from ..turn import Turn
from .answered import LEAST_PATIENCE_SECONDS, Answered
from .group import Done, GroupTransactions, Handler, Pending, now
from .one_processor import bind, unbind
from .waiting_place import give_back, held_lock

_LARGEST_GROUP = 512
_RETRY_SECONDS = 0.25
_FEW, _CROWD = 2, 16
_LINGER_SECONDS = 0.0005
"""How long a group waits for more, or for its leader, since a commit costs more than its rows."""
_MOST_PAUSES = 4
_QUICK_SECONDS = 0.004
"""A loop that commits is held up for as long: where the disk takes longer, the writer does it."""


class Committer(GroupTransactions):
    """Executes operations on one file, in the order in which they were handed over."""

    def __init__(
        self,
        connections: ThreadConnections,
        claiming: ThreadConnections,
        turn: Turn,
        handlers: Mapping[type, Handler],
        engine_time: Callable[[], EngineTime],
        ring: Callable[[], None],
        *,
        patient: Callable[[], bool],
    ) -> None:
        super().__init__(connections, claiming, turn, handlers, engine_time, ring)
        self._patient = patient
        self._queue: deque[Pending] = deque()
        """What nobody has begun to write. It is taken from with `_busy` held, so that who has that has all before it on disk."""
        self._busy = threading.Lock()
        self._bell: SimpleQueue[bool] = SimpleQueue()
        self._is_rung = False
        self._led_at = 0.0
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None
        self._writer_of = 0
        """The process whose writer it is: a fork has none."""
        self._answered = Answered()
        self.when_answered: list[Callable[[], None]] = []
        """Called, on the thread that wrote, when all of a group have their answers: whoever takes many is told once."""
        self.gives_up = False
        """An agent's store closes: what could not be written is not waited for any more."""
        self.callers = 0
        """How many runs an agent of this process has at work: from a few on, a group is worth the hand-over to the writer."""

    def commit(self, operation: Operation[R]) -> R:
        """Execute and wait for the disk. Raises what the operation raises, or a `StoreError`."""
        if payloads.writer is not None:
            operation = sealed_or_refused(operation)
        again = False
        if self.callers <= _FEW and not self._queue and self._busy.acquire(blocking=False):
            try:
                if not self._queue:
                    pending = Pending(operation, _nobody)
                    self._run_group([pending])
                    if pending.error is not None:
                        raise pending.error
                    result: R = pending.result
                    return result
            except StoreError as error:
                if not (self._patient() and error.may_pass):
                    given_up = self._given_up(operation, error)
                    if given_up is error:
                        raise
                    raise given_up from error
                again = True
            finally:
                self._busy.release()
        pending = Pending(operation, _nobody, again=again)
        waits = pending.waits = self._answered.place() if pending.takes_turns else held_lock()
        self._hand_over(pending)  # Before it is bound, since it may start the writer, a thread that would be bound for ever.
        allowed = bind() if pending.takes_turns and self._answered.bound else None
        try:
            self._answered.let_next_go()
            waits.acquire()
        finally:
            if allowed is not None:
                unbind(allowed)
        give_back(waits)
        if pending.error is not None:
            raise pending.error
        handed_over: R = pending.result
        return handed_over

    def _given_up(self, operation: Operation[Any], error: StoreError) -> OutlastError:
        """The answer to what is not written.

        A run that were told of the file as its agent ends would fail by it, and that failure may be small enough to be written; so
        the run is dropped, as by a lost lease, and stays as it is in the file. So is a run whose file is not there any more.
        """
        if (isinstance(error, StoreReplaced) or (self.gives_up and error.may_pass)) and hasattr(operation, "fence"):
            return LeaseLost(f"The store was closed before the file could be written again: {error}")
        return error

    def submit(self, operation: Operation[Any], done: Done | None = None) -> None:
        """Execute soon, in order; `done` is called on the writer thread after the commit."""
        if payloads.writer is not None:
            operation = sealed_or_refused(operation)
        self._hand_over(Pending(operation, done or _nobody))

    def submit_led(self, operation: Operation[Any], done: Done) -> None:
        """As `submit`, by somebody that calls `lead` soon: the writer leaves it to him for a while."""
        if payloads.writer is not None:
            operation = sealed_or_refused(operation)
        if self._group_seconds < _QUICK_SECONDS:
            self._led_at = now()
        self._hand_over(Pending(operation, done))

    def lead(self) -> None:
        """Commit what is queued in this thread, if nobody else writes and the disk is quick; else leave it to the writer.

        Waits for no lock: for an event loop.
        """
        is_led = False
        if self._group_seconds < _QUICK_SECONDS and self._busy.acquire(blocking=False):
            try:
                if self._turn.try_acquire():
                    try:
                        is_led = self._write_here()
                    finally:
                        self._turn.release()
            finally:
                self._busy.release()
        if not is_led:
            self._led_at = 0.0

    def _hand_over(self, pending: Pending) -> None:
        if self._writer_of != os.getpid():
            self._start_writer()
        self._queue.append(pending)
        # While callers go one after the other, the last of them wakes the writer: a group of all of them is written, and
        # the writer takes the interpreter's lock from nobody meanwhile.
        if pending.waits is None or not self._answered:
            self._wake_writer()

    def _wake_writer(self) -> None:
        if not self._is_rung:
            self._is_rung = True
            self._bell.put(True)

    def try_claim(self, operation: Claim, done: Done) -> bool:
        """Claim here and now if nobody else writes, without waiting for a lock or the disk; else do nothing and give false.

        A claim is promised to nobody: a power cut that takes it takes the agent too, and leaves the task as it was. What the
        claimed run then writes is fsynced, and with it the claim before it in the WAL.
        """
        if self._queue or not self._busy.acquire(blocking=False):
            return False
        try:
            if self._queue or not self._turn.try_acquire():
                return False
            pending = Pending(operation, done)
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
            self._bell.put(False)
            if writer is not threading.current_thread():
                writer.join()
        self._writer, self._writer_of = None, 0
        while self._queue:  # What came while the writer ended.
            with self._busy:
                self._write_group()
            self._answered.let_all_go()

    def _start_writer(self) -> None:
        with self._starting:
            if self._writer is None or not self._writer.is_alive():
                self._is_rung = False
                self._writer = threading.Thread(target=self._write, name="outlast-writer", daemon=True)
                self._writer.start()
            self._writer_of = os.getpid()

    def _write(self) -> None:
        goes_on = True
        while goes_on:
            try:
                goes_on = self._bell.get(timeout=self._patience_seconds())
            except Empty:
                if self._answered.goes_on():
                    continue
            # Said before the queue is looked at: what comes after the look rings again.
            self._is_rung = False
            while self._queue:
                if goes_on:
                    self._linger()
                with self._busy:
                    self._write_group()
                self._answered.let_next_go()
                if self._answered and goes_on:
                    break  # They come back one after the other, and are written together.
        self._answered.let_all_go()

    def _patience_seconds(self) -> float | None:
        """How long the writer waits for the bell.

        A caller that sees others waiting to be woken leaves the bell to the last of those, which may not come back. So the queue is
        looked at after them: if nobody waits any more, all that was queued while somebody did is there to be seen.
        """
        patience = self._answered.patience_seconds()
        return LEAST_PATIENCE_SECONDS if patience is None and self._queue else patience

    def _linger(self) -> None:
        """Wait for more of a crowd of which the most are still at work, and leave what is led to its leader."""
        if self.callers > _CROWD and len(self._queue) < self.callers // 2:
            time.sleep(_LINGER_SECONDS)
        for _ in range(_MOST_PAUSES):
            if not self._queue or now() - self._led_at > _LINGER_SECONDS:
                return
            time.sleep(_LINGER_SECONDS)

    def _take_group(self) -> list[Pending]:
        queue = self._queue
        return [queue.popleft() for _ in range(min(len(queue), _LARGEST_GROUP))]

    def _write_group(self) -> None:
        """Write what is queued, and answer. With `_busy` held, so that answers come in the order of the commits."""
        group = self._take_group()
        if not group:
            return
        self._run_patiently(group)
        self._answered.let_all_go()
        self._answer(group)

    def _write_here(self) -> bool:
        """As `_write_group`, with the turn and no wait; what does not go through is the writer's again."""
        group = self._take_group()
        if not group:
            return True
        try:
            self._run_group(group, has_turn=True)
        except BaseException as error:
            for pending in reversed(group):
                pending.result = pending.error = None
                # A lock that was not to be had is the one failure that surely left nothing in the file.
                pending.again = pending.again or not isinstance(error, StoreLocked)
                self._queue.appendleft(pending)
            self._wake_writer()  # It may have looked meanwhile, seen nothing, and gone to sleep.
            if not isinstance(error, Exception):
                raise
            return False
        self._answered.let_all_go()
        self._answer(group)
        self._answered.let_next_go()
        if self._answered or self._queue:
            self._wake_writer()  # It sees to it that nobody waits for one that does not come back.
        return True

    def _answer(self, group: Sequence[Pending]) -> None:
        for pending in group:
            if pending.waits is None:
                pending.done(pending.result, pending.error)
            elif pending.takes_turns:
                self._answered.add(pending.waits)
            else:
                pending.waits.release()
        for told in tuple(self.when_answered):
            told()

    def _run_patiently(self, group: list[Pending]) -> None:
        """Run a group; what cannot be written for want of room or a lock is held and tried again while an agent lives."""
        while True:
            try:
                self._run_group(group)
                return
            except StoreError as error:
                if not (self._patient() and error.may_pass):
                    for pending in group:
                        pending.error = self._given_up(pending.operation, error)
                    return
                # New work is not taken while the file cannot be written; what has been done is held.
                refused = [pending for pending in group if isinstance(pending.operation, Claim | RegisterAgent)]
                for pending in refused:
                    pending.error = error
                    group.remove(pending)
                self._answer(refused)
                self._answered.let_all_go()
                if not group:
                    return
            except BaseException as error:  # noqa: BLE001 - each caller gets it as its answer
                for pending in group:
                    pending.error = error
                return
            for pending in group:
                pending.again = True
            threading.Event().wait(_RETRY_SECONDS)


def _nobody(result: Any, error: BaseException | None) -> None:
    """Nobody waits for the answer."""

"""The tasks that an agent holds: from the claim to the write with which each leaves.

Owns the runs in memory, the threads and loop tasks that carry them, and the reading of their notices. It is the `Host` of everything in
`run/`. Refuses to claim and to renew: that is `agent`'s; what a cancel or a deadline does to a task is `interrupting`'s. A task is held
until its last write is on disk.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ..codec import payloads
from ..errors import LeaseLost, PayloadNotEncoded
from ..operations import Acknowledge, End, GiveBack, Halt, Park, RetryRun
from ..operations.atomic import Operation
from ..operations.claimed import Claimed
from ..run import strays, transactional
from ..run.async_run import AsyncRun
from ..run.sync_run import SyncRun
from ..run.task_run import TaskRun
from ..run.tries import Tried
from ..run.user_threads import executing
from ..states import Ending
from ..store import claiming
from .answers import Answers, nothing
from .carriers import Threaded, carrier
from .interrupting import cancel, watch_deadline
from .runners import Runners
from .slots import Slots

if TYPE_CHECKING:
    from ..definition.code import Code
    from ..run.held import Held
    from ..settings import Settings
    from ..store.committer.group import Done
    from ..store.sqlite import SqliteStore

log = logging.getLogger("outlast")

_IN_MEMORY = 256
_BACKLOG_SECONDS = 0.25
_STIR_SECONDS = 0.005
_HUNG_TRANSACTION_SECONDS = 5.0
_RETRY_SECONDS = 0.05
_LEAVES_AT_ONCE = (Halt, GiveBack)


class Holding:
    """What one agent holds. `on_change` is called on the loop when a task has left or a slot is free."""

    def __init__(
        self,
        store: SqliteStore,
        settings: Settings,
        code: Code,
        *,
        concurrency: int,
        answers: Answers,
        on_change: Callable[[], None],
        on_overrun: Callable[[], None],
        is_embedded: bool,
        returns_suspects: bool,
    ) -> None:
        self.store = store
        self.settings = settings
        self.agent_id = 0
        self.fingerprints = code.fingerprints
        self.compensated = code.compensated
        self.loop = asyncio.get_running_loop()
        self.runs: dict[int, AsyncRun | Threaded] = {}
        self.is_draining = self.has_left = False
        self.reports: deque[Callable[[], None]] = deque()
        self.returns_suspects = returns_suspects
        self.slots = Slots(concurrency, self._slot_freed)
        self.runners = Runners(self.slots, self._work)
        self.submit: Callable[[Operation[Any], Done], None] = answers.submit
        self.on_loop = answers.on_loop
        self._code = code
        self._concurrency = concurrency
        self._on_change = on_change
        self._on_overrun = on_overrun
        self._is_embedded = is_embedded
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: list[AsyncRun | TaskRun] = []
        self._acknowledging: set[int] = set()
        self._is_stirring = self._is_hung_told = False
        self.has_news = False
        """Whether somebody may have left notices since the last look."""
        self.left: list[Held] = []

    @property
    def backlog(self) -> int:
        """Claimed tasks that nobody has begun."""
        return len(self.runners) + len(self._waiting)

    def take(self, claims: Iterable[Claimed]) -> list[AsyncRun | Threaded]:
        """Begin to carry on what was claimed; gives the runs."""
        taken: list[AsyncRun | Threaded] = []
        for claimed in claims:
            work = carrier(self, self._code, claimed, finished=self._async_finished)
            if isinstance(work, _LEAVES_AT_ONCE):
                self.submit(work, nothing)
            else:
                taken.append(work)
        sync: list[Threaded] = []
        for work in taken:
            self.has_news = self.has_news or work.claimed.notice > 0
            self.runs[work.fence.task_id] = work
            watch_deadline(self, work)
            if work.is_on_loop:
                self._waiting.append(cast("AsyncRun | TaskRun", work))
            else:
                sync.append(cast("Threaded", work))
        if sync and self.runners.add(sync):
            self._stir()
        self.start_waiting()
        return taken

    def _stir(self) -> None:
        if not self._is_stirring:
            self._is_stirring = True
            self.loop.call_later(_STIR_SECONDS, self._stir_again)

    def _stir_again(self) -> None:
        self._is_stirring = False
        if self.runners.stir():
            self._stir()

    def start_waiting(self) -> None:
        """Start async work for which there is a slot."""
        while self._waiting and self.slots.try_take():
            work = self._waiting.pop(0)
            if isinstance(work, AsyncRun):
                work.begin()
            else:
                task = self.loop.create_task(self._run_task(work))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                work.task = task

    async def _run_task(self, work: TaskRun) -> None:
        operation: Operation[Any] | None
        try:
            operation = await work.execute_on_loop()
        except asyncio.CancelledError:
            work.ended = True
            operation = End(work.fence, Ending.CANCELLED, tries=work.number) if work.cancel_requested else None
        self._finished(work, operation)
        self.slots.leave()

    def _work(self, work: Threaded) -> None:
        """Execute sync work in a runner's thread."""
        thread = threading.current_thread()
        executing.add(thread)
        operation: Operation[Any] | None
        try:
            operation = work.execute()
        except BaseException as error:
            log.error("task %s could not be carried on", work.fence.task_id, exc_info=error)
            operation = Halt(work.fence, f"the engine failed: {payloads.told(error, repr(error))}")
        finally:
            executing.discard(thread)
        self._finished(work, operation)

    def _async_finished(self, run: AsyncRun, operation: Operation[Any] | None) -> None:
        self._finished(run, operation)
        if run.holds_slot:
            self.slots.leave()

    def _finished(self, work: Held, operation: Operation[Any] | None) -> None:
        """Write how a task left us. It is ours until that is on disk."""
        if operation is None:
            self.on_loop(self.forget, work)
            return

        def written(result: Any, error: BaseException | None) -> None:
            if not result and error is None and isinstance(operation, Park):
                # What it waits for is there: it comes back at once, by replay, since its code has unwound.
                self._finished(work, GiveBack(work.fence))
                return
            if not result and error is None and isinstance(operation, RetryRun):
                # Steps of the try before still run: who comes anew would begin them a second time beside themselves.
                again = GiveBack(work.fence) if self.is_draining else operation
                self.loop.call_later(_RETRY_SECONDS, self._finished, work, again)
                return
            if isinstance(error, PayloadNotEncoded):
                # What it would leave by cannot be written, a reason can: it waits for a codec that works.
                self._finished(work, Halt(work.fence, str(error)))
                return
            if isinstance(error, LeaseLost):
                strays.lease_was_lost(work)
            elif error is not None:
                log.error("the end of task %s could not be written: %s", work.fence.task_id, error)
            strays.after_write(work, operation)
            self.forget(work)

        self.submit(operation, written)

    def forget(self, work: Held) -> None:
        if self.runs.get(work.fence.task_id) is work:
            del self.runs[work.fence.task_id]
        self._on_change()

    def _slot_freed(self) -> None:
        self.runners.wake()
        self.on_loop(self._on_change)

    def read_notices(self) -> None:
        """Heed what others want of our tasks, and let those look again for whom something has arrived."""
        if not self.runs or not self.has_news:
            return
        self.has_news = False
        for task_id, claim, count, cancelled, paused in claiming.notices(self.store.connection(), self.agent_id):
            work = self.runs.get(task_id)
            if work is None or work.fence.claim != claim or task_id in self._acknowledging:
                continue
            # Read again before this is written, the same notices would be subtracted twice, and with them one that came between.
            self._acknowledging.add(task_id)
            self.submit(Acknowledge(work.fence, count), partial(self._acknowledged, task_id))
            if cancelled:
                cancel(self, work)
            if paused:
                work.pause_requested = True
            work.notify()

    def _acknowledged(self, task_id: int, _: Any, __: BaseException | None) -> None:
        self._acknowledging.discard(task_id)
        self.has_news = True
        self._on_change()

    # What runs ask of their host.

    def has_room_in_memory(self) -> bool:
        return len(self.runs) < _IN_MEMORY + self._concurrency and not self.is_draining

    def leave_slot(self) -> None:
        self.runners.waits()
        self.slots.leave()

    def take_slot(self) -> None:
        self.slots.take()
        self.runners.goes_on()

    def take_slot_now(self) -> None:
        self.slots.take_now()
        self.runners.goes_on()

    def run_in_thread(self, function: Callable[[], None]) -> None:
        def call() -> None:
            executing.add(threading.current_thread())
            try:
                function()
            finally:
                executing.discard(threading.current_thread())

        threading.Thread(target=call, name="outlast-step", daemon=True).start()

    def stray_ended(self, work: Held, path: str, tried: Tried) -> None:
        strays.try_ended(work, path, tried)

    def overran(self, task_id: int) -> None:
        """A step's thread does not end: this process has to, once everything else has left it."""
        if not self._is_embedded:
            log.warning("a step of task %s overran and does not end: this agent drains to be replaced", task_id)
            self.on_loop(self._on_overrun)

    def look_after(self) -> None:
        """Hand back what waits behind slow work; see that nobody unwinds, or holds the write lock, for ever."""
        self.give_back(self.runners.take_back(older_than_seconds=_BACKLOG_SECONDS))
        self._end_hung_transaction()
        for work in list(self.runs.values()):
            if isinstance(work, SyncRun):
                self._look_after_unwinding(work)

    def _end_hung_transaction(self) -> None:
        """A transaction that does not end holds the file's only write lock: nobody can work until its process is gone."""
        late = transactional.overdue_seconds()
        if late <= _HUNG_TRANSACTION_SECONDS:
            self._is_hung_told = False
        elif not self._is_hung_told:
            self._is_hung_told = True
            log.error("a @transaction step holds the write lock %.0f s past its timeout", late)
            if not self._is_embedded:
                os.kill(os.getpid(), signal.SIGKILL)

    def _look_after_unwinding(self, run: SyncRun) -> None:
        if run.unwinding_since is None or run.ended or run.ending_decided:
            return
        if time.monotonic() - run.unwinding_since > self.settings.grace_seconds:
            run.ending_decided = True
            reason = f"its code did not end its unwinding within {self.settings.grace_seconds:g} s"
            self.submit(Halt(run.fence, reason, strays=("unwinding",)), nothing)
            self.overran(run.fence.task_id)

    def give_back(self, unbegun: Iterable[Held]) -> None:
        for work in unbegun:
            self._finished(work, GiveBack(work.fence))

    def drain(self) -> None:
        """Begin nothing new; let what runs leave at its next durable call."""
        self.is_draining = True
        waiting, self._waiting = self._waiting, []
        self.give_back([*self.runners.take_back(), *waiting])
        for work in list(self.runs.values()):
            work.drain_requested = True
            work.notify()

    def stop(self) -> None:
        """Kill what can be killed; the rest goes back as it is."""
        for work in self.runs.values():
            work.stop()

    def lose(self) -> None:
        """The lease was ended: everything is somebody else's by now."""
        for work in list(self.runs.values()):
            work.lost = True
            if isinstance(work, AsyncRun):
                work.lose()
            else:
                work.notify()
        self.runners.take_back()
        self._waiting.clear()
        self.runs.clear()

    def close(self) -> None:
        for work in list(self.runs.values()):
            if isinstance(work, AsyncRun) and not work.ended:
                work.lose()
        for task in self._tasks:
            task.cancel()
        self.runners.close()
        strays.agent_has_left(self)

"""The agent: claims due tasks in batches, carries them on, and renews its lease.

Owns the loop of one agent: claims, heartbeats, notices, deadlines, draining. What happens inside a run is `run/`'s; here a run is
something that is started, notified and ended. Async code runs on this loop, sync code in `runners`. Refuses to hold what it cannot
serve: work that waits too long behind slow work goes back. It dies without loss: everything it holds is leased, fenced and journalled.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from . import caller, clock
from .errors import LeaseLost, StoreError
from .model import compensation_code, new_id, step_code, workflow_code
from .liveness import Pulse
from .operations import (
    Acknowledge,
    Claim,
    Claimed,
    End,
    Entry,
    Fence,
    GiveBack,
    Halt,
    Heartbeat,
    LeaveAgent,
    Operation,
    RegisterAgent,
    StrayEnded,
)
from .plan import Undo
from .run.async_run import AsyncRun
from .run import logs, transactional
from .run.execution import Execution
from .run.sync_run import SyncRun
from .run.task_run import TaskRun
from .run.tries import Tried
from .run.undo_run import UndoRun
from .runners import Runners
from .slots import Slots
from .states import Ending, Status
from .store import claiming, journal
from .store.process import this_process

if TYPE_CHECKING:
    from .definition.definition import Definition
    from .registry import Registry
    from .settings import Settings
    from .store.commit import Done
    from .store.sqlite import SqliteStore

log = logging.getLogger("outlast")

_IN_MEMORY = 256
_VERSION_SECONDS = 0.05
_BACKLOG_SECONDS = 0.25
_STEP_GRACE_SECONDS = 0.2
_SUSPECTS_SECONDS = 1.0
_LARGEST_CLAIM = 256
_SOLO_IDLE_SECONDS = 10.0
_HUNG_TRANSACTION_SECONDS = 5.0


class Agent:
    """One claiming process, or an embedded one. Implements `run.execution.Host`."""

    def __init__(
        self,
        store: SqliteStore,
        registry: Registry,
        settings: Settings,
        *,
        concurrency: int = 8,
        queues: tuple[str, ...] | None = None,
        root_id: int | None = None,
        embedded: bool = False,
        solo: bool = False,
    ) -> None:
        self.store = store
        self.settings = settings
        self.agent_id = 0
        self.loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]
        self.runs: dict[int, Any] = {}
        self._registry = registry
        self._concurrency = 1 if solo else concurrency
        self._queues = queues
        self._root_id = root_id
        self._embedded = embedded
        self._solo = solo
        self.fingerprints = code_of(registry)
        self._slots = Slots(self._concurrency, self._slot_freed)
        self._runners = Runners(self._slots, self._work)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = 0
        self._stopped: asyncio.Event | None = None
        self._is_claiming = False
        self._wants_claim = False
        self._claims_alone: Any = None
        self._suspects_since: float | None = None
        self._due_timer: asyncio.TimerHandle | None = None
        self._answers: list[tuple[Done, Any, BaseException | None]] = []
        self._answering = threading.Lock()
        self._once = False
        self._is_idle = False
        self._idle_since = time.monotonic()
        self._must_be_replaced = False
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._pump_scheduled = False

    # -- life -------------------------------------------------------------------------------------------

    def run(self, *, once: bool = False) -> None:
        """Work until stopped; with `once`, until nothing is due."""
        self._once = once
        before = caller.agent_process
        if not self._embedded:
            caller.agent_process = True
        try:
            with asyncio.Runner() as runner:
                runner.run(self._main())
        finally:
            caller.agent_process = before

    def start(self) -> None:
        """Work in a background thread; returns when the agent is registered."""
        self._thread = threading.Thread(target=self.run, name="outlast-agent", daemon=True)
        self._thread.start()
        self._ready.wait(30)

    def stop(self, grace_seconds: float | None = None) -> None:
        """Drain: the first call lets steps end within the grace time, the second gives everything back at once.

        May be called from any thread and from a signal handler. Waits for the thread of `start`.
        """
        self._stopping += 1
        loop = self.loop
        if loop is not None and not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._drain, grace_seconds)
            except RuntimeError:
                pass
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def has_strays(self) -> bool:
        """Whether threads of steps go on; then the process must end by `os._exit`."""
        return any(thread.name.startswith(("outlast-step", "outlast-runner")) and thread.is_alive() and thread in _busy
                   for thread in threading.enumerate())  # fmt: skip

    @property
    def must_be_replaced(self) -> bool:
        """A step's thread overran and does not end: the process has to."""
        return self._must_be_replaced

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self.store.patient = True
        self._register()
        listener = self.store.listen()
        if listener.fileno() >= 0:
            self.loop.add_reader(listener.fileno(), self._rung, listener)
        logs.install()
        pulse = Pulse()
        self._ready.set()
        self._repeat(self.settings.lease_seconds / 3, self._heartbeat)
        self._repeat(0.5, pulse.beat)
        self._repeat(_BACKLOG_SECONDS, self._look_after)
        self._version = self.store.data_version()
        self._repeat(_VERSION_SECONDS, self._read_version)
        try:
            self._pump()
            if self._stopping:
                self._drain(None)
            await self._stopped.wait()
        finally:
            if listener.fileno() >= 0:
                self.loop.remove_reader(listener.fileno())
            listener.close()
            for timer in self._repeating:
                timer.cancel()
            for task in self._tasks:
                task.cancel()
            self._runners.close()

    _version = 0

    def _register(self) -> None:
        identity = this_process()
        self.agent_id = self.store.commit(
            RegisterAgent(
                uid=new_id(clock.wall()),
                host=identity.host,
                boot_id=identity.boot_id,
                pid=identity.pid,
                process_started=identity.started,
                slots=self._concurrency,
                queues=json.dumps(self._queues) if self._queues is not None else None,
                lease=round(self.settings.lease_seconds * clock.SECOND),
                code=self.fingerprints,
            )
        )

    @property
    def _repeating(self) -> list[asyncio.TimerHandle]:
        timers: list[asyncio.TimerHandle] = self.__dict__.setdefault("_timers", [])
        return timers

    def _repeat(self, seconds: float, function: Callable[[], object]) -> None:
        index = len(self._repeating)

        def again() -> None:
            try:
                function()
            except StoreError as error:
                log.warning("%s", error)
            finally:
                self._repeating[index] = self.loop.call_later(seconds, again)

        self._repeating.append(self.loop.call_later(seconds, again))

    # -- claims -----------------------------------------------------------------------------------------

    def _rung(self, listener: Any) -> None:
        listener.drain()
        self._schedule_pump()

    def _read_version(self) -> None:
        version = self.store.data_version()
        if version != self._version:
            self._version = version
            self._schedule_pump()

    def _slot_freed(self) -> None:
        self._runners.wake()
        if not self._pump_scheduled:
            self._from_any_thread(self._schedule_pump)

    def _from_any_thread(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # The loop has ended; what is left goes back with the lease.

    def _schedule_pump(self) -> None:
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self.loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Read the news of what we hold, then claim for the slots that are free."""
        self._pump_scheduled = False
        self._read_notices()
        self._start_waiting()
        if self._stopping:
            return
        if self._is_claiming:
            self._wants_claim = True
            return
        limit = self._room()
        if limit <= 0:
            return
        alone, suspects = self._mode()
        if alone is None:
            return
        self._is_claiming = True
        self._wants_claim = False
        self.submit(
            Claim(
                self.agent_id,
                1 if alone else limit,
                self.fingerprints,
                queues=self._queues,
                root_id=self._root_id,
                alone=alone,
                suspects=suspects,
            ),
            partial(self._claimed, suspects),
        )

    def _room(self) -> int:
        if self._claims_alone is not None:
            return 0
        seconds = max(self._runners.seconds, 1e-5)
        ahead = min(_LARGEST_CLAIM, int(0.02 / seconds)) if seconds < 0.002 and self._concurrency > 1 else 0
        return self._slots.free + ahead - len(self._runners) - len(self._waiting_async)

    _looks_for_suspects = False

    def _mode(self) -> tuple[bool | None, bool]:
        """(alone, suspects) of the next claim. A suspect runs only where nothing else does."""
        if self._root_id is not None:
            return True, False
        if self._concurrency == 1:
            self._looks_for_suspects = not self._looks_for_suspects
            return True, self._looks_for_suspects
        if not self._has_suspects():
            return False, False
        if not self.runs:
            return True, True
        now = time.monotonic()
        if self._suspects_since is None:
            self._suspects_since = now
        # An agent that is never idle gives suspects a turn: it takes nothing new until it is empty.
        return (None, False) if now - self._suspects_since > _SUSPECTS_SECONDS else (False, False)

    def _has_suspects(self) -> bool:
        found = claiming.has_suspects(
            self.store.connection(), frozenset(self.fingerprints), self._queues, now=self.store.now()
        )
        if not found:
            self._suspects_since = None
        return found

    def _claimed(self, suspects: bool, claims: list[Claimed] | None, error: BaseException | None) -> None:
        self._is_claiming = False
        if error is not None or claims is None:
            log.warning("claiming failed: %s", error)
            self.loop.call_later(1.0, self._schedule_pump)
            return
        if claims:
            self._is_idle = False
            self._idle_since = time.monotonic()
            sync = [work for claimed in claims if (work := self._prepare(claimed, suspects=suspects)) is not None]
            if sync:
                self._runners.add(sync)
            self._schedule_pump()
        elif self._concurrency == 1 and suspects:
            self._schedule_pump()
        elif self._wants_claim:
            self._schedule_pump()
        else:
            self._rest()
        self.store.committer.crowded = len(self.runs) > 2

    def _rest(self) -> None:
        """Nothing is due: sleep until the next task is, or the bell rings."""
        if self._once and not self.runs:
            self._finish()
            return
        if self._solo and time.monotonic() - self._idle_since > _SOLO_IDLE_SECONDS and not self.runs:
            self._finish()
            return
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None
        due_at = claiming.next_due_at(self.store.connection(), frozenset(self.fingerprints), self._queues)
        if due_at is not None:
            delay = max(0.0005, (due_at - self.store.now()) / clock.SECOND)
            # Due already, yet not claimed: refused, a suspect, or of another's root; look again now and then.
            delay = delay if due_at > self.store.now() else 0.5
            self._due_timer = self.loop.call_later(min(delay, 3600.0), self._schedule_pump)

    # -- starting ------------------------------------------------------------------------------------------

    @property
    def _waiting_async(self) -> list[Any]:
        waiting: list[Any] = self.__dict__.setdefault("_async_backlog", [])
        return waiting

    def _prepare(self, claimed: Claimed, *, suspects: bool) -> Any:
        """Make what a claimed task needs; sync work is given back for the runners, async work starts on the loop."""
        definition = self._definition_of(claimed)
        if definition is None and claimed.status is not Status.COMPENSATING:
            self.submit(GiveBack(claimed.fence), _nothing)
            return None
        work: Any
        if claimed.status is Status.COMPENSATING:
            work = UndoRun(self, claimed)
        elif claimed.kind == "step":
            work = TaskRun(self, claimed, definition)
        else:
            assert definition is not None
            entries = (
                journal.load(self.store.connection(), claimed.fence.task_id) if claimed.fence.claim > 1 else []
            )
            if definition.asynchronous:
                work = AsyncRun(self, claimed, definition, entries, finished=self._async_finished)
            else:
                work = SyncRun(self, claimed, definition, entries)
        self.runs[claimed.fence.task_id] = work
        if suspects:
            self._claims_alone = work
        self._watch_deadline(work)
        if definition is not None and definition.asynchronous and claimed.status is not Status.COMPENSATING:
            self._waiting_async.append(work)
            self._start_waiting()
            return None
        return work

    def _start_waiting(self) -> None:
        while self._waiting_async and self._slots.try_take():
            work = self._waiting_async.pop(0)
            if isinstance(work, AsyncRun):
                work.begin()
            else:
                task = self.loop.create_task(self._run_task(work))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                work.task = task

    async def _run_task(self, work: TaskRun) -> None:
        try:
            operation = await work.execute_on_loop()
        except asyncio.CancelledError:
            work.ended = True
            operation = End(work.fence, Ending.CANCELLED, tries=work.number) if work.cancel_requested else None
        self._finished(work, operation)
        self._slots.leave()

    def _work(self, work: Any) -> None:
        """Execute sync work in a runner's thread."""
        thread = threading.current_thread()
        _busy.add(thread)
        try:
            operation = work.execute()
        except BaseException as error:  # noqa: BLE001 - a bug of ours must not take the thread down silently
            log.error("task %s could not be carried on", work.fence.task_id, exc_info=error)
            operation = Halt(work.fence, f"the engine failed: {error!r}")
        finally:
            _busy.discard(thread)
        self._finished(work, operation)

    def _async_finished(self, run: AsyncRun, operation: Operation[Any] | None) -> None:
        self._finished(run, operation)
        if run.holds_slot:
            self._slots.leave()

    def _finished(self, work: Any, operation: Operation[Any] | None) -> None:
        """Write how a task left us. It is ours until that is on disk."""
        if operation is None:
            self._from_any_thread(self._forget, work)
            return

        def written(_: Any, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, LeaseLost):
                log.error("the end of task %s could not be written: %s", work.fence.task_id, error)
            self._forget(work)

        self.submit(operation, written)

    def _forget(self, work: Any) -> None:
        if self.runs.get(work.fence.task_id) is work:
            del self.runs[work.fence.task_id]
        if self._claims_alone is work:
            self._claims_alone = None
            self._suspects_since = None
        self._schedule_pump()
        if self._stopping and not self.runs and self._stopped is not None:
            self._finish()

    def _definition_of(self, claimed: Claimed) -> Definition | None:
        kind = "workflow" if claimed.kind == "run" else "step"
        return self.definition(kind, claimed.name, claimed.version)

    # -- news ---------------------------------------------------------------------------------------------------

    def _read_notices(self) -> None:
        if not self.runs:
            return
        for task_id, claim, count, cancelled, paused in claiming.notices(self.store.connection(), self.agent_id):
            work = self.runs.get(task_id)
            if work is None or work.fence.claim != claim:
                continue
            self.submit(Acknowledge(work.fence, count), _nothing)
            if cancelled:
                self._cancel(work)
            if paused:
                work.pause_requested = True
            if hasattr(work, "notify"):
                work.notify()

    def _cancel(self, work: Any) -> None:
        if getattr(work, "cancel_requested", True):
            return  # Known, or an undo, which a cancel does not change.
        work.cancel_requested = True
        self._end_now(work)

    def _watch_deadline(self, work: Any) -> None:
        deadline_at = work.claimed.deadline_at
        if deadline_at is None or not isinstance(work, Execution):
            return

        def passed() -> None:
            if work.ended or work.lost:
                return
            left = (deadline_at - self.store.now()) / clock.SECOND
            if left > 0:
                self.loop.call_later(min(left, 3600.0) + 0.001, passed)
                return
            work.late = True
            self._end_now(work)
            work.notify()  # type: ignore[attr-defined]

        passed()

    def _end_now(self, work: Any) -> None:
        """A cancel or a deadline: stop what can be stopped, and do not wait long for a sync step that cannot."""
        if isinstance(work, AsyncRun):
            return
        if isinstance(work, TaskRun):
            task = getattr(work, "task", None)
            if task is not None:
                task.cancel()
                return
            if work.stop():
                return
        elif isinstance(work, SyncRun) and work.kill_isolated is not None:
            work.kill_isolated()
            return
        self.loop.call_later(_STEP_GRACE_SECONDS, self._decide_beside, work)

    def _decide_beside(self, work: Any) -> None:
        """The step goes on in its thread: decide the run's ending now; it waits for the thread as for a part."""
        if work.ended or work.ending_decided or work.lost:
            return
        if isinstance(work, SyncRun):
            path = work.step_path
            if path is None:
                return
            work.ending_decided = True
            work.strays.add(path)
            self.submit(work.abort(), _nothing)
        elif isinstance(work, TaskRun):
            work.ending_decided = True
            work.strays.add("")
            self.submit(End(work.fence, Ending.CANCELLED, tries=work.number, strays=("",)), _nothing)

    def stray_ended(self, run: Any, path: str, tried: Tried) -> None:
        """A try that outlived its task's ending has ended; what came of it is kept for the undo."""
        claimed = run.claimed
        entry = None
        run_id = claimed.parent_id if claimed.kind == "step" else claimed.fence.task_id
        where = claimed.parent_path if claimed.kind == "step" else path
        if tried.error is None and tried.committed is None and run_id is not None and not isinstance(run, UndoRun):
            kind = "task" if claimed.kind == "step" else "step"
            entry = Entry(
                0, where or "", "completed", kind, run.definition.name if kind == "task" else run.step_name(path),
                clock.wall(), try_number=1, started_at=tried.started_at, data=tried.output,
            )  # fmt: skip
        self.store.submit(StrayEnded(claimed.fence.task_id, self.agent_id, path, entry, run_id))

    # -- host of runs ---------------------------------------------------------------------------------------------

    def definition(self, kind: str, name: str, version: str = "") -> Definition | None:
        return self._definitions.get((kind, name, version))

    @property
    def _definitions(self) -> dict[tuple[str, str, str], Any]:
        found: dict[tuple[str, str, str], Any] | None = self.__dict__.get("_by_name")
        if found is None:
            found = {("workflow", w.name, w.version): w for w in self._registry.workflows()}
            found |= {("step", s.name, ""): s for s in self._registry.steps()}
            self.__dict__["_by_name"] = found
        return found

    def compensated(self, undo: Undo) -> Any:
        """The definition whose compensation undoes this, where this agent has it."""
        if undo.kind == "child":
            candidates = [w for w in self._registry.workflows() if w.name == undo.name]
        else:
            candidates = [s for s in self._registry.steps() if s.name == undo.name]
        return next((found for found in candidates if found.compensated_by is not None), None)

    def has_room_in_memory(self) -> bool:
        return len(self.runs) < _IN_MEMORY + self._concurrency and not self._stopping

    def leave_slot(self) -> None:
        self._slots.leave()

    def take_slot(self) -> None:
        self._slots.take()

    def take_slot_now(self) -> None:
        self._slots.take_now()

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Execute an operation; `done` is called on the loop, in the order of the calls, many answers at a time."""
        self.store.submit(operation, partial(self._answer, done))

    def _answer(self, done: Done, result: Any, error: BaseException | None) -> None:
        with self._answering:
            self._answers.append((done, result, error))
            if len(self._answers) > 1:
                return
        self._from_any_thread(self._take_answers)

    def _take_answers(self) -> None:
        with self._answering:
            answers, self._answers = self._answers, []
        for done, result, error in answers:
            done(result, error)

    def on_loop(self, function: Callable[[], None]) -> None:
        self._from_any_thread(function)

    def run_in_thread(self, function: Callable[[], None]) -> None:
        def call() -> None:
            _busy.add(threading.current_thread())
            try:
                function()
            finally:
                _busy.discard(threading.current_thread())

        threading.Thread(target=call, name="outlast-step", daemon=True).start()

    def overran(self, task_id: int) -> None:
        """A step's thread does not end: this process has to, once everything else has left it."""
        if not self._must_be_replaced and not self._embedded:
            log.warning("a step of task %s overran and does not end: this agent drains to be replaced", task_id)
            self._must_be_replaced = True
            self.stop()

    # -- lease and end -----------------------------------------------------------------------------------------------

    def _heartbeat(self) -> None:
        self.submit(
            Heartbeat(
                self.agent_id, round(self.settings.lease_seconds * clock.SECOND), draining=bool(self._stopping)
            ),
            self._renewed,
        )

    def _renewed(self, held: Any, error: BaseException | None) -> None:
        if error is not None or held:
            if held:
                self._give_back_forgotten()
            return
        # A supervisor has ended our lease: everything is somebody else's by now.
        log.warning("this agent's lease was ended; it begins anew")
        for work in list(self.runs.values()):
            work.lost = True
            if isinstance(work, AsyncRun):
                work.lose()
            elif hasattr(work, "notify"):
                work.notify()
        self._runners.take_back()
        self._waiting_async.clear()
        self.runs.clear()
        if not self._stopping:
            self._register()
            self._schedule_pump()

    def _give_back_forgotten(self) -> None:
        """Tasks that name us but that we do not know: their claim's answer was lost."""
        for task_id, claim in self.store.connection().execute(_HELD, {"agent_id": self.agent_id}).fetchall():
            if task_id not in self.runs and not self._is_claiming:
                self.submit(GiveBack(Fence(task_id, claim)), _nothing)

    def _look_after(self) -> None:
        """Hand back what waits behind slow work; see that nobody unwinds for ever."""
        for work in self._runners.take_back(older_than_seconds=_BACKLOG_SECONDS):
            self.submit(GiveBack(work.fence), lambda _, __, work=work: self._forget(work))
        if self._solo and not self.runs:
            self._schedule_pump()
        self._end_hung_transaction()
        for work in list(self.runs.values()):
            if isinstance(work, SyncRun):
                self._look_after_unwinding(work)

    def _end_hung_transaction(self) -> None:
        """A transaction that does not end holds the file's only write lock: nobody can work until its process is gone."""
        late = time.monotonic() - min(transactional.under_way.copy().values(), default=math.inf)
        if late > _HUNG_TRANSACTION_SECONDS:
            log.error("a @transaction step holds the write lock %.0f s past its timeout", late)
            if not self._embedded:
                os.kill(os.getpid(), signal.SIGKILL)

    def _look_after_unwinding(self, run: SyncRun) -> None:
        if run.unwinding_since is None or run.ended or run.ending_decided:
            return
        if time.monotonic() - run.unwinding_since > self.settings.grace_seconds:
            run.ending_decided = True
            reason = f"its code did not end its unwinding within {self.settings.grace_seconds:g} s"
            self.submit(Halt(run.fence, reason, strays=("unwinding",)), _nothing)
            self.overran(run.fence.task_id)

    def _drain(self, grace_seconds: float | None) -> None:
        if self._stopping > 1:
            self._finish()
            return
        grace = self.settings.grace_seconds if grace_seconds is None else grace_seconds
        self._heartbeat()
        for work in [*self._runners.take_back(), *self._waiting_async]:
            self.submit(GiveBack(work.fence), lambda _, __, work=work: self._forget(work))
        self._waiting_async.clear()
        for work in list(self.runs.values()):
            work.drain_requested = True
            if hasattr(work, "notify"):
                work.notify()
        if not self.runs:
            self._finish()
        else:
            self.loop.call_later(grace, self._finish)

    _is_finishing = False

    def _finish(self) -> None:
        """Leave in good order: what is still held goes back, nobody suspected."""
        if self._is_finishing:
            return
        self._is_finishing = True
        self._stopping = max(1, self._stopping)
        for work in self.runs.values():
            stop = getattr(work, "kill_isolated", None) or getattr(work, "stop", None)
            if stop is not None:
                stop()
        running = tuple(task_id for task_id, work in self.runs.items() if not work.ended) if self._embedded else ()

        def left(_: Any, __: BaseException | None) -> None:
            assert self._stopped is not None
            self._stopped.set()

        self.submit(LeaveAgent(self.agent_id, running), left)


_HELD = "select id, claim from outlast_task where agent_id = :agent_id"

_busy: set[threading.Thread] = set()


def code_of(registry: Registry) -> dict[str, str]:
    """What an agent with these definitions can carry on, and the fingerprint of each one's source."""
    code: dict[str, str] = {}
    for definition in registry.workflows():
        code[workflow_code(definition.name, definition.version)] = definition.fingerprint
        if definition.compensated_by is not None:
            code[compensation_code(definition.name)] = definition.fingerprint
    for step in registry.steps():
        code[step_code(step.name)] = step.fingerprint
        if step.compensated_by is not None:
            code[compensation_code(step.name)] = step.fingerprint
    return code


def exit_process(agent: Agent, status: int) -> None:
    """End an agent's process: at once where threads of steps would keep it."""
    if agent.has_strays:
        os._exit(status)


def _nothing(_: Any, __: BaseException | None) -> None:
    """Nobody waits for the answer."""

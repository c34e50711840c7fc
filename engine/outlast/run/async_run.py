"""A run of an async workflow, on the agent's loop: outcomes reach it one at a time, in journal order.

Owns the delivery order and the awaitable form of the caller's methods. Each outcome is delivered after the code has run until every
branch waits, on the first execution as on replay; so whatever the code decides by who finished first, it decides again. Everything
here happens on the agent's loop thread; sync steps run in threads and come back to it. Refuses to start anything while it replays.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from random import Random
from typing import Any, NoReturn
from uuid import UUID

from .. import clock, codec
from ..aside import branch_of
from ..caller import active
from ..codec_errors import encode_error
from ..errors import (
    Cancelled,
    CodeMismatch,
    InvalidInput,
    LeaseLost,
    OutlastError,
    Parked,
    PayloadUnreadable,
    ResultTimeout,
    SignalTimeout,
    StoreError,
    Unwinding,
    WrongColour,
)
from ..handles import Handle, Run
from ..inheritance import Inherited
from ..names import checked_key
from ..operations import (
    Append,
    CancelParts,
    Emit,
    Entry,
    GiveBack,
    Halt,
    Operation,
    Park,
    Publish,
    RetryRun,
    Signal,
    StartPart,
)
from ..options import Options
from ..signature import convert_value
from ..store import signals
from ..store.parts import leads_to, may_lead_elsewhere
from . import forked
from .arrivals import arrived, halted_step
from .execution import Ended, Execution
from .history import DELIVERED, OUTCOMES, Record, void
from .inline import InlineStep
from .parts import ChildRun, Part
from .workflow_loop import WorkflowLoop

_ENDLESS = 1 << 62


class Pending:
    """A durable call that has no outcome yet: the future that the code waits for, and what brings it about."""

    __slots__ = (
        "due_at", "future", "inherited", "inline", "kind", "name", "part", "path", "seen_signal_id", "start", "timeout_seconds",
        "timer", "type_",
    )  # fmt: skip

    def __init__(self, path: str, kind: str, name: str) -> None:
        self.path = path
        self.kind = kind
        self.name = name
        self.future: asyncio.Future[Any] | None = None
        self.start: Callable[[Pending], None] | None = None
        self.inline: InlineStep | None = None
        self.part: Part[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.due_at: int | None = None
        self.timeout_seconds: float = 0.0
        self.type_: Any = object
        self.seen_signal_id = 0
        self.inherited: tuple[Inherited, Any, bytes] | None = None
        """A result that stands for it, with the definition and the input of the call."""


class AsyncRun(Execution):
    """Drives one async workflow. Implements `caller.Caller`; its methods give awaitables."""

    asynchronous = True
    in_step = False

    def __init__(self, host: Any, claimed: Any, definition: Any, entries: list[Entry], *, finished: Any) -> None:
        super().__init__(host, claimed, definition, entries)
        self._finished: Callable[[AsyncRun, Ended | None], None] = finished
        self._loop = WorkflowLoop(self)  # type: ignore[abstract]
        self._replay: deque[Entry] = deque(self.history.deliveries)
        self._pending: dict[str, Pending] = {}
        self._fresh: list[Pending] = []
        self._timers: dict[asyncio.TimerHandle, Pending] = {}
        self._committed: list[tuple[int, Entry]] = []
        self._next_seq = self.seq + 1
        self.delivered_seq = 0
        self._main: asyncio.Task[Any] | None = None
        self._seen_arrival = 0
        self._seen_parts: set[str] = set()
        self._is_advancing = False
        self._holds_slot = True
        self._is_parking = False
        self._outstanding = 0
        self._threads = 0
        self._is_inheriting = False
        self._marks = 0
        """Decisions of `patched` on their way to the disk: no step begins by one that a crash could take back."""
        self._park_timer: asyncio.TimerHandle | None = None
        self._due_timer: asyncio.TimerHandle | None = None
        self._due_at: int | None = None
        """For when the look is set."""
        self._timed: list[Pending] = []
        """Waits for a signal that have a timeout."""
        self._waiting_since: float | None = None

    # -- from start to end ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the code and bring it to where it waits."""
        context = copy_context()
        context.run(active.set, self)
        try:
            args, kwargs = self.arguments()
        except Unwinding:
            self._end(False, None)
            return
        except Exception as error:  # noqa: BLE001 - carried to where it is the outcome
            self._end(False, error)
            return
        self._main = self._loop.create_task(self.definition.fn(*args, **kwargs), context=context)
        self._main.add_done_callback(lambda _: None)
        self.advance()

    def notify(self) -> None:
        """Look again: an intent was set, or something has arrived."""
        if not self.ended:
            self._look()
            self.advance()

    def advance(self) -> None:
        """Deliver what is there, run the code, start what it asked for, and see whether to wait, park or end."""
        if self._is_advancing or self.ended or self._is_parking:
            return
        self._is_advancing = True
        try:
            self._advance()
        except CodeMismatch as error:
            self._end(False, error)
        except LeaseLost:
            self.lose()
        finally:
            self._is_advancing = False

    def _advance(self) -> None:
        main = self._main
        assert main is not None
        while True:
            generation = forked.generation()
            self._loop.drain()
            forked.end_child(generation, self.definition.name)
            if self.last_write is not None:
                self._end(False, None)
                return
            if main.done():
                self._end_by(main)
                return
            if self._replay:
                self._deliver(self._replay.popleft())
            elif self._committed and self._committed[0][0] == self._next_seq:
                self._deliver(heapq.heappop(self._committed)[1], is_live=True)
            elif self._is_asked_to_stop():
                return
            elif self._fresh and not (self.pause_requested or self.drain_requested):
                if not self._start_fresh():
                    break
            else:
                break
        self._rest()

    def _start_fresh(self) -> bool:
        """Begin what the code asked for; but first, one at a time in its old order, what the run inherits."""
        if self._is_inheriting or self._marks:
            return False
        heirs = [pending for pending in self._fresh if pending.inherited is not None and pending.path in self._pending]
        if heirs:
            self._inherit(min(heirs, key=_old_order))
            return True
        fresh, self._fresh = self._fresh, []
        for pending in fresh:
            if pending.path in self._pending and pending.start is not None:
                pending.start(pending)
        return True

    def _inherit(self, pending: Pending) -> None:
        """Make a result of the run that this one retries our own."""
        assert pending.inherited is not None
        self._fresh.remove(pending)
        self._seen_parts.add(pending.path)
        entries = self.entries_of(*pending.inherited)
        self._is_inheriting = True
        self._submit(self.append(*entries), partial(self._inherited_is_ours, entries))

    def _inherited_is_ours(self, entries: list[Entry], _: Any, error: BaseException | None) -> None:
        self._is_inheriting = False
        if error is not None:
            self._fail(error)
            return
        for entry in entries:
            self.note(entry)
        self.advance()

    def _is_asked_to_stop(self) -> bool:
        if self.cancel_requested or self.late:
            self.unwinding = Cancelled
            self._stop_inline()
            self._end(False, None)
            return True
        if (self.pause_requested or self.drain_requested) and not self._has_inline():
            self._leave(GiveBack(self.fence))
            return True
        return False

    def _beyond(self) -> Entry | None:
        """What the journal has of places that the code has not come to.

        Outcomes of calls that it has made are none: they came to the disk while the one was on its way that ended it, or that
        cancelled them.
        """
        records = self.history.records
        return next((entry for entry in self._replay if (record := records.get(entry.path)) is None or not record.visited), None)

    def _end_by(self, main: asyncio.Task[Any]) -> None:
        entry = self._beyond()
        if entry is not None:
            raise CodeMismatch(entry.path, recorded=f"{entry.kind} {entry.name}", found="the end of the workflow")
        if main.cancelled():
            self._end(False, asyncio.CancelledError("the workflow cancelled itself"))
            return
        error = main.exception()
        if error is not None:
            self._end(False, error)
        else:
            self._end(True, main.result())

    def _end(self, returned: bool, value: Any) -> None:
        self.ended = True
        self._stop_inline()
        operation = self.ending_of(returned, value)
        self._close()
        self._finish(operation)

    def _finish(self, operation: Ended | None, since: float | None = None) -> None:
        """Write how the code has ended; but no try of the run begins beside a thread of the one before."""
        if isinstance(operation, RetryRun) and self.strays and not self.lost:
            if self.cancel_requested or self.late:
                operation = self.abort()
            else:
                since = since or time.monotonic()
                if time.monotonic() - since > self.host.settings.grace_seconds:
                    self.host.overran(self.fence.task_id)
                asyncio.get_running_loop().call_later(0.05, self._finish, operation, since)
                return
        self._finished(self, operation)

    def branches_that_saw(self, paths: tuple[str, ...], seq: int) -> tuple[str, ...]:
        saw = {""}
        for path in paths:
            prefix = branch_of(path)
            while prefix:
                saw.add(prefix)
                prefix = branch_of(prefix[:-1])
        for branch in self._loop.branches():
            if branch.parent in saw and branch.born_seq >= seq:
                saw.add(branch.prefix)
        return tuple(saw)

    def _leave(self, operation: GiveBack) -> None:
        self.unwinding = Parked
        self.ended = True
        self._close()
        self._finished(self, self._halt_of_stuck_code() or operation)

    def _halt_of_stuck_code(self, *, is_parked: bool = False) -> Halt | None:
        if not self._loop.does_not_unwind:
            return None
        return Halt(self.fence, "its code did not end its unwinding: a coroutine waits again each time it is closed", is_parked=is_parked)

    def lose(self) -> None:
        """The lease is somebody else's: leave silently."""
        self.lost = True
        self.unwinding = Parked
        self.ended = True
        self._stop_inline()
        self._close()
        self._finished(self, None)

    def _close(self) -> None:
        for timer in (self._park_timer, self._due_timer):
            if timer is not None:
                timer.cancel()
        if self.unwinding is None:
            self.unwinding = Parked
        self._stop_inline()
        self._loop.unwind()
        self._pending.clear()

    def _stop_inline(self) -> None:
        for pending in self._pending.values():
            if pending.inline is not None and pending.inline.stop():
                self.strays.add(pending.path)

    def _has_inline(self) -> bool:
        return any(p.inline is not None and p.inline.is_trying for p in self._pending.values())

    # -- delivery -----------------------------------------------------------------------------------------

    def _deliver(self, entry: Entry, *, is_live: bool = False) -> None:
        if is_live:
            self._next_seq = entry.seq + 1
        self.delivered_seq = entry.seq
        if is_live and (entry.kind not in DELIVERED or entry.event not in OUTCOMES):
            return
        record = self.history.records.get(entry.path)
        if not is_live and (record is None or not record.visited):
            raise CodeMismatch(entry.path, recorded=f"{entry.kind} {entry.name}", found="nothing there")
        self.journal_at = max(self.journal_at, entry.at)
        pending = self._pending.pop(entry.path, None)
        if pending is None:
            return
        if pending.timer is not None:
            self.last_timer = entry
            self._timers.pop(pending.timer, None)
            self._loop.fire(pending.timer)
            return
        future = pending.future
        if future is None or future.done():
            return
        try:
            future.set_result(self._value_of(entry, pending.type_))
        except BaseException as error:  # noqa: BLE001 - the step's own error, whatever it is, is the outcome
            future.set_exception(_settable(error))
            future.add_done_callback(lambda f: f.cancelled() or f.exception())

    def _value_of(self, entry: Entry, type_: Any) -> Any:
        value = self.outcome_of(entry)
        return value if type_ is object else convert_value(value, type_, f"signal {entry.name}")

    def _write(self, entry: Entry, *, signal_id: int | None = None, unless_signal: tuple[str, int] | None = None) -> None:
        """Hand an entry to the disk; it is delivered when it is there and all before it are."""
        operation = self.append(entry, signal_id=signal_id)
        if unless_signal is not None:
            operation = Append(self.fence, [entry], unless_signal=unless_signal[0], seen_signal_id=unless_signal[1])
        self._submit(operation, partial(self._written, entry))

    def _written(self, entry: Entry, result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        if result is False:
            # The timeout met a signal: its number is void, and the signal is looked at again.
            self.void(entry)
            self._look_at_signals()
        else:
            heapq.heappush(self._committed, (entry.seq, entry))
        self.advance()

    def void(self, entry: Entry) -> None:
        """Fill the number of an entry that was not written: what comes after need not wait, and a journal has no gaps."""
        if not self.ended:
            filler = void(entry.seq, entry.name, entry.at)
            self._submit(Append(self.fence, [filler]), partial(self._noted, filler))

    def _fail(self, error: BaseException) -> None:
        if self.ended:
            return
        if isinstance(error, LeaseLost):
            self.lose()
        else:
            self._end(False, error)

    def _checked(self, _: Any, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)

    def _submit(self, operation: Operation[Any], done: Callable[[Any, BaseException | None], None]) -> None:
        self._outstanding += 1

        def arrived_back(result: Any, error: BaseException | None) -> None:
            self._outstanding -= 1
            if not self.ended:
                done(result, error)

        self.host.submit(operation, arrived_back)

    # -- durable calls --------------------------------------------------------------------------------------

    def _enter(self) -> None:
        if self.unwinding is not None:
            raise self.unwinding
        if not self._loop.is_running():
            raise WrongColour(
                "A durable call was made outside the workflow's loop.",
                hint="Call steps from the workflow's own coroutines and tasks.",
            )

    def _pend(
        self, path: str, kind: str, name: str, record: Record | None, start: Callable[[Pending], None], *, is_watched: bool = True
    ) -> Pending:
        pending = Pending(path, kind, name)
        pending.future = self._loop.create_future()
        if is_watched:
            pending.future.add_done_callback(partial(self._settled, pending))
        self._pending[path] = pending
        if record is None:
            self.history.mark(path, kind, name)
        if record is None or record.outcome is None:
            pending.start = start
            self._fresh.append(pending)
        return pending

    def _settled(self, pending: Pending, future: asyncio.Future[Any]) -> None:
        if not future.cancelled() or self.ended or self._pending.get(pending.path) is not pending:
            return
        # The code cancelled the call: journalled as its outcome, so that a replay does not execute it.
        record = self.history.records.get(pending.path)
        if record is not None and record.outcome is not None:
            return  # A replay: the outcome comes in its turn, and finds nobody waiting.
        del self._pending[pending.path]
        inline = pending.inline
        if inline is not None and inline.stop():
            self.strays.add(pending.path)
        part = pending.part
        if part is not None and part.kind != "signal":
            if part.task_id is not None:
                self._cancel_part(part)
            # Else it is on its way to the disk, and cancelled when it is there.
            return
        if inline is not None:
            data, began = self.claimed.uid.encode(), inline.started_at
            self._write(self.entry(pending.path, "cancelled", pending.kind, pending.name, data=data, try_number=1, started_at=began))

    def _cancel_part(self, part: Part[Any]) -> None:
        assert part.task_id is not None
        self._submit(CancelParts(self.fence, (part.task_id,)), self._checked)
        self._write(self.entry(part.path, "cancelled", part.kind, part.name, data=part.id.encode(), try_number=1))

    def call(self, definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Coroutine[Any, Any, Any]:
        if definition.kind == "workflow":
            return _await(self.start(definition, args, kwargs, options))
        if definition.queue is not None or options.stands_in_line:
            return _await(self.submit(definition, args, kwargs, options))
        return self._call(definition, args, kwargs, options)

    async def _call(self, definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any:
        self._enter()
        path = self._loop.branch().place()
        record = self.visit(path, definition.kind, definition.name)
        data = b""
        if record is None or record.outcome is None:
            data = self.named_input(definition, args, kwargs)

        def start(pending: Pending) -> None:
            pending.inline = InlineStep(self, path, definition, data, options, record)
            pending.inline.start()

        one = self.inherited(path, definition, definition.kind, data) if record is None else None
        pending = self._pend(path, definition.kind, definition.name, record, start, is_watched=False)
        if one is not None:
            pending.inherited = one, definition, data
        assert pending.future is not None
        try:
            return await pending.future
        except asyncio.CancelledError:
            self._settled(pending, pending.future)
            raise

    def enter_thread(self) -> None:
        """A try begins in a thread, which no drain can stop."""
        with self._lock:
            self._threads += 1

    def leave_thread(self) -> None:
        with self._lock:
            self._threads -= 1

    @property
    def is_in_threads(self) -> bool:
        return self._threads > 0

    def step_ended(self, entry: Entry, *, is_committed: bool) -> None:
        """An inline step has its outcome; a transaction has written it itself."""
        if self.ended:
            return
        self.step_inputs.pop(entry.path, None)
        if is_committed:
            heapq.heappush(self._committed, (entry.seq, entry))
            self.advance()
        else:
            self._write(entry)

    def ask(self, question: Halt) -> None:
        """Only a person can say what a step did: the run halts."""
        if not self.ended:
            self.last_write = self.last_write or question
            self.advance()

    def step_failed(self, error: BaseException) -> None:
        """The engine itself could not go on with a step."""
        if not self.ended:
            self._fail(error)

    def pause_step(self, path: str, due_at: int) -> None:
        """A step waits for its next try."""
        pending = self._pending.get(path)
        if pending is not None:
            pending.due_at = due_at
            self.advance()

    def resume_step(self, path: str) -> None:
        pending = self._pending.get(path)
        if pending is not None:
            pending.due_at = None
            self._wake_up()

    def note(self, entry: Entry) -> None:
        """An entry that nobody waits for is on disk: it only counts in the order."""
        heapq.heappush(self._committed, (entry.seq, entry))

    def submit(self, definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Handle[Any]:
        return self._start_part(Part, "task", definition, args, kwargs, options)

    def start(self, workflow: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Run[Any]:
        part: Any = self._start_part(ChildRun, "child", workflow, args, kwargs, options)
        return part  # type: ignore[no-any-return]

    def _start_part(
        self,
        kind_of_handle: Any,
        kind: str,
        definition: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
    ) -> Part[Any]:
        self._enter()
        path = self._loop.branch().place()
        record = self.visit(path, kind, definition.name)
        data = b"" if record is not None else self.named_input(definition, args, kwargs)
        one = self.inherited(path, definition, kind, data) if record is None else None
        start = None if record is not None or one is not None else self.part(path, definition, data, options, is_child=kind == "child")
        part: Part[Any] = kind_of_handle(self, path, kind, definition.name, start.uid if start is not None else "")
        if record is not None and record.started is not None and record.started.data is not None:
            task_id, part.id = record.started.data.decode().split(" ", 1)
            part.task_id = int(task_id)
        pending = self._pend(path, kind, definition.name, record, lambda pending: None)
        pending.part = part
        part.future = pending.future
        if one is not None:
            part.id, part.is_inherited = one.uid or "", True
            pending.inherited = one, definition, data
        if start is not None:
            if may_lead_elsewhere(start):
                part.id = leads_to(self.store.connection(), start) or part.id
            self._write_part(part, definition, data, start)
        return part

    def _write_part(self, part: Part[Any], definition: Any, data: bytes, start: Any) -> None:
        self.has_parts = True
        kept, flags = self.kept_part_input(definition, data)
        entry = self.entry(part.path, "started", part.kind, definition.name, input=kept, flags=flags, started_at=clock.wall())

        def written(started: Any, error: BaseException | None) -> None:
            if error is not None:
                self._not_started(part, entry, error)
                return
            part.task_id, part.id = started.task_id, started.uid
            self.note(entry)
            if part.future is not None and part.future.cancelled():
                self._cancel_part(part)
            if not started.created:
                self._look()
            self.advance()

        self._submit(StartPart(self.fence, entry, start), written)

    def _not_started(self, part: Part[Any], entry: Entry, error: BaseException) -> None:
        """A refused start is the call's outcome; what the file could not write is the run's."""
        if isinstance(error, OutlastError) and not isinstance(error, LeaseLost | StoreError):
            self.void(entry)
            self._write(self.entry(part.path, "failed", part.kind, part.name, data=encode_error(error)))
        else:
            self._fail(error)

    async def map(
        self,
        definition: Any,
        items: Iterable[Any],
        options: Options,
        *,
        concurrency: int | None,
        return_exceptions: bool,
    ) -> list[Any]:
        self._enter()
        pending = list(items)
        limit = asyncio.Semaphore(concurrency or max(1, len(pending)))

        async def one(item: Any) -> Any:
            async with limit:
                return await self.submit(definition, (item,), {}, options)

        tasks = [self._loop.create_task(one(item)) for item in pending]
        return await self._gathered(tasks, return_exceptions=return_exceptions)

    # -- waiting ----------------------------------------------------------------------------------------------

    async def sleep(self, seconds: float) -> None:
        self._enter()
        await asyncio.sleep(seconds)

    def start_timer(self, timer: asyncio.TimerHandle, delay: float) -> None:
        """`call_later` of the workflow's loop: a durable timer at a place of the code that asks."""
        self._enter()
        path = self._loop.branch().place()
        record = self.visit(path, "timer", "timer")
        pending = Pending(path, "timer", "timer")
        pending.timer = timer
        self._timers[timer] = pending
        self._pending[path] = pending
        timer._scheduled = True  # type: ignore[attr-defined]
        one = self.inheritance.at(path, "timer", "timer") if record is None else None
        if one is not None:
            self.history.mark(path, "timer", "timer")
            pending.inherited = one, None, b""
            self._fresh.append(pending)
        elif record is None:
            self.history.mark(path, "timer", "timer")
            pending.due_at = self.store.now() + round(delay * clock.SECOND)
            entry = self.entry(path, "started", "timer", "timer", due_at=pending.due_at)
            self._write(entry)
        elif record.outcome is None and record.started is not None:
            pending.due_at = record.started.due_at

    def cancel_timer(self, timer: asyncio.TimerHandle) -> None:
        """The code no longer needs a timer: it goes without a trace, since a replay cancels it at the same place."""
        pending = self._timers.pop(timer, None)
        if pending is not None:
            self._pending.pop(pending.path, None)

    def wait_signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Coroutine[Any, Any, Any]:
        return self._wait_signal(name, type_, timeout_seconds)

    async def _wait_signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Any:
        pending = self._signal(name, type_, timeout_seconds)
        assert pending.future is not None
        return await pending.future

    def signal_handle(self, name: str, type_: Any) -> Handle[Any]:
        pending = self._signal(name, type_, None)
        part: Part[Any] = Part(self, pending.path, "signal", name, pending.path)
        part.signal_type = type_
        part.future = pending.future
        pending.part = part
        return part

    def _signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Pending:
        self._enter()
        path = self._loop.branch().place()
        record = self.visit(path, "signal", name)
        pending = self._pend(path, "signal", name, record, lambda pending: self._look_at_signals())
        pending.type_ = type_
        pending.timeout_seconds = timeout_seconds or 0.0
        one = self.inheritance.at(path, "signal", name) if record is None else None
        if one is not None:
            pending.inherited = one, None, b""
        elif record is None:
            due_at = None
            if timeout_seconds is not None:
                due_at = self.store.now() + round(timeout_seconds * clock.SECOND)
            pending.due_at = due_at
            self._write(self.entry(path, "started", "signal", name, due_at=due_at))
        elif record.started is not None:
            pending.due_at = record.started.due_at
        if pending.due_at is not None:
            self._timed.append(pending)
        return pending

    async def wait_part(self, part: Part[Any], timeout_seconds: float | None) -> Any:
        self._enter()
        if timeout_seconds is not None:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await self.wait_part(part, None)
            except TimeoutError as error:
                raise ResultTimeout(part.id, timeout_seconds) from error
        if part.future is None:
            raise InvalidInput(f"{part!r} is not a handle of this run.")
        return await part.future

    async def gather(self, handles: tuple[Any, ...], *, return_exceptions: bool) -> list[Any]:
        """Wait for all; unless exceptions are returned, the first error cancels the rest."""
        self._enter()
        return await self._gathered([self.future_of(handle) for handle in handles], return_exceptions=return_exceptions)

    async def _gathered(self, futures: Sequence[asyncio.Future[Any]], *, return_exceptions: bool) -> list[Any]:
        try:
            return list(await asyncio.gather(*futures, return_exceptions=return_exceptions))
        except BaseException:
            if self.unwinding is None:
                for future in futures:
                    future.cancel()
            raise

    async def first(self, handles: tuple[Any, ...]) -> Any:
        """Wait until any handle has its outcome; which one was first, the journal's order says again."""
        self._enter()
        if not handles:
            raise InvalidInput("first() needs at least one handle.")
        futures = [self.future_of(handle) for handle in handles]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return next(handle for handle, future in zip(handles, futures, strict=True) if future.done())

    def future_of(self, handle: Any) -> asyncio.Future[Any]:
        if not isinstance(handle, Part) or handle.run is not self or handle.future is None:
            raise InvalidInput(
                f"{handle!r} is not a handle of this run.",
                hint="Pass what submit(), start() or signal_handle() gave in this workflow.",
            )
        return handle.future

    def cancel_parts(self, parts: tuple[Any, ...]) -> None:
        self._enter()
        for part in parts:
            if part.future is not None:
                part.future.cancel()

    def signal_child(self, part: ChildRun[Any], name: str, payload: object, key: str | None) -> None:
        self._enter()
        path = self._loop.branch().place()
        if self.visit(path, "message", name) is not None:
            return
        self.history.mark(path, "message", name)
        if key is not None:
            checked_key(key, place="The key of a signal")
        data = self.encode(payload, place=f"the payload of signal {name}")
        entry = self.entry(path, "completed", "message", name)
        if part.is_inherited or self.history.has_inherited(part.path):
            # It had this message, and has ended.
            self._write(entry)
            return
        self._submit(
            Signal(part.id, name, data, key or f"{self.claimed.chain}/{path}"),
            lambda _, error: self._write(entry) if error is None else self._fail(error),
        )

    # -- what has arrived -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        """See which parts have ended and which signals have come since the last look, and journal them."""
        if self._replay or self._is_parking:
            return
        connection = self.store.connection()
        if self.has_parts:
            for arrival in arrived(connection, self.fence.task_id, self._seen_arrival):
                self._seen_arrival = max(self._seen_arrival, arrival.ended_at)
                pending = self._pending.get(arrival.path)
                if pending is None or pending.part is None or arrival.path in self._seen_parts:
                    continue
                self._seen_parts.add(arrival.path)
                self._write(self.entry(arrival.path, arrival.event, pending.kind, pending.name, **arrival.facts()))
            halted = halted_step(connection, self.fence.task_id)
            if halted is not None:
                self.unwinding = Parked
                self.ended = True
                self._close()
                self._finished(self, Halt(self.fence, halted, strays=tuple(self.strays)))
                return
        self._look_at_signals()
        self._look_at_timers()

    def _look_at_signals(self) -> None:
        waiting = [p for p in self._pending.values() if p.kind == "signal" and p.inherited is None and p.path not in self._seen_parts]
        taken: set[int] = set()
        for pending in waiting:
            for signal_id, payload, _ in signals.unread(self.store.connection(), self.fence.task_id, pending.name):
                if signal_id in taken or signal_id in self._taken_signals:
                    continue
                if pending.type_ is not object and not _fits(payload, pending.type_):
                    pending.seen_signal_id = max(pending.seen_signal_id, signal_id)
                    continue
                taken.add(signal_id)
                self._taken_signals.add(signal_id)
                self._seen_parts.add(pending.path)
                entry = self.entry(pending.path, "completed", "signal", pending.name, data=payload)
                self._write(entry, signal_id=signal_id)
                break

    @property
    def _taken_signals(self) -> set[int]:
        taken: set[int] = self.__dict__.setdefault("_taken", set())
        return taken

    def _look_at_timers(self) -> None:
        """Journal the timers that are over, in the order of their instants."""
        now = self.store.now()
        over = sorted(
            (p.due_at, p.path, p)
            for p in self._pending.values()
            if p.due_at is not None and p.due_at <= now and p.path not in self._seen_parts
        )
        for _, path, pending in over:
            if pending.kind == "timer":
                self._seen_parts.add(path)
                self._write(self.entry(path, "completed", "timer", "timer"))
            elif pending.kind == "signal":
                error = encode_error(SignalTimeout(pending.name, pending.timeout_seconds))
                entry = self.entry(path, "failed", "signal", pending.name, data=error)
                self._write(entry, unless_signal=(pending.name, pending.seen_signal_id))

    # -- resting and parking -----------------------------------------------------------------------------------------

    def _rest(self) -> None:
        """Every branch waits and nothing is on its way to the disk: give up the slot, and the agent if the wait is long."""
        if self._outstanding or self._has_inline():
            self._wake_up()
            # A timeout around a step ends beside it, and not after it.
            self._timed = [p for p in self._timed if self._pending.get(p.path) is p]
            beside = [p.due_at for p in (*self._timers.values(), *self._timed) if p.due_at is not None]
            self._look_again_at(min(beside, default=None))
            return
        before = len(self._seen_parts), self.seq
        self._look()
        if self.ended or (len(self._seen_parts), self.seq) != before:
            return
        if self._holds_slot:
            self._holds_slot = False
            self.host.leave_slot()
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        dues = [p.due_at for p in self._pending.values() if p.due_at is not None]
        park_after = self.host.settings.park_after_seconds
        now = self.store.now()
        only_timers = all(p.due_at is not None and p.part is None and p.kind != "signal" for p in self._pending.values())
        is_long = bool(dues) and only_timers and min(dues) - now > park_after * clock.SECOND
        waited = time.monotonic() - self._waiting_since
        # In a queue with few places, another task may have to run in ours before we can go on: leave it at once.
        if self.claimed.has_place or is_long or waited >= park_after or not self.host.has_room_in_memory():
            self._park(min(dues) if dues else None)
            return
        self._look_again_at(min(dues, default=None))
        if self._park_timer is None:
            self._park_timer = asyncio.get_running_loop().call_later(park_after - waited + 0.001, self._rest_again)

    def _look_again_at(self, due_at: int | None) -> None:
        if due_at == self._due_at:
            return
        if self._due_timer is not None:
            self._due_timer.cancel()
        self._due_at, self._due_timer = due_at, None
        if due_at is not None:
            delay = max(0.0, (due_at - self.store.now()) / clock.SECOND)
            self._due_timer = asyncio.get_running_loop().call_later(delay, self._is_due)

    def _is_due(self) -> None:
        self._due_at = self._due_timer = None
        self.notify()

    def _rest_again(self) -> None:
        self._park_timer = None
        self.advance()

    def _wake_up(self) -> None:
        """The code is at work again: it holds a slot, and its wait is over."""
        self._waiting_since = None
        if self._park_timer is not None:
            self._park_timer.cancel()
            self._park_timer = None
        if not self._holds_slot:
            self._holds_slot = True
            self.host.take_slot_now()

    def _park(self, due_at: int | None) -> None:
        parts = [p for p in self._pending.values() if p.part is not None and p.kind != "signal"]
        waiting_signals = [p for p in self._pending.values() if p.kind == "signal"]
        operation = Park(
            self.fence,
            due_at,
            signals=tuple({p.name for p in waiting_signals}),
            seen_signal_id=min((p.seen_signal_id for p in waiting_signals), default=0),
            parts=tuple(p.part.task_id for p in parts if p.part is not None and p.part.task_id is not None),
            notice=_ENDLESS,
        )
        self._is_parking = True

        def parked(result: Any, error: BaseException | None) -> None:
            self._is_parking = False
            if error is not None:
                self._fail(error)
            elif result:
                self.unwinding = Parked
                self.ended = True
                self._close()
                self._finished(self, self._halt_of_stuck_code(is_parked=True))
            else:
                self._look()
                self.advance()

        self._submit(operation, parked)

    @property
    def holds_slot(self) -> bool:
        return self._holds_slot

    # -- values ---------------------------------------------------------------------------------------------------------

    def publish(self, key: str, value: Any) -> None:
        path = self._bookkeeping("publish", key)
        if path is not None:
            data = self.encode(value, place=f"published {key!r}")
            entry = self.entry(path, "completed", "publish", key)
            self._submit(Publish(self.fence, entry, key, data), partial(self._noted, entry))

    def emit(self, stream: str, value: Any) -> None:
        path = self._bookkeeping("emit", stream)
        if path is not None:
            data = self.encode(value, place=f"message on {stream!r}")
            entry = self.entry(path, "completed", "emit", stream)
            self._submit(Emit(self.fence, entry, stream, [data]), partial(self._noted, entry))

    def _bookkeeping(self, kind: str, name: str) -> str | None:
        self._enter()
        path = self._loop.branch().place()
        if self.visit(path, kind, name) is not None:
            return None
        self.history.mark(path, kind, name)
        return path

    def _noted(self, entry: Entry, result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        self.note(entry)
        self.advance()

    def uuid4(self) -> UUID:
        return self.uuid_at(self._loop.branch().value_place())

    def rng(self) -> Random:
        return self.random_at(self._loop.branch().value_place())

    def patched(self, change_id: str) -> bool:
        self._enter()
        decided, entry = self.patch(change_id, is_replaying=bool(self._replay) or self.history.is_ahead())
        if entry is not None:
            self._marks += 1
            self._submit(self.append(entry), partial(self._marked, entry))
        return decided

    def _marked(self, entry: Entry, result: Any, error: BaseException | None) -> None:
        self._marks -= 1
        self._noted(entry, result, error)

    def continue_as_new(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        self._enter()
        operation = self.successor(args, kwargs)
        entry = self._beyond()
        if entry is not None:
            error = CodeMismatch(entry.path, recorded=f"{entry.kind} {entry.name}", found="continue_as_new()")
            self.leave_by(self.mismatch(error))
        self.leave_by(operation)


def _old_order(pending: Pending) -> int:
    assert pending.inherited is not None
    return pending.inherited[0].seq


async def _await(handle: Any) -> Any:
    return await handle


def _fits(payload: bytes, type_: Any) -> bool:
    try:
        convert_value(codec.decode(payload), type_, "signal")
    except PayloadUnreadable:
        return True  # As in a sync run: it is taken, and the run is halted.
    except Exception:  # noqa: BLE001 - a payload that cannot be converted does not fit
        return False
    return True


def _settable(error: BaseException) -> BaseException:
    # A future refuses StopIteration; asyncio itself wraps it so.
    return RuntimeError(f"step raised {error!r}") if isinstance(error, StopIteration) else error

"""A run of a sync workflow, in a thread: every durable call replays from the journal or blocks until its outcome is on disk.

Owns the blocking form of the caller's methods and the waits of a thread, which gives up its slot while it waits and leaves the agent by
`Parked` when the wait is long. Only its own thread touches its journal; the agent sets intents and rings `news`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random
from typing import Any, NoReturn
from uuid import UUID

from .. import clock, codec
from ..caller import active
from ..errors import (
    Cancelled,
    CodeMismatch,
    InvalidInput,
    LeaseLost,
    NotStorable,
    OutlastError,
    Parked,
    ResultTimeout,
    SignalTimeout,
    StoreError,
    Unwinding,
)
from ..handles import Handle, Run
from ..operations import (
    COMPENSABLE,
    Append,
    CancelParts,
    Emit,
    Entry,
    GiveBack,
    Halt,
    Operation,
    Park,
    Publish,
    R,
    RetryRun,
    Signal,
    StartPart,
)
from ..options import Options
from ..signature import convert_value
from ..states import Status
from ..store import signals
from ..store.parts import may_lead_elsewhere
from . import execute, strays, transactional, unknown
from .arrivals import Arrival, arrived, halted_step
from .branches import Branch
from .execute import StepCall, ThreadTry
from .execution import Ended, Execution, log
from .history import Record, void
from .news import News
from .parts import ChildRun, Part
from .tries import Ask, Probe, Tried, Try, WaitUntil, Write, tries

_ENDLESS = 1 << 62


class SyncRun(Execution):
    """Drives one sync workflow. Implements `caller.Caller`."""

    asynchronous = False
    in_step = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.branch = Branch()
        self.news = News()
        self.step_path: str | None = None
        """The place of the sync step that executes in this thread; None between steps."""
        self.unwinding_since: float | None = None
        self._parts: dict[str, Part[Any]] = {}
        self._arrivals: dict[str, Arrival] = {}
        self._seen_arrival = 0
        self._handed_over = 0
        self._refused: list[Part[Any]] = []
        """Parts whose start was refused, and whose refusal is not in the journal yet."""
        self._committed = 0
        self._commits = News()
        self._seen_signals: dict[str, int] = {}
        self._thread = threading.get_ident()
        self._last: tuple[str, Tried] | None = None

    # -- from start to end ------------------------------------------------------------------------

    def execute(self) -> Ended | None:
        """Run the workflow's code in this thread; gives what is to be written, or None where nothing is."""
        self._thread = threading.get_ident()
        token = active.set(self)
        returned, value = False, None
        try:
            args, kwargs = self.definition.signature.call(codec.decode(self.claimed.input))
            value = self.definition.fn(*args, **kwargs)
            returned = True
        except LeaseLost:
            self.lost = True
        except Unwinding:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever the workflow raises is its outcome
            value = error
        finally:
            active.reset(token)
            self.ended = True
        strays.code_ended(self, self._last)
        if self.unwinding is None and not self.lost:
            try:
                self._flush()
            except LeaseLost:
                self.lost = True
        operation = self.ending_of(returned, value)
        return self._after_threads(operation) if isinstance(operation, RetryRun) else operation

    def _after_threads(self, operation: RetryRun) -> Ended:
        """No try of the run begins beside a thread of the one before."""
        began = time.monotonic()
        while self.strays:
            if self.cancel_requested or self.late:
                return self.abort()
            if time.monotonic() - began > self.host.settings.grace_seconds:
                self.host.overran(self.fence.task_id)
            self.news.wait(0.05)
        return operation

    def notify(self) -> None:
        """Tell the thread to look again: an intent was set, or something has arrived."""
        self.news.ring()

    def give_back(self) -> None:
        self._commit(GiveBack(self.fence))
        self.unwind(Parked)

    # -- durable calls ------------------------------------------------------------------------------

    def _enter(self) -> None:
        if threading.get_ident() != self._thread:
            raise OutlastError(
                "A durable call was made from a thread that the workflow started.",
                hint="Call steps from the workflow's own thread; use submit() and gather() to run them in parallel.",
            )
        self.check_intents()

    def call(self, definition: Any, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any:
        if definition.kind == "workflow":
            return self.start(definition, args, kwargs, options).result()
        if definition.queue is not None or options.stands_in_line:
            return self.submit(definition, args, kwargs, options).result()
        self._enter()
        path = self.branch.place()
        record = self.visit(path, definition.kind, definition.name)
        if record is not None and record.outcome is not None:
            return self.outcome_of(record.outcome)
        data = self.named_input(definition, args, kwargs)
        one = self.inherited(path, definition, definition.kind, data) if record is None else None
        if one is not None:
            return self.outcome_of(self._inherit(self.entries_of(one, definition, data)))
        return self.outcome_of(self._run_step(path, definition, data, options, record))

    def visit(self, path: str, kind: str, name: str) -> Record | None:
        record = super().visit(path, kind, name)
        if record is None and kind in ("timer", "signal"):
            one = self.inheritance.at(path, kind, name)
            if one is not None:
                self._inherit(self.entries_of(one))
                return self.history.records[path]
        return record

    def _inherit(self, entries: list[Entry]) -> Entry:
        """Make a result of the run that this one retries our own."""
        self._flush()
        self._commit(self.append(*entries))
        self._remember(entries[-1])
        return entries[-1]

    def _run_step(self, path: str, definition: Any, data: bytes, options: Options, record: Record | None) -> Entry:
        self.step_names[path] = definition.name
        kept, flags = self.kept_part_input(definition, data)
        keeps_start = self.keeps_start(definition, flags)
        if not keeps_start:
            self.step_inputs[path] = kept, flags
        timeout = options.timeout_seconds if options.timeout_seconds is not None else definition.timeout_seconds
        call = StepCall(
            definition, data, path, self.current, partial(self.step_key, path), timeout, self.fence, self.store,
            self.host.settings.max_payload, self.fence.task_id,
        )  # fmt: skip
        driver = tries(
            path, definition.kind, definition.name,
            policy=options.retry or definition.retry, data=kept, flags=flags, keeps_start=keeps_start,
            record=record, entry=self.entry, now=self.store.now,
            on_unknown=definition.on_unknown, has_probe=definition.probed_by is not None,
        )  # fmt: skip
        overran: ThreadTry | None = None
        answer: Any = None
        try:
            while True:
                match driver.send(answer):
                    case WaitUntil(due_at):
                        self._wait(lambda: False, due_at=due_at)
                        answer = None
                    case Write(entry):
                        self._append(entry)
                        if entry.event == "tried" and overran is not None and overran.overran:
                            # Another try must not run beside the one that overran.
                            self._wait_for_thread(overran, path)
                        answer = None
                    case Try(number):
                        answer, overran = self._try(call, number, flags)
                        if overran is not None and overran.overran and unknown.asks(definition):
                            self._wait_for_thread(overran, path)
                            answer, overran = overran.late, None
                        self._last = (path, answer)
                        if overran is not None and overran.overran:
                            self.overrunning.add(path)
                        if self.ending_decided:
                            # The run's ending was decided beside us: the outcome counts for the undo alone.
                            self._lose()
                    case Probe(number):
                        answer = self._probe(call, number)
                    case Ask(error, number):
                        self.leave_by(self.asking(path, definition.name, error, number))
        except StopIteration as stop:
            entry = stop.value
        if overran is not None and overran.overran:
            self.strays.add(path)
            if overran.wait(0):
                self.strays.discard(path)
        if answer is None or answer.committed is None:
            self._append(entry)
        self.step_inputs.pop(path, None)
        return entry  # type: ignore[no-any-return]

    def _try(self, call: StepCall, number: int, flags: int) -> tuple[Tried, ThreadTry | None]:
        definition = call.definition
        self.step_path = call.path
        try:
            if definition.kind == "transaction":
                return self._try_transaction(call, number, flags), None
            if definition.isolate:
                return self._try_isolated(call, number), None
            if call.timeout_seconds is not None:
                thread = ThreadTry(call, number, on_late_end=partial(self._late_end, call.path))
                return thread.run(), thread
            return execute.run_here(call, number), None
        finally:
            self.step_path = None

    def _probe(self, call: StepCall, number: int) -> Tried:
        self.step_path = call.path
        try:
            return unknown.run_probe(call, number, self.host.loop)
        finally:
            self.step_path = None

    def _try_transaction(self, call: StepCall, number: int, flags: int) -> Tried:
        self._flush()

        def entry_of(output: bytes, started_at: int) -> Entry:
            self.seq = seq  # Of a commit that is made again, too.
            return self.entry(
                call.path, "completed", "transaction", call.definition.name, try_number=number,
                started_at=started_at, input=None if flags & COMPENSABLE else self.kept_input(call.definition, call.data)[0],
                flags=flags & ~COMPENSABLE, data=output,
            )  # fmt: skip

        seq = self.seq
        tried = transactional.run_transaction(call, number, entry_of=entry_of, committed=transactional.journal_entry(call))
        if tried.committed is None:
            self.seq = seq  # The number of an entry that was rolled back is used again: a journal has no gaps.
        return tried

    def _try_isolated(self, call: StepCall, number: int) -> Tried:
        isolated = execute.isolated_try(call, number)
        self.kill_isolated = isolated.kill
        try:
            return isolated.run()
        finally:
            self.kill_isolated = None

    kill_isolated: Callable[[], None] | None = None

    def _late_end(self, path: str, tried: Tried) -> None:
        self.strays.discard(path)
        self.host.stray_ended(self, path, tried)
        self.news.ring()

    def _wait_for_thread(self, thread: ThreadTry, path: str) -> None:
        self.strays.add(path)
        began = time.monotonic()
        while not thread.wait(0.05):
            # Not for a pause or a drain: on another agent, the next try would run beside this thread.
            if self.cancel_requested or self.late:
                self.unwind(Cancelled)
            if time.monotonic() - began > self.host.settings.grace_seconds:
                self.host.overran(self.fence.task_id)
        self.strays.discard(path)

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
        path = self.branch.place()
        record = self.visit(path, kind, definition.name)
        data = b"" if record is not None else self.named_input(definition, args, kwargs)
        one = self.inherited(path, definition, kind, data) if record is None else None
        if one is not None:
            self._inherit(self.entries_of(one, definition, data))
            inherited: Part[Any] = kind_of_handle(self, path, kind, definition.name, one.uid or "")
            inherited.is_inherited = True
            self._parts[path] = inherited
            return inherited
        start = None if record is not None else self.part(path, definition, data, options, is_child=kind == "child")
        part: Part[Any] = kind_of_handle(self, path, kind, definition.name, start.uid if start is not None else "")
        self._parts[path] = part
        if start is None:
            assert record is not None
            if record.started is not None and record.started.data is not None:
                task_id, part.id = record.started.data.decode().split(" ", 1)
                part.task_id = int(task_id)
            return part
        self.has_parts = True
        kept, flags = self.kept_part_input(definition, data)
        entry = self.entry(path, "started", kind, definition.name, input=kept, flags=flags, started_at=clock.wall())
        part.started_seq = entry.seq
        self._handed_over += 1
        self.store.submit(StartPart(self.fence, entry, start), partial(self._part_committed, part))
        if may_lead_elsewhere(start):
            # The code may look at the handle's id at once: it must be that of the run which it stands for.
            self._flush()
        return part

    def _part_committed(self, part: Part[Any], started: Any, error: BaseException | None) -> None:
        if error is None:
            part.task_id, part.id = started.task_id, started.uid
        else:
            part.error = error
            self.lost = self.lost or isinstance(error, LeaseLost)
            self._refused.append(part)
        self._committed += 1
        self._commits.ring()

    def _flush(self) -> None:
        """Wait until all that was handed over is on disk."""
        while self._committed < self._handed_over:
            self._commits.wait()
        if self.lost:
            self._lose()
        # Before the run parks or ends, whether its code asks for the part or not: the number of the start would be missing.
        while self._refused:
            part = self._refused.pop(0)
            if isinstance(part.error, OutlastError) and not isinstance(part.error, StoreError):
                self._not_started(part, part.error)

    def map(
        self,
        definition: Any,
        items: Iterable[Any],
        options: Options,
        *,
        concurrency: int | None,
        return_exceptions: bool,
    ) -> list[Any]:
        pending = list(items)
        if concurrency is None or concurrency >= len(pending):
            handles = [self.submit(definition, (item,), {}, options) for item in pending]
            return self.gather(tuple(handles), return_exceptions=return_exceptions)
        values: dict[int, Any] = {}
        open_handles: dict[int, Part[Any]] = {}
        upcoming = iter(enumerate(pending))
        for index, item in itertools.islice(upcoming, concurrency):
            open_handles[index] = self.submit(definition, (item,), {}, options)  # type: ignore[assignment]
        while open_handles:
            winner = self.first(tuple(open_handles.values()))
            index = next(i for i, handle in open_handles.items() if handle is winner)
            del open_handles[index]
            try:
                values[index] = winner.result()
            except Exception as error:
                if not return_exceptions:
                    self.cancel_parts(tuple(open_handles.values()))
                    raise
                values[index] = error
            for next_index, item in itertools.islice(upcoming, 1):
                open_handles[next_index] = self.submit(definition, (item,), {}, options)  # type: ignore[assignment]
        return [values[i] for i in range(len(pending))]

    # -- waiting ------------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        self._enter()
        path = self.branch.place()
        record = self.visit(path, "timer", "sleep")
        if record is not None and record.outcome is not None:
            self.outcome_of(record.outcome)
            return
        due_at = self._timer(path, "sleep", seconds, record)
        self._wait(lambda: False, due_at=due_at)
        self.outcome_of(self._append(self.entry(path, "completed", "timer", "sleep")))

    def _timer(self, path: str, name: str, seconds: float, record: Record | None, kind: str = "timer") -> int:
        if record is not None and record.started is not None:
            return record.started.due_at or 0
        due_at = self.store.now() + round(seconds * clock.SECOND)
        self._append(self.entry(path, "started", kind, name, due_at=due_at))
        return due_at

    def wait_signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Any:
        self._enter()
        path = self.branch.place()
        record = self.visit(path, "signal", name)
        if record is not None and record.outcome is not None:
            return self._signal_value(record.outcome, type_)
        due_at: int | None = None
        if timeout_seconds is not None:
            due_at = self._timer(path, name, timeout_seconds, record, kind="signal")
        elif record is None:
            self._append(self.entry(path, "started", "signal", name))
        while True:
            taken = self._take_signal(path, name, type_)
            if taken is not None:
                return self._signal_value(taken, type_)
            if due_at is not None and self.store.now() >= due_at:
                assert timeout_seconds is not None
                entry = self.entry(
                    path, "failed", "signal", name,
                    data=codec.encode_error(SignalTimeout(name, timeout_seconds)),
                )  # fmt: skip
                if self._commit(self._time_out(entry, name)):
                    return self._signal_value(entry, type_)
                self.seq -= 1
                continue
            self._wait(lambda: self._has_signal(name, type_), due_at=due_at, signals=(name,))

    def _time_out(self, entry: Entry, name: str) -> Append:
        return Append(self.fence, [entry], unless_signal=name, seen_signal_id=self._seen_signals.get(name, 0))

    def _signal_value(self, entry: Entry, type_: Any) -> Any:
        value = self.outcome_of(entry)
        return value if type_ is object else convert_value(value, type_, f"signal {entry.name}")

    def _has_signal(self, name: str, type_: Any) -> bool:
        return self._fitting_signal(name, type_) is not None

    def _fitting_signal(self, name: str, type_: Any) -> tuple[int, bytes] | None:
        """The oldest unread signal whose payload fits; one that does not stays unread and holds up no later one."""
        seen = self._seen_signals.get(name, 0)
        for signal_id, payload, _ in signals.unread(self.store.connection(), self.fence.task_id, name):
            if type_ is object or _fits(payload, type_):
                return signal_id, payload
            seen = max(seen, signal_id)
        self._seen_signals[name] = seen
        return None

    def _take_signal(self, path: str, name: str, type_: Any) -> Entry | None:
        found = self._fitting_signal(name, type_)
        if found is None:
            return None
        entry = self.entry(path, "completed", "signal", name, data=found[1])
        self._commit(self.append(entry, signal_id=found[0]))
        return entry

    def signal_handle(self, name: str, type_: Any) -> Handle[Any]:
        self._enter()
        path = self.branch.place()
        record = self.visit(path, "signal", name)
        if record is None:
            self._append(self.entry(path, "started", "signal", name))
        part: Part[Any] = Part(self, path, "signal", name, path)
        part.signal_type = type_
        self._parts[path] = part
        return part

    def wait_part(self, part: Part[Any], timeout_seconds: float | None) -> Any:
        """Wait for one handle; a timeout is a timer at a place of its own."""
        self._enter()
        due_at: int | None = None
        if timeout_seconds is not None:
            timer_path = self.branch.place()
            record = self.visit(timer_path, "timer", "timeout")
            if record is not None and record.outcome is not None:
                self.outcome_of(record.outcome)
                raise self.timed_out(ResultTimeout(part.id, timeout_seconds), record.outcome)
            due_at = self._timer(timer_path, "timeout", timeout_seconds, record)
        if not self._has_outcome(part):
            self._wait(lambda: self._is_there(part), due_at=due_at, parts=(part,))
        if timeout_seconds is not None and not self._has_outcome(part) and not self._is_there(part):
            over = self._append(self.entry(timer_path, "completed", "timer", "timeout"))
            self.outcome_of(over)
            raise self.timed_out(ResultTimeout(part.id, timeout_seconds), over)
        return self._part_value(part, self._take_parts([part])[0])

    def _part_value(self, part: Part[Any], entry: Entry) -> Any:
        if part.kind == "signal":
            return self._signal_value(entry, part.signal_type)
        return self.outcome_of(entry)

    def gather(self, handles: tuple[Any, ...], *, return_exceptions: bool) -> list[Any]:
        """Wait for all; unless exceptions are returned, the first error in the journal's order cancels the rest."""
        self._enter()
        parts = [_own(self, handle) for handle in handles]
        self._wait(
            lambda: self._gathered(parts, return_exceptions), parts=tuple(parts), for_all=True,
            fails_fast=not return_exceptions,
        )  # fmt: skip
        there = [part for part in parts if self._has_outcome(part) or self._is_there(part)]
        entries = {part.path: entry for part, entry in zip(there, self._take_parts(there), strict=True)}
        if not return_exceptions:
            failed = [entry for entry in entries.values() if entry.event != "completed"]
            if failed:
                first = min(failed, key=lambda entry: entry.seq)
                self.cancel_parts(tuple(part for part in parts if part.path not in entries))
                self.outcome_of(first)
        values = []
        for part in parts:
            try:
                values.append(self._part_value(part, entries[part.path]))
            except Exception as error:
                if not return_exceptions:
                    raise
                values.append(error)
        return values

    def _gathered(self, parts: list[Part[Any]], return_exceptions: bool) -> bool:
        missing = False
        for part in parts:
            if self._has_outcome(part):
                failed = self.history.records[part.path].outcome.event != "completed"  # type: ignore[union-attr]
            elif self._is_there(part):
                arrival = self._arrivals.get(part.path)
                failed = arrival is not None and arrival.status is not Status.COMPLETED
            else:
                missing = True
                continue
            if failed and not return_exceptions:
                return True
        return not missing

    def first(self, handles: tuple[Any, ...]) -> Any:
        """Wait until any handle has its outcome; the winner is journalled."""
        self._enter()
        path = self.branch.place()
        record = self.visit(path, "first", "first")
        if record is not None and record.outcome is not None:
            self.journal_at = max(self.journal_at, record.outcome.at)
            return handles[codec.decode(record.outcome.data or b"0")]
        parts = [_own(self, handle) for handle in handles]
        if not parts:
            raise InvalidInput("first() needs at least one handle.")
        one = self.inheritance.at(path, "first", "first")
        won: int | None = codec.decode(one.data or b"0") if one is not None else None
        if one is not None and won is not None and won < len(parts) and self._has_outcome(parts[won]):
            self._inherit(self.entries_of(one))
            return handles[won]

        def winner() -> int | None:
            done = [(self._order_of(part), index) for index, part in enumerate(parts) if self._has_outcome(part) or self._is_there(part)]
            return min(done)[1] if done else None

        self._wait(lambda: winner() is not None, parts=tuple(parts))
        index = winner()
        assert index is not None
        self._append(self.entry(path, "completed", "first", "first", data=codec.encode(index)))
        return handles[index]

    def _order_of(self, part: Part[Any]) -> tuple[int, int]:
        if self._has_outcome(part):
            return (0, self.history.records[part.path].outcome.seq)  # type: ignore[union-attr]
        arrival = self._arrivals.get(part.path)
        return (1, arrival.ended_at if arrival is not None else _ENDLESS)

    def cancel_parts(self, parts: tuple[Any, ...]) -> None:
        """Cancel what is no longer waited for; journalled as the outcome of each."""
        self._flush()
        open_parts = [part for part in parts if not self._has_outcome(part) and part.kind != "signal"]
        if not open_parts:
            return
        self._commit(CancelParts(self.fence, tuple(part.task_id for part in open_parts if part.task_id is not None)))
        entries = [self.entry(part.path, "cancelled", part.kind, part.name, data=part.id.encode(), try_number=1) for part in open_parts]
        self._commit(self.append(*entries))
        for entry in entries:
            self._remember(entry)

    def signal_child(self, part: ChildRun[Any], name: str, payload: object, key: str | None) -> None:
        self._enter()
        path = self.branch.place()
        record = self.visit(path, "message", name)
        if record is not None and record.outcome is not None:
            return
        self._flush()
        if part.is_inherited or self.history.has_inherited(part.path):
            # It had this message, and has ended.
            self._append(self.entry(path, "completed", "message", name))
            return
        data = self.encode(payload, place=f"the payload of signal {name}")
        self._commit(Signal(part.id, name, data, key or f"{self.claimed.chain}/{path}"))
        self._append(self.entry(path, "completed", "message", name))

    # -- outcomes of parts ----------------------------------------------------------------------------

    def _has_outcome(self, part: Part[Any]) -> bool:
        record = self.history.records.get(part.path)
        return record is not None and record.outcome is not None

    def _not_started(self, part: Part[Any], error: BaseException) -> None:
        """A refused start is the call's outcome: journalled, so that a replay does not ask again."""
        if not isinstance(error, OutlastError) or isinstance(error, LeaseLost | StoreError):
            raise error
        if not self._has_outcome(part):
            failed = self.entry(part.path, "failed", part.kind, part.name, data=codec.encode_error(error))
            # The number of the start that was not written is filled: a journal has no gaps.
            self._commit(self.append(void(part.started_seq, part.name, failed.at), failed))
            self._remember(failed)

    def _is_there(self, part: Part[Any]) -> bool:
        if part.error is not None:
            self._not_started(part, part.error)
            return True
        if part.kind == "signal":
            return self._has_signal(part.name, part.signal_type)
        return part.path in self._arrivals

    def _take_parts(self, parts: list[Part[Any]]) -> list[Entry]:
        """Copy the outcomes of parts that have arrived into the journal, all in one commit."""
        entries: dict[str, Entry] = {}
        fresh: list[Entry] = []
        for part in sorted(parts, key=self._order_of):
            record = self.history.records.get(part.path)
            if record is not None and record.outcome is not None:
                entries[part.path] = record.outcome
            elif part.kind == "signal":
                taken = self._take_signal(part.path, part.name, part.signal_type)
                assert taken is not None
                self._remember(taken)
                entries[part.path] = taken
            else:
                arrival = self._arrivals[part.path]
                entry = self.entry(part.path, arrival.event, part.kind, part.name, **arrival.facts())
                fresh.append(entry)
                entries[part.path] = entry
        if fresh:
            self._commit(self.append(*fresh))
            for entry in fresh:
                self._remember(entry)
        return [entries[part.path] for part in parts]

    def _remember(self, entry: Entry) -> None:
        record = self.history.records.get(entry.path)
        if record is None:
            record = self.history.mark(entry.path, entry.kind, entry.name)
        record.outcome = entry

    def _look(self) -> None:
        """See what has arrived since the last look."""
        if not self._parts:
            return
        connection = self.store.connection()
        for arrival in arrived(connection, self.fence.task_id, self._seen_arrival):
            self._arrivals[arrival.path] = arrival
            self._seen_arrival = max(self._seen_arrival, arrival.ended_at)
        halted = halted_step(connection, self.fence.task_id)
        if halted is not None:
            self._commit(Halt(self.fence, halted, strays=tuple(self.strays)))
            self.unwind(Parked)

    def _wait(
        self,
        ready: Callable[[], bool],
        *,
        due_at: int | None = None,
        signals: tuple[str, ...] = (),
        parts: tuple[Part[Any], ...] = (),
        for_all: bool = False,
        fails_fast: bool = False,
    ) -> None:
        """Block until `ready` or the engine instant; without a slot meanwhile, and off the agent altogether if it is long."""
        self._flush()
        if parts or due_at is None:
            self._look()
        if ready() or (due_at is not None and self.store.now() >= due_at):
            return
        names = signals + tuple(part.name for part in parts if part.kind == "signal")
        park_after = self.host.settings.park_after_seconds
        parks_at = time.monotonic() + park_after
        # In a queue with few places, another task may have to run in ours before we can go on: leave it at once.
        is_long = self.claimed.has_place or (
            due_at is not None and not parts and not names and due_at - self.store.now() > park_after * clock.SECOND
        )
        self.host.leave_slot()
        try:
            while True:
                self.news.drop()
                self.check_intents()
                self._look()
                now = self.store.now()
                if ready() or (due_at is not None and now >= due_at):
                    return
                if is_long or time.monotonic() >= parks_at or not self.host.has_room_in_memory():
                    self._park(due_at, names, parts, for_all=for_all, fails_fast=fails_fast)
                    is_long, parks_at = False, time.monotonic() + park_after / 4
                    continue
                until_due = (due_at - now) / clock.SECOND if due_at is not None else park_after
                self.news.wait(max(0.0, min(until_due, parks_at - time.monotonic())))
        finally:
            # Whoever unwinds is counted too: its thread gives the slot back when it ends.
            if self.unwinding is None:
                self.host.take_slot()
            else:
                self.host.take_slot_now()

    def _park(
        self,
        due_at: int | None,
        names: tuple[str, ...],
        parts: tuple[Part[Any], ...],
        *,
        for_all: bool,
        fails_fast: bool,
    ) -> None:
        open_ids = tuple(
            part.task_id for part in parts if part.task_id is not None and not self._has_outcome(part) and part.path not in self._arrivals
        )
        parked = self._commit(
            Park(
                self.fence,
                due_at,
                signals=names,
                seen_signal_id=min((self._seen_signals.get(name, 0) for name in names), default=0),
                parts=open_ids,
                wait_for_all=for_all,
                fails_fast=fails_fast,
                notice=_ENDLESS,
            )
        )
        if parked:
            self.unwind(Parked)

    # -- values ----------------------------------------------------------------------------------------

    def publish(self, key: str, value: Any) -> None:
        self._enter()
        path = self.branch.place()
        if self.visit(path, "publish", key) is not None:
            return
        data = self.encode(value, place=f"published {key!r}")
        self._commit(Publish(self.fence, self.entry(path, "completed", "publish", key), key, data))

    def emit(self, stream: str, value: Any) -> None:
        self._enter()
        path = self.branch.place()
        if self.visit(path, "emit", stream) is not None:
            return
        data = self.encode(value, place=f"message on {stream!r}")
        self._commit(Emit(self.fence, self.entry(path, "completed", "emit", stream), stream, [data]))

    def uuid4(self) -> UUID:
        return self.uuid_at(self.branch.value_place())

    def rng(self) -> Random:
        return self.random_at(self.branch.value_place())

    def patched(self, change_id: str) -> bool:
        """Whether this run goes by the changed code; decided at the first call, and journalled where it is yes."""
        self._enter()
        decided, entry = self.patch(change_id, is_replaying=self.history.is_ahead())
        if entry is not None:
            self._append(entry)
        return decided

    def continue_as_new(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        self._enter()
        operation = self.successor(args, kwargs)
        self._flush()
        try:
            self.history.check_end()
        except CodeMismatch as error:
            self.leave_by(self.mismatch(error))
        self.leave_by(operation)

    def unwind(self, kind: type[Unwinding]) -> NoReturn:
        self.unwinding_since = self.unwinding_since or time.monotonic()
        super().unwind(kind)

    # -- writes ----------------------------------------------------------------------------------------

    def _append(self, entry: Entry) -> Entry:
        self._commit(self.append(entry))
        return entry

    def _commit(self, operation: Operation[R]) -> R:
        try:
            return self.store.commit(operation)
        except LeaseLost:
            self._lose()
            raise

    def _lose(self) -> NoReturn:
        """The task is somebody else's by now: leave silently."""
        self.lost = True
        log.debug("run %s: lease lost", self.claimed.uid)
        self.unwind(Parked)


def _own(run: SyncRun, handle: Any) -> Part[Any]:
    if not isinstance(handle, Part) or handle.run is not run:
        raise InvalidInput(
            f"{handle!r} is not a handle of this run.",
            hint="Pass what submit(), start() or signal_handle() gave in this workflow.",
        )
    return handle


def _fits(payload: bytes, type_: Any) -> bool:
    try:
        convert_value(codec.decode(payload), type_, "signal")
    except (InvalidInput, NotStorable, OutlastError):
        return False
    return True

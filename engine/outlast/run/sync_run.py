"""A run of a sync workflow, in a thread: every durable call replays from the journal or blocks until its outcome is on disk.

Owns the thread from the workflow's first line to its ending, the steps that execute in it, and the values that the workflow asks for.
Refuses to wait beside a step's own try: `SyncParts` has what the workflow waits for, so that user code is called from here alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from ..caller import active
from ..definition.options import Options
from ..errors import (
    Cancelled,
    CodeMismatch,
    LeaseLost,
    Unwinding,
)
from ..handles import Handle
from ..journal.entry import COMPENSABLE, Entry
from ..operations import Emit, Publish, RetryRun
from . import execute, forked, strays, transactional, unknown
from .execute import StepCall, ThreadTry
from .execution import Ended
from .history import Record
from .parts import Part
from .sync_parts import SyncParts
from .tries import Ask, Probe, Tried, Try, WaitUntil, Write, tries

if TYPE_CHECKING:
    from ..definition import Definition


class SyncRun(SyncParts):
    """Drives one sync workflow. Implements `caller.Caller`."""

    asynchronous = False
    in_step = False

    @property
    def is_in_threads(self) -> bool:
        return not self.ended

    def execute(self) -> Ended | None:
        """Run the workflow's code in this thread; gives what is to be written, or None where nothing is."""
        self._thread = threading.get_ident()
        token = active.set(self)
        returned, value = False, None
        generation = forked.generation()
        try:
            args, kwargs = self.arguments()
            value = self.definition.fn(*args, **kwargs)
            returned = True
        except LeaseLost:
            self.lost = True
        except Unwinding:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever the workflow raises is its outcome
            value = error
        finally:
            forked.end_child(generation, self.definition.name, value if isinstance(value, BaseException) else None)
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

    def call(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any:
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

    def _run_step(self, path: str, definition: Definition, data: bytes, options: Options, record: Record | None) -> Entry:
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
                            self._note_overrun(path, overran)
                        if self.ending_decided:
                            # The run's ending was decided beside us: the outcome counts for the undo alone.
                            self._lose()
                        if definition.isolate and answer.unknown and (self.late or self.cancel_requested):
                            # Our own kill is no death of the step: the run ends by what it was killed for.
                            self.check_intents()
                    case Probe(number):
                        answer = self._probe(call, number)
                    case Ask(error, number):
                        self.leave_by(self.asking(path, definition.name, error, number))
        except StopIteration as stop:
            entry = stop.value
        if overran is not None and overran.overran:
            self.strays.add(path)
            self._note_overrun(path, overran)
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
                thread = ThreadTry(call, number, on_late_end=partial(self._late_end, call.path), on_overrun=partial(strays.goes_on, self))
                return thread.run(), thread
            return execute.run_here(call, number), None
        finally:
            self.step_path = None

    def _probe(self, call: StepCall, number: int) -> Tried:
        self.step_path = call.path
        try:
            return unknown.run_probe(call, number, self.host.loop)
        except LeaseLost:
            self._lose()
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
        tried = transactional.run_transaction(call, number, entry_of=entry_of, committed=transactional.journal_entry(call, self.heed))
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

    def _note_overrun(self, path: str, thread: ThreadTry) -> None:
        """Note that a thread goes on, unless it has ended, and told so, in between."""
        self.overrunning.add(path)
        if thread.wait(0):
            self.overrunning.discard(path)
            self.strays.discard(path)

    def _late_end(self, path: str, tried: Tried) -> None:
        self.strays.discard(path)
        self.overrunning.discard(path)
        self.host.stray_ended(self, path, tried)
        self.news.ring()

    def _wait_for_thread(self, thread: ThreadTry, path: str) -> None:
        self.strays.add(path)
        self.overrunning.add(path)  # Should the code unwind here, the thread has not ended with it.
        began = time.monotonic()
        while not thread.wait(0.05):
            # Not for a pause or a drain: on another agent, the next try would run beside this thread.
            if self.cancel_requested or self.late:
                self.unwind(Cancelled)
            if time.monotonic() - began > self.host.settings.grace_seconds:
                self.host.overran(self.fence.task_id)
        self.strays.discard(path)
        self.overrunning.discard(path)

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

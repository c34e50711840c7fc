"""The durable calls of a sync workflow that wait for something outside its thread: parts, signals and timers.

Owns the places of these calls in the journal and what their handles can be asked. Refuses to execute a step, which `SyncRun` does in
its own thread, and to say how a thread waits, which `SyncWaits` does: here a call is only what it journals before and after.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import clock, codec
from ..definition.options import Options
from ..errors import (
    InvalidInput,
    ResultTimeout,
    SignalTimeout,
)
from ..journal.entry import Entry
from ..operations import Append, CancelParts, Signal, StartPart
from ..signature import convert_value
from ..states import Status
from ..store.parts import may_lead_elsewhere
from ..text.names import checked_key
from .history import Record
from .parts import HANDLES, ChildRun, Part
from .sync_waits import SyncWaits

if TYPE_CHECKING:
    from ..definition import Definition

_ENDLESS = 1 << 62


class SyncParts(SyncWaits):
    """What a sync workflow starts, sends and waits for."""

    def start_part(self, kind: str, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Part[Any]:
        self._enter()
        path = self.branch.place()
        record = self.visit(path, kind, definition.name)
        data = b"" if record is not None else self.named_input(definition, args, kwargs)
        one = self.inherited(path, definition, kind, data) if record is None else None
        if one is not None:
            self._inherit(self.entries_of(one, definition, data))
            inherited = HANDLES[kind](self, path, kind, definition.name, one.uid or "")
            inherited.is_inherited = True
            self._parts[path] = inherited
            return inherited
        start = None if record is not None else self.part(path, definition, data, options, is_child=kind == "child")
        part = HANDLES[kind](self, path, kind, definition.name, start.uid if start is not None else "", record)
        self._parts[path] = part
        if start is None:
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

    def map(
        self,
        definition: Definition,
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

    def wait_part(self, part: Part[Any], timeout_seconds: float | None) -> Any:
        """Wait for one handle; a timeout is a timer at a place of its own."""
        self._enter()
        due_at: int | None = None
        if timeout_seconds is not None:
            timer_path = self.branch.place()
            record = self.visit(timer_path, "timer", "timeout")
            if record is not None and record.outcome is not None:
                self.outcome_of(record.outcome)
                raise self.timed_out(ResultTimeout(part.id, timeout_seconds, part=part.title), record.outcome)
            due_at = self._timer(timer_path, "timeout", timeout_seconds, record)
        if not self._has_outcome(part):
            self._wait(lambda: self._is_there(part), due_at=due_at, parts=(part,))
        if timeout_seconds is not None and not self._has_outcome(part) and not self._is_there(part):
            over = self._append(self.entry(timer_path, "completed", "timer", "timeout"))
            self.outcome_of(over)
            raise self.timed_out(ResultTimeout(part.id, timeout_seconds, part=part.title), over)
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

    def cancel_parts(self, parts: tuple[Any, ...]) -> None:
        """Cancel what is no longer waited for; journalled as the outcome of each."""
        self._enter()
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
        if key is not None:
            checked_key(key, place="The key of a signal")
        data = self.encode(payload, place=f"the payload of signal {name}")
        self._commit(Signal(part.id, name, data, key or f"{self.claimed.chain}/{path}"))
        self._append(self.entry(path, "completed", "message", name))


def _own(run: SyncParts, handle: Any) -> Part[Any]:
    if not isinstance(handle, Part) or handle.run is not run:
        raise InvalidInput(
            f"{handle!r} is not a handle of this run.",
            hint="Pass what submit(), start() or signal_handle() gave in this workflow.",
        )
    return handle

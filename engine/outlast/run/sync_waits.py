"""The waits and the writes of a thread that runs a sync workflow.

Owns what has reached the disk and what has arrived for the run: each write blocks until it is committed, and a wait gives up its slot
and leaves the agent by `Parked` when it is long. Refuses to know which durable call waits, so that all of them park alike. Only the
run's own thread touches its journal; the agent sets intents and rings `news`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from .. import clock, codec
from ..errors import (
    Cancelled,
    LeaseLost,
    OutlastError,
    Parked,
    PayloadNotEncoded,
    StoreError,
    Unwinding,
)
from ..journal.entry import Entry
from ..operations import GiveBack, Halt, Park
from ..operations.atomic import Operation, R
from ..store import signals
from .arrivals import Arrival, arrived, halted_step
from .branches import Branch
from .execution import Execution, log
from .fitting import fits
from .history import Record, void
from .news import News
from .parts import Part
from .tries import Tried
from .when_used import when_used

_ENDLESS = 1 << 62


class SyncWaits(Execution):
    """A run whose thread blocks until what it wrote or waits for is there."""

    step_path: str | None = None
    """The place of the sync step that executes in this thread; None between steps."""
    unwinding_since: float | None = None
    _seen_arrival = 0
    _handed_over = 0
    _committed = 0
    _last: tuple[str, Tried] | None = None
    branch = when_used(Branch)
    news = when_used(News)
    _commits = when_used(News)
    _parts = when_used(dict[str, Part[Any]])
    _arrivals = when_used(dict[str, Arrival])
    _refused = when_used(list[Part[Any]])
    """Parts whose start was refused, and whose refusal is not in the journal yet."""
    _seen_signals = when_used(dict[str, int])

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._thread = threading.get_ident()

    def notify(self) -> None:
        """Tell the thread to look again: an intent was set, or something has arrived."""
        self.news.ring()

    def check_intents(self) -> None:
        """Begin to unwind where somebody wants the run to stop; unwinding again where it has begun."""
        if self.unwinding is not None:
            raise self.unwinding
        if self.lost:
            self.unwind(Parked)
        if self.is_to_end():
            self.unwind(Cancelled)
        if self.is_to_leave():
            self.leave_by(GiveBack(self.fence))

    def _enter(self) -> None:
        if threading.get_ident() != self._thread:
            raise OutlastError(
                "A durable call was made from a thread that the workflow started.",
                hint="Call steps from the workflow's own thread; use submit() and gather() to run them in parallel.",
            )
        self.check_intents()

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
        while self._handed_over and self._refused:
            part = self._refused.pop(0)
            if isinstance(part.error, OutlastError) and not isinstance(part.error, StoreError):
                self._not_started(part, part.error)

    def _has_signal(self, name: str, type_: Any) -> bool:
        return self._fitting_signal(name, type_) is not None

    def _fitting_signal(self, name: str, type_: Any) -> tuple[int, bytes] | None:
        """The oldest unread signal whose payload fits; one that does not stays unread and holds up no later one."""
        seen = self._seen_signals.get(name, 0)
        for signal_id, payload, _ in signals.unread(self.store.connection(), self.fence.task_id, name):
            if fits(self, name, signal_id, payload, type_):
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

    def _order_of(self, part: Part[Any]) -> tuple[int, int]:
        if self._has_outcome(part):
            return (0, self.history.records[part.path].outcome.seq)  # type: ignore[union-attr]
        arrival = self._arrivals.get(part.path)
        return (1, arrival.ended_at if arrival is not None else _ENDLESS)

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
            self.leave_by(Halt(self.fence, halted, strays=tuple(self.strays)))

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
    ) -> NoReturn:
        """Leave the agent: the code unwinds first, and lies down in the file only then.

        Written before, the run could be claimed while its old code is still in a `finally`, and could not be halted for that.
        """
        waited = [(part.task_id, part.path) for part in parts if not self._has_outcome(part) and part.path not in self._arrivals]
        open_parts = [(task_id, path) for task_id, path in waited if task_id is not None]
        self.leave_by(
            Park(
                self.fence,
                due_at,
                signals=names,
                seen_signal_id=min((self._seen_signals.get(name, 0) for name in names), default=0),
                parts=tuple(task_id for task_id, _ in open_parts),
                places=tuple(path for _, path in open_parts),
                wait_for_all=for_all,
                fails_fast=fails_fast,
                notice=_ENDLESS,
            )
        )

    def unwind(self, kind: type[Unwinding]) -> NoReturn:
        self.unwinding_since = self.unwinding_since or time.monotonic()
        super().unwind(kind)

    def _append(self, entry: Entry) -> Entry:
        self._commit(self.append(entry))
        return entry

    def _commit(self, operation: Operation[R]) -> R:
        try:
            answer = self.store.commit(operation)
            self.heed(answer)
            return answer
        except LeaseLost:
            self._lose()
            raise
        except PayloadNotEncoded as error:
            self.leave_by(self.halt_of_codec(error))

    def _lose(self) -> NoReturn:
        """The task is somebody else's by now: leave silently."""
        self.lost = True
        log.debug("run %s: lease lost", self.claimed.uid)
        self.unwind(Parked)

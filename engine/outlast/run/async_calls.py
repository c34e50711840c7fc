"""What an async run does when its code calls a step or a workflow.

Owns the way of a call from its place to the future that the code awaits: inline steps, whose tries come back by callbacks, submitted
steps and children. Cancelling what is awaited is journalled as its outcome. Refuses to begin a call where it is
made: that comes when every branch waits.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import clock
from ..codec.errors import encode_error
from ..definition.options import Options
from ..errors import LeaseLost, OutlastError, StoreError
from ..journal.entry import Entry
from ..operations import CancelParts, Halt, StartPart
from ..store.parts import leads_to, may_lead_elsewhere
from .async_rests import AsyncRests
from .history import Record
from .inline import InlineStep
from .parts import HANDLES, Part
from .pending import Pending

if TYPE_CHECKING:
    from ..definition import Definition


class AsyncCalls(AsyncRests):
    """An async run that calls."""

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

    def _checked(self, _: Any, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)

    def call(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Coroutine[Any, Any, Any]:
        if definition.kind == "workflow":
            return _await(self.start(definition, args, kwargs, options))
        if definition.queue is not None or options.stands_in_line:
            return _await(self.submit(definition, args, kwargs, options))
        return self._call(definition, args, kwargs, options)

    async def _call(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any:
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

    def start_part(self, kind: str, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Part[Any]:
        self._enter()
        path = self._loop.branch().place()
        record = self.visit(path, kind, definition.name)
        data = b"" if record is not None else self.named_input(definition, args, kwargs)
        one = self.inherited(path, definition, kind, data) if record is None else None
        start = None if record is not None or one is not None else self.part(path, definition, data, options, is_child=kind == "child")
        part = HANDLES[kind](self, path, kind, definition.name, start.uid if start is not None else "", record)
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

    def _write_part(self, part: Part[Any], definition: Definition, data: bytes, start: Any) -> None:
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


async def _await(handle: Any) -> Any:
    return await handle


def _old_order(pending: Pending) -> int:
    assert pending.inherited is not None
    return pending.inherited[0].seq

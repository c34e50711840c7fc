"""The undo of a run on its agent: compensations in reverse order, from the journal alone.

Owns one loop over the undo plan, in a thread: run the next compensation with its own retries, commit its success once, go on. Refuses to
replay the workflow. A compensation whose code this agent lacks is passed on; one that gives up halts the run; a crash in the middle
goes on where it stopped, since what is done is in the journal.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .. import clock, codec
from ..codec import payloads
from ..codec.errors import encode_error
from ..errors import LeaseLost, OutlastError, PayloadNotEncoded, PayloadUnreadable
from ..handles import Current, Undoing
from ..journal.entry import Entry
from ..journal.plan import UNDO_PREFIX, Undo, undo_plan
from ..model import compensation_code, idempotency_key
from ..operations import EndUndo, Halt, PassUndo, RecordUndo
from ..operations.atomic import Operation, R
from ..operations.claimed import Claimed
from ..store import journal, retrying, sealing, undoing
from . import damage, strays, transactional, unknown
from .execute import StepCall, ThreadTry, isolated_try, run_here, wait_on_loop
from .execution import first_line, log
from .held import Held
from .history import PROBE_PREFIX, History
from .inheriting import Inheritance
from .tries import Tried, cause_of, is_worth_another, pause

if TYPE_CHECKING:
    from ..definition import Definition
    from ..definition.undo import Compensation
    from ..store.transaction import Transaction
    from .host import Host

Given = tuple[tuple[Any, ...], dict[str, Any]]


class UndoRun(Held):
    """One claim of a compensating run."""

    def __init__(self, host: Host, claimed: Claimed) -> None:
        super().__init__(host, claimed)
        self.store = host.store
        self._overran: ThreadTry | None = None

    @property
    def is_in_threads(self) -> bool:
        return not self.ended

    def execute(self) -> Operation[Any] | None:
        """Undo step by step; gives the last write, or None where the lease is lost."""
        try:
            return self._execute()
        except LeaseLost:
            self.lost = True
            return None
        except (PayloadUnreadable, PayloadNotEncoded) as error:
            return Halt(self.fence, str(error))
        finally:
            self.ended = True
            strays.code_ended(self, None)

    def _execute(self) -> Operation[Any] | None:
        while True:
            entries = sealing.opened(journal.load(self.store.connection(), self.fence.task_id))
            plan = undo_plan(entries)
            if not plan:
                return EndUndo(self.fence)
            undo = plan[0]
            if self.drain_requested or self.pause_requested:
                return PassUndo(self.fence)
            if undo.due_at is not None and undo.due_at > self.store.now():
                return PassUndo(self.fence, delay=undo.due_at - self.store.now())
            needs = compensation_code(undo.name)
            definition = self.host.compensated(undo)
            if definition is None:
                if needs in self.host.fingerprints:
                    return Halt(self.fence, f"{undo.name} has no compensation any more, and its undo needs one")
                return PassUndo(self.fence)
            if undo.outcome == "unknown" and undo.kind in ("step", "task") and "~" not in undo.path and unknown.asks(definition):
                asked = self._find_out(undo, definition, entries)
                if asked is not None:
                    return asked
                if definition.probed_by is not None:
                    continue
            halted = self._undo(undo, definition)
            if halted is not None:
                return halted

    def _find_out(self, undo: Undo, definition: Definition, entries: list[Entry]) -> Operation[Any] | None:
        """Ask what a step of unknown outcome did, before it is undone: its compensation then has the result."""
        if definition.probed_by is None:
            cause = "the run ended in the middle of it"
            return self._ask(undo, cause) if definition.on_unknown == "halt" else None
        path = undo.path
        last = next((e for e in reversed(entries) if e.path in (path, PROBE_PREFIX + path) and e.event in ("started", "tried")), None)
        number, due_at = (last.try_number + 1, last.due_at) if last is not None and last.kind == "probe" else (1, None)
        if due_at is not None and due_at > self.store.now():
            return PassUndo(self.fence, delay=due_at - self.store.now())
        found = unknown.run_probe(self._call(undo, definition, self._generation(path, entries)), number, self.host.loop)
        if found.error is None:
            event = "failed" if found.nothing else "completed"
            data = encode_error(OutlastError(f"The probe of {undo.name} found that it was not done.")) if found.nothing else found.output
            self._commit(RecordUndo(self.fence, Entry(0, path, event, undo.kind, undo.name, clock.wall(), try_number=1, data=data)))
            return None
        if not is_worth_another(definition.retry, found.error, number):
            return self._ask(undo, cause_of(found.error))
        delay = pause(definition.retry, found.error, number)
        error = encode_error(found.error)
        entry = unknown.probe_entry(path, undo.name, found, number=number, due_at=self.store.now() + delay, data=error)
        self._commit(RecordUndo(self.fence, entry))
        return PassUndo(self.fence, delay=delay)

    def _ask(self, undo: Undo, cause: str) -> Halt:
        return Halt(
            self.fence, unknown.reason(undo.name, cause, self.claimed.uid),
            question=unknown.question(undo.path, undo.name, cause, max(undo.tries, 1)),
        )  # fmt: skip

    def _generation(self, path: str, entries: list[Entry]) -> int:
        history = History(entries)
        return history.key_generation(path) + self._inherited_generation(path, history)

    def _inherited_generation(self, path: str, history: History) -> int:
        return Inheritance(retrying.load(self.store.connection(), self.fence.task_id), history).generation(path)

    def _call(self, undo: Undo, definition: Definition, generation: int) -> StepCall:
        """The step's own call, for its probe."""
        return StepCall(
            definition, undo.input, undo.path, partial(self._facts, undo),
            partial(idempotency_key, self.claimed.chain, undo.path, generation=generation),
            definition.timeout_seconds, self.fence, self.store, self.host.settings.max_payload, self.fence.task_id,
        )  # fmt: skip

    def _undo(self, undo: Undo, definition: Definition) -> Operation[Any] | None:
        number = undo.tries + 1
        compensation = definition.compensated_by
        assert compensation is not None
        try:
            result = codec.decode(undo.result) if undo.result is not None else None
            args, kwargs = definition.spelled_out(codec.decode_input(undo.input))
        except codec.NotDecodable as unreadable:
            what = f"what the compensation of {undo.name} at {undo.path} needs"
            doubtful = undo.input if undo.result is None or codec.is_json(undo.result) else undo.result
            return damage.halt(self.fence, what, doubtful, unreadable)
        tried = self._try(undo, definition, compensation, number, ((result, *args), kwargs))
        path = UNDO_PREFIX + undo.path
        if tried.committed is not None:
            return None
        if tried.error is None:
            self._commit(
                RecordUndo(
                    self.fence,
                    Entry(
                        0, path, "completed", "compensation", undo.name, clock.wall(), try_number=number,
                        started_at=tried.started_at, data=tried.output,
                    ),
                )
            )  # fmt: skip
            return None
        error = tried.error
        log.warning("compensation of %s in run %s failed: %r", undo.name, self.claimed.uid, error)
        goes_on = is_worth_another(compensation.retry, error, number)
        delay = pause(compensation.retry, error, number) if goes_on else 0
        self._commit(
            RecordUndo(
                self.fence,
                Entry(
                    0, path, "tried" if goes_on else "failed", "compensation", undo.name, clock.wall(),
                    try_number=number, started_at=tried.started_at,
                    due_at=self.store.now() + delay if goes_on else None, data=encode_error(error),
                ),
            )
        )  # fmt: skip
        thread, self._overran = self._overran, None
        if goes_on:
            # Only now, that its try is counted: where the thread does not end, this process is replaced.
            if thread is not None:
                self._wait_for_thread(thread)
            return PassUndo(self.fence, delay=delay) if delay else None
        counted = f"{number} {'try' if number == 1 else 'tries'}"
        by = payloads.told(error, f"{type(error).__name__}: {first_line(error)}")
        reason = f"the compensation of {undo.name} gave up after {counted}: {by}"
        if thread is not None and not thread.wait(0):
            self.strays.add(path)
            self.overrunning.add(path)
        return Halt(self.fence, reason[:500], error=encode_error(error), strays=tuple(self.strays))

    def _try(self, undo: Undo, definition: Definition, compensation: Compensation, number: int, given: Given) -> Tried:
        call = _UndoCall(
            definition, undo.input, UNDO_PREFIX + undo.path, partial(self._facts, undo),
            partial(self._key, UNDO_PREFIX + undo.path), compensation.timeout_seconds,
            self.fence, self.store, self.host.settings.max_payload, self.fence.task_id,
            compensation.fn, given, undo.result,
        )  # fmt: skip
        if definition.kind == "transaction":
            return transactional.run_transaction(
                call,
                number,
                entry_of=lambda output, started_at: self._entry(undo, number, output, started_at),
                committed=self._record,
                fence_sql="compensating",
            )
        if getattr(definition, "isolate", False):
            isolated = isolated_try(call, number)
            self.kill_isolated = isolated.kill
            try:
                return isolated.run()
            finally:
                self.kill_isolated = None
        if inspect.iscoroutinefunction(compensation.fn):
            return self._on_loop(call, number)
        if compensation.timeout_seconds is not None:
            path = UNDO_PREFIX + undo.path
            thread = ThreadTry(call, number, on_late_end=partial(self._late_end, path), on_overrun=partial(strays.goes_on, self))
            tried = thread.run()
            self._overran = thread if thread.overran else None
            return tried
        return run_here(call, number)

    def _late_end(self, path: str, tried: Tried) -> None:
        self.strays.discard(path)
        self.overrunning.discard(path)
        self.host.stray_ended(self, path, tried)

    def _wait_for_thread(self, thread: ThreadTry) -> None:
        """Neither the next try nor the next compensation runs beside a thread that overran: it ends, or its agent is replaced."""
        began = time.monotonic()
        while not thread.wait(0.05):
            if time.monotonic() - began > self.host.settings.grace_seconds:
                self.host.overran(self.fence.task_id)

    def _on_loop(self, call: Any, number: int) -> Tried:
        return wait_on_loop(call, number, self.host.loop)

    def _entry(self, undo: Undo, number: int, output: bytes, started_at: int) -> Entry:
        return Entry(
            0, UNDO_PREFIX + undo.path, "completed", "compensation", undo.name, clock.wall(),
            try_number=number, started_at=started_at, data=output,
        )  # fmt: skip

    def _record(self, context: Transaction, entry: Entry) -> None:
        undoing.record(context, RecordUndo(self.fence, entry))

    def _key(self, path: str) -> str:
        claimed = self.claimed
        if claimed.chain == claimed.uid:
            return idempotency_key(claimed.chain, path)
        # Another key than that of every undo of this place in the chain, be it of a result, which the inheritance counts though
        # the run is pruned, or of a failure, which it does not count.
        place = path.partition("~")[0]
        connection, task_id = self.store.connection(), self.fence.task_id
        before = undoing.undone_before(connection, task_id, claimed.chain, place)
        results = self._inherited_generation(place.removeprefix(UNDO_PREFIX), History(journal.load(connection, task_id)))
        return idempotency_key(claimed.chain, path, generation=max(before, results))

    def _facts(self, undo: Undo) -> Current:
        return Current(
            run_id=self.claimed.uid,
            workflow=self.claimed.name,
            parent_id=self.claimed.parent_uid,
            tags=json.loads(self.claimed.tags) if self.claimed.tags else {},
            tick=clock.to_datetime(self.claimed.tick) if self.claimed.tick is not None else None,
            idempotency_key=self.claimed.chain,
            undoing=Undoing(outcome=undo.outcome),
        )

    def _commit(self, operation: Operation[R]) -> R:
        result: R = self.store.commit(operation)
        return result


@dataclass(slots=True)
class _UndoCall(StepCall):
    """A try of a compensation: the result first, then the step's arguments."""

    compensation: Callable[..., Any]
    given: Given
    result: bytes | None

    @property
    def function(self) -> Callable[..., Any]:
        return self.compensation

    @property
    def part(self) -> tuple[Literal["fn", "compensation"], bytes]:
        return "compensation", b"[" + (self.result or b"null") + b"]"

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.given

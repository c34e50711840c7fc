"""A run of an async workflow and the order of its outcomes: one at a time, as the journal has them.

Owns the run from its start to its end, what is on its way to the disk, and the delivery: each outcome comes after the code has run until
every branch waits, on the first execution as on replay; so whatever the code decides by who finished first, it decides again. All of it
is on the agent's loop thread. Refuses to start anything while it replays. Calls are `async_calls` and `async_run`, rests `async_rests`.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from abc import abstractmethod
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from ..caller import active
from ..errors import Cancelled, CodeMismatch, LeaseLost, Parked, Unwinding, WrongColour
from ..journal.entry import Entry
from ..operations import Append, GiveBack, Halt, RetryRun
from ..operations.atomic import Operation
from ..signature import convert_value
from . import forked, strays
from .execution import Ended, Execution
from .history import DELIVERED, OUTCOMES, void
from .loop_time import LoopTime
from .pending import Pending
from .workflow_loop import WorkflowLoop


class AsyncDelivery(Execution):
    """Drives the code of one async workflow."""

    asynchronous = is_on_loop = True
    in_step = False
    # As in `Held`: what many runs never change stands here.
    delivered_seq = 0
    _main: asyncio.Task[Any] | None = None
    _seen_arrival = 0
    _is_advancing = False
    _holds_slot = True
    _is_parking = False
    _outstanding = 0
    _threads = 0
    _is_inheriting = False
    _marks = 0
    """Decisions of `patched` on their way to the disk: no step begins by one that a crash could take back."""
    _park_timer: asyncio.TimerHandle | None = None
    _due_timer: asyncio.TimerHandle | None = None
    _due_at: int | None = None
    """For when the look is set."""
    _waiting_since: float | None = None

    def __init__(self, *args: Any, finished: Callable[[Any, Ended | None], None]) -> None:
        super().__init__(*args)
        self._finished = finished
        self._loop = WorkflowLoop(self)  # type: ignore[abstract]
        self._replay = self.history.deliveries[::-1]
        """The outcomes that are still to be delivered again, the next one last."""
        self._pending: dict[str, Pending] = {}
        self._fresh: list[Pending] = []
        self._timers: dict[asyncio.TimerHandle, Pending] = {}
        self._committed: list[tuple[int, Entry]] = []
        self._next_seq = self.seq + 1
        self.loop_time = LoopTime(self.journal_at)
        self._seen_parts: set[str] = set()
        self._timed: list[Pending] = []
        """Waits for a signal that have a timeout."""

    def begin(self) -> None:
        """Start the code and bring it to where it waits."""
        caller: Any = self  # With what the classes above add, it is one.
        context = copy_context()
        context.run(active.set, caller)
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
                self._deliver(self._replay.pop())
            elif self._committed and self._committed[0][0] == self._next_seq:
                self._deliver(heapq.heappop(self._committed)[1], is_live=True)
            elif self._is_asked_to_stop():
                return
            elif self._fresh and not self.is_to_leave():
                if not self._start_fresh():
                    break
            else:
                break
        self._rest()

    def _is_asked_to_stop(self) -> bool:
        if self.is_to_end():
            self.unwinding = Cancelled
            self._stop_inline()
            self._end(False, None)
            return True
        if self.is_to_leave() and not self._has_inline():
            self._leave(GiveBack(self.fence))
            return True
        return False

    def _beyond(self) -> Entry | None:
        """What the journal has of places that the code has not come to.

        Outcomes of calls that it has made are none: they came to the disk while the one was on its way that ended it, or that
        cancelled them.
        """
        records = self.history.records
        return next((entry for entry in reversed(self._replay) if (record := records.get(entry.path)) is None or not record.visited), None)

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
        if not self.strays:
            # The last thread may have ended before this was known, and told nobody; the file has the run as a stray.
            strays.thread_ended(self)

    def _close(self) -> None:
        for timer in (self._park_timer, self._due_timer):
            if timer is not None:
                timer.cancel()
        self.unwinding = self.unwinding or Parked
        self._stop_inline()
        self._loop.unwind()
        self._pending.clear()

    def _stop_inline(self) -> None:
        for pending in self._pending.values():
            if pending.inline is not None and pending.inline.stop():
                self.strays.add(pending.path)

    def _has_inline(self) -> bool:
        return any(p.inline is not None and p.inline.is_trying for p in self._pending.values())

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
        self.loop_time.delivered(entry, pending)
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

    def _submit(self, operation: Operation[Any], done: Callable[[Any, BaseException | None], None]) -> None:
        self._outstanding += 1

        def arrived_back(result: Any, error: BaseException | None) -> None:
            self._outstanding -= 1
            self.heed(result)
            if not self.ended:
                done(result, error)

        self.host.submit(operation, arrived_back)

    def note(self, entry: Entry) -> None:
        """An entry that nobody waits for is on disk: it only counts in the order."""
        heapq.heappush(self._committed, (entry.seq, entry))

    def _noted(self, entry: Entry, result: Any, error: BaseException | None) -> None:
        if error is not None:
            self._fail(error)
            return
        self.note(entry)
        self.advance()

    def _enter(self) -> None:
        if self.unwinding is not None:
            raise self.unwinding
        if not self._loop.is_running():
            raise WrongColour(
                "A durable call was made outside the workflow's loop.",
                hint="Call steps from the workflow's own coroutines and tasks.",
            )

    # What the classes above it add.

    @abstractmethod
    def start_timer(self, timer: asyncio.TimerHandle, delay: float) -> None:
        """`call_later` of the workflow's loop."""

    @abstractmethod
    def cancel_timer(self, timer: asyncio.TimerHandle) -> None:
        """The code no longer needs a timer."""

    @abstractmethod
    def _start_fresh(self) -> bool:
        """Begin what the code asked for; whether something was begun."""

    @abstractmethod
    def _look(self) -> None: ...

    @abstractmethod
    def _look_at_signals(self) -> None: ...

    @abstractmethod
    def _rest(self) -> None: ...


def _settable(error: BaseException) -> BaseException:
    # A future refuses StopIteration; asyncio itself wraps it so.
    return RuntimeError(f"step raised {error!r}") if isinstance(error, StopIteration) else error

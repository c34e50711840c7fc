"""Where an async run rests: what has come for it, its timers, and when it leaves its slot and its agent.

Owns the look at what has arrived, each put into the journal before the code sees it, the durable timers behind `call_later`, and the
decision to wait in memory or to park. Refuses to deliver: what it finds is written, and comes in its turn.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from .. import clock
from ..codec.errors import encode_error
from ..errors import Parked, SignalTimeout
from ..journal.entry import Entry
from ..operations import Halt, Park
from ..store import signals
from .arrivals import arrived, halted_step
from .async_delivery import AsyncDelivery
from .fitting import fits
from .history import OUTCOMES
from .pending import Pending

_ENDLESS = 1 << 62


class AsyncRests(AsyncDelivery):
    """An async run that waits."""

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
            pending.due_at = pending.over_at = self.store.now() + round(delay * clock.SECOND)
            entry = self.entry(path, "started", "timer", "timer", due_at=pending.due_at)
            self._write(entry)
        elif record.started is not None:
            pending.over_at = record.started.due_at
            if record.outcome is None:
                pending.due_at = pending.over_at

    def entry(self, path: str, event: str, kind: str, name: str, **facts: Any) -> Entry:
        """An entry at the end of the journal, dated now; an outcome by engine time too, for the loop's clock."""
        if event in OUTCOMES:
            facts["due_at"] = self.store.now()
        return super().entry(path, event, kind, name, **facts)

    def cancel_timer(self, timer: asyncio.TimerHandle) -> None:
        """The code no longer needs a timer: it goes without a trace, since a replay cancels it at the same place."""
        pending = self._timers.pop(timer, None)
        if pending is not None:
            self._pending.pop(pending.path, None)

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
                if not fits(self, pending.name, signal_id, payload, pending.type_):
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
        parts = [p.part for p in self._pending.values() if p.part is not None and p.part.task_id is not None and p.kind != "signal"]
        waiting_signals = [p for p in self._pending.values() if p.kind == "signal"]
        operation = Park(
            self.fence,
            due_at,
            signals=tuple({p.name for p in waiting_signals}),
            seen_signal_id=min((p.seen_signal_id for p in waiting_signals), default=0),
            parts=tuple(part.task_id for part in parts if part.task_id is not None),
            places=tuple(part.path for part in parts),
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

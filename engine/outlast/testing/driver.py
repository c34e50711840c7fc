"""Every role in this process, taking turns: nothing happens but while a test asks for it.

Owns one life of an agent with a scheduler and a supervisor's sweep: `settle` lets them work until nothing is due at
this instant, `next_at` says when something will be. Since every wait parks at once, a run that waits is a row in the
file and no thread, and idle means that the agent holds nothing. Refuses to move the clock, and to wait in real time for
anything but code that executes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .. import caller
from ..agent import Agent
from ..clock import SECOND
from ..definition.registry import Registry
from ..operations import Claim, Sweep
from ..operations.claimed import Claimed
from ..run.user_threads import busy_threads
from ..scheduler import Scheduler
from ..settings import Settings
from ..store import next_due, schedules, sweeping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..store.sqlite import SqliteStore

T = TypeVar("T")

_ENDING_SECONDS = 10.0
"""How long the thread of a step that overran is waited for: one that never ends leaves its run to be told as `Stuck`."""
_PAUSE_SECONDS = 0.001


def _real_seconds() -> float:
    """What goes on while freezegun holds `time.monotonic`."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose timers go on under freezegun too."""

    def time(self) -> float:
        return _real_seconds()


class _DrivenAgent(Agent):
    """An agent that says when it holds nothing and can claim nothing."""

    idle: asyncio.Event
    has_claimed = False
    error: BaseException | None = None

    def _rest(self) -> None:
        if not self._holding.runs:
            self.idle.set()

    def _claimed(self, claim: Claim, claims: list[Claimed] | None, error: BaseException | None) -> None:
        if error is None:
            self.has_claimed |= bool(claims)
            super()._claimed(claim, claims, error)
            return
        self.error = error
        self.idle.set()

    async def begin(self) -> asyncio.Task[None]:
        """Register; gives the task in which the agent goes on until it is stopped."""
        self.idle = asyncio.Event()
        main = asyncio.get_running_loop().create_task(self._main())
        while not self._ready.is_set():
            if main.done():
                main.result()
            await asyncio.sleep(0)
        return main

    async def work(self) -> bool:
        """Carry on what is due until nothing is; whether anything was."""
        self.has_claimed = False
        while True:
            self.idle.clear()
            self.error = None
            self._heard()
            await self.idle.wait()
            if self.error is not None:
                raise self.error
            # With one slot, every other look is for suspects alone: this one may have been for the others.
            if not (self._concurrency == 1 and self._next.has_suspects()):
                return self.has_claimed

    def next_due_at(self) -> int | None:
        """The engine instant at which something falls due that it has the code of."""
        return next_due.next_due_at(self.store.connection(), self._code.fingerprints, None, now=self.store.now())

    def drop(self) -> None:
        """Forget everything, as a dead process does."""
        self._holding.stop()
        self._holding.lose()


class Driver:
    """The roles of one store. `close` leaves in good order, `die` does not."""

    def __init__(
        self,
        store: SqliteStore,
        registry: Registry,
        settings: Settings,
        *,
        concurrency: int = 8,
        scheduled: Registry | None = None,
    ) -> None:
        """`scheduled` holds the workflows whose schedules fire; None where none does."""
        self.store = store
        # What another agent of this process has left running is not ours to wait for: it may never end.
        self._foreign = busy_threads()
        self._lease = round(settings.lease_seconds * SECOND)
        self._agent = _DrivenAgent(store, registry, settings, concurrency=concurrency, embedded=True)
        self._scheduler = None if scheduled is None else Scheduler(store, scheduled, settings)
        self._scheduled = "[]" if scheduled is None else json.dumps(sorted({one.name for one in scheduled.workflows()}))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outlast-driven")
        self._loop = _Loop()
        self._main: asyncio.Task[None] | None = None
        try:
            self._on_loop(self._begin())
        except BaseException:
            self._end_loop()
            raise

    async def _begin(self) -> None:
        self._main = await self._agent.begin()

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        # In a thread of its own: the test may be on a loop itself, and connections belong to threads.
        return self._thread.submit(self._loop.run_until_complete, work).result()

    def settle(self) -> None:
        """Let every role work until nothing is due now."""
        ends = 0.0
        with _as_an_agent_process():
            self._fire()
            while True:
                was_busy = self._has_busy_threads()
                worked = self._on_loop(self._agent.work())
                if self._has_busy_threads():  # A step that overran: its run ends when its thread does.
                    ends = ends or _real_seconds() + _ENDING_SECONDS
                    if _real_seconds() < ends:
                        time.sleep(_PAUSE_SECONDS)
                        continue
                    self._foreign = busy_threads()
                swept = self.store.commit(Sweep(self._lease))
                # A thread that ended after the agent's last look may have left it something to do.
                if not (self._fire() or swept or worked or was_busy):
                    return

    def _has_busy_threads(self) -> bool:
        return bool(busy_threads() - self._foreign)

    def _fire(self) -> bool:
        fired = False
        while self._scheduler is not None and self._scheduler.tick(self.store.now()) <= 0:
            fired = True
        return fired

    def next_at(self, *, with_schedules: bool) -> int | None:
        """The engine instant at which something falls due next."""
        connection, now = self.store.connection(), self.store.now()
        found = [self._agent.next_due_at(), sweeping.next_deadline_at(connection)]
        if with_schedules:
            tick_at = schedules.earliest(connection, self._scheduled, "{}")
            found.append(None if tick_at is None else self.store.engine_time().from_wall(tick_at))
        return min((at for at in found if at is not None and at > now), default=None)

    def die(self) -> None:
        """Drop what the agent holds, and see its threads end; the file is left as it is."""
        self._on_loop(self._drop())
        ends = _real_seconds() + _ENDING_SECONDS
        while self._has_busy_threads() and _real_seconds() < ends:
            time.sleep(_PAUSE_SECONDS)
        self._end_loop()

    async def _drop(self) -> None:
        self._agent.drop()
        await asyncio.sleep(0)
        assert self._main is not None
        self._main.cancel()
        await asyncio.wait([self._main])

    def close(self) -> None:
        """Hand back what is held, and end."""
        self._on_loop(self._leave())
        self._end_loop()
        if self._scheduler is not None:
            self._scheduler.stop()

    async def _leave(self) -> None:
        self._agent.stop(0)
        assert self._main is not None
        await self._main

    def _end_loop(self) -> None:
        self._thread.submit(self._close_loop).result()
        self._thread.shutdown()

    def _close_loop(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@contextmanager
def _as_an_agent_process() -> Iterator[None]:
    """Refuse what an agent's process refuses: a step called from a thread that has no run."""
    before, caller.agent_process = caller.agent_process, True
    try:
        yield
    finally:
        caller.agent_process = before

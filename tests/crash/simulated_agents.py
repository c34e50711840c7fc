"""Agents that move only when they are told to, up to the next gate.

Owns one simulated process: its agent with a few slots, its loop's thread, and the knowledge of when all of it stands still. Between two
gates nothing reaches the file, so whoever picks which thread goes through next picks the interleaving, and an agent that is not
picked is a frozen process. Refuses to pick, and to move the clock. At most one thread of all agents is under way at a time; that is
what makes a seed's simulation the same again.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

from outlast import clock
from outlast import operations as op
from outlast.agent import Agent
from outlast.agent.holding import Holding
from outlast.agent.runners import Runners
from outlast.definition.registry import Registry
from outlast.errors import LeaseLost
from outlast.settings import Settings
from outlast.store.process import ProcessIdentity, this_process

from .simulated_gate import Gate, GatedStore, Standing

PATIENCE_SECONDS = 20.0
FIRST_PID = 1 << 23
"""Above what any kernel gives."""


class _Selector(selectors.DefaultSelector):
    """Tells when its loop has nothing to do."""

    loop: _Loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout > 0:
            with self.loop.news:
                self.loop.is_idle = not self.loop._ready  # type: ignore[attr-defined]
                self.loop.news.notify_all()
            # Its timers are of the simulation's time, and whoever moves that wakes it.
            timeout = None
        try:
            return super().select(timeout)
        finally:
            with self.loop.news:
                self.loop.is_idle = False


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose timers are of the simulation's time, and that says whether it is idle."""

    def __init__(self, news: threading.Condition) -> None:
        self.news = news
        self.is_idle = False
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return clock.elapsed() / clock.SECOND

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        with self.news:
            self.is_idle = False
            return super().call_soon_threadsafe(callback, *args, context=context)


class _SteadyRunners(Runners[Any]):
    """How long work takes is of no concern: no more is claimed than there are slots."""

    @property
    def seconds(self) -> float:  # type: ignore[override]
        return 1.0

    @seconds.setter
    def seconds(self, _: float) -> None: ...


class _SteppedAgent(Agent):
    """An agent that looks for work, and renews, only when it is told to."""

    identity: ProcessIdentity
    on_ready: Callable[[Holding], None]
    """Called once, before it works."""
    failure: BaseException | None = None

    def _repeat(self, name: str, seconds: float, function: Callable[[], object]) -> None:
        """No timer of its own: the simulation's clock has the say."""

    def _changed(self) -> None:
        self._next.see_whether_alone_has_left()
        if self._stopping and not self._holding.runs:
            self._finish()

    def _rest(self) -> None:
        """It is told when to look again."""

    def _claimed(self, claim: op.Claim, claims: Any, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, LeaseLost):
            self.failure = error
        super()._claimed(claim, claims, error)

    def _renewed(self, is_held: Any, error: BaseException | None) -> None:
        if not self.store.gate.is_dead:  # type: ignore[attr-defined]
            super()._renewed(is_held, error)

    def _register(self) -> None:
        if not self.agent_id:
            self.on_ready(self._holding)
        with mock.patch("outlast.agent.process.this_process", return_value=self.identity):
            super()._register()


class SimulatedAgent:
    """One agent's process: its store, its loop's thread, its gate. Told what to do by one thread."""

    def __init__(self, path: str, registry: Registry, settings: Settings, news: threading.Condition, number: int, slots: int) -> None:
        self.number = number
        self.news = news
        self.gate = Gate(news)
        self.store = GatedStore(path, self.gate)
        self.identity = replace(this_process(), pid=FIRST_PID + number)
        self.agent = _SteppedAgent(self.store, registry, settings, concurrency=slots, embedded=True)
        self.agent.identity = self.identity
        self.agent.on_ready = self._count_threads
        self._working = 0
        self._has_ended = False
        self._threads = 0
        self._loop = _Loop(news)
        self._main: asyncio.Task[None]
        self._thread = threading.Thread(target=self._live, name=f"outlast-simulated-{number}", daemon=True)
        self._thread.start()
        self.settle()

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        self.gate.loop_thread = threading.get_ident()
        self._main = self._loop.create_task(self.agent._main())
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self.agent.failure = error
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        with self.news:
            self._has_ended = True
            self.news.notify_all()

    def _count_threads(self, holding: Holding) -> None:
        in_thread, work = holding.run_in_thread, holding._work
        holding.run_in_thread = lambda function: in_thread(self._counted(function))  # type: ignore[method-assign]
        holding.runners.__class__ = _SteadyRunners
        try_take, leave, leave_slot = holding.slots.try_take, holding.slots.leave, holding.leave_slot

        def execute(item: Any) -> None:
            self.gate.here.of = f"task {item.fence.task_id:04}"
            work(item)

        def take() -> bool:
            # A thread is under way from here on, though it has nothing yet.
            is_thread = threading.get_ident() != self.gate.loop_thread
            with self.news:
                taken = try_take()
                self._working += taken and is_thread
            return taken

        def rest() -> None:
            self.gate.here.rests = True
            leave_slot()
            self.gate.here.rests = False

        def go() -> None:
            leave()
            if threading.get_ident() != self.gate.loop_thread and not getattr(self.gate.here, "rests", False):
                self._count(-1)

        holding.runners._work, holding.leave_slot = execute, rest  # type: ignore[method-assign]
        holding.slots.try_take, holding.slots.leave = take, go  # type: ignore[method-assign]

    def _count(self, difference: int) -> None:
        with self.news:
            self._working += difference
            self.news.notify_all()

    def _counted(self, function: Callable[[], None]) -> Callable[[], None]:
        """A function for a thread, counted as under way from now on."""
        self._threads += 1
        number = self._threads

        def call() -> None:
            self.gate.here.of = f"thread {number:04}"
            try:
                function()
            finally:
                self._count(-1)

        self._count(1)
        return call

    def look(self) -> None:
        """Read the news, and claim if there is a slot."""
        self._do(self._look)

    def _look(self) -> None:
        self.agent._holding.has_news = True
        self.agent._pump()

    def renew(self) -> None:
        """See that time has passed, and send a heartbeat, as its loop does where it is not held up."""
        if self.can_look:
            self._do(self.agent._heartbeat)

    def go_on(self, one: Standing, *, dies: str = "") -> None:
        """Let a thread through its gate, to where it comes to stand next; its process may die there."""
        one.dies = dies
        with self.news:
            one.may_go = True
            self.news.notify_all()
        # It stands no more once it has gone.
        self._until(lambda: one not in self.gate.standing)
        self.settle()

    def die(self) -> None:
        """End as a killed process does."""
        self.gate.die()
        self._end(self._drop)

    def leave(self) -> None:
        """Drain at once and end in good order."""
        self._end(lambda: self.agent.stop(0))

    def _drop(self) -> None:
        self.agent._holding.stop()
        self.agent._holding.lose()
        self._main.cancel()

    def _end(self, by: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(by)
        # Only what is on the loop goes on until that has ended: were threads let go beside it, nobody knew which of them comes first.
        while not (self._has_ended or self.gate.is_dead):
            self._until(lambda: self._has_ended or not self.can_look)
            for one in self.standing():
                if one.on_loop:
                    self.go_on(one)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), f"agent {self.number} does not end"
        # A drained agent leaves without a thread that is still in a step: what that does then comes too late.
        while self._working:
            self._until(lambda: bool(self._working == 0 or self.gate.standing))
            for one in self.standing():
                self.go_on(one)
        self._loop.close()
        self.store.close()

    def _do(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function)
        self.settle()

    def settle(self) -> None:
        """Wait until each of its threads stands at the gate or has nothing to do."""
        self._until(self._is_still)
        if self.agent.failure is not None:
            raise self.agent.failure

    def _until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        with self.news:
            while not is_so():
                self.news.wait(0.05)
                if time.monotonic() > deadline:
                    raise AssertionError(f"agent {self.number} does not come to rest: {self.told()}")

    def _is_still(self) -> bool:
        if self.gate.is_dead or self._has_ended:
            return True
        on_loop = any(one.on_loop for one in self.gate.standing)
        if not (self._loop.is_idle or on_loop):
            return False
        holding = self.agent._holding
        # Who comes back from a wait stands behind those that have the slots.
        in_threads = sum(not one.on_loop for one in self.gate.standing) + len(holding.slots._queue)
        # What is held by no thread waits for time to pass; what is behind the others, for a slot.
        is_about_to_begin = holding.backlog and self.has_room
        return not (in_threads < self._working or is_about_to_begin or any(one.may_go for one in self.gate.standing))

    def standing(self) -> list[Standing]:
        """Who stands at the gate, in an order that does not depend on who came first."""
        return sorted(self.gate.standing, key=lambda one: (one.on_loop, one.what, one.of))

    @property
    def is_free(self) -> bool:
        """Whether it holds nothing, and nothing of it is under way."""
        return not self.gate.standing and not self.agent._holding.runs

    @property
    def has_room(self) -> bool:
        return self.agent._holding.slots.free > 0

    @property
    def held(self) -> set[int]:
        return set(self.agent._holding.runs)

    @property
    def can_look(self) -> bool:
        """Whether its loop is free."""
        return not any(one.on_loop for one in self.gate.standing)

    def told(self) -> str:
        held = {task_id: type(work).__name__ for task_id, work in self.agent._holding.runs.items()}
        free = self.agent._holding.slots.free
        return f"holds {held}, stands at {self.gate.standing}, {self._working} threads, idle {self._loop.is_idle}, {free} slots free"

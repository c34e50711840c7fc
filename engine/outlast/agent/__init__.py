"""The agent: claims due tasks in batches, renews its lease, and leaves in good order.

Owns the loop of one agent: registration, claims, heartbeats, suspects, draining. What it has claimed is carried by `holding`. Refuses to
claim more than it can serve soon. It may die at any moment without loss: everything it holds is leased, fenced and journalled.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import caller, clock
from ..definition.code import Code
from ..errors import LeaseLost, StoreReplaced
from ..liveness import Pulse
from ..operations import Claim, GiveBack, Heartbeat, LearnCode, LeaveAgent
from ..operations.claimed import Claimed
from ..run import logs, user_threads
from ..store import agents
from ..store.silent_commits import SilentCommits
from . import process
from .answers import Answers, nothing
from .holding import Holding
from .next_claim import NextClaim
from .trouble import Trouble

if TYPE_CHECKING:
    from ..definition.registry import Registry
    from ..settings import Settings
    from ..store.doorbell import Listener
    from ..store.sqlite import SqliteStore
    from .side_by_side import SideBySide

log = logging.getLogger("outlast")

_COMMITS_SECONDS, _CARE_SECONDS, _PULSE_SECONDS = 0.05, 0.25, 0.5
_GIVEN_WAY_SECONDS, _SOLO_IDLE_SECONDS = 0.5, 10.0
_LEAVE_SECONDS = 2.0
"""How long the end of an agent waits for its last commit to be answered."""


class Agent:
    """One agent, of a process of its own or embedded in another."""

    def __init__(
        self,
        store: SqliteStore,
        registry: Registry,
        settings: Settings,
        *,
        concurrency: int = 8,
        queues: tuple[str, ...] | None = None,
        root_id: int | None = None,
        embedded: bool = False,
        solo: bool = False,
        beside: SideBySide | None = None,
    ) -> None:
        """`root_id` limits it to one run and its parts; `solo` makes it the process in which suspects run alone."""
        self.store = store
        self.settings = settings
        self.agent_id = 0
        self._registry = registry
        self._code = Code(registry)
        self._concurrency = 1 if solo else concurrency
        self._queues = queues
        self._root_id = root_id
        self._embedded = embedded
        self._solo = solo
        self._beside = beside
        self._loop: asyncio.AbstractEventLoop | None = None
        self._holding: Holding
        self._next: NextClaim
        self._answers: Answers
        self._stopping = 0
        self._grace_seconds: float | None = None
        self._stopped: asyncio.Event
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._once = False
        self._wants_claim = self._pump_scheduled = self._is_finishing = False
        self._claimed_at = time.monotonic()
        self._commits: SilentCommits
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._trouble = Trouble(store, look_again=self._changed, end=lambda: self._stopped.set())

    def run(self, *, once: bool = False) -> None:
        """Work until stopped; with `once`, until nothing is due."""
        self._once = once
        before, caller.agent_process = caller.agent_process, caller.agent_process or not self._embedded
        try:
            with nullcontext() if self._embedded else process.tuned(), asyncio.Runner() as runner:
                runner.run(self._main())
        except BaseException as error:
            self._failure = error
            raise
        finally:
            caller.agent_process = before
            self._ready.set()

    def start(self) -> None:
        """Work in a background thread; returns when the agent is registered, raises what kept it from that."""
        self._thread = threading.Thread(target=self._run_quietly, name="outlast-agent", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def _run_quietly(self) -> None:
        try:
            self.run()
        except Exception as error:
            has_lost_file = isinstance(error, StoreReplaced)
            log.log(logging.ERROR if has_lost_file else logging.DEBUG, "this agent has ended: %s", error, exc_info=not has_lost_file)

    def stop(self, grace_seconds: float | None = None) -> None:
        """Drain: the first call lets steps end within the grace time, the second gives everything back at once.

        May be called from any thread and from a signal handler. Waits for the thread of `start`.
        """
        self._stopping += 1
        self._grace_seconds = grace_seconds
        if self._loop is not None:
            self._answers.on_loop(self._drain)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def has_strays(self) -> bool:
        """Whether threads of steps go on; then the process must end by `os._exit`."""
        return user_threads.has_busy_threads()

    async def _main(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._answers = Answers(self.store, loop)
        self._holding = Holding(
            self.store, self.settings, self._code, concurrency=self._concurrency, answers=self._answers,
            on_change=self._changed, on_overrun=self._replace, is_embedded=self._embedded,
            returns_suspects=self._root_id is None and (self._solo or self._concurrency > 1 or self._beside is not None),
        )  # fmt: skip
        self._next = NextClaim(
            self.store, self._code, self._holding, concurrency=self._concurrency, queues=self._queues, root_id=self._root_id,
            beside=self._beside)  # fmt: skip
        if not (self._embedded or self._once or self._root_id is not None):
            self.store.make_room()  # Before the registration, so that its commit, and nobody's, waits for the disk to write it.
        self._register()
        self._answers.begin()
        self.store.patient = True  # Not before: with nothing to hold yet, it ends by a locked file, and waits for none without a word.
        listener = self.store.listen()
        if listener.fileno() >= 0:
            loop.add_reader(listener.fileno(), self._rung, listener)
        logs.install()
        self._commits = SilentCommits(self.store)
        self._repeat("heartbeat", self.settings.lease_seconds / 3, self._heartbeat)
        self._repeat("pulse", _PULSE_SECONDS, Pulse().beat)
        self._repeat("care", _CARE_SECONDS, self._look_after)
        self._repeat("commits", _COMMITS_SECONDS, self._look_for_commits)
        self._ready.set()
        try:
            self._trouble.contained(self._pump)
            if self._stopping:
                self._drain()
            await self._stopped.wait()
            if self._trouble.lost is not None:
                self._holding.stop()
                self._holding.lose()
                raise self._trouble.lost
        finally:
            if listener.fileno() >= 0:
                loop.remove_reader(listener.fileno())
            listener.close()
            for timer in self._timers.values():
                timer.cancel()
            self._holding.close()
            self._next.close()
            self._answers.end()

    def _register(self) -> None:
        for declaration in process.declarations(self._registry):
            self.store.commit(declaration)
        new = process.registration(self.settings, self._code, slots=self._concurrency, queues=self._queues, root_id=self._root_id)
        self.agent_id = self._holding.agent_id = self.store.commit(new)

    def _repeat(self, name: str, seconds: float, function: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            try:
                self._trouble.contained(function)
            finally:
                self._timers[name] = loop.call_later(seconds, again)

        self._timers[name] = loop.call_later(seconds, again)

    def _rung(self, listener: Listener) -> None:
        listener.drain()
        self._heard()

    def _look_for_commits(self) -> None:
        if self._commits.are_there():
            self._heard()

    def _heard(self) -> None:
        self._holding.has_news = True
        self._changed()

    def _changed(self) -> None:
        """Something may be there to do: look, once for however many calls until then."""
        if self._next.alone is not None:
            self._next.see_whether_alone_has_left()
        if self._stopping and not self._holding.runs:
            self._finish()
        if not self._pump_scheduled and self._loop is not None:
            self._pump_scheduled = True
            self._loop.call_soon(self._trouble.contained, self._pump)

    def _pump(self) -> None:
        """Read the news of what we hold, then claim for the slots that are free."""
        self._pump_scheduled = False
        self._learn()
        self._holding.read_notices()
        self._holding.start_waiting()
        if self._stopping or self._trouble.is_fresh:
            return
        if self._next.has_to_wait:
            self._wants_claim = True
            return
        is_only = not self._next.is_under_way
        if (claim := self._next.make(self.agent_id)) is None:
            if self._next.gives_way:
                self._look_again_in(_GIVEN_WAY_SECONDS, self._changed)
            return
        self._wants_claim = False
        claimed = partial(self._trouble.contained, self._came_back, claim)
        # Nothing else is to be done here: then the way by the writer's thread would only cost time.
        if not is_only or self._holding.runs or not self.store.committer.try_claim(claim, claimed):
            self._answers.submit(claim, claimed)

    def _learn(self) -> None:
        """Tell the store of what was defined while we ran: in a notebook, or by a module that came late."""
        if self._code.refresh():
            for operation in (*process.declarations(self._registry), LearnCode(self.agent_id, dict(self._code.fingerprints))):
                self._answers.submit(operation, nothing)

    def _came_back(self, claim: Claim, claims: list[Claimed] | None, error: BaseException | None) -> None:
        self._next.came_back(claim, len(claims or ()))
        if isinstance(error, LeaseLost) and claim.agent_id != self.agent_id:
            claims, error = [], None  # It was under way as this agent began anew.
        self._claimed(claim, claims, error)

    def _claimed(self, claim: Claim, claims: list[Claimed] | None, error: BaseException | None) -> None:
        if isinstance(error, LeaseLost):
            self._renewed(False, None)
            return
        if error is not None or claims is None:
            self._trouble.has_come(error)
            return
        self._trouble.has_passed()
        if claims:
            self._claimed_at = time.monotonic()
            self._next.took(claim, self._holding.take(claims))
        if len(claims) == claim.limit or self._wants_claim or (self._concurrency == 1 and claim.suspects):
            self._changed()
        else:
            self._rest()
        self.store.committer.callers = len(self._holding.runs)

    def _rest(self) -> None:
        """Nothing more is due: sleep until the next task is, or the bell rings."""
        is_idle = not (self._holding.runs or self._next.is_under_way or self._pump_scheduled)
        if is_idle and (self._once or (self._solo and time.monotonic() - self._claimed_at > _SOLO_IDLE_SECONDS)):
            self._finish()
            return
        seconds, rests_anew = self._next.next_look()
        self._look_again_in(seconds, partial(self._trouble.contained, self._rest) if rests_anew else self._changed)

    def _look_again_in(self, seconds: float | None, look: Callable[[], object]) -> None:
        if (due := self._timers.pop("due", None)) is not None:
            due.cancel()
        if seconds is not None:
            self._timers["due"] = asyncio.get_running_loop().call_later(seconds, look)

    def _heartbeat(self) -> None:
        beat = Heartbeat(self.agent_id, round(self.settings.lease_seconds * clock.SECOND), draining=bool(self._stopping))
        self._answers.submit(beat, partial(self._trouble.contained, self._answered, self.agent_id))

    def _answered(self, agent_id: int, is_held: Any, error: BaseException | None) -> None:
        # Two answers may say that the lease was ended, this one and a claim's: the later one is not of the lease that we have by then.
        if agent_id == self.agent_id:
            self._renewed(is_held, error)

    def _renewed(self, is_held: Any, error: BaseException | None) -> None:
        if is_held:
            self._give_back_unknown()
        elif error is None and not self._is_finishing:
            log.warning("this agent's lease was ended; it starts over")
            self._holding.lose()
            if self._stopping:
                self._finish()
            else:
                self._register()
                self._changed()

    def _give_back_unknown(self) -> None:
        """Tasks that name us but that we do not know: their claim's answer was lost."""
        if self._next.is_under_way:
            return
        for fence in agents.named(self.store.connection(), self.agent_id):
            if fence.task_id not in self._holding.runs:
                self._answers.submit(GiveBack(fence), nothing)

    def _look_after(self) -> None:
        self._holding.look_after()
        if self._solo and not self._holding.runs:
            self._changed()

    def _replace(self) -> None:
        """A step's thread overran and does not end: leave, so that the process can."""
        if not self._stopping:
            self.stop()

    def _drain(self) -> None:
        if self._stopping == 1:
            self._heartbeat()
            self._holding.drain()
        if self._stopping > 1 or not self._holding.runs:
            self._finish()
            return
        grace = self.settings.grace_seconds if self._grace_seconds is None else self._grace_seconds
        self._timers["grace"] = asyncio.get_running_loop().call_later(grace, self._finish)

    def _finish(self) -> None:
        """Leave in good order: what is still held goes back, nobody suspected."""
        if self._is_finishing:
            return
        self._is_finishing = True
        self._stopping = max(1, self._stopping)
        self._holding.stop()
        left = self._holding.left = [work for work in self._holding.runs.values() if work.is_in_threads] if self._embedded else []
        running = tuple(work.fence.task_id for work in left)
        self._answers.submit(LeaveAgent(self.agent_id, running, self._embedded), lambda _, __: self._stopped.set())
        # A file without room answers nobody: then the store writes what it can as it closes, and the supervisor does the rest.
        self._timers["leave"] = asyncio.get_running_loop().call_later(_LEAVE_SECONDS, self._stopped.set)

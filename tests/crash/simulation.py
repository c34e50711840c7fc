"""A seeded simulation of Outlast's interleavings: who acts next, who dies, who freezes and comes back, and what the clock does.

Owns one simulation: the roles and a person over one file in one process, under a clock that only the simulation moves. At each step
the seed picks who acts next. In the end all faults are off, everything goes on until nothing is due, and the file, the ledger of
outside effects and every move of every task are held against what was promised. A failure names the command that replays it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from outlast import clock
from outlast.clock import SECOND
from outlast.engine import Engine
from outlast.operations.schedules import PassLine
from outlast.scheduler import Scheduler
from outlast.settings import Settings
from outlast.states import FINAL
from outlast.supervisor import Supervisor
from outlast.testing.virtual import VirtualClock

from . import simulated_checks as checks
from . import simulated_work as work
from .simulated_agents import FIRST_PID, SimulatedAgent
from .simulated_gate import Standing
from .simulated_person import Person
from .simulated_roles import ENDED, Figures, RolesStore, SchedulerDied, Watch

LEASE_SECONDS = 6
_MAX_CRASHES = 1_000_000
_WALL_AT = 1_772_366_400 * SECOND
_LAST_SECONDS = 400
_MOST_MOVES = 3000


class Simulation:
    """One seed's. `run` gives what happened, or raises `AssertionError`."""

    def __init__(self, folder: Path, seed: int, *, slots: tuple[int, ...] = (1, 1, 2, 4)) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self._slots = slots
        self.figures = Figures(seeds=1)
        self._instants = [_WALL_AT, 100_000 * SECOND]
        self._path = folder / f"simulation-{seed}.db"
        self._settings = Settings(lease_seconds=LEASE_SECONDS, park_after_seconds=0.0, max_crashes=_MAX_CRASHES)
        self._news = threading.Condition()
        self._watch = Watch()
        self._agents: list[SimulatedAgent] = []
        self._schedulers: list[Scheduler] = []
        self._frozen: dict[SimulatedAgent, int] = {}
        self._missing = 0
        self._acting: SimulatedAgent | None = None
        self._number = 0
        self._acts = {
            self._move: 60,
            self._kill: 2,
            self._freeze: 3,
            self._supervise: 6,
            self._pass_time: 10,
            self._restart: 8,
            self._start_next: 3,
            self._schedule: 2,
            self._ask: 3,
            self._drain: 0.5,
        }
        """Who may act next, and how likely."""
        self.story: list[str] = []
        self.refused: list[tuple[int, int]] = []
        """Tasks and claims under which a write was refused."""
        self.over: dict[int, int] = {}
        """A task that has ended to how many effects there were by then."""

    def run(self) -> Figures:
        work.world = work.World(before_effect=self._before_effect)
        # How long a suspect has waited decides over claims, and must not depend on the machine.
        time = SimpleNamespace(monotonic=lambda: clock.elapsed() / SECOND)
        with clock.use(VirtualClock(self._instants)), mock.patch("outlast.agent.next_claim.time", time):
            self.store = RolesStore(self._path)
            self.engine = Engine.over(self.store, self._settings)
            try:
                checks.prepare(self.store)
                self._begin()
                self._suffer()
                self._carry_to_the_end()
                while self._agents:
                    self._acting = self._agents[-1]
                    self._acting.leave()
                    self._forget(self._acting)
                self.figures.zombies = self.store.zombies
                checks.check(self)
            except BaseException as error:
                error.add_note(f"Replay it: python -m tests.crash.long simulate --seed {self.seed}")
                raise
            finally:
                for scheduler in self._schedulers:
                    scheduler._loop._close()
                for agent in self._agents:
                    agent.die()
                self.engine.close()
        return self.figures

    def _begin(self) -> None:
        self._supervisor = Supervisor(self.store, self._settings)
        self._supervisor._watch = self._watch  # type: ignore[assignment]
        for _ in range(self.chance.choice((2, 2, 3))):
            self._raise_agent()
        self._schedulers = [Scheduler(self.store, work.DEFINED, self._settings) for _ in range(2)]
        self.person = Person(self.engine, self.chance, self._tell)
        self._start_next()

    def _raise_agent(self) -> None:
        self._number += 1
        self._watch.alive.add(FIRST_PID + self._number)
        slots = self.chance.choice(self._slots)
        agent = SimulatedAgent(str(self._path), work.DEFINED, self._settings, self._news, self._number, slots)
        agent.gate.leaves = lambda: self.store.note_losses(agent.agent.agent_id)
        self._agents.append(agent)

    def _before_effect(self, what: str) -> None:
        # Only one agent is under way, and whoever calls this is a thread of it.
        agent = self._acting
        assert agent is not None
        agent.gate.passed(agent.gate.wait(what))

    def _suffer(self) -> None:
        """Let the seed pick, until everything that was to be started has had its time."""
        for _ in range(self.chance.randint(150, 500)):
            self.figures.steps += 1
            self._thaw()
            if not self.person.to_start and self.figures.steps % 10 == 0 and not self._open_runs():
                return
            (act,) = self.chance.choices(list(self._acts), list(self._acts.values()))
            act()

    def _tell(self, what: str) -> None:
        self.story.append(f"{(self._instants[1] - 100_000 * SECOND) / SECOND:8.1f} {what}")

    def _awake(self) -> list[SimulatedAgent]:
        return [agent for agent in self._agents if agent not in self._frozen]

    def _move(self) -> None:
        awake = self._awake()
        if not awake:
            return
        agent = self._acting = self.chance.choice(awake)
        if agent.gate.standing and (not agent.can_look or self.chance.random() < (0.6 if agent.has_room else 0.9)):
            self._go_on(agent, self.chance.choice(agent.standing()))
        elif self.chance.random() < 0.9:
            self._tell(f"agent {agent.number} looks")
            agent.look()
        else:
            agent.renew()

    def _go_on(self, agent: SimulatedAgent, one: Standing, *, dies: str = "") -> None:
        self._tell(f"agent {agent.number}: {one.what}{f', dies {dies} it' if dies else ''}")
        agent.go_on(one, dies=dies)
        self._note_ends()
        if dies:
            return  # Its threads leave the gate as they come to, which must not be looked at.
        if any(stands.what == "Park" for stands in agent.gate.standing) and self.chance.random() < 0.2:
            # Between the look of a run and its lying down.
            self.person.signals_all()
        if one.what == "ContinueAsNew" and self.chance.random() < 0.5:
            # Before the run that goes on has been claimed.
            self.person.starts()
        if one.what == "Claim" and not agent.is_free:
            self._let_a_zombie_go_on()

    def _let_a_zombie_go_on(self) -> None:
        """The moment at which a late write does most harm: another has the task, and has written nothing yet."""
        for zombie in list(self._frozen):
            if zombie in self._frozen and zombie.agent.agent_id in self.store.ended and zombie.gate.standing and self.chance.random() < 0.7:
                self._frozen.pop(zombie)
                self._tell(f"agent {zombie.number} goes on at once")
                before, self._acting = self._acting, zombie
                self._go_on(zombie, self.chance.choice(zombie.standing()))
                self._acting = before

    def _kill(self) -> None:
        if not self._agents:
            return
        agent = self._acting = self.chance.choice(self._agents)
        standing = agent.standing()
        if standing and self.chance.random() < 0.5:
            one = self.chance.choice(standing)
            self._go_on(agent, one, dies=self.chance.choice(("before", "after")) if one.what == "transaction" else "after")
        self.figures.deaths += bool(standing)
        self._tell(f"agent {agent.number} is dead")
        agent.die()
        self._forget(agent)
        self._missing += 1

    def _forget(self, agent: SimulatedAgent) -> None:
        self._agents.remove(agent)
        self._frozen.pop(agent, None)
        self._watch.alive.discard(agent.identity.pid)
        self.figures.refused += len(agent.gate.refused)
        self.refused += [(fence.task_id, fence.claim) for fence in agent.gate.refused if fence is not None]

    def _note_ends(self) -> None:
        for (task_id,) in self.store.connection().execute(ENDED):
            self.over.setdefault(task_id, len(work.world.ledger))

    def _drain(self) -> None:
        awake = self._awake()
        if awake:
            agent = self._acting = self.chance.choice(awake)
            self._tell(f"agent {agent.number} leaves, with {[one.what for one in agent.standing()]}")
            agent.leave()
            self._forget(agent)
            self._missing += 1

    def _freeze(self) -> None:
        awake = [agent for agent in self._awake() if agent.gate.standing]
        # Mostly one that holds something.
        holding = [agent for agent in awake if any(one.what != "Claim" for one in agent.gate.standing)]
        if awake:
            agent = self.chance.choice(holding if holding and self.chance.random() < 0.9 else awake)
            self._frozen[agent] = self.figures.steps + self.chance.randint(10, 80)
            self._tell(f"agent {agent.number} freezes before {[one.what for one in agent.standing()]}")

    def _thaw(self) -> None:
        for agent, until in list(self._frozen.items()):
            if self.figures.steps >= until:
                del self._frozen[agent]
                self._tell(f"agent {agent.number} goes on")

    def _supervise(self) -> None:
        self._tell("the supervisor looks")
        self._supervisor.tick(self.store.now())

    def _pass_time(self) -> None:
        if self._frozen and self.chance.random() < 0.3:
            self._advance(LEASE_SECONDS * 1.3)
        elif self.chance.random() < 0.1:
            self._instants[0] += self.chance.choice((-3600, 3600, -90_000, 90_000)) * SECOND
            self._tell("the wall clock jumps")
        else:
            self._advance(self.chance.choice((0.1, 0.5, 1.0, 3.0)))

    def _advance(self, seconds: float) -> None:
        """Let time pass: who is awake renews, and mostly the supervisor looks."""
        self._tell(f"{seconds:g} s pass")
        stalls = self.chance.random() < 0.15
        while seconds > 0:
            some = min(seconds, 1.0)
            seconds -= some
            self._instants[0] += round(some * SECOND)
            self._instants[1] += round(some * SECOND)
            for agent in self._awake():
                self._acting = agent
                agent.renew()
            if not stalls:
                self._supervisor.tick(self.store.now())

    def _restart(self) -> None:
        if self._missing:
            self._missing -= 1
            self._raise_agent()
            self._tell(f"agent {self._number} begins")

    def _start_next(self) -> None:
        self.person.starts()

    def _ask(self) -> None:
        self.person.acts()

    def _schedule(self) -> None:
        """One of the two schedulers looks. It may die just before or after it decides, or be so slow that the other one comes first."""
        number = self.chance.randrange(2)
        what = self.chance.choice(("", "", "", "dies before", "dies after", "is overtaken"))
        self._tell(f"scheduler {number} looks{what and f', {what}'}")
        self.store.around_decision = partial(self._disturb, number, what) if what else None
        try:
            self._schedulers[number].tick(self.store.now())
        except SchedulerDied:
            self._schedulers[number]._loop._close()
            self._schedulers[number] = Scheduler(self.store, work.DEFINED, self._settings)
        self.store.around_decision = None

    def _disturb(self, number: int, what: str, decide: Callable[[], Any]) -> Any:
        self.figures.schedulers += 1
        if what == "dies before":
            raise SchedulerDied
        if what == "is overtaken":
            # Whatever happens meanwhile, it decides by what it has read.
            self.chance.choice((self._pass_time, self._ask, list))()
            self._schedulers[1 - number].tick(self.store.now())
        decided = decide()
        if what == "dies after":
            raise SchedulerDied
        return decided

    def _carry_to_the_end(self) -> None:
        """All faults are off: go on until everything has ended."""
        self._tell("all faults are off")
        self._frozen.clear()
        while self._missing:
            self._restart()
        while self.person.to_start:
            self._start_next()
        for _ in range(_LAST_SECONDS):
            for agent in self._agents:
                self._work_off(agent)
            self._supervisor.tick(self.store.now())
            # What a scheduler does for the runs in line; its ticks would come for ever.
            self.store.commit(PassLine())
            self.person.clears_up()
            if not self._open_runs():
                return
            self._advance(1.0)
        raise AssertionError(f"these do not end: {self._open_runs()}")

    def _work_off(self, agent: SimulatedAgent) -> None:
        self._acting = agent
        vain = went = 0
        # With one slot, every other look is for suspects alone.
        while vain < 2:
            held = agent.held
            agent.look()
            vain += 1
            while standing := agent.standing():
                vain = vain if standing[0].what == "Claim" else 0
                went += 1
                assert went < _MOST_MOVES, f"agent {agent.number} comes to no end: {agent.told()}"
                self._go_on(agent, standing[0])
            vain = vain if agent.held == held else 0

    def _open_runs(self) -> list[Any]:
        return [tuple(row) for row in self.store.connection().execute(_OPEN)]


_OPEN = f"select uid, name, status, halt_reason from outlast_task where status not in ({', '.join(repr(str(one)) for one in FINAL)})"

"""What the supervisor of a simulation sees, what is kept of the agents that it ended, and the figures.

Owns the knowledge of which simulated process lives, since to the system all of them are this one. A task that its agent lost, with
the claim under which it did, is noted here: only then may a write be refused, or an effect come once more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast.operations import AgentEnded
from outlast.operations.schedules import FireDue, PassLine, Rewind, WriteSchedules
from outlast.store.process import ProcessIdentity
from outlast.testing.quick import QuickStore


@dataclass(slots=True)
class Figures:
    """What happened in a simulation, or in many."""

    seeds: int = 0
    steps: int = 0
    deaths: int = 0
    """Agents that died while they held something or were about to write."""
    zombies: int = 0
    """Live agents whose lease was ended while they held something: frozen, or held up."""
    refused: int = 0
    """Writes of theirs that came too late, and changed nothing."""
    schedulers: int = 0
    """Schedulers that died in the middle of a decision, or were overtaken by the other one."""
    takeovers: int = 0
    """Tasks that were claimed again after an agent had lost them."""
    runs: int = 0
    effects: int = 0
    repeated: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    """In which states runs ended."""

    def add(self, other: Figures) -> None:
        for name in self.__slots__:
            if name != "ended":
                setattr(self, name, getattr(self, name) + getattr(other, name))
        self.ended += other.ended

    def __str__(self) -> str:
        ended = ", ".join(f"{count:,} {status}" for status, count in self.ended.most_common())
        return (
            f"{self.runs:,} runs ({ended}) in {self.steps:,} picks; {self.deaths:,} agents died, {self.zombies:,} lost their lease alive;"
            f" {self.schedulers:,} schedulers died or were overtaken;"
            f" {self.takeovers:,} takeovers, {self.refused:,} late writes refused; {self.effects:,} effects, {self.repeated:,} repeated"
        )


class SchedulerDied(BaseException):
    """The process of a scheduler has died; nothing in it can catch that."""


class Watch:
    """Sees simulated processes die."""

    def __init__(self) -> None:
        self.alive: set[int] = set()

    def follow(self, processes: Iterable[ProcessIdentity]) -> None:
        """All are watched."""

    def fds(self) -> list[int]:
        return []

    def is_dead(self, process: ProcessIdentity) -> bool:
        return process.pid not in self.alive

    def has_unwatched(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing was opened."""


class RolesStore(QuickStore):
    """The store of the supervisor, the scheduler and the person, which keeps in mind whose agents were ended."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, create=True)
        self.zombies = 0
        self.ended: set[int] = set()
        self.losses: Counter[str] = Counter()
        """The tag of a run to how often an agent with a part of it was ended."""
        self.taken_from: set[tuple[int, int]] = set()
        """Tasks with the claims that were lost."""
        self.around_decision: Callable[[Callable[[], Any]], Any] | None = None
        """Is given the next commit in which a scheduler decides something, once."""

    def commit(self, operation: Any) -> Any:
        if isinstance(operation, AgentEnded):
            held = self.note_losses(operation.agent_id)
            self.zombies += held and not operation.seen_dead
            self.ended.add(operation.agent_id)
        around = self.around_decision
        if around is not None and isinstance(operation, _DECISIONS):
            self.around_decision = None
            return around(lambda: super(RolesStore, self).commit(operation))
        return super().commit(operation)

    def note_losses(self, agent_id: int) -> bool:
        """Keep in mind what an agent loses now; whether that is anything."""
        held = self.connection().execute(_HELD, {"agent_id": agent_id}).fetchall()
        self.taken_from.update((task_id, claim) for task_id, claim, _ in held)
        self.losses.update(found.group() for _, _, data in held if (found := _TAG.search(data.decode())))
        return bool(held)


_DECISIONS = (FireDue, PassLine, Rewind, WriteSchedules)
_TAG = re.compile(r"\bt\d+")
_HELD = "select t.id, t.claim, i.data from outlast_task t join outlast_input i on i.task_id = t.id where t.agent_id = :agent_id"
ENDED = "select id from outlast_task where finished_at is not null"

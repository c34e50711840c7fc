"""What an agent claims next: how many tasks, of the suspects or of the others, and whether alone.

Owns how far an agent claims ahead of its threads, and the turn of suspects: a task whose agent crashed runs where nothing else does, so
that the next crash tells whose it was. Refuses to claim, and to wait: that is `agent`'s.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import clock
from ..operations import Claim
from ..store import claiming, next_due

if TYPE_CHECKING:
    from ..definition.code import Code
    from ..run.held import Held
    from ..store.sqlite import SqliteStore
    from .holding import Holding
    from .side_by_side import SideBySide

_SUSPECTS_SECONDS = 1.0
_LARGEST_CLAIM = 256
_PLENTY = 64
"""A claim of as many that came back full is followed by one that does not wait for the next to come back."""
_AHEAD_SECONDS = 0.02
_AGAIN_SECONDS = 0.005
"""When to look again after a claim that found something, but less than there was room for. Sooner, the look would take the interpreter's
lock from what was found; and what is short has ended by then, and has the agent look anyway.
"""


class NextClaim:
    """The claims of one agent; `root_id` limits them to one run and its parts.

    One at a time, and where there is plenty two: the second is in the writer's hands before the first has come back, so that it goes to
    disk with what has ended meanwhile, and the tasks of one are carried out while the other is written. Where agents compete for the turn
    each has one: which of them had more of the processors would else run ahead of the others (of four on two processors, by a third).
    """

    def __init__(
        self,
        store: SqliteStore,
        code: Code,
        holding: Holding,
        *,
        concurrency: int,
        queues: tuple[str, ...] | None,
        root_id: int | None,
        beside: SideBySide | None = None,
    ) -> None:
        self.alone: Held | None = None
        """The suspect that this agent holds: beside it, nothing is claimed."""
        self.taken = 0
        """How many tasks the agent has claimed so far."""
        self._store = store
        self._code = code
        self._holding = holding
        self._concurrency = concurrency
        self._queues = queues
        self._root_id = root_id
        self._beside = beside
        self._under_way: list[Claim] = []
        self._arriving: list[Claim] = []
        """One that has come back with tasks which the agent does not hold yet."""
        self._waits_for_others = False
        self._has_plenty = False
        self._has_found = self._rests_anew = False
        self._suspects_since: float | None = None
        self._looks_for_suspects = False

    @property
    def is_under_way(self) -> bool:
        """Whether a claim has not come back."""
        return bool(self._under_way)

    @property
    def gives_way(self) -> bool:
        """Whether suspects wait for it to be empty, or are beside it; then it may claim again by itself after a while."""
        return self._suspects_since is not None or self._waits_for_others

    @property
    def has_to_wait(self) -> bool:
        """Whether none may be made before one has come back."""
        return len(self._under_way) > self._has_plenty

    @property
    def is_busy(self) -> bool:
        """Whether the agent holds tasks, or may have claimed some."""
        return bool(self._under_way or self._arriving or self._holding.runs)

    @property
    def is_alone(self) -> bool:
        """Whether it holds a suspect, or may have claimed one."""
        return self.alone is not None or any(one.suspects or one.suspects_first for one in (*self._under_way, *self._arriving))

    def make(self, agent_id: int) -> Claim | None:
        """The claim for what is free now, or None where there is no room, or suspects wait for all of it."""
        self._waits_for_others = False
        limit = self._room()
        if limit <= 0:
            return None
        if self._beside is not None:
            with self._beside.claiming:
                if self._beside.others_of(self):
                    suspects = self._beside.may_claim(self, has_suspects=self.has_suspects(), gives_way=_gives_way)
                    self._waits_for_others = suspects is None
                    return None if suspects is None else self._claim(agent_id, 1 if suspects else limit, suspects, suspects)
        is_idle = self._root_id is None and self._concurrency > 1 and not (self._holding.runs or self._under_way)
        # What is idle needs no look beforehand: the claim itself sees whether suspects are due.
        alone, suspects = (False, False) if is_idle else self._mode()
        if alone is None or (alone and self._under_way):
            return None
        if is_idle:
            self._suspects_since = None
            self._has_plenty = False  # Nothing is claimed beside what may come back with a suspect.
        return self._claim(agent_id, 1 if alone else limit, alone, suspects, suspects_first=is_idle)

    def _claim(self, agent_id: int, limit: int, alone: bool, suspects: bool, *, suspects_first: bool = False) -> Claim:
        claim = Claim(
            agent_id,
            limit,
            self._code.fingerprints,
            queues=self._queues,
            root_id=self._root_id,
            alone=alone,
            suspects=suspects,
            suspects_first=suspects_first,
            taken=self.taken,
        )
        self._under_way.append(claim)
        return claim

    def close(self) -> None:
        """The agent has ended."""
        if self._beside is not None:
            self._beside.leave(self)

    def came_back(self, claim: Claim, count: int) -> None:
        """A claim was answered, by so many tasks."""
        self._arriving = [claim] if count > 0 else []  # Said first: those beside it must not find it idle until it holds them.
        self._under_way.remove(claim)
        self._has_found = count > 0
        self._has_plenty = count == claim.limit >= _PLENTY and not claim.suspects and not self._store.turn.is_shared
        self.taken += count
        if self._beside is not None and count == 0:
            self._beside.found_nothing(self)

    def took(self, claim: Claim, taken: Sequence[Held]) -> None:
        """The agent holds what a claim gave it; of a suspect it is one, and that alone."""
        if taken and taken[0].claimed.alone and (claim.suspects or claim.suspects_first):
            self.alone = taken[0]
        self._arriving = []

    def see_whether_alone_has_left(self) -> None:
        if self.alone is not None and self.alone.fence.task_id not in self._holding.runs:
            self.alone = self._suspects_since = None

    def has_suspects(self) -> bool:
        """Whether one is due that this agent has the code of."""
        return claiming.has_suspects(self._store.connection(), self._code.fingerprints, self._queues, now=self._store.now())

    def next_look(self) -> tuple[float | None, bool]:
        """In how many seconds to look again, None where nothing will be due by itself; and whether only to rest anew, since a claim would
        most likely be in vain: it would hold the write lock, and for as long as a process that is stopped in it.
        """
        if self._has_found:
            self._has_found, self._rests_anew = False, True
            return _AGAIN_SECONDS, True
        rests_anew, self._rests_anew = self._rests_anew, False
        due_at = next_due.next_due_at(self._store.connection(), self._code.fingerprints, self._queues, now=self._store.now())
        if due_at is None:
            return None, False
        left = (due_at - self._store.now()) / clock.SECOND
        if left > 0:
            return min(max(left, 0.0005), 3600.0), False
        # Due already: come meanwhile; or found by the last claim and yet not taken, since it is refused, a suspect, or of another root.
        return 0.0 if rests_anew else 0.5, False

    def _room(self) -> int:
        """How many tasks to claim: one for each free slot, and some ahead where tasks are short."""
        if self.alone is not None:
            return 0
        runners = self._holding.runners
        backlog = self._holding.backlog + sum(claim.limit for claim in self._under_way)
        if not (runners.is_short and self._concurrency > 1):
            return self._holding.slots.free - backlog
        ahead = min(2 * _LARGEST_CLAIM, int(_AHEAD_SECONDS / max(runners.seconds, 1e-5)))
        # In few large batches: a claim costs more around its tasks than for each.
        return 0 if backlog > ahead // 2 else min(_LARGEST_CLAIM, self._holding.slots.free + ahead - backlog)

    def _mode(self) -> tuple[bool | None, bool]:
        """(alone, suspects) of the next claim, or None for no claim. A suspect runs only where nothing else does."""
        if self._root_id is not None:
            # With nothing else held the process is that task's alone, whatever room there is for the parts of its run.
            return self._concurrency == 1 or not (self._holding.runs or self._under_way), False
        if self._concurrency == 1:
            self._looks_for_suspects = not self._looks_for_suspects
            return True, self._looks_for_suspects
        if not self.has_suspects():
            self._suspects_since = None
            return False, False
        if not self._holding.runs:
            return None, False  # Idle, once the claim that is under way has come back.
        now = time.monotonic()
        if self._suspects_since is None:
            self._suspects_since = now
        return (None, False) if _gives_way(now - self._suspects_since) else (False, False)


def _gives_way(seconds: float) -> bool:
    """Whether an agent that is never idle takes nothing new, so as to be empty for a suspect that has waited so long.

    It does so every other turn, each pair of which is twice as long as the pair before: what it holds may end in an hour, and nobody else
    is to wait for that.
    """
    turns = 1 + seconds / _SUSPECTS_SECONDS
    return turns > 2 and math.frexp(turns)[0] < 0.75

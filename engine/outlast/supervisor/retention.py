"""Retention: old runs and ticks go by themselves, in batches so small that no agent notices.

Owns the pace: a pass walks through the runs from the oldest on, one small transaction after the other with pauses between, and begins
anew after a while. Refuses to judge by the wall clock how old a run is: a clock that jumps a year ahead prunes nothing. Any number of
supervisors may do this at once; whoever is second finds nothing.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from .. import clock
from ..clock import SECOND
from ..errors import StoreError
from ..operations.retention import Discard, Prune, PruneAgents
from ..operations.schedules import PruneTicks
from ..states import Status
from ..store import pruning, ticks

if TYPE_CHECKING:
    from ..settings import Settings
    from ..store.sqlite import SqliteStore

log = logging.getLogger("outlast")

KEPT_FOR_A_TIME = (str(Status.COMPLETED), str(Status.CANCELLED))
"""What goes by itself. What ended badly stays until a person says otherwise."""

_FIRST_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
_LONGEST_SECONDS = 3600.0
_SHORTEST_SECONDS = 1.0
_CHUNK = 2_000
_BATCH = 50
_TICKS = 500
_PAGES = 500
_SPARE_PAGES = 2_000
"""Free pages that stay for what is to come."""
_OTHERS_SHARE = 3
_LONGEST_PAUSE_SECONDS = 0.5


class Retention:
    """One pass after the other over a file. `tick` from one thread only."""

    def __init__(self, store: SqliteStore, settings: Settings) -> None:
        self._store = store
        self._kept_seconds = settings.retention_seconds
        self._next_at: int | None = None
        self._walk: Walk | None = None

    def tick(self, now: int) -> float:
        """Do a little, if it is time; gives the seconds until the next."""
        if self._next_at is None:
            self._next_at = now + round(min(_FIRST_SECONDS, self._pace()) * SECOND)
        if now < self._next_at:
            return (self._next_at - now) / SECOND
        try:
            delay_seconds = self._step()
        except StoreError as error:
            # Whoever supervises has more important things to do than to make room; and a full disk passes.
            log.debug("nothing was pruned: %s", error)
            self._walk, delay_seconds = None, max(_PAUSE_SECONDS * 100, self._pace())
        self._next_at = now + round(delay_seconds * SECOND)
        return delay_seconds

    def _step(self) -> float:
        if self._walk is None:
            self._walk = Walk(self._store, kept_seconds=self._kept_seconds, statuses=KEPT_FOR_A_TIME)
        if self._walk.step() or give_back_some(self._store, spare=_SPARE_PAGES):
            return _PAUSE_SECONDS
        self._walk = None
        return self._pace()

    def _pace(self) -> float:
        """A tenth of the shortest time for which anything is kept."""
        shortest = min([self._kept_seconds, *pruning.by_workflow(self._store.connection()).values()])
        return min(_LONGEST_SECONDS, max(_SHORTEST_SECONDS, shortest / 10))


class Courtesy:
    """Leaves most of the disk to others while others are at work: a walk by hand goes as fast as it can where nobody is."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._version = store.data_version()
        self._since = time.perf_counter()

    def give_way(self) -> None:
        """Pause for some times as long as the last piece took, if somebody else has committed since."""
        took = time.perf_counter() - self._since
        version = self._store.data_version()
        if version != self._version:
            time.sleep(min(_OTHERS_SHARE * took, _LONGEST_PAUSE_SECONDS))
        self._version, self._since = version, time.perf_counter()


class Walk:
    """One walk through the file. `runs` and `ticks` count what went."""

    def __init__(
        self,
        store: SqliteStore,
        *,
        kept_seconds: float,
        statuses: tuple[str, ...],
        workflow: str | None = None,
        heeds_workflows: bool = True,
        with_ticks: bool = True,
    ) -> None:
        """`heeds_workflows`: what a workflow's own code says goes before `kept_seconds`."""
        self._store = store
        self._statuses = statuses
        self._workflow = workflow
        now = store.now()
        self._now = now
        self._before = now - round(kept_seconds * SECOND)
        self._ticks_before = clock.wall() - round(kept_seconds * SECOND)
        kept = pruning.by_workflow(store.connection()) if heeds_workflows else {}
        self._by_workflow = {name: round(seconds * SECOND) for name, seconds in kept.items()}
        self._after = 0
        self._pending: list[int] = []
        self._is_over = False
        self._has_ticks = with_ticks
        self.runs = 0
        self.ticks = 0

    def step(self) -> bool:
        """Do a little; false once the walk is over and nothing is left of what it pruned."""
        if self._store.commit(Discard()):
            return True
        if self._pending or self._look():
            if self._pending:
                done = self._store.commit(Prune(tuple(self._pending[:_BATCH])))
                self._pending = self._pending[done.looked_at :]
                self.runs += done.runs
            return True
        if self._has_ticks:
            count = self._store.commit(PruneTicks(self._ticks_before, _TICKS))
            self.ticks += count
            self._has_ticks = count == _TICKS
            if not self._has_ticks:
                self._store.commit(PruneAgents(self._before))
            return True
        return False

    def count(self) -> tuple[int, int]:
        """How many runs and ticks would go; nothing is changed."""
        connection = self._store.connection()
        runs = 0
        while self._look():
            runs += sum(not pruning.is_needed(connection, task_id) for task_id in self._pending)
        return runs, ticks.count_old(connection, self._ticks_before) if self._has_ticks else 0

    def _look(self) -> bool:
        """Look at the next runs; false where there are no more."""
        if self._is_over:
            return False
        chunk = pruning.candidates(
            self._store.connection(),
            after=self._after,
            limit=_CHUNK,
            now=self._now,
            before=self._before,
            by_workflow=self._by_workflow,
            statuses=self._statuses,
            workflow=self._workflow,
        )
        self._after, self._is_over, self._pending = chunk.last_id, chunk.is_last, chunk.runs
        return True


def give_back_some(store: SqliteStore, *, spare: int) -> bool:
    """Give some of the file's free room back to the disk; false where there is no more than `spare` pages."""
    connection = store.connection()
    free, _, is_possible = pruning.free_pages(connection)
    if not is_possible or free <= spare:
        return False
    with store.transaction(connection):
        pruning.give_back(connection, min(_PAGES, free - spare))
    return True

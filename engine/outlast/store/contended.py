"""What a claim looks at in queues that have limits or partitions: who may go next, and in which place.

Owns the choice among their tasks for one claim, and what the claim leaves behind: starts that a rate counts, and
whose turn it was. Refuses queues without limits and partitions: those go by priority and due instant alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from . import queues, turns
from .places import Places
from .transaction import Transaction
from .turns import Candidate, Pool
from .walk import Combination

if TYPE_CHECKING:
    from .library import sqlite3

Found = tuple[int, int, int, int, str, Candidate | None]
"""By what claims are ordered (the priority negated, the due instant, a rank), then id, code, and what limits need to know."""

REFUSED = -1
"""No place: the limits hold the task back."""


class Contention:
    """The queues with limits or partitions, during one claim."""

    def __init__(self, connection: sqlite3.Connection, *, now: int, are_limited: bool = True) -> None:
        """Without `are_limited`, no queue of the file has limits."""
        self._connection = connection
        self.now = now
        self._limits = queues.limited(connection) if are_limited else {}
        self._places: dict[str, Places] = {}
        self._plain: dict[str, list[Combination]] = defaultdict(list)
        self._partitioned: dict[str, list[Combination]] = {}
        self._served: dict[str, str] = {}
        self._stopped_at: dict[str, str] = {}

    def expect(self, partitioned: Iterable[Combination]) -> None:
        """These are the combinations that have tasks with a partition."""
        for combination in partitioned:
            self._partitioned.setdefault(combination[0], []).append(combination)

    def concerns(self, queue: str) -> bool:
        return queue in self._limits or queue in self._partitioned

    def add(self, combination: Combination) -> None:
        """A combination of a queue that this concerns has tasks without a partition."""
        self._plain[combination[0]].append(combination)

    def places(self, queue: str) -> Places | None:
        """The places of a queue with limits; None where it has none."""
        limits = self._limits.get(queue)
        if limits is None:
            return None
        if queue not in self._places:
            self._places[queue] = Places(self._connection, limits, now=self.now)
        return self._places[queue]

    def has_places(self, queue: str) -> bool:
        return self._limits[queue].has_places

    def found(self, code: Collection[str], *, limit: int) -> list[Found]:
        """The tasks that may be taken, in the order of their queues' turns."""
        found: list[Found] = []
        for queue in {**self._plain, **self._partitioned}:
            candidates = self._candidates(queue, code, limit=limit)
            after = turns.last_served(self._connection, queue) if queue in self._partitioned else ""
            found += [
                (-priority, due_at, rank, candidate.task_id, candidate.needs, candidate)
                for rank, (priority, due_at, candidate) in enumerate(turns.in_turn(candidates, after=after))
            ]
        return found

    def _candidates(self, queue: str, code: Collection[str], *, limit: int) -> list[Candidate]:
        places = self.places(queue)
        if places is None:
            return self._due(queue, None, limit=limit)
        candidates = places.coming_back(frozenset(code), limit=limit)
        if places.may_start:
            seen = {candidate.task_id for candidate in candidates}
            candidates += [candidate for candidate in self._due(queue, places, limit=places.room(limit)) if candidate.task_id not in seen]
        return candidates

    def _due(self, queue: str, places: Places | None, *, limit: int) -> list[Candidate]:
        full = places.full_partitions() if places is not None else []
        skips_kept = places is not None and places.limits.keeps_place and places.limits.has_places
        listed = json.dumps(full)
        candidates: list[Candidate] = []
        for combination in self._plain.get(queue, ()) if "" not in full else ():
            pool = Pool(*combination, self.now, listed, skips_kept)
            candidates += turns.without_partition(self._connection, pool, limit=limit)
        for combination in self._partitioned.get(queue, ()):
            pool = Pool(*combination, self.now, listed, skips_kept)
            after = turns.last_served(self._connection, queue)
            heads, stopped_at = turns.with_partition(self._connection, pool, limit=limit, after=after)
            candidates += heads
            if stopped_at is not None:
                self._stopped_at[queue] = stopped_at
        return candidates

    def as_they_are(self, rows: Iterable[Any], code: Collection[str]) -> list[Found]:
        """What is due of one run and its parts, or suspected, without turns; of queues without limits no more need be known."""
        found: list[Found] = []
        for task_id, due_at, partition, is_start, slot, parent_id, queue, priority, needs in rows:
            if needs not in code:
                continue
            candidate = None
            if queue in self._limits:
                candidate = Candidate(task_id, due_at, partition or "", bool(is_start), slot, parent_id, queue, priority, needs)
            found.append((-priority, due_at, task_id, task_id, needs, candidate))
        return found

    def place_for(self, candidate: Candidate) -> int | None:
        """The place that a task would use: `REFUSED` where there is none for it, None where its queue has no limits."""
        places = self.places(candidate.queue)
        if places is None:
            return None
        place = places.place_for(candidate)
        return REFUSED if place is None else place

    def take(self, candidate: Candidate, place: int | None) -> None:
        """Count a task that was claimed."""
        if place is not None:
            self._places[candidate.queue].take(candidate, place)
        if candidate.queue in self._partitioned:
            self._served[candidate.queue] = candidate.partition

    def record(self, transaction: Transaction) -> None:
        """Write down what later claims need to know."""
        for places in self._places.values():
            places.record(transaction)
        for queue, partition in self._served.items():
            # Where nothing was taken, nothing is written: each write has the other agents look, and each of them would write.
            turns.serve(transaction, queue, self._stopped_at.get(queue, partition))

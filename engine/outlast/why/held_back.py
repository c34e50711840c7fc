"""Why limits hold back a task that is due: a paused queue, a full one, a partition, a rate, a run of its unique key.

Owns the sentences, each with its number. Refuses to say anything where the limits would let the task go: then the
cause is another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import clock
from ..store import queues
from ..store.places import Places
from ..store.queues import Limits
from ..store.turns import Candidate
from ..store.uniqueness import run_before
from ..text.duration import describe
from ..views.values import wall_json

if TYPE_CHECKING:
    from ..store.library import sqlite3
    from ..store.sqlite import SqliteStore
    from ..views.task_facts import TaskFacts
    from .unclaimed import Text


def why_held_back(store: SqliteStore, facts: TaskFacts, due_at: int, text: Text, *, what: str) -> bool:
    """Complete the explanation of a row that is due, if limits hold it back; else leave it and give false."""
    connection, now = store.connection(), store.now()
    limits = queues.limited(connection).get(facts.queue)
    if limits is None:
        return False
    if limits.paused_at is not None:
        text.summary = f"{what} is due, but the queue {limits.queue!r} is paused since {wall_json(limits.paused_at)}."
        text.actions.append(f"outlast queue resume {limits.queue}")
        return True
    places = Places(connection, limits, now=now)
    candidate = Candidate(
        facts.id, due_at, facts.partition or "", facts.started_at is None, facts.slot,
        facts.parent_id, facts.queue, facts.priority, facts.needs,
    )  # fmt: skip
    if places.place_for(candidate) is not None:
        return False
    name = f"the queue {limits.queue!r}"
    if candidate.is_start and places.starts_left == 0:
        wait = describe((queues.next_start_at(connection, limits, now=now) - now) / clock.SECOND)
        text.summary = f"{what} is due, but {name} starts no more than {limits.rate}; the next may start in {wait}."
    elif places.uses_kept_place(candidate):
        text.summary = f"{what} is due, but another task of its run uses the place that the run has in {name}."
    elif places.places_left == 0:
        all_of_it = "its only place is" if limits.concurrency == 1 else f"all {limits.concurrency} places are"
        held = f"{all_of_it} taken ({places.taken} {_by(limits)})"
        text.summary = f"{what} is due, but {name} is full: {held}."
        _tell_holders(connection, limits, text)
    else:
        partition = f"the partition {candidate.partition!r}" if candidate.partition else "no partition"
        count = places.held_by(candidate.partition)
        text.summary = f"{what} is due, but {name} lets {limits.per_partition} of {partition} go at once: {count} {_by(limits)}."
    text.actions.append(f"outlast queue set {limits.queue} ... (other limits)")
    return True


_HOLDERS = """
select case h.kind when 'step' then p.uid else h.uid end, case h.kind when 'step' then h.name end, h.status
from outlast_task h left join outlast_task p on p.id = h.parent_id
where h.id in (select t.slot from outlast_task t
               where t.queue = :queue and t.slot is not null and (t.agent_id is not null or (:kept and t.finished_at is null)))
order by h.id limit 3
"""


def _tell_holders(connection: sqlite3.Connection, limits: Limits, text: Text) -> None:
    """Who has the places, the first few: with `hold="unfinished"`, one that waits keeps its own, and two queues can wait for each other."""
    rows = connection.execute(_HOLDERS, {"queue": limits.queue, "kept": limits.keeps_place}).fetchall()
    for uid, step, status in rows:
        who = uid if step is None else f"the step {step} of run {uid}"
        text.details.append(f"One is held by {who}, which is {status}.")
    if limits.keeps_place:
        text.actions += dict.fromkeys(f"outlast why {uid}" for uid, _, _ in rows)


def _by(limits: Limits) -> str:
    return "not ended" if limits.keeps_place else "running"


def why_not_yet(store: SqliteStore, facts: TaskFacts, text: Text, *, what: str) -> bool:
    """Complete the explanation of a run that waits for the end of another of its unique key; else give false."""
    before = run_before(store.connection(), facts.id)
    if before is None:
        return False
    uid, status, unique_key = before
    text.summary = f"{what} waits for the end of run {uid}, which has the same unique key {unique_key!r} and is {status}."
    text.actions.append(f"outlast why {uid}")
    return True

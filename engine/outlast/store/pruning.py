"""Pruning: runs that nobody needs any more are taken out of the file, a little at a time.

Owns what may go, what somebody still needs, and the deletion in three stages: a look without a lock, a small transaction that takes
runs out of sight, and others that delete their rows bit by bit. Refuses whatever an unfinished run may come back to. If the
process dies anywhere, the file is sound, and the next to prune goes on.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..operations.retention import DeclareRetention, Discard, Prune, PruneAgents, Pruned
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

_SET = """
insert into outlast_retention (workflow, seconds) values (:workflow, :seconds)
on conflict (workflow) do update set seconds = excluded.seconds where seconds <> excluded.seconds
"""
_UNSET = "delete from outlast_retention where workflow = :workflow"


def declare(transaction: Transaction, operation: DeclareRetention) -> None:
    """Bring what code says about its workflows into the file. Where nothing has changed, nothing is written."""
    known = by_workflow(transaction.connection)
    for workflow, seconds in operation.seconds.items():
        if known.get(workflow) == seconds:
            continue
        transaction.execute(_UNSET if seconds is None else _SET, {"workflow": workflow, "seconds": seconds})


_RETENTION = "select workflow, seconds from outlast_retention"


def by_workflow(connection: sqlite3.Connection) -> dict[str, float]:
    """How long the runs of a workflow are kept, in seconds, where its code says so."""
    return dict(connection.execute(_RETENTION).fetchall())


# `copied`: what came of a part is in the journal of whoever waits for it.
_CANDIDATES = """
with chunk as materialized (
  select id, uid, name, status, ended_at, parent_id, parent_path from outlast_task
  where id > :after and kind = 'run' order by id limit :limit)
select t.id, t.parent_id, t.parent_path, t.status
from chunk t
where t.status in (select value from json_each(:statuses))
  and (:workflow is null or t.name = :workflow)
  and t.ended_at <= coalesce(
    (select :now - value from json_each(:by_workflow) where key = t.name), :before)
  and not exists (select 1 from outlast_task part where part.parent_id = t.id and part.finished_at is null)
  and not exists (select 1 from outlast_stray s where s.task_id = t.id)
"""

_LAST_OF_CHUNK = """
select max(id), count(*) from (
  select id from outlast_task
  where id > :after and kind = 'run' order by id limit :limit)
"""

_OPEN_PARENT = "select 1 from outlast_task where id = :id and finished_at is null"

# Since its place was set aside last: before, another child was there.
_COPIED = """
with aside(path, seq) as materialized (
  select path, max(seq) from outlast_journal where task_id = :id and event = 'set_aside' group by path)
select j.path, max(j.event <> 'cancelled') from outlast_journal j
where j.task_id = :id and j.event in ('completed', 'failed', 'cancelled')
  and j.seq > coalesce((select a.seq from aside a where a.path = j.path), j.seq - 1)
group by j.path
"""


class Chunk:
    """Where a walk through the runs, the oldest first, stands."""

    def __init__(self, last_id: int, is_last: bool, runs: list[int]) -> None:
        self.last_id = last_id
        self.is_last = is_last
        self.runs = runs


def candidates(
    connection: sqlite3.Connection,
    *,
    after: int,
    limit: int,
    now: int,
    before: int,
    by_workflow: dict[str, int],
    statuses: tuple[str, ...],
    workflow: str | None = None,
) -> Chunk:
    """Look at the next `limit` runs after an id: which of them ended before an engine instant, and are not needed.

    `by_workflow` gives the microseconds for which a workflow's runs are kept, where they differ. Nothing is locked; `prune` looks
    again at what may have changed since.
    """
    parameters = {
        "after": after,
        "limit": limit,
        "now": now,
        "before": before,
        "by_workflow": json.dumps(by_workflow),
        "statuses": json.dumps(statuses),
        "workflow": workflow,
    }
    last_id, count = connection.execute(_LAST_OF_CHUNK, parameters).fetchone()
    if not count:
        return Chunk(after, True, [])
    found = connection.execute(_CANDIDATES, parameters).fetchall()
    copies: dict[int, dict[str, bool] | None] = {}
    runs = [
        task_id
        for task_id, parent_id, path, status in found
        if parent_id is None or _is_copied(connection, copies, parent_id, path, status)
    ]
    return Chunk(last_id, count < limit, runs)


def _is_copied(connection: sqlite3.Connection, copies: dict[int, dict[str, bool] | None], parent_id: int, path: str, status: str) -> bool:
    """Whether a parent has ended, or has in its journal what came of this child."""
    if parent_id not in copies:
        is_open = connection.execute(_OPEN_PARENT, {"id": parent_id}).fetchone() is not None
        rows = connection.execute(_COPIED, {"id": parent_id}).fetchall() if is_open else []
        copies[parent_id] = {row[0]: bool(row[1]) for row in rows} if is_open else None
    known = copies[parent_id]
    # A child that was written off as cancelled may have completed before the cancel came to it: the undo asks for that.
    return known is None or (path in known and (known[path] or status == "cancelled"))


_STILL_GOES = """
select t.id from outlast_task t join outlast_input i on i.task_id = t.id
where t.id = :id and t.kind = 'run' and t.finished_at is not null
  and not exists (select 1 from outlast_task part where part.parent_id = t.id and part.finished_at is null)
  and not exists (
    select 1 from outlast_input r join outlast_task u on u.id = r.task_id
    where r.chain = i.chain and r.retry_of is not null and u.kind = 'run' and u.finished_at is null)
  and not exists (
    select 1 from outlast_inherited h join outlast_task u on u.id = h.task_id
    where h.uid = t.uid and h.event is null and u.finished_at is null)
  -- A retry tells that the runs before it were retried, for as long as one of them is there.
  and (i.retry_of is null or not exists (select 1 from outlast_task first where first.uid = i.chain)
       and not exists (
         select 1 from outlast_input b where b.chain = i.chain and b.retry_of is not null and b.task_id < t.id
           and exists (select 1 from outlast_task before where before.id = b.task_id and before.kind = 'run')))
  -- What goes on by continue_as_new goes in the order of its line, so that a handle never leads to nothing.
  and not exists (
    select 1 from outlast_outcome o join outlast_task b on b.id = o.task_id where o.successor_id = t.id)
  and not exists (
    select 1 from outlast_follower f join outlast_task p on p.id = f.parent_id
    where f.task_id = t.id and p.finished_at is null
      and not exists (
        select 1 from outlast_journal j
        where j.task_id = p.id and j.path = f.path and j.event in ('completed', 'failed', 'cancelled')))
"""

_HIDE = """
insert into outlast_pruned (task_id)
select id from outlast_task where id = :id or (parent_id = :id and kind = 'step')
"""

_MARK_TICK = """
update outlast_tick set run_pruned = 1, place = null where run_id = (select uid from outlast_task where id = :id)
"""

_DROP_TASKS = "delete from outlast_task where id = :id or (parent_id = :id and kind = 'step')"
_DROP_KEYS = "delete from outlast_key where task_id = :id"
_DROP_FOLLOWERS = "delete from outlast_follower where task_id = :id or parent_id = :id"
_DROP_DEBOUNCE = "delete from outlast_debounce where task_id = :id"
_DROP_PLACE = "delete from outlast_successor where task_id = :id"


def is_needed(connection: sqlite3.Connection, task_id: int) -> bool:
    """Whether somebody may still come back to a final run, or it is none."""
    return connection.execute(_STILL_GOES, {"id": task_id}).fetchone() is None


def prune(transaction: Transaction, operation: Prune) -> Pruned:
    """Take runs out of sight. Their rows are `discard`'s; what has come to be needed since it was chosen stays."""
    pruned = rows = looked_at = 0
    for task_id in operation.runs:
        if rows >= operation.rows:
            break
        looked_at += 1
        if is_needed(transaction.connection, task_id):
            continue
        place = {"id": task_id}
        for statement in (_HIDE, _MARK_TICK, _DROP_KEYS, _DROP_FOLLOWERS, _DROP_DEBOUNCE, _DROP_PLACE):
            transaction.execute(statement, place)
        rows += transaction.execute(_DROP_TASKS, place).rowcount
        pruned += 1
    return Pruned(pruned, looked_at)


_PRUNED = "select task_id from outlast_pruned where is_gone = 0 order by task_id limit 50"
_IS_GONE = "update outlast_pruned set is_gone = 1 where task_id = :id"
_FORGET = "delete from outlast_pruned where is_gone = 1 and task_id < (select max(task_id) from outlast_pruned)"

_JOURNAL = """
select seq, coalesce(length(input), 0) + coalesce(length(data), 0) from outlast_journal where task_id = :id order by seq limit :rows
"""
_DROP_JOURNAL = "delete from outlast_journal where task_id = :id and seq <= :last"

_STREAM = "select stream, number, length(value) from outlast_stream where task_id = :id order by stream, number limit :rows"
_DROP_STREAM = "delete from outlast_stream where task_id = :id and (stream, number) <= (:stream, :last)"

_SIGNALS = "select id, length(payload) from outlast_signal where task_id = :id order by id limit :rows"
_DROP_SIGNALS = "delete from outlast_signal where task_id = :id and id <= :last"

_INHERITED = """
select path, coalesce(length(input), 0) + coalesce(length(data), 0) from outlast_inherited where task_id = :id order by path limit :rows
"""
_DROP_INHERITED = "delete from outlast_inherited where task_id = :id and path <= :last"

_PUBLISHED = "select key, length(value) from outlast_published where task_id = :id order by key limit :rows"
_DROP_PUBLISHED = "delete from outlast_published where task_id = :id and key <= :last"

_DROP_INPUT = "delete from outlast_input where task_id = :id"
_DROP_OUTCOME = "delete from outlast_outcome where task_id = :id"

_ROWS_OF = (
    (_JOURNAL, _DROP_JOURNAL),
    (_SIGNALS, _DROP_SIGNALS),
    (_INHERITED, _DROP_INHERITED),
    (_PUBLISHED, _DROP_PUBLISHED),
)


def discard(transaction: Transaction, operation: Discard) -> int:
    """Delete up to so many rows, or bytes, of what was pruned; gives how many, 0 when nothing is left."""
    budget = _Budget(operation.rows, operation.bytes)
    for (task_id,) in transaction.execute(_PRUNED).fetchall():
        if not _discard_one(transaction, task_id, budget):
            break
    if budget.spent_rows:
        transaction.execute(_FORGET, {})
    return budget.spent_rows


class _Budget:
    """What one transaction may still delete."""

    def __init__(self, rows: int, size: int) -> None:
        self.rows = rows
        self.bytes = size
        self.spent_rows = 0

    @property
    def is_spent(self) -> bool:
        return self.rows <= 0 or self.bytes <= 0

    def spend(self, size: int) -> None:
        self.rows -= 1
        self.bytes -= size
        self.spent_rows += 1


def _discard_one(transaction: Transaction, task_id: int, budget: _Budget) -> bool:
    """Whether nothing is left of a task."""
    place = {"id": task_id}
    for look, drop in _ROWS_OF:
        last = None
        for key, size in transaction.execute(look, {**place, "rows": budget.rows}).fetchall():
            if budget.is_spent:
                break
            last = key
            budget.spend(size)
        if last is not None:
            transaction.execute(drop, {**place, "last": last})
        if budget.is_spent:
            return False
    if not _discard_stream(transaction, task_id, budget):
        return False
    budget.spend(0)
    transaction.execute(_DROP_INPUT, place)
    transaction.execute(_DROP_OUTCOME, place)
    transaction.execute(_IS_GONE, place)
    return not budget.is_spent


def _discard_stream(transaction: Transaction, task_id: int, budget: _Budget) -> bool:
    last = None
    for stream, number, size in transaction.execute(_STREAM, {"id": task_id, "rows": budget.rows}).fetchall():
        if budget.is_spent:
            break
        last = stream, number
        budget.spend(size)
    if last is not None:
        transaction.execute(_DROP_STREAM, {"id": task_id, "stream": last[0], "last": last[1]})
    return not budget.is_spent


# Never the newest: an id that was given again would let a process that slept for long speak for another.
_OLD_AGENTS = """
delete from outlast_agent
where status in ('stopped', 'lost', 'crashed') and lease_until < :before and id < (select max(id) from outlast_agent)
  and not exists (select 1 from outlast_task t where t.agent_id = outlast_agent.id)
  and not exists (select 1 from outlast_stray s where s.agent_id = outlast_agent.id)
"""
_CODE_OF_NOBODY = "delete from outlast_agent_code where agent_id not in (select id from outlast_agent)"


def prune_agents(transaction: Transaction, operation: PruneAgents) -> int:
    """Forget agents that ended long ago. One whose try may still run somewhere is kept."""
    pruned: int = transaction.execute(_OLD_AGENTS, {"before": operation.before}).rowcount
    if pruned:
        transaction.execute(_CODE_OF_NOBODY, {})
    return pruned


_FREE = "pragma freelist_count"
_PAGES = "pragma page_count"
_MODE = "pragma auto_vacuum"
_INCREMENTAL = 2


def free_pages(connection: sqlite3.Connection) -> tuple[int, int, bool]:
    """(free pages, all pages, whether they can be given back by and by)."""
    return (
        connection.execute(_FREE).fetchone()[0],
        connection.execute(_PAGES).fetchone()[0],
        connection.execute(_MODE).fetchone()[0] == _INCREMENTAL,
    )


def give_back(connection: sqlite3.Connection, pages: int) -> None:
    """Move some free pages out of the file; within a write transaction, so that it takes its turn."""
    # A pragma takes no parameters.
    connection.execute(f"pragma incremental_vacuum({int(pages)})").fetchall()


def vacuum(connection: sqlite3.Connection) -> None:
    """Rewrite the whole file without its free room; from then on room can be given back by and by. Nobody writes meanwhile."""
    connection.execute("pragma auto_vacuum = incremental")
    connection.execute("vacuum")
    connection.execute("pragma wal_checkpoint(truncate)").fetchall()

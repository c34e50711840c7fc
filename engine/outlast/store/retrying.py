"""Retries of whole runs: a final run is run anew as another run, which inherits what stands.

Owns the choice of the run that a retry goes on from (the newest of its chain), the rows of what it inherits, and the same for
the children that had failed in it. Refuses a run that has not ended. Look and start are one transaction, so two retries at once
cannot both find nobody; if the process dies before the commit, nothing was retried.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..errors import Conflict, RunNotFound, StepNotFound
from ..journal.entry import Entry
from ..journal.inheritance import Inherited, began, choose, inherit
from ..model import workflow_code
from ..operations import Start, Started, StartRetry
from ..states import FINAL, Status
from . import journal, succession, undoing
from .starting import start
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

_FIND = """
select t.id, t.uid, t.status, i.chain, i.retry_of is not null from outlast_task t join outlast_input i on i.task_id = t.id
where t.uid = :uid and t.kind = 'run'
"""

_NEWEST_RETRY = """
select t.uid from outlast_input i join outlast_task t on t.id = i.task_id
where i.chain = :chain and i.retry_of is not null and t.kind = 'run' order by t.id desc limit 1
"""


class _Run:
    """A run that is looked at: its row, its id, its status, the first of its chain, and whether it is a retry itself."""

    def __init__(self, row: tuple[Any, ...]) -> None:
        self.task_id: int = row[0]
        self.uid: str = row[1]
        self.status = Status(row[2])
        self.chain: str = row[3]
        self.is_retry = bool(row[4])


def retry(transaction: Transaction, operation: StartRetry) -> Started:
    """Start a final run anew, or give back the unfinished retry of its chain."""
    named = _last_of_line(transaction.connection, operation.retried)
    if named is None:
        raise RunNotFound(operation.retried)
    newest = _newest(transaction.connection, named)
    if newest.status not in FINAL:
        # A key leads to the newest of the chain: the retry that is open may be named itself.
        if newest.uid != named.uid or (newest.is_retry and newest.status is not Status.HALTED):
            return Started(newest.task_id, newest.uid, False)
        raise _refusal(named)
    retry_of = named.uid if named.chain == newest.chain else newest.uid
    template = _template(transaction, newest)
    # Refused before anything is written: a step that there is not here, an unfinished run of its unique key in `start`.
    inherited = _inherited(transaction, newest, operation.from_step)
    started = start(transaction, replace(template, uid=operation.uid, retry_of=retry_of, if_exists="fail"))
    _hand_over(transaction, newest, started.task_id, inherited)
    return started


def retry_child(transaction: Transaction, part: Start) -> Started | None:
    """Start a child as the retry of the one that had stood at its place and not completed.

    What a person has made of that one meanwhile counts: the newest of its chain, if it is unfinished or has completed, is the
    child. None where nothing of it is left, or where it is being cancelled.
    """
    assert part.retry_of is not None
    newest = _newest_child(transaction.connection, part.retry_of)
    if newest is None:
        return None
    if _stands(newest):
        return Started(newest.task_id, newest.uid, False)
    inherited = _inherited(transaction, newest, None)
    started = start(transaction, replace(part, retry_of=newest.uid, chain=newest.chain))
    if started.created:
        _hand_over(transaction, newest, started.task_id, inherited)
    return started


def present_child(connection: sqlite3.Connection, uid: str) -> str | None:
    """The run that would be the child, where it is not a new one."""
    newest = _newest_child(connection, uid)
    return newest.uid if newest is not None and _stands(newest) else None


def _newest_child(connection: sqlite3.Connection, uid: str) -> _Run | None:
    before = _last_of_line(connection, uid)
    if before is None:
        return None
    newest = _newest(connection, before)
    is_ending = newest.status not in FINAL and connection.execute(_IS_ENDING, {"id": newest.task_id}).fetchone() is not None
    return None if is_ending else newest


def _stands(run: _Run) -> bool:
    return run.status not in FINAL or run.status is Status.COMPLETED


_IS_ENDING = """
select 1 from outlast_task where id = :id and (cancel_requested_at is not null or coalesce(ending, 'completed') <> 'completed')
"""


def _last_of_line(connection: sqlite3.Connection, uid: str) -> _Run | None:
    row = connection.execute(_FIND, {"uid": succession.last_of_line(connection, uid)}).fetchone()
    return None if row is None else _Run(row)


def _newest(connection: sqlite3.Connection, run: _Run) -> _Run:
    """The run that the chain has come to."""
    row = connection.execute(_NEWEST_RETRY, {"chain": run.chain}).fetchone()
    if row is None:
        return run
    return _last_of_line(connection, row[0]) or run


def _refusal(run: _Run) -> Conflict:
    message = f"Run {run.uid} is {run.status}: only a run that has ended can be retried."
    if run.status is Status.HALTED:
        return Conflict(message, hint=f"`outlast resume {run.uid}` sends it on; `outlast cancel {run.uid}` ends it.")
    return Conflict(message, hint=f"`outlast why {run.uid}` says what it waits for.")


_TEMPLATE = """
select t.name, t.version, t.queue, t.partition, t.priority, t.unique_key,
       i.data, i.key, i.tags, i.tick, i.options, i.timeout, i.max_crashes
from outlast_task t join outlast_input i on i.task_id = t.id
where t.id = :id
"""


def _template(transaction: Transaction, run: _Run) -> Start:
    row = transaction.one(_TEMPLATE, {"id": run.task_id})
    assert row is not None
    (name, version, queue, partition, priority, unique_key, data, key, tags, tick, options, timeout, max_crashes) = row
    return Start(
        uid="", kind="run", name=name, version=version, needs=workflow_code(name, version), queue=queue, partition=partition,
        priority=priority, unique_key=unique_key, input=data, key=key, tags=tags, tick=tick, options=options, timeout=timeout,
        max_crashes=max_crashes, chain=run.chain,
    )  # fmt: skip


_ASIDE = "select aside from outlast_outcome where task_id = :id and aside is not null"

_STARTED_AT = "select started_at from outlast_task where id = :id and started_at is not null"


def _inherited(transaction: Transaction, old: _Run, from_step: str | None) -> list[Inherited]:
    """What the retry of a run begins with."""
    entries = _journal(transaction, old.task_id)
    before = load(transaction.connection, old.task_id)
    chosen = None
    if from_step is not None:
        chosen = choose(entries, before, from_step)
        if chosen is None:
            raise StepNotFound(from_step, run_id=old.uid)
    row = transaction.one(_ASIDE, {"id": old.task_id})
    aside = json.loads(row[0]) if row is not None else {"failed": (), "branches": ()}
    inherited = inherit(entries, before, failed=aside["failed"], branches=aside["branches"], chosen=chosen)
    started_at = transaction.one(_STARTED_AT, {"id": old.task_id})
    if started_at is not None and "" not in before:
        inherited.append(began(started_at[0]))
    return inherited


_KEEP = """
insert into outlast_inherited (task_id, path, kind, name, seq, at, event, generation, try_number, flags, started_at, uid, input, data)
values (:task_id, :path, :kind, :name, :seq, :at, :event, :generation, :try_number, :flags, :started_at, :uid, :input, :data)
"""

_COPY_SIGNALS = """
insert into outlast_signal (task_id, name, key, payload, created_at, taken_path)
select :new, s.name, s.key, s.payload, s.created_at,
       case when s.taken_path in (select path from outlast_inherited where task_id = :new and kind = 'signal' and event is not null)
            then s.taken_path end
from outlast_signal s where s.task_id = :old order by s.id
"""

_COPY_PUBLISHED = """
insert into outlast_published (task_id, key, value, at)
select :new, key, value, at from outlast_published where task_id = :old
"""

# A call that was debounced into a run leads to it as well.
_LEAD_KEYS = "update outlast_key set task_id = :new where task_id = :old"


def _hand_over(transaction: Transaction, old: _Run, new_id: int, inherited: list[Inherited]) -> None:
    """Give the new run what it inherits; signals, published state and keys from the start."""
    for one in inherited:
        fields = {name: getattr(one, name) for name in one.__struct_fields__}
        transaction.execute(_KEEP, {**fields, "task_id": new_id})
    ids = {"old": old.task_id, "new": new_id}
    transaction.execute(_COPY_SIGNALS, ids)
    transaction.execute(_COPY_PUBLISHED, ids)
    transaction.execute(_LEAD_KEYS, ids)


def _journal(transaction: Transaction, task_id: int) -> list[Entry]:
    """The journal, with what became of parts that a workflow had not waited for."""
    entries = journal.load(transaction.connection, task_id)
    seq = max((entry.seq for entry in entries), default=0)
    for number, entry in enumerate(undoing.outcomes_not_taken(transaction.connection, task_id), 1):
        # A part that was set aside has left its place: its path says so.
        if "^" not in entry.path:
            entries.append(replace(entry, seq=seq + number))
    return entries


_LOAD = """
select path, kind, name, seq, at, event, generation, try_number, flags, started_at, uid, input, data
from outlast_inherited where task_id = :id
"""


def load(connection: sqlite3.Connection, task_id: int) -> dict[str, Inherited]:
    """What a run has inherited, by place."""
    return {row[0]: Inherited(*row) for row in connection.execute(_LOAD, {"id": task_id})}

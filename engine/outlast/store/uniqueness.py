"""One started and one pending run at a time for a unique key.

Owns what a start does when it meets unfinished runs of its unique key: give one back, fail, replace the one that is
pending, or (debounce) become its newest call. Refuses a second start beside one that has begun: the pending one is
held back until the other has ended, by a trigger of the schema in the statement that ends it. The look and the start
are one immediate transaction, so two starts cannot both find nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Conflict
from ..operations import Start, Started
from . import ending
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

# A run that another goes on as has begun with that one, though nobody has claimed it yet: it has its state, and leads its line.
_UNFINISHED = """
select t.id, t.uid, t.status, i.retry_of is not null,
       t.started_at is null and t.status = 'pending' and not exists (select 1 from outlast_outcome o where o.successor_id = t.id)
from outlast_task t join outlast_input i on i.task_id = t.id
where t.name = :name and t.unique_key = :unique_key and t.finished_at is null
order by t.id desc
"""


def admit(transaction: Transaction, operation: Start) -> tuple[Started | None, int | None]:
    """The run that stands for this start, or None when it may be written; then with the run that it has to wait for."""
    found = transaction.execute(_UNFINISHED, {"name": operation.name, "unique_key": operation.unique_key}).fetchall()
    if not found:
        return None, None
    pending = next(((task_id, uid) for task_id, uid, _, _, is_pending in found if is_pending), None)
    begun = next((task_id for task_id, _, _, _, is_pending in found if not is_pending), None)
    if operation.debounce is not None:
        if pending is None:
            return None, begun
        if any(is_pending and is_retry for *_, is_retry, is_pending in found):
            # What it has inherited is of its own input, and must not stand for steps of this call.
            ending.cancel(transaction, pending[0])
            return None, begun
        _call_again(transaction, operation, pending[0])
        return Started(*pending, False), None
    match operation.if_exists:
        case "fail":
            _, uid, status, *_ = found[0]
            raise Conflict(
                f"Run {uid} of {operation.name} with unique key {operation.unique_key!r} is {status}.",
                hint="Wait for its end, or use if_exists='return' or 'replace'.",
            )
        case "replace":
            if pending is not None:
                ending.cancel(transaction, pending[0])
            return None, begun
        case _:
            task_id, uid, *_ = found[0]
            return Started(task_id, uid, False), None


def settle_start(transaction: Transaction, operation: Start, task_id: int, *, after_id: int | None) -> None:
    """Put off a run that was just written: for more calls, or for the end of the run before it."""
    row = transaction.one(_DUE_AT, {"id": task_id})
    assert row is not None
    due_at: int = row[0]
    if operation.debounce is not None:
        due_at = max(due_at, _settled_at(transaction, operation, first_at=transaction.now))
        transaction.execute(_BEGIN_DEBOUNCE, {"id": task_id, "now": transaction.now})
    _put_off(transaction, task_id, due_at, after_id=after_id)


_DUE_AT = "select due_at from outlast_task where id = :id"

_BEGIN_DEBOUNCE = """
insert into outlast_debounce (task_id, first_at) values (:id, :now) on conflict (task_id) do nothing
"""

_FIRST_CALL = "select first_at from outlast_debounce where task_id = :id"

_AFTER = "select after_id from outlast_successor where task_id = :id"

_NEWEST_CALL = """
update outlast_task
set version = :version, queue = :queue, partition = :partition, priority = :priority, needs = :needs
where id = :id and status = 'pending' and started_at is null
"""

_NEWEST_INPUT = """
update outlast_input
set data = :data, tags = :tags, at_wall = :at_wall, options = :options, timeout = :timeout, max_crashes = :max_crashes
where task_id = :id
"""

_INSERT_KEY = """
insert into outlast_key (workflow, key, task_id) values (:workflow, :key, :task_id)
on conflict (workflow, key) do update set task_id = excluded.task_id
"""


def _call_again(transaction: Transaction, operation: Start, task_id: int) -> None:
    """The newest call wins: the pending run gets its input and options, and waits for the next call as long again."""
    transaction.execute(
        _NEWEST_CALL,
        {
            "id": task_id,
            "version": operation.version,
            "queue": operation.queue,
            "partition": operation.partition,
            "priority": operation.priority,
            "needs": operation.needs,
        },
    )
    transaction.execute(
        _NEWEST_INPUT,
        {
            "id": task_id,
            "data": operation.input,
            "tags": operation.tags,
            "at_wall": operation.at_wall,
            "options": operation.options,
            "timeout": operation.timeout,
            "max_crashes": operation.max_crashes,
        },
    )
    if operation.key is not None:
        transaction.execute(_INSERT_KEY, {"workflow": operation.name, "key": operation.key, "task_id": task_id})
    transaction.execute(_BEGIN_DEBOUNCE, {"id": task_id, "now": transaction.now})
    first = transaction.one(_FIRST_CALL, {"id": task_id})
    assert first is not None
    due_at = max(_asked_for(transaction, operation), _settled_at(transaction, operation, first_at=first[0]))
    after = transaction.one(_AFTER, {"id": task_id})
    _put_off(transaction, task_id, due_at, after_id=after[0] if after is not None else None)
    transaction.ring = True


def _asked_for(transaction: Transaction, operation: Start) -> int:
    if operation.at_wall is not None:
        return transaction.now + max(0, operation.at_wall - transaction.wall)
    return transaction.now + (operation.delay or 0)


def _settled_at(transaction: Transaction, operation: Start, *, first_at: int) -> int:
    """When no later call is waited for: the window after this call, but not longer after the first than `debounce_max`."""
    assert operation.debounce is not None
    due_at = transaction.now + operation.debounce
    return due_at if operation.debounce_max is None else min(due_at, first_at + operation.debounce_max)


_SET_DUE = "update outlast_task set due_at = :due_at where id = :id and status = 'pending' and agent_id is null"

_HOLD_BACK = """
insert into outlast_successor (task_id, after_id, due_at) values (:id, :after_id, :due_at)
on conflict (task_id) do update set after_id = excluded.after_id, due_at = excluded.due_at
"""


def _put_off(transaction: Transaction, task_id: int, due_at: int, *, after_id: int | None) -> None:
    if after_id is not None:
        transaction.execute(_HOLD_BACK, {"id": task_id, "after_id": after_id, "due_at": due_at})
    transaction.execute(_SET_DUE, {"id": task_id, "due_at": due_at if after_id is None else None})


_BEFORE = """
select t.uid, t.status, t.unique_key from outlast_successor s join outlast_task t on t.id = s.after_id
where s.task_id = :id
"""


def run_before(connection: sqlite3.Connection, task_id: int) -> tuple[str, str, str] | None:
    """(uid, status, unique key) of the run whose end a run is held back for."""
    row = connection.execute(_BEFORE, {"id": task_id}).fetchone()
    return None if row is None else (row[0], row[1], row[2])

"""Writing new tasks: a run from outside, and the rows of every other start.

Owns the rows of a start and what its keys mean: an idempotency key leads to the run that has it, a unique key to the one unfinished
run. Refuses nothing but a start that its unique key forbids. All of it is one transaction: either the task is there with its
input, or nothing is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..operations import Start, Started
from .transaction import Transaction
from .uniqueness import admit, settle_start

if TYPE_CHECKING:
    from .library import sqlite3

_BY_KEY = """
select t.id, t.uid
from outlast_key k join outlast_task t on t.id = k.task_id
where k.workflow = :workflow and k.key = :key
"""

# Null, and so the next number, but where the newest tasks were pruned: an id is never given twice.
_INSERT = """
insert into outlast_task (id, uid, kind, name, version, queue, partition, priority, status, needs, due_at,
                          parent_id, parent_path, root_id, unique_key, deadline_at, created_at)
values ((select max(task_id) + 1 from outlast_pruned where task_id >= (select coalesce(max(id), 0) from outlast_task)),
        :uid, :kind, :name, :version, :queue, :partition, :priority, 'pending', :needs, :due_at,
        :parent_id, :parent_path, :root_id, :unique_key, :deadline_at, :created_at)
"""

_INSERT_INPUT = """
insert into outlast_input (task_id, data, key, tags, at_wall, tick, retry_of, chain, idempotency_key, options, timeout, max_crashes)
values (:task_id, :data, :key, :tags, :at_wall, :tick, :retry_of, :chain, :idempotency_key, :options, :timeout, :max_crashes)
"""

_INSERT_KEY = """
insert into outlast_key (workflow, key, task_id) values (:workflow, :key, :task_id)
on conflict (workflow, key) do update set task_id = excluded.task_id
"""


def start(transaction: Transaction, operation: Start) -> Started:
    """Write a task, or find the one that its key leads to. When this has committed, the run is never forgotten."""
    if operation.key is not None:
        found = transaction.one(_BY_KEY, {"workflow": operation.name, "key": operation.key})
        if found is not None and operation.retry_of is None:
            return Started(found[0], found[1], False)
    if operation.unique_key is not None:
        admitted, after_id = admit(transaction, operation)
        if admitted is not None:
            return admitted
        started = insert(transaction, operation)
        settle_start(transaction, operation, started.task_id, after_id=after_id)
        return started
    return insert(transaction, operation)


_BY_UID = "select id from outlast_task where uid = :uid"


def start_once(transaction: Transaction, operation: Start) -> Started:
    """Start a run whose id says what it is for, or find it.

    The ledger may have forgotten a tick whose run is still there: it was pruned while the wall clock was ahead,
    and then the clock was set back to before the tick.
    """
    found = transaction.one(_BY_UID, {"uid": operation.uid})
    return start(transaction, operation) if found is None else Started(found[0], operation.uid, False)


def run_of_key(connection: sqlite3.Connection, workflow: str, key: str) -> str | None:
    """The id of the run that a key leads to."""
    row = connection.execute(_BY_KEY, {"workflow": workflow, "key": key}).fetchone()
    return None if row is None else str(row[1])


def insert(transaction: Transaction, operation: Start) -> Started:
    """Write the rows of a start, its keys settled."""
    due_at = transaction.now + (operation.delay or 0)
    if operation.at_wall is not None:
        due_at = transaction.now + max(0, operation.at_wall - transaction.wall)
    cursor = transaction.execute(
        _INSERT,
        {
            "uid": operation.uid,
            "kind": operation.kind,
            "name": operation.name,
            "version": operation.version,
            "queue": operation.queue,
            "partition": operation.partition,
            "priority": operation.priority,
            "needs": operation.needs,
            "due_at": due_at,
            "parent_id": operation.parent_id,
            "parent_path": operation.parent_path,
            "root_id": operation.root_id,
            "unique_key": operation.unique_key,
            "deadline_at": operation.deadline_at,
            "created_at": transaction.wall,
        },
    )
    task_id: int = cursor.lastrowid
    transaction.execute(
        _INSERT_INPUT,
        {
            "task_id": task_id,
            "data": operation.input,
            "key": operation.key,
            "tags": operation.tags,
            "at_wall": operation.at_wall,
            "tick": operation.tick,
            "retry_of": operation.retry_of,
            "chain": operation.chain or operation.uid,
            "idempotency_key": operation.idempotency_key,
            "options": operation.options,
            "timeout": operation.timeout,
            "max_crashes": operation.max_crashes,
        },
    )
    if operation.key is not None:
        transaction.execute(_INSERT_KEY, {"workflow": operation.name, "key": operation.key, "task_id": task_id})
    transaction.ring = True
    return Started(task_id, operation.uid, True)

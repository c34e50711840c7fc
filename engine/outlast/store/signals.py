"""Signals: named messages to a run, kept until the run takes them.

Owns the insert and the wakeup of whoever waits. Refuses a final run, and takes a key that has been here before for the same signal
again, for as long as the run is kept. A signal to a parked run wakes it only if it waits for that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import RunFinished, RunNotFound
from ..operations import Signal
from . import succession
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

_TARGET = "select id, status, finished_at from outlast_task where uid = :uid and kind = 'run'"

_KNOWN = """
with recursive line(id) as (
  select :id union select o.task_id from line join outlast_outcome o on o.successor_id = line.id)
select 1 from line join outlast_signal s on s.task_id = line.id where s.name = :name and s.key = :key limit 1
"""

_INSERT = """
insert into outlast_signal (task_id, name, key, payload, created_at)
values (:task_id, :name, :key, :payload, :at)
on conflict (task_id, name, key) where key is not null do nothing
"""

_WAKE = """
update outlast_task
set status = 'pending', due_at = :now
where id = :id and status = 'waiting' and ending is null
  -- What a run waits for and cannot be read may be this: it wakes, and parks again.
  and case when json_valid(awaits) then exists (select 1 from json_each(awaits) where value = :name) else awaits is not null end
"""

_NOTIFY = "update outlast_task set notice = notice + 1 where id = :id and agent_id is not null"


def signal(transaction: Transaction, operation: Signal) -> bool:
    """Keep a signal; false where a signal of this name and key is there or was taken already."""
    row = transaction.one(_TARGET, {"uid": succession.last_of_line(transaction.connection, operation.uid)})
    if row is None:
        raise RunNotFound(operation.uid)
    task_id, status, finished_at = row
    # A sender that did not hear our answer asks again, perhaps after the run has gone on as another one, or ended.
    if operation.key is not None and transaction.one(_KNOWN, {"id": task_id, "name": operation.name, "key": operation.key}):
        return False
    if finished_at is not None:
        raise RunFinished(operation.uid, status)
    cursor = transaction.execute(
        _INSERT,
        {
            "task_id": task_id,
            "name": operation.name,
            "key": operation.key,
            "payload": operation.payload,
            "at": transaction.wall,
        },
    )
    if cursor.rowcount == 0:
        return False
    woken = transaction.execute(_WAKE, {"id": task_id, "now": transaction.now, "name": operation.name})
    if not woken.rowcount:
        transaction.execute(_NOTIFY, {"id": task_id})
    transaction.ring = True
    return True


_UNREAD = """
select id, payload, created_at from outlast_signal
where task_id = :id and name = :name and taken_path is null order by id
"""


def unread(connection: sqlite3.Connection, task_id: int, name: str) -> list[tuple[int, bytes, int]]:
    """(id, payload, created_at) of the signals of a name that nobody has taken, oldest first."""
    return [tuple(row) for row in connection.execute(_UNREAD, {"id": task_id, "name": name})]

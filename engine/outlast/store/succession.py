"""The line of runs that go on one after another by `continue_as_new`.

Owns the link `outlast_outcome.successor_id`: what passes along it, and the way from a run to the last of its line. Refuses to start or to
end a run: `continuing` and `ending` do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

_SUCCESSOR = "select successor_id from outlast_outcome where task_id = :id and successor_id is not null"

_PASS_SIGNALS = "update or ignore outlast_signal set task_id = :successor_id where task_id = :id and taken_path is null"

_PASS_FOLLOWERS = "update or ignore outlast_follower set task_id = :successor_id where task_id = :id"

_RELEASE = "update outlast_task set due_at = :now where id = :id and status = 'pending' and due_at is null and claim = 0"


def successor_of(transaction: Transaction, task_id: int) -> int | None:
    """The run that goes on when this one has completed."""
    row = transaction.one(_SUCCESSOR, {"id": task_id})
    return None if row is None else int(row[0])


def pass_on(transaction: Transaction, task_id: int, successor_id: int) -> None:
    """A run has completed: its unread signals and whoever waits for it pass to its successor, which begins."""
    transaction.execute(_PASS_SIGNALS, {"id": task_id, "successor_id": successor_id})
    transaction.execute(_PASS_FOLLOWERS, {"id": task_id, "successor_id": successor_id})
    transaction.execute(_RELEASE, {"id": successor_id, "now": transaction.now})
    transaction.ring = True


_CUT = "update outlast_outcome set successor_id = null where task_id = :id"


def cut(transaction: Transaction, task_id: int) -> None:
    """A run did not complete after all: nobody goes on with what it began."""
    transaction.execute(_CUT, {"id": task_id})


_LINE = """
with recursive line(id) as (
  select id from outlast_task where uid = :uid
  union select o.successor_id from line join outlast_outcome o on o.task_id = line.id where o.successor_id is not null)
select t.uid from line join outlast_task t on t.id = line.id
where not exists (select 1 from outlast_outcome o where o.task_id = line.id and o.successor_id is not null)
"""


def last_of_line(connection: sqlite3.Connection, uid: str) -> str:
    """The run that goes on with what this one began: itself, or the last of its successors."""
    row = connection.execute(_LINE, {"uid": uid}).fetchone()
    found: str = row[0] if row is not None else uid
    return found


_OPEN_BEFORE = """
select p.id from outlast_task t join outlast_outcome o on o.successor_id = t.id join outlast_task p on p.id = o.task_id
where t.uid = :uid and p.finished_at is null
"""


def open_before(connection: sqlite3.Connection, uid: str) -> int | None:
    """The run that has gone on as this one, where its own submitted steps have not ended: they still belong to the line."""
    row = connection.execute(_OPEN_BEFORE, {"uid": uid}).fetchone()
    return None if row is None else int(row[0])


_OWN = """
with recursive line(id) as (
  select value from json_each(:parts)
  union select o.successor_id from line join outlast_outcome o on o.task_id = line.id where o.successor_id is not null)
select t.id from line join outlast_task t on t.id = line.id where t.parent_id = :id and t.finished_at is null
"""


def own_parts(transaction: Transaction, task_id: int, parts: tuple[int, ...]) -> list[int]:
    """Those of the parts that go on and are the task's own: a run that its key led to is somebody else's."""
    rows = transaction.execute(_OWN, {"id": task_id, "parts": json.dumps(parts)}).fetchall()
    return [part_id for (part_id,) in rows]

"""The journal: what a run has done, append only; what is in it never happens again.

Owns the fenced insert of entries and the reading of a whole journal. Refuses to change or delete an entry. The insert is one
statement that names the claim: a zombie whose task was taken over writes nothing and gets `LeaseLost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict, astuple

from ..journal.aside import to_set_aside
from ..journal.entry import Entry
from ..operations import Append, Emit, Publish
from ..operations.claimed import Fence, Wanted
from .connection import StoreConnection
from .library import sqlite3
from .transaction import Transaction

_INSERT = """
insert into outlast_journal (task_id, seq, path, event, kind, name, claim, try_number, flags, started_at, at, due_at, input, data)
select :task_id, :seq, :path, :event, :kind, :name, :claim, :try_number, :flags, :started_at, :at, :due_at, :input, :data
where exists (
  select 1 from outlast_task
  where id = :task_id and claim = :claim and status in ('running', 'compensating') and agent_id is not null)
"""

# The common case as one statement.
_INSERT_UNASKED = _INSERT.rstrip().removesuffix(")") + "    and paused_at is null and cancel_requested_at is null)"

_WANTED = """
select cancel_requested_at is not null from outlast_task
where id = :id and status = 'running' and (paused_at is not null or cancel_requested_at is not null)
"""

_CLEAR_SUSPICION = """
update outlast_task set suspect = 0 where id = :task_id and claim = :claim and suspect = 1
"""

_COUNT_TRIES = """
update outlast_task set tries = :tries where id = :task_id and claim = :claim and status = 'running' and agent_id is not null
"""

_TAKE_SIGNAL = """
update outlast_signal set taken_path = :path where id = :id and task_id = :task_id and taken_path is null
"""


_UNREAD_SIGNAL = """
select 1 from outlast_signal
where task_id = :task_id and name = :name and taken_path is null and id > :seen limit 1
"""


def append(transaction: Transaction, operation: Append) -> bool | Wanted:
    """Write entries of a claimed run. If the process dies before the commit, what they tell runs once more."""
    # A signal that is there when a wait is decided beats its timeout: the look and the decision are one transaction.
    if operation.unless_signal is not None and transaction.one(
        _UNREAD_SIGNAL,
        {
            "task_id": operation.fence.task_id,
            "name": operation.unless_signal,
            "seen": operation.seen_signal_id,
        },
    ):
        return False
    if operation.tries is not None:
        values = {"task_id": operation.fence.task_id, "claim": operation.fence.claim, "tries": operation.tries}
        if not transaction.execute(_COUNT_TRIES, values).rowcount:
            raise operation.fence.lost()
    is_asked = False
    for entry in operation.entries:
        if is_asked or not transaction.execute(_INSERT_UNASKED, _row(operation.fence, entry)).rowcount:
            write_entry(transaction, operation.fence, entry)
            is_asked = True
    if operation.signal_id is not None:
        transaction.execute(
            _TAKE_SIGNAL,
            {
                "path": operation.entries[0].path,
                "id": operation.signal_id,
                "task_id": operation.fence.task_id,
            },
        )
    if operation.clears_suspicion:
        transaction.execute(_CLEAR_SUSPICION, {"task_id": operation.fence.task_id, "claim": operation.fence.claim})
    return (is_asked and wanted(transaction, operation.fence.task_id)) or True


def wanted(transaction: Transaction, task_id: int) -> Wanted | None:
    """What was asked of a run before this transaction, whose outcome the code is about to see and go on from."""
    row = transaction.one(_WANTED, {"id": task_id})
    if row is None:
        return None
    return Wanted.CANCEL if row[0] else Wanted.PAUSE


def is_plain(operation: Append) -> bool:
    """Whether an append is its entries alone: no signal is taken or looked for with them."""
    signals = operation.signal_id is not None or operation.unless_signal is not None
    return not signals and not operation.clears_suspicion and operation.tries is None


# Parameters by place, as many as the rows have: one statement is one release of the interpreter's lock, whatever it writes, while
# `executemany` takes it back after each row, and waits for it behind the code of the runs.
_INSERT_MANY = """
with entry (task_id, claim, seq, path, event, kind, name, at, try_number, flags, started_at, due_at, input, data) as (values {rows})
insert into outlast_journal (task_id, claim, seq, path, event, kind, name, at, try_number, flags, started_at, due_at, input, data)
select * from entry
where exists (
  select 1 from outlast_task t
  where t.id = entry.task_id and t.claim = entry.claim and t.status in ('running', 'compensating') and t.agent_id is not null
    and (t.paused_at is null and t.cancel_requested_at is null or t.status = 'compensating'))
"""
_INSERTS = {count: _INSERT_MANY.format(rows=", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * count)) for count in (64, 16, 4, 1)}


def write_entries(transaction: Transaction, entries: Sequence[tuple[Fence, Entry]]) -> bool:
    """Write entries of many claims, each under its own.

    False, with some of them written, where one claim does not hold, or something is wanted of its run.
    """
    begin, written = 0, 0
    for count, insert in _INSERTS.items():
        while len(entries) - begin >= count:
            values: list[Any] = []
            for fence, entry in entries[begin : begin + count]:
                values += fence.task_id, fence.claim
                values += astuple(entry)
            written += transaction.execute(insert, values).rowcount
            begin += count
    return written == len(entries)


def write_entry(transaction: Transaction, fence: Fence, entry: Entry) -> None:
    """Write one entry if the claim still holds; `LeaseLost` if it does not."""
    cursor = transaction.execute(_INSERT, _row(fence, entry))
    if cursor.rowcount == 0:
        raise fence.lost()


_INSERT_LATE = """
insert into outlast_journal (task_id, seq, path, event, kind, name, claim, try_number, flags, started_at, at, due_at, input, data)
values (:task_id, (select coalesce(max(seq), 0) + 1 from outlast_journal where task_id = :task_id),
        :path, :event, :kind, :name, :claim, :try_number, :flags, :started_at, :at, :due_at, :input, :data)
"""

_IS_SETTLED = """
select 1 from outlast_journal
where task_id = :task_id and path = :path and (event = 'completed' or (event = 'failed' and :event <> 'completed'))
  and seq > coalesce(
    (select max(seq) from outlast_journal where task_id = :task_id and path = :path and event = 'set_aside'), seq - 1)
limit 1
"""


def write_late(transaction: Transaction, fence: Fence, entry: Entry) -> None:
    """Write what arrives after the run's ending was decided, for the undo's sake.

    A success stands. A failure (a try that overran, a compensation that gave up) may turn out to be a success later.
    """
    place = {"task_id": fence.task_id, "path": entry.path, "event": entry.event}
    if transaction.one(_IS_SETTLED, place) is None:
        write_next(transaction, fence, entry)


def write_next(transaction: Transaction, fence: Fence, entry: Entry) -> None:
    """Write an entry after the last one, whatever its own number is: of a journal that no code is reading."""
    transaction.execute(_INSERT_LATE, _row(fence, entry))


_SET_PUBLISHED = """
insert into outlast_published (task_id, key, value, at)
select :run_id, :key, :value, :at
where exists (select 1 from outlast_task where id = :task_id and claim = :claim and agent_id is not null)
on conflict (task_id, key) do update set value = excluded.value, at = excluded.at
"""


def publish(transaction: Transaction, operation: Publish) -> None:
    """Set a published value under the fence; the last one wins."""
    fence = operation.fence
    if operation.entry is not None:
        write_entry(transaction, fence, operation.entry)
    cursor = transaction.execute(
        _SET_PUBLISHED,
        {
            "run_id": operation.run_id or fence.task_id,
            "task_id": fence.task_id,
            "claim": fence.claim,
            "key": operation.key,
            "value": operation.value,
            "at": transaction.wall,
        },
    )
    if cursor.rowcount == 0:
        raise fence.lost()


_EMIT = """
insert into outlast_stream (task_id, stream, number, value, at, step, try_number)
select :run_id, :stream,
       (select coalesce(max(number), 0) + 1 from outlast_stream where task_id = :run_id and stream = :stream),
       :value, :at, :step, :try_number
where exists (select 1 from outlast_task where id = :task_id and claim = :claim and agent_id is not null)
"""


def emit(transaction: Transaction, operation: Emit) -> None:
    """Append messages to a stream under the fence, numbered from 1."""
    fence = operation.fence
    if operation.entry is not None:
        write_entry(transaction, fence, operation.entry)
    for value in operation.values:
        cursor = transaction.execute(
            _EMIT,
            {
                "run_id": operation.run_id or fence.task_id,
                "task_id": fence.task_id,
                "claim": fence.claim,
                "stream": operation.stream,
                "value": value,
                "at": transaction.wall,
                "step": operation.step,
                "try_number": operation.try_number,
            },
        )
        if cursor.rowcount == 0:
            raise fence.lost()
    transaction.ring = True


_LOAD = """
select seq, path, event, kind, name, at, try_number, flags, started_at, due_at, input, data
from outlast_journal where task_id = :task_id order by seq
"""


def load(connection: sqlite3.Connection, task_id: int) -> list[Entry]:
    """The whole journal of a run, in order of delivery."""
    try:
        return [Entry(*row) for row in connection.execute(_LOAD, {"task_id": task_id})]
    except sqlite3.OperationalError as error:
        if not (isinstance(connection, StoreConnection) and connection.tolerates(error)):
            raise
        return load(connection, task_id)


_UNREAD_AGAIN = "update outlast_signal set taken_path = null where task_id = :id and taken_path = :path"

_PART_AT = """
select id from outlast_task where parent_id = :id and parent_path = :path and finished_at is null
"""

# What starts at this place next is another task: this one's end is not to be taken for that one's.
_LEAVE_PLACE = """
update outlast_task set parent_path = parent_path || '^' || id where parent_id = :id and parent_path = :path
"""


def open_aside(transaction: Transaction, fence: Fence, failed: tuple[str, ...], branches: tuple[str, ...]) -> list[int]:
    """The open parts that `set_aside` would give, with nothing written."""
    if not failed:
        return []
    entries = load(transaction.connection, fence.task_id)
    places = [first.path for first in to_set_aside(entries, failed, branches) if first.kind in ("task", "child")]
    return [part_id for path in places for (part_id,) in transaction.execute(_PART_AT, {"id": fence.task_id, "path": path}).fetchall()]


def set_aside(transaction: Transaction, fence: Fence, failed: tuple[str, ...], branches: tuple[str, ...]) -> list[int]:
    """Set aside the outcomes at `failed` and what followed from them; gives the open parts that go with it.

    Signals that were taken there are unread again.
    """
    if not failed:
        return []
    entries = load(transaction.connection, fence.task_id)
    seq = max((entry.seq for entry in entries), default=0)
    parts: list[int] = []
    for first in to_set_aside(entries, failed, branches):
        seq += 1
        write_entry(transaction, fence, Entry(seq, first.path, "set_aside", first.kind, first.name, transaction.wall))
        place = {"id": fence.task_id, "path": first.path}
        if first.kind == "signal":
            transaction.execute(_UNREAD_AGAIN, place)
        elif first.kind in ("task", "child"):
            parts += [part_id for (part_id,) in transaction.execute(_PART_AT, place).fetchall()]
            transaction.execute(_LEAVE_PLACE, place)
    return parts


def _row(fence: Fence, entry: Entry) -> dict[str, Any]:
    row = asdict(entry)
    row["task_id"], row["claim"] = fence.task_id, fence.claim
    return row

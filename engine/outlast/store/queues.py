"""Queues in the store: what code has declared, what a person has set, and the starts that a rate counts.

Owns the rows of `outlast_queue` and the rule that what was set at run time wins over what code declares, and the
sliding windows of starts. Refuses limits for a queue that nobody has declared or set. What limits do to a claim
is `places`'.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, structs

from .. import clock
from ..errors import QueueNotFound
from ..operations.queues import DeclareQueues, PauseQueue, QueueLimits, ResumeQueue, SetQueue
from ..text.names import DEFAULT_QUEUE
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3


class Limits(Struct, frozen=True):
    """The limits in force of one queue; None is none. `rate_window` is in microseconds."""

    queue: str
    concurrency: int | None
    rate: str | None
    rate_count: int | None
    rate_window: int | None
    per_partition: int | None
    hold: str
    paused_at: int | None

    @property
    def keeps_place(self) -> bool:
        """Whether a run keeps its place while it waits."""
        return self.hold == "unfinished"

    @property
    def has_places(self) -> bool:
        return self.concurrency is not None or self.per_partition is not None


_LIMITED = """
select name, concurrency, rate, rate_count, rate_window, per_partition, hold, paused_at from outlast_queue
where name > '' and (concurrency is not null or rate is not null or per_partition is not null or paused_at is not null)
"""


def limited(connection: sqlite3.Connection) -> dict[str, Limits]:
    """The queues that have limits or are paused, by name: of most files none."""
    return {row[0]: Limits(*row) for row in connection.execute(_LIMITED)}


_ALL = """
select name, concurrency, rate, rate_count, rate_window, per_partition, hold, paused_at from outlast_queue
"""


def known(connection: sqlite3.Connection) -> dict[str, Limits]:
    """The queues that code has declared or a person has set, by name."""
    return {row[0]: Limits(*row) for row in connection.execute(_ALL)}


_EXISTS = "select 1 from outlast_queue where name = :name"


def exists(connection: sqlite3.Connection, name: str) -> bool:
    """Whether tasks may wait under this name: it was declared or set, or is the default."""
    return name == DEFAULT_QUEUE or connection.execute(_EXISTS, {"name": name}).fetchone() is not None


def not_found(connection: sqlite3.Connection, name: str) -> QueueNotFound:
    """The error for a name that is no queue's, with the closest that is one."""
    return QueueNotFound(name, close=get_close_matches(name, [DEFAULT_QUEUE, *known(connection)], n=1))


_ROW = "select declared, overrides from outlast_queue where name = :name"


def declare(transaction: Transaction, operation: DeclareQueues) -> None:
    """Bring what code declares into the file. Where nothing has changed, nothing is written."""
    for queue in operation.queues:
        row = transaction.one(_ROW, {"name": queue.name})
        text = json.dumps({name: value for name, value in structs.asdict(queue).items() if name != "name"})
        if row is None and queue == QueueLimits(DEFAULT_QUEUE):
            continue  # `default` is always there, and has a row only when somebody says something about it.
        if row is None or row[0] != text:
            _write(transaction, queue.name, text, json.loads(row[1]) if row is not None else {})


def set_limits(transaction: Transaction, operation: SetQueue) -> None:
    """Set limits at run time, above what code declares; a queue that was not there is made."""
    row = transaction.one(_ROW, {"name": operation.name})
    declared, overrides = (row[0], json.loads(row[1])) if row is not None else (None, {})
    if operation.reset:
        if row is None and operation.name != DEFAULT_QUEUE:
            raise not_found(transaction.connection, operation.name)
        overrides = {}
    for name in ("concurrency", "rate", "per_partition", "hold"):
        value = getattr(operation, name)
        if value is not UNSET:
            overrides[name] = value
    _write(transaction, operation.name, declared, overrides)


_UPSERT = """
insert into outlast_queue (name, declared, overrides, concurrency, rate, rate_count, rate_window, per_partition, hold, changed_at)
values (:name, :declared, :overrides, :concurrency, :rate, :rate_count, :rate_window, :per_partition, :hold, :wall)
on conflict (name) do update set
  declared = excluded.declared, overrides = excluded.overrides, concurrency = excluded.concurrency, rate = excluded.rate,
  rate_count = excluded.rate_count, rate_window = excluded.rate_window, per_partition = excluded.per_partition,
  hold = excluded.hold, changed_at = excluded.changed_at
"""

# Tasks that were claimed while the queue had no limits count from now on. A walk through the table, at the change alone.
_ADOPT = """
update outlast_task set slot = id
where queue = :name and slot is null and started_at is not null and finished_at is null
"""


def _write(transaction: Transaction, name: str, declared: str | None, overrides: dict[str, Any]) -> None:
    from ..definition.queues import parsed_rate

    limits = {"concurrency": None, "rate": None, "per_partition": None, "hold": "running"}
    limits |= json.loads(declared) if declared is not None else {}
    limits |= overrides
    count, window_seconds = parsed_rate(limits["rate"]) if limits["rate"] is not None else (None, None)
    before = limited(transaction.connection).get(name)
    was_limited = before is not None and (before.has_places or before.rate is not None)
    transaction.execute(
        _UPSERT,
        {
            **limits,
            "name": name,
            "declared": declared,
            "overrides": json.dumps(overrides),
            "rate_count": count,
            "rate_window": round(window_seconds * clock.SECOND) if window_seconds is not None else None,
            "wall": transaction.wall,
        },
    )
    if not was_limited and any(limits[which] is not None for which in ("concurrency", "rate", "per_partition")):
        transaction.execute(_ADOPT, {"name": name})
    transaction.ring = True


_PAUSE = """
insert into outlast_queue (name, paused_at, changed_at) values (:name, :wall, :wall)
on conflict (name) do update set paused_at = excluded.paused_at where paused_at is null
"""


def pause(transaction: Transaction, operation: PauseQueue) -> bool:
    """Hold a queue: what runs goes on until it leaves its agent, and nothing more is claimed."""
    _check(transaction, operation.name)
    return bool(transaction.execute(_PAUSE, {"name": operation.name, "wall": transaction.wall}).rowcount)


_RESUME = "update outlast_queue set paused_at = null where name = :name and paused_at is not null"


def resume(transaction: Transaction, operation: ResumeQueue) -> bool:
    """End the pause of a queue."""
    _check(transaction, operation.name)
    transaction.ring = True
    return bool(transaction.execute(_RESUME, {"name": operation.name}).rowcount)


def _check(transaction: Transaction, name: str) -> None:
    if not exists(transaction.connection, name):
        raise not_found(transaction.connection, name)


_LAST_START = "select total from outlast_queue_start where queue = :queue order by at desc limit 1"
_FIRST_START = """
select before from outlast_queue_start where queue = :queue and at > :after order by at limit 1
"""


def starts_left(connection: sqlite3.Connection, limits: Limits, *, now: int) -> int:
    """How many tasks of a queue with a rate may start at this instant: the rate, less the starts of the window before it."""
    assert limits.rate_count is not None
    assert limits.rate_window is not None
    first = connection.execute(_FIRST_START, {"queue": limits.queue, "after": now - limits.rate_window}).fetchone()
    if first is None:
        return limits.rate_count
    last = connection.execute(_LAST_START, {"queue": limits.queue}).fetchone()
    started: int = last[0] - first[0]
    return max(0, limits.rate_count - started)


_LEAVES_FIRST = """
select at from outlast_queue_start
where queue = :queue and at > :after
  and total > (select total from outlast_queue_start where queue = :queue order by at desc limit 1) - :count
order by at limit 1
"""


def next_start_at(connection: sqlite3.Connection, limits: Limits, *, now: int) -> int:
    """The engine instant from which one more task of a queue with a rate may start; `now` where one may already."""
    assert limits.rate_count is not None
    assert limits.rate_window is not None
    if starts_left(connection, limits, now=now):
        return now
    # The start that has to leave the window, so that fewer than the rate are left in it.
    row = connection.execute(
        _LEAVES_FIRST,
        {"queue": limits.queue, "after": now - limits.rate_window, "count": limits.rate_count},
    ).fetchone()
    at: int = row[0]
    return at + limits.rate_window


_ADD_STARTS = """
insert into outlast_queue_start (queue, at, before, total)
select :queue, :now, before, before + :count
from (select coalesce((select total from outlast_queue_start where queue = :queue order by at desc limit 1), 0) as before)
where true
on conflict (queue, at) do update set total = total + :count
"""

_FORGET_STARTS = "delete from outlast_queue_start where queue = :queue and at <= :expired"


def add_starts(transaction: Transaction, limits: Limits, count: int) -> None:
    """Note that so many tasks have started now, and forget starts that have left the window."""
    assert limits.rate_window is not None
    transaction.execute(_FORGET_STARTS, {"queue": limits.queue, "expired": transaction.now - limits.rate_window})
    transaction.execute(_ADD_STARTS, {"queue": limits.queue, "now": transaction.now, "count": count})

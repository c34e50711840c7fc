"""The table of schedules.

Owns what a schedule is between two ticks: made, changed, paused, gone from its code, deleted; and the
questions that a scheduler asks: what is due, what comes first. Refuses to compute rules: whoever writes a
schedule brings its next tick along. A change by a stale reader changes nothing, by the revision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import Conflict, ScheduleNotFound
from ..operations.schedules import BreakSchedule, DeleteSchedule, PauseSchedule, ResumeSchedule, ScheduleWrite, TickRow, WriteSchedules
from . import ticks
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3


class StoredSchedule(Struct, frozen=True, gc=False):
    """A row of `outlast_schedule`, in the order of its columns."""

    name: str
    uid: str
    workflow: str
    rule: str
    description: str
    fingerprint: str
    input: bytes
    source: str
    origin: str | None
    origin_host: str | None
    revision: int
    cursor: int
    next_tick: int | None
    next_at: int | None
    paused_at: int | None
    pause_reason: str | None
    paused_until: int | None
    gone_at: int | None
    error: str | None
    low_water: int | None
    created_at: int
    changed_at: int


_FIND = "select * from outlast_schedule where name = :name"


def find(connection: sqlite3.Connection, name: str) -> StoredSchedule | None:
    row = connection.execute(_FIND, {"name": name}).fetchone()
    return None if row is None else StoredSchedule(*row)


_ALL = "select * from outlast_schedule order by name"


def everything(connection: sqlite3.Connection) -> list[StoredSchedule]:
    """All schedules by name."""
    return [StoredSchedule(*row) for row in connection.execute(_ALL)]


_ANY_BROKEN = "select 1 from outlast_schedule where error is not null and gone_at is null limit 1"


def any_broken(connection: sqlite3.Connection) -> bool:
    """Whether there is a schedule that cannot fire."""
    return connection.execute(_ANY_BROKEN).fetchone() is not None


_DUE = """
select s.*
from json_each(:workflows) w join outlast_schedule s on s.workflow = w.value
where s.next_at <= :wall
  and not exists (select 1 from json_each(:spared) p where p.key = s.name and p.value = s.revision)
order by s.next_at
limit :limit
"""


def due(connection: sqlite3.Connection, workflows: str, spared: str, *, wall: int, limit: int) -> list[StoredSchedule]:
    """Schedules of these workflows (a JSON list) with a tick to decide, but for those spared (as JSON, by
    name and revision).
    """
    rows = connection.execute(_DUE, {"workflows": workflows, "spared": spared, "wall": wall, "limit": limit})
    return [StoredSchedule(*row) for row in rows]


_EARLIEST = """
select min(first)
from (select (select min(s.next_at) from outlast_schedule s
              where s.workflow = w.value and s.next_at is not null) as first
      from json_each(:workflows) w)
"""

_EARLIEST_OTHER = """
select min(s.next_at)
from json_each(:workflows) w join outlast_schedule s on s.workflow = w.value
where s.next_at is not null
  and not exists (select 1 from json_each(:spared) p where p.key = s.name and p.value = s.revision)
"""


def earliest(connection: sqlite3.Connection, workflows: str, spared: str) -> int | None:
    """The instant of the first tick to come."""
    sql = _EARLIEST if spared == "{}" else _EARLIEST_OTHER
    at: int | None = connection.execute(sql, {"workflows": workflows, "spared": spared}).fetchone()[0]
    return at


_AHEAD = "select * from outlast_schedule where cursor > :wall and gone_at is null and error is null"


def ahead(connection: sqlite3.Connection, wall: int) -> list[StoredSchedule]:
    """Schedules whose decided ticks reach past now: the wall clock was set back."""
    return [StoredSchedule(*row) for row in connection.execute(_AHEAD, {"wall": wall})]


_RAN = """
select tick from outlast_tick
where schedule = :name and tick > :after and tick <= :until and by_hand = 0 and run_id is not null
"""


def ran(connection: sqlite3.Connection, name: str, after: int, until: int) -> list[int]:
    """The ticks of a range that have their run: fired, or backfilled."""
    rows = connection.execute(_RAN, {"name": name, "after": after, "until": until})
    return [tick for (tick,) in rows]


# Rows do not overlap, so that of those that begin before the range only the last can reach into it; but a row
# of an older rule may lie across one of a newer rule.
_ROWS_BETWEEN = """
select tick, until, count, outcome, reason from outlast_tick
where schedule = :name and tick <= :last and until >= :first and by_hand = 0 and run_id is null
order by tick
"""


def rows_between(connection: sqlite3.Connection, name: str, first: int, last: int) -> list[TickRow]:
    """The rows without a run that reach into a range."""
    rows = connection.execute(_ROWS_BETWEEN, {"name": name, "first": first, "last": last})
    return [TickRow(*row) for row in rows]


_CAN_PASS = """
select 1 from (select distinct schedule from outlast_tick where place = 'waiting') w
where not exists (select 1 from outlast_tick o join outlast_task t on t.uid = o.run_id
                  where o.schedule = w.schedule and o.place = 'open' and t.finished_at is null)
limit 1
"""


def line_can_pass(connection: sqlite3.Connection) -> bool:
    """Whether a run stands in line with nothing unfinished before it."""
    return connection.execute(_CAN_PASS).fetchone() is not None


_INSERT = """
insert into outlast_schedule (name, uid, workflow, rule, description, fingerprint, input, source, origin,
                              origin_host, cursor, next_tick, next_at, created_at, changed_at)
values (:name, :uid, :workflow, :rule, :description, :fingerprint, :input, :source, :origin,
        :origin_host, :cursor, :next_tick, :next_at, :wall, :wall)
on conflict (name) do nothing
"""

_UPDATE = """
update outlast_schedule
set workflow = :workflow, rule = :rule, description = :description, fingerprint = :fingerprint,
    input = :input, source = :source, origin = :origin, origin_host = :origin_host, cursor = :cursor,
    next_tick = :next_tick, next_at = :next_at, gone_at = null, error = null, revision = revision + 1,
    changed_at = :wall
where name = :name and revision = :revision
"""

_GONE = """
update outlast_schedule
set gone_at = :wall, cursor = :cursor, next_tick = null, next_at = null, revision = revision + 1
where name = :name and revision = :revision and gone_at is null
"""


def write(transaction: Transaction, operation: WriteSchedules) -> list[str]:
    """Make and change schedules; gives the names of those that somebody else has changed meanwhile."""
    stale = [write.row.name for write in operation.writes if not _write_one(transaction, write)]
    for one in operation.gone:
        values = {"name": one.name, "revision": one.revision, "cursor": one.cursor, "wall": transaction.wall}
        if not transaction.execute(_GONE, values).rowcount:
            stale.append(one.name)
            continue
        ticks.write_rows(transaction, one.name, one.missed)
    transaction.ring = True
    return stale


def _write_one(transaction: Transaction, one: ScheduleWrite) -> bool:
    row = one.row
    values = {
        **{field: getattr(row, field) for field in row.__struct_fields__},
        "uid": one.uid,
        "revision": one.revision,
        "wall": transaction.wall,
    }
    if not transaction.execute(_INSERT if one.revision is None else _UPDATE, values).rowcount:
        return False
    ticks.write_rows(transaction, row.name, one.missed)
    return True


_DELETE = "delete from outlast_schedule where name = :name"
_DELETE_TICKS = "delete from outlast_tick where schedule = :name"


def delete(transaction: Transaction, operation: DeleteSchedule) -> None:
    """Forget a schedule and its ledger. Whoever stands in line goes now: nobody would let it go later."""
    transaction.execute(_LET_LINE_GO, {"name": operation.name, "now": transaction.now})
    if not transaction.execute(_DELETE, {"name": operation.name}).rowcount:
        raise ScheduleNotFound(operation.name)
    transaction.execute(_DELETE_TICKS, {"name": operation.name})
    transaction.ring = True


_LET_LINE_GO = """
update outlast_task set due_at = :now
where status = 'pending' and due_at is null
  and uid in (select run_id from outlast_tick where schedule = :name and place = 'waiting')
"""

_PAUSE = """
update outlast_schedule
set paused_at = :wall, pause_reason = :reason, revision = revision + 1, changed_at = :wall
where name = :name and paused_at is null
"""


def pause(transaction: Transaction, operation: PauseSchedule) -> None:
    """Hold a schedule. Pausing twice is pausing once, but for a new reason."""
    row = transaction.one(_STATE, {"name": operation.name})
    if row is None:
        raise ScheduleNotFound(operation.name)
    values = {"name": operation.name, "reason": operation.reason, "wall": transaction.wall}
    if row[0] is None:
        transaction.execute(_PAUSE, values)
    elif operation.reason is not None:
        transaction.execute(_NEW_REASON, values)
    transaction.ring = True


_STATE = "select paused_at from outlast_schedule where name = :name"

_NEW_REASON = """
update outlast_schedule set pause_reason = :reason, revision = revision + 1, changed_at = :wall
where name = :name
"""

_RESUME = """
update outlast_schedule
set paused_at = null, paused_until = :wall, revision = revision + 1, changed_at = :wall
where name = :name and paused_at is not null
"""


def resume(transaction: Transaction, operation: ResumeSchedule) -> None:
    """End a pause. Ticks that fell into it do not fire; the next scheduler that looks enters them so."""
    row = transaction.one(_STATE, {"name": operation.name})
    if row is None:
        raise ScheduleNotFound(operation.name)
    if row[0] is None:
        raise Conflict(
            f"Schedule {operation.name} is not paused.",
            hint=f"`outlast schedule show {operation.name}` says what it waits for.",
        )
    transaction.execute(_RESUME, {"name": operation.name, "wall": transaction.wall})
    transaction.ring = True


_BREAK = """
update outlast_schedule
set error = :error, next_tick = null, next_at = null, revision = revision + 1, changed_at = :wall
where name = :name and revision = :revision
"""


def break_one(transaction: Transaction, operation: BreakSchedule) -> bool:
    """Note why a schedule cannot fire; false where it has changed meanwhile, and deserves another look."""
    changed = transaction.execute(
        _BREAK,
        {
            "name": operation.name,
            "revision": operation.revision,
            "error": operation.error,
            "wall": transaction.wall,
        },
    ).rowcount
    return bool(changed)

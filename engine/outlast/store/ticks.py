"""The ledger of ticks: each due tick and its run in one transaction, whatever number of schedulers there is.

Owns the rows of `outlast_tick` and what `overlap` decides when a run of the schedule is unfinished. Refuses a
decision that was computed from an older state of its schedule: the guard on the revision makes the second of
two schedulers change nothing. One schedule that cannot fire is noted and skipped; the others of the same
transaction fire.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from ..errors import OutlastError, ScheduleNotFound, StoreError
from ..operations import Start
from ..operations.schedules import Backfill, Decided, Fire, FireDue, Firing, PassLine, PruneTicks, Rewind, TickRow, TriggerSchedule
from . import ending, starting
from .library import sqlite3
from .transaction import Transaction

_NOTE_ERROR = """
update outlast_schedule
set error = :error, next_tick = null, next_at = null, revision = revision + 1, changed_at = :wall
where name = :name and revision = :revision
"""


def fire_due(transaction: Transaction, operation: FireDue) -> list[Decided]:
    """Decide what is due. If the process dies before the commit, no tick is decided and no run is there."""
    decided: list[Decided] = []
    for firing in operation.firings:
        transaction.execute("savepoint firing")
        try:
            decided += _fire(transaction, firing)
        except StoreError:
            raise
        except (OutlastError, sqlite3.IntegrityError) as error:
            transaction.execute("rollback to firing")
            transaction.execute(
                _NOTE_ERROR,
                {
                    "name": firing.schedule,
                    "revision": firing.revision,
                    "error": str(error),
                    "wall": transaction.wall,
                },
            )
        transaction.execute("release firing")
    return decided


_ADVANCE = """
update outlast_schedule
set cursor = :cursor, next_tick = :next_tick, next_at = :next_at, paused_until = null,
    pause_reason = case when paused_at is null then null else pause_reason end, revision = revision + 1
where name = :name and revision = :revision and gone_at is null and error is null
"""


def _fire(transaction: Transaction, firing: Firing) -> list[Decided]:
    advanced = transaction.execute(
        _ADVANCE,
        {
            "name": firing.schedule,
            "revision": firing.revision,
            "cursor": firing.cursor,
            "next_tick": firing.next_tick,
            "next_at": firing.next_at,
        },
    ).rowcount
    # Another scheduler was first, or a person has changed the schedule since we looked.
    if not advanced:
        return []
    unfinished = [] if firing.overlap == "allow" else _unfinished(transaction, firing.schedule)
    return [_decide(transaction, firing, decision, unfinished) for decision in firing.decisions]


_Unfinished = tuple[str, str]
"""A run's id, and its place: open, or waiting."""


def _decide(transaction: Transaction, firing: Firing, decision: TickRow | Fire, unfinished: list[_Unfinished]) -> Decided:
    name = firing.schedule
    if isinstance(decision, TickRow):
        _write_row(transaction, name, decision)
        return Decided(name, decision)
    if firing.overlap == "allow":
        return _start(transaction, name, decision.start, decision.tick, "fired")
    if firing.overlap == "cancel_running" and unfinished:
        for run_id, _ in unfinished:
            _cancel(transaction, run_id)
        unfinished[:] = _unfinished(transaction, name)
    if not unfinished:
        unfinished.append((decision.start.uid, "open"))
        return _start(transaction, name, decision.start, decision.tick, "fired", place="open")
    run_id, place = unfinished[-1]
    has_line = place == "waiting"
    if decision.in_line or firing.overlap == "cancel_running" or (firing.overlap == "queue_one" and not has_line):
        reason = f"in line behind run {run_id}"
        unfinished.append((decision.start.uid, "waiting"))
        return _start(transaction, name, decision.start, decision.tick, "fired", place="waiting", reason=reason)
    reason = f"run {run_id} was {'in line already' if has_line else 'unfinished'}"
    row = TickRow(decision.tick, decision.tick, 1, "skipped", reason)
    _write_row(transaction, name, row)
    return Decided(name, row)


_CLOSE_ENDED = """
update outlast_tick set place = null
where schedule = :name and place is not null
  and not exists (select 1 from outlast_task t where t.uid = outlast_tick.run_id and t.finished_at is null)
"""

_UNFINISHED = """
select t.uid, k.place
from outlast_tick k join outlast_task t on t.uid = k.run_id
where k.schedule = :name and k.place is not null
order by k.place, k.tick
"""


def _unfinished(transaction: Transaction, name: str) -> list[_Unfinished]:
    """The runs of a schedule that have not ended: first the open ones, then the line, by their ticks."""
    transaction.execute(_CLOSE_ENDED, {"name": name})
    rows: list[_Unfinished] = transaction.execute(_UNFINISHED, {"name": name}).fetchall()
    return rows


_TASK_OF = "select id from outlast_task where uid = :run_id"


def _cancel(transaction: Transaction, run_id: str) -> None:
    row = transaction.one(_TASK_OF, {"run_id": run_id})
    if row is not None:
        ending.cancel(transaction, row[0])


_INSERT_RUN = """
insert into outlast_tick (schedule, tick, by_hand, until, count, outcome, reason, run_id, place, decided_at)
values (:name, :tick, :by_hand, :tick, 1, :outcome, :reason, :run_id, :place, :wall)
"""

# Pending and not due: no agent claims it until the line passes.
_HOLD_BACK = "update outlast_task set due_at = null where id = :id and status = 'pending'"


def _start(
    transaction: Transaction,
    name: str,
    start: Start,
    tick: int,
    outcome: str,
    *,
    place: str | None = None,
    reason: str | None = None,
) -> Decided:
    started = starting.start_once(transaction, start)
    if place == "waiting":
        transaction.execute(_HOLD_BACK, {"id": started.task_id})
    transaction.execute(
        _INSERT_RUN,
        {
            "name": name,
            "tick": tick,
            "by_hand": outcome == "triggered",
            "outcome": outcome,
            "reason": reason,
            "run_id": started.uid,
            "place": place,
            "wall": transaction.wall,
        },
    )
    return Decided(name, TickRow(tick, tick, 1, outcome, reason), started.uid)


_EXTEND = """
update outlast_tick
set until = :until, count = count + :count, decided_at = :wall
where schedule = :name and by_hand = 0 and run_id is null and outcome = :outcome and reason is :reason
  and tick = (select tick from outlast_tick
              where schedule = :name and by_hand = 0 and tick < :tick order by tick desc limit 1)
"""

_INSERT_ROW = """
insert into outlast_tick (schedule, tick, until, count, outcome, reason, decided_at)
values (:name, :tick, :until, :count, :outcome, :reason, :wall)
"""


def _write_row(transaction: Transaction, name: str, row: TickRow) -> None:
    """Add to the ledger; a neighbour of the same outcome shares its row."""
    values = _values(transaction, name, row)
    if not transaction.execute(_EXTEND, values).rowcount:
        transaction.execute(_INSERT_ROW, values)


def _values(transaction: Transaction, name: str, row: TickRow) -> dict[str, Any]:
    values = {field: getattr(row, field) for field in row.__struct_fields__}
    return {**values, "name": name, "wall": transaction.wall}


def write_rows(transaction: Transaction, name: str, rows: Iterable[TickRow]) -> None:
    """Add decided ticks to a schedule's ledger."""
    for row in rows:
        _write_row(transaction, name, row)


_LINES = "select distinct schedule from outlast_tick where place = 'waiting'"

_LET_GO = """
update outlast_task set due_at = :now where uid = :run_id and status = 'pending' and due_at is null
"""

_IS_OPEN = "update outlast_tick set place = 'open' where schedule = :name and run_id = :run_id"


def pass_line(transaction: Transaction, _operation: PassLine) -> int:
    """Let the first of each line go where no run before it is unfinished."""
    passed = 0
    for (name,) in transaction.execute(_LINES).fetchall():
        unfinished = _unfinished(transaction, name)
        if not unfinished or unfinished[0][1] == "open":
            continue
        run_id, _ = unfinished[0]
        transaction.execute(_LET_GO, {"run_id": run_id, "now": transaction.now})
        transaction.execute(_IS_OPEN, {"name": name, "run_id": run_id})
        passed += 1
    if passed:
        transaction.ring = True
    return passed


_EXISTS = "select 1 from outlast_schedule where name = :name"

_LAST_BY_HAND = "select max(tick) from outlast_tick where schedule = :name and by_hand = 1 and tick >= :wall"


def trigger(transaction: Transaction, operation: TriggerSchedule) -> Decided:
    """Start a run by hand, now. It is among those that the overlap rule looks at from then on."""
    if transaction.one(_EXISTS, {"name": operation.name}) is None:
        raise ScheduleNotFound(operation.name)
    last = transaction.one(_LAST_BY_HAND, {"name": operation.name, "wall": transaction.wall})
    tick = transaction.wall if last is None or last[0] is None else last[0] + 1
    start = replace(operation.start, tick=tick)
    return _start(transaction, operation.name, start, tick, "triggered", place="open")


_CHANGE = "update outlast_schedule set revision = revision + 1 where name = :name and revision = :revision"


def backfill(transaction: Transaction, operation: Backfill) -> list[Decided] | None:
    """Start runs for ticks of the past. They stand apart: no overlap rule looks at them."""
    name = operation.name
    if not transaction.execute(_CHANGE, {"name": name, "revision": operation.revision}).rowcount:
        return None
    _replace(transaction, name, operation.removed, operation.rows)
    return [_start(transaction, name, start, start.tick, "backfilled") for start in operation.starts if start.tick is not None]


_REMOVE = "delete from outlast_tick where schedule = :name and tick = :tick and by_hand = 0 and run_id is null"


def _replace(transaction: Transaction, name: str, removed: Iterable[int], rows: Iterable[TickRow]) -> None:
    for tick in removed:
        transaction.execute(_REMOVE, {"name": name, "tick": tick})
    for row in rows:
        transaction.execute(_INSERT_ROW, _values(transaction, name, row))


_SET_BACK = """
update outlast_schedule
set cursor = :cursor, next_tick = :next_tick, next_at = :next_at, revision = revision + 1
where name = :name and revision = :revision and gone_at is null and error is null
"""


def rewind(transaction: Transaction, operation: Rewind) -> bool:
    """Set a schedule back to now; false where somebody else was first. What has fired stays in the ledger."""
    changed = transaction.execute(
        _SET_BACK,
        {
            "name": operation.name,
            "revision": operation.revision,
            "cursor": operation.cursor,
            "next_tick": operation.next_tick,
            "next_at": operation.next_at,
        },
    ).rowcount
    if changed:
        _replace(transaction, operation.name, operation.removed, operation.rows)
    return bool(changed)


_SCHEDULES = "select name from outlast_schedule order by name"

# A row begins before it ends: the first condition bounds the walk.
_OLD = """
select tick, by_hand, until from outlast_tick
where schedule = :name and tick < :before and until < :before
  and not exists (select 1 from outlast_task t where t.uid = run_id and t.finished_at is null)
order by tick limit :limit
"""

_MARK = """
update outlast_schedule set low_water = max(coalesce(low_water, :until), :until) where name = :name
"""

_PRUNE = "delete from outlast_tick where schedule = :name and tick = :tick and by_hand = :by_hand"


def prune(transaction: Transaction, operation: PruneTicks) -> int:
    """Forget old rows, the oldest of a schedule first. Below the mark that stays, a backfill would not know what has fired."""
    pruned = 0
    for (name,) in transaction.execute(_SCHEDULES).fetchall():
        left = operation.limit - pruned
        if left <= 0:
            break
        rows = transaction.execute(_OLD, {"name": name, "before": operation.before, "limit": left}).fetchall()
        for tick, by_hand, _ in rows:
            transaction.execute(_PRUNE, {"name": name, "tick": tick, "by_hand": by_hand})
        if rows:
            transaction.execute(_MARK, {"name": name, "until": max(until for _, _, until in rows)})
        pruned += len(rows)
    return pruned


_COUNT_OLD = """
select count(*) from outlast_tick
where tick < :before and until < :before
  and not exists (select 1 from outlast_task t where t.uid = run_id and t.finished_at is null)
"""


def count_old(connection: sqlite3.Connection, before: int) -> int:
    """How many rows of the ledger `prune` would forget."""
    count: int = connection.execute(_COUNT_OLD, {"before": before}).fetchone()[0]
    return count

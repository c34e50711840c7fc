"""The scheduler processes that are up, and the workflows whose schedules each fires.

Owns the rows by which `schedule show` knows that nobody fires a schedule, and a scheduler that another app is
on the same file. Refuses to matter for firing: a scheduler without its row fires as well as one with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from .. import clock
from ..operations.schedules import KeepScheduler, LeaveSchedulers
from .process import ProcessIdentity, is_alive
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

_KEEP = """
insert into outlast_scheduler (uid, host, boot_id, pid, process_started, workflows, started_at, heartbeat_at)
values (:uid, :host, :boot_id, :pid, :process_started, :workflows, :wall, :wall)
on conflict (uid) do update set workflows = excluded.workflows, heartbeat_at = excluded.heartbeat_at
"""


def keep(transaction: Transaction, operation: KeepScheduler) -> None:
    values = {field: getattr(operation, field) for field in operation.__struct_fields__}
    transaction.execute(_KEEP, {**values, "wall": transaction.wall})


_LEAVE = "delete from outlast_scheduler where uid = :uid"


def leave(transaction: Transaction, operation: LeaveSchedulers) -> None:
    for uid in operation.uids:
        transaction.execute(_LEAVE, {"uid": uid})


class SchedulerRow(Struct, frozen=True, gc=False):
    """A scheduler process, as it said itself."""

    uid: str
    host: str
    boot_id: str
    pid: int
    process_started: str
    workflows: str
    started_at: int
    heartbeat_at: int


_SCHEDULERS = "select * from outlast_scheduler"


def everybody(connection: sqlite3.Connection) -> list[SchedulerRow]:
    return [SchedulerRow(*row) for row in connection.execute(_SCHEDULERS)]


_HEARD_SECONDS = 90.0


def is_live(row: SchedulerRow) -> bool:
    """Whether a scheduler is up, as far as can be said: one whose process cannot be seen is, if it was heard
    lately.
    """
    seen = is_alive(ProcessIdentity(row.host, row.boot_id, row.pid, row.process_started))
    if seen is None:
        # Heard in the future: the wall clock was set back since, and one that lives would have been heard again.
        return abs(clock.wall() - row.heartbeat_at) < _HEARD_SECONDS * clock.SECOND
    return seen


def live(connection: sqlite3.Connection, *, but: str = "") -> list[SchedulerRow]:
    """The schedulers that are up, but for one."""
    return [row for row in everybody(connection) if row.uid != but and is_live(row)]

"""What the scheduler, the facade and the command line ask of a store about schedules, as values.

Owns the operations on schedules and their ledger, and the rows that those carry. Refuses to compute: which
ticks are due is the planner's, outside the transaction, so each operation names the revision of the schedule
that it was computed from, and changes nothing where that has risen meanwhile. Overlap alone is decided by the
store, since only in its transaction is it known which runs are unfinished.
"""

from __future__ import annotations

from msgspec import Struct

from . import Start
from .atomic import Operation


class TickRow(Struct, frozen=True, gc=False):
    """One row of the ledger: a tick, or neighbours of one outcome from `tick` to `until`."""

    tick: int
    until: int
    count: int | None
    """None: more than can be counted one by one."""
    outcome: str
    reason: str | None = None


class Fire(Struct, frozen=True, gc=False):
    """A tick to fire, and the run that it starts. `in_line`: it is caught up, and waits for the runs before
    it where it would be skipped otherwise.
    """

    start: Start
    tick: int
    in_line: bool = False


class Firing(Struct, frozen=True, gc=False):
    """What becomes of the due ticks of one schedule, in their order, and what comes next."""

    schedule: str
    revision: int
    overlap: str
    decisions: tuple[TickRow | Fire, ...]
    cursor: int
    next_tick: int | None
    next_at: int | None


class Decided(Struct, frozen=True, gc=False):
    """A row that went into the ledger."""

    schedule: str
    row: TickRow
    run_id: str | None = None


class FireDue(Operation[list[Decided]], frozen=True, gc=False):
    """Decide due ticks of many schedules and start their runs: each schedule whole or not at all."""

    firings: tuple[Firing, ...]


class PassLine(Operation[int], frozen=True, gc=False):
    """Let runs that stand in line go where those before them have ended; gives how many."""


class ScheduleRow(Struct, frozen=True, gc=False):
    """A schedule as it is written."""

    name: str
    workflow: str
    rule: str
    description: str
    fingerprint: str
    input: bytes
    source: str
    origin: str | None
    origin_host: str | None
    cursor: int
    next_tick: int | None
    next_at: int | None


class ScheduleWrite(Struct, frozen=True, gc=False):
    """A schedule to make (`revision` None), or to change; `missed` are ticks of its old rule that nobody
    decided.
    """

    row: ScheduleRow
    uid: str
    revision: int | None = None
    missed: tuple[TickRow, ...] = ()


class GoneSchedule(Struct, frozen=True, gc=False):
    """A schedule that its code declares no more."""

    name: str
    revision: int
    cursor: int
    """Until when its ticks are decided: by what is in the ledger, and by `missed`."""
    missed: tuple[TickRow, ...] = ()


class WriteSchedules(Operation[list[str]], frozen=True, gc=False):
    """Make and change schedules, and note those that are gone from their code.

    Gives the names of those that had changed meanwhile, which are as they were.
    """

    writes: tuple[ScheduleWrite, ...] = ()
    gone: tuple[GoneSchedule, ...] = ()


class DeleteSchedule(Operation[None], frozen=True, gc=False):
    """Forget a schedule and its ledger; its runs stay."""

    name: str


class PauseSchedule(Operation[None], frozen=True, gc=False):
    """Fire no more ticks until it is resumed; the ledger says of each that it fell into the pause."""

    name: str
    reason: str | None = None


class ResumeSchedule(Operation[None], frozen=True, gc=False):
    name: str


class BreakSchedule(Operation[bool], frozen=True, gc=False):
    """Note why a schedule cannot fire; it is left alone until it changes."""

    name: str
    revision: int
    error: str


class TriggerSchedule(Operation[Decided], frozen=True, gc=False):
    """Start a run of a schedule now, whatever its rule says; `start.tick` is set to the instant."""

    name: str
    start: Start


class Backfill(Operation[list[Decided] | None], frozen=True, gc=False):
    """Start runs for ticks of the past that have not fired; None where the schedule changed meanwhile.

    `removed` are rows of the ledger, by their first tick, that `rows` and the runs take the place of.
    """

    name: str
    revision: int
    starts: tuple[Start, ...]
    removed: tuple[int, ...] = ()
    rows: tuple[TickRow, ...] = ()


class Rewind(Operation[bool], frozen=True, gc=False):
    """After a step back of the wall clock: what was decided of ticks that are ahead now, but for those that
    fired, is decided anew.
    """

    name: str
    revision: int
    cursor: int
    next_tick: int | None
    next_at: int | None
    removed: tuple[int, ...] = ()
    rows: tuple[TickRow, ...] = ()


class KeepScheduler(Operation[None], frozen=True, gc=False):
    """Say that a scheduler process is up, and the workflows whose schedules it fires."""

    uid: str
    host: str
    boot_id: str
    pid: int
    process_started: str
    workflows: str


class LeaveSchedulers(Operation[None], frozen=True, gc=False):
    """Schedulers have ended."""

    uids: tuple[str, ...]


class PruneTicks(Operation[int], frozen=True, gc=False):
    """Forget up to `limit` rows of the ledger before a wall instant, and keep each schedule's low-water mark;
    gives the rows that went. Ticks whose runs are unfinished stay.
    """

    before: int
    limit: int = 500

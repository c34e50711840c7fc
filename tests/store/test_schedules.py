"""The ledger in the store: runs by hand, backfills, pruning, broken rows, and the plans of hot questions."""

from __future__ import annotations

from typing import Any

import pytest

from outlast import Every, clock, scheduling, workflow
from outlast import operations as op
from outlast.clock import SECOND
from outlast.definition.registry import Registry
from outlast.errors import Conflict, InvalidInput, ScheduleNotFound
from outlast.operations import schedules as sop
from outlast.scheduler import Scheduler
from outlast.scheduling import backfill
from outlast.settings import Settings
from outlast.states import Ending
from outlast.store import schedulers, schedules
from outlast.store.library import sqlite3
from outlast.store.sqlite import SqliteStore
from outlast.views.schedules import ticks_json

MINUTE = 60 * SECOND
BEGIN = 1_700_000_040 * SECOND


def report(folder: str = "/") -> None: ...


@pytest.fixture
def app(app: Registry) -> Registry:
    workflow(report)
    return app


def made(store: SqliteStore, app: Registry, **options: Any) -> Scheduler:
    """A schedule by the minute, and a scheduler."""
    scheduling.schedule(store, app, "report", "report", Every("1m", **options))
    return Scheduler(store, app, Settings())


def settle(one: Scheduler, store: SqliteStore) -> None:
    while one.tick(store.now()) <= 0:
        pass


def ledger(store: SqliteStore) -> list[tuple[str, int, int, int | None]]:
    """Outcome, first and last minute, count."""
    rows = store.connection().execute("select outcome, tick, until, count from outlast_tick order by tick, by_hand")
    return [(outcome, (tick - BEGIN) // MINUTE, (until - BEGIN) // MINUTE, count) for outcome, tick, until, count in rows]


def fill(store: SqliteStore, app: Registry, first: int, last: int) -> list[int]:
    done = backfill.backfill(store, app, Settings(), {}, "report", BEGIN + first * MINUTE, BEGIN + last * MINUTE)
    return [(one.row.tick - BEGIN) // MINUTE for one in done]


def run_count(store: SqliteStore) -> int:
    count: int = store.connection().execute("select count(*) from outlast_task").fetchone()[0]
    return count


def test_a_backfill_takes_its_ticks_out_of_the_rows_that_held_them(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    ours = made(store, app, overlap="allow")
    manual.advance(10 * 60)
    settle(ours, store)
    assert ledger(store) == [("coalesced", 1, 9, 9), ("fired", 10, 10, 1)]
    assert fill(store, app, 4, 5) == [4, 5]
    assert ledger(store) == [
        ("coalesced", 1, 3, 3),
        ("backfilled", 4, 4, 1),
        ("backfilled", 5, 5, 1),
        ("coalesced", 6, 9, 4),
        ("fired", 10, 10, 1),
    ]


def test_a_backfill_given_twice_starts_nothing_twice_and_leaves_what_has_fired(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    ours = made(store, app, overlap="allow")
    manual.advance(10 * 60)
    settle(ours, store)
    assert fill(store, app, 1, 10) == list(range(1, 10))
    assert fill(store, app, 1, 10) == []
    assert run_count(store) == 10
    assert ledger(store)[-1] == ("fired", 10, 10, 1)


def test_both_ends_of_a_backfill_are_included_and_ticks_before_the_schedule_are_possible(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    made(store, app)
    assert fill(store, app, -3, -1) == [-3, -2, -1]


def test_a_backfill_of_what_is_due_leaves_nothing_of_it_to_the_scheduler(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    ours = made(store, app, overlap="allow")
    manual.advance(5 * 60)
    assert fill(store, app, 2, 5) == [2, 3, 4, 5]
    settle(ours, store)
    assert ledger(store) == [("coalesced", 1, 1, 1), *(("backfilled", minute, minute, 1) for minute in range(2, 6))]


def test_a_backfilled_run_holds_up_no_tick(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    ours = made(store, app, overlap="skip")
    fill(store, app, -1, -1)
    manual.advance(60)
    settle(ours, store)
    assert ledger(store)[-1] == ("fired", 1, 1, 1)


def test_a_backfill_of_the_future_or_of_no_schedule_is_refused(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    made(store, app)
    with pytest.raises(InvalidInput, match="ahead"):
        fill(store, app, 0, 1)
    with pytest.raises(InvalidInput, match="before it begins"):
        fill(store, app, -1, -2)
    with pytest.raises(ScheduleNotFound):
        backfill.backfill(store, app, Settings(), {}, "nobody", BEGIN - MINUTE, BEGIN)


def test_a_backfill_of_ticks_that_were_pruned_is_refused(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    ours = made(store, app, overlap="allow")
    for _ in range(4):
        manual.advance(60)
        settle(ours, store)
    store.connection().execute("update outlast_task set status = 'cancelled', finished_at = 1, due_at = null where id <= 2")
    assert store.commit(sop.PruneTicks(BEGIN + 4 * MINUTE)) == 2
    assert ledger(store) == [("fired", 3, 3, 1), ("fired", 4, 4, 1)], "unfinished runs keep their ticks"
    with pytest.raises(Conflict, match="pruned"):
        fill(store, app, 1, 4)
    assert fill(store, app, 3, 4) == []


def test_a_run_by_hand_starts_although_the_schedule_is_paused_and_busy(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    ours = made(store, app)
    manual.advance(60)
    settle(ours, store)
    store.commit(sop.PauseSchedule("report"))
    first = backfill.trigger(store, app, Settings(), "report")
    second = backfill.trigger(store, app, Settings(), "report")
    assert first.run_id != second.run_id
    assert ledger(store) == [("fired", 1, 1, 1), ("triggered", 1, 1, 1), ("triggered", 1, 1, 1)]
    with pytest.raises(ScheduleNotFound):
        backfill.trigger(store, app, Settings(), "nobody")


def test_a_run_by_hand_is_among_those_that_a_tick_must_not_overlap(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    ours = made(store, app)
    started = backfill.trigger(store, app, Settings(), "report")
    manual.advance(60)
    settle(ours, store)
    assert ticks_json(store, "report")[0]["reason"] == f"run {started.run_id} was unfinished"


def test_deleting_a_schedule_lets_go_who_stands_in_line(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    ours = made(store, app, overlap="queue_one")
    for _ in range(2):
        manual.advance(60)
        settle(ours, store)
    waiting = "select count(*) from outlast_task where due_at is null"
    assert store.connection().execute(waiting).fetchone()[0] == 1
    scheduling.unschedule(store, "report")
    assert store.connection().execute(waiting).fetchone()[0] == 0
    assert store.connection().execute("select count(*) from outlast_tick").fetchone()[0] == 0


def test_a_schedule_made_anew_under_an_old_name_starts_runs_of_its_own(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    made(store, app)
    fill(store, app, -1, -1)
    scheduling.unschedule(store, "report")
    made(store, app)
    assert fill(store, app, -1, -1) == [-1]
    assert run_count(store) == 2


def test_one_schedule_that_cannot_be_written_leaves_the_others_of_its_transaction(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    ours = made(store, app, overlap="allow")
    scheduling.schedule(store, app, "twin", "report", Every("1m", overlap="allow"))
    store.connection().execute(
        "create trigger refuse before insert on outlast_tick when new.schedule = 'twin' begin select raise(abort, 'refused here'); end"
    )
    manual.advance(60)
    settle(ours, store)
    assert ledger(store) == [("fired", 1, 1, 1)]
    twin = schedules.find(store.connection(), "twin")
    assert twin is not None
    assert twin.error is not None
    assert "refused here" in twin.error
    assert run_count(store) == 1


def test_a_scheduler_elsewhere_that_was_heard_before_the_clock_was_set_back_is_not_up(manual: clock.ManualClock) -> None:
    heard = schedulers.SchedulerRow("s", "elsewhere/0/0", "boot", 1, "1", "[]", 0, clock.wall())
    manual.advance(60)
    assert schedulers.is_live(heard)
    manual.jump(-86_400)
    assert not schedulers.is_live(heard)


def test_the_database_refuses_a_tick_twice(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    made(store, app)
    insert = (
        "insert into outlast_tick (schedule, tick, until, count, outcome, run_id, decided_at) values ('report', 1, 1, 1, 'fired', ?, 1)"
    )
    store.connection().execute(insert, ("a",))
    with pytest.raises(sqlite3.IntegrityError):
        store.connection().execute(insert, ("b",))


@pytest.mark.parametrize("sql", [schedules._DUE, schedules._EARLIEST, schedules._EARLIEST_OTHER])
def test_an_idle_look_walks_the_index_of_what_is_due(store: SqliteStore, sql: str) -> None:
    values = {"workflows": "[]", "spared": "{}", "wall": 0, "limit": 1}
    plan = " ".join(row[3] for row in store.connection().execute(f"explain query plan {sql}", values))
    assert "outlast_schedule_due" in plan
    assert "SCAN s" not in plan


def test_ten_thousand_schedules_cost_an_idle_look_next_to_nothing(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    import time

    ours = made(store, app)
    rule = Every("1h")
    writes = tuple(scheduling.new(f"s{number}", rule, "report", b"{}", source="command", wall=BEGIN) for number in range(10_000))
    store.commit(sop.WriteSchedules(writes))
    settle(ours, store)
    began = time.process_time()
    for _ in range(100):
        ours.tick(store.now())
    assert (time.process_time() - began) / 100 < 0.01, "one look a second: under 1 % of a core"


def test_a_schedule_that_is_not_paused_cannot_be_resumed(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    made(store, app)
    with pytest.raises(Conflict, match="not paused"):
        store.commit(sop.ResumeSchedule("report"))
    for operation in (sop.PauseSchedule("x"), sop.ResumeSchedule("x"), sop.DeleteSchedule("x")):
        with pytest.raises(ScheduleNotFound):
            store.commit(operation)


def test_a_run_that_goes_on_as_a_new_one_is_unfinished_to_the_overlap_rule(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    ours = made(store, app)
    manual.advance(60)
    settle(ours, store)
    code = {"workflow:report": "f"}
    agent = store.commit(op.RegisterAgent("a", "elsewhere/0/0", clock.boot_id(), 1, "1", 8, None, 600 * clock.SECOND, code))
    [held] = store.commit(op.Claim(agent, 1, code))
    start = op.Start(
        uid="next", kind="run", name="report", needs="workflow:report", queue="default", input=b"{}", tick=held.tick
    )  # fmt: skip
    store.commit(op.ContinueAsNew(held.fence, start))
    manual.advance(60)
    settle(ours, store)
    assert [(row["outcome"], row["reason"]) for row in ticks_json(store, "report")] == [
        ("skipped", "run next was unfinished"),
        ("fired", None),
    ]
    [held] = store.commit(op.Claim(agent, 1, code))
    store.commit(op.End(held.fence, Ending.COMPLETED, output=b"null", simple=True))
    manual.advance(60)
    settle(ours, store)
    assert ledger(store)[-1] == ("fired", 3, 3, 1)

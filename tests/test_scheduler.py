"""The scheduler: what fires, what does not, what the ledger says of it, and clocks that somebody sets."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from scheduling_fakes import (
    BEGIN,
    DAY,
    HOUR,
    MINUTE,
    eventually,
    finish,
    ledger,
    nightly,
    other,
    runs,
    scheduler,
    settle,
)

from outlast import At, Cron, Every, Schedule, clock, scheduling, workflow
from outlast import operations as op
from outlast.clock import SECOND
from outlast.definition.registry import Registry
from outlast.doctor import examine
from outlast.errors import Conflict, ScheduleNotFound
from outlast.operations import schedules as sop
from outlast.operations.queues import SetQueue
from outlast.scheduler import Scheduler
from outlast.settings import Settings
from outlast.store import schedules
from outlast.store.sqlite import SqliteStore
from outlast.timetable import schedules_of
from outlast.timetable.zone import Zone, find_zone
from outlast.views.schedules import schedule_json, ticks_json
from outlast.why import why


def test_a_new_schedule_begins_now_and_not_in_the_past(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule="* * * * *")(nightly)
    settle(scheduler(store, app))
    assert ledger(store) == []
    manual.advance(59)
    settle(scheduler(store, app))
    assert ledger(store) == []


def test_a_tick_starts_a_run_that_knows_it(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule="* * * * *")(nightly)
    ours = scheduler(store, app)
    assert ours.tick(store.now()) == MINUTE
    manual.advance(60)
    settle(ours)
    [(uid, status, tick)] = runs(store)
    assert (status, tick) == ("pending", 1)
    [row] = ticks_json(store, "nightly")
    assert row == {
        "schedule": "nightly",
        "tick": "2023-11-14T22:15:00.000Z",
        "until": "2023-11-14T22:15:00.000Z",
        "count": 1,
        "outcome": "fired",
        "reason": None,
        "run_id": uid,
    }


def test_of_three_schedulers_each_tick_is_fired_by_one(
    store: SqliteStore, app: Registry, manual: clock.ManualClock, tmp_path: Path
) -> None:
    workflow(schedule=Every("1m", overlap="allow"))(nightly)
    stores = [SqliteStore(tmp_path / "app.db") for _ in range(3)]
    three = [scheduler(one, app) for one in stores]
    settle(*three)
    for _ in range(20):
        manual.advance(60)
        settle(*three)
    assert ledger(store) == [("fired", minute, 1) for minute in range(1, 21)]
    assert [tick for _, _, tick in runs(store)] == list(range(1, 21))
    for one in stores:
        one.close()


def test_a_decision_from_an_old_look_changes_nothing(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", overlap="allow"))(nightly)
    settle(slow := scheduler(store, app))
    manual.advance(60)
    [row] = schedules.due(store.connection(), '["nightly"]', "{}", wall=clock.wall(), limit=9)
    decided = slow._firing(row, clock.wall())
    assert decided is not None
    settle(scheduler(store, app))
    assert store.commit(sop.FireDue((decided,))) == []
    assert len(runs(store)) == 1


CAUGHT_UP = {
    "latest": [("fired", 1, 1), ("missed", 2, 1), ("coalesced", 4, 2), ("fired", 5, 1)],
    "all": [("fired", 1, 1), ("missed", 2, 1), ("fired", 3, 1), ("fired", 4, 1), ("fired", 5, 1)],
    "none": [("fired", 1, 1), ("missed", 5, 4)],
}


@pytest.mark.parametrize("catch_up", CAUGHT_UP)
def test_downtime_is_caught_up_as_the_schedule_says(store: SqliteStore, app: Registry, manual: clock.ManualClock, catch_up: Any) -> None:
    workflow(schedule=Every("1m", catch_up=catch_up, catch_up_window="150s", overlap="allow"))(nightly)
    settle(scheduler(store, app))
    manual.advance(60)
    settle(scheduler(store, app))
    manual.advance(270)  # The fifth tick is half a minute ago.
    settle(scheduler(store, app))
    assert ledger(store) == CAUGHT_UP[catch_up]
    manual.advance(30)
    settle(scheduler(store, app))
    assert ledger(store)[-1] == ("fired", 6, 1)


def test_a_tick_on_time_fires_whatever_catch_up_says(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", catch_up="none", catch_up_window="0s", overlap="allow"))(nightly)
    settle(ours := scheduler(store, app))
    manual.advance(182)
    settle(ours)
    assert ledger(store) == [("missed", 2, 2), ("fired", 3, 1)]


def test_years_of_downtime_cost_no_loop_over_their_ticks(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Cron("* * * * *", timezone="Europe/Berlin"))(nightly)
    settle(scheduler(store, app))
    manual.advance(5 * 365 * DAY)
    began = time.perf_counter()
    settle(scheduler(store, app))
    assert time.perf_counter() - began < 1
    minutes = 5 * 365 * 1_440
    assert ledger(store) == [
        ("missed", minutes - 1_441, minutes - 1_441),
        ("coalesced", minutes - 1, 1_440),
        ("fired", minutes, 1),
    ]


def test_all_of_a_downtime_fires_its_youngest_ticks_too(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1s", catch_up="all"))(nightly)
    settle(ours := scheduler(store, app))
    manual.advance(20)
    settle(ours)
    assert [row["outcome"] for row in ticks_json(store, "nightly")] == ["fired"] * 20


def test_all_of_a_long_downtime_comes_in_batches_and_in_line(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", catch_up="all"))(nightly)
    settle(scheduler(store, app))
    manual.advance(20 * HOUR)
    settle(ours := scheduler(store, app))
    assert [outcome for outcome, _, _ in ledger(store)] == ["fired"] * 1_200
    order = []
    for _ in range(5):
        done = finish(store, limit=10)
        assert len(done) == 1
        order += done
        settle(ours)
    assert order == [uid for uid, _, _ in runs(store)][:5]


def test_a_tick_is_skipped_while_the_last_run_is_unfinished(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule="* * * * *")(nightly)
    settle(ours := scheduler(store, app))
    for _ in range(3):
        manual.advance(60)
        settle(ours)
    [(uid, _, _)] = runs(store)
    assert ledger(store) == [("fired", 1, 1), ("skipped", 3, 2)]
    assert ticks_json(store, "nightly")[0]["reason"] == f"run {uid} was unfinished"
    assert finish(store) == [uid]
    manual.advance(60)
    settle(ours)
    assert ledger(store)[-1] == ("fired", 4, 1)


def test_queue_one_lets_one_tick_wait_and_no_more(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", overlap="queue_one"))(nightly)
    settle(ours := scheduler(store, app))
    for _ in range(4):
        manual.advance(60)
        settle(ours)
    assert ledger(store) == [("fired", 1, 1), ("fired", 2, 1), ("skipped", 4, 2)]
    first, second = [uid for uid, _, _ in runs(store)]
    assert f"stands in line: runs of the schedule nightly go one after another, and run {first} is pending" in why(store, 2).summary
    assert all(found.ok for found in examine(store) if found.name == "wakeups")
    assert finish(store, limit=10) == [first]
    assert finish(store, limit=10) == []
    settle(ours)
    assert finish(store, limit=10) == [second]


def test_cancel_running_cancels_the_last_run_and_starts(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", overlap="cancel_running"))(nightly)
    settle(ours := scheduler(store, app))
    for _ in range(2):
        manual.advance(60)
        settle(ours)
    assert [status for _, status, _ in runs(store)] == ["cancelled", "pending"]
    assert finish(store) == [runs(store)[1][0]]


def test_cancel_running_waits_for_a_run_that_an_agent_still_holds(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", overlap="cancel_running"))(nightly)
    settle(ours := scheduler(store, app))
    manual.advance(60)
    settle(ours)
    code = {"workflow:nightly": "f"}
    agent_id = store.commit(op.RegisterAgent("a", "h", "b", 1, "s", 8, None, HOUR * SECOND, code))
    [held] = store.commit(op.Claim(agent_id, 1, code))
    manual.advance(60)
    settle(ours)
    assert [status for _, status, _ in runs(store)] == ["running", "pending"]
    assert finish(store) == []
    store.commit(op.End(held.fence, op.Ending.CANCELLED, simple=True))
    settle(ours)
    assert finish(store) == [runs(store)[1][0]]


def test_a_clock_set_back_an_hour_fires_nothing_twice(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("10m", overlap="allow"))(nightly)
    settle(ours := scheduler(store, app))
    for _ in range(12):
        manual.advance(600)
        settle(ours)
    manual.jump(-HOUR)
    settle(ours)
    for _ in range(8):
        manual.advance(600)
        settle(ours, scheduler(store, app))
    assert len(ledger(store)) == len({until for _, until, _ in ledger(store)}) == 14
    assert {outcome for outcome, _, _ in ledger(store)} == {"fired"}


@pytest.mark.parametrize("offset", [-HOUR, HOUR], ids=["an hour later", "an hour earlier"])
def test_a_zone_whose_data_have_changed_moves_the_next_tick(
    store: SqliteStore, app: Registry, manual: clock.ManualClock, monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    workflow(schedule=Cron("30 2 * * *", timezone="Europe/Berlin", catch_up="none"))(nightly)
    settle(scheduler(store, app))
    [(before,)] = store.connection().execute("select next_at from outlast_schedule").fetchall()
    found = find_zone("Europe/Berlin")
    moved = Zone("Europe/Berlin", timezone(timedelta(seconds=found.offset(before // SECOND) + offset)))
    monkeypatch.setattr(found, "info", moved.info)
    monkeypatch.setattr(found, "_blocks", {})
    settle(ours := scheduler(store, app))
    [(after,)] = store.connection().execute("select next_at from outlast_schedule").fetchall()
    assert after == before - offset * SECOND
    manual.advance((after - clock.wall()) / SECOND)
    settle(ours)
    assert [outcome for outcome, _, _ in ledger(store)] == ["fired"]


def test_after_a_clock_that_was_a_year_ahead_ticks_go_on_at_once(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", overlap="allow"))(nightly)
    settle(ours := scheduler(store, app))
    manual.jump(365 * DAY)
    settle(ours)
    far = 365 * 1_440
    assert ledger(store)[-1] == ("fired", far, 1)
    manual.jump(-365 * DAY)
    settle(ours)
    assert ledger(store) == [("fired", far, 1)]
    manual.advance(120)
    settle(ours)
    assert ledger(store) == [("coalesced", 1, 1), ("fired", 2, 1), ("fired", far, 1)]


def test_a_tick_whose_row_was_pruned_while_the_clock_was_ahead_keeps_its_run(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    workflow(schedule=Every("1m", overlap="allow"))(nightly)
    settle(ours := scheduler(store, app))
    manual.advance(60)
    settle(ours)
    manual.advance(60)
    settle(ours)
    assert len(finish(store, "nightly", 2)) == 2
    manual.jump(365 * DAY)
    assert store.commit(sop.PruneTicks(clock.wall(), 500)) == 2
    manual.jump(-365 * DAY - 60)
    settle(ours)
    manual.advance(60)
    settle(ours)
    assert [row[:2] for row in ledger(store)] == [("fired", 2)]
    assert len(runs(store)) == 2
    manual.advance(60)
    settle(ours)
    assert len(runs(store)) == 3


def test_a_day_ahead_is_downtime(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1h", overlap="allow"))(nightly)
    settle(ours := scheduler(store, app))
    manual.jump(DAY + HOUR / 2)
    settle(ours)
    assert [(outcome, count) for outcome, _, count in ledger(store)] == [
        ("missed", 1),
        ("coalesced", 22),
        ("fired", 1),
    ] or [(outcome, count) for outcome, _, count in ledger(store)] == [("coalesced", 23), ("fired", 1)]


def test_a_pause_is_in_the_ledger_and_nothing_of_it_fires_later(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", overlap="allow"))(nightly)
    settle(ours := scheduler(store, app))
    store.commit(sop.PauseSchedule("nightly", "moving"))
    for _ in range(3):
        manual.advance(60)
        settle(ours)
    assert ledger(store) == [("paused", 3, 3)]
    assert ticks_json(store, "nightly")[0]["reason"] == "moving"
    manual.advance(130)  # Nobody looks; then it is resumed.
    store.commit(sop.ResumeSchedule("nightly"))
    manual.advance(70)
    settle(ours)
    assert ledger(store) == [("paused", 5, 5), ("fired", 6, 1)]
    with pytest.raises(Conflict):
        store.commit(sop.ResumeSchedule("nightly"))
    with pytest.raises(ScheduleNotFound):
        store.commit(sop.PauseSchedule("nobody"))


def test_a_short_pause_loses_no_tick_that_its_jitter_put_off(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1d", jitter="1h", overlap="allow"))(nightly)
    settle(ours := scheduler(store, app))
    first = ours.tick(store.now())
    [row] = schedules.everything(store.connection())
    assert row.next_tick is not None
    assert row.next_at is not None
    jitter = (row.next_at - row.next_tick) / SECOND
    assert 10 < jitter < HOUR
    manual.advance(first - jitter / 2)
    store.commit(sop.PauseSchedule("nightly"))
    manual.advance(1)
    store.commit(sop.ResumeSchedule("nightly"))
    settle(ours)
    assert ledger(store) == []
    manual.advance(jitter)
    settle(ours)
    assert [outcome for outcome, _, _ in ledger(store)] == ["fired"]
    assert runs(store)[0][2] == (row.next_tick - BEGIN) // (MINUTE * SECOND)


def test_jitter_delays_a_tick_alike_in_every_process(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    made = Every("1h", jitter="10m", overlap="allow")
    workflow(schedule=made)(nightly)
    one, two = scheduler(store, app), scheduler(store, app)
    assert one.tick(store.now()) == two.tick(store.now())
    tick = made.timetable.next(BEGIN)
    assert tick is not None
    delay = made.jitter_seconds("nightly", tick)
    manual.advance((tick - BEGIN) / SECOND + delay - 1)
    settle(one, two)
    assert ledger(store) == []
    manual.advance(1)
    settle(one, two)
    assert [row["tick"] for row in ticks_json(store, "nightly")] == [clock.iso(tick)]


def test_a_jitter_longer_than_the_interval_swallows_no_tick(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Every("1m", jitter="10m", overlap="allow"))(nightly)
    ours = scheduler(store, app)
    while manual.wall() < BEGIN + HOUR * SECOND:
        manual.advance(max(ours.tick(store.now()), 0.001))
    found = ledger(store)
    assert len(found) >= 59
    assert found == [("fired", minute, 1) for minute in range(1, len(found) + 1)]


def test_what_could_not_fire_is_tried_again_and_catches_up(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule="* * * * *", queue="later")(nightly)
    settle(ours := scheduler(store, app))
    manual.advance(60)
    settle(ours)
    assert "There is no queue 'later'" in schedule_json(store, "nightly", {})["why"]
    store.commit(SetQueue("later", concurrency=1))
    manual.advance(60)
    settle(ours)
    assert ledger(store) == [("coalesced", 1, 1), ("fired", 2, 1)]


def test_a_schedule_ends_after_its_last_tick(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    end = datetime.fromtimestamp(BEGIN / SECOND + 130, UTC)
    workflow(schedule=Every("1m", end=end, overlap="allow"))(nightly)
    workflow(schedule=At(datetime.fromtimestamp(BEGIN / SECOND + 60, UTC)))(other)
    settle(ours := scheduler(store, app))
    for _ in range(4):
        manual.advance(60)
        settle(ours)
    assert ledger(store) == [("fired", 1, 1), ("fired", 2, 1)]
    assert ledger(store, "other") == [("fired", 1, 1)]
    assert schedule_json(store, "nightly", {})["status"] == "ended"


def test_a_thousand_schedules_due_at_once_have_their_runs_within_a_second(
    store: SqliteStore, app: Registry, manual: clock.ManualClock
) -> None:
    definition = workflow(nightly)
    for number in range(1_000):
        store.commit(
            sop.WriteSchedules((scheduling.new(f"s{number}", Every("1h"), definition.name, b"{}", source="command", wall=clock.wall()),))
        )
    settle(ours := scheduler(store, app))
    manual.advance(HOUR)
    began = time.perf_counter()
    settle(ours)
    took = time.perf_counter() - began
    assert len(runs(store)) == 1_000
    assert took < 2, "twice the bar: the machine is shared"


@pytest.mark.parametrize("seed", range(12))
def test_the_ledger_has_no_hole_and_no_double_whatever_happens(
    store: SqliteStore, app: Registry, manual: clock.ManualClock, seed: int
) -> None:
    chance = random.Random(seed)
    options: dict[str, Any] = {
        "catch_up": chance.choice(["latest", "all", "none"]),
        "catch_up_window": chance.choice(["10m", "1h", None]),
        "overlap": chance.choice(["skip", "allow", "queue_one", "cancel_running"]),
        "jitter": chance.choice([None, "20s", "5m"]),
    }
    [made] = schedules_of(chance.choice([Every("1m", **options), Cron("*/7 * * * *", **options)]), "nightly").values()
    workflow(schedule=made)(nightly)
    some = [scheduler(store, app) for _ in range(3)]
    settle(*some)
    fired: set[int] = set()
    for _ in range(60):
        match chance.choice(["wait", "wait", "sleep", "back", "ahead", "pause", "resume", "finish", "restart"]):
            case "wait":
                manual.advance(chance.uniform(1, 400))
            case "sleep":
                manual.advance(chance.uniform(1, 3 * HOUR))
            case "back":
                manual.jump(-chance.uniform(1, 2 * HOUR))
            case "ahead":
                manual.jump(chance.uniform(1, 2 * HOUR))
            case "pause":
                store.commit(sop.PauseSchedule("nightly", chance.choice([None, "why"])))
            case "resume":
                try:
                    store.commit(sop.ResumeSchedule("nightly"))
                except Conflict:
                    pass
            case "finish":
                finish(store, limit=5)
            case "restart":
                some[chance.randrange(3)] = scheduler(store, app)
        settle(chance.choice(some))
        now_fired = {row[0] for row in _rows(store) if row[3] is not None}
        assert fired <= now_fired
        fired = now_fired
    _assert_whole(store, made)
    assert sorted(fired) == sorted(tick for (tick,) in store.connection().execute("select tick from outlast_input"))


def _rows(store: SqliteStore) -> list[tuple[int, int, int | None, str | None]]:
    return store.connection().execute("select tick, until, count, run_id from outlast_tick order by tick").fetchall()


def _assert_whole(store: SqliteStore, made: Schedule) -> None:
    """Every nominal tick from the first one decided up to the cursor is in exactly one row."""
    [row] = schedules.everything(store.connection())
    decided = [one for one in _rows(store) if one[0] <= row.cursor]
    for tick, until, count, _ in decided:
        assert made.timetable.latest(tick) == tick
        assert made.timetable.latest(until) == until <= row.cursor
        assert count == made.timetable.count(tick - 1, until)
    for before, after in pairwise(decided):
        assert made.timetable.next(before[1]) == after[0]
    if decided:
        assert made.timetable.latest(row.cursor) == decided[-1][1]


def test_the_role_fires_in_its_own_thread_and_leaves_no_thread_behind(tmp_path: Path, app: Registry) -> None:
    store = SqliteStore(tmp_path / "app.db", create=True)
    workflow(schedule=Every("200ms", overlap="allow"))(nightly)
    lines: list[str] = []
    threads = threading.active_count()
    ours = Scheduler(store, app, Settings(), on_change=lines.append)
    ours.start()
    try:
        eventually(lambda: len(runs(store)) >= 3)
        assert len(schedule_json(store, "nightly", {})["why"]) > 0
    finally:
        ours.stop()
    eventually(lambda: threading.active_count() <= threads)
    assert lines[0].startswith("schedule nightly: new, every 200ms")
    assert store.connection().execute("select count(*) from outlast_scheduler").fetchone()[0] == 0
    store.close()


def test_a_schedule_made_while_the_role_sleeps_wakes_it(tmp_path: Path, app: Registry) -> None:
    store = SqliteStore(tmp_path / "app.db", create=True)
    definition = workflow(nightly)
    ours = Scheduler(store, app, Settings())
    ours.start()
    try:
        eventually(lambda: bool(store.connection().execute("select 1 from outlast_scheduler").fetchone()))
        scheduling.schedule(store, app, "hand", definition, Every("100ms", overlap="allow"))
        eventually(lambda: bool(runs(store)))
    finally:
        ours.stop()
        store.close()

"""Making schedules: what code declares, what is made by hand, what changes, goes and breaks."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from scheduling_fakes import (
    BEGIN,
    HOUR,
    MINUTE,
    ledger,
    needy,
    nightly,
    other,
    runs,
    scheduler,
    settle,
)

from outlast import Every, Schedule, clock, scheduling, workflow
from outlast.clock import SECOND
from outlast.definition import registry
from outlast.definition.registry import Registry
from outlast.errors import Conflict, InvalidDefinition, InvalidInput, ScheduleNotFound
from outlast.store import schedules
from outlast.store.sqlite import SqliteStore
from outlast.views.schedules import schedule_json, ticks_json


def test_what_disappears_from_the_code_is_gone_and_comes_back_from_now_on(store: SqliteStore, manual: clock.ManualClock) -> None:
    with registry.isolated() as before:
        workflow(schedule="* * * * *")(nightly)
        settle(scheduler(store, before))
    manual.advance(60)
    with registry.isolated() as after:
        workflow(nightly)
        settle(scheduler(store, after))
    shown = schedule_json(store, "nightly", {})
    assert shown["status"] == "gone"
    assert "disappeared" in shown["why"]
    assert ledger(store) == [("missed", 1, 1)]
    manual.advance(600)
    with registry.isolated() as again:
        workflow(schedule="* * * * *")(nightly)
        settle(scheduler(store, again))
        assert schedule_json(store, "nightly", {})["status"] == "active"
        assert ledger(store) == [("missed", 11, 11)]
        manual.advance(60)
        settle(scheduler(store, again))
    assert ledger(store) == [("missed", 11, 11), ("fired", 12, 1)]


def test_a_scheduler_without_an_apps_code_neither_fires_nor_ends_its_schedules(
    store: SqliteStore, app: Registry, manual: clock.ManualClock, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.py"
    theirs.write_text("")
    definition = workflow(schedule="* * * * *")(nightly)
    definition.file = str(theirs)
    settle(scheduler(store, app))
    with registry.isolated() as ours:
        workflow(schedule="* * * * *")(other)
        settle(stranger := scheduler(store, ours))
        manual.advance(60)
        settle(stranger)
    assert ledger(store) == []
    assert schedule_json(store, "nightly", {})["status"] == "active"
    settle(scheduler(store, app))
    assert ledger(store) == [("fired", 1, 1)]


def test_a_schedule_whose_file_was_deleted_is_gone(store: SqliteStore, manual: clock.ManualClock, tmp_path: Path) -> None:
    with registry.isolated() as before:
        definition = workflow(schedule="* * * * *")(nightly)
        definition.file = str(tmp_path / "deleted.py")
        settle(one := scheduler(store, before))
        one.stop()
    with registry.isolated() as after:
        workflow(other)
        settle(scheduler(store, after))
    assert schedule_json(store, "nightly", {})["status"] == "gone"


def test_a_schedule_made_by_hand_stays_when_code_comes_and_goes(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    scheduling.schedule(store, app, "hand", workflow(nightly), Every("1m"))
    settle(scheduler(store, app))
    manual.advance(60)
    settle(scheduler(store, app))
    assert ledger(store, "hand") == [("fired", 1, 1)]


def test_a_changed_rule_never_fires_for_the_past(store: SqliteStore, manual: clock.ManualClock) -> None:
    with registry.isolated() as before:
        workflow(schedule=Every("10m"))(nightly)
        settle(scheduler(store, before))
    manual.advance(35 * MINUTE)
    with registry.isolated() as after:
        workflow(schedule=Every("1m"))(nightly)
        settle(ours := scheduler(store, after))
        assert runs(store) == []
        assert [(outcome, count) for outcome, _, count in ledger(store)] == [("missed", 3 if _ten_first() else 4)]
        assert ticks_json(store, "nightly")[0]["reason"] == "the schedule was changed"
        manual.advance(60)
        settle(ours)
    assert ledger(store)[-1] == ("fired", 36, 1)


def _ten_first() -> bool:
    return (BEGIN + 35 * MINUTE * SECOND) // (600 * SECOND) - BEGIN // (600 * SECOND) == 3


def test_changed_options_leave_what_is_undecided_to_be_caught_up(store: SqliteStore, manual: clock.ManualClock) -> None:
    with registry.isolated() as before:
        workflow(schedule=Every("1m"))(nightly)
        settle(scheduler(store, before))
    manual.advance(150)
    with registry.isolated() as after:
        workflow(schedule=Every("1m", catch_up="all", overlap="allow"))(nightly)
        settle(scheduler(store, after))
    assert ledger(store) == [("fired", 1, 1), ("fired", 2, 1)]


class Broken:
    """A foreign trigger that breaks on its second day."""

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        if now > datetime.fromtimestamp(BEGIN / SECOND + 90, UTC):
            raise RuntimeError("no more")
        return datetime.fromtimestamp(BEGIN / SECOND + 60, UTC)


def test_one_bad_schedule_never_stops_the_others(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    workflow(schedule=Schedule(Broken()))(other)
    workflow(schedule=Every("1m", overlap="allow"))(nightly)
    settle(ours := scheduler(store, app))
    for _ in range(3):
        manual.advance(60)
        settle(ours)
    assert ledger(store) == [("fired", 1, 1), ("fired", 2, 1), ("fired", 3, 1)]
    shown = schedule_json(store, "other", {})
    assert shown["status"] == "broken"
    assert shown["why"].startswith("It cannot fire: ")


def test_a_workflow_that_takes_other_arguments_by_now_breaks_its_schedule_until_it_fits_again(
    store: SqliteStore, manual: clock.ManualClock
) -> None:
    with registry.isolated() as before:
        workflow(name="w")(nightly)
        scheduling.schedule(store, before, "hand", "w", Every("1m", overlap="allow"))
    with registry.isolated() as after:
        workflow(name="w")(needy)
        settle(ours := scheduler(store, after))
        manual.advance(60)
        settle(ours)
        shown = schedule_json(store, "hand", {})
        assert shown["status"] == "broken"
        assert "folder is missing" in shown["error"]
    with registry.isolated() as repaired:
        workflow(name="w")(nightly)
        settle(scheduler(store, repaired))
    assert ledger(store, "hand") == [("fired", 1, 1)]


def test_a_workflow_that_needs_arguments_is_refused_without_an_input(app: Registry, store: SqliteStore) -> None:
    with pytest.raises(InvalidDefinition, match="without folder"):
        workflow(schedule="* * * * *")(needy)
    with pytest.raises(InvalidInput, match="depth"):
        workflow(schedule=Every("1m", input={"folder": "/", "depth": "deep"}))(needy)
    with pytest.raises(InvalidInput, match="minute"):
        workflow(schedule="61 * * * *")(nightly)
    assert app.workflows() == []
    definition = workflow(needy)
    with pytest.raises(InvalidDefinition, match="without folder"):
        scheduling.schedule(store, app, "x", definition, Every("1m"))
    with pytest.raises(InvalidInput, match="depth"):
        scheduling.schedule(store, app, "x", definition, Every("1m"), input={"folder": "/", "depth": "deep"})
    scheduling.schedule(store, app, "x", definition, Every("1m"), input={"folder": "/"})


def test_scheduling_again_changes_nothing_and_a_new_rule_begins_now(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    definition = workflow(nightly)
    scheduling.schedule(store, app, "hand", definition, Every("1m"))
    before = schedules.find(store.connection(), "hand")
    manual.advance(90)
    scheduling.schedule(store, app, "hand", definition, Every("1m"))
    assert schedules.find(store.connection(), "hand") == before
    scheduling.schedule(store, app, "hand", definition, Every("1h"))
    settle(scheduler(store, app))
    assert [outcome for outcome, _, _ in ledger(store, "hand")] == ["missed"]
    scheduling.unschedule(store, "hand")
    with pytest.raises(ScheduleNotFound):
        scheduling.unschedule(store, "hand")


def test_what_code_declares_is_changed_in_the_code(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    definition = workflow(schedule="* * * * *")(nightly)
    with pytest.raises(Conflict, match="declared by code"):
        scheduling.schedule(store, app, "nightly", definition, Every("1m"))
    settle(scheduler(store, app))
    with pytest.raises(Conflict, match="declared by code"):
        scheduling.schedule(store, app, "nightly", definition, Every("1m"))
    with pytest.raises(Conflict, match="declared by code"):
        scheduling.unschedule(store, "nightly")


class Hourly:
    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        seconds = int(now.timestamp()) if previous is None else int(previous.timestamp()) + 1
        return datetime.fromtimestamp(seconds + -seconds % HOUR, UTC)


def test_a_trigger_object_fires_in_the_process_that_gave_it(store: SqliteStore, app: Registry, manual: clock.ManualClock) -> None:
    definition = workflow(nightly)
    scheduling.schedule(store, app, "object", definition, Hourly())
    settle(ours := scheduler(store, app))
    manual.advance(HOUR)
    settle(ours)
    assert [outcome for outcome, _, _ in ledger(store, "object")] == ["fired"]

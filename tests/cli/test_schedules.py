"""`schedules` and `schedule ...`: what is printed, what is refused, and with which exit code."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from outlast import clock

from .conftest import Call, environment

MORE = """

from outlast import Cron, current


@workflow(schedule=Cron("0 2 * * *", timezone="Europe/Berlin"))
def nightly() -> str:
    return str(current().tick)
"""


@pytest.fixture
def outlast(outlast: Call, project: Path) -> Call:
    flows = project / "workflows" / "flows.py"
    flows.write_text(flows.read_text() + MORE)
    assert outlast("migrate").code == 0
    return outlast


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def test_a_schedule_of_the_code_is_listed_before_any_scheduler_has_run(outlast: Call) -> None:
    [one] = outlast("schedules", "--json").json
    assert one["name"] == one["workflow"] == "nightly"
    assert one["status"] == "new"
    assert "outlast up" in one["why"]
    assert "Europe/Berlin" in outlast("schedules").out
    assert outlast("schedule", "list").out == outlast("schedules").out


def test_a_tick_that_nobody_has_fired_is_due_unless_it_is_held(outlast: Call) -> None:
    manual = clock.ManualClock()
    with clock.use(manual):
        assert outlast("schedule", "create", "hourly", "nightly", "--every", "1h").code == 0
        manual.advance(2 * 3600)
        assert " due " in outlast("schedules").out
        assert outlast("schedule", "pause", "hourly").code == 0
        assert " due " not in outlast("schedules").out


def test_what_happened_before_the_wall_clock_was_set_back_is_ahead(outlast: Call) -> None:
    manual = clock.ManualClock()
    with clock.use(manual):
        assert outlast("schedule", "create", "hourly", "nightly", "--every", "1h").code == 0
        run_id = outlast("schedule", "trigger", "hourly", "--json").json["run_id"]
        manual.jump(-3 * 3600)
        assert "triggered 3h ahead" in outlast("schedules").out
        assert "(3h ahead)" in outlast("show", run_id).out


def test_next_shows_local_and_utc_times(outlast: Call) -> None:
    found = outlast("schedule", "next", "nightly", "-n", "3", "--json").json
    assert len(found) == 3
    for one in found:
        assert set(one) == {"tick", "local"}
        assert one["tick"].endswith("Z")
        assert one["local"][10:16] == "T02:00"
        assert datetime.fromisoformat(one["local"]) == datetime.fromisoformat(one["tick"])


def test_create_show_update_delete(outlast: Call) -> None:
    made = outlast("schedule", "create", "adds", "add", "--every", "10m", "a=1", "note=hi", "--overlap", "allow", "--json")
    assert made.code == 0, made.err
    assert made.json["input"] == {"a": 1, "note": "hi"}
    assert (made.json["rule"], made.json["overlap"], made.json["source"]) == ("every 10m", "allow", "command")
    assert "none that has the workflow add is up" in outlast("schedule", "show", "adds").out
    changed = outlast("schedule", "update", "adds", "--cron", "0 3 * * mon-fri", "--timezone", "Asia/Tokyo", "--json").json
    assert "0 3 * * mon-fri (Asia/Tokyo)" in changed["rule"]
    assert changed["overlap"] == "allow"
    assert changed["input"] == {"a": 1, "note": "hi"}
    changed = outlast("schedule", "update", "adds", "--timezone", "UTC", "--catch-up-window", "none", "a=2", "--json").json
    assert "(UTC)" in changed["rule"]
    assert changed["catch_up_window_seconds"] is None
    assert changed["input"] == {"a": 2, "note": "hi"}
    assert outlast("schedule", "delete", "adds").code == 0
    assert outlast("schedule", "show", "adds").code == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--cron", "61 * * * *"], "minute"),
        (["--cron", "0 0 30 2 *"], "never"),
        (["--cron", "* * * * *", "--timezone", "Mars/Base"], "Mars/Base"),
        (["--every", "soon"], "duration"),
        (["--at", "someday"], "instant"),
        (["--at", "2001-01-01T00:00Z"], "past"),
        (["--every", "1m", "--cron", "* * * * *"], "exclude"),
        (["--every", "1m", "--timezone", "UTC"], "--timezone belongs"),
        ([], "When does it tick?"),
        (["--every", "1m", "--input", "{"], "JSON"),
        (["--every", "1m", "--input", '{"b": 1}'], "a is missing"),
        (["--every", "1m", "a=many"], "a"),
        (["--every", "1m", "--start", "2030-01-01", "--end", "2029-01-01"], "before it starts"),
        (["--every", "1m"], "without a"),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence(outlast: Call, arguments: list[str], sentence: str) -> None:
    refused = outlast("schedule", "create", "x", "add", *arguments, "--json")
    assert refused.code == 2, refused
    assert sentence in refused.error["message"]
    assert outlast("schedule", "show", "x").code == 3


def test_what_is_not_there_and_what_is_already(outlast: Call) -> None:
    assert outlast("schedule", "create", "x", "nobody", "--every", "1m").code == 3
    assert outlast("schedule", "create", "x", "add", "--every", "1m", "a=1").code == 0
    again = outlast("schedule", "create", "x", "add", "--every", "1m", "a=1", "--json")
    assert (again.code, again.error["type"]) == (4, "AlreadyExists")
    for verb in ("show", "next", "ticks", "update", "delete", "pause", "resume", "trigger"):
        assert outlast("schedule", verb, "nobody").code == 3, verb
    assert outlast("schedule", "update", "x").code == 2
    assert outlast("schedule", "create", "bad name", "add", "--every", "1m", "a=1").code == 2
    assert outlast("schedule").code == 2


def test_why_explains_a_schedule_by_its_name(outlast: Call) -> None:
    assert "No scheduler has taken it up yet" in outlast("why", "nightly").out
    outlast("schedule", "create", "x", "add", "--every", "1m", "a=1")
    outlast("schedule", "pause", "x", "--reason", "moving house")
    outlast("schedule", "trigger", "x")
    said = outlast("why", "x", "--json").json
    assert set(said) == {"summary", "details", "actions"}
    assert "moving house" in said["summary"]
    assert "triggered" in said["details"][0]
    assert outlast("why", "nobody").code == 3


def test_pause_and_resume_say_why(outlast: Call) -> None:
    outlast("schedule", "create", "x", "add", "--every", "1m", "a=1")
    paused = outlast("schedule", "pause", "x", "--reason", "moving house", "--json").json
    assert (paused["status"], paused["pause_reason"]) == ("paused", "moving house")
    assert "moving house" in outlast("schedule", "show", "x").out
    assert "moving house" in outlast("schedule", "next", "x").err
    assert outlast("schedule", "resume", "x", "--json").json["status"] == "active"
    assert outlast("schedule", "resume", "x").code == 4


def test_trigger_starts_a_run_and_the_ledger_has_it(outlast: Call) -> None:
    outlast("schedule", "create", "x", "add", "--every", "1m", "a=1")
    run = outlast("schedule", "trigger", "x").out.strip()
    assert outlast("show", run, "--json").json["input"] == {"a": 1}
    [tick] = outlast("schedule", "ticks", "x", "--json").json
    assert set(tick) == {"schedule", "tick", "until", "count", "outcome", "reason", "run_id"}
    assert (tick["outcome"], tick["run_id"]) == ("triggered", run)
    assert run in outlast("schedule", "ticks", "x").out


def test_backfill_lists_first_then_starts_and_then_has_nothing_left(outlast: Call) -> None:
    outlast("schedule", "create", "x", "add", "--every", "1h", "a=1")
    span = ("--from", ago(hours=5), "--to", ago(seconds=1))
    planned = outlast("schedule", "backfill", "x", *span, "--dry-run", "--json").json
    assert len(planned) == 5
    assert outlast("runs", "--json").json == []
    done = outlast("schedule", "backfill", "x", *span, "--json").json
    assert [one["tick"] for one in done] == [one["tick"] for one in planned]
    assert {one["outcome"] for one in done} == {"backfilled"}
    assert outlast("schedule", "backfill", "x", *span, "--json").json == []
    assert len(outlast("runs", "--json").json) == 5
    assert len(outlast("schedule", "ticks", "x", "--outcome", "backfilled", "--json").json) == 5
    assert outlast("schedule", "ticks", "x", "--outcome", "missed").err == "No tick fits.\n"


def test_a_large_backfill_asks_first(outlast: Call) -> None:
    outlast("schedule", "create", "x", "add", "--every", "1m", "a=1")
    span = ("--from", ago(hours=3), "--to", ago(seconds=1))
    refused = outlast("schedule", "backfill", "x", *span)
    assert refused.code == 2
    assert "180 runs" in refused.err
    assert outlast("schedule", "backfill", "x", "--from", ago(hours=1), "--to", "2999-01-01").code == 2
    assert outlast("schedule", "backfill", "x", *span, "--yes").code == 0


def until(fact: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


@contextmanager
def scheduler() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-m", "outlast", "scheduler"], env=environment())
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(20) == 143


def refuses_to_change_what_code_declares(outlast: Call) -> None:
    for verb in ("delete", "update"):
        refused = outlast("schedule", verb, "nightly", *(["--jitter", "1m"] if verb == "update" else []))
        assert refused.code == 4
        assert "workflows/flows.py" in refused.err


def test_what_code_declares_is_refused_with_its_file(outlast: Call) -> None:
    # Also before any scheduler has seen it: it is listed already.
    refuses_to_change_what_code_declares(outlast)
    with scheduler():
        until(lambda: outlast("schedule", "show", "nightly", "--json").json["status"] == "active")
        assert "fires at" in outlast("schedule", "show", "nightly").out
        refuses_to_change_what_code_declares(outlast)
        assert outlast("schedule", "pause", "nightly").code == 0
    assert outlast("schedule", "resume", "nightly").code == 0
    assert "none that has the workflow" in outlast("schedule", "show", "nightly").out

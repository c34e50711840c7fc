"""The fixture `outlast_engine`: whole workflows in virtual time, in the test's own process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from freezegun import freeze_time

import outlast
from outlast import Cron, Every, Retry, SignalTimeout, StepTimeout, clock, gather, sleep, step, wait_signal, workflow
from outlast.run import user_threads
from outlast.testing import DrivenEngine, Stuck, driven_engine, driver
from outlast.testing.virtual import VirtualClock

tries: list[datetime] = []


@workflow
def week() -> int:
    began = outlast.now()
    for _ in range(7):
        sleep("1d")
    return (outlast.now() - began).days


@step(retry=Retry(4, initial="1h", factor=2, maximum="1d", jitter=0))
def flaky() -> str:
    tries.append(datetime.now(UTC))
    if len(tries) < 4:
        raise ConnectionError("not yet")
    return "there"


@workflow
def persistent() -> str:
    return flaky()


@workflow
async def persistent_later() -> str:
    await asyncio.sleep(86_400)
    return await flaky.aio()


@step
def set_wall_clock(seconds: int) -> int:
    assert isinstance(clock.current, VirtualClock)
    clock.current._instants[0] += seconds * clock.SECOND
    return clock.elapsed()


@workflow
async def by_the_loops_clock(seconds: int, first: bool) -> float:
    loop = asyncio.get_running_loop()
    end = loop.time() + 60
    if first:
        began = await set_wall_clock.aio(0)
    await asyncio.sleep(10)
    done = await set_wall_clock.aio(seconds)
    if not first:
        began = done - 10 * clock.SECOND
    while loop.time() < end - 30:
        await asyncio.sleep(5)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(end):
            await asyncio.sleep(100_000)
    return (await set_wall_clock.aio(0) - began) / clock.SECOND


@workflow(timeout="3d")
def too_long() -> None:
    sleep("30d")


goes_on = threading.Event()


@step(timeout=0.02)
def slow(until: float = 0.05) -> None:
    time.sleep(until)


@step(timeout=0.02)
def endless_step() -> None:
    goes_on.wait(20)


@workflow
def endless() -> None:
    endless_step()


@workflow
def overrun() -> None:
    slow()


@workflow
def overrun_beside() -> None:
    slow.submit().result()


@workflow
async def overrun_later() -> None:
    await slow.aio()


@workflow
def tells() -> None:
    for day in range(1, 4):
        outlast.emit("days", day)
        sleep("1d")


@workflow
def approval_at_last() -> str:
    return wait_signal("approval", str)


@workflow
def approval() -> str:
    return wait_signal("approval", str, timeout="2d")


@workflow
def endless_wait() -> str:
    return wait_signal("approval", str)


@step
def double(number: int) -> int:
    return 2 * number


@step(isolate=True)
def apart(number: int) -> int:
    return number + 1


@workflow
def part(number: int) -> int:
    sleep("1h")
    return double(number)


@workflow
def whole() -> list[int]:
    child = part.start(20)
    return [*gather(*[double.submit(n) for n in range(3)]), apart(1), child.result()]


ticked: list[str] = []


@step
def note() -> None:
    ticked.append("tick")


@workflow(schedule=Cron("0 * * * *"))
def hourly() -> None:
    note()


@workflow
def brief() -> None: ...


def test_a_week_of_sleeps_takes_no_time(outlast_engine: DrivenEngine) -> None:
    began = time.monotonic()
    assert outlast_engine.run(week) == 7
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("flow", [persistent, persistent_later], ids=["sync", "async"])
def test_retries_move_the_clock_by_their_backoff(outlast_engine: DrivenEngine, flow: outlast.workflow) -> None:  # type: ignore[valid-type]
    tries.clear()
    before = outlast_engine.store.now()
    assert outlast_engine.run(flow) == "there"
    days = 1 if flow is persistent_later else 0
    assert (outlast_engine.store.now() - before) // 3_600_000_000 == 24 * days + 1 + 2 + 4


@pytest.mark.parametrize("first", [True, False], ids=["a step first", "a sleep first"])
@pytest.mark.parametrize("seconds", [0, 3600, -3600], ids=["as it was", "an hour ahead", "an hour back"])
def test_the_loops_clock_goes_by_elapsed_time_when_the_wall_clock_is_set(outlast_engine: DrivenEngine, seconds: int, first: bool) -> None:
    assert outlast_engine.run(by_the_loops_clock, seconds, first) == pytest.approx(60, abs=0.01)


def test_a_deadline_ends_a_run_at_its_instant(outlast_engine: DrivenEngine) -> None:
    before = outlast_engine.store.now()
    with pytest.raises(outlast.DeadlineExceeded):
        outlast_engine.run(too_long)
    assert (outlast_engine.store.now() - before) // 86_400_000_000 == 3


def test_a_signal_can_be_sent_while_the_run_waits(outlast_engine: DrivenEngine) -> None:
    run = outlast_engine.start(approval)
    outlast_engine.advance("1d")
    assert run.status == "waiting"
    run.signal("approval", "yes")
    assert run.result() == "yes"


def test_a_signal_that_does_not_come_times_out(outlast_engine: DrivenEngine) -> None:
    with pytest.raises(SignalTimeout):
        outlast_engine.run(approval)


def test_what_no_time_brings_is_said(outlast_engine: DrivenEngine) -> None:
    with pytest.raises(Stuck, match="approval"):
        outlast_engine.run(endless_wait)


def test_a_result_may_be_waited_for_in_virtual_time(outlast_engine: DrivenEngine) -> None:
    run = outlast_engine.start(week)
    with pytest.raises(outlast.ResultTimeout):
        run.result(timeout="3d")
    assert run.result(timeout="5d") == 7


def test_children_submitted_and_isolated_steps_run(outlast_engine: DrivenEngine) -> None:
    run = outlast_engine.start(whole)
    assert run.result() == [0, 2, 4, 2, 40]
    # Whatever leads to a run leads to one that time is moved for.
    assert run.retry(from_step="part").result() == [0, 2, 4, 2, 40]
    (child,) = run.children()
    assert child.retry(from_step="double").result() == 40
    assert outlast_engine.start(part, 1) in outlast_engine.runs(workflow=part)
    assert [found.result() for found in outlast_engine.runs(workflow=part, status="pending")] == [2]


def test_nothing_happens_but_while_the_test_asks(outlast_engine: DrivenEngine) -> None:
    run = outlast_engine.start(whole)
    time.sleep(0.2)
    assert run.status == "pending"
    run.cancel()
    outlast_engine.until_idle()
    assert run.status == "cancelled"


def test_days_of_an_hourly_schedule(outlast_engine: DrivenEngine) -> None:
    ticked.clear()
    outlast_engine.advance("3d")
    assert len(ticked) == 3 * 24


def test_schedules_fire_of_what_a_test_imports_by_name_or_with_its_module_or_schedules_itself(tmp_path: Path) -> None:
    ticked.clear()
    test = ModuleType("a test that knows no workflow")
    with driven_engine(tmp_path / "none.db", schedules_of=test) as engine:
        engine.advance("2h")
        assert not ticked
        engine.schedule("by-the-test", brief, Every("30m"))
        engine.advance("2h")
        assert len(engine.runs(workflow=brief)) == 4
        assert not ticked
    vars(test)["flows"] = sys.modules[__name__]
    with driven_engine(tmp_path / "module.db", schedules_of=test) as engine:
        engine.advance("2h")
    assert len(ticked) == 2


def test_a_delayed_start_waits_for_its_time(outlast_engine: DrivenEngine) -> None:
    run = outlast_engine.start(part.options(delay="1d"), 4)
    outlast_engine.advance("23h")
    assert run.status == "pending"
    assert run.result() == 8


@freeze_time("2031-05-06 07:08:09")
def test_freezegun_and_the_engine_share_one_time(outlast_engine: DrivenEngine) -> None:
    assert outlast_engine.run(when) == ["2031-05-06", "2031-05-08"]
    assert datetime.now(UTC).date().isoformat() == "2031-05-08"


@step
def today() -> str:
    return datetime.now(UTC).date().isoformat()


@workflow
def when() -> list[str]:
    first = today()
    sleep("2d")
    return [first, today()]


def test_time_that_freezegun_moves_passes_for_the_engine(outlast_engine: DrivenEngine) -> None:
    with freeze_time("2031-05-06") as frozen:
        run = outlast_engine.start(week)
        outlast_engine.until_idle()
        frozen.tick(86_400 * 7 + 1)
        outlast_engine.advance("6d")
        assert run.status == "completed"


def test_a_monkeypatched_function_is_what_the_step_calls(outlast_engine: DrivenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(double, "fn", lambda number: 100)
    assert outlast_engine.run(part, 1) == 100


def test_the_fixture_works_inside_a_running_loop(outlast_engine: DrivenEngine) -> None:
    async def test() -> list[object]:
        told = [message async for message in outlast_engine.start(tells).astream("days", after=1)]
        return [outlast_engine.run(part, 3), await outlast_engine.start(part, 4), told]

    assert asyncio.run(test()) == [6, 8, [2, 3]]


def test_who_follows_a_stream_carries_the_run_on_for_more(outlast_engine: DrivenEngine) -> None:
    run = outlast_engine.start(tells)
    outlast_engine.until_idle()
    days = run.stream("days")
    assert (next(days), run.status) == (1, "waiting")
    assert (list(days), run.status) == ([2, 3], "completed")
    with pytest.raises(Stuck):
        next(outlast_engine.start(approval_at_last).stream("days"))


def test_a_session_that_does_not_use_the_plugin_imports_nothing_of_outlast(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import sys\ndef test_it():\n    assert 'outlast' not in sys.modules\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "outlast_pytest", str(tmp_path / "test_it.py")]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("overruns", [overrun, overrun_beside, overrun_later])
def test_a_run_whose_step_overruns_ends_as_the_thread_of_the_step_does(outlast_engine: DrivenEngine, overruns: Any) -> None:
    with pytest.raises(StepTimeout):
        outlast_engine.run(overruns)
    for thread in user_threads.busy_threads():  # It has said so, and may not quite be gone.
        thread.join()


def test_a_run_whose_step_never_ends_is_stuck_and_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_ENDING_SECONDS", 0.05)
    with driven_engine(tmp_path / "driven.db") as engine:
        run = engine.start(endless)
        try:
            with pytest.raises(Stuck, match="may still run in pid"):
                run.result()
        finally:
            goes_on.set()
        for thread in user_threads.busy_threads():
            thread.join()
        with pytest.raises(StepTimeout):
            run.result()


def test_a_thread_that_another_agent_left_is_not_waited_for(tmp_path: Path) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, daemon=True)
    thread.start()
    user_threads.executing.add(thread)
    try:
        with driven_engine(tmp_path / "driven.db") as engine:
            assert engine.run(week) == 7
    finally:
        stop.set()
        user_threads.executing.discard(thread)

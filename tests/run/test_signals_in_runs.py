"""Signals that meet timeouts, and payloads that do not fit."""

from __future__ import annotations

import time

import pytest
from run_bench import eventually

import outlast
from outlast import aio, workflow
from outlast.definition import registry
from outlast.errors import SignalTimeout
from outlast.why import why

with registry.isolated() as defined:

    @workflow
    def waits() -> object:
        try:
            return outlast.wait_signal("go", int, timeout="0.1s")
        except SignalTimeout:
            return "too late"

    @workflow
    async def awaits() -> object:
        try:
            return await aio.wait_signal("go", int, timeout="0.1s")
        except SignalTimeout:
            return "too late"

    @workflow
    def wants_a_number() -> int:
        return outlast.wait_signal("go", int)

    @workflow
    async def awaits_a_number() -> int:
        return await aio.wait_signal("go", int)


def after_the_timeout(bench, flow):
    """A run that waited for a signal when its agent left, and whose timeout has passed since."""
    bench.agent(park_after_seconds=0)
    run = bench.start(flow)
    bench.wait_for(run, "waiting")
    bench.stop()
    due_at = bench.field(run, "due_at")
    eventually(lambda: bench.store.now() > due_at)
    return run


@pytest.mark.parametrize("flow", [waits, awaits])
def test_a_signal_that_is_there_when_a_wait_is_decided_beats_its_timeout(bench, flow):
    run = after_the_timeout(bench, flow)
    run.signal("go", 5)
    bench.agent()
    assert run.result(timeout=20) == 5


@pytest.mark.parametrize("flow", [waits, awaits])
@pytest.mark.parametrize("park_after", [0.0, 30])
def test_a_payload_that_does_not_fit_lets_the_timeout_pass(bench, flow, park_after):
    bench.agent(park_after_seconds=park_after)
    run = bench.start(flow)
    run.signal("go", "no number")
    assert run.result(timeout=20) == "too late"


@pytest.mark.parametrize("flow", [waits, awaits])
def test_a_payload_that_does_not_fit_and_comes_after_the_timeout_changes_nothing(bench, flow):
    run = after_the_timeout(bench, flow)
    run.signal("go", "no number")
    bench.agent()
    assert run.result(timeout=20) == "too late"


@pytest.mark.parametrize("flow", [wants_a_number, awaits_a_number])
@pytest.mark.parametrize("park_after", [0.0, 30])
def test_a_payload_that_does_not_fit_stays_unread_and_holds_up_no_later_one(bench, flow, park_after):
    bench.agent(park_after_seconds=park_after)
    run = bench.start(flow)
    run.signal("go", "no number")
    bench.wait_for(run, "waiting" if park_after == 0 else "running")
    time.sleep(0.05)
    if park_after == 0:
        bench.wait_for(run, "waiting")
        assert "does not fit" in str(why(bench.store, bench.task_id(run)))
    run.signal("go", 5)
    assert run.result(timeout=20) == 5
    assert bench.one("select count(*) from outlast_signal where taken_path is null") == 1
    # Told once, however often the run looked.
    [told] = [message["message"] for message in run.stream("log")]
    assert told.endswith("and stays unread: its payload must be int, not 'no number'.")

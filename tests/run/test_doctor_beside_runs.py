"""States that look odd and are in order: `doctor` finds nothing in them."""

from __future__ import annotations

import pytest
from run_bench import Gate, eventually

import outlast
from outlast import step, workflow
from outlast.definition import registry
from outlast.doctor import examine
from outlast.errors import SignalTimeout

gate = Gate()

with registry.isolated() as defined:

    @step
    def stands() -> None:
        gate.pass_through()

    @workflow
    def leaves_a_step_behind(number: int) -> int:
        if number == 1:
            stands.submit()
            outlast.continue_as_new(2)
        return number

    @workflow
    def waits(name: str) -> int:
        return outlast.wait_signal(name, int)

    @workflow
    def follows() -> int:
        return waits.options(key="k").start("go").result()

    @workflow
    async def times_out() -> str:
        try:
            await outlast.aio.wait_signal("go", int, timeout=0.01)
        except SignalTimeout:
            pass
        return str(await outlast.aio.wait_signal("end"))

    @workflow
    async def is_refused() -> str:
        await waits.options(unique_key="u", if_exists="fail").start("go")
        return "started"

    @workflow
    async def catches() -> object:
        try:
            await is_refused()
        except Exception:
            pass
        try:
            await waits.options(unique_key="u", if_exists="fail").start("go")
        except outlast.Conflict:
            pass
        return await outlast.aio.wait_signal("end")

    @workflow
    def scatches() -> object:
        try:
            waits.options(unique_key="u", if_exists="fail").start("go").result()
        except outlast.Conflict:
            pass
        return outlast.wait_signal("end")


def findings(bench) -> list[str]:
    return [f"{finding.name}: {finding.detail}" for finding in examine(bench.store) if not finding.ok]


def test_a_successor_that_waits_for_the_steps_of_its_run(bench):
    bench.agent()
    run = bench.start(leaves_a_step_behind, 1)
    gate.wait_until_reached()
    bench.wait_for(run, "waiting")
    assert findings(bench) == []


def test_a_parent_that_waits_for_a_run_which_its_key_led_to(bench):
    bench.agent(park_after_seconds=0.0)
    bench.start(waits.options(key="k"), "go")
    run = bench.start(follows)
    eventually(lambda: bench.field(run, "wait_count"))
    assert findings(bench) == []


@pytest.mark.parametrize("flow", [waits, times_out])
def test_a_run_beside_a_signal_that_does_not_fit(bench, flow):
    run = bench.start(flow, *(["go"] if flow is waits else []))
    run.signal("go", "no number")
    bench.agent(park_after_seconds=0.0)
    eventually(lambda: bench.field(run, "awaits"))
    run.signal("go", "no number either")
    eventually(lambda: bench.field(run, "awaits"))
    assert findings(bench) == []


@pytest.mark.parametrize("flow", [catches, scatches])
def test_a_run_whose_start_of_a_child_was_refused(bench, flow):
    bench.agent(park_after_seconds=0.0)
    bench.start(waits.options(unique_key="u"), "go")
    run = bench.start(flow)
    eventually(lambda: bench.field(run, "awaits"))
    assert findings(bench) == []

"""A run started inside a step has a key from the step's: another try of the step, after an error or a crash, gets the same run."""

from __future__ import annotations

from typing import Any

import pytest
from run_bench import effects

from outlast import Retry, aio, current, step, wait_signal, workflow
from outlast.definition import registry

engines: dict[str, Any] = {}
RETRY = Retry(3, initial="1ms", jitter=0)
OPTIONS = {
    "plain": {},
    "unique": {"unique_key": "u"},
    "replaces": {"unique_key": "u", "if_exists": "replace"},
    "fails": {"unique_key": "u", "if_exists": "fail"},
    "debounced": {"unique_key": "u", "debounce": "1ms"},
}

with registry.isolated() as defined:

    @workflow
    def other(number: int) -> int:
        effects.append(number)
        return number

    def started(kind: str) -> list[str]:
        found = [other.options(**OPTIONS[kind]).start(1), other.start(2)]
        if current().step.try_number < 2:
            # Its unique key is free again by now.
            for run in found:
                run.result(timeout=20)
            raise RuntimeError("again")
        return [run.id for run in found]

    @step(retry=RETRY)
    def starts(kind: str) -> list[str]:
        return started(kind)

    @step(retry=RETRY, timeout="30s")
    def starts_timed(kind: str) -> list[str]:
        return started(kind)

    @step(retry=RETRY)
    async def starts_async() -> list[str]:
        found = [other.start(1), other.start(2)]
        if current().step.try_number < 2:
            for run in found:
                await run
            raise RuntimeError("again")
        return [run.id for run in found]

    @step(retry=RETRY)
    def starts_by_an_engine(engine: str) -> list[str]:
        # As where there are several engines in a process.
        found = [engines[engine].start(other, 1), engines[engine].start(other, 2)]
        if current().step.try_number < 2:
            raise RuntimeError("again")
        return [run.id for run in found]

    @step
    def takes() -> int:
        return 1

    @takes.compensation(retry=RETRY)
    def gives_back(result: int | None) -> None:
        started("plain")

    @workflow
    def calls(kind: str) -> list[str]:
        return starts(kind)

    @workflow
    def asks_an_engine(engine: str) -> list[str]:
        return [*starts_by_an_engine(engine), engines[engine].start(other, 3).id, wait_signal("go", str)]

    @workflow
    async def asks_an_engine_async(engine: str) -> list[str]:
        return [*await starts_by_an_engine.aio(engine), engines[engine].start(other, 3).id, await aio.wait_signal("go", str)]

    @workflow
    def calls_timed(kind: str) -> list[str]:
        return starts_timed(kind)

    @workflow
    def submits(kind: str) -> list[str]:
        return starts.submit(kind).result()

    @workflow
    async def awaits(kind: str) -> list[str]:
        return await starts_async()

    @workflow
    def is_undone(kind: str) -> None:
        takes()
        raise ValueError("no")


CASES = [(calls, kind) for kind in OPTIONS] + [(flow, "plain") for flow in (calls_timed, submits, awaits, is_undone)]


@pytest.mark.parametrize(("flow", "kind"), CASES, ids=lambda value: getattr(value, "name", value))
def test_another_try_of_a_step_starts_no_second_run(bench, flow, kind):
    run = bench.start(flow, kind)
    bench.agent()
    bench.wait_for(run, "completed", "compensated")
    assert sorted(effects) == [1, 2]
    assert len(bench.engine.runs(workflow="other")) == 2


@pytest.mark.parametrize("flow", [asks_an_engine, asks_an_engine_async])
def test_neither_another_try_nor_a_replay_starts_a_second_run_by_an_engine(bench, flow):
    engines["it"] = bench.engine
    run = bench.start(flow, "it")
    bench.agent()
    bench.wait_for(run, "waiting")
    bench.kill()
    bench.agent()
    run.signal("go", "on")
    assert sorted([one.id for one in bench.engine.runs(workflow="other")] + ["on"]) == sorted(run.result(timeout=20))

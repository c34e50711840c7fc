"""Waits that stay in memory hold no slot, and a step that async code has cancelled has that as its outcome, whatever the step is."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from run_bench import Gate, effects, eventually

from outlast import RunCancelled, aio, step, uuid4, wait_signal, workflow
from outlast.agent import holding
from outlast.definition import registry

gate = Gate()

with registry.isolated() as defined:

    @workflow
    def waits() -> str:
        return wait_signal("go", str)

    @workflow
    async def waits_async() -> str:
        return await aio.wait_signal("go", str)

    @workflow
    def passes() -> str:
        return "passed"

    @step
    def in_a_thread() -> str:
        effects.append("began")
        gate.pass_through()
        return "late"

    @step(timeout="30s")
    def in_a_thread_of_its_own() -> str:
        return in_a_thread()

    @step
    async def on_the_loop() -> str:
        effects.append("began")
        await asyncio.sleep(30)
        return "never"

    @workflow
    async def child() -> str:
        effects.append("began")
        return await aio.wait_signal("never", str)

    STEPS: dict[str, Any] = {
        "thread": in_a_thread.aio, "timed": in_a_thread_of_its_own.aio, "loop": on_the_loop,
        "submitted": on_the_loop.submit, "child": child,
    }  # fmt: skip

    async def call(which: str) -> object:
        return await STEPS[which]()

    @workflow
    async def cancels(which: str) -> str:
        task = asyncio.ensure_future(call(which))
        await aio.wait_signal("began")
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        return await aio.wait_signal("go", str)

    async def told(handle: Any) -> list[str]:
        said = []
        for wait in (aio.gather(handle), handle):
            try:
                await wait
            except RunCancelled as error:
                said.append(error.run_id)
        [error] = await aio.gather(handle, return_exceptions=True)
        effects.append(str(error))
        return [*said, error.run_id]

    async def fails() -> None:
        raise ValueError

    @workflow
    async def waits_for_what_is_cancelled() -> list[bool]:
        kept, stopped = child.start(), on_the_loop.options(delay="1h").submit()
        waiting = asyncio.create_task(told(kept))
        await asyncio.sleep(0)
        kept.cancel()
        try:
            await asyncio.wait_for(stopped, 0.001)
        except TimeoutError:
            effects.append("in time")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
        except* ValueError:
            pass
        found = [await waiting, await told(kept), await told(stopped)]
        await aio.wait_signal("go", str)
        return [ids == [handle.id] * 3 for ids, handle in zip(found, (kept, kept, stopped), strict=True)]

    async def names() -> str:
        return str(uuid4())

    @workflow
    async def names_in_branches() -> list[str]:
        made = [asyncio.create_task(names(), context=contextvars.copy_context()) for _ in range(2)]
        found = await asyncio.gather(*made, names(), names())
        effects.append(found)
        await aio.wait_signal("go", str)
        return found


@pytest.mark.parametrize("flow", [waits, waits_async], ids=lambda flow: flow.name)
def test_a_run_that_waits_in_memory_holds_no_slot(bench, flow):
    bench.agent(concurrency=1, park_after_seconds=60.0)
    runs = [bench.start(flow) for _ in range(3)]
    assert bench.start(passes).result(timeout=20) == "passed"
    eventually(lambda: all(bench.journal(run) for run in runs))
    assert [bench.status(run) for run in runs] == ["running"] * 3
    for run in runs:
        run.signal("go", "on")
    assert [run.result(timeout=20) for run in runs] == ["on"] * 3
    assert [bench.claims(run) for run in runs] == [1] * 3


@pytest.mark.parametrize("flow", [waits, waits_async], ids=lambda flow: flow.name)
def test_runs_beyond_those_that_may_wait_in_memory_park_at_once(bench, flow, monkeypatch):
    monkeypatch.setattr(holding, "_IN_MEMORY", 1)
    bench.agent(concurrency=1, park_after_seconds=60.0)
    runs = [bench.start(flow) for _ in range(4)]
    eventually(lambda: sum(bench.status(run) == "waiting" for run in runs) >= 2)
    eventually(lambda: "running" in {bench.status(run) for run in runs})  # The last may not be claimed yet.


@pytest.mark.parametrize("which", STEPS)
def test_the_cancel_of_an_awaited_step_of_any_kind_is_its_outcome(bench, which):
    bench.agent()
    run = bench.start(cancels, which)
    eventually(lambda: effects == ["began"])
    run.signal("began")
    eventually(lambda: any(entry.event == "cancelled" and entry.kind in ("step", "task", "child") for entry in bench.journal(run)))
    gate.open()
    bench.wait_for(run, "waiting")
    bench.kill()
    bench.agent()
    run.signal("go", "on")
    assert run.result(timeout=20) == "on"
    assert effects == ["began"]


def test_who_awaits_a_cancelled_child_or_step_gets_run_cancelled_on_replay_too(bench):
    bench.agent()
    run = bench.start(waits_for_what_is_cancelled)
    bench.wait_for(run, "waiting")
    run.signal("go", "on")
    assert run.result(timeout=20) == [True] * 3
    assert effects.count("in time") == 2
    assert "Step on_the_loop (at 2) was cancelled." in effects
    assert f"Run {run.children()[0].id} was cancelled." in effects
    eventually(lambda: run.children()[0].status == "cancelled")


def test_ids_of_branches_differ_and_are_the_same_after_a_crash(bench):
    bench.agent()
    run = bench.start(names_in_branches)
    bench.wait_for(run, "waiting")
    bench.kill()
    bench.agent()
    run.signal("go", "on")
    assert len(set(run.result(timeout=20))) == 4
    assert effects[0] == effects[-1]
    assert len(effects) >= 2

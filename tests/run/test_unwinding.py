"""Code that leaves its agent: the file says so only when it has unwound, and code that does not unwind halts its run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from run_bench import Gate, effects, eventually

from outlast import RunHalted, aio, sleep, step, wait_signal, workflow
from outlast.definition import registry
from outlast.operations import AgentEnded

gate = Gate()
left_at_last: list[bool] = []


class Stands:
    """Waits for nothing that ever comes."""

    def __await__(self) -> Iterator[None]:
        yield


with registry.isolated() as defined:

    @step
    def passes(number: int) -> int:
        if number:
            gate.pass_through()
        return number

    @workflow
    async def through_threads() -> int:
        numbers = await asyncio.gather(passes.aio(1), passes.aio(0), passes.aio(2))
        return sum(numbers)

    @workflow
    def submits_a_pass() -> int:
        return passes.submit(1).result()

    @workflow
    def passes_inline() -> int:
        return passes(1)

    @workflow
    async def waits_in_finally() -> str:
        try:
            return await aio.wait_signal("go", str)
        finally:
            if not effects:
                effects.append("left")
                await asyncio.Event().wait()

    @workflow
    async def never_leaves(left: list[bool] = left_at_last, stands: type[Stands] = Stands) -> None:
        # By its own names alone: its finalizer runs it again at the end of the process, when a module's are gone.
        try:
            await aio.wait_signal("go", str)
        finally:
            while not left:
                try:
                    await stands()
                except BaseException:
                    pass

    @workflow
    async def waits_in_memory() -> str:
        return await aio.wait_signal("go", str)

    @workflow
    def lingers(blocks: bool = True) -> str:
        try:
            sleep("1h")
        finally:
            effects.append("left")
            if blocks:
                gate.pass_through()
        return "slept"

    @workflow
    def lingers_at_a_signal() -> str:
        try:
            return wait_signal("go", str)
        finally:
            effects.append("left")
            if effects.count("left") == 1:
                gate.pass_through()


def test_a_run_is_not_claimed_while_its_old_code_unwinds(bench):
    bench.agent()
    run = bench.start(lingers_at_a_signal)
    gate.wait_until_reached()
    run.signal("go", "gone")
    bench.agent()
    # Its code holds it, and the signal that has come meanwhile does not hand it to another agent.
    other = bench.start(lingers, False)
    bench.wait_for(other, "waiting")
    assert (bench.status(run), bench.claims(run)) == ("running", 1)
    gate.open()
    assert run.result(timeout=20) == "gone"
    assert bench.claims(run) == 2


def test_code_that_does_not_end_its_unwinding_halts_its_run(bench):
    bench.agent(grace_seconds=0.2)
    run = bench.start(lingers)
    gate.wait_until_reached()
    bench.wait_for(run, "halted")
    with pytest.raises(RunHalted, match=r"did not end its unwinding within 0\.2 s"):
        run.result(timeout=5)
    gate.open()
    eventually(lambda: bench.strays() == 0)


def test_a_run_that_waits_is_parked_once_its_code_has_unwound(bench):
    bench.agent()
    run = bench.start(lingers, False)
    bench.wait_for(run, "waiting")
    assert effects == ["left"]


def test_threads_that_an_agent_left_are_strays_until_the_last_has_ended(bench):
    bench.agent()
    run = bench.start(through_threads)
    gate.wait_until_reached()
    bench.stop(0.0)
    assert bench.strays() == 1
    gate.open()
    eventually(lambda: bench.strays() == 0)
    bench.agent()
    assert run.result(timeout=20) == 3


def test_an_agent_whose_lease_was_ended_claims_nothing_before_it_has_begun_anew(bench):
    """Nobody watches over it any more: what it took would be held for ever."""
    agent = bench.agent()
    bench.store.commit(AgentEnded(agent.agent_id, "lost", "a stall", 5, False))
    ended = agent.agent_id
    run = bench.start(passes_inline)
    gate.wait_until_reached()
    assert bench.field(run, "agent_id") == agent.agent_id != ended
    gate.open()
    assert run.result(timeout=20) == 1


@pytest.mark.parametrize("flow", [submits_a_pass, passes_inline, through_threads])
@pytest.mark.parametrize("park_after", [0.0, 30.0])
def test_a_try_that_ends_after_its_lease_was_lost_is_no_stray_any_more_though_its_process_lives(bench, flow, park_after):
    agent = bench.agent(park_after_seconds=park_after, lease_seconds=0.3)
    run = bench.start(flow)
    gate.wait_until_reached()
    if flow is submits_a_pass and park_after == 0:
        bench.wait_for(run, "waiting")
    bench.store.commit(AgentEnded(agent.agent_id, "lost", "a stall", 5, False))
    assert bench.strays()
    bench.agent()
    gate.open()
    run.result(timeout=20)
    eventually(lambda: bench.strays() == 0)


def test_an_async_run_that_learns_of_its_lost_lease_by_a_refused_write_is_no_stray(bench):
    """Its thread has ended by then, and had nothing to tell."""
    agent = bench.agent()
    run = bench.start(through_threads)
    gate.wait_until_reached()
    agent._pump_scheduled = True  # It looks at nothing any more, and only its run's own write tells it.
    bench.store.commit(AgentEnded(agent.agent_id, "lost", "a stall", 5, False))
    gate.open()
    bench.agent()
    assert run.result(timeout=20) == 3
    eventually(lambda: bench.strays() == 0)


def test_an_async_run_that_only_waits_leaves_no_stray(bench):
    bench.agent(park_after_seconds=30.0)
    run = bench.start(waits_in_memory)
    bench.wait_for(run, "running")
    bench.stop(0.0)
    assert bench.strays() == 0
    run.signal("go", "gone")
    bench.agent()
    assert run.result(timeout=20) == "gone"


def test_a_coroutine_that_waits_while_it_is_closed_is_told_again(bench):
    bench.agent()
    run = bench.start(waits_in_finally)
    bench.wait_for(run, "waiting")
    run.signal("go", "gone")
    assert run.result(timeout=20) == "gone"
    assert effects == ["left"]


def test_a_coroutine_that_never_unwinds_halts_its_run(bench):
    bench.agent()
    run = bench.start(never_leaves)
    bench.wait_for(run, "halted")
    with pytest.raises(RunHalted, match="did not end its unwinding: a coroutine waits again"):
        run.result(timeout=5)
    left_at_last.append(True)

"""Tries of which nobody knows whether they took effect: they are probed, asked about, or undone, and never guessed."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from run_bench import Gate, effects, eventually

from outlast import (
    NOT_DONE,
    Conflict,
    OutcomeNeeded,
    OutcomeUnknown,
    Retry,
    RunCancelled,
    RunHalted,
    StepTimeout,
    current,
    gather,
    step,
    wait_signal,
    workflow,
)
from outlast.agent import interrupting
from outlast.definition import registry
from outlast.operations import AgentEnded
from outlast.run.user_threads import busy_threads
from outlast.why import why

gate = Gate()
probe_gate = Gate()
found: list[object] = []
"""What probes give, the first first."""


def _pays(order: str) -> str:
    effects.append(("pay", order, current().idempotency_key))
    if len([one for one in effects if one[0] == "pay"]) == 1:
        gate.pass_through()
    return f"paid {order}"


with registry.isolated() as defined:

    @step(on_unknown="halt")
    def pay(order: str) -> str:
        return _pays(order)

    @pay.compensation
    def unpay(result: str | None, order: str) -> None:
        effects.append(("unpay", result, current().undoing.outcome))

    @step(on_unknown="undo")
    def pay_or_undo(order: str) -> str:
        return _pays(order)

    @pay_or_undo.compensation
    def unpay_or_undo(result: str | None, order: str) -> None:
        effects.append(("unpay", result, current().undoing.outcome))

    @step(retry=Retry(3, initial="1ms"))
    def probed(order: str) -> str:
        return _pays(order)

    @probed.probe
    def find_out(order: str) -> object:
        effects.append(("probe", order, current().idempotency_key))
        answer = found.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @probed.compensation
    def unprobed(result: str | None, order: str) -> None:
        effects.append(("unpay", result, current().undoing.outcome))

    @step(retry=Retry(3, initial="1ms"))
    async def aprobed(order: str) -> str:
        return _pays(order)

    @aprobed.probe
    async def afind_out(order: str) -> object:
        effects.append(("probe", order, current().idempotency_key))
        return found.pop(0)

    @step(on_unknown="halt", timeout="50ms")
    async def overruns(order: str) -> str:
        effects.append(("pay", order, current().idempotency_key))
        if len(effects) == 1:
            await asyncio.sleep(60)
        return f"paid {order}"

    @workflow
    def pays(order: str) -> str:
        return pay(order)

    @workflow
    async def apays(order: str) -> str:
        return await pay.aio(order)

    @workflow
    def submits_pay(order: str) -> str:
        return pay.submit(order).result()

    @workflow
    def pays_or_undoes(order: str) -> str:
        try:
            return pay_or_undo(order)
        except Exception:
            return "caught"

    @workflow
    async def apays_or_undoes(order: str) -> str:
        try:
            return await pay_or_undo.aio(order)
        except Exception:
            return "caught"

    @workflow
    def submits_pay_or_undo(order: str) -> str:
        try:
            return pay_or_undo.submit(order).result()
        except Exception:
            return "caught"

    @step(timeout="50ms", retry=Retry(2, initial="1ms"))
    def slowly_probed(order: str) -> str:
        return _pays(order)

    @slowly_probed.probe
    def finds_out_slowly(order: str) -> object:
        effects.append(("probe", order, ""))
        if len([one for one in effects if one[0] == "probe"]) < 3:
            probe_gate.pass_through()
        return "probed it"

    @step(timeout="0.1s", retry=Retry(2, initial="1ms"))
    def overruns_probed(order: str) -> str:
        return _pays(order)

    @overruns_probed.probe
    def asks_after_it(order: str) -> object:
        effects.append(("probe", order, ""))
        return NOT_DONE

    @overruns_probed.compensation
    def unpay_overrun(result: str | None, order: str) -> None:
        effects.append(("unpay", result, current().undoing.outcome))

    @workflow
    def probed_overrun(order: str) -> str:
        return overruns_probed(order)

    @workflow
    async def aprobed_overrun(order: str) -> str:
        return await overruns_probed.aio(order)

    @workflow
    def submits_probed_overrun(order: str) -> str:
        return overruns_probed.submit(order).result()

    @workflow
    def probes_slowly(order: str) -> str:
        return slowly_probed(order)

    @workflow
    def probes(order: str) -> str:
        return probed(order)

    @workflow
    async def aprobes(order: str) -> str:
        return await aprobed(order)

    @workflow
    def submits_probed(order: str) -> str:
        return gather(probed.submit(order))[0]

    @workflow
    def probes_and_waits(order: str) -> str:
        probed(order)
        return wait_signal("go", str)

    @workflow
    async def overrun(order: str) -> str:
        return await overruns(order)

    @step(timeout="20ms")
    async def plainly(order: str) -> None:
        await asyncio.sleep(60)

    @plainly.compensation
    async def unplainly(result: None, order: str) -> None:
        effects.append(("undo", result, current().undoing.outcome))

    @workflow
    async def overruns_plainly(order: str) -> None:
        await plainly(order)


PAYS = [pays, apays, submits_pay]
UNDOES = [pays_or_undoes, apays_or_undoes, submits_pay_or_undo]


def cut_off(bench, flow, *, goes_on=True):
    """A run whose agent has died in the first try of its step, taken over by another one; whether the try goes on, as a zombie's."""
    bench.agent()
    run = bench.start(flow, "o-1")
    gate.wait_until_reached()
    bench.kill()
    if goes_on:
        gate.open()
    bench.agent()
    return run


@pytest.mark.parametrize("flow", PAYS)
def test_a_step_that_its_agent_left_is_asked_about_and_goes_on_with_the_answer(bench, flow):
    run = cut_off(bench, flow)
    bench.wait_for(run, "halted")
    with pytest.raises(RunHalted, match="nobody knows whether its step pay took effect: its agent left it"):
        run.result(timeout=5)
    with pytest.raises(OutcomeNeeded, match=r"--done JSON.*--not-done"):
        run.resume()
    assert [one["status"] for one in run.steps()] == ["unknown"]
    run.resume(done="found it")
    assert run.result(timeout=20) == "found it"
    assert [one["status"] for one in run.steps()] == ["completed"]
    assert len(effects) == 1


@pytest.mark.parametrize("flow", PAYS)
@pytest.mark.parametrize("how", ["drained", "lost"])
def test_a_step_that_a_drain_or_a_lost_lease_cut_off_is_asked_about(bench, flow, how):
    agent = bench.agent()
    run = bench.start(flow, "o-1")
    gate.wait_until_reached()
    if how == "drained":
        bench.stop(0.0)
    else:
        bench.store.commit(AgentEnded(agent.agent_id, "lost", "its lease was over", 5, False))
    bench.agent()
    bench.wait_for(run, "halted")
    gate.open()
    run.resume(done="found it")
    assert run.result(timeout=20) == "found it"
    assert len(effects) == 1


def test_a_thread_that_ends_after_the_last_turn_of_its_agents_loop_holds_up_nothing(bench):
    agent = bench.agent()
    run = bench.start(pays, "o-1")
    gate.wait_until_reached()
    loop, close = agent._loop, agent._loop.close

    def close_late():
        gate.open()
        eventually(lambda: not busy_threads())
        close()

    loop.close = close_late
    bench.stop(0.0)
    bench.agent()
    bench.wait_for(run, "halted")
    run.resume(done="found it")
    assert run.result(timeout=5) == "found it"


@pytest.mark.parametrize("flow", PAYS)
def test_a_step_that_was_not_done_runs_again_with_the_same_key(bench, flow):
    run = cut_off(bench, flow)
    bench.wait_for(run, "halted")
    run.resume(not_done=True)
    assert run.result(timeout=20) == "paid o-1"
    assert len(effects) == 2
    assert effects[0] == effects[1]


def test_the_answer_and_who_gave_it_are_kept(bench):
    run = cut_off(bench, pays)
    bench.wait_for(run, "halted")
    run.resume(done="x")
    run.result(timeout=20)
    asked, answered = [json.loads(entry.data) for entry in bench.journal(run) if entry.kind == "question"]
    assert asked == {"cause": "its agent left it in the middle of a try"}
    assert answered["answer"] == "done"
    assert "@" in answered["by"]


def test_an_answer_to_nothing_is_refused(bench):
    run = bench.start(pays, "o-1")
    with pytest.raises(Conflict, match="does not wait for the outcome.*without --done"):
        run.resume(done=1)


@pytest.mark.parametrize("flow", UNDOES)
def test_on_unknown_undo_ends_the_run_whatever_its_code_would_catch(bench, flow):
    # What a zombie says of its try before the undo would be news to it.
    run = cut_off(bench, flow, goes_on=False)
    with pytest.raises(OutcomeUnknown, match="pay_or_undo"):
        run.result(timeout=20)
    assert bench.status(run) == "compensated"
    assert effects[1:] == [("unpay", None, "unknown")]


@pytest.mark.parametrize("flow", [probes, aprobes, submits_probed])
def test_a_probe_finds_the_result_of_a_step_that_its_agent_left(bench, flow):
    found[:] = ["probed it"]
    run = cut_off(bench, flow)
    assert run.result(timeout=20) == "probed it"
    assert [one[0] for one in effects] == ["pay", "probe"]
    assert effects[0][2] == effects[1][2]


@pytest.mark.parametrize("flow", [probes, aprobes, submits_probed])
def test_a_probe_that_finds_nothing_lets_the_step_run_again(bench, flow):
    found[:] = [NOT_DONE]
    run = cut_off(bench, flow)
    assert run.result(timeout=20) == "paid o-1"
    assert [one[0] for one in effects] == ["pay", "probe", "pay"]


@pytest.mark.parametrize("flow", [probes, submits_probed])
def test_a_probe_has_the_retries_of_its_step(bench, flow):
    found[:] = [OSError("1"), OSError("2"), "there"]
    run = cut_off(bench, flow)
    assert run.result(timeout=20) == "there"


def test_a_probe_has_the_timeout_of_its_step_and_its_tries(bench):
    run = cut_off(bench, probes_slowly)
    bench.wait_for(run, "halted")
    assert "its probe gave up by StepTimeout" in bench.field(run, "halt_reason") or "overran" in bench.field(run, "halt_reason")
    assert [one[0] for one in effects] == ["pay", "probe", "probe"]
    run.resume(not_done=True)
    assert run.result(timeout=20) == "paid o-1"


@pytest.mark.parametrize("flow", [probes, submits_probed])
def test_a_probe_that_gives_up_asks_a_person(bench, flow):
    found[:] = [OSError("1"), OSError("2"), OSError("3")]
    run = cut_off(bench, flow)
    bench.wait_for(run, "halted")
    assert "its probe gave up by OSError: 3" in bench.field(run, "halt_reason")
    run.resume(done="a person knows")
    assert run.result(timeout=20) == "a person knows"


def test_a_try_that_overran_is_asked_about_too(bench):
    bench.agent()
    run = bench.start(overrun, "o-1")
    bench.wait_for(run, "halted")
    assert "it overran its timeout" in bench.field(run, "halt_reason")
    run.resume(not_done=True)
    assert run.result(timeout=20) == "paid o-1"


def test_a_cancelled_run_probes_what_is_unknown_before_it_undoes_it(bench):
    found[:] = ["probed it"]
    bench.agent()
    run = bench.start(probes_and_waits, "o-1")
    gate.wait_until_reached()
    bench.kill()
    run.cancel()
    bench.agent()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert [one[0] for one in effects] == ["pay", "probe", "unpay"]
    assert effects[-1] == ("unpay", "probed it", "completed")


@pytest.mark.parametrize("done", [True, False])
def test_a_cancelled_run_asks_before_it_undoes_what_is_unknown(bench, done):
    bench.agent()
    run = bench.start(pays, "o-1")
    gate.wait_until_reached()
    bench.kill()
    run.cancel()
    bench.agent()
    bench.wait_for(run, "halted")
    with pytest.raises(OutcomeNeeded):
        run.resume()
    # What is refused is not offered: a bare resume.
    details = why(bench.store, bench.task_id(run)).details
    assert any("asks about the step pay at 1" in detail for detail in details)
    assert not any("`resume` tries the compensation again" in detail for detail in details)
    if done:
        run.resume(done="found it")
    else:
        run.resume(not_done=True)
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects[1:] == [("unpay", "found it", "completed") if done else ("unpay", None, "failed")]


def test_an_overrun_step_without_a_wish_to_know_is_undone_as_unknown(bench):
    run = bench.start(overruns_plainly, "o-1")
    bench.agent()
    with pytest.raises(StepTimeout):
        run.result(timeout=20)
    eventually(lambda: bench.status(run) == "compensated")
    assert effects == [("undo", None, "unknown")]


@pytest.mark.parametrize("flow", [probed_overrun, aprobed_overrun, submits_probed_overrun])
def test_a_cancelled_step_that_overruns_is_neither_probed_nor_undone_before_its_thread_has_ended(bench, monkeypatch, flow):
    monkeypatch.setattr(interrupting, "_STEP_GRACE_SECONDS", 0.0)
    bench.agent()
    run = bench.start(flow, "o-1")
    gate.wait_until_reached()
    run.cancel()
    eventually(bench.strays)
    time.sleep(0.15)  # It overruns after its run's ending was decided.
    assert [one[0] for one in effects] == ["pay"]
    gate.open()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects[1:] == [("unpay", "paid o-1", "completed")]

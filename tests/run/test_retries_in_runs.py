"""Retries and time: backoff, timeouts of every kind of step, Fail and RetryAfter, deadlines."""

from __future__ import annotations

import asyncio
import time

import pytest
from run_bench import Gate, effects, eventually

import outlast
from outlast import Fail, Retry, RetryAfter, current, step, transaction, workflow
from outlast.definition import registry
from outlast.errors import DeadlineExceeded, RunCancelled, StepTimeout

gate = Gate()
FAST = Retry(3, initial="1ms", jitter=0)


class Flaky(Exception):
    pass


@step(timeout="1s", isolate=True)
def isolated_overruns() -> str:
    time.sleep(60)
    return "late"


with registry.isolated() as defined:

    def _fail_until(number: int) -> int:
        known = current()
        assert known.step is not None
        effects.append((known.step.try_number, known.idempotency_key))
        if known.step.try_number < number:
            raise Flaky(f"try {known.step.try_number}")
        return known.step.try_number

    @step(retry=FAST)
    def flaky(number: int) -> int:
        return _fail_until(number)

    @step(retry=FAST)
    async def aflaky(number: int) -> int:
        return _fail_until(number)

    @transaction(retry=FAST)
    def tflaky(db: object, number: int) -> int:
        return _fail_until(number)

    @step(retry=Retry(3, initial="200ms", jitter=0))
    def slow_to_retry(number: int) -> int:
        return _fail_until(number)

    @step(retry=FAST)
    def gives_up() -> None:
        effects.append("try")
        raise Fail("no use")

    @step(retry=Retry(3, initial="1m"))
    def wants_later() -> int:
        effects.append(time.monotonic())
        if len(effects) < 2:
            raise RetryAfter("50ms")
        return len(effects)

    @step(retry=Retry(3, initial=0, jitter=0))
    def tries_again_at_once() -> None:
        effects.append("try")
        gate.pass_through()
        raise Flaky("again")

    @workflow
    async def never_pauses() -> None:
        await tries_again_at_once.aio()

    @step(retry=Retry(3, on=KeyError, unless=KeyError, initial="1ms"))
    def picky(kind: str) -> None:
        effects.append(kind)
        raise {"key": KeyError, "value": ValueError}[kind](kind)

    @step(retry=Retry(3, on=(KeyError, ValueError), initial="1ms"))
    def less_picky(kind: str) -> None:
        effects.append(kind)
        raise {"key": KeyError, "type": TypeError}[kind](kind)

    @workflow
    def calls(name: str, *args: object) -> object:
        return {"flaky": flaky, "tflaky": tflaky, "slow": slow_to_retry, "gives_up": gives_up, "later": wants_later,
                "picky": picky, "less_picky": less_picky}[name](*args)  # fmt: skip

    @workflow
    def submits(name: str, *args: object) -> object:
        steps = {"flaky": flaky, "aflaky": aflaky, "tflaky": tflaky, "slow": slow_to_retry, "gives_up": gives_up,
                 "later": wants_later, "picky": picky, "less_picky": less_picky}  # fmt: skip
        return steps[name].submit(*args).result()

    @workflow
    def submits_picky(kind: str) -> object:
        return less_picky.options(retry=Retry(2, on=TypeError, initial="1ms")).submit(kind).result()

    @workflow
    async def acalls(name: str, *args: object) -> object:
        if name == "aflaky":
            return await aflaky(*args)
        return await {"flaky": flaky, "tflaky": tflaky, "slow": slow_to_retry, "gives_up": gives_up,
                      "later": wants_later, "picky": picky, "less_picky": less_picky}[name].aio(*args)  # fmt: skip

    @step(timeout="0.05s")
    def overruns() -> str:
        gate.pass_through()
        return "late"

    @step(timeout="0.05s", retry=Retry(2, initial="1ms"))
    def overruns_once() -> str:
        effects.append(("begins", len(effects)))
        if len(effects) == 1:
            gate.pass_through()
            effects.append(("ends", len(effects)))
        return "in time"

    @step(timeout="0.05s")
    async def aoverruns() -> str:
        await asyncio.sleep(30)
        return "late"

    defined.add(isolated_overruns)

    @transaction(timeout="0.1s")
    def transaction_overruns(db: object) -> int:
        return db.execute(  # type: ignore[attr-defined]
            "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n limit 1"
        ).fetchone()[0]

    OVERRUN = {"sync": overruns, "async": aoverruns, "isolated": isolated_overruns, "transaction": transaction_overruns}

    @workflow
    def times_out(kind: str) -> str:
        try:
            return (OVERRUN[kind].submit() if kind == "async" else OVERRUN[kind]()) and "in time"
        except StepTimeout as error:
            return error.step

    @workflow
    async def atimes_out(kind: str) -> str:
        try:
            await (aoverruns() if kind == "async" else OVERRUN[kind].aio())
        except StepTimeout as error:
            return error.step
        return "in time"

    @workflow
    def submits_one_that_times_out(kind: str) -> str:
        try:
            OVERRUN[kind].submit().result()
        except StepTimeout as error:
            return error.step
        return "in time"

    @workflow
    def overruns_and_retries() -> str:
        return overruns_once()

    @workflow
    async def aoverruns_and_retries() -> str:
        return await overruns_once.aio()

    @workflow
    def times_out_by_option() -> str:
        try:
            aslow.options(timeout="0.05s").submit().result()
        except StepTimeout:
            return "overran"
        return "in time"

    @step
    async def aslow() -> None:
        await asyncio.sleep(30)

    @workflow(timeout="0.2s")
    def waits_for_ever() -> None:
        outlast.wait_signal("never")

    @workflow(timeout="0.2s")
    async def awaits_for_ever() -> None:
        await outlast.aio.wait_signal("never")

    @workflow(timeout="0.2s")
    async def awaits_a_step_for_ever() -> None:
        await aslow()

    @step
    def stands_at_the_gate() -> str:
        gate.pass_through()
        effects.append("through")
        return "through"

    @workflow(timeout="0.2s")
    def stands_for_ever() -> None:
        stands_at_the_gate()

    @workflow
    def child_for_ever() -> None:
        outlast.wait_signal("never")

    @workflow(timeout="0.3s")
    def has_a_child() -> None:
        child_for_ever.start().result()

    @workflow(timeout="1h")
    def long_child() -> object:
        outlast.wait_signal("never")

    @workflow(timeout="0.3s")
    def has_a_long_child() -> None:
        long_child()


@pytest.mark.parametrize(
    ("flow", "name"),
    [(calls, "flaky"), (calls, "tflaky"), (submits, "flaky"), (submits, "aflaky"), (submits, "tflaky"),
     (acalls, "flaky"), (acalls, "aflaky"), (acalls, "tflaky")],
)  # fmt: skip
def test_a_step_is_tried_until_it_succeeds_with_one_idempotency_key(bench, flow, name):
    assert bench.run(flow, name, 3) == 3
    assert [number for number, _ in effects] == [1, 2, 3]
    assert len({key for _, key in effects}) == 1


@pytest.mark.parametrize(
    ("flow", "name"),
    [(calls, "flaky"), (calls, "tflaky"), (submits, "flaky"), (submits, "tflaky"), (acalls, "aflaky")],
)
def test_a_step_whose_tries_are_used_up_raises_its_last_error(bench, flow, name):
    with pytest.raises(Flaky) as caught:
        bench.run(flow, name, 9)
    assert str(caught.value) == "try 3"
    assert len(effects) == 3


@pytest.mark.parametrize("flow", [calls, submits, acalls])
def test_fail_is_not_tried_again(bench, flow):
    with pytest.raises(Fail):
        bench.run(flow, "gives_up")
    assert effects == ["try"]


@pytest.mark.parametrize("flow", [calls, submits, acalls])
def test_retry_after_asks_for_its_own_pause(bench, flow):
    assert bench.run(flow, "later") == 2
    assert 0.05 <= effects[1] - effects[0] < 5


@pytest.mark.parametrize("flow", [calls, submits, acalls])
def test_a_policy_chooses_its_errors(bench, flow):
    for name, kind, error, tries in [
        ("picky", "key", KeyError, 1), ("picky", "value", ValueError, 1),
        ("less_picky", "key", KeyError, 3), ("less_picky", "type", TypeError, 1),
    ]:  # fmt: skip
        effects.clear()
        with pytest.raises(error):
            bench.run(flow, name, kind)
        assert len(effects) == tries


def test_a_policy_of_one_submit_chooses_its_errors_too(bench):
    for kind, error, tries in [("key", KeyError, 1), ("type", TypeError, 2)]:
        effects.clear()
        with pytest.raises(error):
            bench.run(submits_picky, kind)
        assert len(effects) == tries


@pytest.mark.parametrize("flow", [calls, acalls, submits])
def test_tries_are_counted_through_a_restart(bench, flow):
    bench.agent()
    run = bench.start(flow, "slow", 3)
    eventually(lambda: effects)
    bench.stop()
    bench.agent()
    assert run.result(timeout=20) == 3
    assert [number for number, _ in effects] == [1, 2, 3]


@pytest.mark.parametrize("flow", [calls, acalls])
def test_a_backoff_is_a_wait_in_which_the_run_leaves_its_agent(bench, flow):
    bench.agent(park_after_seconds=0.01)
    run = bench.start(flow, "slow", 2)
    bench.wait_for(run, "waiting")
    assert bench.field(run, "due_at") is not None
    assert run.result(timeout=20) == 2


@pytest.mark.parametrize("flow", [times_out, atimes_out, submits_one_that_times_out])
@pytest.mark.parametrize("kind", ["sync", "async", "isolated", "transaction"])
def test_a_step_that_overruns_raises_a_step_timeout(bench, flow, kind):
    if flow is times_out and kind == "async":
        pytest.skip("the colour of a sync workflow")
    run = bench.start(flow, kind)
    bench.agent()
    if kind == "sync":
        gate.wait_until_reached()
        if flow is submits_one_that_times_out:
            time.sleep(0.2)
            gate.open()
    assert run.result(timeout=20) == OVERRUN[kind].name
    gate.open()
    assert eventually(lambda: bench.strays() == 0)


def test_a_run_that_leaves_between_two_tries_begins_no_other(bench):
    gate.close()
    run = bench.start(never_pauses)
    agent = bench.agent()
    gate.wait_until_reached()
    run.pause()
    task_id = bench.field(run, "id")
    eventually(lambda: agent._holding.runs[task_id].is_to_leave())
    gate.open()
    eventually(lambda: run.status == "paused")
    with pytest.raises(Flaky):
        bench.run(never_pauses)
    assert len(effects) == 1 + 3


def test_the_timeout_of_one_submit_goes_before_the_definition(bench):
    assert bench.run(times_out_by_option) == "overran"


@pytest.mark.parametrize("flow", [overruns_and_retries, aoverruns_and_retries])
def test_no_second_try_runs_beside_one_that_overran(bench, flow):
    run = bench.start(flow)
    bench.agent()
    gate.wait_until_reached()
    eventually(lambda: any(event == "tried" for _, event, _ in bench.lines(run)))
    time.sleep(0.1)
    assert effects == [("begins", 0)]
    gate.open()
    assert run.result(timeout=20) == "in time"
    assert effects == [("begins", 0), ("ends", 1), ("begins", 2)]


@pytest.mark.parametrize("flow", [waits_for_ever, awaits_for_ever, awaits_a_step_for_ever])
@pytest.mark.parametrize("park_after", [0.01, 30])
def test_a_run_past_its_deadline_fails_with_deadline_exceeded(bench, flow, park_after):
    bench.agent(park_after_seconds=park_after)
    run = bench.start(flow)

    def ended() -> bool:
        bench.sweep()
        return bench.status(run) == "failed"

    eventually(ended)
    with pytest.raises(DeadlineExceeded):
        run.result(timeout=5)


def test_a_sync_step_that_goes_on_holds_up_the_end_of_its_late_run(bench):
    bench.agent()
    run = bench.start(stands_for_ever)
    gate.wait_until_reached()
    eventually(lambda: bench.field(run, "ending") == "failed")
    bench.sweep()
    assert bench.status(run) == "waiting"
    gate.open()
    with pytest.raises(DeadlineExceeded):
        run.result(timeout=20)
    assert effects == ["through"]


@pytest.mark.parametrize("flow", [has_a_child, has_a_long_child])
def test_a_child_inherits_what_is_left(bench, flow):
    bench.agent()
    run = bench.start(flow)
    child = eventually(lambda: run.children())[0]
    eventually(lambda: bench.field(run, "deadline_at"))
    eventually(lambda: bench.field(child, "started_at"))
    assert bench.field(child, "deadline_at") <= bench.field(run, "deadline_at")

    def ended() -> bool:
        bench.sweep()
        return bench.status(run) == "failed" and bench.status(child) in ("failed", "cancelled")

    eventually(ended)
    with pytest.raises(DeadlineExceeded):
        run.result(timeout=5)
    with pytest.raises((DeadlineExceeded, RunCancelled)):
        child.result(timeout=5)

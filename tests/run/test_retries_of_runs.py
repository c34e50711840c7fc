"""The run's own `retry=`, and what it sets aside."""

from __future__ import annotations

import asyncio
import time

import pytest
from run_bench import effects, eventually

import outlast
from outlast import Retry, step, workflow
from outlast.definition import registry
from outlast.errors import RunHalted

FAST = Retry(3, initial="1ms", jitter=0)


class Down(Exception):
    pass


with registry.isolated() as defined:

    @step
    def good(name: str) -> str:
        effects.append(name)
        return name

    @step
    def bad(fails: int) -> str:
        effects.append("bad")
        if effects.count("bad") <= fails:
            raise Down(f"{effects.count('bad')}")
        return "up"

    @workflow(retry=FAST)
    def tries_again(fails: int) -> list[str]:
        return [good("a"), bad(fails), good("b")]

    @workflow(retry=FAST)
    async def atries_again(fails: int) -> list[str]:
        return [await good.aio("a"), await bad.aio(fails), await good.aio("b")]

    @workflow(retry=FAST)
    def cleans_up(fails: int) -> list[str]:
        try:
            return [good("a"), bad(fails), good("b")]
        except Down:
            good("cleaned")
            raise

    @workflow(retry=FAST)
    def wraps(fails: int) -> list[str]:
        try:
            return [good("a"), bad(fails)]
        except Down as error:
            raise RuntimeError("wrapped") from error

    @workflow(retry=FAST)
    def caught_before() -> list[str]:
        try:
            bad(1)
        except Down:
            good("caught")
        return [bad(2), good("end")]

    @workflow(retry=FAST)
    def submits(fails: int) -> list[str]:
        return outlast.gather(good.submit("a"), bad.submit(fails), good.submit("b"))

    @workflow
    def waits() -> str:
        return str(outlast.wait_signal("never"))

    @workflow(retry=FAST)
    def cancels_the_rest(fails: int) -> object:
        slow = waits.start()
        first = bad.submit(fails)
        if fails > len(effects):
            return outlast.gather(slow, first)
        return outlast.gather(first)

    @workflow(retry=FAST)
    async def groups(fails: int) -> list[str]:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(bad.aio(fails))
            two = group.create_task(good.aio("b"))
        return [one.result(), two.result(), await good.aio("end")]

    @workflow(retry=Retry(2, initial="1ms", on=KeyError))
    def picky() -> None:
        bad(9)

    @workflow(retry=FAST)
    def fails_itself() -> None:
        good("a")
        raise Down("always")

    @workflow(on_error="halt")
    def halts(fails: int) -> list[str]:
        return [good("a"), bad(fails), good("b")]

    @step
    def compensated(fails: int) -> str:
        effects.append("compensated")
        if effects.count("compensated") <= fails:
            raise Down("no")
        return "done"

    @compensated.compensation
    def undo(result: str | None, fails: int) -> None:
        effects.append(("undo", result))

    @workflow(retry=FAST)
    def undone_once() -> None:
        compensated(1)
        raise ValueError("end")

    @workflow(retry=FAST)
    def takes_a_signal(fails: int) -> object:
        try:
            bad(fails)
        except Down:
            outlast.wait_signal("word")
            raise
        return outlast.wait_signal("word")

    @step
    def fragile(name: str, fails: int) -> str:
        effects.append(name)
        if effects.count(name) <= fails:
            raise Down(name)
        return name

    @workflow(retry=FAST)
    async def awraps(fails: int) -> list[str]:
        try:
            return [await good.aio("a"), await bad.aio(fails)]
        except Down as error:
            try:
                raise ValueError("between") from error
            except ValueError as between:
                raise RuntimeError("wrapped") from between

    @workflow(retry=FAST)
    async def acaught_before() -> list[str]:
        try:
            await bad.aio(1)
        except Down:
            await good.aio("caught")
        return [await bad.aio(2), await good.aio("end")]

    @workflow(retry=FAST)
    async def nests_groups(fails: int) -> list[str]:
        async with asyncio.TaskGroup() as outer:
            first = outer.create_task(inner_group(fails))
            second = outer.create_task(waits_and_fails(fails))
        return [*first.result(), second.result(), await good.aio("end")]

    async def inner_group(fails: int) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fragile.aio("x", fails)), group.create_task(good.aio("y"))]
        return [task.result() for task in tasks]

    async def waits_and_fails(fails: int) -> str:
        return await fragile.aio("z", 0)

    @workflow(retry=FAST)
    def raises_what_it_had_kept() -> list[str]:
        results = outlast.gather(fragile.submit("p", 1), good.submit("q"), return_exceptions=True)
        good("after")
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return list(results)

    @workflow(retry=FAST)
    def hides_its_cause(fails: int) -> str:
        try:
            return bad(fails)
        except Down:
            raise RuntimeError("hidden") from None

    @step
    def late(seconds: float) -> str:
        effects.append("late")
        if effects.count("late") == 1:
            time.sleep(seconds)
        return "in time"

    @workflow(retry=Retry(50, initial="1ms"))
    def waits_too_short() -> str:
        return late.submit(0.2).result(timeout=0.1)

    @workflow(retry=Retry(50, initial="1ms"))
    async def awaits_too_short() -> str:
        async with asyncio.timeout(0.1):
            return await late.submit(0.2)

    @workflow(retry=FAST)
    async def catches_a_timeout_before(fails: int) -> str:
        try:
            async with asyncio.timeout(0.01):
                await outlast.aio.wait_signal("never")
        except TimeoutError:
            await good.aio("caught")
        return await bad.aio(fails)

    @workflow(retry=FAST)
    def waits_for_a_word(fails: int) -> str:
        word = outlast.wait_signal("word", str, timeout=0.05)
        return word + bad(fails)

    @workflow(on_error="halt")
    async def halts_in_a_group(fails: int) -> list[str]:
        async with asyncio.TaskGroup() as group:
            one = group.create_task(bad.aio(fails))
            two = group.create_task(good.aio("b"))
        return [one.result(), two.result()]


@pytest.mark.parametrize("flow", [tries_again, atries_again])
def test_a_run_is_tried_again_from_the_step_that_failed(bench, flow):
    bench.agent()
    run = bench.start(flow, 2)
    assert run.result(timeout=20) == ["a", "up", "b"]
    assert effects == ["a", "bad", "bad", "bad", "b"]
    assert [line[1] for line in bench.lines(run)].count("set_aside") == 2
    assert bench.claims(run) == 3


@pytest.mark.parametrize("flow", [tries_again, atries_again, submits])
def test_a_run_whose_tries_are_used_up_fails_with_its_last_error(bench, flow):
    with pytest.raises(Down) as caught:
        bench.run(flow, 9)
    assert str(caught.value) == "3"


def test_what_the_branch_journalled_after_the_error_is_set_aside_with_it(bench):
    assert bench.run(cleans_up, 1) == ["a", "up", "b"]
    assert effects == ["a", "bad", "cleaned", "bad", "b"]


def test_the_nearest_outcome_in_the_cause_chain_is_set_aside(bench):
    assert bench.run(wraps, 2) == ["a", "up"]


def test_an_error_that_was_caught_earlier_stays(bench):
    assert bench.run(caught_before) == ["up", "end"]
    assert effects == ["bad", "caught", "bad", "bad", "end"]


def test_a_submitted_step_that_failed_is_submitted_anew_and_the_others_stay(bench):
    assert bench.run(submits, 2) == ["a", "up", "b"]
    assert sorted(map(str, effects)) == ["a", "b", "bad", "bad", "bad"]


def test_what_a_failure_had_cancelled_is_set_aside_with_it(bench):
    assert bench.run(cancels_the_rest, 1) == ["up"]


def test_the_members_of_a_group_are_set_aside(bench):
    assert bench.run(groups, 2) == ["up", "b", "end"]
    assert effects.count("bad") == 3
    assert effects[-1] == "end"


def test_a_policy_chooses_its_errors(bench):
    with pytest.raises(Down):
        bench.run(picky)
    assert effects == ["bad"]


def test_an_error_of_the_workflows_own_code_uses_up_its_tries(bench):
    with pytest.raises(Down):
        bench.run(fails_itself)
    assert effects == ["a"]


def test_an_option_of_the_start_goes_before_the_definition(bench):
    with pytest.raises(Down):
        bench.run(tries_again.options(retry=Retry(1)), 1)
    assert effects == ["a", "bad"]


def test_the_resume_of_a_run_that_halted_on_its_error_does_not_come_back_to_it(bench):
    bench.agent()
    run = bench.start(halts, 1)
    with pytest.raises(RunHalted, match="Down: 1"):
        run.result(timeout=20)
    run.resume()
    assert run.result(timeout=20) == ["a", "up", "b"]
    assert effects == ["a", "bad", "bad", "b"]


def test_a_step_that_failed_and_then_succeeded_is_undone_once_with_its_result(bench):
    with pytest.raises(ValueError, match="end"):
        bench.run(undone_once)
    assert effects == ["compensated", "compensated", ("undo", "done")]


def test_a_signal_that_was_taken_after_the_error_is_unread_again(bench):
    run = bench.start(takes_a_signal, 1)
    run.signal("word", 7)
    bench.agent()
    assert run.result(timeout=20) == 7


def test_the_nearest_outcome_in_a_long_cause_chain_is_set_aside(bench):
    assert bench.run(awraps, 2) == ["a", "up"]
    assert effects == ["a", "bad", "bad", "bad"]


def test_an_error_that_was_caught_earlier_stays_in_an_async_run(bench):
    assert bench.run(acaught_before) == ["up", "end"]
    assert effects == ["bad", "caught", "bad", "bad", "end"]


def test_the_members_of_nested_groups_are_set_aside_and_results_stay(bench):
    assert bench.run(nests_groups, 2) == ["x", "y", "z", "end"]
    assert effects.count("x") == 3
    assert effects.count("end") == 1


def test_an_error_that_was_kept_and_raised_later_takes_with_it_what_came_between(bench):
    assert bench.run(raises_what_it_had_kept) == ["p", "q"]
    assert sorted(effects) == ["after", "after", "p", "p", "q"]


def test_a_cause_that_is_not_to_be_shown_is_set_aside_all_the_same(bench):
    assert bench.run(hides_its_cause, 2) == "up"


@pytest.mark.parametrize("flow", [waits_too_short, awaits_too_short])
def test_a_timeout_that_ended_the_run_is_waited_for_anew(bench, flow):
    assert bench.run(flow) == "in time"


def test_a_timeout_that_was_caught_earlier_stays(bench):
    assert bench.run(catches_a_timeout_before, 2) == "up"
    assert effects == ["caught", "bad", "bad", "bad"]


def test_a_signal_that_came_too_late_for_one_try_is_there_for_the_next(bench):
    bench.agent()
    run = bench.start(waits_for_a_word, 0)
    eventually(lambda: any(line[1] == "set_aside" for line in bench.lines(run)))
    run.signal("word", "w")
    assert run.result(timeout=20) == "wup"


def test_the_resume_of_a_run_that_halted_on_a_group_goes_on(bench):
    bench.agent()
    run = bench.start(halts_in_a_group, 1)
    bench.wait_for(run, "halted")
    run.resume()
    assert run.result(timeout=20) == ["up", "b"]

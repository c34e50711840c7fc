"""`retry` of a final run: a new run that inherits what stands, and runs again what does not."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from run_bench import Gate, effects, eventually

import outlast
from outlast import Retry, current, step, transaction, workflow
from outlast.definition import registry
from outlast.errors import Conflict, StepNotFound
from outlast.views.chains import chain_texts

world: dict[str, Any] = {}
"""What the world is like: which calls fail, and what the code says."""
gate = Gate()


class Down(Exception):
    pass


@pytest.fixture(autouse=True)
def a_new_world():
    world.clear()


def keys(name: str) -> list[str]:
    return [effect[1] for effect in effects if isinstance(effect, tuple) and effect[0] == name]


def names() -> list[str]:
    return [effect[0] if isinstance(effect, tuple) else effect for effect in effects]


def do(name: str) -> str:
    effects.append((name, current().idempotency_key))
    if world.get(name) == "down":
        raise Down(name)
    return f"{name}!"


with registry.isolated() as defined:

    @step
    def call(name: str) -> str:
        return do(name)

    @step
    async def acall(name: str) -> str:
        return do(name)

    @step
    def pay(name: str) -> str:
        return do(name)

    @pay.compensation
    def refund(result: str | None, name: str) -> None:
        effects.append(f"undo {name}")

    @transaction
    def book(db: outlast.sqlite3.Connection, name: str) -> str:
        db.execute("create table if not exists booking (name text)")
        db.execute("insert into booking values (?)", (name,))
        return do(name)

    @workflow
    def three(middle: str = "b") -> list[str]:
        return [call("a"), call(world.get("middle", middle)), call("c")]

    @workflow
    async def athree(middle: str = "b") -> list[str]:
        return [await acall("a"), await call.aio(world.get("middle", middle)), await acall("c")]

    @workflow
    def fans_out() -> list[str]:
        return outlast.gather(*[call.submit(name) for name in "abcd"], return_exceptions=False)

    @workflow
    async def afans_out() -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(acall(name)) for name in "abcd"]
        return [task.result() for task in tasks]

    @workflow
    def undone() -> list[str]:
        return [call("a"), pay("b"), call("c")]

    @workflow
    def child(name: str) -> list[str]:
        return [call(f"{name}1"), call(f"{name}2")]

    @workflow
    def parent() -> list[object]:
        first = child.start("x")
        return [first.result(), child("y"), call("z"), first.id]

    @workflow
    async def aparent() -> list[object]:
        first = child.start("x")
        return [await first, await child.start("y"), await call.aio("z"), first.id]

    @workflow
    def books() -> list[str]:
        return [book("t"), call("c")]

    @workflow
    def made_of_ids() -> list[str]:
        order = outlast.uuid4()
        return [call(f"{order}"), call(f"{outlast.now().isoformat()}"), call(f"{outlast.rng().random()}"), call("c")]

    @workflow
    def cleans_up() -> list[str]:
        try:
            return [call("a"), call("b"), call("c")]
        except Down:
            call("clean")
            raise

    @workflow
    def takes_signals() -> list[object]:
        first = outlast.wait_signal("word")
        outlast.publish("state", "one")
        call("b")
        return [first, outlast.wait_signal("word", timeout="1h"), call("c")]

    @workflow
    async def atakes_signals() -> list[object]:
        first = await outlast.aio.wait_signal("word")
        outlast.publish("state", "one")
        await call.aio("b")
        return [first, await outlast.aio.wait_signal("word", timeout="1h"), await call.aio("c")]

    @workflow
    def sleeps() -> None:
        outlast.sleep(0.01)
        call("a")
        outlast.sleep("1h")

    @workflow
    def catches() -> list[str]:
        try:
            call("a")
        except Down:
            pass
        return [call("b"), call("c")]

    @workflow
    def gives_up_waiting() -> object:
        part = stands.submit()
        return part.result(timeout=0.05)

    @workflow
    async def agives_up_waiting() -> object:
        async with asyncio.timeout(0.05):
            return await stands.submit()

    @step
    def stands() -> str:
        effects.append("stands")
        gate.pass_through()
        return "stood"

    @workflow
    def much(size: int) -> list[int]:
        return [weigh("x" * size + world.get("end", "")), weigh("y")]

    @step
    def weigh(text: str) -> int:
        do(text[:1])
        return len(text)

    @workflow
    def keeps_going(number: int) -> int:
        call(f"n{number}")
        if number < 3:
            outlast.continue_as_new(number + 1)
        return number

    @workflow
    def changed() -> list[str]:
        names = [call("a")]
        if outlast.patched("more"):
            names.append(call("more"))
        return [*names, call("b"), call("c")]

    @workflow
    async def races() -> str:
        slow, fast = asyncio.ensure_future(astands()), asyncio.ensure_future(acall("fast"))
        done, _ = await asyncio.wait([slow, fast], return_when=asyncio.FIRST_COMPLETED)
        winner = next(iter(done)).result()
        await slow
        return winner + await acall("b")

    @step
    async def astands() -> str:
        while "fast" not in names():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return do("slow")

    @workflow
    def halfway() -> list[str]:
        return [pay("b"), stands(), call("c")]

    @workflow(on_error="halt")
    def halts() -> str:
        return call("a")

    @workflow(retry=Retry(2, initial="1ms"))
    def tries_twice() -> list[str]:
        return [call("a"), call("b")]

    @step
    def guarded(name: str) -> str:
        if world.get("gate"):
            effects.append(("c", "-"))
            gate.pass_through()
        return do(name)

    @workflow
    def with_a_gate() -> list[str]:
        return [call("a"), call("b"), guarded("c")]

    @step
    def other(name: str) -> str:
        return do(name)

    @workflow
    def rewritten() -> list[str]:
        if world.get("new code"):
            return [call("a"), other("b"), other("z")]
        return [call("a"), call("b"), call("c"), call("d"), call("e")]

    @workflow
    async def arewritten() -> list[str]:
        if world.get("new code"):
            return [await call.aio("a"), await other.aio("b"), await other.aio("z")]
        return [await acall("a"), await call.aio("b"), *[await acall(name) for name in "cde"]]

    @workflow
    async def branches() -> list[str]:
        async def line(name: str) -> list[str]:
            return [await acall(f"{name}{number}") for number in range(3)]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(line(name)) for name in "xyz"]
        return [value for task in tasks for value in task.result()]

    @workflow
    def outlived() -> str:
        return lasts.start("c").id + call("end")

    @workflow
    def lasts(name: str) -> object:
        call(name)
        return outlast.wait_signal("go")

    @workflow
    def undone_child(name: str) -> str:
        return call(name)

    @undone_child.compensation
    def undo_child(result: str | None, name: str) -> None:
        effects.append(f"undo {name}")

    @workflow
    def undoes_a_child() -> list[str]:
        return [undone_child("k"), pay("p"), call("c")]

    @workflow
    def sends_to_a_child() -> object:
        child = lasts.start("k")
        child.signal("go", 7)
        value = child.result()
        call("c")
        return value

    @workflow
    def is_first() -> str:
        part = outlast.first(stands.submit(), call.submit("fast"))
        return str(part.result()) + call(f"after {part.result()}") + call("c")

    @workflow
    def maps(names: list[str]) -> list[str]:
        return call.map(names, concurrency=2)

    @workflow
    def maps_then() -> list[str]:
        return [*call.map(["a", "b"], concurrency=1), call("c")]

    @workflow
    def top() -> list[str]:
        return [call("t1"), *middle(), call("t2")]

    @workflow
    def middle() -> list[str]:
        return [call("m1"), *child.options(key="grandchild").start("g").result(), call("m2")]

    @workflow(retry=Retry(2, initial="1ms"))
    def raises_later() -> str:
        error = None
        try:
            flaky("b")
        except Down as caught:
            error = caught
        call("c")
        outlast.wait_signal("go")
        if error is not None:
            raise error
        return "done"

    @step
    def flaky(name: str) -> str:
        effects.append(name)
        if names().count(name) <= 2:
            raise Down(name)
        return name

    @workflow
    def has_a_unique_child() -> list[str]:
        return child.options(unique_key="u").start("k").result()

    @step(timeout=0.05)
    def overruns(name: str) -> str:
        do(name)
        gate.pass_through()
        return "late"

    @workflow
    def waits_for_what_overruns() -> str:
        return overruns("o")

    @workflow
    async def await_what_overruns() -> str:
        return await overruns.aio("o")

    @step(on_unknown="halt")
    def asks(name: str) -> str:
        do(name)
        gate.pass_through()
        return name

    @workflow
    def then_fails() -> list[str]:
        return [asks("q"), call("c")]

    @workflow
    def does_not_know() -> list[str]:
        return [call("a"), asks("q")]


def fail_at(bench, flow, name, *args, status="failed", **options):
    world[name] = "down"
    run = bench.start(flow.options(**options) if options else flow, *args)
    bench.wait_for(run, status)
    del world[name]
    return run


@pytest.mark.parametrize("flow", [three, athree])
def test_a_retry_begins_at_the_failure(bench, flow):
    bench.agent()
    run = fail_at(bench, flow, "b", key="k", tags={"x": "y"})
    again = run.retry()
    assert again.result(timeout=20) == ["a!", "b!", "c!"]
    assert names() == ["a", "b", "b", "c"]
    assert len(set(keys("b"))) == 1
    shown = bench.engine.get(flow, key="k")
    assert shown == again
    assert [step["name"] for step in again.steps()] == [step["name"] for step in again.steps() if step["status"] == "completed"]
    assert [one.id for one in bench.engine.runs(tags={"x": "y"})] == [again.id, run.id]


@pytest.mark.parametrize("flow", [three, athree])
def test_a_chain_of_retries_goes_on_from_the_newest(bench, flow):
    bench.agent()
    runs = [fail_at(bench, flow, "b")]
    for name in ("b", "c", "c"):
        world[name] = "down"
        runs.append(runs[-1].retry())
        bench.wait_for(runs[-1], "failed")
        del world[name]
    last = runs[0].retry()
    assert last.result(timeout=20) == ["a!", "b!", "c!"]
    assert names() == ["a", "b", "b", "b", "c", "c", "c"]
    assert len({key for name in "abc" for key in keys(name)}) == 3
    assert bench.one("select retry_of from outlast_input i join outlast_task t on t.id = i.task_id where t.uid = ?", last.id) == runs[0].id


@pytest.mark.parametrize("flow", [three, athree])
def test_other_input_runs_again_under_a_new_key_and_equal_input_after_it_stands(bench, flow):
    bench.agent()
    run = fail_at(bench, flow, "c")
    world["middle"] = "q"
    assert run.retry().result(timeout=20) == ["a!", "q!", "c!"]
    assert names() == ["a", "b", "c", "q", "c"]
    assert keys("q") == [f"{keys('b')[0]}/1"]
    assert len(set(keys("c"))) == 1


@pytest.mark.parametrize("flow", [fans_out, afans_out])
def test_of_a_fan_out_only_what_did_not_complete_runs_again(bench, flow):
    bench.agent(concurrency=1)
    run = fail_at(bench, flow, "d")
    assert run.retry().result(timeout=20) == ["a!", "b!", "c!", "d!"]
    assert sorted(names()) == ["a", "b", "c", "d", "d"]


def test_what_was_undone_runs_again_under_a_new_key(bench):
    bench.agent()
    run = fail_at(bench, undone, "c", status="compensated")
    assert run.retry().result(timeout=20) == ["a!", "b!", "c!"]
    assert names() == ["a", "b", "c", "undo b", "b", "c"]
    assert keys("b")[1] == f"{keys('b')[0]}/1"
    assert len(set(keys("c"))) == 1


def test_what_is_inherited_can_be_undone_and_then_runs_again(bench):
    bench.agent()
    world["c"] = "down"
    first = bench.start(undone)
    bench.wait_for(first, "compensated")
    effects.clear()
    second = first.retry()
    bench.wait_for(second, "compensated")
    del world["c"]
    third = second.retry()
    assert third.result(timeout=20) == ["a!", "b!", "c!"]
    assert names() == ["b", "c", "undo b", "b", "c"]
    assert [key[-2:] for key in keys("b")] == ["/1", "/2"]


def test_a_cancel_without_undo_leaves_what_was_done_to_the_retry_which_undoes_it(bench):
    bench.agent()
    run = bench.start(halfway)
    gate.wait_until_reached()
    run.cancel(undo=False)
    eventually(lambda: bench.field(run, "ending"))
    gate.open()
    bench.wait_for(run, "cancelled")
    world["c"] = "down"
    again = run.retry()
    bench.wait_for(again, "compensated")
    assert names() == ["b", "stands", "c", "undo b"]  # It had ended after the cancel: its result stands as well.


@pytest.mark.parametrize("flow", [parent, aparent])
def test_completed_children_stand_and_a_failed_one_is_retried(bench, flow):
    bench.agent()
    run = fail_at(bench, flow, "y2")
    children = [child.id for child in run.children()]
    again = run.retry()
    result = again.result(timeout=20)
    assert result == [["x1!", "x2!"], ["y1!", "y2!"], "z!", children[0]]
    assert sorted(names()) == ["x1", "x2", "y1", "y2", "y2", "z"]
    assert len(set(keys("y2"))) == 1
    [retried] = again.children()
    assert (
        bench.one("select retry_of from outlast_input i join outlast_task t on t.id = i.task_id where t.uid = ?", retried.id) == children[1]
    )


def test_a_child_that_was_retried_by_itself_is_the_parents_child(bench):
    bench.agent()
    run = fail_at(bench, parent, "y2")
    by_hand = run.children()[1].retry()
    by_hand.result(timeout=20)
    assert run.retry().result(timeout=20)[1] == ["y1!", "y2!"]
    assert sorted(names()) == ["x1", "x2", "y1", "y2", "y2", "z"]


def test_a_committed_transaction_stands(bench):
    bench.agent()
    run = fail_at(bench, books, "c")
    assert run.retry().result(timeout=20) == ["t!", "c!"]
    assert bench.one("select count(*) from booking") == 1


def test_ids_instants_and_random_numbers_are_the_same_in_a_retry(bench):
    bench.agent()
    run = fail_at(bench, made_of_ids, "c")
    run.retry().result(timeout=20)
    assert len(names()) == 5
    assert names()[3:] == ["c", "c"]


def test_what_came_after_the_failure_is_set_aside(bench):
    bench.agent()
    run = fail_at(bench, cleans_up, "b")
    assert run.retry().result(timeout=20) == ["a!", "b!", "c!"]
    assert names() == ["a", "b", "clean", "b", "c"]
    run = fail_at(bench, cleans_up, "b")
    effects.clear()
    world["b"] = "down"
    bench.wait_for(run.retry(), "failed")
    assert names() == ["b", "clean"]
    assert keys("clean")[0].endswith("/1")


def test_an_error_that_was_caught_is_tried_again(bench):
    bench.agent()
    world["a"] = "down"
    run = fail_at(bench, catches, "c")
    del world["a"]
    assert run.retry().result(timeout=20) == ["b!", "c!"]
    assert names() == ["a", "b", "c", "a", "c"]


@pytest.mark.parametrize("flow", [takes_signals, atakes_signals])
def test_signals_that_were_taken_stand_and_the_others_are_unread(bench, flow):
    run = bench.start(flow)
    run.signal("word", 1)
    run.signal("word", 2, key="two")
    world["b"] = "down"
    bench.agent()
    bench.wait_for(run, "failed")
    del world["b"]
    again = run.retry()
    assert again.query("state") == "one"
    again.signal("word", 3, key="two")
    assert again.result(timeout=20) == [1, 2, "c!"]
    world["c"] = "down"
    run = bench.start(flow)
    run.signal("word", 1)
    run.signal("word", 2)
    bench.wait_for(run, "failed")
    del world["c"]
    effects.clear()
    again = run.retry(from_step="3")
    assert again.result(timeout=20) == [1, 2, "c!"]
    assert names() == ["b", "c"]


def test_a_timer_that_is_over_stands_and_an_unfinished_one_starts_anew(bench):
    bench.agent()
    run = bench.start(sleeps)
    bench.wait_for(run, "waiting")
    run.cancel()
    bench.wait_for(run, "cancelled")
    again = run.retry()
    bench.wait_for(again, "waiting")
    assert names() == ["a"]
    assert [event for _, event, _ in bench.lines(again)] == ["completed", "completed", "started"]


@pytest.mark.parametrize("flow", [gives_up_waiting, agives_up_waiting])
def test_the_timer_that_ended_the_run_does_not_stand(bench, flow):
    bench.agent()
    run = bench.start(flow)
    gate.wait_until_reached()
    eventually(lambda: bench.field(run, "ending"))
    gate.open()
    bench.wait_for(run, "failed")
    assert run.retry().result(timeout=20) == "stood"


@pytest.mark.parametrize("flow", [three, athree])
@pytest.mark.parametrize(("chosen", "ran"), [("1", "abc"), ("2", "bc"), ("3", "c"), ("call", "bc"), ("acall", "abc")])
def test_from_a_step_on_everything_runs_again_under_new_keys(bench, flow, chosen, ran):
    if flow is three and chosen in ("call", "acall"):
        chosen, ran = "call", "abc"
    bench.agent()
    run = bench.start(flow)
    run.result(timeout=20)
    before = dict(effects)
    effects.clear()
    assert run.retry(from_step=chosen).result(timeout=20) == ["a!", "b!", "c!"]
    assert names() == list(ran)
    assert [key for _, key in effects] == [f"{before[name]}/1" for name in ran]


def test_a_completed_run_retried_inherits_all_of_it(bench):
    bench.agent()
    run = bench.start(three)
    run.result(timeout=20)
    assert run.retry().result(timeout=20) == ["a!", "b!", "c!"]
    assert names() == ["a", "b", "c"]


def test_a_step_that_there_is_not_is_refused_and_nothing_is_started(bench):
    bench.agent()
    run = fail_at(bench, three, "b")
    for wanted in ("nothing", "", "4", "three"):
        with pytest.raises(StepNotFound):
            run.retry(from_step=wanted)
    assert len(bench.engine.runs()) == 1


def test_there_is_one_unfinished_retry_in_a_chain(bench):
    bench.agent()
    run = fail_at(bench, three, "b")
    bench.stop()
    again = run.retry()
    assert run.retry() == again
    assert again.retry() == again, "a key leads to the retry that is open"
    again.cancel()
    third = again.retry()
    assert run.retry() == third
    bench.agent()
    assert third.result(timeout=20) == ["a!", "b!", "c!"]
    assert names() == ["a", "b", "b", "c"]
    bench.stop()
    with pytest.raises(Conflict, match="is pending: only a run that has ended"):
        bench.start(three).retry()


def test_a_halted_run_is_for_resume(bench):
    bench.agent()
    world["a"] = "down"
    run = bench.start(halts)
    bench.wait_for(run, "halted")
    with pytest.raises(Conflict) as caught:
        run.retry()
    assert f"outlast resume {run.id}" in caught.value.hint


def test_a_run_whose_own_tries_are_used_up_is_retried_from_its_failure(bench):
    bench.agent()
    run = fail_at(bench, tries_twice, "b")
    assert run.retry().result(timeout=20) == ["a!", "b!"]
    assert names() == ["a", "b", "b", "b"]
    assert len(set(keys("b"))) == 1


def test_inputs_that_were_not_kept_whole_are_known_by_their_fingerprint(bench):
    bench.agent()
    run = fail_at(bench, much, "y", 5000)
    assert run.retry().result(timeout=20) == [5000, 1]
    assert names() == ["x", "y", "y"]
    run = fail_at(bench, much, "y", 5000)
    world["end"] = "."
    effects.clear()
    assert run.retry().result(timeout=20) == [5001, 1]
    assert names() == ["x", "y"]


def test_a_crash_in_a_retry_takes_nothing_twice(bench):
    bench.agent()
    run = fail_at(bench, with_a_gate, "c")
    bench.stop()
    again = run.retry()
    world["gate"] = True
    bench.agent()
    gate.wait_until_reached()
    bench.kill()
    gate.open()
    bench.agent()
    assert again.result(timeout=20) == ["a!", "b!", "c!"]
    assert set(keys("a")) == {keys("a")[0]}
    assert names()[:4] == ["a", "b", "c", "c"]


def test_a_retry_of_what_went_on_as_new_runs_is_of_the_last(bench):
    bench.agent()
    world["n3"] = "down"
    run = bench.start(keeps_going, 1)
    eventually(lambda: len(bench.engine.runs(status="failed")) == 1)
    del world["n3"]
    assert run.retry().result(timeout=20) == 3
    assert names() == ["n1", "n2", "n3", "n3"]


def test_a_change_behind_a_patch_does_not_shift_what_is_inherited(bench):
    bench.agent()
    run = fail_at(bench, changed, "c")
    assert names() == ["a", "more", "b", "c"]
    assert run.retry().result(timeout=20) == ["a!", "more!", "b!", "c!"]
    assert names() == ["a", "more", "b", "c", "c"]


def test_who_was_first_is_first_again(bench):
    bench.agent()
    run = fail_at(bench, races, "b")
    before = names()
    result = run.retry().result(timeout=20)
    assert before == ["fast", "slow", "b"]
    assert names() == [*before, "b"]
    assert result == "fast!b!"


@pytest.mark.parametrize("flow", [rewritten, arewritten])
def test_code_that_was_rewritten_takes_what_still_fits_and_disagrees_with_nothing(bench, flow):
    bench.agent()
    run = fail_at(bench, flow, "e")
    effects.clear()
    world["new code"] = "yes"
    bench.stop()
    bench.agent()
    again = run.retry()
    assert again.result(timeout=20) == ["a!", "b!", "z!"]
    assert names() == ["b", "z"] if flow is rewritten else names() == ["a", "b", "z"]
    assert all(key.endswith("/1") for _, key in effects)
    assert again.retry().result(timeout=20) == ["a!", "b!", "z!"]
    assert len(effects) == (2 if flow is rewritten else 3)


def test_branches_go_on_each_from_where_it_was(bench):
    bench.agent()
    run = fail_at(bench, branches, "y1")
    before = names()
    assert run.retry().result(timeout=20) == [f"{name}{number}!" for name in "xyz" for number in range(3)]
    again = names()[len(before) :]
    assert "y0" not in again
    assert again.count("y1") == again.count("y2") == 1
    assert len(set(keys("y1"))) == 1


def test_a_child_that_outlives_its_parent_is_not_started_twice(bench):
    bench.agent()
    run = bench.start(outlived)
    first = run.result(timeout=20)
    assert run.retry(from_step="call").result(timeout=20) == first
    eventually(lambda: names().count("c"))
    assert sorted(names()) == ["c", "end", "end"]
    assert len(bench.engine.runs(workflow=lasts)) == 1


def test_a_child_that_was_undone_runs_again(bench):
    bench.agent()
    run = fail_at(bench, undoes_a_child, "c", status="compensated")
    assert names() == ["k", "p", "c", "undo p", "undo k"]
    effects.clear()
    assert run.retry().result(timeout=20) == ["k!", "p!", "c!"]
    assert names() == ["k", "p", "c"]


def test_a_message_to_a_child_that_stands_is_not_sent_again(bench):
    bench.agent()
    run = fail_at(bench, sends_to_a_child, "c")
    assert run.retry().result(timeout=20) == 7
    assert names() == ["k", "c", "c"]


def test_the_winner_of_a_race_stands(bench):
    bench.agent()
    world["c"] = "down"
    run = bench.start(is_first)
    gate.wait_until_reached()
    eventually(lambda: "c" in names())
    gate.open()
    bench.wait_for(run, "failed")
    world.clear()
    effects.clear()
    assert run.retry().result(timeout=20) == "fast!after fast!!c!"
    assert [name for name in names() if name != "stands"] == ["c"]


def test_of_a_map_only_what_is_missing_runs(bench):
    bench.agent()
    run = fail_at(bench, maps, "d", list("abcde"))
    before = set(names()) - {"d"}
    effects.clear()
    assert run.retry().result(timeout=20) == [f"{name}!" for name in "abcde"]
    assert set(names()) == set("abcde") - (before - {"e"}) or set(names()) == set("abcde") - before


def test_why_counts_the_results_that_a_retry_began_with_and_no_bookkeeping(bench):
    bench.agent()
    run = fail_at(bench, maps_then, "c")
    again = run.retry()
    assert again.result(timeout=20) == ["a!", "b!", "c!"]
    assert chain_texts(bench.store, again.id) == [f"It is a retry of {run.id}, and began with 2 results of the runs before."]


def test_retries_of_ten_processes_at_once_are_one(bench):
    bench.agent()
    run = fail_at(bench, three, "b")
    bench.stop()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(run.retry().id)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 10


def test_a_failure_three_levels_down_is_all_that_runs_again(bench):
    bench.agent()
    run = fail_at(bench, top, "g2")
    again = run.retry()
    assert again.result(timeout=20) == ["t1!", "m1!", "g1!", "g2!", "m2!", "t2!"]
    assert names() == ["t1", "m1", "g1", "g2", "g2", "m2", "t2"]
    assert len(set(keys("g2"))) == 1
    grandchild = bench.engine.get(child, key="grandchild")
    assert grandchild.status == "completed"
    assert again.children()[0].children() == [grandchild]


def test_the_retry_of_a_child_heeds_its_unique_key(bench):
    bench.agent()
    run = fail_at(bench, has_a_unique_child, "k2")
    bench.stop()
    other = bench.start(child.options(unique_key="u"), "other")
    other.pause()  # Else it could end before the child's start has met it.
    again = run.retry()
    bench.agent()
    bench.wait_for(again, "waiting")
    other.resume()
    assert again.result(timeout=20) == other.result(timeout=20) == ["other1!", "other2!"]


def test_from_a_child_on_it_runs_again_from_its_beginning(bench):
    bench.agent()
    run = bench.start(top)
    run.result(timeout=20)
    effects.clear()
    assert run.retry(from_step="middle").result(timeout=20)[-1] == "t2!"
    # The grandchild has a key, and its run is there.
    assert names() == ["m1", "m2", "t2"]


def test_each_other_input_in_a_chain_has_a_key_of_its_own(bench):
    bench.agent()
    runs = [fail_at(bench, three, "c")]
    for number, other_name in enumerate("qrs", 1):
        world.update({"middle": other_name, "c": "down"})
        runs.append(runs[-1].retry())
        bench.wait_for(runs[-1], "failed")
        assert keys(other_name) == [f"{keys('b')[0]}/{number}"]
    world.clear()
    world["middle"] = "s"
    assert runs[0].retry().result(timeout=20) == ["a!", "s!", "c!"]
    assert len(set(keys("c"))) == 1
    assert names().count("s") == 1


def test_what_a_retry_took_and_its_own_retry_set_aside_is_not_taken_again(bench):
    bench.agent()
    run = bench.start(raises_later)
    bench.wait_for(run, "waiting")
    run.cancel()
    bench.wait_for(run, "cancelled")
    again = run.retry()
    again.signal("go")
    assert again.result(timeout=20) == "done"
    assert names() == ["b", "c", "b", "b", "c"]
    assert keys("c")[1] == f"{keys('c')[0]}/1"


@pytest.mark.parametrize("flow", [waits_for_what_overruns, await_what_overruns])
def test_a_success_that_came_after_the_timeout_stands(bench, flow):
    bench.agent()
    run = bench.start(flow)
    eventually(lambda: bench.field(run, "ending"))
    gate.open()
    bench.wait_for(run, "failed")
    assert run.retry().result(timeout=20) == "late"
    assert names() == ["o"]


def test_an_outcome_that_nobody_knows_is_tried_again_under_its_key(bench):
    bench.agent()
    run = bench.start(does_not_know)
    gate.wait_until_reached()
    bench.kill()
    bench.agent()
    bench.wait_for(run, "halted")
    run.cancel()
    bench.wait_for(run, "cancelled")
    gate.open()
    assert run.retry().result(timeout=20) == ["a!", "q"]
    assert names() == ["a", "q", "q"]
    assert len(set(keys("q"))) == 1


def test_what_a_person_found_out_stands(bench):
    bench.agent()
    run = bench.start(then_fails)
    gate.wait_until_reached()
    bench.kill()
    world["c"] = "down"
    bench.agent()
    bench.wait_for(run, "halted")
    run.resume(done="found")
    bench.wait_for(run, "failed")
    world.clear()
    gate.open()
    assert run.retry().result(timeout=20) == ["found", "c!"]
    assert names() == ["q", "c", "c"]

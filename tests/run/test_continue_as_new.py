"""`continue_as_new`, and journals that are full."""

from __future__ import annotations

import asyncio
import threading

import pytest
from run_bench import Gate, effects, eventually

import outlast
from outlast import continue_as_new, step, workflow
from outlast.definition import registry
from outlast.errors import Conflict, InvalidInput, OutsideRun, RunCancelled, RunHalted

gate = Gate()

with registry.isolated() as defined:

    @step
    def count(number: int) -> int:
        effects.append(number)
        return number

    @workflow
    def loops(number: int, until: int = 4) -> int:
        count(number)
        if number < until:
            try:
                continue_as_new(number + 1, until=until)
            except Exception:
                effects.append("caught")
        return number

    @workflow
    async def aloops(number: int, until: int = 4) -> int:
        await count.aio(number)
        if number < until:
            continue_as_new(number + 1, until=until)
        return number

    @workflow
    def swallows(number: int) -> int:
        if number < 2:
            try:
                continue_as_new(number + 1)
            except BaseException:
                effects.append("swallowed")
            count(99)
        return number

    @workflow
    def listens(heard: list[str]) -> list[str]:
        heard = [*heard, outlast.wait_signal("say", str)]
        if heard[-1] != "end":
            continue_as_new(heard)
        return heard

    @workflow
    def has_a_looping_child(kind: str) -> int:
        return loops.start(1, until=3).result() if kind == "sync" else aloops.start(1, until=3).result()

    @workflow
    async def ahas_a_looping_child(kind: str) -> int:
        return await (loops if kind == "sync" else aloops).start(1, until=3)

    @step
    def stands_at_the_gate() -> None:
        gate.pass_through()

    @workflow
    def leaves_a_step_behind(number: int) -> int:
        if number == 1:
            stands_at_the_gate.submit()
            continue_as_new(2)
        return count(number)

    @loops.compensation
    @aloops.compensation
    def unloop(result: int | None, number: int, until: int = 4) -> None:
        effects.append(("unloop", result, number))

    @workflow
    def fails_after_a_looping_child(kind: str) -> None:
        (loops if kind == "sync" else aloops).start(1, until=3).result()
        raise ValueError("parent")

    @workflow(timeout="0.2s")
    def has_little_time() -> int:
        return sleeps_and_loops.start(1).result()

    @workflow
    def sleeps_and_loops(number: int) -> int:
        outlast.sleep("0.02s")
        continue_as_new(number + 1)

    @step
    def says_late(number: int) -> None:
        gate.pass_through()
        outlast.emit("said", f"late {number}")

    @workflow
    def says(number: int) -> None:
        outlast.emit("said", number)
        if number == 1:
            says_late.submit(number)
        if number < 3:
            continue_as_new(number + 1)

    @workflow
    def gives_nonsense() -> None:
        try:
            continue_as_new(1, 2, 3)
        except InvalidInput:
            effects.append("refused")

    @step
    def asks() -> None:
        continue_as_new()

    @workflow
    def asks_in_a_step() -> None:
        asks()

    @workflow
    def never_ends(length: int) -> int:
        for number in range(length):
            try:
                count(number)
            except Exception:
                effects.append("caught")
        return length

    @workflow
    async def anever_ends(length: int) -> int:
        for number in range(length):
            await count.aio(number)
        return length


@pytest.mark.parametrize("flow", [loops, aloops])
def test_a_run_goes_on_as_new_runs_and_the_handle_gives_the_last_result(bench, flow):
    bench.agent()
    run = bench.start(flow.options(key="k", tags={"a": "b"}), 1)
    assert run.result(timeout=20) == 4
    assert run.status == "completed"
    assert effects == [1, 2, 3, 4]
    runs = bench.engine.runs(workflow=flow)
    assert len(runs) == 4
    assert {bench.status(r) for r in runs} == {"completed"}
    assert bench.engine.get(flow, key="k") == runs[0] != run
    assert len(bench.engine.runs(tags={"a": "b"})) == 4
    assert bench.start(flow.options(key="k"), 9) == runs[0]
    assert [len(bench.journal(r)) for r in runs] == [1, 1, 1, 1]


def test_swallowing_the_unwinding_does_not_keep_the_run_from_going_on(bench):
    assert bench.run(swallows, 1) == 2
    assert effects == ["swallowed"]


def test_unread_signals_go_to_the_successor(bench):
    run = bench.start(listens, [])
    for word in ("a", "b", "end"):
        run.signal("say", word)
    bench.agent()
    assert run.result(timeout=20) == ["a", "b", "end"]


def test_a_handle_signals_and_cancels_the_run_that_goes_on(bench):
    bench.agent()
    run = bench.start(listens, [])
    for heard, word in enumerate(("a", "b"), 1):
        run.signal("say", word)
        eventually(lambda heard=heard: len(bench.engine.runs(workflow=listens)) == heard + 1)
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert sorted(bench.status(r) for r in bench.engine.runs(workflow=listens)) == ["cancelled", "completed", "completed"]


@pytest.mark.parametrize("flow", [has_a_looping_child, ahas_a_looping_child])
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("park_after", [0.0, 30])
def test_a_parent_waits_for_the_last_of_its_childs_line(bench, flow, kind, park_after):
    bench.agent(park_after_seconds=park_after)
    run = bench.start(flow, kind)
    assert run.result(timeout=20) == 3
    assert bench.lines(run)[-1] == ("1", "completed", "loops" if kind == "sync" else "aloops")


def test_a_successor_begins_when_the_steps_of_its_run_have_ended(bench):
    bench.agent()
    run = bench.start(leaves_a_step_behind, 1)
    gate.wait_until_reached()
    bench.wait_for(run, "waiting")
    assert effects == []
    gate.open()
    assert run.result(timeout=20) == 2


def test_a_cancel_of_a_run_whose_successor_has_not_begun_reaches_both(bench):
    bench.agent()
    run = bench.start(leaves_a_step_behind, 1)
    gate.wait_until_reached()
    bench.wait_for(run, "waiting")
    run.cancel()
    gate.open()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects == []


def test_a_successor_has_what_the_start_had_set(bench):
    bench.agent()
    options = {"key": "k", "unique_key": "u", "partition": "p", "priority": 3, "timeout": "1h", "tags": {"a": "b"}}
    run = bench.start(listens.options(**options), [])
    first = run.to_json()
    run.signal("other", 1, key="read by nobody")
    run.signal("say", "a")
    eventually(lambda: len(bench.engine.runs(workflow=listens)) == 2)
    successor = bench.engine.get(listens, key="k")
    bench.wait_for(successor, "waiting")
    shown = successor.to_json()
    assert successor.id != run.id
    assert {name: shown[name] for name in ("key", "partition", "queue", "tags")} == {
        name: first[name] for name in ("key", "partition", "queue", "tags")
    }
    assert bench.field(successor, "priority") == 3
    assert shown["deadline_at"] > bench.engine.get(run.id).to_json()["created_at"]
    with pytest.raises(Conflict):
        bench.start(listens.options(unique_key="u", if_exists="fail"), [])
    assert bench.one("select task_id from outlast_signal where name = 'other'") == bench.task_id(successor)
    run.signal("say", "end")
    assert run.result(timeout=20) == ["a", "end"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_line_of_runs_is_undone_once_with_its_last_result(bench, kind):
    with pytest.raises(ValueError, match="parent"):
        bench.run(fails_after_a_looping_child, kind)
    assert effects == [1, 2, 3, ("unloop", 3, 1)]


def test_what_a_parent_has_left_of_its_time_holds_for_all_of_a_childs_line(bench):
    bench.agent()
    run = bench.start(has_little_time)
    eventually(lambda: (bench.sweep(), bench.status(run))[1] == "failed")
    assert {bench.status(one) for one in bench.engine.runs(workflow=sleeps_and_loops)} <= {"completed", "cancelled", "failed"}


def test_who_follows_a_stream_goes_on_with_the_runs_that_go_on(bench):
    run = bench.start(says, 1)
    followed: list[object] = []
    reader = threading.Thread(target=lambda: followed.extend(run.stream("said")))
    reader.start()
    bench.agent()
    gate.wait_until_reached()
    gate.open()
    reader.join(20)
    # What the first says to its last is there before the next begins.
    assert followed == [1, "late 1", 2, 3]

    async def follow() -> list[object]:
        return [message async for message in run.astream("said", after=1)]

    assert asyncio.run(follow()) == ["late 1", 2, 3]
    runs = bench.engine.runs(workflow=says)
    assert [list(one.stream("said")) for one in runs] == [[3], [2, 3], [1, "late 1", 2, 3]]


def test_a_stream_ends_with_a_run_that_did_not_go_on_after_all(bench):
    bench.agent()
    run = bench.start(says, 1)
    gate.wait_until_reached()
    bench.wait_for(run, "waiting")
    run.cancel()
    gate.open()
    said = list(run.stream("said"))
    assert said[0] == 1
    assert 2 not in said


def test_arguments_that_do_not_fit_are_refused_at_the_call(bench):
    assert bench.run(gives_nonsense) is None
    assert effects == ["refused"]


def test_a_step_cannot_continue_its_run(bench):
    with pytest.raises(OutsideRun):
        bench.run(asks_in_a_step)


@pytest.mark.parametrize("flow", [never_ends, anever_ends])
def test_a_journal_over_max_entries_halts_and_names_continue_as_new(bench, flow):
    bench.agent(max_entries=5)
    run = bench.start(flow, 9)
    with pytest.raises(RunHalted) as caught:
        run.result(timeout=20)
    assert "max_entries (5)" in str(caught.value)
    assert "continue_as_new()" in str(caught.value)
    assert effects == [0, 1, 2, 3, 4]
    bench.stop()
    run.resume()
    bench.agent(max_entries=100)
    assert run.result(timeout=20) == 9
    assert effects == list(range(9))


@pytest.mark.parametrize("flow", [never_ends, anever_ends])
def test_a_journal_of_just_max_entries_is_no_reason_to_halt(bench, flow):
    bench.agent(max_entries=5)
    assert bench.run(flow, 5) == 5

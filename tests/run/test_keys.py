"""Keys of runs, of signals, and unique keys, with agents at work."""

from __future__ import annotations

import pytest
from run_bench import Gate, effects, eventually

import outlast
from outlast import Retry, step, workflow
from outlast.definition import registry
from outlast.doctor import examine
from outlast.errors import Conflict, InvalidInput, RunFinished, RunNotFound

gate = Gate()
world: set[str] = set()

with registry.isolated() as defined:

    @workflow
    def listens(number: int) -> int:
        word = outlast.wait_signal("word", str)
        effects.append((number, word))
        if word == "next":
            outlast.continue_as_new(number + 1)
        return number

    @step
    def stands(name: str) -> str:
        effects.append(name)
        gate.pass_through()
        return name

    @step
    def note(name: str) -> str:
        effects.append(name)
        if name in world:
            raise ValueError(name)
        return name

    @workflow
    def works(name: str) -> str:
        return stands(name)

    @workflow
    def quick(name: str) -> str:
        return note(name)

    @workflow
    def signals_too_long() -> None:
        quick.start("one").signal("word", 1, key="k" * 501)

    @workflow
    def calls_often() -> list[str]:
        flow = quick.options(unique_key="u", debounce=0.2)
        return [part.result() for part in [flow.start("one"), flow.start("two"), flow.start("three")]]

    @workflow
    def two_notes(name: str) -> str:
        return note("begin") + note(name)

    @workflow(retry=Retry(2, initial="1ms"))
    def has_a_child(name: str) -> str:
        return two_notes(name)


def test_a_key_may_hold_anything_and_leads_to_its_run(bench):
    for key in ("a:b:c", ":", "ä ö", "o/1?x=y#z", "x" * 200, "WORKFLOW:KEY"):
        run = bench.start(quick.options(key=key), "a")
        assert bench.engine.get(quick, key=key) == run
        assert bench.engine.get("quick", key=key) == run
        assert bench.engine.get(f"quick:{key}") == run
        assert bench.start(quick.options(key=key), "b") == run
    with pytest.raises(RunNotFound):
        bench.engine.get(works, key="a:b:c")


def test_the_key_of_a_signal_is_remembered_when_it_was_taken_and_when_the_run_has_ended(bench):
    bench.agent()
    run = bench.start(listens, 1)
    for _ in range(3):
        run.signal("word", "end", key="k")
    assert run.result(timeout=20) == 1
    run.signal("word", "end", key="k")
    with pytest.raises(RunFinished):
        run.signal("word", "end", key="other")
    assert effects == [(1, "end")]


def test_the_key_of_a_signal_is_remembered_by_the_runs_that_go_on(bench):
    bench.agent()
    run = bench.start(listens.options(key="r"), 1)
    run.signal("word", "next", key="k")
    eventually(lambda: len(bench.engine.runs()) == 2)
    run.signal("word", "next", key="k")
    bench.engine.get(listens, key="r").signal("word", "next", key="k")
    run.signal("word", "end", key="l")
    assert run.result(timeout=20) == 2
    assert effects == [(1, "next"), (2, "end")]


def test_one_started_and_one_pending_run_at_a_time(bench):
    bench.agent()
    first = bench.start(works.options(unique_key="u"), "first")
    gate.wait_until_reached()
    assert bench.start(works.options(unique_key="u"), "again") == first
    with pytest.raises(Conflict):
        bench.start(works.options(unique_key="u", if_exists="fail"), "again")
    second = bench.start(works.options(unique_key="u", if_exists="replace"), "second")
    third = bench.start(works.options(unique_key="u", if_exists="replace"), "third")
    assert len({first, second, third}) == 3
    gate.open()
    assert first.result(timeout=20) == "first"
    assert third.result(timeout=20) == "third"
    assert second.status == "cancelled"
    assert effects == ["first", "third"]


def test_the_run_in_line_waits_for_the_last_of_those_that_go_on(bench):
    bench.agent()
    first = bench.start(listens.options(unique_key="u"), 1)
    bench.wait_for(first, "waiting")
    in_line = bench.start(listens.options(unique_key="u", if_exists="replace"), 10)
    first.signal("word", "next")
    eventually(lambda: (1, "next") in effects)
    eventually(lambda: first.status == "waiting")
    assert in_line.status == "pending"
    assert [finding.name for finding in examine(bench.store) if not finding.ok] == []
    first.signal("word", "end")
    assert first.result(timeout=20) == 2
    in_line.signal("word", "end")
    assert in_line.result(timeout=20) == 10


def test_the_last_of_many_calls_wins(bench):
    bench.agent()
    flow = quick.options(unique_key="u", debounce=0.2)
    runs = {bench.start(flow, name) for name in ("one", "two", "three")}
    assert len(runs) == 1
    assert runs.pop().result(timeout=20) == "three"
    assert effects == ["three"]


def test_children_are_debounced_as_well(bench):
    assert bench.run(calls_often) == ["three"] * 3
    assert effects == ["three"]


def test_a_retry_beside_an_unfinished_run_of_its_unique_key_is_refused(bench):
    bench.agent()
    world.add("bad")
    run = bench.start(quick.options(unique_key="u"), "bad")
    bench.wait_for(run, "failed")
    world.clear()
    bench.stop()
    bench.start(quick.options(unique_key="u"), "other")
    with pytest.raises(Conflict, match="unique key"):
        run.retry()
    assert len(bench.engine.runs()) == 2


def test_a_run_that_tries_again_goes_on_with_the_child_that_failed(bench):
    world.add("bad")
    bench.agent()
    run = bench.start(has_a_child, "bad")
    with pytest.raises(ValueError, match="bad"):
        run.result(timeout=20)
    world.clear()
    assert effects == ["begin", "bad", "bad"]
    children = run.children()
    assert len(children) == 2
    effects.clear()
    assert run.retry().result(timeout=20) == "beginbad"
    assert effects == ["bad"]


def test_the_key_of_a_signal_between_runs_has_the_limit_of_all_keys(bench):
    with pytest.raises(InvalidInput, match="501 characters; the limit is 500"):
        bench.run(signals_too_long)

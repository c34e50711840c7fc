"""`patched`: which way a run goes is decided once, through parks, crashes and other agents, in both colours and in branches."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from run_bench import effects, eventually

from outlast import aio, gather, patched, sleep, step, wait_signal, workflow
from outlast.definition import registry
from outlast.operations import Append
from outlast.testing import crash_everywhere

HEAD = "import asyncio\nfrom outlast import *\nfrom outlast import aio, step, workflow, wait_signal, patched, gather, sleep\n"
STEPS = "".join(f"@step\ndef {name}(): effects.append('{name}'); return '{name}'\n" for name in ("a", "b", "c", "n"))

SYNC = """@workflow
def flow():
    a()
    wait_signal("one")
    {old_or_new}
    b()
    wait_signal("two")
    return c()
"""
ASYNC = """@workflow
async def flow():
    await a.aio()
    await aio.wait_signal("one")
    {old_or_new}
    await b.aio()
    await aio.wait_signal("two")
    return await c.aio()
"""
GROUP = """@workflow
async def flow():
    async def left():
        await a.aio()
        await aio.wait_signal("one")
        {old_or_new}
        await b.aio()
    async def right():
        await aio.wait_signal("two")
        return await c.aio()
    async with asyncio.TaskGroup() as group:
        group.create_task(left())
        last = group.create_task(right())
    return last.result()
"""
GATHER = GROUP.replace(
    """    async with asyncio.TaskGroup() as group:
        group.create_task(left())
        last = group.create_task(right())
    return last.result()
""",
    "    return (await asyncio.gather(right(), left()))[0]\n",
)
SHAPES = {"sync": SYNC, "async": ASYNC, "group": GROUP, "gather": GATHER}


def code(shape: str, which: str) -> registry.Registry:
    """A workflow before the change, with the patch, or after the mark was taken out."""
    call = "n()" if shape == "sync" else "await n.aio()"
    text = {"old": "pass", "patched": f"if patched('x'): {call}", "removed": call}[which]
    with registry.isolated() as made:
        source = HEAD + STEPS + SHAPES[shape].format(old_or_new=text)
        exec(compile(source, f"<{shape} {which}>", "exec"), {"__name__": "changed", "effects": effects})
    return made


with registry.isolated() as defined:

    @step
    def one() -> str:
        return "done"

    @workflow
    async def beside() -> str:
        await one.aio()
        return await one.aio()


def flow_of(code: registry.Registry) -> Any:
    return code.workflow("flow")


def at_a_wait(bench: Any, run: Any, *names: str) -> None:
    """Whether it waits for these signals, and has given up its agent."""
    sql = (
        "select group_concat(name, ' ') from (select name from outlast_journal where task_id = ? and kind = 'signal' and event = 'started'"
    )
    sql += " and path not in (select path from outlast_journal where task_id = ?1 and event = 'completed') order by name)"
    eventually(lambda: bench.status(run) == "waiting" and bench.one(sql, bench.task_id(run)) == " ".join(names))


def parked(bench: Any, shape: str, which: str, *signals: str) -> Any:
    """A run that one code has brought to a wait."""
    made = code(shape, which)
    bench.agent(registry=made)
    run = bench.start(flow_of(made))
    both = shape in ("group", "gather")
    at_a_wait(bench, run, *(("one", "two") if both else ("one",)))
    for name in signals:
        run.signal(name)
        at_a_wait(bench, run, "two")
    bench.stop()
    return run


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_before_the_place_of_a_change_goes_by_the_new_code_and_keeps_to_it(bench, shape):
    run = parked(bench, shape, "old")
    bench.agent(registry=code(shape, "patched"))
    run.signal("one")
    at_a_wait(bench, run, "two")
    assert effects == ["a", "n", "b"]
    bench.kill()
    bench.agent(registry=code(shape, "patched"))
    run.signal("two")
    assert run.result(timeout=20) == "c"
    assert effects == ["a", "n", "b", "c"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_past_the_place_of_a_change_goes_by_the_old_code_and_keeps_to_it(bench, shape):
    run = parked(bench, shape, "old", "one")
    bench.agent(registry=code(shape, "patched"))
    bench.stop()
    bench.agent(registry=code(shape, "patched"))
    bench.kill()
    bench.agent(registry=code(shape, "patched"))
    run.signal("two")
    assert run.result(timeout=20) == "c"
    assert effects == ["a", "b", "c"]
    assert "patch" not in {entry.kind for entry in bench.journal(run)}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_marked_run_goes_on_when_the_mark_is_taken_out_of_the_code(bench, shape):
    run = parked(bench, shape, "patched", "one")
    assert "patch" in {entry.kind for entry in bench.journal(run)}
    bench.agent(registry=code(shape, "removed"))
    run.signal("two")
    assert run.result(timeout=20) == "c"
    assert effects == ["a", "n", "b", "c"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_marked_run_waits_for_the_new_code_beside_an_agent_with_the_old(bench, shape):
    run = parked(bench, shape, "patched", "one")
    bench.agent(registry=code(shape, "old"))
    new = code(shape, "patched")
    bench.agent(registry=new)
    run.signal("two")
    assert run.result(timeout=20) == "c"
    assert effects == ["a", "n", "b", "c"]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_marked_run_halts_where_only_the_old_code_lives(bench, shape):
    run = parked(bench, shape, "patched", "one")
    bench.agent(registry=code(shape, "old"))
    run.signal("two")
    bench.wait_for(run, "halted")
    assert effects == ["a", "n", "b"]
    bench.stop()
    bench.agent(registry=code(shape, "patched"))
    run.resume()
    assert run.result(timeout=20) == "c"
    assert effects == ["a", "n", "b", "c"]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_step_of_the_new_code_begins_before_the_decision_is_on_disk(bench, shape, monkeypatch):
    # A crash in between would let the next agent decide otherwise, and the old code would act beside the new.
    run = parked(bench, shape, "old")
    may_pass, held = threading.Event(), threading.Event()
    committer, commit = bench.store.committer, bench.store.commit
    submit = committer.submit

    def is_mark(operation: Any) -> bool:
        return isinstance(operation, Append) and operation.entries[0].kind == "patch"

    def hold(operation: Any, done: Any = None) -> None:
        if not is_mark(operation):
            submit(operation, done)
            return
        held.set()
        threading.Thread(target=lambda: may_pass.wait(20) and submit(operation, done)).start()

    def hold_here(operation: Any) -> Any:
        if is_mark(operation):
            held.set()
            may_pass.wait(20)
        return commit(operation)

    monkeypatch.setattr(committer, "submit", hold)
    monkeypatch.setattr(committer, "submit_led", hold)
    monkeypatch.setattr(bench.store, "commit", hold_here)
    made = code(shape, "patched")
    for definition in (one, beside):
        made.add(definition.definition)
    bench.agent(registry=made)
    run.signal("one")
    assert held.wait(20)
    # Another run of the same agent comes to its end meanwhile.
    assert bench.start(beside).result(timeout=20) == "done"
    assert effects == ["a"]
    may_pass.set()
    at_a_wait(bench, run, "two")
    assert effects == ["a", "n", "b"]


def effect(text: str) -> None:
    with open(os.environ["LEDGER"], "a") as file:
        file.write(text + "\n")


@step(name="patches_old")
def old(number: int) -> int:
    effect(f"old {number}")
    return number


@step(name="patches_new")
def new(number: int) -> int:
    effect(f"new {number}")
    return number


@workflow(name="patches_sync")
def decides() -> list[int]:
    found = [new(1) if patched("first") else old(1)]
    sleep("1h")
    found.append(new(2) if patched("second") else old(2))
    wait_signal("go")
    handles = [(new if patched("third") else old).submit(number) for number in (3, 4)]
    found.extend(gather(*handles))
    return [*found, new(5) if patched("first") else old(5)]


async def branch(number: int) -> int:
    await (new if patched("a") else old).aio(number)
    await asyncio.sleep(60 * number)
    return await (new if patched(f"b{number}") else old).aio(number + 10)


@workflow(name="patches_group")
async def decides_in_a_group() -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(number)) for number in (1, 2)]
    return [task.result() for task in tasks]


@workflow(name="patches_gather")
async def decides_in_a_gather() -> list[int]:
    found = await asyncio.gather(*[branch(number) for number in (1, 2)])
    await aio.wait_signal("go")
    return [*found, await (new if patched("a") else old).aio(20)]


@pytest.mark.parametrize("definition", [decides, decides_in_a_group, decides_in_a_gather], ids=lambda definition: definition.name)
def test_a_decision_survives_a_crash_at_every_commit(tmp_path: Path, monkeypatch, definition) -> None:
    ledger = tmp_path / "ledger"
    monkeypatch.setenv("LEDGER", str(ledger))
    report = crash_everywhere(definition, ledger=ledger, signals={"go": 1}, repeatable=["new .*"])
    assert report.crashes >= 0.7 * report.trials > 15

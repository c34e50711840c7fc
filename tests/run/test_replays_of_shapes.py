"""Recorded runs of every shape replay on the code that wrote them: no shape is taken for a difference."""

from __future__ import annotations

import pytest
from run_bench import effects
from test_replays import export

import outlast
from outlast import Retry, continue_as_new, emit, first, now, patched, publish, sleep, step, transaction, uuid4, workflow
from outlast.definition import registry
from outlast.testing import replays

with registry.isolated() as defined:

    @step(retry=Retry(3, initial="1ms"))
    def flaky(item: str) -> str:
        effects.append(item)
        if effects.count(item) < 2:
            raise ValueError("not yet")
        return item

    @step
    def bad(item: str) -> str:
        raise ValueError("bad")

    @bad.compensation
    def unbad(result: str | None, item: str) -> None: ...

    @transaction
    def book(db: outlast.sqlite3.Connection, item: str) -> int:
        return 1

    @workflow
    def kid(item: str) -> str:
        return flaky(item)

    @workflow
    def goes_on(n: int) -> int:
        flaky(str(n))
        if n < 2:
            continue_as_new(n + 1)
        return n

    @workflow
    async def agoes_on(n: int) -> int:
        await flaky.aio(str(n))
        if n < 2:
            continue_as_new(n + 1)
        return n

    @workflow
    def many(n: int) -> str:
        publish("p", 1)
        emit("s", 2)
        made, _ = uuid4(), now()
        book(str(made))
        sleep(0.001)
        child, submitted = kid.start("k"), flaky.submit("h")
        patched("in many")
        first(submitted, child)
        return child.result() + submitted.result() + str(flaky.map(["1", "2"]))

    @workflow
    def fails(n: int) -> str:
        try:
            bad("caught")
        except ValueError:
            pass
        return bad("not caught")

    @workflow
    async def afails(n: int) -> str:
        await flaky.aio("x")
        raise ValueError("in the body")


@pytest.mark.parametrize(
    ("flow", "end"),
    [(goes_on, "completed"), (agoes_on, "completed"), (many, "completed"), (fails, "compensated"), (afails, "failed")],
    ids=lambda one: getattr(one, "name", one),
)
def test_a_final_run_replays_without_a_difference(bench, tmp_path, capsys, flow, end):
    bench.agent()
    run = bench.start(flow, 0)
    bench.wait_for(run, end)
    bench.stop()
    history = export(bench, run, tmp_path, capsys)
    done = list(effects)
    assert replays(flow, history=history) == []
    assert effects == done, "a step ran"

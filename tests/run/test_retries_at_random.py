"""Trees of steps, submitted steps and children that fail at random, retried until they complete: no effect is made twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from contextlib import suppress

import pytest

import outlast
from outlast import clock, codec, current, step, workflow
from outlast import operations as op
from outlast.definition import registry
from outlast.errors import Conflict
from outlast.journal.entry import Entry

dice = random.Random()
standing: Counter[str] = Counter()
"""How often each effect is made and not undone."""
made_twice: list[tuple[str, str]] = []
keys: defaultdict[str, set[str]] = defaultdict(set)
FINAL = ("completed", "failed", "compensated", "cancelled", "halted")


def act(name: str) -> str:
    keys[name].add(current().idempotency_key)
    if dice.random() < 0.2:
        raise ValueError(name)
    standing[name] += 1
    if standing[name] > 1:
        made_twice.append((name, current().idempotency_key))
    return name


with registry.isolated() as defined:

    @step
    def plain(name: str) -> str:
        return act(name)

    @step
    async def aplain(name: str) -> str:
        await asyncio.sleep(dice.random() * 0.01)
        return act(name)

    @step
    def pay(name: str) -> str:
        return act(name)

    @pay.compensation
    def refund(result: str | None, name: str) -> None:
        if result is not None:
            standing[name] -= 1

    @workflow
    def leaf(name: str) -> list[str]:
        return [plain(f"{name}.1"), *outlast.gather(plain.submit(f"{name}.2"), plain.submit(f"{name}.3"))]

    @workflow
    async def aleaf(name: str) -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(aplain(f"{name}.{number}")) for number in range(3)]
        return [task.result() for task in tasks]

    @workflow
    def saga(name: str) -> list[str]:
        return [pay(f"{name}.1"), *outlast.gather(pay.submit(f"{name}.2"), pay.submit(f"{name}.3")), plain(f"{name}.4")]

    @workflow
    def top(name: str) -> list[object]:
        one, other = leaf.start(f"{name}/x"), aleaf.start(f"{name}/y")
        outlast.sleep(0.01)
        found = [plain(f"{name}/a"), one.result(), other.result(), saga(f"{name}/s"), pay(f"{name}/b")]
        return [*found, plain(f"{name}/c")]

    @workflow
    async def atop(name: str) -> list[object]:
        async def line(number: int) -> list[str]:
            return [await aplain(f"{name}/{number}.{place}") for place in range(3)]

        async def child() -> list[str]:
            return await leaf.start(f"{name}/x")

        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[list[str]]] = [group.create_task(line(number)) for number in range(3)]
            tasks.append(group.create_task(child()))
        return [task.result() for task in tasks]


def test_outcomes_that_came_after_the_one_which_ended_the_code_are_no_disagreement(bench):
    """They were on their way to the disk when the run left its agent; a replay ends before it comes to them."""
    run = bench.start(aleaf, "late")
    code = {"workflow:aleaf": "f"}
    agent = bench.store.commit(op.RegisterAgent("a", "elsewhere/0/0", clock.boot_id(), 1, "1", 8, None, 10**12, code))
    [held] = bench.store.commit(op.Claim(agent, 1, code))
    failed = Entry(1, "2.1", "failed", "step", "aplain", clock.wall(), try_number=1, data=codec.encode_error(ValueError("x")))
    completed = Entry(2, "1.1", "completed", "step", "aplain", clock.wall(), try_number=1, data=b'"late.0"')
    bench.store.commit(op.Append(held.fence, [failed, completed]))
    bench.store.commit(op.GiveBack(held.fence))
    dice.seed(0)
    bench.agent()
    assert bench.wait_for(run, "failed", "halted") == "failed", bench.field(run, "halt_reason")


@pytest.mark.parametrize("seed", range(3))
def test_runs_that_fail_at_random_make_each_effect_once(bench, seed):
    for known in (standing, made_twice, keys):
        known.clear()
    dice.seed(seed)
    bench.agent(park_after_seconds=0.0)
    runs = [bench.start((top, atop)[number % 2], f"r{number}") for number in range(8)]
    for _ in range(100):
        bad = [number for number, run in enumerate(runs) if bench.wait_for(run, *FINAL) != "completed"]
        if not bad:
            break
        for number in bad:
            assert bench.status(runs[number]) != "halted", (bench.field(runs[number], "halt_reason"), bench.dump(runs[number]))
            runs[number] = runs[number].retry()
            if dice.random() < 0.2:
                with suppress(Conflict):  # It may have ended by then.
                    runs[number].pause()
                    runs[number].resume()
    assert not bad
    assert made_twice == []
    assert set(standing.values()) == {1}
    plain_keys = {name: found for name, found in keys.items() if "/s." not in name and not name.endswith("/b")}
    assert all(len(found) == 1 for found in plain_keys.values()), plain_keys

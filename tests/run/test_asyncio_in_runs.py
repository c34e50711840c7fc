"""Plain asyncio in a workflow: in one order on the first execution and after a crash, and nothing that belongs in a step."""

from __future__ import annotations

import asyncio
import math
import time
from asyncio import as_completed

import pytest
from run_bench import Gate, effects, eventually

from outlast import InvalidInput, aio, first, signal_handle, sleep, step, wait_signal, workflow
from outlast.definition import registry
from outlast.run.in_order import first_number

gate = Gate()
addresses: list[list[object]] = []

with registry.isolated() as defined:

    @step
    async def work(number: int) -> int:
        effects.append(number)
        await asyncio.sleep((7 * number % 5) * 0.002)
        return number

    @step
    async def hangs() -> None:
        effects.append("hangs")
        await asyncio.sleep(600)

    @step
    def slow() -> int:
        gate.pass_through()
        return 1

    @workflow
    def child() -> str:
        return wait_signal("child", str)

    @workflow
    async def as_they_complete() -> list[int]:
        seen = [await done for done in asyncio.as_completed([work(number) for number in range(8)])]
        await aio.wait_signal("go", str)
        return seen

    @workflow
    async def in_the_order_of_the_code() -> tuple[list[int], list[int], list[int]]:
        numbers = {work(number): number for number in range(8)}
        # The standard one would begin them in the very reverse of this.
        given = list(set(numbers))[::-1]
        for done in as_completed(given):
            await done
        tasks = [asyncio.ensure_future(work(number)) for number in range(8)]
        futures = [asyncio.get_running_loop().create_future() for _ in range(8)]
        for future in futures:
            future.set_result(None)
        done, _ = await asyncio.wait([*tasks, *futures])
        return [numbers[one] for one in given], [hash(one) - hash(tasks[0]) for one in tasks], sorted(hash(one) % (1 << 20) for one in done)

    async def pair(number: int) -> tuple[int, int]:
        if number % 2:
            await asyncio.sleep(0.001 * number)
        return number, await work(number)

    @workflow
    async def pairs_as_they_complete() -> list[tuple[int, int]]:
        addresses.append([object() for _ in range(len(addresses) * 7)])
        pairs = [await done for done in as_completed([pair(number) for number in range(8)])]
        mixed = [work.submit(8), pair(9), asyncio.create_task(pair(10))]
        pairs += [one for done in as_completed(mixed) if isinstance(one := await done, tuple)]
        await aio.wait_signal("go", str)
        assert all(number == result for number, result in pairs), pairs
        return pairs

    @workflow
    async def as_completed_of_a_set() -> None:
        for done in as_completed({work.submit(1), work.submit(2)}):
            await done

    @workflow
    async def as_they_are_waited_for() -> list[list[int]]:
        numbers = {asyncio.ensure_future(work(number)): number for number in range(6)}
        todo, seen = set(numbers), []
        while todo:
            done, todo = await asyncio.wait(todo, return_when=asyncio.FIRST_COMPLETED)
            seen.append(sorted(numbers[one] for one in done))
        await aio.wait_signal("go", str)
        return seen

    @workflow
    async def through_a_queue() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(2)
        lock, semaphore, seen = asyncio.Lock(), asyncio.Semaphore(2), []

        async def make(number: int) -> None:
            async with semaphore:
                made = await work(number)
            await queue.put(made)

        async def take() -> None:
            for _ in range(6):
                taken = await queue.get()
                async with lock:
                    seen.append(taken)
                    await work(100 + taken)

        async with asyncio.TaskGroup() as group:
            group.create_task(take())
            for number in range(6):
                group.create_task(make(number))
        await aio.wait_signal("go", str)
        return seen

    @workflow
    async def by_the_clock() -> list[object]:
        loop = asyncio.get_running_loop()
        out: list[object] = []
        try:
            async with asyncio.timeout(0.02):
                await asyncio.sleep(30)
        except TimeoutError:
            out.append("timeout")
        began, future = loop.time(), loop.create_future()
        loop.call_later(0.02, lambda: future.set_result(loop.time() - began))
        out.append(await future >= 0.02)
        await aio.wait_signal("go", str)
        return out

    @workflow
    async def touches_the_world(kind: str) -> str:
        loop = asyncio.get_running_loop()
        try:
            match kind:
                case "executor":
                    await loop.run_in_executor(None, time.time)
                case "thread":
                    await asyncio.to_thread(time.time)
                case "socket":
                    await asyncio.open_connection("localhost", 9)
                case "server":
                    await asyncio.start_server(lambda _, __: None, "localhost", 0)
                case "name":
                    await loop.getaddrinfo("localhost", 9)
                case _:
                    await asyncio.create_subprocess_exec("true")
        except Exception as error:
            return str(error)
        return "it was let through"

    @workflow
    async def cancels_a_step() -> str:
        task = asyncio.ensure_future(hangs())
        await asyncio.sleep(0.01)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            effects.append("cancelled")
        return await aio.wait_signal("go", str)

    @workflow
    async def waits_without_end() -> str:
        for seconds in (math.inf, 1e300):
            async with asyncio.timeout(seconds):
                sleeper = asyncio.create_task(asyncio.sleep(seconds))
                await work(1)
                assert not sleeper.done()
                sleeper.cancel()
        try:
            await asyncio.sleep(math.nan)
        except ValueError:
            return await aio.wait_signal("go", str)
        return "not a number was slept"

    @workflow
    def first_of_three() -> list[object]:
        step_handle, child_run, signalled = slow.submit(), child.start(), signal_handle("go", int)
        won = first(step_handle, child_run, signalled)
        return [won is signalled, won.result()]

    @workflow
    async def afirst_of_three() -> list[object]:
        step_handle, child_run, signalled = slow.submit(), child.start(), signal_handle("go", int)
        won = await aio.first(step_handle, child_run, signalled)
        return [won is signalled, await won]

    @workflow
    def two_in_a_row() -> list[int]:
        taken = [first(signal_handle("go", int)).result() for _ in range(2)]
        wait_signal("end", str)
        return taken

    @workflow
    def naps() -> int:
        sleep("300ms")
        return 1


@pytest.mark.parametrize("flow", [as_they_complete, pairs_as_they_complete, as_they_are_waited_for, through_a_queue, by_the_clock])
def test_the_order_is_the_same_after_a_crash(bench, flow):
    bench.agent()
    run = bench.start(flow)
    bench.wait_for(run, "waiting")
    done, lines = list(effects), bench.lines(run)
    bench.kill()
    bench.agent()
    run.signal("go", "on")
    run.result(timeout=20)
    assert effects == done
    assert bench.lines(run)[: len(lines)] == lines


def test_nothing_goes_by_the_addresses_of_tasks_and_coroutines(bench):
    given, numbers, hashes = bench.run(in_the_order_of_the_code)
    assert effects[:8] == given
    assert numbers == list(range(8))
    assert max(hashes) < 100


def test_the_tasks_of_a_thousand_runs_differ_in_their_hash_and_are_laid_out_alike():
    firsts = [first_number(f"0rwgb13nga6zm6w{number:03}") for number in range(1_000)]
    assert len(set(firsts)) == 1_000
    assert {first % 1_024 for first in firsts} == {0}


def test_what_has_no_order_is_refused_where_tasks_are_made_of_it(bench):
    with pytest.raises(InvalidInput, match="Give it a list"):
        bench.run(as_completed_of_a_set)


@pytest.mark.parametrize("kind", ["executor", "thread", "socket", "server", "name", "subprocess"])
def test_what_touches_the_world_is_refused_and_a_step_named_as_its_place(bench, kind):
    assert "step" in bench.run(touches_the_world, kind)


def test_a_step_that_the_code_cancelled_is_not_executed_again(bench):
    bench.agent()
    run = bench.start(cancels_a_step)
    bench.wait_for(run, "waiting")
    bench.kill()
    bench.agent()
    run.signal("go", "on")
    assert run.result(timeout=20) == "on"
    assert effects.count("hangs") == 1


def test_a_delay_without_end_is_waited_for_without_end(bench):
    bench.agent()
    run = bench.start(waits_without_end)
    bench.wait_for(run, "waiting")
    run.signal("go", "on")
    assert run.result(timeout=20) == "on"
    assert bench.one("select max(seq) = count(*) from outlast_journal") == 1


@pytest.mark.parametrize("flow", [first_of_three, afirst_of_three])
def test_a_signal_wins_over_a_step_and_a_child_and_a_misfit_holds_up_nothing(bench, flow):
    bench.agent()
    run = bench.start(flow)
    bench.wait_for(run, "waiting")
    run.signal("go", "no number")
    run.signal("go", 5)
    eventually(lambda: any(name == "go" and event == "completed" for _, event, name in bench.lines(run)))
    gate.open()
    assert run.result(timeout=20) == [True, 5]


def test_signals_that_were_taken_stay_taken_after_a_crash(bench):
    bench.agent()
    run = bench.start(two_in_a_row)
    run.signal("go", 1)
    run.signal("go", 2)
    eventually(lambda: bench.lines(run).count(("4", "completed", "first")) or bench.status(run) == "waiting")
    bench.kill()
    bench.agent()
    run.signal("end", "x")
    assert run.result(timeout=20) == [1, 2]


def test_a_thousand_sleepers_pass_through_eight_slots(bench):
    runs = [bench.start(naps) for _ in range(1000)]
    bench.agent(concurrency=8)
    eventually(lambda: bench.one("select count(*) from outlast_task where status = 'completed'") == len(runs), 60)
    assert bench.one("select max(claim) from outlast_task") <= 2

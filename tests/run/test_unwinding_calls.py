"""Durable calls of code that unwinds: in a `finally` at a park or a cancel, whatever they are, they raise and leave no trace."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from run_bench import effects, eventually

from outlast import (
    RunCancelled,
    aio,
    continue_as_new,
    emit,
    gather,
    patched,
    publish,
    sleep,
    sqlite3,
    step,
    transaction,
    wait_signal,
    workflow,
)
from outlast.definition import registry
from outlast.errors import Cancelled, Parked

raised: list[str] = []
who = contextvars.ContextVar("who", default="nobody")

with registry.isolated() as defined:

    @step
    def acts(number: int) -> int:
        effects.append(number)
        return number

    @step
    async def acts_async(number: int) -> int:
        effects.append(number)
        return number

    @transaction
    def books(db: sqlite3.Connection) -> int:
        effects.append("booked")
        return 1

    @workflow
    def child() -> str:
        return wait_signal("go", str)

    def calls(handle: Any, run: Any) -> list[Callable[[], Any]]:
        return [
            lambda: acts.submit(7), lambda: child.start(), lambda: publish("key", 1), lambda: emit("stream", 1), lambda: patched("x"),
            lambda: run.signal("go", "no"), lambda: continue_as_new(), run.cancel,
        ]  # fmt: skip

    def tries(handle: Any, run: Any) -> None:
        waits = [
            lambda: acts(7), lambda: books(), lambda: child(), lambda: sleep(1), lambda: wait_signal("other", str),
            lambda: gather(handle), lambda: acts.map([7]), handle.result,
        ]  # fmt: skip
        for call in (*waits, *calls(handle, run)):
            note(call)

    async def awaits(handle: Any, run: Any) -> None:
        waits = [
            lambda: acts.aio(7), lambda: acts_async(7), lambda: books.aio(), lambda: child.aio(), lambda: aio.sleep(1),
            lambda: asyncio.sleep(1), lambda: aio.wait_signal("other", str), lambda: aio.gather(handle), lambda: aio.map(acts, [7]),
            lambda: handle,
        ]  # fmt: skip
        for call in waits:
            try:
                await call()
            except BaseException as error:
                raised.append(type(error).__name__)
            else:
                raised.append("nothing")
        for one in calls(handle, run):
            note(one)

    def note(call: Callable[[], Any]) -> None:
        try:
            call()
        except BaseException as error:
            raised.append(type(error).__name__)
        else:
            raised.append("nothing")

    @workflow
    def cleans(*, goes_on: bool = True) -> str:
        handle, run = acts.options(delay="1h").submit(1), child.start()
        try:
            return wait_signal("go", str)
        finally:
            tries(handle, run)

    @workflow
    async def cleans_async() -> str:
        handle, run = acts.options(delay="1h").submit(1), child.start()
        try:
            return await aio.wait_signal("go", str)
        finally:
            await awaits(handle, run)

    async def in_a_task(handle: Any, run: Any) -> str:
        try:
            return await aio.wait_signal("go", str)
        finally:
            await awaits(handle, run)

    @workflow
    async def cleans_in_a_task() -> str:
        handle, run = acts.options(delay="1h").submit(1), child.start()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(in_a_task(handle, run))
        return task.result()

    async def numbers(handle: Any, run: Any) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await awaits(handle, run)

    @workflow
    async def cleans_in_a_generator() -> str:
        handle, run = acts.options(delay="1h").submit(1), child.start()
        async for _ in numbers(handle, run):
            return await aio.wait_signal("go", str)
        return "never"

    @workflow
    def swallows() -> int:
        for _ in range(3):
            try:
                sleep("1h")
            except BaseException:
                pass
        return acts(1)

    @workflow
    async def swallows_async() -> int:
        for _ in range(3):
            try:
                await asyncio.sleep(3600)
            except BaseException:
                pass
        return await acts_async(1)

    @workflow
    def returns_instead() -> str:
        try:
            sleep("1h")
        except BaseException:
            return "instead"
        return "never"

    @workflow
    def raises_instead() -> None:
        try:
            sleep("1h")
        except BaseException as error:
            raise ValueError("instead") from error

    @workflow
    async def returns_instead_async() -> str:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            return "instead"
        return "never"

    @workflow
    async def raises_instead_async() -> None:
        try:
            await asyncio.sleep(3600)
        except BaseException as error:
            raise ValueError("instead") from error

    @workflow
    async def does_not_see_a_cancel() -> str:
        token = who.set("me")
        try:
            return await aio.wait_signal("go", str)
        except asyncio.CancelledError:
            raised.append("CancelledError")
            raise
        finally:
            raised.append(who.get())
            who.reset(token)

    async def one_by_one() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await acts_async(99)

    @workflow
    async def leaves_a_generator() -> int:
        async for number in one_by_one():
            await acts_async(number)
            break
        await aio.wait_signal("go", str)
        return await acts_async(3)

    @workflow
    async def waits_in_a_generator() -> str:
        async for number in one_by_one():
            await acts_async(number)
            await aio.wait_signal("go", str)
        return "done"


ASYNC = [cleans_async, cleans_in_a_task, cleans_in_a_generator]


@pytest.fixture(autouse=True)
def nothing_raised() -> None:
    raised.clear()


@pytest.mark.parametrize("definition", [cleans, *ASYNC], ids=lambda definition: definition.name)
def test_every_durable_call_of_a_finally_raises_at_a_park_and_leaves_no_trace(bench, definition):
    bench.agent()
    run = bench.start(definition)
    bench.wait_for(run, "waiting")
    # An async run lies down first and unwinds then.
    eventually(lambda: len(raised) >= 15)
    assert set(raised) == {Parked.__name__}, raised
    assert effects == []
    assert [part["status"] for part in bench.parts(run)][:1] == ["pending"]
    assert len(bench.parts(run)) == 2
    assert {entry.kind for entry in bench.journal(run)} == {"task", "child", "signal"}


@pytest.mark.parametrize("definition", [cleans, *ASYNC], ids=lambda definition: definition.name)
def test_every_durable_call_of_a_finally_raises_at_a_cancel_and_leaves_no_trace(bench, definition):
    bench.agent(park_after_seconds=30.0)
    run = bench.start(definition)
    bench.wait_for(run, "running")
    eventually(lambda: len(bench.journal(run)) >= 3)
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert set(raised) == {Cancelled.__name__}, raised
    assert effects == []
    assert len(bench.parts(run)) == 2


@pytest.mark.parametrize("definition", [swallows, swallows_async], ids=lambda definition: definition.name)
def test_what_code_swallows_while_it_unwinds_changes_nothing(bench, definition):
    bench.agent()
    run = bench.start(definition)
    bench.wait_for(run, "waiting")
    bench.stop()
    assert effects == []
    assert [entry.kind for entry in bench.journal(run)] == ["timer"]


INSTEAD = [returns_instead, raises_instead, returns_instead_async, raises_instead_async]


@pytest.mark.parametrize("definition", INSTEAD, ids=lambda definition: definition.name)
def test_what_code_returns_or_raises_while_it_unwinds_is_no_outcome(bench, definition):
    bench.agent()
    run = bench.start(definition)
    bench.wait_for(run, "waiting")
    bench.stop()
    assert [entry.kind for entry in bench.journal(run)] == ["timer"]
    bench.agent(park_after_seconds=30.0)
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)


def test_a_coroutine_that_parks_is_closed_and_not_cancelled_and_in_its_own_context(bench):
    bench.agent()
    run = bench.start(does_not_see_a_cancel)
    bench.wait_for(run, "waiting")
    eventually(lambda: raised == ["me"])
    run.signal("go", "gone")
    assert run.result(timeout=20) == "gone"


def test_the_end_of_a_generator_that_was_left_is_part_of_the_run(bench):
    bench.agent()
    run = bench.start(leaves_a_generator)
    bench.wait_for(run, "waiting")
    assert effects == [1, 99]
    run.signal("go", "gone")
    assert run.result(timeout=20) == 3
    assert effects == [1, 99, 3]


def test_a_generator_that_is_open_at_a_park_ends_once_its_run_goes_on(bench):
    bench.agent()
    run = bench.start(waits_in_a_generator)
    for number in (1, 2):
        bench.wait_for(run, "waiting")
        assert 99 not in effects
        run.signal("go", str(number))
        eventually(lambda number=number: len(bench.journal(run)) >= number * 3)
    assert run.result(timeout=20) == "done"
    assert effects == [1, 2, 99]

"""Calls inside a run: colours, values and errors, what a run may know, and replay of all of it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from run_bench import Gate, effects, eventually

import outlast
from outlast import current, now, rng, sleep, sqlite3, step, uuid4, wait_signal, workflow
from outlast.definition import registry
from outlast.errors import NotStorable, OutsideRun, PayloadTooLarge, RemoteError, WrongColour

gate = Gate()
is_early = threading.Event()


class Colour(Enum):
    RED = "red"


@dataclasses.dataclass
class Order:
    id: str
    amount: Decimal


class CardRefused(Exception):
    def __init__(self, card: str, *, code: int) -> None:
        super().__init__(f"{card} was refused")
        self.card = card
        self.code = code


with registry.isolated() as defined:

    @step
    def double(value: int) -> int:
        effects.append(("double", value))
        return value * 2

    @step
    async def adouble(value: int) -> int:
        await asyncio.sleep(0)
        effects.append(("adouble", value))
        return value * 2

    @step
    def same(value: object) -> object:
        return value

    @step
    def refuse(card: str) -> None:
        effects.append("refuse")
        raise CardRefused(card, code=7)

    @step
    def outer(value: int) -> int:
        return double(value) + 1

    @step
    def locks_the_file(path: str) -> None:
        """Nobody can commit, until the next step has begun or a while is over in which it could have."""
        lock = sqlite3.connect(path, check_same_thread=False)
        lock.execute("begin immediate")

        def let_go() -> None:
            is_early.wait(0.2)
            effects.append("let go")
            lock.rollback()
            lock.close()

        threading.Thread(target=let_go).start()

    @step
    def comes_after() -> None:
        effects.append("began")
        is_early.set()

    @workflow
    def one_after_another(path: str) -> None:
        locks_the_file(path)
        comes_after()

    @workflow
    def adds(value: int) -> int:
        return double(value) + double(1)

    @workflow
    async def aadds(value: int) -> int:
        return await adouble(value) + await double.aio(1)

    @workflow
    def parks_between(value: int) -> list[object]:
        first = double(value)
        ids = [str(uuid4()), str(uuid4())]
        numbers = [rng().random(), rng().random()]
        at = now()
        wait_signal("go")
        return [first, ids, numbers, at, double(first)]

    @workflow
    async def aparks_between(value: int) -> list[object]:
        first = await adouble(value)
        ids = [str(uuid4()), str(uuid4())]
        numbers = [rng().random(), rng().random()]
        at = now()
        await outlast.aio.wait_signal("go")
        return [first, ids, numbers, at, await double.aio(first)]

    @workflow
    def values() -> list[object]:
        given = [
            (1, 2), {3}, frozenset({4}), b"\x00\xff", datetime(2026, 1, 1, tzinfo=UTC), timedelta(seconds=3),
            Decimal("1.10"), Colour.RED, 10**40, {1: "a", (2, 3): "b"}, Order("o-1", Decimal("2")), "nul\x00nul", None,
        ]  # fmt: skip
        got = [same(value) for value in given]
        wait_signal("go")
        again = [same(value) for value in given]
        return [got == given, again == given, [type(g) is type(v) for g, v in zip(got, given, strict=True)]]

    @workflow
    def catches() -> list[object]:
        seen: list[object] = []
        for _ in range(2):
            try:
                refuse("4711")
            except CardRefused as error:
                seen.append([error.card, error.code, str(error), error.args])
            try:
                wait_signal("go", timeout="0.1s")
            except outlast.errors.SignalTimeout as error:
                seen.append(error.name)
        return seen

    @workflow
    def fails() -> None:
        refuse("42")

    @workflow
    def calls_outer() -> int:
        return outer(4)

    @workflow
    def returns_nonsense() -> object:
        return threading.Lock()

    @step
    def gives_nonsense() -> object:
        effects.append("nonsense")
        return {"deep": [object()]}

    @workflow
    def step_gives_nonsense() -> str:
        try:
            gives_nonsense()
        except NotStorable as error:
            return error.place
        return "stored"

    @step(retry=outlast.Retry(5, initial="1ms"))
    def gives_too_much() -> str:
        effects.append("too much")
        return "x" * 2000

    @workflow
    def step_gives_too_much() -> str:
        try:
            gives_too_much()
        except PayloadTooLarge as error:
            return str(error)
        return "stored"

    @step
    def tells_too_much() -> list[str]:
        logging.getLogger("app").warning("x" * 2000)
        told = []
        for tell in (outlast.publish, outlast.emit):
            try:
                tell("progress", "x" * 2000)
            except PayloadTooLarge as error:
                told.append(str(error)[:60])
        return told

    @workflow
    def step_tells_too_much() -> list[str]:
        return tells_too_much()

    @workflow
    def passes_nonsense(kind: str) -> str:
        try:
            same(same.submit(1) if kind == "handle" else object())
        except NotStorable as error:
            return str(error)
        return "stored"

    @workflow
    def sync_calls_async() -> object:
        return adouble(1)

    @workflow
    async def async_calls_sync() -> object:
        return double(1)

    @workflow
    async def async_sleeps_sync() -> None:
        sleep(1)

    @workflow
    def sync_uses_aio() -> object:
        return double.aio(1)

    @workflow
    async def async_blocks_on_a_handle() -> object:
        return double.submit(1).result()

    @step
    def sleeps_in_step() -> None:
        sleep(1)

    @step
    def submits_in_step() -> None:
        double.submit(1)

    @step
    def calls_workflow() -> object:
        return adds(1)

    @workflow
    def asks_in_step(name: str) -> None:
        {"sleep": sleeps_in_step, "submit": submits_in_step, "call": calls_workflow}[name]()

    @step
    def facts() -> dict[str, object]:
        known = current()
        assert known.step is not None
        return {
            "run_id": known.run_id,
            "workflow": known.workflow,
            "tags": known.tags,
            "parent_id": known.parent_id,
            "key": known.idempotency_key,
            "step": [known.step.name, known.step.path, known.step.try_number],
        }

    @workflow
    def tells() -> list[object]:
        known = current()
        mine = [known.run_id, known.workflow, known.tags, known.parent_id, known.idempotency_key, known.step]
        return [mine, facts(), facts.submit().result()]

    @workflow
    def calls_from_a_thread() -> str:
        found: list[BaseException] = []

        def call() -> None:
            try:
                double(1)
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        return type(found[0]).__name__ if found else "no error"

    @step
    def waits_at_the_gate() -> str:
        gate.pass_through()
        return str(uuid4())

    @workflow
    def ids_before_a_commit() -> str:
        id = uuid4()
        number = rng().random()
        effects.append([str(id), number, now()])
        double(1) if len(effects) > 100 else None
        waits_at_the_gate()
        return str(id)

    @workflow
    async def aids_before_a_commit() -> str:
        id = uuid4()
        number = rng().random()
        effects.append([str(id), number, now()])
        await waits_at_the_gate.aio()
        return str(id)

    @step
    async def never_ends() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            effects.append("left")

    @workflow
    async def limits_a_step(how: str) -> list[str]:
        seen = []
        try:
            if how == "wait_for":
                await asyncio.wait_for(never_ends(), 0.02)
            elif how == "timeout":
                async with asyncio.timeout(0.02):
                    await never_ends()
            else:
                async with asyncio.TaskGroup() as group:
                    group.create_task(never_ends())
                    await outlast.aio.wait_signal("never", timeout="20ms")
        except* (TimeoutError, outlast.SignalTimeout) as errors:
            seen = [type(error).__name__ for error in errors.exceptions]
        await outlast.aio.wait_signal("go")
        return seen

    @workflow
    def calls_later(how: str) -> int:
        return double.options(**LATER[how]())(2)

    @workflow
    async def acalls_later(how: str) -> int:
        return await adouble.options(**LATER[how]())(2)

    @workflow
    async def exits(error: str) -> None:
        async def branch() -> None:
            raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[error]

        await asyncio.create_task(branch())

    @workflow
    def many(count: int) -> int:
        return sum(double(index) for index in range(count))

    @workflow
    async def amany(count: int) -> int:
        total = 0
        for index in range(count):
            total += await adouble(index)
        return total

    @step
    def heavy_progress() -> None:
        outlast.current().heartbeat({"done": 3})
        outlast.publish("from step", [1])

    @workflow
    def publishes() -> str:
        outlast.publish("progress", 1)
        heavy_progress()
        wait_signal("go")
        outlast.publish("progress", 2)
        return "ok"


@pytest.mark.parametrize("flow", [adds, aadds])
def test_a_step_called_in_a_run_gives_its_value_and_is_journalled_once(bench, flow):
    run = bench.start(flow, 5)
    bench.agent()
    assert run.result(timeout=20) == 12
    assert [event for _, event, _ in bench.lines(run)] == ["completed", "completed"]
    assert bench.status(run) == "completed"


@pytest.mark.parametrize("flow", [parks_between, aparks_between])
def test_a_replay_executes_no_step_again_and_sees_the_same_ids_numbers_and_instants(bench, flow):
    seen = []
    for _ in range(2):
        bench.agent()
        run = bench.start(flow, 3)
        bench.wait_for(run, "waiting")
        if not seen:
            seen.append(1)
            bench.stop()
            bench.agent()
        run.signal("go")
        first, ids, numbers, at, last = run.result(timeout=20)
        assert (first, last) == (6, 12)
        assert len(set(ids)) == 2
        assert numbers[0] != numbers[1]
        assert abs((at - datetime.now(UTC)).total_seconds()) < 60
        seen.append(ids)
    assert seen[1] != seen[2]
    assert len([e for e in effects if e[0] in ("adouble", "double")]) == 4


def test_what_comes_after_a_replay_is_what_went_before_it(bench):
    bench.agent()
    run = bench.start(values)
    bench.wait_for(run, "waiting")
    run.signal("go")
    got, again, types = run.result(timeout=20)
    assert got
    assert again
    assert all(types)


def test_an_error_matches_its_class_on_replay_as_on_the_first_run(bench):
    one, name, two, _ = bench.run(catches)
    assert one == two == ["4711", 7, "4711 was refused", ("4711 was refused",)]
    assert name == "go"
    assert effects == ["refuse", "refuse"]


def test_a_run_fails_with_its_own_error(bench):
    with pytest.raises(CardRefused) as caught:
        bench.run(fails)
    assert caught.value.code == 7


@pytest.mark.parametrize("how", ["wait_for", "timeout", "signal"])
def test_a_timeout_ends_beside_a_step_that_goes_on_and_cancels_it(bench, how):
    bench.agent()
    run = bench.start(limits_a_step, how)
    eventually(lambda: effects == ["left"])
    bench.wait_for(run, "waiting")
    run.signal("go")
    assert run.result(timeout=20) == ["SignalTimeout" if how == "signal" else "TimeoutError"]
    assert effects == ["left"]
    [left] = run.steps()
    assert (left["status"], left["error"]) == ("cancelled", None)
    assert left["started_at"] < left["finished_at"]


LATER: dict[str, Any] = {
    "delay": lambda: {"delay": "1h"},
    "at": lambda: {"at": datetime(2500, 1, 1, tzinfo=UTC)},
    "partition": lambda: {"partition": "tenant-1", "delay": "1h"},
}


@pytest.mark.parametrize("how", list(LATER))
@pytest.mark.parametrize("flow", [calls_later, acalls_later])
def test_a_step_called_with_a_time_ahead_is_a_task_that_waits_for_it(bench, flow, how):
    bench.agent()
    run = bench.start(flow, how)
    bench.wait_for(run, "waiting")
    [part] = bench.parts(run)
    assert part["status"] == "pending"
    assert effects == []


@pytest.mark.parametrize("error", ["SystemExit", "KeyboardInterrupt"])
def test_an_async_workflow_that_exits_fails_and_takes_no_other_run_with_it(bench, error):
    with pytest.raises(RemoteError, match=error):
        bench.run(exits, error)
    assert bench.run(aadds, 1) == 4


def test_a_step_called_inside_a_step_is_a_plain_call(bench):
    bench.agent()
    run = bench.start(calls_outer)
    assert run.result(timeout=20) == 9
    assert [name for _, _, name in bench.lines(run)] == ["outer"]


def test_a_result_that_cannot_be_stored_fails_the_run_and_names_the_part(bench):
    with pytest.raises(NotStorable) as caught:
        bench.run(returns_nonsense)
    assert "the result" in str(caught.value)


def test_a_step_result_that_cannot_be_stored_fails_the_step_and_names_the_part(bench):
    assert bench.run(step_gives_nonsense) == 'the result of gives_nonsense["deep"][0]'


def test_a_step_result_over_the_limit_is_never_retried(bench):
    bench.agent(max_payload=1000)
    assert "2,002 bytes" in bench.run(step_gives_too_much)
    assert ["2,002 bytes" in line for line in bench.run(step_tells_too_much)] == [True, True]
    assert effects == ["too much"]


def test_arguments_that_cannot_be_stored_fail_the_call(bench):
    assert "the arguments of same" in bench.run(passes_nonsense, "object")
    assert "it is a handle (<task same at 1>). Is its `.result()`, or an `await`, missing?" in bench.run(passes_nonsense, "handle")


@pytest.mark.parametrize(
    ("flow", "error", "sentence"),
    [
        (sync_calls_async, WrongColour, "adouble.submit(...).result()"),
        (async_calls_sync, WrongColour, "await double.aio(...)"),
        (async_sleeps_sync, WrongColour, "await outlast.aio.sleep(...)"),
        (sync_uses_aio, WrongColour, "Write `double(...)`"),
        (async_blocks_on_a_handle, WrongColour, "Write `await handle`"),
    ],
)
def test_the_wrong_colour_raises_and_names_the_fix(bench, flow, error, sentence):
    with pytest.raises(error) as caught:
        bench.run(flow)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("sleep", "time.sleep"), ("submit", "double(...)"), ("call", "adds.start(...)")],
)
def test_a_durable_wait_in_a_step_is_refused_and_names_what_to_write(bench, name, sentence):
    with pytest.raises(OutsideRun) as caught:
        bench.run(asks_in_step, name)
    assert sentence in str(caught.value)


def test_current_tells_the_run_and_the_step_of_an_inline_step_and_of_a_submitted_one(bench):
    bench.agent()
    run = bench.start(tells.options(tags={"tenant": "7"}))
    mine, inline, submitted = run.result(timeout=20)
    assert mine == [run.id, "tells", {"tenant": "7"}, None, run.id, None]
    common = {"run_id": run.id, "workflow": "tells", "tags": {"tenant": "7"}, "parent_id": None}
    assert inline == {**common, "key": f"{run.id}/1", "step": ["facts", "1", 1]}
    assert submitted == {**common, "key": f"{run.id}/2", "step": ["facts", "2", 1]}


def test_a_step_called_from_a_thread_of_the_workflow_raises(bench):
    # An embedded agent warns, since other threads of the application may call steps plainly; here warnings are errors.
    assert bench.run(calls_from_a_thread) in ("OutsideRun", "RuntimeWarning", "no error")


@pytest.mark.parametrize("flow", [ids_before_a_commit, aids_before_a_commit])
def test_ids_and_random_numbers_are_the_same_after_a_crash_before_any_commit(bench, flow):
    bench.agent()
    run = bench.start(flow)
    gate.wait_until_reached()
    assert bench.journal(run) == []
    bench.kill()
    bench.agent()
    eventually(lambda: len(effects) == 2)
    gate.open()
    assert run.result(timeout=20) == effects[0][0]
    assert effects[0][:2] == effects[1][:2]
    assert effects[0][2] == effects[1][2]


@pytest.mark.parametrize("flow", [many, amany])
def test_a_run_of_several_thousand_steps_completes(bench, flow):
    run = bench.start(flow, 3000)
    bench.agent()
    assert run.result(timeout=60) == 2999 * 3000
    assert len(bench.journal(run)) == 3000


def test_published_state_can_be_queried_and_a_replay_does_not_publish_again(bench):
    bench.agent()
    run = bench.start(publishes)
    bench.wait_for(run, "waiting")
    assert run.query("progress") == 1
    assert run.query("from step") == [1]
    assert run.query("progress:2") == {"done": 3}
    run.signal("go")
    assert run.result(timeout=20) == "ok"
    assert run.query("progress") == 2
    assert [line for line in bench.lines(run) if line[2] == "progress"] == [
        ("1", "completed", "progress"),
        ("4", "completed", "progress"),
    ]


def test_an_error_whose_class_is_gone_is_a_remote_error(bench):
    global CardRefused
    kept = CardRefused
    bench.agent()
    run = bench.start(fails)
    bench.wait_for(run, "failed")
    try:
        del globals()["CardRefused"]
        with pytest.raises(RemoteError) as caught:
            run.result(timeout=5)
    finally:
        globals()["CardRefused"] = kept
    assert "42 was refused" in str(caught.value)


def test_a_step_begins_when_the_outcome_before_it_is_on_disk(bench):
    is_early.clear()
    bench.run(one_after_another, bench.store.path)
    assert effects == ["let go", "began"]

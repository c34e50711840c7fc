"""What users write around an engine: every line of it passes mypy and pyright, both strict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_type

import outlast
from outlast import (
    At,
    Cron,
    Engine,
    Every,
    Handle,
    Retry,
    Run,
    RunCancelled,
    RunHalted,
    Schedule,
    aio,
    current,
    first,
    gather,
    register_payload_codec,
    register_type,
    signal_handle,
    step,
    transaction,
    workflow,
)
from outlast.testing import DrivenEngine


@dataclass
class Order:
    id: str
    amount: int = 1


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


SAMPLE = Order("o-1")


class Turned:
    name = "turned"

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


register_payload_codec(Turned(), writes=False)
register_type(Money, lambda money: money.cents, lambda cents: Money(cents))


@step(retry=Retry(3, on=(OSError, ValueError), unless=KeyError), timeout=timedelta(seconds=3), on_unknown="halt")
def charge(order: Order, *, tries: int = 1) -> str:
    known = current()
    assert_type(known.run_id, str)
    assert_type(known.tick, datetime | None)
    assert known.step is not None
    assert_type(known.step.try_number, int)
    known.heartbeat({"done": 1})
    child = fulfil.start(order)
    assert_type(child, Run[float])
    return child.id


@step
async def fetch(page: int) -> bytes:
    return bytes(page)


@transaction
def book(db: outlast.sqlite3.Connection, order: Order) -> int:
    with db:
        db.execute("insert into booking values (?)", (order.id,))
    return 1


@workflow(
    schedule=[Cron("0 2 * * *", timezone="Europe/Berlin"), Every("10m"), At(datetime(2027, 1, 1, tzinfo=UTC))],
    retry=Retry(2),
    retention="30d",
    max_crashes=3,
)
def fulfil(order: Order = SAMPLE) -> float:
    several = gather(charge.submit(order), book.submit(order), fetch.submit(1), fulfil.start(order))
    assert_type(several, tuple[str, int, bytes, float])
    assert_type(first(charge.submit(order), signal_handle("stop", int)), Handle[str] | Handle[int])
    assert_type(charge.options(priority=1, partition="a", delay="1s")(order, tries=2), str)
    assert_type(charge.options(queue="q").submit(order), Handle[str])
    assert_type(book.options(retry=2)(order), int)
    assert_type(book.map([order]), list[int])
    assert_type(charge.map([order], concurrency=2), list[str])
    handle: Handle[float] = fulfil.options(timeout="1h").start(order)
    return handle.result()


@workflow(schedule=Schedule("0 2 * * *", catch_up="all", overlap="queue_one"))
async def nightly() -> int:
    assert_type(await fetch.options(timeout="1s")(1), bytes)
    both = await asyncio.gather(fetch(1), charge.aio(Order("o")))
    assert_type(both, tuple[bytes, str])
    assert_type(await aio.gather(fetch.submit(1), fetch.submit(2), return_exceptions=True), list[bytes | BaseException])
    assert_type(await aio.wait_signal("x"), object)
    assert_type(await fulfil.options(key="k").aio(Order("o")), float)
    return 1


@workflow
async def answer(page: int) -> Literal["yes", "no"]:
    return "yes"


def sync_program() -> None:
    with Engine("app.db", lease="10s", max_payload="2MiB") as engine, engine.agent(concurrency=4, queues=["default"]):
        run = engine.start(fulfil, Order("o-1"))
        assert_type(run.result(timeout=timedelta(minutes=1)), float)
        assert_type(engine.start(nightly).result(), int)
        assert_type(engine.start(answer, 1).result(), Literal["yes", "no"])
        texts: list[Handle[str]] = [engine.start(answer, 1)]
        assert texts
        assert_type(engine.start(fulfil.options(key="o-1", tags={"a": "b"}), Order("o-1")).result(), float)
        assert_type(engine.get(fulfil, key="o-1").result(), float)
        assert_type(engine.get("0abc").result(), Any)
        assert_type(engine.start("fulfil", {"id": "o-1"}).result(), Any)
        assert_type([one.status for one in engine.runs(status=["failed", "halted"], workflow=fulfil, since="1h")], list[str])
        assert_type(run.stream("log"), Iterator[object])
        assert_type(run.query("progress"), object)
        run.signal("approval", {"by": "eve"}, key="mail-1")
        run.cancel(undo=False)
        run.pause(children=True)
        run.resume(not_done=True)
        run.resume(done="ch-1")
        assert_type(run.retry(from_step="charge").result(), float)
        assert_type([child.id for child in run.children()], list[str])
        engine.schedule("hourly", fulfil, Every("1h"), input={"order": {"id": "o-1"}})
        engine.unschedule("hourly")
        connection = outlast.sqlite3.connect(engine.path)
        with connection:
            assert_type(engine.start(fulfil.options(connection=connection), Order("o-1")).id, str)
        try:
            engine.start(fulfil).result()
        except RunHalted as error:
            assert_type(error.reason, str)
        except RunCancelled as error:
            assert_type(error.run_id, str)


def test_program(outlast_engine: DrivenEngine) -> None:
    assert_type(outlast_engine.run(fulfil, Order("o-1")), float)
    assert_type(outlast_engine.run(answer.options(key="k"), 1), Literal["yes", "no"])


async def async_program(run: Run[float]) -> None:
    engine = Engine()
    async with engine.agent():
        assert_type(await engine.start(fulfil), float)
        assert_type(await run, float)
        assert_type(run.astream("tokens"), AsyncIterator[object])
        async for message in run.astream("tokens", after=3):
            print(message)
    engine.close()


assert_type(book.fn(outlast.sqlite3.connect(":memory:"), Order("o-1")), int)

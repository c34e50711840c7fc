"""What users write: every line of it passes mypy and pyright, both strict."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import NoReturn, assert_type
from uuid import UUID

import outlast
from outlast import (
    NOT_DONE,
    Handle,
    Queue,
    Retry,
    Run,
    aio,
    first,
    gather,
    sleep,
    step,
    transaction,
    workflow,
)
from outlast.definition import NotDone

Queue("orders", concurrency=10, rate="100/1m", per_partition=2, hold="unfinished")


@dataclass
class Approval:
    by: str


@step(
    retry=Retry(5, initial="1s", factor=2, maximum="1m", jitter=0.1, on=(OSError,)),
    timeout="30s",
    isolate=True,
)
def charge(order_id: str, amount: int) -> str:
    return f"{order_id}:{amount}"


@charge.compensation
def refund(payment_id: str | None, order_id: str, amount: int) -> None: ...


@charge.probe
def charged(order_id: str, amount: int) -> str | NotDone:
    return NOT_DONE


assert_type(refund(None, "o-1", amount=1), None)


@step
def pack(item: str, weight: float = 1.0) -> int:
    return len(item)


@pack.compensation(retry=3, timeout="1m")
async def unpack(result: int | None, item: str, weight: float = 1.0) -> None: ...


@step(queue="orders")
async def fetch(url: str) -> bytes:
    return url.encode()


@fetch.probe
async def fetched(url: str) -> bytes | NotDone:
    return NOT_DONE


@fetch.compensation
def forget(result: bytes | None, url: str) -> None: ...


@transaction
def book(db: outlast.sqlite3.Connection, order_id: str) -> int:
    return int(db.execute("select 1").fetchone()[0]) + len(order_id)


@book.compensation
def unbook(db: outlast.sqlite3.Connection, seat: int | None, order_id: str) -> None: ...


@transaction(timeout="1s", retry=3)
def mark(db: outlast.sqlite3.Connection) -> None: ...


@workflow
def invoice(order_id: str) -> float:
    return 1.0


@workflow(queue="orders", timeout="7d", version="2", on_error="halt")
def fulfil(order_id: str, items: list[str]) -> dict[str, str]:
    assert_type(charge(order_id, 100), str)
    assert_type(charge(order_id, amount=100), str)
    assert_type(book(order_id), int)
    mark()
    sleep("1d")
    assert_type(outlast.wait_signal("approval", Approval, timeout="2d"), Approval)
    assert_type(outlast.wait_signal("approval"), object)
    assert_type(gather(*[pack.submit(item) for item in items]), list[int])
    assert_type(gather(charge.submit("o", 1), pack.submit("x")), tuple[str, int])
    assert_type(gather(pack.submit("x"), pack.submit("y"), return_exceptions=True), list[int | BaseException])
    assert_type(first(pack.submit("x"), pack.submit("y")), Handle[int])
    winner = first(outlast.signal_handle("stop", Approval), pack.submit("x"))
    assert_type(winner, Handle[Approval] | Handle[int])
    several: list[Handle[object]] = [pack.submit("x"), charge.submit("o", 1)]
    assert_type(gather(*several), list[object])
    mixed = gather(pack.submit("x"), charge.submit("o", 1), mark.submit(), fetch.submit("u"), invoice.start("o"))
    assert_type(mixed, tuple[int, str, None, bytes, float])
    either: list[object] = gather(pack.submit("x"), charge.submit("o", 1), return_exceptions=True)
    assert_type(first(*several, pack.submit(str(either))), Handle[object])
    assert_type(pack.map(items, concurrency=4), list[int])
    assert_type(pack.map(items, return_exceptions=True), list[int | BaseException])
    assert_type(fetch.submit("u").result(), bytes)
    child = invoice.options(priority=3, tags={"a": "b"}).start(order_id)
    assert_type(child, Run[float])
    assert_type(child.result(timeout="1h"), float)
    assert_type(invoice(order_id), float)
    assert_type(charge.options(retry=3, timeout="5s")(order_id, 1), str)
    assert_type(charge.fn(order_id, 1), str)
    outlast.publish("progress", 80)
    outlast.emit("log", {"line": 1})
    assert_type(outlast.now(), datetime)
    assert_type(outlast.uuid4(), UUID)
    assert_type(outlast.rng(), Random)
    assert_type(outlast.patched("change"), bool)
    assert_type(outlast.current().idempotency_key, str)
    return {}


@fulfil.compensation
def unfulfil(result: dict[str, str] | None, order_id: str, items: list[str]) -> None: ...


@workflow
async def nightly(folder: str = "/data") -> int:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(fetch(folder))
        other = group.create_task(pack.aio(folder))
    assert_type(task.result(), bytes)
    assert_type(other.result(), int)
    assert_type(await fetch(folder), bytes)
    assert_type(await charge.aio(folder, 1), str)
    assert_type(await book.aio(folder), int)
    assert_type(await fetch.submit(folder), bytes)
    assert_type(await fetch.map([folder]), list[bytes])
    assert_type(await aio.map(pack, [folder]), list[int])
    assert_type(await aio.map(pack, [folder], return_exceptions=True), list[int | BaseException])
    assert_type(await aio.wait_signal("approval", Approval), Approval)
    assert_type(await aio.gather(pack.submit("x"), charge.submit("o", 1)), tuple[int, str])
    assert_type(await aio.first(pack.submit("x"), pack.submit("y")), Handle[int])
    assert_type(await (await aio.first(pack.submit("x"), charge.submit("o", 1))), int | str)
    assert_type(await invoice.aio(folder), float)
    assert_type(await invoice.start(folder), float)
    await aio.sleep("1h")
    return 1


@workflow
def endless(cursor: int = 0) -> NoReturn:
    outlast.continue_as_new(cursor + 1)


assert_type(nightly.start(), Run[int])
assert_type(nightly.options(key="k").start("/data"), Run[int])

"""What users must not write: each marked line is refused by mypy and by pyright, and no other line is."""

from __future__ import annotations

import outlast
from outlast import aio, step, transaction, workflow


@step
def charge(order_id: str, amount: int) -> str:
    return order_id


@step
def pack(item: str) -> int:
    return len(item)


@step
async def fetch(url: str) -> bytes:
    return url.encode()


@transaction
def book(db: outlast.sqlite3.Connection, order_id: str) -> int:
    return len(order_id)


@workflow
def child(order_id: str) -> float:
    return 1.0


@workflow
async def nightly(folder: str) -> int:
    return 1


# A compensation that does not fit.
@charge.compensation  # refused
def refund_without_result(order_id: str, amount: int) -> None: ...


@charge.compensation  # refused
def refund_that_wants_a_result(payment: str, order_id: str, amount: int) -> None: ...


@charge.compensation(retry=3)  # refused
def refund_of_something_else(payment: int | None, order_id: str, amount: int) -> None: ...


@book.compensation  # refused
def unbook_without_db(seat: int | None, order_id: str) -> None: ...


@child.compensation  # refused
def unchild(result: float | None) -> None: ...


@charge.probe  # refused
def charged(order_id: str, amount: int) -> int:
    return amount


@transaction  # refused
def no_connection(order_id: str) -> int:
    return 1


@step(timeouts="5s")  # refused
def misspelt() -> None: ...


@step(on_unknown="ask")  # refused
def asked() -> None: ...


@workflow
def sync() -> None:
    charge("o-1")  # refused
    charge("o-1", "100")  # refused
    charge(order="o-1", amount=1)  # refused
    number: int = charge("o-1", 1)  # refused
    submitted: int = charge.submit("o-1", 1).result()  # refused
    fetched: bytes = fetch("u")  # refused
    booked = book(1)  # refused
    started: str = child.start("o-1").result()  # refused
    child.start()  # refused
    pack.map([1, 2])  # refused
    mapped: list[str] = pack.map(["a"])  # refused
    charge.map(["a"])  # refused
    charge.options(prioritie=3)("o-1", 1)  # refused
    charge.options(priority="high")("o-1", 1)  # refused
    approval: str = outlast.wait_signal("approval", int)  # refused
    outlast.gather(pack.submit("a"), 7)  # refused
    outlast.sleep(None)  # refused
    child.submit("o-1")  # refused
    print(number, submitted, fetched, booked, started, mapped, approval)


@workflow
async def asynchronous() -> None:
    await charge("o-1", 1)  # refused
    number: int = await charge.aio("o-1", 1)  # refused
    fetched: str = await fetch("u")  # refused
    await fetch(1)  # refused
    await pack.map(["a"])  # refused
    await aio.map(pack, [1])  # refused
    await nightly()  # refused
    fetch.aio("u")  # refused
    print(number, fetched)

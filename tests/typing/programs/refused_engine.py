"""What users must not write around an engine: each marked line is refused by mypy and by pyright, and no other line is."""

from __future__ import annotations

import outlast
from outlast import (
    Engine,
    Handle,
    Queue,
    Retry,
    Run,
    aio,
    first,
    gather,
    register_payload_codec,
    register_type,
    signal_handle,
    step,
    transaction,
    workflow,
)


@step
def charge(order_id: str) -> int:
    return len(order_id)


@step
async def fetch(page: int) -> bytes:
    return bytes(page)


@transaction
def book(db: outlast.sqlite3.Connection, order_id: str) -> int:
    return len(order_id)


@workflow
def fulfil(order_id: str) -> float:
    return 1.0


@workflow
async def nightly() -> int:
    return 1


# A compensation and a probe that do not fit.
@fetch.compensation  # refused
async def unfetch(result: str | None, page: int) -> None: ...


@fetch.probe  # refused
async def fetched(page: int) -> str:
    return ""


@fulfil.compensation  # refused
def unfulfil(result: float, order_id: str) -> None: ...


@book.probe  # refused
def booked(order_id: str) -> int:
    return 1


@workflow(on_error="stop")  # refused
def stops() -> None: ...


@workflow(timeout=[1])  # refused
def times() -> None: ...


@transaction(isolate=True)  # refused
def isolated(db: outlast.sqlite3.Connection) -> None: ...


@step(schedule="* * * * *")  # refused
def scheduled() -> None: ...


def program(engine: Engine, run: Run[float], handle: Handle[int]) -> None:
    engine.start(fulfil)  # refused
    engine.start(fulfil, 1)  # refused
    engine.start(fulfil, order="o-1")  # refused
    engine.start(charge, "o-1")  # refused
    engine.start(fulfil.fn, "o-1")  # refused
    text: str = engine.start(fulfil, "o-1").result()  # refused
    engine.start(fulfil.options(connection="app.db"), "o-1")  # refused
    engine.start(fulfil.options(if_exists="wait"), "o-1")  # refused
    engine.start(fulfil.options(tags={"a": 1}), "o-1")  # refused
    engine.start(fulfil.options(at="tomorrow"), "o-1")  # refused
    engine.get(fulfil)  # refused
    engine.runs(tag={"a": "b"})  # refused
    engine.agent(slots=3)  # refused
    engine.signal(run, 3)  # refused
    run.result(deadline=3)  # refused
    status: int = run.status  # refused
    run.stream("log", after="3")  # refused
    number: str = handle.result()  # refused
    handle.status  # refused # noqa: B018
    print(text, status, number)


@workflow
def sync(handle: Handle[int]) -> None:
    both: tuple[int, int] = gather(charge.submit("a"), fulfil.start("b"))  # refused
    winner: Handle[str] = first(charge.submit("a"), charge.submit("b"))  # refused
    stop: Handle[str] = signal_handle("stop", int)  # refused
    first(charge("a"), charge("b"))  # refused
    charge.map("a", concurrency="2")  # refused
    book.submit(None, "a")  # refused
    fulfil.aio()  # refused
    outlast.publish(3, 1)  # refused
    outlast.emit("s")  # refused
    outlast.patched(1)  # refused
    Retry("3")  # refused
    Retry(3, "1s")  # refused
    Retry(3, on="OSError")  # refused
    Queue("q", hold="for ever")  # refused
    register_type(int, lambda value: value, lambda value: "")  # refused
    register_payload_codec(object())  # refused
    print(both, winner, stop)


@workflow
async def asynchronous() -> None:
    text: str = await nightly()  # refused
    number: int = await fulfil.start("a")  # refused
    both: tuple[int, int] = await aio.gather(charge.submit("a"), fetch.submit(1))  # refused
    await aio.sleep()  # refused
    await aio.map(fetch, [1])  # refused
    await gather(charge.submit("a"))  # refused
    print(text, number, both)

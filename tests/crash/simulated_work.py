"""What the simulation's runs do: workflows of all shapes, and the ledger of what their steps did outside.

Owns the workflows (`simulated_shapes` says what is to come of each) and the outside. An effect is a line of the ledger, and waits at the
gate of its agent before it happens, so that a process can die or freeze between what the file says of a step and the step itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import outlast
from outlast import (
    NOT_DONE,
    Every,
    Queue,
    Retry,
    SignalTimeout,
    aio,
    continue_as_new,
    current,
    first,
    gather,
    now,
    signal_handle,
    sleep,
    step,
    transaction,
    uuid4,
    wait_signal,
    workflow,
)
from outlast.definition import registry

_RETRY = Retry(4, initial="2s", maximum="5s", jitter=0)


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing done outside: whose, which, and under which idempotency key."""

    name: str
    tag: str
    n: int
    key: str
    run_id: str


@dataclass(slots=True)
class World:
    """The outside of one simulation."""

    ledger: list[Effect] = field(default_factory=list)
    mended: set[str] = field(default_factory=set)
    """Tags of the runs whose trouble a person has removed."""
    before_effect: Callable[[str], None] = print

    def has(self, name: str) -> bool:
        return any(one.name == name for one in self.ledger)


world = World()
"""Replaced by each simulation."""


def effect(word: str, tag: str, n: int) -> int:
    name = f"{word} {tag}.{n}"
    world.before_effect(name)
    this = current()
    assert this.idempotency_key is not None
    assert this.step is not None
    world.ledger.append(Effect(name, tag, n, this.idempotency_key, this.run_id))
    return this.step.try_number


with registry.isolated() as DEFINED:
    Queue("narrow", concurrency=1)

    @step(retry=_RETRY)
    def act(tag: str, n: int) -> int:
        if effect("act", tag, n) == 1 and n == 1:
            raise ConnectionError("once")
        return n

    @act.compensation(retry=_RETRY)
    def undo_act(result: int | None, tag: str, n: int) -> None:
        if effect("undo", tag, n) == 1 and n == 1:
            raise ConnectionError("once")

    @step
    def note(tag: str, n: int) -> int:
        effect("note", tag, n)
        return n

    @step(queue="narrow")
    def pack(item: str) -> int:
        tag, _, n = item.partition(".")
        effect("pack", tag, int(n))
        return int(n)

    @step
    async def hear(tag: str, n: int) -> int:
        effect("hear", tag, n)
        return n

    @step(timeout="2s", retry=_RETRY)
    async def dawdle(tag: str, n: int) -> int:
        if effect("dawdle", tag, n) == 1:
            await asyncio.sleep(60)
        return n

    @step
    def fragile(tag: str, n: int) -> int:
        effect("fragile", tag, n)
        if tag not in world.mended:
            raise RuntimeError("broken")
        return n

    @step
    def stumble(tag: str, n: int) -> int:
        effect("stumble", tag, n)
        if sum(one.name == f"stumble {tag}.{n}" for one in world.ledger) < 2:
            raise ConnectionError("once")
        return n

    @step
    def hopeless(tag: str, n: int) -> int:
        effect("hopeless", tag, n)
        raise RuntimeError("no")

    @step(on_unknown="undo")
    def charge(tag: str, n: int) -> int:
        effect("charge", tag, n)
        return n

    @charge.compensation
    def refund(result: int | None, tag: str, n: int) -> None:
        effect("refund", tag, n)

    @step(on_unknown="halt")
    def pay(tag: str, n: int) -> int:
        effect("pay", tag, n)
        return n

    @step(retry=_RETRY)
    def probed(tag: str, n: int) -> int:
        effect("probed", tag, n)
        return n

    @probed.probe
    def find_out(tag: str, n: int) -> Any:
        return n if world.has(f"probed {tag}.{n}") else NOT_DONE

    @transaction
    def book(db: outlast.sqlite3.Connection, tag: str) -> int:
        db.execute("insert into booking values (?, 1)", (tag,))
        return 1

    @book.compensation
    def unbook(db: outlast.sqlite3.Connection, result: int | None, tag: str) -> None:
        if result is not None:  # Else it was begun, and took no effect.
            db.execute("insert into booking values (?, -1)", (tag,))

    @workflow
    def plain(tag: str) -> int:
        done = note(tag, 0) + act(tag, 1)
        book(tag)
        sleep("3s")
        return done + note(tag, 2)

    @workflow
    def saga(tag: str) -> None:
        for n in range(3):
            act(tag, n)
        book(tag)
        note(tag, 3)
        raise RuntimeError("no")

    @workflow
    def wide(tag: str) -> int:
        total = sum(gather(*[act.submit(tag, n) for n in range(3)]))
        book(tag)
        return total + sum(pack.map([f"{tag}.{n}" for n in (5, 6)], concurrency=1))

    @workflow
    def wide_saga(tag: str) -> None:
        first_part = act.submit(tag, 0)
        act(tag, 1)
        gather(first_part, act.submit(tag, 2))
        raise RuntimeError("no")

    @workflow
    def child(tag: str) -> int:
        act(tag, 0)
        book(tag)
        return 1

    @child.compensation
    def undo_child(result: int | None, tag: str) -> None:
        effect("undo_child", tag, 9)

    @workflow
    def books_in_line(tag: str) -> int:
        return sum(gather(*[book.submit(f"{tag}{n}") for n in "ab"], note.submit(tag, 0)))

    @workflow
    def books_and_fails(tag: str) -> None:
        gather(book.submit(f"{tag}a"), act.submit(tag, 0))
        book(f"{tag}b")
        raise RuntimeError("no")

    @workflow
    def parent(tag: str) -> int:
        one = child.start(f"{tag}c")
        note(tag, 0)
        return one.result()

    @workflow
    def parent_saga(tag: str) -> None:
        act(tag, 0)
        child(f"{tag}c")
        act(tag, 1)
        raise RuntimeError("no")

    @workflow
    def asks(tag: str) -> int:
        act(tag, 0)
        done = wait_signal("go", int)
        note(tag, done)
        return done

    @workflow
    def may_ask(tag: str) -> int:
        try:
            wait_signal("go", int, timeout="8s")
        except SignalTimeout:
            pass
        race = first(signal_handle("go", int), note.submit(tag, 1))
        book(tag)
        return int(race.result())

    @workflow
    async def branches(tag: str) -> int:
        async def one(n: int) -> int:
            await act.aio(tag, n)
            await asyncio.sleep(1 + n)
            return await hear(tag, n)

        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(one(n)) for n in range(3)]
        await book.aio(tag)
        return sum(part.result() for part in parts)

    @workflow
    async def branches_saga(tag: str) -> None:
        await asyncio.gather(*[act.aio(tag, n) for n in range(3)])
        await hear(tag, 3)
        raise RuntimeError("no")

    @workflow
    def on(tag: str, left: int = 2) -> int:
        note(tag, left)
        if left:
            sleep("1s")
            continue_as_new(tag, left - 1)
        return left

    @workflow(retry=Retry(3, initial="2s", jitter=0))
    def again(tag: str) -> str:
        ident = uuid4()
        act(tag, 0)
        stumble(tag, 1)
        book(tag)
        return f"{ident} {now()}"

    @workflow
    async def hurries(tag: str) -> str:
        try:
            async with asyncio.timeout(5):
                await aio.wait_signal("never")
        except TimeoutError:
            await note.aio(tag, 0)
        go = signal_handle("go", int)
        return str(await aio.first(go, note.submit(tag, 1)))

    @workflow
    async def one_fails(tag: str) -> None:
        await asyncio.gather(act.aio(tag, 0), act.submit(tag, 2), hopeless.aio(tag, 3))

    @workflow
    def catches(tag: str) -> int:
        found = gather(act.submit(tag, 0), stumble.submit(tag, 1), return_exceptions=True)
        book(tag)
        return sum(isinstance(one, int) for one in found)

    @workflow(on_error="halt")
    def halts(tag: str) -> int:
        act(tag, 0)
        return stumble(tag, 1)

    @workflow
    def in_doubt(tag: str) -> int:
        act(tag, 0)
        return charge(tag, 4)

    @workflow
    def waits_long(tag: str) -> None:
        act(tag, 0)
        wait_signal("never")

    @workflow
    def leaves_a_child(tag: str) -> None:
        waits_long.start(f"{tag}c")
        act.submit(tag, 0)
        act(tag, 1)
        raise RuntimeError("no")

    @workflow(timeout="25s")
    def late(tag: str) -> None:
        act(tag, 0)
        sleep("10d")

    @workflow
    def brittle(tag: str) -> int:
        note(tag, 0)
        return fragile(tag, 1)

    @workflow
    def brittle_saga(tag: str) -> int:
        act(tag, 0)
        return fragile(tag, 1)

    @workflow
    def unsure(tag: str) -> int:
        return pay(tag, 0) + probed(tag, 1)

    @workflow
    async def overruns(tag: str) -> int:
        return await dawdle(tag, 0)

    @workflow(schedule=Every("20s"))
    def tick() -> None:
        sleep("1s")

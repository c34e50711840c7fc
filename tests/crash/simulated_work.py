"""What the simulation's runs do: workflows of all shapes, and the ledger of what their steps did outside.

Owns the shapes, and of each how it ends when nobody interferes, which effects it has then, and how often each is tried. An effect
is a line of the ledger, and waits at the gate of its agent before it happens, so that a process can die or freeze between what the
file says of a step and the step itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import outlast
from outlast import Retry, current, registry, sleep, step, transaction, workflow

_RETRY = Retry(4, initial="2s", maximum="5s", jitter=0)


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing done outside: `act` or `undo`, whose, which, and under which idempotency key."""

    word: str
    tag: str
    n: int
    key: str


@dataclass(slots=True)
class World:
    """The outside of one simulation."""

    ledger: list[Effect] = field(default_factory=list)
    before_effect: Callable[[str], None] = print


world = World()
"""Replaced by each simulation."""


def effect(word: str, tag: str, n: int) -> None:
    world.before_effect(f"{word} {tag}.{n}")
    key = current().idempotency_key
    assert key is not None
    world.ledger.append(Effect(word, tag, n, key))


with registry.isolated() as DEFINED:

    @step(retry=_RETRY)
    def act(tag: str, n: int) -> int:
        effect("act", tag, n)
        this = current().step
        assert this is not None
        if n == 1 and this.try_number < 2:
            raise ConnectionError("once")
        return n

    @act.compensation
    def undo_act(result: int | None, tag: str, n: int) -> None:
        effect("undo", tag, n)

    @step
    def note(tag: str, n: int) -> int:
        effect("note", tag, n)
        return n

    @transaction
    def book(db: outlast.sqlite3.Connection, tag: str) -> int:
        db.execute("insert into booking values (?)", (tag,))
        return 1

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
        note(tag, 3)
        raise RuntimeError("no")


@dataclass(frozen=True, slots=True)
class Shape:
    """A workflow, the status it ends with, and how often each effect is there without a fault."""

    workflow: object
    ends: str
    effects: dict[str, int]
    books: tuple[str, ...] = ()


SHAPES = {
    "plain": Shape(plain, "completed", {"note {}.0": 1, "act {}.1": 2, "note {}.2": 1}, ("{}",)),
    "saga": Shape(
        saga,
        "compensated",
        {"act {}.0": 1, "act {}.1": 2, "act {}.2": 1, "note {}.3": 1, "undo {}.2": 1, "undo {}.1": 1, "undo {}.0": 1},
    ),
}

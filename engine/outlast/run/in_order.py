"""asyncio in the order of the code, where it goes by the addresses of objects.

Owns the tasks and futures of a workflow's loop, whose place in a set is the same in each process, since `asyncio.wait` gives sets; and
what the loop is to know of `asyncio.as_completed`, which makes a set of what it is given before it asks the loop for tasks of that: their
branches would be numbered otherwise on replay, and get each other's outcomes. There is no seam for that but the frame that asks.
Refuses there what has no order of its own, and to change anything of asyncio, which code may have imported from before.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Iterator, Set
from types import FrameType
from typing import Any
from zlib import crc32

from ..errors import InvalidInput

_ASYNCIO = vars(asyncio.tasks)
# A generator up to Python 3.12; from then on the first lines of a class.
_CODES = {
    made.__code__
    for made in (asyncio.as_completed, getattr(_ASYNCIO.get("_AsCompletedIterator"), "__init__", None))
    if inspect.isfunction(made)
}


_MOST_IN_A_RUN_BITS = 20


def first_number(chain: str) -> int:
    """Where the numbers of a run begin.

    Below, they are those of one run alone, by which a set is laid out. Above, they tell the runs of a process apart: asyncio keeps all
    tasks in one set, where those of one hash would be compared with each other.
    """
    return crc32(chain.encode()) << _MOST_IN_A_RUN_BITS


class Numbered:
    """Hashed by its number."""

    _number: int

    def __hash__(self) -> int:
        return self._number


class NumberedTask(Numbered, asyncio.Task[Any]):
    """A branch of a run."""

    def __init__(self, coroutine: Any, number: int, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)


class NumberedFuture(Numbered, asyncio.Future[Any]):
    """What a branch of a run waits for."""

    def __init__(self, number: int, *, loop: asyncio.AbstractEventLoop) -> None:
        self._number = number
        super().__init__(loop=loop)


def given_to_as_completed() -> list[Any]:
    """What the `as_completed` was given that asks the loop's `create_task`, two frames up, for a task; nothing where another asks."""
    frame: FrameType | None = sys._getframe(3)
    while frame is not None and frame.f_globals is _ASYNCIO:
        if frame.f_code in _CODES:
            return _in_order(frame.f_locals.get("fs", frame.f_locals.get("aws")))
        frame = frame.f_back
    return []


def awaited_by(coroutine: Any) -> Any:
    """What asyncio has wrapped, since it can be awaited and is no coroutine; or the coroutine itself."""
    if getattr(coroutine, "__name__", "") != "_wrap_awaitable":
        return coroutine
    frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
    return coroutine if frame is None else frame.f_locals["awaitable"]


def _in_order(given: Any) -> list[Any]:
    if isinstance(given, (Iterator, Set)):
        raise InvalidInput(
            f"as_completed() was given a {type(given).__name__}: which task is which would differ on replay.",
            hint="Give it a list.",
        )
    return list(dict.fromkeys(given))

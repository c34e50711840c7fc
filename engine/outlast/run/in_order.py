"""asyncio in the order of the code, where it goes by the addresses of objects.

Owns the tasks and futures of a workflow's loop, whose place in a set is the same in each process, since `asyncio.wait` gives sets; and
`asyncio.as_completed`, which would begin its coroutines in the order of a set: their branches would be numbered otherwise on replay,
and get each other's outcomes. There is no seam for that, so asyncio's own name leads here. Refuses to change anything on another loop.
"""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import Any

_standard: Any = asyncio.as_completed


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


def _as_completed(awaitables: Any, **options: Any) -> Any:
    loop: Any = asyncio.events._get_running_loop()
    if getattr(loop, "is_of_a_run", False) and not (asyncio.isfuture(awaitables) or asyncio.iscoroutine(awaitables)):
        awaitables = [asyncio.ensure_future(one, loop=loop) for one in dict.fromkeys(awaitables)]
    return _standard(awaitables, **options)


_in_order: Any = wraps(_standard)(_as_completed)
asyncio.as_completed = asyncio.tasks.as_completed = _in_order

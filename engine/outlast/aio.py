"""The awaitable twins of what waits, for async workflows: `sleep`, `wait_signal`, `gather`, `first`, `map`.

Owns their types alone; where each may be called is `durable`'s. Plain asyncio works in an async workflow too:
`asyncio.sleep` and `asyncio.timeout` are durable there.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

from .definition import Definition, dispatch
from .durable import async_caller, checked_handles, timeout_seconds
from .errors import InvalidInput
from .text.duration import seconds
from .text.names import checked_text

if TYPE_CHECKING:
    from .handles import Duration, Handle

T = TypeVar("T")
U = TypeVar("U")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")
Item = TypeVar("Item", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Mapped(Protocol[Item, Result]):
    """A `def` step or transaction that can be called with one argument."""

    def submit(self, item: Item, /) -> Handle[Any]: ...

    def aio(self, item: Item, /) -> Coroutine[Any, Any, Result]: ...


async def sleep(duration: Duration) -> None:
    """`outlast.sleep` for async workflows; `asyncio.sleep` does the same with seconds."""
    length = seconds(duration, place="The duration of sleep()")
    await async_caller("sleep").sleep(length)


@overload
async def wait_signal(name: str, *, timeout: Duration | None = None) -> object: ...
@overload
async def wait_signal(name: str, type: type[T], *, timeout: Duration | None = None) -> T: ...
@overload
async def wait_signal(name: str, type: object, *, timeout: Duration | None = None) -> object: ...
async def wait_signal(name: str, type: object = object, *, timeout: Duration | None = None) -> object:
    """Wait for the oldest unread signal `name` whose payload fits `type`, and take it.

    Each signal is taken once, and is kept through restarts until it is. A payload that does not fit stays unread and
    does not hold up later ones. Raises `SignalTimeout` after `timeout`; a signal that is already there wins over it.
    """
    checked_text(name, place="The name of a signal")
    length = timeout_seconds(timeout, place="timeout of wait_signal()")
    value: object = await async_caller("wait_signal").wait_signal(name, type, length)
    return value


@overload
async def gather(a: Handle[T1], b: Handle[T2], /) -> tuple[T1, T2]: ...
@overload
async def gather(a: Handle[T1], b: Handle[T2], c: Handle[T3], /) -> tuple[T1, T2, T3]: ...
@overload
async def gather(a: Handle[T1], b: Handle[T2], c: Handle[T3], d: Handle[T4], /) -> tuple[T1, T2, T3, T4]: ...
@overload
async def gather(a: Handle[T1], b: Handle[T2], c: Handle[T3], d: Handle[T4], e: Handle[T5], /) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def gather(*handles: Handle[T], return_exceptions: Literal[False] = False) -> list[T]: ...
@overload
async def gather(*handles: Handle[T], return_exceptions: bool) -> list[T | BaseException]: ...
async def gather(*handles: Handle[Any], return_exceptions: bool = False) -> Any:
    """Wait for all handles and give their results in order.

    The first error cancels the rest and is raised; with `return_exceptions` errors stand among the results
    instead.
    """
    checked_handles(handles, "gather")
    return await async_caller("gather").gather(handles, return_exceptions=return_exceptions)


@overload
async def first(a: Handle[T1], b: Handle[T2], /) -> Handle[T1] | Handle[T2]: ...
@overload
async def first(a: Handle[T1], b: Handle[T2], c: Handle[T3], /) -> Handle[T1] | Handle[T2] | Handle[T3]: ...
@overload
async def first(*handles: Handle[T]) -> Handle[T]: ...
async def first(*handles: Handle[Any]) -> Any:
    """Wait for the first handle that is done, and return it: `await winner` is its value. The winner is journalled; the others continue."""
    checked_handles(handles, "first", least=1)
    return await async_caller("first").first(handles)


@overload
async def map(  # noqa: A001
    step: Mapped[T, U],
    items: Iterable[T],
    *,
    concurrency: int | None = None,
    return_exceptions: Literal[False] = False,
) -> list[U]: ...
@overload
async def map(  # noqa: A001
    step: Mapped[T, U], items: Iterable[T], *, concurrency: int | None = None, return_exceptions: bool
) -> list[U | BaseException]: ...
async def map(  # noqa: A001
    step: Mapped[Any, Any],
    items: Iterable[Any],
    *,
    concurrency: int | None = None,
    return_exceptions: bool = False,
) -> Any:
    """Submit a `def` step once for each item, wait for all, and give the results in the items' order.

    Each item is the one argument. At most `concurrency` are open at a time. The first error cancels the rest
    and is raised; with `return_exceptions` errors stand among the results instead. An `async def` step has
    `.map` itself.
    """
    if not isinstance(step, Definition) or step.kind == "workflow":
        raise InvalidInput(f"map() takes a step, not {step!r}.")
    return await dispatch.map_items(step, items, concurrency=concurrency, return_exceptions=return_exceptions, awaitable=True)

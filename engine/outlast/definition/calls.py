"""The typed ways to call a definition, by colour, and to say how it is undone.

Owns the signatures that type checkers see: `SyncCalls` for a `def`, `AsyncCalls` for an `async def`,
`Submits` for what can be a task beside its run, `Undoable` for what takes a compensation. Refuses to decide
what a call does: that is `dispatch`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from ..handles import Handle
from . import dispatch
from .definition import Definition

if TYPE_CHECKING:
    from ..handles import Duration
    from .retry import Retry

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")
U = TypeVar("U")


class SyncCalls(Definition, Generic[P, R]):
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it: durably in a sync workflow. Raises `WrongColour` in an async one."""
        value: R = dispatch.call(self, args, kwargs)
        return value

    # An `async def` to type checkers alone: written as a Coroutine[Any, Any, R], two of them in one
    # asyncio.gather() would be Any to mypy. What is wrong raises at the call, not where it is awaited.
    if TYPE_CHECKING:

        async def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    else:

        def aio(self, /, *args, **kwargs):
            """Call it from an async workflow: `await fn.aio(...)`. Raises `WrongColour` in a sync one."""
            return dispatch.call_awaitable(self, args, kwargs)


class AsyncCalls(Definition, Generic[P, R]):
    if TYPE_CHECKING:

        async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    else:

        def __call__(self, /, *args, **kwargs):
            """Call it: durably in an async workflow. Raises `WrongColour` in a sync one."""
            return dispatch.call(self, args, kwargs)

        def aio(self, *_, **__):
            """Refuse with `WrongColour`: it is awaitable itself."""
            dispatch.refuse_twin(self)


class Submits(Definition, Generic[P, R]):
    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Let any agent execute it, beside this run, and give a handle of it at once.

        Raises `OutsideRun` outside a workflow.
        """
        return dispatch.submit(self, args, kwargs)


class SyncMaps(SyncCalls[P, R]):
    @overload
    def map(
        self: Callable[[T], U],  # pyright: ignore[reportGeneralTypeIssues]
        items: Iterable[T],
        *,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> list[U]: ...
    @overload
    def map(
        self: Callable[[T], U],  # pyright: ignore[reportGeneralTypeIssues]
        items: Iterable[T],
        *,
        concurrency: int | None = None,
        return_exceptions: bool,
    ) -> list[U | BaseException]: ...
    def map(
        self: Any,
        items: Iterable[Any],
        *,
        concurrency: int | None = None,
        return_exceptions: bool = False,
    ) -> Any:
        """Submit it once for each item, wait for all, and give the results in the items' order.

        Each item is the one argument. At most `concurrency` are open at a time. The first error cancels the
        rest and is raised; with `return_exceptions` errors stand among the results instead.
        """
        return dispatch.map_items(self, items, concurrency=concurrency, return_exceptions=return_exceptions, awaitable=False)


class AsyncMaps(AsyncCalls[P, R]):
    @overload
    def map(
        self: Callable[[T], Coroutine[Any, Any, U]],  # pyright: ignore[reportGeneralTypeIssues]
        items: Iterable[T],
        *,
        concurrency: int | None = None,
        return_exceptions: Literal[False] = False,
    ) -> Coroutine[Any, Any, list[U]]: ...
    @overload
    def map(
        self: Callable[[T], Coroutine[Any, Any, U]],  # pyright: ignore[reportGeneralTypeIssues]
        items: Iterable[T],
        *,
        concurrency: int | None = None,
        return_exceptions: bool,
    ) -> Coroutine[Any, Any, list[U | BaseException]]: ...
    def map(
        self: Any,
        items: Iterable[Any],
        *,
        concurrency: int | None = None,
        return_exceptions: bool = False,
    ) -> Any:
        """Submit it once for each item; awaited, it gives the results in the items' order.

        Each item is the one argument. At most `concurrency` are open at a time. The first error cancels the
        rest and is raised; with `return_exceptions` errors stand among the results instead.
        """
        return dispatch.map_items(self, items, concurrency=concurrency, return_exceptions=return_exceptions, awaitable=True)


class Undoable(Definition, Generic[P, R]):
    @overload
    def compensation(self, fn: Callable[Concatenate[R | None, P], T], /) -> Callable[Concatenate[R | None, P], T]: ...
    @overload
    def compensation(
        self, /, *, retry: Retry | int | None = None, timeout: Duration | None = None
    ) -> Callable[[Callable[Concatenate[R | None, P], T]], Callable[Concatenate[R | None, P], T]]: ...
    def compensation(self, fn: Any = None, /, *, retry: Retry | int | None = None, timeout: Duration | None = None) -> Any:
        """Say which function undoes this one.

        It takes the result, `None` when there is none, then the arguments. It runs at least once when the run
        is undone, and its success is committed once. Returns the function unchanged. Raises
        `InvalidDefinition` if it does not fit.
        """
        return self._compensate(fn, leading=("result",), retry=retry, timeout=timeout)

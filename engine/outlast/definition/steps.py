"""`@step`: a function whose outcome is kept in the journal.

Owns the decorator, its types for `def` and `async def`, and the probe, which finds out what a try of unknown
outcome did. Refuses what every decorator here refuses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, overload

from . import registry
from .calls import AsyncMaps, P, R, Submits, SyncMaps, Undoable
from .undo import NotDone, probe_of

if TYPE_CHECKING:
    from ..handles import Duration
    from .definition import OnUnknown
    from .retry import Retry


class Step(Submits[P, R], Undoable[P, R]):
    """A step of either colour."""

    kind = "step"

    @overload
    def probe(self, fn: Callable[P, Coroutine[Any, Any, R | NotDone]], /) -> Callable[P, Coroutine[Any, Any, R | NotDone]]: ...
    @overload
    def probe(self, fn: Callable[P, R | NotDone], /) -> Callable[P, R | NotDone]: ...
    def probe(self, fn: Any, /) -> Any:
        """Say which function finds out what a try did of which nobody knows whether it took effect.

        It takes the step's arguments and returns the step's result, or `NOT_DONE`; it runs under the step's
        own retry and timeout. Returns the function unchanged. Raises `InvalidDefinition` if it does not fit.
        """
        self.definition.probed_by = probe_of(fn, self.fn, kept=self.definition.probed_by)
        return fn


class SyncStep(SyncMaps[P, R], Step[P, R]):
    """A `def` step."""

    fn: Callable[P, R]


class AsyncStep(AsyncMaps[P, R], Step[P, R]):
    """An `async def` step."""

    fn: Callable[P, Coroutine[Any, Any, R]]


class _Decorator(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncStep[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncStep[P, R]: ...


@overload
def step(fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncStep[P, R]: ...  # type: ignore[overload-overlap]
@overload
def step(fn: Callable[P, R], /) -> SyncStep[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    queue: str | None = None,
    isolate: bool = False,
    on_unknown: OnUnknown = "retry",
) -> _Decorator: ...
def step(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
    queue: str | None = None,
    isolate: bool = False,
    on_unknown: OnUnknown = "retry",
) -> Any:
    """Make a step of a module-level function: it runs at least once, its outcome is committed once.

    In a run a call of it is journalled: once its result, or its last error, is in the journal, it is not executed
    again. If the process dies in it, it runs again, with the same idempotency key. Outside a run, and in another
    step, it is the plain function.

    A bare step is tried once; `retry` is a `Retry` or a number of tries, the first included. `timeout` covers one
    try ("30s", seconds, a timedelta). A step with a `queue` is always a task: calling it is submitting it and
    waiting. `isolate` runs it in a child process group that a timeout or a cancel kills at once. `on_unknown` says
    what follows when nobody knows whether a try took effect. Raises `InvalidDefinition` or `InvalidInput`.
    """

    def define(fn: Any) -> SyncStep[..., Any] | AsyncStep[..., Any]:
        colour: type[SyncStep[..., Any] | AsyncStep[..., Any]] = AsyncStep if inspect.iscoroutinefunction(fn) else SyncStep
        return registry.add(
            colour(
                fn,
                name=name,
                retry=retry,
                timeout=timeout,
                queue=queue,
                isolate=isolate,
                on_unknown=on_unknown,
            )
        )

    return define if fn is None else define(fn)

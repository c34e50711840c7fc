"""`@workflow`: a function whose runs outlast crashes.

Owns the decorator and its types for `def` and `async def`. Refuses what every decorator here refuses.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, overload

from ..text.names import DEFAULT_QUEUE
from . import dispatch, registry
from .calls import AsyncCalls, P, R, SyncCalls, Undoable

if TYPE_CHECKING:
    from ..handles import Duration, Run
    from .definition import OnError
    from .retry import Retry


class Workflow(Undoable[P, R]):
    """A workflow of either colour."""

    kind = "workflow"
    queue: str

    def start(self, /, *args: P.args, **kwargs: P.kwargs) -> Run[R]:
        """Start a run and give it back at once.

        In a run it is a child; elsewhere the process's only engine starts it, and when this returns the run
        is on disk. Raises `OutsideRun` where there is no engine, `InvalidInput` for arguments that do not
        fit.
        """
        return dispatch.start(self, args, kwargs)

    if not TYPE_CHECKING:

        def submit(self, *_, **__):
            """Refuse with `InvalidInput`: a workflow is started."""
            dispatch.refuse_submit(self, "submit")

        def map(self, *_, **__):
            """Refuse with `InvalidInput`: a workflow is started."""
            dispatch.refuse_submit(self, "map")


class SyncWorkflow(SyncCalls[P, R], Workflow[P, R]):
    """A `def` workflow."""

    fn: Callable[P, R]


class AsyncWorkflow(AsyncCalls[P, R], Workflow[P, R]):
    """An `async def` workflow."""

    fn: Callable[P, Coroutine[Any, Any, R]]


class _Decorator(Protocol):
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncWorkflow[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncWorkflow[P, R]: ...


@overload
def workflow(  # type: ignore[overload-overlap]
    fn: Callable[P, Coroutine[Any, Any, R]], /
) -> AsyncWorkflow[P, R]: ...
@overload
def workflow(fn: Callable[P, R], /) -> SyncWorkflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    timeout: Duration | None = None,
    schedule: object = None,
    retry: Retry | int | None = None,
    on_error: OnError = "fail",
    max_crashes: int | None = None,
    version: str = "",
    retention: Duration | None = None,
) -> _Decorator: ...
def workflow(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    queue: str = DEFAULT_QUEUE,
    timeout: Duration | None = None,
    schedule: object = None,
    retry: Retry | int | None = None,
    on_error: OnError = "fail",
    max_crashes: int | None = None,
    version: str = "",
    retention: Duration | None = None,
) -> Any:
    """Make a workflow of a module-level function: a run of it, once started, goes on until it is final.

    Whenever its agent dies, another takes the run over and runs the code again from its beginning, with what the
    journal holds: between its steps it must do the same each time. `timeout` covers the whole run from its first
    start, and its children inherit what is left. `schedule` is a trigger, a cron text or a list of
    them. `retry` tries the run anew after an error; `on_error="halt"` leaves it to a person. `max_crashes`
    and `retention` go before the settings of the same name. Runs carry `version`, and only code of that
    version goes on with them. Raises `InvalidDefinition` or `InvalidInput`.
    """

    def define(fn: Any) -> SyncWorkflow[..., Any] | AsyncWorkflow[..., Any]:
        colour: type[SyncWorkflow[..., Any] | AsyncWorkflow[..., Any]] = AsyncWorkflow if inspect.iscoroutinefunction(fn) else SyncWorkflow
        made = colour(
            fn,
            name=name,
            queue=queue,
            timeout=timeout,
            schedule=schedule,
            retry=retry,
            on_error=on_error,
            max_crashes=max_crashes,
            version=version,
            retention=retention,
        )
        if schedule is not None:
            from .scheduled import check

            check(made)
        return registry.add(made)

    return define if fn is None else define(fn)

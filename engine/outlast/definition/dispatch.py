"""What a call of a definition does where it is made.

Owns the rules: in a run a call is durable and has the definition's colour; in a step, a step is the plain
function; outside, a step is too, and a workflow or a transaction is refused. Refuses with `OutsideRun` or
`WrongColour`, which name what to write instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from .. import caller as caller_module
from ..errors import InvalidInput, OutsideRun, WrongColour
from ..handles import Handle, Run

if TYPE_CHECKING:
    from ..caller import Caller
    from .definition import Definition
    from .workflows import Workflow

Args = tuple[Any, ...]
Kwargs = dict[str, Any]


def call(definition: Definition, args: Args, kwargs: Kwargs) -> Any:
    """Call it in its own colour."""
    caller = caller_module.active.get()
    if caller is None or caller.in_step:
        return plain(definition, caller)(*args, **kwargs)
    if caller.asynchronous is not definition.asynchronous:
        _refuse_colour(definition)
    _refuse_connection(definition)
    return caller.call(definition.definition, args, kwargs, definition.bound)


def call_awaitable(definition: Definition, args: Args, kwargs: Kwargs) -> Coroutine[Any, Any, Any]:
    """Call a `def` definition from async code."""
    caller = caller_module.active.get()
    if caller is None or caller.in_step:
        return _awaited(plain(definition, caller), args, kwargs)
    if not caller.asynchronous:
        written = definition.fn.__name__
        raise WrongColour(f"{written}.aio() is for async workflows; this one is sync.", hint=f"Write `{written}(...)`.")
    _refuse_connection(definition)
    coroutine: Coroutine[Any, Any, Any] = caller.call(definition.definition, args, kwargs, definition.bound)
    return coroutine


def submit(definition: Definition, args: Args, kwargs: Kwargs) -> Handle[Any]:
    caller = _run_for(definition, "submit(...)", f"{definition.fn.__name__}(...)")
    return caller.submit(definition.definition, args, kwargs, definition.bound)


def start(workflow: Workflow[..., Any], args: Args, kwargs: Kwargs) -> Run[Any]:
    caller = caller_module.active.get()
    if caller is not None:
        if not caller.in_step:
            _refuse_connection(workflow)
        return caller.start(workflow.definition, args, kwargs, workflow.bound)
    if caller_module.start_outside is None:
        written = workflow.fn.__name__
        raise OutsideRun(
            f"{written}.start() finds no engine in this process.",
            hint=f"Create one first, `engine = outlast.Engine()`; then write `{written}.start(...)` or `engine.start({written}, ...)`.",
        )
    return caller_module.start_outside(workflow.definition, args, kwargs, workflow.bound)


def map_items(
    definition: Definition,
    items: Iterable[Any],
    *,
    concurrency: int | None,
    return_exceptions: bool,
    awaitable: bool,
) -> Any:
    """Submit it for each item, and wait. `awaitable` is the colour that was written."""
    written = definition.fn.__name__
    instead = f"[await {written}(item) for item in items]" if definition.asynchronous else f"[{written}(item) for item in items]"
    caller = _run_for(definition, "map(...)", instead)
    if caller.asynchronous is not awaitable:
        if awaitable:
            hint = (
                f"Write `outlast.gather(*[{written}.submit(item) for item in items])`."
                if definition.asynchronous
                else f"Write `{written}.map(...)`."
            )
            raise WrongColour(f"The map of {written} is awaited; this workflow is sync.", hint=hint)
        raise WrongColour(
            f"{written}.map() would block this async workflow.",
            hint=f"Write `await outlast.aio.map({written}, ...)`.",
        )
    if concurrency is not None and (isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1):
        raise InvalidInput(f"concurrency of a map must be a whole number of at least 1, not {concurrency!r}.")
    return caller.map(
        definition.definition,
        items,
        definition.bound,
        concurrency=concurrency,
        return_exceptions=return_exceptions,
    )


def plain(definition: Definition, caller: Caller | None) -> Callable[..., Any]:
    """The function to call where no run is, or in a step; or raise `OutsideRun`."""
    written = definition.fn.__name__
    if definition.kind == "workflow":
        if caller is not None:
            raise OutsideRun(f"{written} is a workflow, called in a step.", hint=f"Write `{written}.start(...)`.")
        raise OutsideRun(
            f"{written} is a workflow, called outside a run.",
            hint=f"Write `{written}.start(...)`, or `{written}.fn(...)` in a test.",
        )
    if definition.kind == "transaction":
        where = "outside a run" if caller is None else "in a step"
        raise OutsideRun(
            f"{written} is a transaction, called {where}: there is no `db` for it.",
            hint=f"Call it from a workflow, or write `{written}.fn(db, ...)` with a connection of your own.",
        )
    if caller is None:
        _mind_the_thread(written)
    return definition.fn


def _mind_the_thread(written: str) -> None:
    # In an agent's process a step without a run is most likely in a workflow's own thread pool: its calls
    # would
    # leave no trace in the journal.
    if caller_module.agent_process:
        raise OutsideRun(
            f"{written} is a step, called from a thread that has no run: it would not be in the journal.",
            hint=f"Write `{written}.map(...)` or `{written}.submit(...)` in the workflow, or `{written}.fn(...)` for the plain function.",
        )
    if caller_module.embedded_agent:
        warnings.warn(
            f"{written} is a step, called from a thread that has no run: it is not in the journal. "
            f"Write `{written}.fn(...)` if that is meant.",
            RuntimeWarning,
            stacklevel=5,
        )


def _run_for(definition: Definition, what: str, instead: str) -> Caller:
    caller = caller_module.active.get()
    if caller is not None and not caller.in_step:
        return caller
    where = "outside a run" if caller is None else "in a step"
    raise OutsideRun(
        f"{definition.fn.__name__}.{what} needs a workflow that calls it; it was called {where}.",
        hint=f"Write `{instead}`." if definition.kind == "step" else "Call it from a workflow.",
    )


def _refuse_colour(definition: Definition) -> NoReturn:
    written = definition.fn.__name__
    if definition.asynchronous:
        verb = "start" if definition.kind == "workflow" else "submit"
        raise WrongColour(
            f"{written} is an `async def`, called in a sync workflow.",
            hint=f"Write `{written}.{verb}(...).result()`, or make the workflow an `async def`.",
        )
    raise WrongColour(f"{written} is a `def`, called in an async workflow.", hint=f"Write `await {written}.aio(...)`.")


def refuse_twin(definition: Definition) -> NoReturn:
    """`.aio` of an `async def`, which needs none."""
    written = definition.fn.__name__
    raise WrongColour(f"{written} is an `async def` already; `.aio` is for a `def`.", hint=f"Write `await {written}(...)`.")


def refuse_submit(workflow: Workflow[..., Any], name: str) -> NoReturn:
    """`.submit` or `.map` of a workflow, which is started."""
    written = workflow.fn.__name__
    instead = f"{written}.start(...)" if name == "submit" else f"gather(*[{written}.start(item) for item in items])"
    raise InvalidInput(f"{written} is a workflow, which has no {name}().", hint=f"Write `{instead}`.")


def _refuse_connection(definition: Definition) -> None:
    if definition.bound.connection is not None:
        raise InvalidInput(
            f"connection is for starting {definition.fn.__name__} from outside a run: a child is committed with its parent's journal.",
            hint="Leave out connection=, or start it in a step.",
        )


async def _awaited(fn: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return fn(*args, **kwargs)

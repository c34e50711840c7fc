"""The durable functions that workflow code calls: `sleep`, `wait_signal`, `gather`, `publish`, `now`, …

Owns their types and where each may be called. Refuses with `OutsideRun` or `WrongColour`, which name what to
write instead; what they do is the active caller's. What waits has an awaitable twin in `outlast.aio`; what
does not wait is the same for both colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from . import caller as caller_module
from .errors import InvalidInput, OutsideRun, WrongColour
from .handles import Handle
from .text.duration import seconds
from .text.names import checked_text

if TYPE_CHECKING:
    from datetime import datetime
    from random import Random
    from uuid import UUID

    from .caller import Caller
    from .handles import Current, Duration

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


def sleep(duration: Duration) -> None:
    """Wait for `duration` ("30s", 90 seconds, a timedelta) of elapsed time.

    If the process dies meanwhile, the wait still ends at the same instant. One that is
    longer than `park_after` holds no thread. Raises `InvalidInput`, `OutsideRun`, `WrongColour`.
    """
    length = seconds(duration, place="The duration of sleep()")
    sync_caller("sleep").sleep(length)


@overload
def wait_signal(name: str, *, timeout: Duration | None = None) -> object: ...
@overload
def wait_signal(name: str, type: type[T], *, timeout: Duration | None = None) -> T: ...
@overload
def wait_signal(name: str, type: object, *, timeout: Duration | None = None) -> object: ...
def wait_signal(name: str, type: object = object, *, timeout: Duration | None = None) -> object:
    """Wait for the oldest unread signal `name` whose payload fits `type`, and take it.

    Each signal is taken once, and is kept through restarts until it is. A payload that does not fit stays unread and
    does not hold up later ones. Raises `SignalTimeout` after `timeout` (elapsed time); a signal that is already there
    wins over it.
    """
    checked_text(name, place="The name of a signal")
    length = timeout_seconds(timeout, place="timeout of wait_signal()")
    value: object = sync_caller("wait_signal").wait_signal(name, type, length)
    return value


@overload
def signal_handle(name: str) -> Handle[object]: ...
@overload
def signal_handle(name: str, type: type[T]) -> Handle[T]: ...
@overload
def signal_handle(name: str, type: object) -> Handle[object]: ...
def signal_handle(name: str, type: object = object) -> Handle[Any]:
    """A handle of the next unread signal `name` whose payload fits `type`, for `first` and `gather`.

    The signal is taken when the handle wins, not before.
    """
    checked_text(name, place="The name of a signal")
    return run_caller("signal_handle").signal_handle(name, type)


# As in typeshed's asyncio.gather, few handles of several types give a tuple's types; the value is a list.
@overload
def gather(a: Handle[T1], b: Handle[T2], /) -> tuple[T1, T2]: ...
@overload
def gather(a: Handle[T1], b: Handle[T2], c: Handle[T3], /) -> tuple[T1, T2, T3]: ...
@overload
def gather(a: Handle[T1], b: Handle[T2], c: Handle[T3], d: Handle[T4], /) -> tuple[T1, T2, T3, T4]: ...
@overload
def gather(a: Handle[T1], b: Handle[T2], c: Handle[T3], d: Handle[T4], e: Handle[T5], /) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
def gather(*handles: Handle[T], return_exceptions: Literal[False] = False) -> list[T]: ...
@overload
def gather(*handles: Handle[T], return_exceptions: bool) -> list[T | BaseException]: ...
def gather(*handles: Handle[Any], return_exceptions: bool = False) -> Any:
    """Wait for all handles and give their results in order.

    The first error cancels the rest and is raised; with `return_exceptions` errors stand among the results
    instead. The wait survives a restart, and holds no thread if it is long.
    """
    checked_handles(handles, "gather")
    return sync_caller("gather").gather(handles, return_exceptions=return_exceptions)


@overload
def first(a: Handle[T1], b: Handle[T2], /) -> Handle[T1] | Handle[T2]: ...
@overload
def first(a: Handle[T1], b: Handle[T2], c: Handle[T3], /) -> Handle[T1] | Handle[T2] | Handle[T3]: ...
@overload
def first(*handles: Handle[T]) -> Handle[T]: ...
def first(*handles: Handle[Any]) -> Any:
    """Wait for the first handle that is done, and return it: `winner.result()` is its value, or raises.

    The winner is journalled, so that it wins on replay too. The others continue: cancel or wait for those that must not.
    """
    checked_handles(handles, "first", least=1)
    return sync_caller("first").first(handles)


def publish(key: str, value: object) -> None:
    """Set a value of the run that anyone can query (`run.query(key)`); the last one wins. Also in a step.

    It is written soon, in order, and not again on replay; a step that is tried again publishes again. Raises
    `NotStorable`.
    """
    checked_text(key, place="The key of publish()")
    any_caller("publish").publish(key, value)


def emit(stream: str, value: object) -> None:
    """Append a numbered message to a stream of the run, for others to follow (`run.stream(name)`). Also in a step.

    It is written soon, in order, and not again on replay; a step that is tried again emits again, marked with its
    try. Raises `NotStorable`.
    """
    checked_text(stream, place="The stream of emit()")
    any_caller("emit").emit(stream, value)


def now() -> datetime:
    """The instant of the last journal entry that the code has seen: the same on replay. Aware, in UTC.

    It stands still between two entries. In a step it is the time of day.
    """
    return any_caller("now").now()


def uuid4() -> UUID:
    """A random UUID: the same on replay, before any commit too."""
    return any_caller("uuid4").uuid4()


def rng() -> Random:
    """A random generator, seeded by the run and the place in the code: the same on replay."""
    return any_caller("rng").rng()


def patched(change_id: str) -> bool:
    """Whether this run takes the new side of a change; one that was past this place before keeps the old one.

    The answer is journalled under `change_id`, so that a run never changes sides.
    """
    checked_text(change_id, place="The change of patched()")
    return run_caller("patched").patched(change_id)


def continue_as_new(*args: object, **kwargs: object) -> NoReturn:
    """Complete this run and start its successor with these arguments, in one transaction: loops without end.

    The successor has its key, parent, tags and unread signals, and handles of this run follow it. It does not
    return: it unwinds the workflow's code by a `BaseException`, which must not be caught. If the
    process dies before the commit, this run is replayed and does it then.
    """
    run_caller("continue_as_new").continue_as_new(args, kwargs)
    raise AssertionError("continue_as_new() came back.")


def current() -> Current:
    """What the code that executes may know of its run: ids, tags, its idempotency key, its step and try.

    In a step, `current().idempotency_key` is the same on every try and after every crash: give it to services that
    deduplicate. `current().heartbeat(progress)` says how far a long step is.
    """
    return any_caller("current").current()


_INSTEAD = {
    "sleep": "Write `time.sleep(...)`.",
    "wait_signal": "Write `run.signal(...)` to send a run one, `run.query(...)` to hear from it.",
    "signal_handle": "Write `run.signal(...)` to send a run a signal.",
    "gather": "Write `[handle.result() for handle in handles]`.",
    "first": "Write `handle.result(timeout=...)`.",
    "map": "Write `[step(item) for item in items]`.",
    "publish": "Call it from a workflow or a step; `run.query(key)` reads what one published.",
    "emit": "Call it from a workflow or a step; `run.stream(name)` follows what one emitted.",
    "now": "Write `datetime.now(UTC)`.",
    "uuid4": "Write `uuid.uuid4()`.",
    "rng": "Write `random.Random()`.",
    "patched": "Call it from a workflow.",
    "continue_as_new": "Call it from a workflow; write `workflow.start(...)` to start a run.",
    "current": "Call it from a workflow or a step; `engine.get(run_id)` gives a run from outside.",
}

_INSTEAD_ASYNC = {
    "sleep": "Write `await asyncio.sleep(...)`.",
    "gather": "Write `[await handle for handle in handles]`.",
    "first": "Write `await handle`.",
}

_INSTEAD_IN_STEP = {
    "sleep": "Write `time.sleep(...)`, or sleep in the workflow.",
    "wait_signal": "Wait in the workflow and pass the payload to the step.",
    "signal_handle": "Make it in the workflow.",
    "gather": "Wait in the workflow and pass the results to the step.",
    "first": "Wait in the workflow and pass the result to the step.",
    "map": "Call the steps plainly, or map in the workflow.",
    "patched": "Ask in the workflow and pass the answer to the step.",
    "continue_as_new": "Return to the workflow and call it there.",
}


def any_caller(name: str) -> Caller:
    """The caller, a run or a step; or `OutsideRun`."""
    caller = caller_module.active.get()
    if caller is None:
        raise OutsideRun(f"{name}() was called outside a run.", hint=_INSTEAD[name])
    return caller


def run_caller(name: str) -> Caller:
    """The caller, a run; or `OutsideRun` outside and in a step."""
    caller = any_caller(name)
    if caller.in_step:
        raise OutsideRun(f"{name}() was called in a step; it belongs in a workflow.", hint=_INSTEAD_IN_STEP[name])
    return caller


def sync_caller(name: str) -> Caller:
    """The caller, a run of a sync workflow; or `WrongColour` in an async one."""
    caller = run_caller(name)
    if caller.asynchronous:
        raise WrongColour(
            f"{name}() would block this async workflow.",
            hint=f"Write `await outlast.aio.{name}(...)`{_PLAIN.get(name, '')}.",
        )
    return caller


def async_caller(name: str) -> Caller:
    """The caller, a run of an async workflow; or `WrongColour` in a sync one."""
    if caller_module.active.get() is None and name in _INSTEAD_ASYNC:
        raise OutsideRun(f"outlast.aio.{name}() was called outside a run.", hint=_INSTEAD_ASYNC[name])
    caller = run_caller(name)
    if not caller.asynchronous:
        raise WrongColour(
            f"outlast.aio.{name}() is for async workflows; this one is sync.",
            hint=f"Write `outlast.{name}(...)`.",
        )
    return caller


_PLAIN = {"sleep": " or `await asyncio.sleep(...)`"}


def timeout_seconds(timeout: Duration | None, *, place: str) -> float | None:
    return None if timeout is None else seconds(timeout, place=place)


def checked_handles(handles: tuple[object, ...], name: str, *, least: int = 0) -> None:
    """Refuse with `InvalidInput` what is no handle, and fewer handles than `least`."""
    hint = f"Write `{name}(*[step.submit(item) for item in items])`."
    if len(handles) < least:
        raise InvalidInput(f"{name}() needs at least {least} handle.", hint=hint)
    for handle in handles:
        if not isinstance(handle, Handle):
            raise InvalidInput(f"{name}() takes handles, not {handle!r}.", hint=hint)

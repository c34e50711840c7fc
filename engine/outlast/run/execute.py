"""Executing one try of a step: in this thread, on the agent's loop, in a thread with a timeout, in a child process.

Owns the call of user code and the mapping of whatever it does to a `Tried`. Refuses to write: what came of the try is the driver's to
journal. A sync step that overruns its timeout cannot be stopped in its thread: the try counts as unknown, and its thread is reported as
a stray until it ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from .. import clock, codec
from ..caller import active
from ..errors import LeaseLost, OutlastError, PayloadTooLarge, StepTimeout, Unwinding
from ..handles import Current, CurrentStep
from ..operations import Emit, Publish
from ..operations.claimed import Fence
from . import forked
from .step_caller import StepCaller
from .tries import Tried
from .user_threads import executing

if TYPE_CHECKING:
    from ..definition.definition import Definition
    from ..store.sqlite import SqliteStore
    from .guarded import Guarded
    from .isolated.step import IsolatedStep


_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class StepCall:
    """What a try needs to know: the step, its stored input, its place, and the run that it belongs to."""

    definition: Definition
    data: bytes
    path: str
    facts: Callable[[], Current]
    """The run's; the step's own are added for each try, where the code asks for them."""
    key: Callable[[], str]
    """The idempotency key."""
    timeout_seconds: float | None
    fence: Fence
    store: SqliteStore
    max_payload: int
    run_id: int
    """The row of the run whose streams and state the step speaks into."""

    def facts_of(self, number: int) -> Current:
        return replace(
            self.facts(),
            idempotency_key=self.key(),
            step=CurrentStep(name=self.definition.name, path=self.path, try_number=number),
            _heartbeat=self._beat,
        )

    def caller(self, number: int, db: Guarded | None = None) -> StepCaller:
        return StepCaller(lambda: self.facts_of(number), self.publish, lambda stream, value: self.emit(stream, value, number), db=db)

    @property
    def part(self) -> tuple[Literal["fn", "compensation"], bytes]:
        """Which function of the definition is meant, and what comes before its arguments, as an encoded list."""
        return "fn", b"[]"

    @property
    def function(self) -> Callable[..., Any]:
        fn: Callable[..., Any] = self.definition.fn
        return fn

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.definition.signature.call(codec.decode_input(self.data))

    def encode(self, value: object) -> bytes:
        """The stored form of what the step returned; `NotStorable` and `PayloadTooLarge` are outcomes, never retried."""
        return self._stored(value, f"the result of {self.definition.name}")

    def _stored(self, value: object, place: str) -> bytes:
        data = codec.encode(value, place=place)
        if len(data) > self.max_payload:
            raise PayloadTooLarge(place[0].upper() + place[1:], len(data), self.max_payload)
        return data

    def publish(self, key: str, value: Any) -> None:
        data = self._stored(value, f"published {key!r}")
        self.store.submit(Publish(self.fence, None, key, data, run_id=self.run_id))

    def emit(self, stream: str, value: Any, number: int) -> None:
        place = f"message on {stream!r}"
        # What is logged has been cut to a length, and fails no step.
        data = codec.encode(value, place=place) if stream == "log" else self._stored(value, place)
        self.store.submit(Emit(self.fence, None, stream, [data], step=self.path, try_number=number, run_id=self.run_id))

    def _beat(self, progress: object) -> None:
        self.publish(f"progress:{self.path}", progress)


def run_here(call: StepCall, number: int) -> Tried:
    """Execute a sync step in this thread."""
    started_at = clock.wall()
    token = active.set(call.caller(number))
    generation = forked.generation()
    try:
        args, kwargs = call.arguments()
        value = call.function(*args, **kwargs)
        forked.end_child(generation, call.definition.name)
        return Tried(started_at, output=call.encode(value))
    except Unwinding:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is the try's outcome
        forked.end_child(generation, call.definition.name, error)
        return Tried(started_at, error=error)
    finally:
        active.reset(token)


class ThreadTry:
    """One try of a sync step in a thread of its own, since it has a timeout."""

    def __init__(
        self,
        call: StepCall,
        number: int,
        *,
        on_late_end: Callable[[Tried], None],
        on_overrun: Callable[[ThreadTry], None] | None = None,
    ) -> None:
        self._call = call
        self._number = number
        self._on_late_end = on_late_end
        self._on_overrun = on_overrun
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._overran = False
        self._tried: Tried | None = None
        self.started_at = clock.wall()

    def run(self) -> Tried:
        """Start, wait, and give the outcome: `StepTimeout` where the thread goes on."""
        threading.Thread(target=self._execute, name=f"outlast-step-{self._call.definition.name}", daemon=True).start()
        self._ended.wait(self._call.timeout_seconds)
        with self._lock:
            if self._tried is not None:
                return self._tried
            self._overran = True
        if self._on_overrun is not None:
            self._on_overrun(self)
        assert self._call.timeout_seconds is not None
        return Tried(
            self.started_at,
            error=StepTimeout(self._call.definition.name, self._call.timeout_seconds),
            unknown=True,
        )

    @property
    def overran(self) -> bool:
        return self._overran

    @property
    def late(self) -> Tried | None:
        """What came of it after all, once its thread has ended; that it was late is what a failure goes by."""
        tried = self._tried
        if tried is None or tried.error is None:
            return tried
        assert self._call.timeout_seconds is not None
        return Tried(tried.started_at, error=StepTimeout(self._call.definition.name, self._call.timeout_seconds))

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the thread that overran; whether it has ended."""
        return self._ended.wait(seconds)

    def _execute(self) -> None:
        thread = threading.current_thread()
        executing.add(thread)
        try:
            tried = run_here(self._call, self._number)
            with self._lock:
                self._tried = tried
                is_late = self._overran
            self._ended.set()
            if is_late:
                self._on_late_end(tried)
        finally:
            executing.discard(thread)


async def run_on_loop(call: StepCall, number: int) -> Tried:
    """Execute an async step on the agent's loop; its timeout cancels it."""
    started_at = clock.wall()
    active.set(call.caller(number))
    generation = forked.generation()
    try:
        args, kwargs = call.arguments()
        if call.timeout_seconds is None:
            value = await call.function(*args, **kwargs)
        else:
            try:
                async with asyncio.timeout(call.timeout_seconds) as scope:
                    value = await call.function(*args, **kwargs)
            except TimeoutError as error:
                if scope.expired():
                    raise StepTimeout(call.definition.name, call.timeout_seconds) from error
                raise
        forked.end_child(generation, call.definition.name)
        return Tried(started_at, output=call.encode(value))
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return Tried(started_at, error=OutlastError(f"Step {call.definition.name} cancelled itself."))
    except StepTimeout as error:
        return Tried(started_at, error=error, unknown=True)
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is the try's outcome
        forked.end_child(generation, call.definition.name, error)
        return Tried(started_at, error=error)


def wait_on_loop(call: StepCall, number: int, loop: asyncio.AbstractEventLoop) -> Tried:
    """Execute async code on the agent's loop, from a thread; `LeaseLost` where that ends first, since the task goes back with it."""
    coroutine = run_on_loop(call, number)
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        while not loop.is_closed():
            try:
                return future.result(_LOOK_SECONDS)
            except TimeoutError:
                pass  # What a loop takes between its last turn and its close is never done.
    except (CancelledError, RuntimeError):
        pass
    coroutine.close()
    raise LeaseLost("The agent has left.")


def isolated_try(call: StepCall, number: int) -> IsolatedStep:
    """A try in a process group of its own, to be started, waited for, and killed at need."""
    from .isolated.step import prepare

    return prepare(call, number)

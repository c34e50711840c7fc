"""The caller inside a step's try: steps called are plain calls, durable waits are refused.

Owns what a step may know (`current()`), and what it may say while it runs: `publish`, `emit`, `heartbeat`. Refuses durable calls with a
sentence. A workflow started inside a step gets a key derived from the step's, so that a repeated try does not start it twice; one
started inside a `@transaction` is part of its transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from .. import caller, clock
from ..definition.options import Options
from ..errors import OutsideRun
from ..handles import Current

if TYPE_CHECKING:
    from ..definition import Definition, Workflow
    from ..handles import Handle, Run
    from .guarded import Guarded


@dataclass(slots=True)
class StepCaller:
    """The try that executes in this context."""

    facts: Callable[[], Current]
    on_publish: Callable[[str, Any], None]
    on_emit: Callable[[str, Any], None]
    starts: int = 0
    db: Guarded | None = None
    """The connection of a `@transaction`: what it starts is there if and only if it commits."""
    asynchronous: bool = False
    in_step: bool = True

    def call(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any:
        return definition.fn(*args, **kwargs)

    def submit(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any:
        raise _refusal(f"{definition.name}.submit(...)")

    def start(self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Run[Any]:
        if caller.start_outside is None:
            raise _refusal(f"{workflow.name}.start(...)")
        options = self.keyed(options)
        if self.db is None:
            return caller.start_outside(workflow, args, kwargs, options)
        with self.db.lifted():
            return caller.start_outside(workflow, args, kwargs, replace(options, connection=self.db))

    def keyed(self, options: Options) -> Options:
        """With a key of the step's, which another try of it gives again."""
        self.starts += 1
        return options if options.key is not None else replace(options, key=f"{self.facts().idempotency_key}/{self.starts}")

    def map(self, definition: Definition, items: Any, options: Options, **_: Any) -> Any:
        raise _refusal(f"{definition.name}.map(...)")

    def sleep(self, seconds: float) -> Any:
        raise _refusal("outlast.sleep(...)")

    def wait_signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Any:
        raise _refusal("wait_signal(...)")

    def signal_handle(self, name: str, type_: Any) -> Handle[Any]:
        raise _refusal("signal_handle(...)")

    def gather(self, handles: Any, *, return_exceptions: bool) -> Any:
        raise _refusal("gather(...)")

    def first(self, handles: Any) -> Any:
        raise _refusal("first(...)")

    def publish(self, key: str, value: Any) -> None:
        self.on_publish(key, value)

    def emit(self, stream: str, value: Any) -> None:
        self.on_emit(stream, value)

    def log(self, message: dict[str, Any]) -> None:
        """A record that the step's code has logged."""
        self.on_emit("log", message)

    def now(self) -> datetime:
        return clock.to_datetime(clock.wall())

    def uuid4(self) -> UUID:
        return uuid4()

    def rng(self) -> Random:
        return Random()

    def patched(self, change_id: str) -> bool:
        raise _refusal("patched(...)")

    def continue_as_new(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        raise _refusal("continue_as_new(...)")

    def current(self) -> Current:
        return self.facts()


def _refusal(what: str) -> OutsideRun:
    return OutsideRun(
        f"{what} was called inside a step, which cannot wait durably.",
        hint="Call it in the workflow, and pass the result to the step.",
    )

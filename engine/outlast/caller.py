"""Who is asking: what definitions and durable functions want of the run, or step, that executes right here.

Owns the protocol `Caller` and the context variable that holds the active one. A run of a sync workflow, a run of an async workflow
and a try of a step each implement it (layer 3); outside all of them the variable is empty. Refuses to know how any of them works:
definitions (layer 1) call through this seam, so that nothing below the run imports it.

Every method follows the colour of its caller: where `asynchronous` is true it returns an awaitable of the value, else the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from .definition import Definition, Workflow
    from .definition.options import Options
    from .handles import Current, Handle, Run


class Caller(Protocol):
    """The run or try that executes in this context."""

    asynchronous: bool
    """Whether the code runs on a workflow loop (an async workflow). False for sync workflows and for every step."""
    in_step: bool
    """Whether this is a step's try: then a step called is a plain call, and waiting durably is refused by the methods."""

    def call(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any: ...

    def submit(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Handle[Any]: ...

    def start(self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Run[Any]: ...

    def keyed(self, options: Options) -> Options:
        """The options of a start by an engine from within: with a key, by which a replay or another try gets the same run."""

    def map(
        self,
        definition: Definition,
        items: Iterable[Any],
        options: Options,
        *,
        concurrency: int | None,
        return_exceptions: bool,
    ) -> Any: ...

    def sleep(self, seconds: float) -> Any: ...

    def wait_signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Any: ...

    def signal_handle(self, name: str, type_: Any) -> Handle[Any]: ...

    def gather(self, handles: tuple[Handle[Any], ...], *, return_exceptions: bool) -> Any: ...

    def first(self, handles: tuple[Handle[Any], ...]) -> Any: ...

    def publish(self, key: str, value: Any) -> None: ...

    def emit(self, stream: str, value: Any) -> None: ...

    def now(self) -> datetime: ...

    def uuid4(self) -> UUID: ...

    def rng(self) -> Random: ...

    def patched(self, change_id: str) -> bool: ...

    def continue_as_new(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any: ...

    def current(self) -> Current: ...


active: ContextVar[Caller | None] = ContextVar("outlast_caller", default=None)
"""The caller of this context. Threads that the engine did not start have none."""

start_outside: Callable[[Workflow[..., Any], tuple[Any, ...], dict[str, Any], Options], Run[Any]] | None = None
"""How `workflow.start` starts a run where no caller is: set by the facade to the process's only engine."""

agent_process = False
"""True in `up`, `agent` and `run`: there, a step called from a thread that has no run raises `OutsideRun`."""

embedded_agent = False
"""True while an embedded `engine.agent()` runs in this process: there, such a call warns instead."""

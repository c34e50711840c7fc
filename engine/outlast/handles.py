"""What a start or a submit returns: handles of work that executes elsewhere, and the facts that a run may know of itself.

Owns the abstract `Handle` and `Run` that users hold and annotate, and the frozen facts behind `current()`. Refuses I/O: outside a
run the facade implements them over the store, inside a run the replay context does, durably.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

T = TypeVar("T", covariant=True)
Duration = str | float | timedelta


class Handle(ABC, Generic[T]):
    """Work whose result can be waited for: a submitted step, a run, a signal.

    `handle.result()` in sync code, `await handle` in async code. Dropping a handle does not end its work.
    """

    id: str

    @abstractmethod
    def result(self, timeout: Duration | None = None) -> T:
        """Wait for the value, or raise the work's own error. In a run the wait is durable. Raises `ResultTimeout`."""

    @abstractmethod
    def __await__(self) -> Generator[Any, None, T]: ...


class Run(Handle[T]):
    """One execution of a workflow. Once its start has returned, it is on disk, and continues whatever process dies."""

    @property
    @abstractmethod
    def status(self) -> str:
        """The status now, read each time: `pending`, `running`, `waiting`, `compensating`, `paused`, `halted`, or a final one."""

    @abstractmethod
    def signal(self, name: str, payload: object = None, *, key: str | None = None) -> None:
        """Send it a message, kept until it is taken; of two with one name and `key`, the first counts.

        When this returns the message is on disk. Raises `RunFinished`, `NotStorable`, `PayloadTooLarge`.
        """

    @abstractmethod
    def query(self, key: str) -> object:
        """The value that it last published under `key`. Raises `KeyNotFound`."""

    @abstractmethod
    def stream(self, name: str, after: int = 0) -> Iterator[object]:
        """The messages of a stream after number `after`, in order, followed until the run, or the last that continues it, has ended."""

    @abstractmethod
    def astream(self, name: str, after: int = 0) -> AsyncIterator[object]:
        """`stream` for `async for`."""

    @abstractmethod
    def cancel(self, *, undo: bool = True, force: bool = False) -> None:
        """Ask it to end: it stops, and what it did is undone unless `undo=False`.

        The request is on disk when this returns; the end comes later. `force` does not wait for tries on agents that
        cannot be seen. Raises `RunFinished`.
        """

    @abstractmethod
    def pause(self, *, children: bool = False) -> None:
        """Hold it at its next durable call, its children only when asked. Raises `RunFinished`."""

    @abstractmethod
    def resume(self, *, done: object = ..., not_done: bool = False) -> None:
        """End a pause, or let a halted run continue. If it asks what a step did, give the step's result as `done=`, or `not_done=True`."""

    @abstractmethod
    def retry(self, from_step: str | None = None) -> Run[T]:
        """Retry a final run as a new run, from its failure or from a step by path or name; results before that are inherited."""

    @abstractmethod
    def steps(self) -> list[dict[str, Any]]:
        """Its steps in order of start, as `outlast show --json` has them."""

    @abstractmethod
    def children(self) -> list[Run[Any]]:
        """The runs that it started, in order."""


@dataclass(frozen=True, slots=True)
class CurrentStep:
    """The step that a try is part of."""

    name: str
    path: str
    try_number: int


@dataclass(frozen=True, slots=True)
class Undoing:
    """What a compensation undoes: `outcome` is `completed`, `failed` or `unknown`."""

    outcome: str


@dataclass(frozen=True, slots=True)
class Current:
    """What the code that executes now may know of its run."""

    run_id: str
    workflow: str
    parent_id: str | None
    tags: dict[str, str]
    tick: datetime | None
    idempotency_key: str
    """In a step: the same on every try and claim. In a workflow: the run's."""
    step: CurrentStep | None = None
    undoing: Undoing | None = None
    _heartbeat: Callable[[object], None] | None = field(default=None, repr=False)

    def heartbeat(self, progress: object = None) -> None:
        """Say how far a long step is: `outlast query RUN progress:PLACE` prints it. Does nothing outside a step."""
        if self._heartbeat is not None:
            self._heartbeat(progress)

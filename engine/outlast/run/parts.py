"""Handles inside a run: a child or a submitted step that the workflow waits for durably.

Owns the objects that `submit` and `start` give back in a workflow. Refuses what would not be the same on replay (`status`, `query`):
such a look belongs in a step. Waiting goes through the caller, which journals the outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import OutsideRun, WrongColour
from ..handles import Duration, Handle, Run
from ..text.duration import seconds

if TYPE_CHECKING:
    from .async_run import AsyncRun
    from .history import Record
    from .sync_run import SyncRun

T = TypeVar("T")


class Part(Handle[T]):
    """A submitted step, or a signal that is waited for, at a place of this run."""

    def __init__(self, run: SyncRun | AsyncRun, path: str, kind: str, name: str, id: str, record: Record | None = None) -> None:
        """`record` is what the journal has of its place: where it was started there, it has its ids from there."""
        self.run = run
        self.path = path
        self.kind = kind
        self.name = name
        self.id = id
        self.task_id: int | None = None
        self.signal_type: Any = None
        self.error: BaseException | None = None
        self.future: asyncio.Future[Any] | None = None
        self.started_seq = 0
        """The number of the entry that tells of its start."""
        self.is_inherited = False
        """Its result is that of a part of the run that this one retries."""
        if record is not None and record.started is not None and record.started.data is not None:
            task_id, self.id = record.started.data.decode().split(" ", 1)
            self.task_id = int(task_id)

    @property
    def title(self) -> str:
        """How an error names it; nothing for a run, which has an id for that."""
        return "" if self.kind == "child" else f"{'Signal' if self.kind == 'signal' else 'Step'} {self.name} (at {self.path})"

    def result(self, timeout: Duration | None = None) -> T:
        """Wait durably for the value; raises the part's own error, `RunCancelled`, or `ResultTimeout`."""
        limit = None if timeout is None else seconds(timeout, place="timeout")
        if self.run.asynchronous:
            raise WrongColour(f"{self.name}: result() would block the workflow's loop.", hint="Write `await handle` in an async workflow.")
        value: Any = self.run.wait_part(self, limit)
        return value  # type: ignore[no-any-return]

    def __await__(self) -> Generator[Any, None, T]:
        if not self.run.asynchronous:
            raise WrongColour(f"{self.name}: only an async workflow can await.", hint="Write `handle.result()` in a sync workflow.")
        value: T = yield from self.run.wait_part(self, None).__await__()
        return value

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} at {self.path}>"


class ChildRun(Part[T], Run[T]):
    """A child workflow at a place of this run."""

    @property
    def status(self) -> str:
        raise _refusal("status")

    def signal(self, name: str, payload: object = None, *, key: str | None = None) -> None:
        self.run.signal_child(self, name, payload, key)

    def query(self, key: str) -> object:
        raise _refusal("query(...)")

    def stream(self, name: str, after: int = 0) -> Iterator[object]:
        raise _refusal("stream(...)")

    def astream(self, name: str, after: int = 0) -> AsyncIterator[object]:
        raise _refusal("astream(...)")

    def cancel(self, *, undo: bool = True, force: bool = False) -> None:
        self.run.cancel_parts((self,))

    def pause(self, *, children: bool = False) -> None:
        raise _refusal("pause()")

    def resume(self, *, done: object = ..., not_done: bool = False) -> None:
        raise _refusal("resume()")

    def retry(self, from_step: str | None = None) -> Run[T]:
        raise _refusal("retry()")

    def steps(self) -> list[dict[str, Any]]:
        raise _refusal("steps()")

    def children(self) -> list[Run[Any]]:
        raise _refusal("children()")


HANDLES: dict[str, Callable[..., Part[Any]]] = {"task": Part, "child": ChildRun}
"""What `submit` and `start` give back, by the kind of their entry."""


def _refusal(what: str) -> OutsideRun:
    return OutsideRun(
        f"A child's {what} inside a workflow would differ on replay.",
        hint="Look from a step, with engine.get(child.id), and pass the result on.",
    )

"""A run of an async workflow, on the agent's loop.

Owns the awaitable form of what a caller offers (`caller.Caller`): waiting for signals, timers and handles, and what a run says and asks.
Refuses the order of things: that is `async_delivery`'s, on which `async_rests` and `async_calls` stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from .. import clock
from ..definition.options import Options
from ..errors import CodeMismatch, InvalidInput, ResultTimeout, RunCancelled
from ..handles import Handle
from ..journal.aside import branch_of
from ..journal.entry import Entry
from ..operations import Emit, Publish, Signal
from ..text.names import checked_key
from .async_calls import AsyncCalls
from .parts import ChildRun, Part
from .pending import Pending

if TYPE_CHECKING:
    from ..definition import Definition


class AsyncRun(AsyncCalls):
    """One async workflow. Implements `caller.Caller`; its methods give awaitables."""

    async def sleep(self, seconds: float) -> None:
        self._enter()
        await asyncio.sleep(seconds)

    def wait_signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Coroutine[Any, Any, Any]:
        return self._wait_signal(name, type_, timeout_seconds)

    async def _wait_signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Any:
        pending = self._signal(name, type_, timeout_seconds)
        assert pending.future is not None
        return await pending.future

    def signal_handle(self, name: str, type_: Any) -> Handle[Any]:
        pending = self._signal(name, type_, None)
        part: Part[Any] = Part(self, pending.path, "signal", name, pending.path)
        part.signal_type = type_
        part.future = pending.future
        pending.part = part
        return part

    def _signal(self, name: str, type_: Any, timeout_seconds: float | None) -> Pending:
        self._enter()
        path = self._loop.branch().place()
        record = self.visit(path, "signal", name)
        pending = self._pend(path, "signal", name, record, lambda pending: self._look_at_signals())
        pending.type_ = type_
        pending.timeout_seconds = timeout_seconds or 0.0
        one = self.inheritance.at(path, "signal", name) if record is None else None
        if one is not None:
            pending.inherited = one, None, b""
        elif record is None:
            due_at = None
            if timeout_seconds is not None:
                due_at = self.store.now() + round(timeout_seconds * clock.SECOND)
            pending.due_at = due_at
            self._write(self.entry(path, "started", "signal", name, due_at=due_at))
        elif record.started is not None:
            pending.due_at = record.started.due_at
        if pending.due_at is not None:
            self._timed.append(pending)
        return pending

    async def wait_part(self, part: Part[Any], timeout_seconds: float | None) -> Any:
        self._enter()
        if timeout_seconds is not None:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await self.wait_part(part, None)
            except TimeoutError as error:
                raise ResultTimeout(part.id, timeout_seconds, part=part.title) from error
        if part.future is None:
            raise InvalidInput(f"{part!r} is not a handle of this run.")
        before = _cancels()
        try:
            return await part.future
        except asyncio.CancelledError:
            if _was_cancelled(part) and _cancels() == before:
                raise RunCancelled(part.id, part=part.title) from None
            raise

    async def map(
        self,
        definition: Definition,
        items: Iterable[Any],
        options: Options,
        *,
        concurrency: int | None,
        return_exceptions: bool,
    ) -> list[Any]:
        self._enter()
        pending = list(items)
        limit = asyncio.Semaphore(concurrency or max(1, len(pending)))

        async def one(item: Any) -> Any:
            async with limit:
                return await self.submit(definition, (item,), {}, options)

        tasks = [self._loop.create_task(one(item)) for item in pending]
        return await self._gathered(tasks, return_exceptions=return_exceptions)

    async def gather(self, handles: tuple[Any, ...], *, return_exceptions: bool) -> list[Any]:
        """Wait for all; unless exceptions are returned, the first error cancels the rest."""
        self._enter()
        futures = [self.future_of(handle) for handle in handles]
        values = await self._gathered(futures, handles, return_exceptions=return_exceptions)
        return [
            RunCancelled(handle.id, part=handle.title) if _was_cancelled(handle) else value
            for handle, value in zip(handles, values, strict=True)
        ]

    async def _gathered(
        self, futures: Sequence[asyncio.Future[Any]], handles: tuple[Any, ...] = (), *, return_exceptions: bool
    ) -> list[Any]:
        before = _cancels()
        try:
            return list(await asyncio.gather(*futures, return_exceptions=return_exceptions))
        except BaseException as error:
            cancelled = next((handle for handle in handles if _was_cancelled(handle)), None)
            if self.unwinding is None:
                for future in futures:
                    future.cancel()
            if cancelled is not None and isinstance(error, asyncio.CancelledError) and _cancels() == before:
                raise RunCancelled(cancelled.id, part=cancelled.title) from None
            raise

    async def first(self, handles: tuple[Any, ...]) -> Any:
        """Wait until any handle has its outcome; which one was first, the journal's order says again."""
        self._enter()
        if not handles:
            raise InvalidInput("first() needs at least one handle.")
        futures = [self.future_of(handle) for handle in handles]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return next(handle for handle, future in zip(handles, futures, strict=True) if future.done())

    def future_of(self, handle: Any) -> asyncio.Future[Any]:
        if not isinstance(handle, Part) or handle.run is not self or handle.future is None:
            raise InvalidInput(
                f"{handle!r} is not a handle of this run.",
                hint="Pass what submit(), start() or signal_handle() gave in this workflow.",
            )
        return handle.future

    def cancel_parts(self, parts: tuple[Any, ...]) -> None:
        self._enter()
        for part in parts:
            if part.future is not None:
                part.future.cancel()

    def signal_child(self, part: ChildRun[Any], name: str, payload: object, key: str | None) -> None:
        self._enter()
        path = self._loop.branch().place()
        if self.visit(path, "message", name) is not None:
            return
        self.history.mark(path, "message", name)
        if key is not None:
            checked_key(key, place="The key of a signal")
        data = self.encode(payload, place=f"the payload of signal {name}")
        entry = self.entry(path, "completed", "message", name)
        if part.is_inherited or self.history.has_inherited(part.path):
            # It had this message, and has ended.
            self._write(entry)
            return
        self._submit(
            Signal(part.id, name, data, key or f"{self.claimed.chain}/{path}"),
            lambda _, error: self._write(entry) if error is None else self._fail(error),
        )

    def publish(self, key: str, value: Any) -> None:
        path = self._bookkeeping("publish", key)
        if path is not None:
            data = self.encode(value, place=f"published {key!r}")
            entry = self.entry(path, "completed", "publish", key)
            self._submit(Publish(self.fence, entry, key, data), partial(self._noted, entry))

    def emit(self, stream: str, value: Any) -> None:
        path = self._bookkeeping("emit", stream)
        if path is not None:
            data = self.encode(value, place=f"message on {stream!r}")
            entry = self.entry(path, "completed", "emit", stream)
            self._submit(Emit(self.fence, entry, stream, [data]), partial(self._noted, entry))

    def _bookkeeping(self, kind: str, name: str) -> str | None:
        self._enter()
        path = self._loop.branch().place()
        if self.visit(path, kind, name) is not None:
            return None
        self.history.mark(path, kind, name)
        return path

    def branches_that_saw(self, paths: tuple[str, ...], seq: int) -> tuple[str, ...]:
        saw = {""}
        for path in paths:
            prefix = branch_of(path)
            while prefix:
                saw.add(prefix)
                prefix = branch_of(prefix[:-1])
        for branch in self._loop.branches():
            if branch.parent in saw and branch.born_seq >= seq:
                saw.add(branch.prefix)
        return tuple(saw)

    def uuid4(self) -> UUID:
        return self.uuid_at(self._loop.branch().value_place())

    def rng(self) -> Random:
        return self.random_at(self._loop.branch().value_place())

    def patched(self, change_id: str) -> bool:
        self._enter()
        decided, entry = self.patch(change_id, is_replaying=bool(self._replay) or self.history.is_ahead())
        if entry is not None:
            self._marks += 1
            self._submit(self.append(entry), partial(self._marked, entry))
        return decided

    def _marked(self, entry: Entry, result: Any, error: BaseException | None) -> None:
        self._marks -= 1
        self._noted(entry, result, error)

    def continue_as_new(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NoReturn:
        self._enter()
        operation = self.successor(args, kwargs)
        entry = self._beyond()
        if entry is not None:
            error = CodeMismatch(entry.path, recorded=f"{entry.kind} {entry.name}", found="continue_as_new()")
            self.leave_by(self.mismatch(error))
        self.leave_by(operation)


def _was_cancelled(part: Part[Any]) -> bool:
    """Whether a step or child was cancelled, by whatever."""
    return part.kind != "signal" and part.future is not None and part.future.cancelled()


def _cancels() -> int:
    """How often the task that runs now has been cancelled: one that is cancelled while it waits gets asyncio's own CancelledError.

    The number is to be compared: a `TaskGroup` of Python 3.11 leaves it raised.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()

"""An inline step of an async workflow: its tries, driven on the agent's loop.

Owns one real task that drives the tries of one step: async steps run on the agent's loop with its I/O, sync steps in threads, isolated
ones in a child process. Refuses to touch the workflow's loop: the outcome is handed to the run, which delivers it in its turn.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import clock
from ..definition.options import Options
from ..errors import LeaseLost
from ..journal.entry import COMPENSABLE, Entry
from ..operations.atomic import Operation
from . import execute, strays, transactional, unknown
from .execute import StepCall, ThreadTry
from .history import Record
from .tries import Ask, Probe, Tried, Try, WaitUntil, Write, tries

if TYPE_CHECKING:
    from ..definition import Definition
    from .async_calls import AsyncCalls


class InlineStep:
    """One step that an async workflow waits for."""

    def __init__(self, run: AsyncCalls, path: str, definition: Definition, data: bytes, options: Options, record: Record | None) -> None:
        self._run = run
        run.step_names[path] = definition.name
        self._path = path
        self._definition = definition
        self._options = options
        self._data = data
        self._record = record
        self._task: asyncio.Task[None] | None = None
        self._kill: Any = None
        self._thread: ThreadTry | None = None
        self._is_in_thread = False
        self._is_on_loop = False
        self._stopped = False
        self.is_trying = True
        """False while it waits for its next try: then the run may leave the agent."""
        self.started_at: int | None = None

    def start(self) -> None:
        self.started_at = clock.wall()
        self._task = asyncio.Task(self._drive(), loop=asyncio.get_running_loop(), name=self._definition.name)

    def stop(self) -> bool:
        """Cancel what can be cancelled; whether a try goes on, in a thread or on the loop until it has unwound."""
        if not self._stopped:
            # Once: a second cancel would meet the code that cleans up after the first.
            self._stopped = True
            if self._kill is not None:
                self._kill()
            if self._task is not None and not self._task.done():
                self._task.cancel()
        return self._is_on_loop or self._is_in_thread or (self._thread is not None and self._thread.overran and not self._thread.wait(0))

    async def _drive(self) -> None:
        run, definition = self._run, self._definition
        try:
            kept, flags = run.kept_part_input(definition, self._data)
            keeps_start = run.keeps_start(definition, flags)
            if not keeps_start:
                run.step_inputs[self._path] = kept, flags
            timeout = self._options.timeout_seconds
            call = StepCall(
                definition, self._data, self._path, run.current, partial(run.step_key, self._path),
                timeout if timeout is not None else definition.timeout_seconds, run.fence, run.store,
                run.host.settings.max_payload, run.fence.task_id,
            )  # fmt: skip
            driver = tries(
                self._path, definition.kind, definition.name,
                policy=self._options.retry or definition.retry, data=kept, flags=flags, keeps_start=keeps_start,
                record=self._record, entry=run.entry, now=run.store.now,
                on_unknown=definition.on_unknown, has_probe=definition.probed_by is not None,
            )  # fmt: skip
            answer: Any = None
            try:
                while True:
                    match driver.send(answer):
                        case Try(number):
                            answer = await self._try(call, number, flags)
                            if self._thread is not None and self._thread.overran and unknown.asks(definition):
                                await self._wait_for_thread(self._thread)
                                answer, self._thread = self._thread.late, None
                        case WaitUntil(due_at):
                            await self._wait(due_at)
                            answer = None
                        case Write(entry):
                            await self._write(entry)
                            if self._thread is not None and self._thread.overran:
                                await self._wait_for_thread(self._thread)
                            answer = None
                        case Probe(number):
                            answer = await self._probe(call, number)
                        case Ask(error, number):
                            self.is_trying = False
                            run.ask(run.asking(self._path, definition.name, error, number))
                            return
            except StopIteration as stop:
                outcome: Entry = stop.value
            self.is_trying = False
            if self._thread is not None and self._thread.overran:
                run.strays.add(self._path)
                if self._thread.wait(0):
                    run.strays.discard(self._path)
            run.step_ended(outcome, is_committed=answer is not None and answer.committed is not None)
        except asyncio.CancelledError:
            self.is_trying = False
        except LeaseLost as error:
            self.is_trying = False
            run.step_failed(error)
        except Exception as error:  # noqa: BLE001 - carried to where it is the outcome
            self.is_trying = False
            run.step_failed(error)

    async def _wait_for_thread(self, thread: ThreadTry) -> None:
        """Another try must not run beside the one that overran; nor on another agent, so the run stays here meanwhile."""
        run = self._run
        run.strays.add(self._path)
        began = time.monotonic()
        while not thread.wait(0):
            await asyncio.sleep(0.05)
            if time.monotonic() - began > run.host.settings.grace_seconds:
                run.host.overran(run.fence.task_id)
        run.strays.discard(self._path)

    async def _wait(self, due_at: int) -> None:
        """The pause before the next try: the run may park meanwhile, and then this task is dropped."""
        self.is_trying = False
        self._run.pause_step(self._path, due_at)
        self._heed_stop()
        while (left := due_at - self._run.store.now()) > 0:
            await asyncio.sleep(left / clock.SECOND)
        self.is_trying = True
        self._run.resume_step(self._path)

    async def _write(self, entry: Entry) -> None:
        await self._commit(self._run.append(entry))
        self._run.note(entry)
        self._run.advance()
        self._heed_stop()

    def _heed_stop(self) -> None:
        """End where the run has left or ended in the call before: else the cancel comes at an await, when the next try has begun."""
        if self._stopped:
            raise asyncio.CancelledError

    async def _commit(self, operation: Operation[Any]) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._run.host.submit(operation, done)
        return await future

    async def _try(self, call: StepCall, number: int, flags: int) -> Tried:
        definition = self._definition
        if definition.kind == "transaction":
            return await self._in_a_thread(partial(self._transaction, call, number, flags))
        if definition.isolate:
            isolated = execute.isolated_try(call, number)
            self._kill = isolated.kill
            try:
                return await self._in_a_thread(isolated.run, may_go_on=False)
            finally:
                self._kill = None
        if definition.asynchronous:
            return await self._on_loop(call, number)
        if call.timeout_seconds is not None:
            self._thread = ThreadTry(call, number, on_late_end=self._overrun_ended, on_overrun=partial(strays.goes_on, self._run))
            return await self._in_a_thread(self._thread.run)
        return await self._in_a_thread(partial(execute.run_here, call, number))

    async def _on_loop(self, call: StepCall, number: int) -> Tried:
        """A try of an async step; one that was cancelled ends when its code lets it, perhaps with a result."""
        self._is_on_loop = True
        tried = Tried(clock.wall(), error=asyncio.CancelledError())
        try:
            tried = await execute.run_on_loop(call, number)
        finally:
            self._is_on_loop = False
            if self._stopped:
                self._late_end(tried)
        if self._stopped:
            raise asyncio.CancelledError
        return tried

    async def _probe(self, call: StepCall, number: int) -> Tried:
        probe = self._definition.probed_by
        assert probe is not None
        if probe.asynchronous:
            return unknown.read(await execute.run_on_loop(unknown.ProbeCall.of(call), number))
        return await self._in_a_thread(partial(unknown.run_probe, call, number, None), may_go_on=False)

    async def _in_a_thread(self, function: Any, *, may_go_on: bool = True) -> Tried:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Tried] = loop.create_future()

        def call() -> None:
            tried: Any = None
            error: BaseException | None = None
            try:
                tried = function()
            except BaseException as raised:  # noqa: BLE001 - carried over to the loop
                error = raised
            self._is_in_thread = False
            if self._thread is None or not self._thread.overran:
                self._run.leave_thread()
            try:
                loop.call_soon_threadsafe(settle, tried, error)
            except RuntimeError:
                pass  # The agent left while this thread was busy; the task is claimed again.
            if self._run.host.has_left:
                # Asked for last: a loop takes what it will never do, and who closes it looks for threads that have ended.
                strays.thread_ended(self._run)

        def settle(tried: Any, error: BaseException | None) -> None:
            if self._run.lost or self._run.host.is_draining:
                strays.thread_ended(self._run)
            if self._stopped and may_go_on and tried is not None:
                if self._thread is None or not self._thread.overran:
                    self._late_end(tried)
                if tried.committed is not None:
                    # What comes after it waits for its number.
                    self._run.note(tried.committed)
                    self._run.advance()
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(tried)

        if may_go_on:
            self._is_in_thread = True
        self._run.enter_thread()
        self._run.host.run_in_thread(call)
        return await future

    def _overrun_ended(self, tried: Tried) -> None:
        self._run.leave_thread()
        self._late_end(tried)

    def _late_end(self, tried: Tried) -> None:
        self._run.strays.discard(self._path)
        self._run.host.stray_ended(self._run, self._path, tried)

    def _transaction(self, call: StepCall, number: int, flags: int) -> Tried:
        run = self._run
        made: list[Entry] = []

        def entry_of(output: bytes, started_at: int) -> Entry:
            entry = run.entry(
                call.path, "completed", "transaction", call.definition.name, try_number=number,
                started_at=started_at, input=None if flags & COMPENSABLE else run.kept_input(call.definition, call.data)[0],
                flags=flags & ~COMPENSABLE, data=output,
            )  # fmt: skip
            made.append(entry)
            return entry

        tried = transactional.run_transaction(call, number, entry_of=entry_of, committed=transactional.journal_entry(call, self._run.heed))
        for entry in made:
            if entry is not tried.committed:
                run.host.on_loop(partial(run.void, entry))
        return tried

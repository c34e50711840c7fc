"""The event loop of one run: a deque of handles, drained after each outcome.

Owns what asyncio needs of a loop (`call_soon`, timers, futures, tasks) and nothing else, so that plain asyncio in a workflow is
deterministic by construction: no clock, no I/O, no threads; everything that happens is an outcome delivered in journal order.
`call_later` is a durable timer, `time()` is elapsed time by the journal. Refuses sockets, executors and subprocesses, and names a step as
their place.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..errors import OutsideRun
from ..text.duration import LONGEST
from .branches import Branch
from .in_order import NumberedFuture, NumberedTask, awaited_by, first_number, given_to_as_completed

if TYPE_CHECKING:
    from .async_delivery import AsyncDelivery

log = logging.getLogger("outlast")

_MOST_CLOSES = 100
_stuck: list[Any] = []


class WorkflowLoop(asyncio.AbstractEventLoop):
    """Runs the code of one async workflow on the agent's thread, a burst at a time."""

    _generators: WeakKeyDictionary[AsyncGenerator[Any, Any], contextvars.Context] | None = None
    """Those that have begun; none in most runs, and it is large."""

    def __init__(self, run: AsyncDelivery) -> None:
        self._run = run
        self._ready: deque[asyncio.Handle] = deque()
        self._branches: dict[asyncio.Task[Any], Branch] = {}
        self._contexts: dict[asyncio.Task[Any], contextvars.Context] = {}
        self._main_context = contextvars.Context()
        self._callbacks = Branch("0.")
        self._finalizers = Branch("00.")
        self._main = Branch()
        self._first_number = first_number(run.claimed.chain)
        self._futures = 0
        self._ahead: dict[int, asyncio.Task[Any]] = {}
        self._is_making_ahead = False
        self._is_running = False
        self._is_unwinding = False
        self._is_closed = False
        self.does_not_unwind = False
        """A coroutine waits again whenever it is closed."""

    def drain(self) -> None:
        """Run the code until every branch waits."""
        ready = self._ready
        if not ready:
            return
        outer = self._take_charge()
        self._is_running = True
        try:
            while ready:
                handle = ready.popleft()
                if handle._cancelled:
                    continue
                try:
                    handle._run()
                except (SystemExit, KeyboardInterrupt) as error:
                    # A Task keeps these as its outcome and raises them through its loop as well, which would
                    # end the agent's thread and strand every run that it holds.
                    log.debug("run %s: %r left a task", self._run.claimed.uid, error)
        finally:
            self._is_running = False
            self._let_go(outer)

    def _take_charge(self) -> tuple[Any, Any]:
        """Stand in the place of the agent's loop, for generators too: what they leave open must not be closed outside the run."""
        outer = events._get_running_loop(), sys.get_asyncgen_hooks()
        events._set_running_loop(self)
        sys.set_asyncgen_hooks(self._generator_begins, self._generator_is_left)
        return outer

    def _let_go(self, outer: tuple[Any, Any]) -> None:
        loop, hooks = outer
        sys.set_asyncgen_hooks(*hooks)
        events._set_running_loop(loop)

    def branch(self) -> Branch:
        """The branch of the code that runs now."""
        task = asyncio.current_task(self)
        return self._branches[task] if task is not None else self._callbacks

    def branches(self) -> list[Branch]:
        """Every branch so far, in the order of their making."""
        return list(self._branches.values())

    def unwind(self) -> None:
        """Close every coroutine, the latest first; they leave by `GeneratorExit` and their durable calls raise."""
        self._is_unwinding = True
        outer = self._take_charge()
        try:
            for task in reversed(list(self._branches)):
                task._log_destroy_pending = False
                if task.done():
                    continue
                coroutine: Any = task.get_coro()
                self.does_not_unwind |= not self._within(self._contexts[task], self._closes, coroutine)
            for generator, context in list(self._generators.items()) if self._generators is not None else ():
                self._within(context, self._close_generator, generator)
        finally:
            self._let_go(outer)
            self._is_closed = True
            self._ready.clear()

    @staticmethod
    def _within(context: contextvars.Context, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call it as the code itself would: outside its context a durable call knows no run, and would be a plain one."""
        try:
            return context.run(function, argument)
        except RuntimeError:
            # The code of this very context is what ends the run.
            return context.copy().run(function, argument)

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        task = asyncio.current_task(self)
        if self._generators is None:
            self._generators = WeakKeyDictionary()
        self._generators[generator] = self._contexts[task] if task is not None else self._main_context

    def _generator_is_left(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Nobody refers to a generator that has not ended: a task of the run closes it, as asyncio does."""
        if self._is_unwinding:
            self._within(self._main_context, self._close_generator, generator)
        else:
            self._ready.append(asyncio.Handle(self._close_in_a_task, (generator,), self, self._main_context))

    def _close_in_a_task(self, generator: AsyncGenerator[Any, Any]) -> None:
        # Not on the branch of the code: what has nothing durable to do in its end takes no place there.
        self._new_task(generator.aclose(), self._finalizers.fork(self._run.delivered_seq))

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        closing: Any = generator.aclose()
        try:
            closing.send(None)
        except BaseException as error:  # noqa: BLE001 - what code does while it unwinds is ignored
            log.debug("run %s: %r while unwinding", self._run.claimed.uid, error)
        self._closes(closing)

    def _closes(self, coroutine: Any) -> bool:
        """Close a coroutine; one that waits again in a `finally` is told again, but not for ever."""
        for _ in range(_MOST_CLOSES):
            try:
                coroutine.close()
            except BaseException as error:  # noqa: BLE001 - what code does while it unwinds is ignored
                log.debug("run %s: %r while unwinding", self._run.claimed.uid, error)
            if getattr(coroutine, "cr_frame", None) is None:
                return True
        # Its finalizer would run it again, whenever that comes.
        _stuck.append(coroutine)
        return False

    # What asyncio asks of a loop.

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._is_closed:
            self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        if delay != delay:
            raise ValueError("Invalid delay: NaN (not a number)")  # As asyncio says it.
        timer = asyncio.TimerHandle(self.time() + max(0.0, delay), callback, args, self, context)
        if delay <= 0:
            self._ready.append(timer)
        else:
            self._run.start_timer(timer, min(delay, LONGEST))  # `sleep(inf)` waits until it is cancelled.
        return timer

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def fire(self, timer: asyncio.TimerHandle) -> None:
        """A durable timer is over."""
        if not timer.cancelled():
            self._ready.append(timer)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self._run.cancel_timer(handle)

    def time(self) -> float:
        return self._run.loop_time.at / 1_000_000

    def create_future(self) -> asyncio.Future[Any]:
        self._futures += 1
        return NumberedFuture(self._first_number + self._futures, loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: Any,
    ) -> asyncio.Task[Any]:
        if self._branches:
            try:
                ahead = self._made_ahead(coro)
            except BaseException:
                coro.close()  # It never begins: nobody shall miss it.
                raise
            return ahead or self._new_task(coro, self.branch().fork(self._run.delivered_seq), name, context)
        self._main_context = context = context or contextvars.copy_context()
        return self._new_task(coro, self._main, name, context)

    def _made_ahead(self, coroutine: Any) -> asyncio.Task[Any] | None:
        """The task of what `as_completed` was given: all are made at once, in the order in which it was given them."""
        if self._is_making_ahead or not (given := given_to_as_completed()):
            return None
        one = awaited_by(coroutine)
        if id(one) not in self._ahead:
            self._is_making_ahead = True
            try:
                self._ahead = {id(each): asyncio.ensure_future(each, loop=self) for each in given if not asyncio.isfuture(each)}
            finally:
                self._is_making_ahead = False
        if one is not coroutine:
            coroutine.close()  # Wrapped once more.
        return self._ahead.pop(id(one))

    def _new_task(
        self, coroutine: Any, branch: Branch, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        context = context or contextvars.copy_context()
        name = name or f"branch {branch.prefix}"
        task: Any = NumberedTask(coroutine, self._first_number + len(self._branches), loop=self, name=name, context=context)
        self._branches[task] = branch
        self._contexts[task] = context
        if self._is_unwinding:
            # It never begins: nobody shall miss it.
            task._log_destroy_pending = False
            coroutine.close()
        return task  # type: ignore[no-any-return]

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return self._is_closed

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._is_closed:
            log.warning("run %s: %s", self._run.claimed.uid, context.get("message"), exc_info=context.get("exception"))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    async def shutdown_asyncgens(self) -> None:
        return None

    async def shutdown_default_executor(self) -> None:
        return None


def _refuse(name: str) -> Callable[..., Any]:
    def method(self: WorkflowLoop, *_: Any, **__: Any) -> Any:
        raise OutsideRun(
            f"{name}() needs the outside world, which a workflow's loop does not have.",
            hint="Put this I/O into a step.",
        )

    method.__name__ = name
    return method


_REFUSED = (
    "call_soon_threadsafe", "run_in_executor", "set_default_executor", "getaddrinfo", "getnameinfo",
    "create_connection", "create_server", "start_tls", "sendfile", "create_unix_connection",
    "create_unix_server", "connect_accepted_socket", "create_datagram_endpoint", "connect_read_pipe",
    "connect_write_pipe", "subprocess_shell", "subprocess_exec", "add_reader", "remove_reader", "add_writer",
    "remove_writer", "sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into", "sock_sendall",
    "sock_sendto", "sock_connect", "sock_accept", "sock_sendfile", "add_signal_handler", "remove_signal_handler",
    "run_forever", "run_until_complete", "stop", "close",
)  # fmt: skip
for _name in _REFUSED:
    setattr(WorkflowLoop, _name, _refuse(_name))
WorkflowLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]

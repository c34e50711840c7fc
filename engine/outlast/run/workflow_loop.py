"""The event loop of one run: a deque of handles, drained after each outcome.

Owns what asyncio needs of a loop (`call_soon`, timers, futures, tasks) and nothing else, so that plain asyncio in a workflow is
deterministic by construction: no clock, no I/O, no threads; everything that happens is an outcome delivered in journal order.
`call_later` is a durable timer, `time()` is journal time. Refuses sockets, executors and subprocesses, and names a step as their place.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from ..errors import OutsideRun
from .branches import Branch

if TYPE_CHECKING:
    from .async_run import AsyncRun

log = logging.getLogger("outlast")

_MOST_CLOSES = 100
_stuck: list[Any] = []


class WorkflowLoop(asyncio.AbstractEventLoop):
    """Runs the code of one async workflow on the agent's thread, a burst at a time."""

    def __init__(self, run: AsyncRun) -> None:
        self._run = run
        self._ready: deque[asyncio.Handle] = deque()
        self._branches: dict[asyncio.Task[Any], Branch] = {}
        self._callbacks = Branch("0.")
        self._main = Branch()
        self._is_running = False
        self._is_closed = False
        self.does_not_unwind = False
        """A coroutine waits again whenever it is closed."""

    # -- the burst ------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Run the code until every branch waits."""
        ready = self._ready
        if not ready:
            return
        outer = events._get_running_loop()
        events._set_running_loop(self)
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
            events._set_running_loop(outer)

    def branch(self) -> Branch:
        """The branch of the code that runs now."""
        task = asyncio.current_task(self)
        return self._branches[task] if task is not None else self._callbacks

    def branches(self) -> list[Branch]:
        """Every branch so far, in the order of their making."""
        return list(self._branches.values())

    def unwind(self) -> None:
        """Close every coroutine, the latest first; they leave by `GeneratorExit` and their durable calls raise."""
        outer = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for task in reversed(list(self._branches)):
                task._log_destroy_pending = False
                if task.done():
                    continue
                coroutine: Any = task.get_coro()
                self.does_not_unwind |= not self._closes(coroutine)
        finally:
            events._set_running_loop(outer)
            self._is_closed = True
            self._ready.clear()

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

    # -- what asyncio asks of a loop -----------------------------------------------------------------------

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
        timer = asyncio.TimerHandle(self.time() + max(0.0, delay), callback, args, self, context)
        if delay <= 0:
            self._ready.append(timer)
        else:
            self._run.start_timer(timer, delay)
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
        return self._run.journal_at / 1_000_000

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: Any,
    ) -> asyncio.Task[Any]:
        branch = self.branch().fork(self._run.delivered_seq) if self._branches else self._main
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name or f"branch {branch.prefix}", context=context)
        self._branches[task] = branch
        return task

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

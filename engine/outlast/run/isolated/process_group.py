"""The agent's side of an isolated step: one try in a process group that can be killed at once.

Owns the child's start, the pipes to it, the reading of its outcome, messages and output, and the killing of
its group. Refuses to fork the agent, whose threads may hold locks: the child is a new interpreter
(`child`). Whatever ends a try, its whole group is killed before `wait` returns, so that nothing of
it runs on; only what left the group by `setsid` escapes.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from ... import clock
from ...store.descriptor import beyond_standard
from .call import CALL, COMPLETED, DIED, FAILED, FRAME, MESSAGE, STATUS, IsolatedCall
from .output import Output

_LONGEST_FRAME_BESIDE_PAYLOAD = 4 << 20
_FAREWELL_SECONDS = 2.0
_DRAIN_SECONDS = 5.0
_LONGEST_SLEEP_SECONDS = 10.0
# A real process is measured by the machine's own clock, whatever a test has set.
_machine = clock.SystemClock()


@dataclass(frozen=True, slots=True)
class Completed:
    """The step returned; its result, encoded."""

    output: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The step raised, or its result cannot be stored (`NotStorable`, `PayloadTooLarge`).

    A result that cannot be stored must not lead to another try: the effect has happened.
    """

    error: bytes


@dataclass(frozen=True, slots=True)
class Died:
    """The process ended without a result."""

    how: str
    """As in `killed by signal 11 (SIGSEGV)` and `exited with status 3 without a result`."""


@dataclass(frozen=True, slots=True)
class Killed:
    """`kill` came before any result."""


@dataclass(frozen=True, slots=True)
class Overran:
    """The timeout came before any result."""


IsolatedOutcome = Completed | Failed | Died | Killed | Overran


class IsolatedTry:
    """One try of a step in a child process group.

    `start`, then `wait` in the same or another thread; `kill` from any thread at any time. The callbacks
    run in the thread that waits; an error of theirs ends the try and comes out of `wait`.

    Messages are `{"kind": "publish", "key", "value"}`, `{"kind": "emit", "stream", "value"}`, `{"kind":
    "heartbeat", "value"}` with the value encoded, and `{"kind": "log", "level", "logger", "text", "at"}`,
    `at` in wall microseconds.
    """

    def __init__(
        self,
        call: IsolatedCall,
        *,
        on_output: Callable[[str, str], None] | None,
        on_message: Callable[[dict[str, Any]], None] | None,
        max_payload: int,
    ) -> None:
        self._on_message = on_message
        self._longest_frame = max_payload + _LONGEST_FRAME_BESIDE_PAYLOAD
        self._outputs = {name: Output(name, on_output) for name in ("stdout", "stderr")}
        body = msgspec.msgpack.encode(
            {
                **asdict(call),
                "classes": call.classes(),
                "max_payload": max_payload,
                "pythonpath": os.environ.get("PYTHONPATH"),
            }
        )
        self._to_send = memoryview(CALL.pack(len(body)) + body)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False
        self._is_reaped = False
        self._problem = ""
        self._resources = ExitStack()
        self._selector = selectors.PollSelector()
        self._started_at = 0
        self._frames = bytearray()
        self._result = -1
        self._is_step_gone = False
        self._is_alone = False
        self._status: int | None = None
        self._outcome: Completed | Failed | Died | None = None

    @property
    def pid(self) -> int | None:
        """The child's process, which is also the number of its group."""
        return self._process.pid if self._process is not None else None

    @property
    def dropped_bytes(self) -> dict[str, int]:
        """How much of the output was not handed on."""
        return {name: output.dropped for name, output in self._outputs.items()}

    def start(self) -> None:
        """Start the child. A child that the system does not let start is the outcome `Died`."""
        self._started_at = _machine.elapsed()
        with self._lock:
            if not self._is_killed:
                try:
                    self._spawn()
                except OSError as error:
                    self._problem = f"not started: {error}"

    def wait(self, timeout_seconds: float | None) -> IsolatedOutcome:
        """Wait for the outcome, at most until `timeout_seconds` after the start. Then the group is gone."""
        deadline = None if timeout_seconds is None else self._started_at + _microseconds(timeout_seconds)
        overran = False
        with self._resources:
            if self._process is None:
                return Killed() if self._is_killed else Died(self._problem)
            try:
                overran = self._converse(deadline)
            finally:
                self._end_group()
            self._drain()
            for output in self._outputs.values():
                output.finish()
        if self._outcome is not None:
            # Also where a kill or the timeout came a moment later: to know is better than not to know.
            return self._outcome
        if overran:
            return Overran()
        return Killed() if self._is_killed else Died(self._how())

    def kill(self) -> None:
        """Kill the whole group at once; does nothing when it is gone already."""
        with self._lock:
            self._is_killed = True
            self._signal_group()

    def _spawn(self) -> None:
        ours, theirs = (socket.socket(fileno=beyond_standard(end.detach())) for end in socket.socketpair())
        with ExitStack() as childs:
            self._resources.callback(ours.close)
            childs.callback(theirs.close)
            result, result_of_child = map(beyond_standard, os.pipe())
            self._resources.callback(os.close, result)
            childs.callback(os.close, result_of_child)
            numbers = [str(theirs.fileno()), str(result_of_child), str(os.getpid())]
            flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            process = subprocess.Popen(
                # -P: a file beside the agent's working directory must not stand in for a standard module.
                [sys.executable, *flags, "-P", "-m", "outlast.run.isolated.child", *numbers],
                bufsize=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(theirs.fileno(), result_of_child),
                env=_environment(),
            )
        assert process.stdout is not None
        assert process.stderr is not None
        self._resources.callback(process.stdout.close)
        self._resources.callback(process.stderr.close)
        self._resources.callback(self._selector.close)
        self._process = process
        ours.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, lambda mask: self._attend_control(ours, mask))
        self._result = result
        self._register(result, self._take_result)
        self._register(process.stdout.fileno(), self._outputs["stdout"].feed)
        self._register(process.stderr.fileno(), self._outputs["stderr"].feed)

    def _register(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        os.set_blocking(descriptor, False)

        def read(_: int) -> None:
            data = os.read(descriptor, 1 << 16)
            if data:
                take(data)
                return
            self._selector.unregister(descriptor)
            if descriptor == self._result:
                self._is_step_gone = True

        self._selector.register(descriptor, selectors.EVENT_READ, read)

    def _converse(self, deadline: int | None) -> bool:
        """Send the call and take what comes until the child has ended; whether the deadline came first."""
        farewell: int | None = None
        while self._status is None and not self._is_alone:
            now = _machine.elapsed()
            if self._outcome is not None and farewell is None:
                # What follows an outcome is clean-up: `atexit`, buffers.
                farewell = now + _microseconds(_FAREWELL_SECONDS)
            until = deadline if farewell is None else farewell
            if until is not None and now >= until:
                return farewell is None
            # The sleep does not count a suspend of the machine, so it is not a long one.
            left = _LONGEST_SLEEP_SECONDS if until is None else (until - now) / clock.SECOND
            self._attend(min(left, _LONGEST_SLEEP_SECONDS))
        return False

    def _drain(self) -> None:
        """Take what was written before the kill. The result pipe's end is the end of the step's process.

        Who left the group may hold the pipes open or go on writing, hence the limit.
        """
        until = _machine.elapsed() + _microseconds(_DRAIN_SECONDS)
        while _machine.elapsed() < until:
            if not self._attend(0 if self._is_step_gone else 0.1) and self._is_step_gone:
                return

    def _attend(self, seconds: float) -> bool:
        ready = self._selector.select(seconds)
        for key, mask in ready:
            key.data(mask)
        return bool(ready)

    def _attend_control(self, control: socket.socket, mask: int) -> None:
        try:
            if mask & selectors.EVENT_WRITE:
                self._to_send = self._to_send[control.send(self._to_send) :]
                if not self._to_send:
                    self._selector.modify(control, selectors.EVENT_READ, self._selector.get_key(control).data)
            if mask & selectors.EVENT_READ:
                data = control.recv(STATUS.size)
                if data:
                    (self._status,) = STATUS.unpack(data)
                else:
                    raise ConnectionResetError
        except ConnectionError:
            # The guard is dead: killed with its group, or it never came to guard.
            self._is_alone = True
            self._selector.unregister(control)

    def _take_result(self, data: bytes) -> None:
        if self._outcome is not None:
            return
        self._frames += data
        while self._outcome is None and len(self._frames) >= FRAME.size:
            kind, size = FRAME.unpack_from(self._frames)
            if size > self._longest_frame:
                self._outcome = Died("stopped for writing into the pipe of its result")
                return
            if len(self._frames) < FRAME.size + size:
                return
            body = bytes(self._frames[FRAME.size : FRAME.size + size])
            del self._frames[: FRAME.size + size]
            self._take_frame(kind, body)

    def _take_frame(self, kind: int, body: bytes) -> None:
        if kind == COMPLETED:
            self._outcome = Completed(body)
        elif kind == FAILED:
            self._outcome = Failed(body)
        elif kind == DIED:
            self._outcome = Died(f"{body.decode()} without a result")
        elif kind == MESSAGE and self._on_message is not None:
            self._on_message(msgspec.msgpack.decode(body))

    def _end_group(self) -> None:
        """Kill what is left of the group, and reap the guard. Until then its number cannot be another's."""
        with self._lock:
            self._signal_group()
            if self._process is not None and not self._is_reaped:
                self._process.wait()
                self._is_reaped = True

    def _signal_group(self) -> None:
        if self._process is not None and not self._is_reaped:
            # macOS refuses with EPERM where only zombies are left.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _how(self) -> str:
        status = self._status
        if status is None:
            assert self._process is not None
            status = self._process.returncode
        if status >= 0:
            return f"exited with status {status} without a result"
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "unknown"
        return f"killed by signal {-status} ({name})"


def _microseconds(seconds: float) -> int:
    return round(seconds * clock.SECOND)


def _environment() -> dict[str, str]:
    """The agent's environment, so that the child finds this package; undone before user code runs."""
    root = Path(clock.__file__).parents[1]
    if root.name in ("site-packages", "dist-packages"):
        # Found without help. Named here, all that is installed would go before the standard library.
        return dict(os.environ)
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{before}" if before else str(root)}

"""The child's side of an isolated step: one try, started as `python -m outlast.run.isolated.child`.

Owns two processes in a group of their own. The guard leads the group: it runs no user code, waits until the
step's process ends and says how, and kills the whole group when the agent is gone. The step's process,
forked from the guard while that has one thread, imports the step's module, executes the function and sends
what came of it. Refuses the database: what a step says (`publish`, `emit`, `heartbeat`, logs) goes to the
agent as messages. Refuses arguments other than numbers: a command line is public, an input may be secret.

The guard is a process and not a thread, because a C extension that holds the interpreter's lock would stop
a thread. It is the parent and not a child of the step's process, because a step may wait for all its
children. It watches a socket that the agent holds rather than asking for PR_SET_PDEATHSIG, which tells when
the spawning thread ends and reaches one process only; a pidfd beside it, since a process that the agent
forked may hold the socket too.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import importlib.util
import io
import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from ... import caller, clock, codec
from ...definition import registry
from ...errors import BrokenApp, NotStorable, OutlastError, OutsideRun, PayloadTooLarge
from ...handles import Current, CurrentStep, Undoing
from ..step_caller import StepCaller
from .call import CALL, COMPLETED, DIED, FAILED, FRAME, MESSAGE, STATUS

if TYPE_CHECKING:
    from ...definition import Definition
    from ...handles import Run

_LONGEST_LOG = 8_192
_OUT_OF_MEMORY_SCORE = 500
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Read the call, fork the step's process, and guard it."""
    control, result, agent = (int(argument) for argument in sys.argv[1:])
    os.set_inheritable(control, False)
    os.set_inheritable(result, False)
    if os.getpgrp() != os.getpid():
        sys.exit("outlast.run.isolated.child is started by an agent, as the leader of its own process group.")
    call = _receive(control)
    # A mask is inherited from the thread that spawned this process.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (control, awake, wake):
            os.close(descriptor)
        _execute(msgspec.msgpack.decode(call), result)
    os.close(result)
    _guard(child, control, awake, agent)


def _receive(control: int) -> bytes:
    (size,) = CALL.unpack(_receive_exactly(control, CALL.size))
    return _receive_exactly(control, size)


def _receive_exactly(control: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(control, min(size - len(data), 1 << 20))
        if not part:
            os._exit(1)  # The agent is gone before anything began.
        data += part
    return bytes(data)


def _guard(child: int, control: int, awake: int, agent: int) -> NoReturn:
    """Say how the step's process ends; kill the group once the agent is gone."""
    for number in _IGNORED:
        # What the step sends to its own group must not end the guard.
        signal.signal(number, signal.SIG_IGN)
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(awake, select.POLLIN)
    if sys.platform == "linux":
        try:
            poller.register(os.pidfd_open(agent), select.POLLIN)
        except OSError:
            pass  # An old kernel, or a sandbox: the socket tells.
    if os.getppid() != agent:
        os.kill(0, signal.SIGKILL)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor != awake:
                os.kill(0, signal.SIGKILL)
            os.read(awake, 1024)
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                poller.unregister(awake)
                # From here the guard only keeps the group's number in use, until the agent kills the rest.
                os.write(control, STATUS.pack(os.waitstatus_to_exitcode(status)))


def _execute(call: dict[str, Any], result: int) -> NoReturn:
    """Be the step's process."""
    pid = os.getpid()
    faulthandler.enable()
    _prefer_to_lose_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    channel = _Channel(result, call["max_payload"])
    try:
        kind, data = _outcome(call, channel)
    except SystemExit as error:
        if os.getpid() != pid:
            os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
        kind, data = DIED, f"ended by sys.exit({'' if error.code is None else repr(error.code)})".encode()
    except BaseException as error:  # noqa: BLE001 - what is no Exception ends a process, and this is its end
        traceback.print_exc()
        kind, data = DIED, f"ended by {type(error).__name__}".encode()
    if os.getpid() != pid:
        # The step forked, and this is the other one of the two: it has no outcome to send.
        os._exit(1)
    for stream in (sys.stdout, sys.stderr):
        _quietly(stream.flush)
    channel.send(kind, data)
    # The agent gives this a moment, then kills the group. Threads that the step left are not waited for.
    _quietly(atexit._run_exitfuncs)
    for stream in (sys.stdout, sys.stderr):
        _quietly(stream.flush)
    os._exit(0)


def _outcome(call: dict[str, Any], channel: _Channel) -> tuple[int, bytes]:
    """Execute the call; what came of it, encoded."""
    try:
        _become_like_the_agent(call)
        logging.getLogger().addHandler(_LogForwarder(channel))
        logging.getLogger().setLevel(logging.INFO)
        for name in call["classes"]:
            importlib.import_module(name)
        definition = _definition(_load(call["module"], call["file"]), call)
        # An engine that the module creates is not for this process: it would open the file.
        caller.start_outside = None
        arguments = definition.signature.call if call["part"] == "fn" else definition.spelled_out
        args, kwargs = arguments(codec.decode(call["input"]))
        leading = codec.decode(call["leading"])
        facts = _facts(call["facts"], channel)
        caller.active.set(_IsolatedCaller(lambda: facts, channel.publish, channel.emit))
    except Exception as error:  # noqa: BLE001 - a stranger's module may raise anything
        return FAILED, codec.encode_error(error)
    try:
        value = _function(definition, call["part"])(*leading, *args, **kwargs)
        if call["asynchronous"]:
            import asyncio

            value = asyncio.run(value)
    except Exception as error:  # noqa: BLE001 - whatever the step raises is its outcome
        own = error.__traceback__
        return FAILED, codec.encode_error(error.with_traceback(own.tb_next if own else None))
    try:
        return COMPLETED, channel.encode(value, f"the result of {definition.name}")
    except (NotStorable, PayloadTooLarge) as error:
        return FAILED, codec.encode_error(error)


def _become_like_the_agent(call: dict[str, Any]) -> None:
    sys.path[:] = call["agent_path"]
    sys.argv[1:] = []
    if call["pythonpath"] is None:
        os.environ.pop("PYTHONPATH", None)
    else:
        os.environ["PYTHONPATH"] = call["pythonpath"]


def _load(name: str, file: str | None) -> ModuleType:
    """The step's module under its dotted name, from `file` where that name does not lead to it."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        found = None
    if file is None or not Path(file).exists() or (found is not None and _is_same(found.origin, file)):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BrokenApp(f"{file} is not a Python file that an isolated step could be imported from.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _is_same(one: str | None, other: str) -> bool:
    try:
        return one is not None and Path(one).samefile(other)
    except OSError:
        return False


def _definition(module: ModuleType, call: dict[str, Any]) -> Definition:
    """The definition of the function, from the registry: the function's name may lead to something else."""
    name, qualname = call["facts"]["step"]["name"], call["qualname"]
    fitting = [d for d in registry.steps() if d.module == module.__name__ and d.fn.__qualname__ == qualname]
    for definition in fitting:
        if definition.name == name:
            return definition
    if fitting:
        return fitting[0]
    raise BrokenApp(
        f"{module.__name__} defines no step {qualname} when a child process imports it.",
        hint="Define it at the top of its module, whatever the process.",
    )


def _function(definition: Definition, part: str) -> Callable[..., Any]:
    chosen = {"compensation": definition.compensated_by, "probe": definition.probed_by}.get(part)
    return definition.fn if chosen is None else chosen.fn


def _facts(facts: dict[str, Any], channel: _Channel) -> Current:
    return Current(
        run_id=facts["run_id"],
        workflow=facts["workflow"],
        parent_id=facts["parent_id"],
        tags=facts["tags"],
        tick=datetime.fromisoformat(facts["tick"]) if facts["tick"] is not None else None,
        idempotency_key=facts["idempotency_key"],
        step=CurrentStep(**facts["step"]),
        undoing=Undoing(facts["undoing"]) if facts["undoing"] is not None else None,
        _heartbeat=channel.heartbeat,
    )


class _IsolatedCaller(StepCaller):
    """The try of an isolated step."""

    def start(self, workflow: Any, *_: Any) -> Run[Any]:
        raise OutsideRun(
            f"{workflow.name}.start(...) was called inside an isolated step, which does not open the file.",
            hint="Start it in the workflow, or in a step without isolate=True.",
        )


class _Channel:
    """The result pipe: what the step says, and at last what came of it. Any thread may write."""

    def __init__(self, descriptor: int, max_payload: int) -> None:
        self._descriptor = descriptor
        self._max_payload = max_payload
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def send(self, kind: int, data: bytes) -> None:
        with self._lock:
            rest = memoryview(FRAME.pack(kind, len(data)) + data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def say(self, **message: object) -> None:
        if os.getpid() != self._pid:
            # Two processes in one pipe would write into each other's frames.
            raise OutsideRun(
                f"{message['kind']} was called in a process that the step has forked.",
                hint="Send it to the step's own process, and call it there.",
            )
        self.send(MESSAGE, msgspec.msgpack.encode(message))

    def encode(self, value: object, place: str) -> bytes:
        data = codec.encode(value, place=place)
        if len(data) > self._max_payload:
            raise PayloadTooLarge(place, len(data), self._max_payload)
        return data

    def publish(self, key: str, value: object) -> None:
        self.say(kind="publish", key=key, value=self.encode(value, f"published {key!r}"))

    def emit(self, stream: str, value: object) -> None:
        self.say(kind="emit", stream=stream, value=self.encode(value, f"message on {stream!r}"))

    def heartbeat(self, progress: object) -> None:
        self.say(kind="heartbeat", value=self.encode(progress, "progress"))


class _LogForwarder(logging.Handler):
    """Sends what the code logs."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__(logging.INFO)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
            text = text if len(text) <= _LONGEST_LOG else f"{text[: _LONGEST_LOG - 1]}…"
            self._channel.say(
                kind="log",
                level=record.levelname,
                logger=record.name,
                text=text.encode("utf-8", "backslashreplace").decode(),
                at=round(record.created * clock.SECOND),
            )
        except (OSError, OutlastError):
            pass  # The agent is gone, or this is a fork of the step.
        except Exception:  # noqa: BLE001 - a record whose arguments do not fit, as logging itself treats it
            self.handleError(record)


def _prefer_to_lose_memory() -> None:
    # A leak stays in the step: where memory runs out, this process goes before its agent.
    try:
        Path("/proc/self/oom_score_adj").write_text(str(_OUT_OF_MEMORY_SCORE))
    except OSError:
        pass


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except BaseException:  # noqa: BLE001 - the outcome is decided, or is sent next
        pass


if __name__ == "__main__":
    main()

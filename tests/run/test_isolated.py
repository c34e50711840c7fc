"""An isolated step's try, with real processes: how it ends, what it says, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

import outlast
from outlast import codec
from outlast.errors import InvalidDefinition, NotStorable, OutsideRun, PayloadTooLarge, StepDied
from outlast.handles import Current, CurrentStep
from outlast.run.isolated import process_group
from outlast.run.isolated.call import IsolatedCall
from outlast.run.isolated.output import LONGEST_LINE, MOST_OUTPUT, Output
from outlast.run.isolated.process_group import (
    Completed,
    Died,
    Failed,
    IsolatedOutcome,
    IsolatedTry,
    Killed,
    Overran,
)

pytestmark = pytest.mark.crash

ENGINE = str(Path(outlast.__file__).parents[1])

STEPS = '''
import asyncio, atexit, ctypes, dataclasses, logging, os, signal, subprocess, sys, threading, time
import outlast

class Refused(Exception):
    def __init__(self, code, *, reason):
        super().__init__(f"refused: {reason}")
        self.code = code

@dataclasses.dataclass
class Point:
    x: int

def isolated(fn):
    return outlast.step(isolate=True)(fn)

@isolated
def add(a, b=2):
    return a + b

@isolated
def shift(point):
    return Point(point.x + 1)

@isolated
async def later(a):
    await asyncio.sleep(0)
    return [a, outlast.current().step.name]

@isolated
def refuse():
    raise Refused(7, reason="limit")

@isolated
def return_object():
    return object()

@isolated
def return_much(size):
    return "x" * size

@isolated
def end(how):
    match how:
        case "segfault": ctypes.string_at(0)
        case "_exit": os._exit(3)
        case "sys.exit": sys.exit("enough")
        case "interrupt": raise KeyboardInterrupt
        case "kill": os.kill(os.getpid(), signal.SIGKILL)
        case "group": os.kill(0, signal.SIGKILL)
        case "close": os.closerange(3, 4096)

@isolated
def hang(folder):
    """Hang with a grandchild, both named in files."""
    started = subprocess.Popen(["sleep", "1000"])
    open(f"{folder}/grandchild.new", "w").write(str(started.pid))
    os.rename(f"{folder}/grandchild.new", f"{folder}/grandchild")
    open(f"{folder}/self.new", "w").write(str(os.getpid()))
    os.rename(f"{folder}/self.new", f"{folder}/self")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    ctypes.PyDLL(None).sleep(1000)  # Holds the interpreter's lock.

@isolated
def leave_a_grandchild(folder):
    started = subprocess.Popen(["sleep", "1000"])
    open(f"{folder}/grandchild", "w").write(str(started.pid))

@isolated
def wait_for_all_children():
    child = subprocess.Popen(["true"])  # Kept, since a dropped Popen reaps its child.
    ended = 0
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return ended
        ended += 1

@isolated
def chatter(megabytes):
    line = "x" * 99 + "\\n"
    for _ in range(megabytes):
        sys.stdout.write(line * 10_000)
    sys.stderr.write("y" * 10_000_000 + "\\nlast")

@isolated
def speak():
    print("to stdout", flush=True)
    subprocess.run(["sh", "-c", "echo from a subprocess >&2"])
    outlast.publish("progress", {1: 2})
    outlast.emit("tokens", "a")
    outlast.current().heartbeat(0.5)
    logging.getLogger("shop").info("charged %s", 5)
    logging.getLogger("shop").debug("not this")
    return add(1)

@isolated
def publish_much():
    outlast.publish("progress", "x" * 100_000)

@isolated
def know():
    me = outlast.current()
    return [me.run_id, me.workflow, me.tags, me.tick, me.idempotency_key, me.step.path, me.step.try_number]

@isolated
def look_around():
    return [sys.path, os.environ.get("PYTHONPATH"), sys.argv[1:]]

@isolated
def fork():
    if os.fork() == 0:
        return "the fork"
    os.wait()
    return "the step"

@isolated
def tidy_up(file):
    atexit.register(lambda: open(file, "w").write("tidy"))
    threading.Thread(target=time.sleep, args=(1000,)).start()
    return 1

@outlast.workflow
def shop():
    pass

@isolated
def start_a_run():
    shop.start()

@isolated
def pay(amount):
    return amount

@pay.compensation
def repay(result, amount):
    return [result, amount]

@pay.probe
def paid(amount):
    return amount + 1
'''


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The steps, in a package of a folder that only `sys.path` names."""
    package = tmp_path / "app" / "shop_of_the_tests"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "steps.py").write_text(STEPS)
    monkeypatch.syspath_prepend(str(tmp_path / "app"))
    from outlast.definition import registry

    with registry.isolated():
        yield import_module("shop_of_the_tests.steps")
    for name in [name for name in sys.modules if name.startswith("shop_of_the_tests")]:
        del sys.modules[name]


class Sink:
    """Keeps what a try says."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.messages: list[dict[str, Any]] = []

    def output(self, stream: str, line: str) -> None:
        self.lines.append((stream, line))


def call_of(definition: Any, **arguments: Any) -> IsolatedCall:
    step = CurrentStep(definition.name, "pay#1", 2)
    facts = Current("run1", "shop", None, {"tenant": "a"}, None, "run1/pay#1", step)
    return IsolatedCall.of(definition, codec.encode(arguments), facts)


def prepared(definition: Any, sink: Sink | None = None, *, limit: int = 1 << 20, **arguments: Any) -> IsolatedTry:
    sink = sink or Sink()
    call = call_of(definition, **arguments)
    return IsolatedTry(call, on_output=sink.output, on_message=sink.messages.append, max_payload=limit)


def execute(definition: Any, sink: Sink | None = None, *, limit: int = 1 << 20, **arguments: Any) -> IsolatedOutcome:
    tried = prepared(definition, sink, limit=limit, **arguments)
    tried.start()
    return tried.wait(60)


def error_of(outcome: IsolatedOutcome) -> BaseException:
    assert isinstance(outcome, Failed)
    return codec.decode_error(outcome.error)


def eventually(fact: Callable[[], Any], *, seconds: float = 20) -> Any:
    """What `fact` gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.005)
    return found


def pid_in(file: Path) -> int:
    return int(eventually(lambda: file.exists() and file.read_text()))


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_result_comes_back_encoded(steps: Any) -> None:
    assert execute(steps.add, a=1) == Completed(b"3")


def test_an_async_step_is_run_to_its_end(steps: Any) -> None:
    assert execute(steps.later, a=1) == Completed(b'[1,"later"]')


def test_a_value_of_the_apps_own_class_goes_there_and_back(steps: Any) -> None:
    outcome = execute(steps.shift, point=steps.Point(1))
    assert isinstance(outcome, Completed)
    assert codec.decode(outcome.output) == steps.Point(2)


def test_an_error_matches_by_its_class_and_keeps_its_facts(steps: Any) -> None:
    error = error_of(execute(steps.refuse))
    assert isinstance(error, steps.Refused)
    assert (str(error), error.code) == ("refused: limit", 7)


def test_a_result_that_cannot_be_stored_is_a_failure_that_names_it(steps: Any) -> None:
    error = error_of(execute(steps.return_object))
    assert isinstance(error, NotStorable)
    assert "the result of return_object" in str(error)


def test_a_result_over_the_limit_is_refused(steps: Any) -> None:
    error = error_of(execute(steps.return_much, limit=1000, size=1000))
    assert isinstance(error, PayloadTooLarge)
    assert isinstance(execute(steps.return_much, limit=1000, size=900), Completed)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("segfault", "killed by signal 11 (SIGSEGV)"),
        ("_exit", "exited with status 3 without a result"),
        ("sys.exit", "ended by sys.exit('enough') without a result"),
        ("interrupt", "ended by KeyboardInterrupt without a result"),
        ("kill", "killed by signal 9 (SIGKILL)"),
        ("group", "killed by signal 9 (SIGKILL)"),
        ("close", "exited with status 1 without a result"),
    ],
)
def test_a_process_that_ends_without_a_result_says_how(steps: Any, how: str, said: str) -> None:
    assert execute(steps.end, how=how) == Died(said)


def test_a_segfault_leaves_a_traceback_among_the_output(steps: Any) -> None:
    sink = Sink()
    execute(steps.end, sink, how="segfault")
    assert any("Fatal Python error: Segmentation fault" in line for _, line in sink.lines)


def test_a_step_that_died_is_an_error_that_survives_storing() -> None:
    error = codec.decode_error(codec.encode_error(StepDied("pay", "killed by signal 9 (SIGKILL)")))
    assert isinstance(error, StepDied)
    assert str(error).startswith("Step pay died: killed by signal 9 (SIGKILL).")


def test_a_timeout_kills_the_grandchildren_too(steps: Any, tmp_path: Path) -> None:
    tried = prepared(steps.hang, folder=str(tmp_path))
    tried.start()
    outcome = tried.wait(2.5)
    assert outcome == Overran()
    eventually(lambda: is_gone(pid_in(tmp_path / "self")), seconds=1)
    eventually(lambda: is_gone(pid_in(tmp_path / "grandchild")), seconds=1)


def test_a_kill_ends_a_step_that_holds_the_interpreters_lock(steps: Any, tmp_path: Path) -> None:
    tried = prepared(steps.hang, folder=str(tmp_path))
    tried.start()
    outcomes: list[IsolatedOutcome] = []
    waiter = threading.Thread(target=lambda: outcomes.append(tried.wait(None)))
    waiter.start()
    step = pid_in(tmp_path / "self")
    tried.kill()
    tried.kill()
    waiter.join(5)
    assert outcomes == [Killed()]
    eventually(lambda: is_gone(step), seconds=1)
    eventually(lambda: is_gone(pid_in(tmp_path / "grandchild")), seconds=1)
    tried.kill()


def test_a_kill_before_the_start_starts_nothing(steps: Any) -> None:
    tried = prepared(steps.add, a=1)
    tried.kill()
    tried.start()
    assert tried.wait(None) == Killed()
    assert tried.pid is None


def test_nothing_of_a_step_that_returned_is_left(steps: Any, tmp_path: Path) -> None:
    assert isinstance(execute(steps.leave_a_grandchild, folder=str(tmp_path)), Completed)
    eventually(lambda: is_gone(pid_in(tmp_path / "grandchild")), seconds=1)


def test_no_descriptor_of_a_try_is_left(steps: Any) -> None:
    before = psutil.Process().num_fds()
    execute(steps.add, a=1)
    execute(steps.end, how="kill")
    assert psutil.Process().num_fds() == before


def test_a_step_may_wait_for_all_of_its_children(steps: Any) -> None:
    assert execute(steps.wait_for_all_children) == Completed(b"1")


def test_a_step_that_forks_has_one_outcome(steps: Any) -> None:
    assert execute(steps.fork) == Completed(b'"the step"')


def test_exit_functions_run_and_threads_that_are_left_hold_up_nobody(steps: Any, tmp_path: Path) -> None:
    began = time.monotonic()
    assert execute(steps.tidy_up, file=str(tmp_path / "tidy")) == Completed(b"1")
    assert time.monotonic() - began < 30
    assert (tmp_path / "tidy").read_text() == "tidy"


def test_a_hundred_megabytes_of_output_neither_block_nor_fill_the_memory(steps: Any) -> None:
    sink = Sink()
    tried = prepared(steps.chatter, sink, megabytes=100)
    before = psutil.Process().memory_info().rss
    tried.start()
    assert isinstance(tried.wait(100), Completed)
    assert psutil.Process().memory_info().rss - before < 32 << 20
    assert sum(len(line) for _, line in sink.lines) < 2 * (MOST_OUTPUT + 4 * LONGEST_LINE)
    dropped = tried.dropped_bytes
    assert 100_000_000 - MOST_OUTPUT - 100_000 < dropped["stdout"] < 100_000_000
    errors = [line for stream, line in sink.lines if stream == "stderr"]
    assert errors == ["y" * LONGEST_LINE + "…", "last"]
    assert dropped["stderr"] == 10_000_000 - LONGEST_LINE


def test_of_too_much_output_the_beginning_and_the_end_are_kept() -> None:
    lines: list[str] = []
    output = Output("stdout", lambda _, line: lines.append(line))
    sent = [f"line {number}" for number in range(300_000)]
    data = "".join(f"{line}\n" for line in sent).encode()
    for start in range(0, len(data), 65_536):
        output.feed(data[start : start + 65_536])
    output.finish()
    mark = next(index for index, line in enumerate(lines) if line.startswith("…"))
    assert lines[:mark][:-1] == sent[: mark - 1]
    assert lines[mark] == f"… {output.dropped:,} bytes of stdout were dropped …"
    assert lines[mark + 1 :] == sent[-len(lines[mark + 1 :]) :]
    assert len(lines[mark + 1 :]) > 500


def test_what_a_step_says_reaches_the_agent(steps: Any) -> None:
    sink = Sink()
    assert execute(steps.speak, sink) == Completed(b"3")
    assert ("stdout", "to stdout") in sink.lines
    assert ("stderr", "from a subprocess") in sink.lines
    publish, emit, beat, log = sink.messages
    assert (publish["kind"], publish["key"], codec.decode(publish["value"])) == (
        "publish",
        "progress",
        {1: 2},
    )
    assert emit == {"kind": "emit", "stream": "tokens", "value": b'"a"'}
    assert beat == {"kind": "heartbeat", "value": b"0.5"}
    assert (log["kind"], log["level"], log["logger"], log["text"]) == ("log", "INFO", "shop", "charged 5")


def test_a_published_value_over_the_limit_is_refused_where_it_is_published(steps: Any) -> None:
    assert isinstance(error_of(execute(steps.publish_much, limit=1000)), PayloadTooLarge)


def test_an_error_of_a_callback_ends_the_try_and_comes_out_of_wait(steps: Any, tmp_path: Path) -> None:
    def refuse(message: dict[str, Any]) -> None:
        raise LookupError(message["kind"])

    tried = IsolatedTry(call_of(steps.speak), on_output=None, on_message=refuse, max_payload=1 << 20)
    tried.start()
    with pytest.raises(LookupError, match="publish"):
        tried.wait(60)
    assert tried.pid is not None
    assert is_gone(tried.pid)


def test_a_step_knows_its_run(steps: Any) -> None:
    outcome = execute(steps.know)
    assert isinstance(outcome, Completed)
    assert codec.decode(outcome.output) == ["run1", "shop", {"tenant": "a"}, None, "run1/pay#1", "pay#1", 2]


def test_a_step_finds_the_agents_path_and_environment(steps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    outcome = execute(steps.look_around)
    assert isinstance(outcome, Completed)
    assert codec.decode(outcome.output) == [sys.path, "/nowhere", []]
    # Until user code runs, the folder of the package is before it: that of a checkout may be on no path of a new process.
    assert process_group._environment()["PYTHONPATH"] == f"{ENGINE}{os.pathsep}/nowhere"


def test_a_module_that_its_name_does_not_lead_to_is_loaded_from_its_file(steps: Any, tmp_path: Path) -> None:
    call = replace(call_of(steps.add, a=1), module="elsewhere.steps")
    tried = IsolatedTry(call, on_output=None, on_message=None, max_payload=1 << 20)
    tried.start()
    assert tried.wait(60) == Completed(b"3")


def test_a_compensation_and_a_probe_run_isolated_too(steps: Any) -> None:
    call = call_of(steps.pay, amount=5)
    for chosen, expected in (
        (replace(call, part="compensation", leading=b'["p1"]'), b'["p1",5]'),
        (replace(call, part="probe"), b"6"),
    ):
        tried = IsolatedTry(chosen, on_output=None, on_message=None, max_payload=1 << 20)
        tried.start()
        assert tried.wait(60) == Completed(expected)


def test_a_run_cannot_be_started_in_a_process_that_does_not_open_the_file(steps: Any) -> None:
    error = error_of(execute(steps.start_a_run))
    assert isinstance(error, OutsideRun)
    assert "shop.start(...)" in str(error)


def test_a_step_of_main_is_refused(steps: Any) -> None:
    with pytest.raises(InvalidDefinition, match="in __main__"):
        replace(call_of(steps.add, a=1), module="__main__")


def test_an_argument_of_a_class_of_main_is_refused(steps: Any) -> None:
    stored = codec.encode({"point": steps.Point(1)}).replace(b'"shop_of_the_tests.steps:', b'"__main__:')
    with pytest.raises(InvalidDefinition, match="in __main__"):
        replace(call_of(steps.shift, point=None), input=stored)


def test_an_input_is_in_no_command_line_and_in_no_environment(steps: Any, tmp_path: Path) -> None:
    secret = tmp_path / "s3cret"
    secret.mkdir()
    tried = prepared(steps.hang, folder=str(secret))
    tried.start()
    waiter = threading.Thread(target=lambda: tried.wait(None))
    waiter.start()
    try:
        step = pid_in(secret / "self")
        assert tried.pid is not None
        for pid in (tried.pid, step):
            for name in ("cmdline", "environ"):
                assert b"s3cret" not in Path(f"/proc/{pid}/{name}").read_bytes()
    finally:
        tried.kill()
        waiter.join()


AGENT = """
import sys
sys.path.insert(0, sys.argv[1])
from shop_of_the_tests import steps
from outlast import codec
from outlast.handles import Current, CurrentStep
from outlast.run.isolated.process_group import IsolatedTry
from outlast.run.isolated.call import IsolatedCall

facts = Current("run1", "shop", None, {}, None, "k", CurrentStep("hang", "hang#1", 1))
call = IsolatedCall.of(steps.hang, codec.encode({"folder": sys.argv[2]}), facts)
tried = IsolatedTry(call, on_output=None, on_message=None, max_payload=1 << 20)
tried.start()
if sys.argv[3] == "fork":
    # A fork of the agent keeps the agent's end of the socket open.
    import os, time
    if os.fork() == 0:
        open(f"{sys.argv[2]}/fork", "w").write(str(os.getpid()))
        time.sleep(1000)
tried.wait(None)
"""


@pytest.mark.parametrize("forks", ["fork", "none"])
def test_the_group_dies_with_its_agent_even_where_it_holds_the_interpreters_lock(steps: Any, tmp_path: Path, forks: str) -> None:
    if forks == "fork" and not hasattr(os, "pidfd_open"):
        pytest.skip("needs pidfd")
    agent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(AGENT), str(tmp_path / "app"), str(tmp_path), forks],
        env=os.environ | {"PYTHONPATH": ENGINE},
    )
    try:
        step = pid_in(tmp_path / "self")
        grandchild = pid_in(tmp_path / "grandchild")
        guard = os.getpgid(step)
        assert not is_gone(step)
    finally:
        agent.send_signal(signal.SIGKILL)
        agent.wait()
    try:
        eventually(lambda: all(map(is_gone, (step, grandchild, guard))), seconds=2)
    finally:
        if forks == "fork":
            os.kill(pid_in(tmp_path / "fork"), signal.SIGKILL)


STREAMLESS_AGENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from shop_of_the_tests import steps
from outlast import codec
from outlast.handles import Current, CurrentStep
from outlast.run.isolated.process_group import Completed, IsolatedTry
from outlast.run.isolated.call import IsolatedCall

facts = Current("run1", "shop", None, {}, None, "k", CurrentStep("add", "add#1", 1))
call = IsolatedCall.of(steps.add, codec.encode({"a": 1}), facts)
tried = IsolatedTry(call, on_output=None, on_message=None, max_payload=1 << 20)
for number in range(3):
    os.close(number)
tried.start()
outcome = tried.wait(None)
os._exit(7 if isinstance(outcome, Completed) and codec.decode(outcome.output) == 3 else 1)
"""


def test_an_agent_whose_standard_streams_a_step_has_closed_isolates_the_next(steps: Any, tmp_path: Path) -> None:
    agent = subprocess.run(
        [sys.executable, "-c", STREAMLESS_AGENT, str(tmp_path / "app")],
        env=os.environ | {"PYTHONPATH": ENGINE}, timeout=60, check=False,
    )  # fmt: skip
    assert agent.returncode == 7

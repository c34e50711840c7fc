"""The command line as real processes: pipes, signals, the launcher of the checkout, the demo."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.cli import output
from outlast.cli.roles import run_role
from outlast.store.library import sqlite3

from .conftest import REPOSITORY, Call, environment


def eventually(look: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def begin(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "outlast", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def test_a_role_ends_by_a_sigterm_that_a_callback_of_the_interpreter_has_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "was_terminated", True)
    assert run_role(lambda: pytest.fail("it lives on"), lambda: None) == 143


def test_a_reader_that_has_gone_ends_a_command_quietly(outlast: Call, project: Path) -> None:
    for _ in range(3):
        assert outlast("start", "waits").code == 0
    command = f"for i in 1; do {sys.executable} -m outlast runs --jsonl; done | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)
    assert done.stderr == ""
    read, write = os.pipe()
    os.close(read)
    broken = subprocess.run(
        [sys.executable, "-m", "outlast", "runs"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(write)
    assert broken.stderr == b""
    assert broken.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_output_is_one_sentence(process: Call) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "outlast", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1


def test_the_launcher_works_from_any_folder(process: Call, project: Path) -> None:
    done = process("workflows", "--app", "workflows", "--db", "x.db", program=(str(REPOSITORY / "cli.py"),))
    assert done.code == 0, done.err
    assert "add" in done.out


IS_THERE = {
    "agent": "select 1 from outlast_agent",
    "supervisor": "select 1 from outlast_task where status = 'failed'",
    "scheduler": "select 1 from outlast_scheduler",
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("role", list(IS_THERE))
def test_a_role_drains_on_a_signal_and_says_which(process: Call, project: Path, role: str, number: signal.Signals, code: int) -> None:
    process("start", "waits")
    connection = sqlite3.connect(project / "outlast.db", isolation_level=None)
    # A run that is late tells that a supervisor is at work: it ends it.
    connection.execute("update outlast_task set deadline_at = 1")
    role_process = begin(role)
    eventually(lambda: connection.execute(IS_THERE[role]).fetchone())
    connection.close()
    role_process.send_signal(number)
    _, err = role_process.communicate(timeout=20)
    assert role_process.returncode == code, err
    assert "Traceback" not in err


def test_what_a_workflow_prints_stays_out_of_the_answer(process: Call) -> None:
    pytest.importorskip("outlast.agent")
    done = process("run", "talks", "--json")
    assert done.out == '"value"\n'
    assert "printed" in done.err
    assert "echoed" in done.err


def test_up_keeps_agents_alive_and_says_what_happens(process: Call) -> None:
    pytest.importorskip("outlast.node")
    node = begin("up", "--agents", "1")
    try:
        eventually(lambda: process("agents", "--json").out.count('"active"') == 1)
        first = process("agents", "--json").json[0]["pid"]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: [one["pid"] for one in process("agents", "--json").json] not in ([], [first]))
        assert process("start", "add", "a=1", "--wait").code == 0
    finally:
        node.send_signal(signal.SIGTERM)
        _, err = node.communicate(timeout=30)
    assert node.returncode == 143, err
    assert "Created" in err
    assert str(first) in err


def test_a_locked_file_is_exit_7(process: Call, project: Path) -> None:
    process("start", "waits", "--key", "k")
    connection = sqlite3.connect(project / "outlast.db", isolation_level=None)
    connection.execute("begin immediate")
    try:
        agent = begin("agent", "--once")
        done = process("cancel", "waits:k", "--json")
        _, err = agent.communicate(timeout=20)
    finally:
        connection.close()
    assert done.code == 7, done.err
    assert done.error["type"] == "StoreLocked"
    # With nothing to hold yet, an agent does not wait without a word.
    assert agent.returncode == 7
    assert "has been locked by another process" in err


def test_ctrl_c_leaves_a_run_that_goes_on_later(process: Call) -> None:
    pytest.importorskip("outlast.agent")
    running = begin("run", "waits", "--key", "k")
    eventually(lambda: '"waiting"' in process("show", "waits:k", "--json").out)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130, err
    assert "stays" in err
    assert process("signal", "waits:k", "go", "7").code == 0
    done = process("run", "waits", "--key", "k")
    assert done.code == 0, done.err
    assert done.out == "7\n"


def test_start_with_wait_follows_the_run_to_its_end(process: Call) -> None:
    pytest.importorskip("outlast.agent")
    process("migrate")
    agent = begin("agent")
    try:
        done = process("start", "fails", "--wait")
        assert done.code == 1
        assert "ValueError: no luck" in done.err
        assert process("start", "add", "a=1", "--wait", "--json").json["output"]["sum"] == 3
    finally:
        agent.terminate()
        agent.communicate(timeout=20)


@pytest.mark.crash
def test_the_demo_kills_an_agent_and_the_order_ends_as_it_should(process: Call) -> None:
    pytest.importorskip("outlast.agent")
    done = process("demo", "--json")
    assert done.code == 0, done.err
    shown = done.json
    assert shown["ok"]
    assert shown["run"]["status"] == "compensated"
    assert {line["pid"] for line in shown["ledger"]} > {shown["killed_pid"]}


def test_the_demo_tells_what_happens(process: Call) -> None:
    pytest.importorskip("outlast.agent")
    done = process("demo")
    assert re.fullmatch(r"Created .*outlast\.db\.\n", done.err)
    out = done.out
    assert "kill -9" in out
    assert "not charged twice" in out


SCHEDULED = """
from outlast import workflow


@workflow(schedule="{}")
def planned() -> None: ...
"""


def test_up_reload_takes_up_schedules_that_change_in_the_code(project: Path) -> None:
    file = project / "workflows" / "planned.py"
    file.write_text(SCHEDULED.format("0 2 * * *"))
    rule = "select rule from outlast_schedule where name = 'planned'"

    def is_now(cron: str) -> bool:
        if not (project / "outlast.db").exists():
            return False
        connection = sqlite3.connect(project / "outlast.db")
        try:
            return any(cron in text for (text,) in connection.execute(rule).fetchall())
        except sqlite3.Error:
            return False  # It is being made.
        finally:
            connection.close()

    node = begin("up", "--reload", "--agents", "1")
    try:
        eventually(lambda: is_now("0 2 * * *"))
        file.write_text(SCHEDULED.format("30 3 * * *"))
        eventually(lambda: is_now("30 3 * * *"))
    finally:
        node.send_signal(signal.SIGTERM)
        _, said = node.communicate(timeout=30)
    assert node.returncode == 143
    assert "schedule planned: changed" in said


LOUD = """
import sys
from outlast import step, workflow


@step
def shouts() -> str:
    print("to stdout", flush=True)
    print("to stderr", file=sys.stderr, flush=True)
    return "said"


@workflow
def loud() -> str:
    print("hello", flush=True)
    return shouts()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_no_run_fails_because_nobody_can_hear_what_it_prints(outlast: Call, project: Path) -> None:
    (project / "workflows" / "loud.py").write_text(LOUD)
    uid = outlast("start", "loud").out.strip()
    read, gone = os.pipe()
    os.close(read)
    with open("/dev/full", "w") as full:
        for command, out, err, code in (
            (["agent", "--once"], full, gone, 0),
            (["run", "loud"], subprocess.PIPE, full, 0),
            (["start", "nosuch"], subprocess.PIPE, gone, 3),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "outlast", *command], stdout=out, stderr=err, text=True, env=environment(), check=False
            )
            assert (command, done.returncode) == (command, code)
            assert done.stdout == ('"said"\n' if command == ["run", "loud"] else None if out is full else "")
    os.close(gone)
    assert outlast("result", uid).out == '"said"\n'

"""A rolling deploy: two agents in two folders with other code of one workflow, on one file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast import sqlite3

from .commands import stop_outside_of_a_write

OLD = """from outlast import step, wait_signal, workflow
@step
def a() -> int: return 1
@step
def b() -> int: return 2
@workflow
def deliver() -> str:
    a()
    wait_signal("go", str)
    b()
    return "old"
"""
NEW = OLD.replace("    a()\n    wait", "    b()\n    wait").replace('"old"', '"new"')
PATCHED = OLD.replace("import step,", "import patched, step,").replace(
    "    a()\n    wait", "    a()\n    if patched('b first'):\n        b()\n    wait"
)
FIRST = OLD.replace("@workflow", '@workflow(version="1")')
SECOND = NEW.replace("@workflow", '@workflow(version="2")')
BOTH = FIRST + SECOND.partition("    return 2\n")[2]


class Shop:
    """One file, and a folder for each code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "OUTLAST_DB": str(folder / "shop.db"), "OUTLAST_LEASE": "15s"}
        self.agents: list[subprocess.Popen[bytes]] = []
        for name, text in (("old", OLD), ("new", NEW), ("patched", PATCHED), ("first", FIRST), ("second", SECOND), ("both", BOTH)):
            (folder / name).mkdir()
            (folder / name / "pyproject.toml").write_text("[project]\nname='shop'\nversion='1'\n")
            (folder / name / "shop.py").write_text(text)

    def agent(self, code: str) -> subprocess.Popen[bytes]:
        found = subprocess.Popen(self._command("agent"), cwd=self.folder / code, env=self.environment, stderr=subprocess.DEVNULL)
        self.agents.append(found)
        return found

    def __call__(self, code: str, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), cwd=self.folder / code, env=self.environment, capture_output=True, text=True)
        return done.stdout or done.stderr

    def json(self, *arguments: str, code: str = "old") -> Any:
        text = self(code, *arguments, "--json")
        try:
            return json.loads(text)
        except ValueError:
            raise AssertionError(f"{arguments}: {text}") from None

    def show(self, run: str) -> Any:
        return self.json("show", run)

    def status(self, run: str) -> str:
        """From the file: a command for each look would take the processor from the agents."""
        connection = sqlite3.connect(self.environment["OUTLAST_DB"])
        try:
            return str(connection.execute("select status from outlast_task where uid = ?", (run,)).fetchone()[0])
        finally:
            connection.close()

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "outlast", "--app", "shop.py", *arguments]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    yield shop
    for agent in shop.agents:
        agent.kill()
        agent.wait()


def eventually(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.1)


def test_an_old_run_ends_on_the_old_agent_and_halts_when_that_is_gone(shop: Shop) -> None:
    shop("old", "migrate")
    shop.agent("old")
    runs = [shop.json("start", "deliver")["id"] for _ in range(2)]
    eventually(lambda: all(shop.status(run) == "waiting" for run in runs))
    shop.agent("new")
    eventually(lambda: len(shop.json("agents")) == 2)
    # The old agent stands still, its lease holding: else it would win the race and the new one would never have to give back.
    stop_outside_of_a_write(shop.agents[0].pid, shop.folder / "shop.db")
    shop("old", "signal", runs[0], "go", '"x"')
    eventually(lambda: "other code" in shop("old", "why", runs[0]) or shop.status(runs[0]) == "halted")
    assert shop.status(runs[0]) != "halted"
    shop.agents[0].send_signal(signal.SIGCONT)
    eventually(lambda: shop.status(runs[0]) == "completed")
    assert shop.show(runs[0])["output"] == "old"
    shop.agents[0].kill()
    shop.agents[0].wait()
    shop("old", "signal", runs[1], "go", '"x"')
    supervisor = subprocess.Popen(shop._command("supervisor"), cwd=shop.folder / "new", env=shop.environment, stderr=subprocess.DEVNULL)
    shop.agents.append(supervisor)
    eventually(lambda: shop.status(runs[1]) == "halted")
    assert "At 1 the journal has step a, the code has step b" in str(shop.show(runs[1])["halt_reason"])


def test_a_run_that_was_given_back_halts_when_the_agent_that_it_waits_for_is_killed(shop: Shop) -> None:
    shop("old", "migrate")
    old = shop.agent("old")
    run = shop.json("start", "deliver")["id"]
    eventually(lambda: shop.status(run) == "waiting")
    supervisor = subprocess.Popen(shop._command("supervisor"), cwd=shop.folder / "new", env=shop.environment, stderr=subprocess.DEVNULL)
    shop.agents.append(supervisor)
    shop.agent("new")
    eventually(lambda: len(shop.json("agents")) == 2)
    stop_outside_of_a_write(old.pid, shop.folder / "shop.db")
    shop("old", "signal", run, "go", '"x"')
    eventually(lambda: "other code of the workflow deliver" in shop("old", "why", run) or shop.status(run) == "halted")
    given_back = shop.show(run)
    assert given_back["status"] != "halted"
    old.kill()
    old.wait()
    eventually(lambda: shop.status(run) == "halted")
    halted = shop.show(run)
    assert "At 1 the journal has step a, the code has step b" in str(halted["halt_reason"])
    assert halted["claim"] == given_back["claim"] + 1, "code that disagreed claimed it again while the other agent lived"


def test_versions_side_by_side_go_to_the_agents_that_have_them(shop: Shop) -> None:
    shop("both", "migrate")
    shop.agent("second")
    first = shop.json("start", "deliver", code="first")
    second = shop.json("start", "deliver", code="second")
    assert (first["version"], second["version"]) == ("1", "2")
    eventually(lambda: shop.status(second["id"]) == "waiting")
    why = shop("both", "why", first["id"])
    assert "no live agent has the workflow deliver, version 1" in why
    assert "They have its versions 2" in why
    waiting = shop.show(first["id"])
    assert (waiting["status"], waiting["claim"]) == ("pending", 0), "an agent took a version that it does not have"
    shop.agent("first")
    eventually(lambda: shop.status(first["id"]) == "waiting")
    for run, output in ((first, "old"), (second, "new")):
        shop("both", "signal", run["id"], "go", '"x"')
        eventually(lambda run=run: shop.status(run["id"]) == "completed")
        assert shop.show(run["id"])["output"] == output


def test_a_patch_sends_each_run_by_its_own_code_though_agents_of_both_are_killed(shop: Shop) -> None:
    shop("old", "migrate")
    supervisor = subprocess.Popen(shop._command("supervisor"), cwd=shop.folder / "patched", env=shop.environment, stderr=subprocess.DEVNULL)
    shop.agents.append(supervisor)
    old = shop.agent("old")
    past = shop.json("start", "deliver")["id"]
    eventually(lambda: shop.status(past) == "waiting")
    old.kill()
    old.wait()
    patched = shop.agent("patched")
    marked = shop.json("start", "deliver")["id"]
    eventually(lambda: shop.status(marked) == "waiting")
    patched.kill()
    patched.wait()
    # Only the old code lives: it has no place for what the marked run did.
    shop.agent("old")
    shop("old", "signal", marked, "go", '"x"')
    eventually(lambda: shop.status(marked) == "halted")
    shop.agents[-1].kill()
    shop.agents[-1].wait()
    shop.agent("patched")
    shop("old", "resume", marked)
    shop("old", "signal", past, "go", '"x"')
    for run, steps in ((past, ["a", "b"]), (marked, ["a", "b", "b"])):
        eventually(lambda run=run: shop.status(run) == "completed")
        assert [step["name"] for step in shop.show(run)["steps"] if step["kind"] == "step"] == steps

"""The workflows of this repository, on real input, under real agents that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outlast import sqlite3

ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """The command line in a folder that holds the workflows of this repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "workflows", folder / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "pyproject.toml").write_text("[tool.outlast]\n")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")} | {
            "OUTLAST_LEASE": "3s"
        }

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "outlast", *arguments],
            cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str, status: int | None = 0) -> str:
        process = self.popen(*arguments)
        out, err = process.communicate(timeout=60)
        assert status is None or process.returncode == status, (arguments, process.returncode, out, err)
        return out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json", status=None))


def eventually(fact: Callable[[], Any], seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
    return found


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def up(shell: Shell) -> Iterator[Shell]:
    shell.run("migrate")
    process = shell.popen("up", "--agents", "2")
    eventually(lambda: len(live_agents(shell)) >= 2)
    yield shell
    process.terminate()
    process.communicate(timeout=40)


def live_agents(shell: Shell) -> list[int]:
    return [agent["pid"] for agent in shell.json("agents") if agent["status"] == "active"]


def kill_one(shell: Shell) -> int:
    victim = live_agents(shell)[0]
    os.kill(victim, signal.SIGKILL)
    return victim


def test_the_audit_checks_every_file_of_some_installed_distributions(shell: Shell) -> None:
    report = json.loads(shell.run("run", "audit", "limit=4"))

    assert report["distributions"] == 4
    assert report["files"] > 4
    assert report["hashed_bytes"] > 0


def test_the_audit_names_a_file_that_was_changed_and_one_that_is_gone(shell: Shell, tmp_path: Path) -> None:
    site = tmp_path / "site"
    folder = site / "thing-1.0.dist-info"
    folder.mkdir(parents=True)
    (site / "thing.py").write_text("changed")
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    (folder / "RECORD").write_text("thing.py,sha256=AAAA,3\ngone.py,sha256=BBBB,3\nthing-1.0.dist-info/RECORD,,\n")

    report = json.loads(shell.run("run", "audit", f"path={site}"))

    assert report["findings"] == {
        "thing-1.0.dist-info": ["thing.py has another sha256 than RECORD says", "gone.py is missing"]
    }


def order(shell: Shell, key: str, *arguments: str) -> str:
    return shell.run("start", "order", "amount:=49", "--key", key, *arguments).strip()


def stock(shell: Shell, item: str) -> int:
    connection = sqlite3.connect(shell.folder / "outlast.db")
    try:
        row = connection.execute("select quantity from shop_stock where item = ?", (item,)).fetchone()
    finally:
        connection.close()
    return int(row[0])


def ledger(shell: Shell) -> list[tuple[str, str]]:
    file = shell.folder / "payments.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(line["action"], line["key"]) for line in lines]


@pytest.mark.crash
def test_orders_end_as_they_should_while_their_agents_are_killed(up: Shell) -> None:
    granted = order(up, "granted", "item=lamp")
    refused = order(up, "refused", "item=lamp")
    late = order(up, "late", "item=chair", "patience=1s")
    missing = order(up, "missing", "item=table")
    audit = up.run("start", "audit", "limit=12").strip()
    killed = {kill_one(up)}

    eventually(lambda: [r for r in up.json("runs") if r["id"] in (granted, refused) and r["status"] == "waiting"])
    up.run("signal", "order:granted", "approval", '{"by": "eve"}')
    killed.add(kill_one(up))
    up.run("signal", "order:refused", "approval", '{"by": "bob", "granted": false}')

    ends = ("completed", "failed", "compensated")
    eventually(lambda: all(run["status"] in ends for run in up.json("runs")))
    status = {run["id"]: run["status"] for run in up.json("runs")}
    assert len(killed) == 2
    assert status == {
        granted: "completed", refused: "compensated", late: "compensated", missing: "compensated", audit: "completed",
    }  # fmt: skip
    assert (stock(up, "lamp"), stock(up, "chair"), stock(up, "table")) == (4, 2, 0)
    actions = ledger(up)
    assert len(actions) == len(set(actions)), "an effect was made twice"
    assert sorted(action for action, _ in actions) == ["charge", "charge", "charge", "refund", "refund"]
    assert up.run("result", granted) != ""
    assert up.run("doctor", status=None) != ""

"""The command line in a folder with a workflow file, as crash tests drive it: real processes, killed for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outlast import sqlite3

CODE = """
import os, re, signal, time
from outlast import current, gather, sleep, sqlite3, step, transaction, workflow

def effect(text):
    with open("effects", "a") as file:
        file.write(text + "\\n"); file.flush(); os.fsync(file.fileno())

@step
def first(tag: str) -> str:
    effect(f"first {tag} {current().idempotency_key}"); return tag

@step
def slow(tag: str, seconds: float) -> str:
    effect(f"slow {tag} {current().idempotency_key}"); time.sleep(seconds); effect(f"slow-end {tag}"); return tag

@transaction
def book(db: sqlite3.Connection, tag: str) -> int:
    db.execute("create table if not exists booking (tag text)")
    db.execute("insert into booking values (?)", (tag,))
    return 1

@workflow
def chain(tag: str, seconds: float = 0.0) -> str:
    first(tag); book(tag); slow(tag, seconds); sleep(0.05); return tag

@step
def boom() -> None:
    effect("boom"); os._exit(9)

@workflow
def poison() -> None:
    boom()

@workflow
def crowd(count: int) -> str:
    for n in range(count): chain.start(f"i{n}")
    return poison.start().id

@step
def matches() -> str:
    effect(f"matches {os.getpid()}")
    if len([line for line in open("effects") if line.startswith("matches")]) == 1:
        re.match("(a+)+$", "a" * 64 + "b")
    return "done"

@workflow
def matching() -> str:
    return matches()

@step
def act(n: int) -> int:
    effect(f"act {n}"); return n

@act.compensation
def undo_act(result: int | None, n: int) -> None:
    effect(f"undo {n}")
    if n == 2 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

@workflow
def saga() -> None:
    for n in range(4): act(n)
    raise RuntimeError("no")

@step
def fan(n: int) -> int:
    return n

@workflow
def fans(count: int) -> int:
    return sum(gather(*[fan.submit(n) for n in range(count)]))
"""


class Folder:
    """A folder with `workflows/work.py` and a file of effects."""

    def __init__(self, path: Path, *, package: Path | None = None, **settings: str) -> None:
        self.path = path
        (path / "workflows").mkdir()
        (path / "workflows" / "work.py").write_text(CODE)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")}
        self.environment |= {f"OUTLAST_{name.upper()}": value for name, value in settings.items()}
        if package is not None:
            self.environment["PYTHONPATH"] = str(package)
        self.started: list[subprocess.Popen[str]] = []
        self.run("migrate")

    def popen(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "outlast", *arguments],
            cwd=self.path, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *arguments: str) -> str:
        process = self.popen(*arguments)
        out, _ = process.communicate(timeout=60)
        return out

    def json(self, *arguments: str) -> Any:
        process = subprocess.run(
            [sys.executable, "-m", "outlast", *arguments, "--json"],
            cwd=self.path, env=self.environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return json.loads(process.stdout)

    def start(self, *arguments: str) -> str:
        return self.run("start", *arguments).strip()

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What the file holds: asked as often as a test polls, a command would take the processor from what is tested."""
        connection = sqlite3.connect(self.path / "outlast.db")
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def status(self, run_id: str) -> str:
        return str(self.query("select status from outlast_task where uid = ?", run_id)[0][0])

    def runs(self, status: str) -> int:
        """How many runs have this status."""
        return int(self.query("select count(*) from outlast_task where kind = 'run' and status = ?", status)[0][0])

    def effects(self) -> list[str]:
        file = self.path / "effects"
        return file.read_text().splitlines() if file.exists() else []

    def agents(self) -> list[int]:
        return [agent["pid"] for agent in self.json("agents") if agent["status"] == "active"]

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.started:
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def eventually(fact: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Poll a fact until it is true."""
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)
    return found


def stop_outside_of_a_write(pid: int, database: Path) -> None:
    """Stopped in the middle of one, say of a heartbeat, it would be no zombie: it would hold SQLite's lock, and nobody could take over."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        connection = sqlite3.connect(database, timeout=0.2, isolation_level=None)
        try:
            connection.execute("begin immediate")
            connection.execute("rollback")
            return
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
        finally:
            connection.close()

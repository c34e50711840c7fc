"""A process that a step forks and that comes back out of it: it ends there, and its parent goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys
from outlast import sqlite3, step, transaction, workflow
from outlast.testing import driven_engine

def fork():
    if (pid := os.fork()) == 0:
        signal.alarm(2)  # Whoever goes on all the same.
        if EXITS: sys.exit(7)
        return "child"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@step
def sync(): return fork()

@step(timeout="20s")
def in_thread(): return fork()

@step
async def later(): return fork()

@transaction(timeout="20s")
def booked(db: sqlite3.Connection):
    db.execute("create table if not exists t (x)")
    return fork()

@workflow
def runs(name: str): return globals()[name]()

@workflow
async def runs_later(): return await later()

@workflow
def body(): return fork()

EXITS = sys.argv[2] == "exits"
with driven_engine("app.db") as engine:
    name = sys.argv[1]
    print(engine.run({"body": body, "later": runs_later}[name]) if name in ("body", "later") else engine.run(runs, name))
    assert engine.store.connection().execute("pragma integrity_check").fetchone() == ("ok",)
"""


@pytest.mark.parametrize(
    ("how", "where", "status"),
    [("exits", "sync", "7"), *(("returns", where, "1") for where in ("sync", "in_thread", "later", "booked", "body"))],
)
def test_the_child_of_a_fork_ends_where_it_comes_back(tmp_path: Path, how: str, where: str, status: str) -> None:
    (tmp_path / "forks.py").write_text(SCRIPT)
    done = subprocess.run([sys.executable, "forks.py", where, how], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == [status], done.stderr
    assert done.returncode == 0, done.stderr

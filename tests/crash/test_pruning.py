"""`outlast prune`, killed in the middle: the file is sound, and the next one does the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outlast import clock
from outlast import operations as op
from outlast.doctor import examine
from outlast.journal.entry import Entry
from outlast.model import new_id
from outlast.states import Ending
from outlast.store.sqlite import SqliteStore

pytestmark = pytest.mark.crash

ENGINE = Path(__file__).resolve().parents[2] / "engine"
CODE = {"workflow:w": "1"}
RUNS = 20


def test_a_prune_that_is_killed_leaves_a_sound_file_and_the_next_one_does_the_rest(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    store = SqliteStore(tmp_path / "outlast.db", create=True)
    agent = store.commit(op.RegisterAgent("a", "elsewhere/0/0", clock.boot_id(), 1, "1", 8, None, 10**12, CODE))
    for _ in range(RUNS):
        store.commit(op.Start(uid=new_id(clock.wall()), kind="run", name="w", needs="workflow:w", queue="default", input=b"{}"))
        [held] = store.commit(op.Claim(agent, 1, CODE))
        entries = [Entry(number, str(number), "completed", "step", "s", 1, data=b"1" * 100) for number in range(1, 401)]
        store.commit(op.Append(held.fence, entries))
        store.commit(op.End(held.fence, Ending.COMPLETED, output=b"1", simple=True))
    store.commit(op.LeaveAgent(agent))
    kills = 0
    while kills < 2 and count(store, "input") > 1:
        left = count(store, "input")
        process = prune(tmp_path)
        deadline = time.monotonic() + 30
        while process.poll() is None and count(store, "input") == left and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert not [finding.name for finding in examine(store) if not finding.ok and finding.query]
    assert prune(tmp_path).wait(60) == 0
    for table in ("task", "journal", "input", "outcome"):
        assert count(store, table) == 0
    store.close()


def prune(folder: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
    return subprocess.Popen(
        [sys.executable, "-m", "outlast", "prune", "--older-than", "0s"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ENGINE)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def count(store: SqliteStore, table: str) -> int:
    found: int = store.connection().execute(f"select count(*) from outlast_{table}").fetchone()[0]
    return found

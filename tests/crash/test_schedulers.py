"""Three schedulers and two supervisors on one file, killed again and again: no tick twice, none without a word."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from outlast import Every
from outlast.store import schedules
from outlast.store.sqlite import SqliteStore

pytestmark = pytest.mark.crash

ENGINE = Path(__file__).resolve().parents[2] / "engine"
SCHEDULES = 20
TICKS = int(os.environ.get("OUTLAST_TEST_TICKS", "2000"))
"""The long form is OUTLAST_TEST_TICKS=10000."""

CODE = f"""
from outlast import Every, workflow

@workflow(schedule=[Every("100ms", name=f"s{{n}}", catch_up="all", overlap="allow") for n in range({SCHEDULES})])
def beat() -> None:
    pass
"""

_DECIDED = "select tick, until, count, run_id from outlast_tick where schedule = :name order by tick"
_RUNS = "select t.uid, i.tick from outlast_task t join outlast_input i on i.task_id = t.id"


def until(fact: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def test_three_schedulers_that_are_killed_fire_each_tick_once_and_leave_no_hole(tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "beat.py").write_text(CODE)
    (tmp_path / "pyproject.toml").write_text("")
    store = SqliteStore(tmp_path / "outlast.db", create=True)
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")}, "PYTHONPATH": str(ENGINE)}

    def role(name: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "outlast", name], cwd=tmp_path, env=environment, stdout=log, stderr=log)

    def count() -> int:
        found: int = store.connection().execute("select count(*) from outlast_tick").fetchone()[0]
        return found

    chance = random.Random(1)
    roles = ["scheduler", "scheduler", "scheduler", "supervisor", "supervisor"]
    processes = [role(name) for name in roles]
    kills = 0
    try:
        until(lambda: count() > SCHEDULES, 60)
        while count() < TICKS or kills < 6:
            time.sleep(chance.uniform(0.2, 1.2))
            victim = chance.randrange(len(roles))
            processes[victim].kill()
            assert processes[victim].wait() == -signal.SIGKILL, "it had ended by itself"
            processes[victim] = role(roles[victim])
            kills += 1
            assert kills < 1_000, (tmp_path / "log").read_text()
        # Those that are left decide what fell due while nobody was up.
        looked = count()
        until(lambda: count() > looked, 60)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait(30)

    runs = dict(store.connection().execute(_RUNS).fetchall())
    table = Every("100ms").timetable
    in_ledger: set[str] = set()
    for stored in schedules.everything(store.connection()):
        rows = store.connection().execute(_DECIDED, {"name": stored.name}).fetchall()
        assert rows[0][0] == table.next(stored.created_at) or rows[0][0] - stored.created_at < 1_000_000
        for tick, last, ticks, run_id in rows:
            assert ticks == table.count(tick - 1, last)
            if run_id is not None:
                assert runs[run_id] == tick
                assert run_id not in in_ledger
                in_ledger.add(run_id)
        for before, after in pairwise(rows):
            assert table.next(before[1]) == after[0], "a hole in the ledger"
        assert rows[-1][1] == table.latest(stored.cursor)
    assert in_ledger == set(runs), "a run without its tick"
    assert len(runs) >= TICKS * 0.9
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log, log
    store.close()

"""A real agent whose file cannot grow: it takes nothing new, loses nothing, says so once, and the next one goes on.

The limit is the process's own (RLIMIT_FSIZE), so that a write fails in SQLite's own system calls as on a full disk.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest

from .commands import eventually
from .test_role_boundaries import Place

pytestmark = pytest.mark.crash

CODE = """
import os
from outlast import step, workflow

@step
def big(n: int) -> str:
    with open("effects", "a") as file:
        file.write(f"big {n}\\n"); file.flush()
    return os.urandom(100_000).hex()

@workflow
def large() -> int:
    return sum(len(big(n)) for n in range(4))
"""
ROOM = 1_200_000
STEP = 200_000
"""What a step's result takes."""


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_whose_file_cannot_grow_loses_nothing_and_another_goes_on(tmp_path: Path, ends: signal.Signals) -> None:
    place = Place(tmp_path)
    try:
        (tmp_path / "workflows" / "work.py").write_text(CODE)
        runs = [place.start("large") for _ in range(12)]
        cramped = place.popen("agent", "--concurrency", "2", "--grace", "0s", FILE_LIMIT=str(ROOM))
        effects = tmp_path / "effects"
        seen: list[int] = []

        def stands_still() -> bool:
            seen.append(effects.exists() and len(effects.read_text().splitlines()))
            return seen[-1] > 0 and seen[-40:].count(seen[-1]) == 40

        eventually(stands_still)
        assert (tmp_path / "outlast.db-wal").stat().st_size > ROOM - 2 * STEP, "it did not come to the limit"
        assert cramped.poll() is None, cramped.communicate()[0]
        statuses = Counter(status for (status,) in place.rows("select status from outlast_task"))
        assert set(statuses) <= {"running", "pending", "completed"}, statuses
        assert statuses["pending"] >= 6, f"it went on to claim: {statuses}"
        assert statuses["running"], "nothing is held"
        cramped.send_signal(ends)
        out, _ = cramped.communicate(timeout=30)
        assert "Traceback" not in out
        assert len(out.splitlines()) < 12, out
        place.supervise()
        place.run("agent", "--once")
        place.run("agent", "--once", "--solo")
        assert place.rows("select distinct status from outlast_task") == [("completed",)]
        assert len(runs) == 12
        assert place.is_sound()
    finally:
        place.close()

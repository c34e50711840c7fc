"""Steps that turn against their agent, in real ones: the engine survives, or the run ends or halts; the innocent go on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from outlast import sqlite3

from .commands import Folder, eventually
from .hostile_code import CODE

pytestmark = pytest.mark.crash

MEGABYTES = os.environ.get("OUTLAST_TEST_MEGABYTES", "20")
"""What a step prints. The long form is OUTLAST_TEST_MEGABYTES=1000."""
IS_LONG = int(MEGABYTES) >= 1000
"""An agent whose files are closed may be found dead only by its lease: too slow for the short form."""

RAISES = ("BaseException", "KeyboardInterrupt", "SystemExit", "GeneratorExit", "CancelledError", "StopIteration")
FAILS = (*(f"raises {name}" for name in RAISES), "returns a lambda", "returns itself", "recursion")
GOES_ON = (
    *("forks", "forks and goes on", "forks and exits", "leaks threads", "leaks a thread that is no daemon"),
    *("closes the standard streams", "chdir", "umask", "threading.excepthook", "logging", "warnings", "gc", "sockets", "environment"),
    *("path", "modules", "random", "event loop", "streams are gone"),
)
STARTS = """
import os, sys
import outlast
sys.path.insert(0, "workflows")
import work
with outlast.Engine() as engine:
    for where, kind in {runs!r}:
        if where == "innocent":
            run = engine.start(work.innocent, 1)
        elif where == "loop":
            run = engine.start(work.hostile_later, kind)
        else:
            run = engine.start(work.hostile, where, kind)
        print(run.id)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    monkeypatch.setenv("EFFECTS", str(tmp_path / "effects"))
    monkeypatch.setenv("MEGABYTES", MEGABYTES)
    folder = Folder(tmp_path, lease="3s")
    (tmp_path / "workflows" / "work.py").write_text(CODE)
    yield folder
    folder.close()


def start(here: Folder, *runs: tuple[str, str]) -> dict[str, tuple[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", STARTS.replace("{runs!r}", repr(runs))],
        cwd=here.path, env=here.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(zip(done.stdout.split(), runs, strict=True))


def up(here: Folder) -> subprocess.Popen[str]:
    with (here.path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "outlast", "up", "--agents", "1", "--concurrency", "4"],
            cwd=here.path, env=here.environment, text=True, stdout=log, stderr=log,
        )  # fmt: skip
    here.started.append(process)
    return process


def ends(here: Folder, runs: dict[str, tuple[str, str]], seconds: float = 60) -> dict[tuple[str, str], str]:
    """How each run has ended. The file is read by a process that no step has touched."""
    connection = sqlite3.connect(here.path / "outlast.db")

    def statuses() -> dict[str, str]:
        return dict(connection.execute("select uid, status from outlast_task where kind = 'run'"))

    try:
        eventually(lambda: all(statuses()[run] in ("completed", "failed", "halted") for run in runs), seconds)
        found = {runs[run]: statuses()[run] for run in runs}
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    except AssertionError as error:
        raise AssertionError(f"{ {runs[run]: statuses()[run] for run in runs} }\n{(here.path / 'log').read_text()}") from error
    finally:
        connection.close()
    return found


INNOCENT = tuple(("innocent", str(n)) for n in range(3))


def test_an_agent_survives_what_its_steps_do_to_its_process(here: Folder) -> None:
    up(here)
    hostile = [(where, kind) for where in ("sync", "loop") for kind in (*FAILS, *GOES_ON)]
    found = ends(here, start(here, *INNOCENT, *hostile))
    assert {one: found[one] for one in hostile if one[1] in FAILS} == {one: "failed" for one in hostile if one[1] in FAILS}
    # What one of them has done to their process may make another fail.
    went_on = [found[one] for one in hostile if one[1] in GOES_ON]
    assert set(went_on) <= {"completed", "failed"}
    assert went_on.count("completed") > len(went_on) // 2
    assert ends(here, start(here, *INNOCENT)) == dict.fromkeys(INNOCENT, "completed")
    connection = sqlite3.connect(here.path / "outlast.db")
    agents = connection.execute("select status, count(*) from outlast_agent group by 1").fetchall()
    assert agents == [("active", 1)], f"it had died: {(here.path / 'log').read_text()}"
    outputs = connection.execute("select output from outlast_outcome o join outlast_task t on t.id = o.task_id where t.kind = 'run'")
    assert (b'"child"',) not in outputs.fetchall(), "a forked child's outcome was written"
    connection.close()
    assert set(here.effects()) == {"child"}


@pytest.mark.skipif(not IS_LONG, reason="the long form: OUTLAST_TEST_MEGABYTES=1000")
@pytest.mark.parametrize("kind", ["switch interval", "descriptors", "trace", "alarm"])
def test_a_step_that_starves_its_agent_does_not_hold_up_the_innocent(here: Folder, kind: str) -> None:
    up(here)
    assert ends(here, start(here, *INNOCENT, ("sync", kind)))["sync", kind] in ("completed", "failed")
    assert ends(here, start(here, *INNOCENT)) == dict.fromkeys(INNOCENT, "completed")


@pytest.mark.skipif(not IS_LONG, reason="the long form; in the short one, a poison task of test_guarantees")
def test_a_step_that_takes_down_its_agent_halts_and_the_innocent_go_on(here: Folder) -> None:
    up(here)
    deadly = (("sync", "segfault"), ("loop", "exits"), ("sync", "closes every file"))
    found = ends(here, start(here, *deadly, *INNOCENT))
    assert {one: found[one] for one in deadly} == dict.fromkeys(deadly, "halted")
    assert {one: found[one] for one in INNOCENT} == dict.fromkeys(INNOCENT, "completed")
    assert ends(here, start(here, *INNOCENT)) == dict.fromkeys(INNOCENT, "completed")


def test_an_isolated_step_harms_nobody_and_neither_memory_nor_stream_grow_with_what_it_prints(here: Folder) -> None:
    process = up(here)
    kinds = ("exits", "segfault", "memory", "forks and goes on", "closes every file", "signals", "prints")
    found = ends(here, start(here, *INNOCENT, *(("alone", kind) for kind in kinds)), 600)
    assert {one: found[one] for one in INNOCENT} == dict.fromkeys(INNOCENT, "completed")
    assert {kind: found["alone", kind] for kind in kinds} == {
        "exits": "failed", "segfault": "failed", "memory": "failed", "closes every file": "failed",
        "forks and goes on": "completed", "signals": "completed", "prints": "completed",
    }  # fmt: skip
    held = [one.memory_info().rss for one in psutil.Process(process.pid).children(recursive=True)]
    assert max(held) < 150 << 20
    assert sum(one.stat().st_size for one in here.path.glob("outlast.db*")) < 40 << 20

"""SIGKILL just before and just after the commits of the roles and of commands: real processes, which kill themselves there.

Before the COMMIT the whole of the transaction has been executed; after it, nobody has been told. The rest is done by roles of this
process, one look at a time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast import clock
from outlast import operations as op
from outlast.doctor import examine
from outlast.journal.entry import Entry
from outlast.model import new_id
from outlast.settings import resolve
from outlast.states import Ending
from outlast.store.sqlite import SqliteStore
from outlast.supervisor import Supervisor

from . import launched
from .commands import eventually

pytestmark = pytest.mark.crash

ENGINE = Path(__file__).resolve().parents[2] / "engine"
SIDES = ("before", "after")
NEEDS = {"workflow:hello": "1"}

CODE = """
from pathlib import Path
from outlast import Every, step, wait_signal, workflow

@step
def note(text: str) -> None:
    with open("effects", "a") as file: file.write(text + "\\n")

@workflow
def hello(name: str = "you") -> str:
    note(name)
    return name

@workflow
def asks() -> int:
    return wait_signal("go", int)

@step
def hangs() -> None:
    import time
    if not Path("effects").exists():
        note("hangs")
        while True: time.sleep(0.05)

@workflow
def long() -> None:
    hangs()
"""

SCHEDULED = """
from outlast import Every, workflow

@workflow(schedule=Every("200ms", catch_up="all", overlap="allow"))
def beat() -> None: pass
"""


class Place:
    """A folder with workflows and a file, and the processes that die in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "pyproject.toml").write_text("")
        (path / "workflows").mkdir()
        (path / "workflows" / "work.py").write_text(CODE)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
        self.environment |= {"PYTHONPATH": str(ENGINE), "OUTLAST_PARK_AFTER": "0s"}
        self.store = SqliteStore(path / "outlast.db", create=True)
        self.started: list[subprocess.Popen[str]] = []

    def popen(self, *arguments: str, dies_at: str = "", **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, launched.__file__, *arguments],
            cwd=self.path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self.environment | variables | ({"DIES_AT": dies_at} if dies_at else {}),
        )  # fmt: skip
        self.started.append(process)
        return process

    def die(self, dies_at: str, *arguments: str, **variables: str) -> str:
        """Let a command die there; gives what it had said by then."""
        process = self.popen(*arguments, dies_at=dies_at, **variables)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL, f"the kill did not land: {out}"
        return out

    def run(self, *arguments: str) -> str:
        process = self.popen(*arguments)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0, out
        return out.strip()

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            assert process.stdout is not None
            if not process.stdout.closed:
                process.communicate()
        self.store.close()

    def start(self, name: str) -> op.Started:
        return self.store.commit(
            op.Start(uid=new_id(clock.wall()), kind="run", name=name, needs=f"workflow:{name}", queue="default", input=b"{}")
        )

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return self.store.connection().execute(sql).fetchall()

    def supervise(self) -> None:
        """One look of a supervisor in this process, for which every lease that is over is over."""
        made = Supervisor(self.store, resolve({"lease": "1s"}))
        made.tick(self.store.now())
        made.stop()

    def is_sound(self) -> bool:
        return not [finding.name for finding in examine(self.store) if not finding.ok and (finding.query or finding.name == "integrity")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("side", SIDES)
def test_a_start_that_dies_at_its_commit_is_there_once_its_key_is_acknowledged(place: Place, side: str) -> None:
    said = place.die(f"{side} Start", "start", "hello", "--key", "k")
    assert said == "", "a start was acknowledged before it was over"
    assert len(place.rows("select id from outlast_task")) == (side == "after")
    acknowledged = place.run("start", "hello", "--key", "k")
    assert place.rows("select uid from outlast_task") == [(acknowledged,)]
    assert place.is_sound()


@pytest.mark.parametrize("side", SIDES)
def test_a_signal_that_dies_at_its_commit_is_there_once_when_it_is_sent_again(place: Place, side: str) -> None:
    run = place.start("asks").uid
    assert place.die(f"{side} Signal", "signal", run, "go", "7", "--key", "k") == ""
    assert len(place.rows("select id from outlast_signal")) == (side == "after")
    place.run("signal", run, "go", "7", "--key", "k")
    assert len(place.rows("select id from outlast_signal")) == 1
    place.run("agent", "--once")
    assert place.rows("select status from outlast_task") == [("completed",)]
    assert place.is_sound()


@pytest.mark.parametrize("side", SIDES)
def test_an_agent_that_dies_at_its_renewal_leaves_its_run_to_others(place: Place, side: str) -> None:
    place.start("long")
    place.die(f"{side} Heartbeat", "agent", OUTLAST_LEASE="1s")
    assert (place.path / "effects").exists(), "it died before it had begun anything"
    [(started, renewed)] = place.rows("select started_at, heartbeat_at from outlast_agent")
    assert (started == renewed) == (side == "before")
    place.supervise()
    assert place.rows("select status, suspect, claim from outlast_task") == [("pending", 1, 1)]
    place.run("agent", "--once", "--solo")
    assert place.rows("select status, claim from outlast_task") == [("completed", 2)]
    assert place.is_sound()


@pytest.mark.parametrize("side", SIDES)
def test_a_supervisor_that_dies_as_it_takes_over_counts_the_crash_once(place: Place, side: str) -> None:
    place.start("long")
    # Only the crash of one that is alone counts, and alone are those that were on an agent that crashed before.
    place.store.connection().execute("update outlast_task set suspect = 1")
    agent = place.popen("agent", "--solo")
    eventually(lambda: (place.path / "effects").exists())
    agent.kill()
    agent.communicate()
    place.die(f"{side} AgentEnded", "supervisor")
    seen = ("running", 0) if side == "before" else ("pending", 1)
    assert place.rows("select status, crashes from outlast_task") == [seen]
    for _ in range(2):
        place.supervise()
    assert place.rows("select status, crashes, agent_id from outlast_task") == [("pending", 1, None)]
    place.run("agent", "--once", "--solo")
    assert place.rows("select status from outlast_task") == [("completed",)]
    assert place.is_sound()


@pytest.mark.parametrize("side", SIDES)
def test_a_supervisor_that_dies_as_it_ends_a_late_run_ends_it_once(place: Place, side: str) -> None:
    place.start("hello")
    place.store.connection().execute("update outlast_task set deadline_at = 1")
    place.die(f"{side} Sweep", "supervisor")
    seen = "pending" if side == "before" else "failed"
    assert place.rows("select status from outlast_task") == [(seen,)]
    place.supervise()
    assert place.rows("select status, (select count(*) from outlast_outcome) from outlast_task") == [("failed", 1)]
    assert place.is_sound()


@pytest.mark.parametrize("side", SIDES)
def test_a_scheduler_that_dies_as_it_fires_leaves_a_tick_with_its_run_or_neither(place: Place, side: str) -> None:
    (place.path / "workflows" / "work.py").write_text(SCHEDULED)
    runs = "select run_id from outlast_tick where run_id is not null order by 1"
    place.die(f"{side} FireDue", "scheduler")
    assert bool(place.rows(runs)) == (side == "after")
    assert place.rows(runs) == place.rows("select uid from outlast_task order by 1")
    ticks = len(place.rows(runs))
    process = place.popen("scheduler")
    eventually(lambda: len(place.rows(runs)) >= ticks + 3)
    process.terminate()
    out, _ = process.communicate()
    assert "Traceback" not in out
    assert place.rows(runs) == place.rows("select uid from outlast_task order by 1")
    instants = [tick for (tick,) in place.rows("select tick from outlast_tick order by tick")]
    assert instants == list(range(instants[0], instants[-1] + 1, 200_000)), "a tick twice, or a hole in the ledger"  # type: ignore[call-overload]
    assert place.is_sound()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("operation", ["Prune", "Discard", "PruneAgents"])
def test_a_prune_that_dies_at_any_of_its_commits_is_finished_by_the_next(place: Place, operation: str, side: str) -> None:
    store = place.store
    agent = store.commit(op.RegisterAgent("a", "elsewhere/0/0", clock.boot_id(), 1, "1", 8, None, 1, NEEDS))
    for _ in range(3):
        place.start("hello")
        [held] = store.commit(op.Claim(agent, 1, NEEDS))
        entries = [Entry(number, str(number), "completed", "step", "s", 1, data=b"1") for number in range(1, 801)]
        store.commit(op.Append(held.fence, entries))
        store.commit(op.End(held.fence, Ending.COMPLETED, output=b"1", simple=True))
    store.commit(op.LeaveAgent(agent))
    # The newest stays, so that its id is never given again.
    store.commit(op.LeaveAgent(store.commit(op.RegisterAgent("b", "elsewhere/0/0", clock.boot_id(), 2, "1", 8, None, 1, NEEDS))))
    survivor = place.start("hello")
    left = "select (select count(*) from outlast_task), (select count(*) from outlast_journal), (select count(*) from outlast_agent)"
    before = place.rows(left)
    place.die(f"{side} {operation}", "prune", "--older-than", "0s")
    assert before == [(4, 2400, 2)]
    if (operation, side) == ("Prune", "before"):
        assert place.rows(left) == before
    else:
        assert place.rows(left) < before
    assert place.is_sound()
    place.run("prune", "--older-than", "0s")
    assert place.rows(left) == [(1, 0, 1)]
    assert place.rows("select task_id from outlast_input") == [(survivor.task_id,)], "a run that is not over was pruned"
    assert place.is_sound()


DECLARING = """
from outlast import Every, Queue, workflow

Queue("mail", concurrency=2)

@workflow(queue="mail", retention="3d")
def hello() -> str:
    return "hello"

@workflow(schedule=Every("200ms", catch_up="all", overlap="allow"))
def beat() -> None: pass
"""


@pytest.mark.parametrize("side", SIDES)
def test_roles_that_die_at_each_commit_of_their_start_leave_nothing_that_the_next_would_stumble_over(place: Place, side: str) -> None:
    (place.path / "workflows" / "work.py").write_text(DECLARING)
    for operation in ("DeclareQueues", "DeclareRetention", "RegisterAgent"):
        place.die(f"{side} {operation}", "agent", "--once")
    for operation in ("WriteSchedules", "KeepScheduler"):
        place.die(f"{side} {operation}", "scheduler")
        assert place.is_sound()
    assert len(place.rows("select id from outlast_agent")) == (side == "after")
    run = place.run("start", "hello")
    place.run("agent", "--once")
    assert place.run("result", run) == '"hello"'
    assert place.rows("select name, concurrency from outlast_queue") == [("mail", 2)]
    scheduler = place.popen("scheduler")
    eventually(lambda: len(place.rows("select tick from outlast_tick")) > 1)
    scheduler.terminate()
    scheduler.communicate()
    assert place.rows("select count(*) from outlast_schedule") == [(1,)]
    place.run("agent", "--once")
    ticks = place.rows("select tick from outlast_tick")
    place.die(f"{side} PruneTicks", "prune", "--older-than", "0s")
    assert (place.rows("select tick from outlast_tick") == ticks) == (side == "before")
    place.run("prune", "--older-than", "0s")
    assert place.rows("select tick from outlast_tick") == []
    place.supervise()
    assert place.is_sound()

"""The guarantees, each with real processes that somebody tries to break them with."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from outlast import sqlite3

from .commands import Folder, eventually, stop_outside_of_a_write

pytestmark = pytest.mark.crash


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Callable[..., Folder]]:
    made: list[Folder] = []

    def make(**settings: object) -> Folder:
        made.append(Folder(tmp_path, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


def bookings(folder: Folder) -> list[str]:
    connection = sqlite3.connect(folder.path / "outlast.db")
    try:
        return [row[0] for row in connection.execute("select tag from booking order by tag")]
    finally:
        connection.close()


def test_acknowledged_starts_survive_the_death_of_everything_and_journalled_steps_are_not_repeated(
    folder: Callable[..., Folder],
) -> None:
    here = folder(lease="2s")
    up = here.popen("up", "--agents", "2")
    runs = [here.start("chain", f"tag=t{n}", "seconds=0.6") for n in range(4)]
    eventually(lambda: sum(line.startswith("slow t") for line in here.effects()) >= 2)
    victims = [*here.agents(), up.pid]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    assert len(victims) == 3
    here.popen("up", "--agents", "2")

    eventually(lambda: all(here.status(run) == "completed" for run in runs))
    effects = here.effects()
    assert sorted(line for line in effects if line.startswith("first")) == sorted({line for line in effects if line.startswith("first")}), (
        "a step whose outcome was journalled ran again"
    )
    assert bookings(here) == ["t0", "t1", "t2", "t3"], "a transaction ran twice, or never"
    keys = {line.split()[1]: {other.split()[2] for other in effects if other.startswith(f"slow {line.split()[1]} ")}
            for line in effects if line.startswith("slow ")}  # fmt: skip
    assert all(len(found) == 1 for found in keys.values()), "an idempotency key changed"


def zombie_is_fenced(here: Folder) -> None:
    """Stop an agent for longer than its lease, let another take over, wake the first: its outcome must not count."""
    zombie = here.popen("agent", "--concurrency", "2")
    here.popen("supervisor")
    run = here.start("chain", "tag=z", "seconds=2")
    eventually(lambda: any(line.startswith("slow z") for line in here.effects()))
    stop_outside_of_a_write(zombie.pid, here.path / "outlast.db")
    here.popen("agent", "--concurrency", "2")
    eventually(lambda: sum(line.startswith("slow z") for line in here.effects()) == 2)
    os.kill(zombie.pid, signal.SIGCONT)
    eventually(lambda: here.status(run) in ("completed", "halted", "failed"))
    eventually(lambda: here.effects().count("slow-end z") == 2)
    connection = sqlite3.connect(here.path / "outlast.db")
    try:
        claims = connection.execute("select seq, claim from outlast_journal order by task_id, seq").fetchall()
    finally:
        connection.close()
    assert here.status(run) == "completed"
    assert [claim for _, claim in claims] == sorted(claim for _, claim in claims), "a zombie wrote"
    assert len(claims) == len({seq for seq, _ in claims}) == 5


def test_a_zombie_changes_nothing(folder: Callable[..., Folder]) -> None:
    zombie_is_fenced(folder(lease="1s"))


def test_code_that_holds_the_interpreters_lock_is_killed_at_the_hang_limit_and_its_run_goes_on(folder: Callable[..., Folder]) -> None:
    here = folder(hang_limit="1s", lease="30s")
    here.popen("up", "--agents", "1")
    run = here.start("matching")
    eventually(lambda: here.status(run) == "completed")
    first, second = (int(line.split()[1]) for line in here.effects())
    assert first != second
    assert not psutil.pid_exists(first), "the process that hung still lives"


def test_a_poison_task_is_halted_with_the_evidence_and_sixty_four_innocents_beside_it_end(folder: Callable[..., Folder]) -> None:
    here = folder()
    crowd = here.start("crowd", "count=64")
    here.popen("up", "--agents", "1", "--concurrency", "66")
    eventually(lambda: here.runs("halted") == 1, 60)
    eventually(lambda: here.runs("completed") == 65)
    poison = here.json("show", here.json("result", crowd))
    assert poison["status"] == "halted"
    assert poison["crashes"] == 5
    assert "5 times" in poison["halt_reason"]
    assert "exited with" in poison["halt_reason"]
    assert sorted(bookings(here)) == sorted(f"i{number}" for number in range(64))


def test_an_undo_that_is_killed_in_its_middle_goes_on_where_it_stopped(folder: Callable[..., Folder]) -> None:
    here = folder()
    here.popen("up", "--agents", "2")
    run = here.start("saga")

    eventually(lambda: here.status(run) == "compensated")
    assert (here.path / "killed").exists(), "the kill did not land"
    effects = here.effects()
    assert [line for line in effects if line.startswith("act")] == [f"act {n}" for n in range(4)]
    # The one that was cut off has no outcome, so it runs again; those before it do not.
    assert [line for line in effects if line.startswith("undo")] == ["undo 3", "undo 2", "undo 2", "undo 1", "undo 0"]


def test_cancelled_means_that_nothing_of_it_runs_any_more(folder: Callable[..., Folder]) -> None:
    here = folder()
    here.popen("up", "--agents", "1")
    run = here.start("chain", "tag=c", "seconds=1.5")
    eventually(lambda: any(line.startswith("slow c") for line in here.effects()))
    here.run("cancel", run)

    eventually(lambda: here.status(run) == "cancelled")
    assert "slow-end c" in here.effects(), "the run was final while its step went on"


def test_a_fan_out_of_a_thousand_comes_back_while_an_agent_dies(folder: Callable[..., Folder]) -> None:
    here = folder()
    here.popen("up", "--agents", "2")
    run = here.start("fans", "count=1000")
    eventually(lambda: len(here.agents()) == 2)
    os.kill(here.agents()[0], signal.SIGKILL)

    eventually(lambda: here.status(run) == "completed", 60)
    assert here.json("result", run) == sum(range(1000))

"""Limits of queues over several agent processes that are killed: never exceeded, never lost, nobody deadlocks.

A step that holds a place also holds one of as many file locks as the queue has places, until it or its process ends: so the kernel is
the witness, not the engine's own rows.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from outlast import clock, codec, sqlite3
from outlast.model import new_id, workflow_code
from outlast.operations import Start
from outlast.store.sqlite import SqliteStore

from .commands import Folder, eventually

pytestmark = pytest.mark.crash

CODE = '''
import fcntl, os, time
from outlast import Queue, gather, step, workflow
from workflows.work import effect

Queue("three", concurrency=3)
Queue("two-each", per_partition=2)
Queue("rated", rate="4/1s")
Queue("one", concurrency=1)
Queue("kept", concurrency=1, hold="unfinished")

def hold(name: str, places: int, seconds: float) -> None:
    """Take one of so many locks; where all are taken, a limit was exceeded."""
    for place in range(places):
        descriptor = os.open(f"{name}.{place}.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        effect(f"held {name}")
        time.sleep(seconds)
        os.close(descriptor)
        return
    effect(f"EXCEEDED {name}")

@step
def held(name: str, places: int, seconds: float) -> None:
    hold(name, places, seconds)

@workflow(queue="three")
def among_three(seconds: float = 0.05) -> None:
    held("three", 3, seconds)

@workflow(queue="two-each")
def among_two(tenant: str) -> None:
    held(tenant, 2, 0.05)

@workflow(queue="rated")
def rated() -> None:
    pass

@step
def leaf(name: str, places: int) -> int:
    hold(name, places, 0.02)
    return 1

@workflow(queue="one")
def nested(depth: int, name: str = "one") -> int:
    count = sum(gather(*[leaf.submit(name, 1) for _ in range(3)]))
    return count + (nested.options(queue=name)(depth - 1, name) if depth else 0)
'''


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Folder]:
    # What holds a place for long is left at once when the test is over.
    made = Folder(tmp_path, lease="2s", grace="500ms")
    (tmp_path / "workflows" / "__init__.py").touch()
    (tmp_path / "workflows" / "queues.py").write_text(CODE)
    yield made
    made.close()


def start(here: Folder, workflow: str, count: int, *, queue: str, **given: Any) -> None:
    """Start runs by the store, since a process for each would take most of the test's time."""
    store = SqliteStore(here.path / "outlast.db")
    try:
        for number in range(count):
            values = {name: value(number) if callable(value) else value for name, value in given.items()}
            partition = values.pop("partition", None)
            uid = new_id(clock.wall())
            store.commit(Start(uid, "run", workflow, workflow_code(workflow), queue, codec.encode(values), partition=partition))
        store.ring()
    finally:
        store.close()


def agents(here: Folder) -> list[int]:
    return [pid for (pid,) in rows(here, "select pid from outlast_agent where status = 'active'")]


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def rows(here: Folder, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(here.path / "outlast.db")
    try:
        return [tuple(row) for row in connection.execute(sql)]
    finally:
        connection.close()


def all_completed(here: Folder) -> Callable[[], bool]:
    return lambda: rows(here, "select count(*) from outlast_task where status <> 'completed'") == [(0,)]


def kill_until(here: Folder, done: Callable[[], bool], *, kills: int, marker: str) -> None:
    """Kill agents, each time after some more was done, then let the rest come to its end."""
    chance = random.Random(7)
    for _ in range(kills):
        before = sum(marker in line for line in here.effects())
        eventually(lambda before=before: done() or sum(marker in line for line in here.effects()) >= before + 4, 60)
        living = agents(here)
        if done() or not living:
            break
        kill(chance.choice(living))
    eventually(done, 90)


def test_no_more_than_its_places_are_at_work_while_agents_are_killed(here: Folder) -> None:
    start(here, "among_three", 40, queue="three")
    here.popen("up", "--agents", "3", "--concurrency", "4")
    kill_until(here, all_completed(here), kills=5, marker="held three")
    effects = here.effects()
    assert not [line for line in effects if "EXCEEDED" in line]
    assert len(effects) >= 40


def test_a_killed_agents_places_come_back(here: Folder) -> None:
    start(here, "among_three", 3, queue="three", seconds=30)
    agent = here.popen("agent", "--concurrency", "4")
    eventually(lambda: len(here.effects()) == 3)
    here.popen("agent", "--concurrency", "4")
    start(here, "among_three", 1, queue="three")
    eventually(lambda: len(agents(here)) == 2)
    assert rows(here, "select count(*) from outlast_task where status = 'pending'") == [(1,)]
    os.kill(agent.pid, signal.SIGKILL)
    here.popen("supervisor")
    eventually(lambda: len(here.effects()) >= 4, 30)
    assert not [line for line in here.effects() if "EXCEEDED" in line]


def test_each_partition_keeps_to_its_own_limit_while_agents_are_killed(here: Folder) -> None:
    start(here, "among_two", 36, queue="two-each", tenant=lambda n: f"t{n % 3}", partition=lambda n: f"t{n % 3}")
    here.popen("up", "--agents", "3", "--concurrency", "4")
    kill_until(here, all_completed(here), kills=3, marker="held t")
    assert not [line for line in here.effects() if "EXCEEDED" in line]


def test_a_rate_holds_over_agents_that_are_killed(here: Folder) -> None:
    start(here, "rated", 16, queue="rated")
    here.popen("up", "--agents", "3", "--concurrency", "4")
    for _ in range(2):
        eventually(lambda: len(agents(here)) >= 2)
        kill(agents(here)[0])
    eventually(all_completed(here), 60)
    instants = [at for (at,) in rows(here, "select started_at from outlast_task order by started_at")]
    assert all(later - at >= 1_000_000 for at, later in zip(instants, instants[4:], strict=False)), instants


@pytest.mark.parametrize("queue", ["one", "kept"])
def test_runs_that_wait_for_their_own_queue_never_wait_for_ever(here: Folder, queue: str) -> None:
    start(here, "nested", 3, queue=queue, depth=2, name=queue)
    here.popen("up", "--agents", "2", "--concurrency", "4")
    kill_until(here, all_completed(here), kills=2, marker=f"held {queue}")
    assert not [line for line in here.effects() if "EXCEEDED" in line]

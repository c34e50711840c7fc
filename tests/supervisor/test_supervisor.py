"""The supervisor: deaths that are seen, leases that run out, stalls of its own, deadlines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outlast import clock
from outlast import operations as op
from outlast.loop import RoleLoop
from outlast.operations.atomic import Operation
from outlast.settings import Settings
from outlast.store.process import ProcessIdentity, this_process
from outlast.store.sqlite import SqliteStore
from outlast.supervisor import Supervisor
from outlast.supervisor.watch import DeathWatch

LEASE = 30 * clock.SECOND
SETTINGS = Settings()
NOT_FROM_HERE = "elsewhere/0000/4026531836"


def eventually(fact: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.002)


@pytest.fixture
def manual() -> Iterator[clock.ManualClock]:
    ours = clock.ManualClock()
    with clock.use(ours):
        yield ours


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "app.db", create=True)
    yield opened
    opened.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def identity_of(pid: int) -> ProcessIdentity:
    text = Path(f"/proc/{pid}/stat").read_text()
    return replace(this_process(), pid=pid, started=text[text.rindex(")") + 1 :].split()[19])


def register(store: SqliteStore, who: ProcessIdentity, *, uid: str = "a", lease: int = LEASE) -> int:
    return store.commit(op.RegisterAgent(uid, who.host, who.boot_id, who.pid, who.started, 8, None, lease, {"workflow:w": "f"}))


def claimed(store: SqliteStore, agent_id: int, *, alone: bool = False, uid: str = "run1") -> int:
    started = store.commit(op.Start(uid, "run", "w", "workflow:w", "default", b"[]", chain=uid))
    taken = store.commit(op.Claim(agent_id, 10, {"workflow:w": "f"}, alone=alone))
    assert started.task_id in [one.fence.task_id for one in taken]
    return started.task_id


def task(store: SqliteStore, task_id: int, columns: str) -> tuple[object, ...]:
    row: tuple[object, ...] = store.connection().execute(f"select {columns} from outlast_task where id = ?", (task_id,)).fetchone()
    return row


def status_of(store: SqliteStore, agent_id: int) -> str:
    row = store.connection().execute("select status from outlast_agent where id = ?", (agent_id,)).fetchone()
    return str(row[0])


def strays(store: SqliteStore) -> int:
    return int(store.connection().execute("select count(*) from outlast_stray").fetchone()[0])


def test_a_killed_agent_is_seen_at_the_next_look_and_its_task_given_back(store: SqliteStore, sleeper: subprocess.Popen[bytes]) -> None:
    agent_id = register(store, identity_of(sleeper.pid))
    task_id = claimed(store, agent_id)
    lines: list[str] = []
    supervisor = Supervisor(store, SETTINGS, on_change=lines.append)
    supervisor.tick(store.now())
    assert status_of(store, agent_id) == "active"
    sleeper.kill()
    sleeper.wait()
    supervisor.tick(store.now())
    assert status_of(store, agent_id) == "crashed"
    assert task(store, task_id, "status, suspect, agent_id") == ("pending", 1, None)
    assert f"pid {sleeper.pid}" in lines[0]
    assert "gave back w run1" in lines


def test_a_death_is_acted_on_within_milliseconds(store: SqliteStore, sleeper: subprocess.Popen[bytes]) -> None:
    agent_id = register(store, identity_of(sleeper.pid))
    task_id = claimed(store, agent_id)
    supervisor = Supervisor(store, SETTINGS)
    supervisor.start()
    time.sleep(0.1)
    began = time.monotonic()
    sleeper.kill()
    eventually(lambda: task(store, task_id, "status") == ("pending",))
    assert time.monotonic() - began < 0.5
    supervisor.stop()


def test_a_zombie_that_nobody_reaped_is_dead(store: SqliteStore, sleeper: subprocess.Popen[bytes]) -> None:
    agent_id = register(store, identity_of(sleeper.pid))
    os.kill(sleeper.pid, signal.SIGKILL)
    supervisor = Supervisor(store, SETTINGS)
    eventually(lambda: bool(supervisor.tick(store.now())) and status_of(store, agent_id) == "crashed")


def test_a_pid_that_was_given_away_is_not_mistaken_for_the_agent(store: SqliteStore) -> None:
    agent_id = register(store, replace(this_process(), started="1"))
    Supervisor(store, SETTINGS).tick(store.now())
    assert status_of(store, agent_id) == "crashed"


def test_a_reboot_is_no_crash(store: SqliteStore) -> None:
    agent_id = register(store, replace(this_process(), boot_id="an earlier boot"))
    task_id = claimed(store, agent_id, alone=True)
    Supervisor(store, SETTINGS).tick(store.now())
    assert status_of(store, agent_id) == "stopped"
    assert task(store, task_id, "status, suspect, crashes") == ("pending", 0, 0)


def test_a_lease_that_ran_out_gives_its_tasks_back_and_leaves_strays(manual: clock.ManualClock, store: SqliteStore) -> None:
    agent_id = register(store, replace(this_process(), host=NOT_FROM_HERE))
    task_id = claimed(store, agent_id)
    supervisor = Supervisor(store, SETTINGS)
    tick_through(manual, store, supervisor, 29.0)
    assert status_of(store, agent_id) == "active"
    tick_through(manual, store, supervisor, 2.0)
    assert status_of(store, agent_id) == "lost"
    assert task(store, task_id, "status, suspect") == ("pending", 0)
    assert strays(store) == 1


def tick_through(manual: clock.ManualClock, store: SqliteStore, supervisor: Supervisor, seconds: float) -> None:
    left = seconds
    while left > 0:
        delay = min(supervisor.tick(store.now()), left)
        assert delay > 0
        manual.advance(delay)
        left -= delay
    supervisor.tick(store.now())


def test_a_renewed_lease_does_not_run_out(manual: clock.ManualClock, store: SqliteStore) -> None:
    agent_id = register(store, replace(this_process(), host=NOT_FROM_HERE))
    supervisor = Supervisor(store, SETTINGS)
    for _ in range(5):
        tick_through(manual, store, supervisor, 10.0)
        assert store.commit(op.Heartbeat(agent_id, LEASE))
    assert status_of(store, agent_id) == "active"


def test_after_a_stall_of_its_own_every_lease_holds_for_one_more(manual: clock.ManualClock, store: SqliteStore) -> None:
    agent_id = register(store, replace(this_process(), host=NOT_FROM_HERE))
    supervisor = Supervisor(store, SETTINGS)
    supervisor.tick(store.now())
    manual.advance(3600)  # The laptop slept.
    supervisor.tick(store.now())
    assert status_of(store, agent_id) == "active"
    tick_through(manual, store, supervisor, 29.0)
    assert status_of(store, agent_id) == "active"
    tick_through(manual, store, supervisor, 2.0)
    assert status_of(store, agent_id) == "lost"


def test_a_process_seen_dead_is_not_spared_by_a_stall(store: SqliteStore, sleeper: subprocess.Popen[bytes]) -> None:
    agent_id = register(store, identity_of(sleeper.pid))
    supervisor = Supervisor(store, SETTINGS)
    supervisor.tick(store.now())
    sleeper.kill()
    sleeper.wait()
    supervisor.tick(store.now() + 3600 * clock.SECOND)
    assert status_of(store, agent_id) == "crashed"


def test_a_sweep_that_waited_long_for_the_lock_is_a_stall(
    manual: clock.ManualClock, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock that held up the sweep held up the heartbeats too: no verdict right after it."""
    agent_id = register(store, replace(this_process(), host=NOT_FROM_HERE))
    supervisor = Supervisor(store, SETTINGS)
    tick_through(manual, store, supervisor, 29.9)
    commit = store.commit

    def slow(operation: Operation[object]) -> object:
        if isinstance(operation, op.Sweep):
            manual.advance(15)
        return commit(operation)

    monkeypatch.setattr(store, "commit", slow)
    manual.advance(0.2)
    supervisor.tick(store.now())
    assert status_of(store, agent_id) == "active"


def test_an_agent_that_renews_while_the_sweep_waits_is_not_ended(
    manual: clock.ManualClock, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id = register(store, replace(this_process(), host=NOT_FROM_HERE))
    supervisor = Supervisor(store, SETTINGS)
    tick_through(manual, store, supervisor, 29.9)
    commit = store.commit

    def renewing(operation: Operation[object]) -> object:
        if isinstance(operation, op.Sweep):
            commit(op.Heartbeat(agent_id, LEASE))
        return commit(operation)

    monkeypatch.setattr(store, "commit", renewing)
    manual.advance(0.2)
    supervisor.tick(store.now())
    assert status_of(store, agent_id) == "active"


def test_a_wall_clock_that_jumps_ends_no_lease(manual: clock.ManualClock, store: SqliteStore) -> None:
    agent_id = register(store, replace(this_process(), host=NOT_FROM_HERE))
    supervisor = Supervisor(store, SETTINGS)
    supervisor.tick(store.now())
    manual.jump(86_400)
    supervisor.tick(store.now())
    manual.jump(-2 * 86_400)
    supervisor.tick(store.now())
    assert status_of(store, agent_id) == "active"


def test_a_stray_is_dropped_once_its_process_is_seen_dead_and_the_cancel_goes_on(
    store: SqliteStore, sleeper: subprocess.Popen[bytes]
) -> None:
    agent_id = register(store, identity_of(sleeper.pid), lease=0)
    task_id = claimed(store, agent_id)
    store.commit(op.Cancel("run1"))
    supervisor = Supervisor(store, SETTINGS)
    supervisor.tick(store.now())
    assert status_of(store, agent_id) == "lost"
    assert task(store, task_id, "ending, finished_at, due_at") == ("cancelled", None, None)
    sleeper.kill()
    sleeper.wait()
    supervisor.tick(store.now())
    assert strays(store) == 0
    assert task(store, task_id, "status") == ("cancelled",)


def test_a_task_that_takes_down_its_agent_alone_again_and_again_is_halted(store: SqliteStore) -> None:
    supervisor = Supervisor(store, SETTINGS)
    for number in range(SETTINGS.max_crashes):
        process = subprocess.Popen(["sleep", "600"])
        agent_id = register(store, identity_of(process.pid), uid=f"a{number}")
        if number == 0:
            task_id = claimed(store, agent_id, alone=True)
        else:
            assert store.commit(op.Claim(agent_id, 1, {"workflow:w": "f"}, alone=True, suspects=True))
        process.kill()
        process.wait()
        supervisor.tick(store.now())
    status, crashes, reason = task(store, task_id, "status, crashes, halt_reason")
    assert (status, crashes) == ("halted", SETTINGS.max_crashes)
    assert f"pid {process.pid}" in str(reason)


def test_a_deadline_brings_a_look_in_time(manual: clock.ManualClock, store: SqliteStore) -> None:
    started = store.commit(
        op.Start(
            "r",
            "run",
            "w",
            "workflow:w",
            "default",
            b"[]",
            chain="r",
            deadline_at=store.now() + clock.SECOND // 2,
        )
    )
    supervisor = Supervisor(store, SETTINGS)
    delay = supervisor.tick(store.now())
    assert delay == pytest.approx(0.5, abs=0.01)
    manual.advance(delay)
    supervisor.tick(store.now())
    assert task(store, started.task_id, "status") == ("failed",)


def test_an_overdue_run_that_its_agent_holds_makes_no_busy_loop(manual: clock.ManualClock, store: SqliteStore) -> None:
    agent_id = register(store, replace(this_process(), host=NOT_FROM_HERE), lease=10 * LEASE)
    task_id = claimed(store, agent_id)
    with store.transaction() as connection:
        connection.execute("update outlast_task set deadline_at = 1 where id = ?", (task_id,))
    assert Supervisor(store, SETTINGS).tick(store.now()) >= 0.5


def test_two_supervisors_do_no_harm(store: SqliteStore, sleeper: subprocess.Popen[bytes]) -> None:
    agent_id = register(store, identity_of(sleeper.pid))
    task_id = claimed(store, agent_id, alone=True)
    supervisors = [Supervisor(store, SETTINGS) for _ in range(4)]
    for supervisor in supervisors:
        supervisor.start()
    sleeper.kill()
    eventually(lambda: task(store, task_id, "status") == ("pending",))
    for supervisor in supervisors:
        supervisor.stop()
    assert task(store, task_id, "status, crashes, suspect") == ("pending", 1, 1)


def test_an_idle_supervisor_writes_no_more_than_a_lease_needs(manual: clock.ManualClock, store: SqliteStore) -> None:
    supervisor = Supervisor(store, SETTINGS)
    supervisor.tick(store.now())
    reader = SqliteStore(store.path)
    changes, version = 0, reader.data_version()
    for _ in range(30):
        manual.advance(1)
        supervisor.tick(store.now())
        changes += reader.data_version() != version
        version = reader.data_version()
    reader.close()
    assert changes == 3


def test_the_pair_that_bridges_a_reboot_is_kept_fresh(manual: clock.ManualClock, store: SqliteStore) -> None:
    supervisor = Supervisor(store, SETTINGS)
    tick_through(manual, store, supervisor, 25.0)
    recorded = store.connection().execute("select engine_at from outlast_clock").fetchone()[0]
    assert store.now() - recorded <= 10 * clock.SECOND


def test_a_watch_never_mistakes_a_reused_pid(sleeper: subprocess.Popen[bytes]) -> None:
    watch = DeathWatch()
    alive, impostor = identity_of(sleeper.pid), replace(identity_of(sleeper.pid), started="1")
    watch.follow([alive, impostor])
    assert not watch.is_dead(alive)
    assert watch.is_dead(impostor)
    assert len(watch.fds()) == 1
    watch.close()
    assert watch.fds() == []


@pytest.mark.skipif(sys.platform != "linux", reason="pidfds are Linux's")
def test_without_pidfds_the_supervisor_looks_twice_a_second(
    store: SqliteStore, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    register(store, identity_of(sleeper.pid))
    assert Supervisor(store, SETTINGS).tick(store.now()) <= 0.5


def test_the_loop_of_a_supervisor_survives_a_store_that_refuses(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[int] = []

    def refuse() -> object:
        refused.append(1)
        raise OSError("no descriptors left")

    supervisor = Supervisor(store, SETTINGS)
    with monkeypatch.context() as patched:
        patched.setattr(store, "connection", refuse)
        supervisor.start()
        eventually(lambda: len(refused) >= 2)
    agent_id = register(store, replace(this_process(), boot_id="an earlier boot"))
    eventually(lambda: status_of(store, agent_id) == "stopped")
    supervisor.stop()
    assert isinstance(supervisor._loop, RoleLoop)

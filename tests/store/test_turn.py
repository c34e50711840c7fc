"""The turn is fair, bounded, and gone with its holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import outlast
from outlast.store.turn import Turn
from outlast.store.turn.locks import Locks, OpenFileLocks, WholeFileLocks, _Wakes, open_locks


def _without_wakes(path: str) -> Locks:
    locks = OpenFileLocks(path)
    locks._wakes = _Wakes()
    return locks


KINDS = {
    "as on this system": open_locks,
    "with flock": WholeFileLocks,
}
if sys.platform == "linux":
    KINDS["without wakeups"] = _without_wakes


@pytest.fixture(params=KINDS)
def make(request, tmp_path, monkeypatch):
    """Turns with open files of their own: to each other they are as those of different processes."""
    monkeypatch.setattr("outlast.store.turn.open_locks", KINDS[request.param])
    made: list[Turn] = []

    def new() -> Turn:
        made.append(Turn(tmp_path / "app.db"))
        return made[-1]

    yield new
    for turn in made:
        turn.close()


def _wait_until_someone_waits(turn: Turn, start) -> threading.Thread:
    """Run `start` in a thread that finds the turn taken, and return once it holds `next`."""
    thread = threading.Thread(target=start)
    thread.start()
    locks = turn._locks
    assert locks is not None
    while locks.take_next():
        locks.free_next()
        time.sleep(0.0005)
    return thread


def test_only_one_has_the_turn(make):
    one, other = make(), make()
    assert one.acquire(1)
    assert not other.try_acquire()
    assert not other.acquire(0.01)
    one.release()
    assert other.try_acquire()
    other.release()
    assert one.try_acquire()
    one.release()


def test_a_turn_that_was_waited_for_counts_as_shared_for_a_moment(make, monkeypatch):
    one, other = make(), make()
    assert one.acquire(1)
    one.release()
    assert not one.is_shared
    assert other.acquire(1)
    assert not one.acquire(0.001)
    other.release()
    assert one.is_shared
    assert not other.is_shared
    now = time.clock_gettime(time.CLOCK_MONOTONIC)
    monkeypatch.setattr("outlast.store.turn._now", lambda: now + 1)
    assert not one.is_shared


def test_whoever_lets_go_comes_behind_the_one_that_waits(make):
    one, other = make(), make()
    go_on = threading.Event()
    got: list[bool] = []

    def take() -> None:
        got.append(other.acquire(30))
        go_on.wait(30)
        other.release()

    assert one.acquire(1)
    thread = _wait_until_someone_waits(one, take)
    one.release()
    assert not one.try_acquire(), "either the other has the turn by now, or it is next"
    go_on.set()
    thread.join()
    assert got == [True]
    assert one.try_acquire()
    one.release()


def test_threads_of_one_process_share_a_turn_fairly(make):
    turn = make()
    order: list[str] = []

    def take() -> None:
        assert turn.acquire(30)
        order.append("waiting")
        turn.release()

    assert turn.acquire(1)
    thread = threading.Thread(target=take)
    thread.start()
    while not turn._thread_next.locked():
        time.sleep(0.0005)
    turn.release()
    assert turn.acquire(30)
    order.append("again")
    turn.release()
    thread.join()
    assert order == ["waiting", "again"]


def test_a_holder_that_seems_stuck_is_waited_for_in_full_only_once(make):
    stuck, other = make(), make()
    assert stuck.acquire(1)
    assert not other.acquire(0.2)
    began = time.monotonic()
    for _ in range(10):
        assert not other.acquire(5)
    assert time.monotonic() - began < 4
    stuck.release()
    assert other.acquire(5)
    other.release()
    assert not other._is_impatient


def test_the_turn_is_taken_again_after_it_was_closed(make):
    turn = make()
    assert turn.acquire(1)
    turn.release()
    turn.close()
    assert turn.acquire(1)
    turn.release()


def test_where_no_lock_file_can_be_made_everyone_goes_on(tmp_path):
    one, other = Turn(tmp_path / "none" / "app.db"), Turn(tmp_path / "none" / "app.db")
    assert one.acquire(1)
    assert other.acquire(1)
    one.release()
    other.release()


def test_the_lock_file_has_the_rights_of_the_database(tmp_path):
    path = tmp_path / "app.db"
    path.touch()
    path.chmod(0o660)
    turn = Turn(path)
    assert turn.acquire(1)
    turn.release()
    turn.close()
    assert (tmp_path / "app.db-turn").stat().st_mode & 0o777 == 0o660


HOLD = """
import sys
from outlast.store.turn import Turn
turn = Turn(sys.argv[1])
assert turn.acquire(30)
print("held", flush=True)
sys.stdin.readline()
turn.release()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.mark.crash
def test_the_turn_of_a_killed_process_is_free(tmp_path):
    process, turn = _start(HOLD, tmp_path / "app.db"), Turn(tmp_path / "app.db")
    assert _line(process) == "held"
    assert not turn.try_acquire()
    process.kill()
    process.wait()
    assert turn.try_acquire()
    turn.release()
    _end(process)


@pytest.mark.crash
def test_a_stopped_process_holds_others_up_for_no_longer_than_they_will_wait(tmp_path):
    process, turn = _start(HOLD, tmp_path / "app.db"), Turn(tmp_path / "app.db")
    assert _line(process) == "held"
    process.send_signal(signal.SIGSTOP)
    assert not turn.acquire(0.1)
    process.send_signal(signal.SIGCONT)
    _end(process)


def test_a_release_wakes_the_process_that_waits(tmp_path):
    turn = Turn(tmp_path / "app.db")
    assert turn.acquire(1)
    process = _start(HOLD, tmp_path / "app.db")
    locks = turn._locks
    assert locks is not None
    while locks.take_next():
        locks.free_next()
        time.sleep(0.0005)
    turn.release()
    assert _line(process) == "held"
    _end(process)


@pytest.mark.crash
def test_a_forked_child_does_not_keep_the_turn_of_its_dead_parent(tmp_path):
    code = """
import os, signal, sys
from outlast.store.turn import Turn
turn = Turn(sys.argv[1])
assert turn.acquire(30)
if os.fork() == 0:
    print("forked", flush=True)
    sys.stdin.readline()
    os._exit(0)
signal.pause()
"""
    process, turn = _start(code, tmp_path / "app.db"), Turn(tmp_path / "app.db")
    assert _line(process) == "forked"
    assert not turn.try_acquire()
    process.kill()
    process.wait()
    assert turn.try_acquire()
    turn.release()
    _end(process)


def _start(code: str, path: Path) -> subprocess.Popen[str]:
    root = str(Path(outlast.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()

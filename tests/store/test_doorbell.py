"""A ring wakes whoever listens to the same file, and never troubles whoever rings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import outlast
from outlast.store import doorbell
from outlast.store.doorbell import Doorbell


@pytest.fixture
def root(monkeypatch):
    """A runtime folder of the test's own, with a name short enough for a socket."""
    folder = tempfile.mkdtemp(dir="/tmp", prefix="ob-")
    monkeypatch.setattr(doorbell, "_roots", lambda: [f"{folder}/outlast"])
    yield Path(folder) / "outlast"
    shutil.rmtree(folder)


@pytest.fixture
def bell(root, tmp_path):
    made = Doorbell(tmp_path / "app.db")
    yield made
    made.close()


def test_a_ring_wakes_every_listener_of_the_file_and_nobody_else(bell, tmp_path):
    other_file = Doorbell(tmp_path / "other.db")
    one, two, apart = bell.listen(), Doorbell(tmp_path / "app.db").listen(), other_file.listen()
    bell.ring()
    assert one.wait(5)
    assert two.wait(5)
    assert not apart.wait(0)
    for listener in (one, two, apart):
        listener.close()


def test_rings_that_nobody_took_count_as_one(bell):
    listener = bell.listen()
    for _ in range(1000):
        bell.ring()
    assert listener.wait(5)
    assert not listener.wait(0)
    listener.close()


def test_a_spare_listener_has_forgotten_what_was_rung_before(bell, root):
    listener = bell.listen()
    bell.give_back(listener)
    bell.ring()
    assert bell.take_spare() is listener
    assert not listener.wait(0)
    bell.ring()
    assert listener.wait(5)
    assert bell.take_spare() is None
    listener.close()


def test_one_spare_listener_is_kept_until_the_bell_is_closed(bell, root):
    one, two = bell.listen(), bell.listen()
    bell.give_back(one)
    bell.give_back(two)
    assert two.fileno() == -1
    bell.close()
    assert one.fileno() == -1
    assert bell.take_spare() is None
    assert [path for path in root.rglob("*") if path.is_socket()] == []


def test_a_listener_that_comes_back_to_a_closed_bell_is_closed(bell, root):
    listener = bell.listen()
    bell.close()  # By one thread, while another waited.
    bell.give_back(listener)
    assert listener.fileno() == -1
    assert bell.take_spare() is None


def test_a_spare_listener_is_not_used_over_a_fork(bell, root):
    listener = bell.listen()
    bell.give_back(listener)
    child = os.fork()
    if child == 0:
        os._exit(0 if bell.take_spare() is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert bell.take_spare() is listener
    bell.ring()
    assert listener.wait(5)
    listener.close()


def test_a_ring_leaves_out_the_spare_listener_that_nobody_waits_with(bell):
    spare, other = bell.listen(), bell.listen()
    bell.give_back(spare)
    bell.ring()
    assert other.wait(5)
    assert not spare.drain()
    assert bell.take_spare() is spare
    bell.ring()
    assert spare.wait(5)
    spare.close()
    other.close()


def test_a_forks_child_rings_the_parents_listener_that_was_spare_when_it_forked(bell):
    listener = bell.listen()
    bell.give_back(listener)
    begun, may_ring = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(begun[1], b".")
        os.read(may_ring[0], 1)
        bell.ring()
        os._exit(0)
    os.read(begun[0], 1)
    assert bell.take_spare() is listener
    os.write(may_ring[1], b".")
    assert listener.wait(5)
    assert os.waitpid(child, 0)[1] == 0
    listener.close()
    for descriptor in (*begun, *may_ring):
        os.close(descriptor)


def test_a_listener_that_comes_within_the_same_tick_of_the_file_systems_clock_is_rung(bell, monkeypatch):
    bell.ring()
    folder = next(iter(bell._houses))._folder
    stamp = os.stat(folder)
    listener = bell.listen()
    os.utime(folder, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    bell.ring()
    assert listener.wait(5)
    listener.close()


def test_a_settled_listing_is_not_read_again(bell, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(doorbell, "time", SimpleNamespace(clock_gettime=lambda _: now[0], CLOCK_MONOTONIC=time.CLOCK_MONOTONIC))
    bell.ring()
    now[0] += 1
    bell.ring()
    monkeypatch.setattr(doorbell.os, "listdir", lambda _: pytest.fail("listed again"))
    bell.ring()


def test_a_closed_listener_leaves_no_socket_behind(bell, root):
    listener = bell.listen()
    assert os.path.exists(listener.name)
    listener.close()
    listener.close()
    assert not os.path.exists(listener.name)
    assert listener.fileno() == -1
    bell.ring()


def test_the_socket_of_a_dead_process_is_removed_by_the_next_ring(bell, root):
    listener = bell.listen()
    assert listener._socket is not None
    listener._socket.close()
    bell.ring()
    assert not os.path.exists(listener.name)
    listener.close()


def test_a_ring_reaches_another_process(bell, root, tmp_path):
    code = """
import sys
from outlast.store import doorbell
doorbell._roots = lambda: [sys.argv[2]]
listener = doorbell.Doorbell(sys.argv[1]).listen()
print("listening", flush=True)
print(listener.wait(30), flush=True)
listener.close()
"""
    env = {**os.environ, "PYTHONPATH": str(Path(outlast.__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "app.db"), str(root)],
        stdout=subprocess.PIPE,
        text=True,
        env=env,
    )
    assert process.stdout is not None
    bell.ring()
    assert process.stdout.readline().strip() == "listening"
    bell.ring()
    assert process.stdout.readline().strip() == "True"
    process.communicate(timeout=30)


def test_the_folder_is_the_users_alone(bell, root):
    listener = bell.listen()
    for folder in (root, Path(listener.name).parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    listener.close()


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_folder_that_somebody_else_may_have_prepared_is_not_used(root, tmp_path, kind):
    match kind:
        case "open to others":
            root.mkdir()
            root.chmod(0o777)
        case "a link":
            (tmp_path / "theirs").mkdir(0o700)
            root.symlink_to(tmp_path / "theirs")
        case _:
            root.touch()
    bell = Doorbell(tmp_path / "app.db")
    listener = bell.listen()
    assert listener.fileno() == -1
    assert not listener.wait(0)
    bell.ring()
    listener.close()


def test_a_name_too_long_for_a_socket_gives_way_to_the_next_folder(root, tmp_path, monkeypatch):
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(doorbell, "_roots", lambda: [str(long / "outlast"), str(root)])
    bell = Doorbell(tmp_path / "app.db")
    listener = bell.listen()
    assert listener.name.startswith(str(root))
    bell.ring()
    assert listener.wait(5)
    listener.close()
    bell.close()


def test_a_service_without_a_runtime_folder_and_a_shell_with_one_hear_each_other(root, tmp_path, monkeypatch):
    shell, service = f"{root}-shell", str(root)
    monkeypatch.setattr(doorbell, "_roots", lambda: [service])
    listener = Doorbell(tmp_path / "app.db").listen()
    monkeypatch.setattr(doorbell, "_roots", lambda: [shell, service])
    bell = Doorbell(tmp_path / "app.db")
    bell.ring()
    assert listener.wait(5)
    listener.close()
    bell.close()


def test_a_folder_that_was_cleaned_away_is_made_again_by_the_next_listener(bell, root):
    bell.listen().close()
    shutil.rmtree(root)
    bell.ring()
    listener = bell.listen()
    assert listener.fileno() != -1
    bell.ring()
    assert listener.wait(5)
    listener.close()

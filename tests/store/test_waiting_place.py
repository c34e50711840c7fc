"""The places at which threads wait for their answers: each release is heard once, by the wait that it is for."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections import deque
from types import SimpleNamespace

import pytest

from outlast.store.committer import waiting_place
from outlast.store.committer.waiting_place import borrow, give_back

pytestmark = pytest.mark.skipif(not hasattr(os, "eventfd"), reason="without eventfd every place is a lock, and none is kept")


def test_a_place_at_which_a_wait_has_ended_is_used_again() -> None:
    place = borrow()
    place.release()  # Before the wait, which it ends all the same.
    place.acquire()
    give_back(place)
    assert borrow() is place


def test_a_late_release_of_a_wait_that_was_broken_off_is_not_taken_for_the_next_one() -> None:
    kept = borrow()
    give_back(kept)
    broken_off = borrow()
    assert broken_off is kept
    broken_off.release()
    next_place = borrow()
    heard = threading.Event()
    waits = threading.Thread(target=lambda: (next_place.acquire(), heard.set()), daemon=True)
    waits.start()
    assert not heard.wait(0.05)
    next_place.release()
    assert heard.wait(20)


def test_a_forked_child_hears_nothing_that_its_parent_is_told() -> None:
    code = """
import os
from outlast.store.committer.waiting_place import borrow, give_back
place = borrow()
give_back(place)
child = os.fork()
if child == 0:
    os._exit(7 if borrow() is not place else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert borrow() is place
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_is_written_to_a_closed_standard_stream_wakes_nobody() -> None:
    code = """
import os, threading
from outlast.store.committer.waiting_place import borrow
for number in range(3):
    os.close(number)
places = [borrow() for _ in range(4)]
for number in range(3):
    try:
        os.write(number, b"8 bytes\\n")
    except OSError:
        pass
answered = []
for place in places:
    threading.Timer(0.05, lambda place=place: (answered.append(place), place.release())).start()
    place.acquire()
    if place not in answered:
        os._exit(1)
os._exit(7)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 7


@pytest.fixture
def none_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_place, "_kept", deque())


@pytest.mark.usefixtures("none_kept")
def test_with_no_descriptor_left_a_thread_waits_at_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    allowed = len(waiting_place._allowed)
    monkeypatch.setattr(waiting_place, "os", SimpleNamespace(eventfd=refuses, EFD_CLOEXEC=os.O_CLOEXEC))
    place = borrow()
    place.release()
    place.acquire()
    give_back(place)
    assert not waiting_place._kept
    assert len(waiting_place._allowed) == allowed


@pytest.mark.usefixtures("none_kept")
def test_waiting_threads_take_no_more_than_their_share_of_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_place, "_allowed", [None] * 3)
    before = len(os.listdir("/dev/fd"))
    places = [borrow() for _ in range(10)]
    assert len(os.listdir("/dev/fd")) == before + 3
    places.clear()
    assert len(waiting_place._allowed) == 3

"""The role loop: waits for a delay, a ring, a descriptor or a stop, and contains errors."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlast.errors import StoreFull, StoreReplaced
from outlast.loop import RoleLoop
from outlast.store.sqlite import SqliteStore


def eventually(fact: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.002)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "app.db", create=True)
    yield opened
    opened.close()


class Ticks:
    def __init__(self, delay: float = 60.0) -> None:
        self.at: list[float] = []
        self.delay = delay
        self.error: Exception | None = None

    def __call__(self, now: int) -> float:
        self.at.append(time.monotonic())
        if self.error is not None:
            raise self.error
        return self.delay


def test_a_tick_comes_after_the_delay_that_the_last_one_asked_for(store: SqliteStore) -> None:
    ticks = Ticks(0.05)
    loop = RoleLoop("test", ticks, store)
    loop.start()
    eventually(lambda: len(ticks.at) >= 4)
    assert loop.stop()
    assert all(later - earlier >= 0.049 for earlier, later in zip(ticks.at, ticks.at[1:], strict=False))


def test_a_ring_brings_a_tick_at_once(store: SqliteStore) -> None:
    ticks = Ticks()
    loop = RoleLoop("test", ticks, store, listens=True)
    loop.start()
    eventually(lambda: len(ticks.at) == 1)
    began = time.monotonic()

    def rung() -> bool:
        store.ring()
        return len(ticks.at) > 1

    eventually(rung)
    assert time.monotonic() - began < 1.0
    loop.stop()


def test_a_storm_of_rings_is_not_a_storm_of_ticks(store: SqliteStore) -> None:
    ticks = Ticks()
    loop = RoleLoop("test", ticks, store, listens=True)
    loop.start()
    eventually(lambda: len(ticks.at) == 1)
    ends = time.monotonic() + 0.3
    while time.monotonic() < ends:
        store.ring()
    loop.stop()
    assert 5 < len(ticks.at) <= 35


def test_a_commit_without_a_ring_is_found_by_the_data_version(store: SqliteStore) -> None:
    ticks = Ticks()
    loop = RoleLoop("test", ticks, store, reads_version=True)
    loop.start()
    eventually(lambda: len(ticks.at) == 1)
    with store.transaction() as connection:
        connection.execute("insert into outlast_meta (key, value) values ('test', '1')")
    eventually(lambda: len(ticks.at) == 2)
    loop.stop()


def test_a_watched_descriptor_brings_a_tick(store: SqliteStore) -> None:
    read, write = os.pipe()
    ticks = Ticks()
    loop = RoleLoop("test", ticks, store, watched=lambda: [read])
    loop.start()
    eventually(lambda: len(ticks.at) == 1)
    os.write(write, b"x")
    eventually(lambda: len(ticks.at) >= 2)
    loop.stop()
    os.close(read)
    os.close(write)


def test_an_error_is_logged_once_and_the_next_tick_comes_later_and_later(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    ticks = Ticks(0.0)
    ticks.error = StoreFull("app.db")
    loop = RoleLoop("test", ticks, store, listens=True)
    with caplog.at_level(logging.INFO, logger="outlast"):
        loop.start()
        eventually(lambda: len(ticks.at) >= 1)

        def goes_on() -> bool:
            store.ring()  # News does not shorten the wait after an error.
            return len(ticks.at) == 4

        eventually(goes_on)
        ticks.error = None
        eventually(lambda: "goes on" in caplog.text)
        loop.stop()
    gaps = [later - earlier for earlier, later in zip(ticks.at[:4], ticks.at[1:4], strict=False)]
    assert gaps[0] >= 0.09
    assert gaps[1] >= 0.19
    assert gaps[2] >= 0.39
    assert caplog.text.count("is full") == 1


def test_an_unexpected_error_does_not_end_the_loop(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    ticks = Ticks()
    ticks.error = ZeroDivisionError("a bug")
    loop = RoleLoop("test", ticks, store)
    loop.start()
    eventually(lambda: len(ticks.at) == 2)
    loop.stop()
    assert caplog.text.count("Traceback") == 1


def test_an_idle_loop_uses_no_processor_time(store: SqliteStore) -> None:
    ticks = Ticks()
    loop = RoleLoop("test", ticks, store, listens=True)
    loop.start()
    eventually(lambda: len(ticks.at) == 1)
    before = resource.getrusage(resource.RUSAGE_SELF)
    threading.Event().wait(0.5)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.02
    assert len(ticks.at) == 1
    loop.stop()


def test_stop_and_wake_end_the_wait_at_once_and_may_come_late(store: SqliteStore) -> None:
    ticks = Ticks()
    loop = RoleLoop("test", ticks, store)
    loop.start()
    eventually(lambda: len(ticks.at) == 1)
    loop.wake()
    eventually(lambda: len(ticks.at) == 2)
    began = time.monotonic()
    assert loop.stop()
    assert time.monotonic() - began < 1.0
    loop.stop()
    loop.wake()


def test_a_tick_may_stop_its_own_loop(store: SqliteStore) -> None:
    ticks: list[int] = []

    def tick(now: int) -> float:
        ticks.append(now)
        loop.stop()
        return 60.0

    loop = RoleLoop("test", tick, store)
    loop.run()
    assert len(ticks) == 1


def test_a_signal_ends_the_wait_of_a_loop_in_the_main_thread(store: SqliteStore) -> None:
    ticks = Ticks()
    loop = RoleLoop("test", ticks, store)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: loop.stop())
    try:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        began = time.monotonic()
        loop.run()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - began < 5.0


def test_a_role_whose_file_has_gone_ends_and_says_so_once(store: SqliteStore, caplog: pytest.LogCaptureFixture) -> None:
    ticks = Ticks(0.0)
    ticks.error = StoreReplaced(store.path, is_gone=True)
    loop = RoleLoop("test", ticks, store)
    loop.start()
    assert loop._thread is not None
    loop._thread.join(5)
    assert [record.message for record in caplog.records] == [f"The test has ended: {ticks.error}"]
    with pytest.raises(StoreReplaced):
        RoleLoop("test", ticks, store).run()

"""Threads of a crowd wake on one processor only where that is measured to be quicker, and never run bound."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from driving import Driver, driver, entry

from outlast import operations as op
from outlast.store.committer import Committer, one_processor
from outlast.store.committer.one_processor import Trial, bind, unbind


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "app.db") as made:
        yield made


def rounds(trial: Trial, count: int, *, bound: float, free: float) -> float:
    """How many of the rounds went by bound, where a turn takes so long in each way."""
    ways = []
    for _ in range(count):
        ways.append(trial.bound)
        trial.took(bound if trial.bound else free)
    return sum(ways) / count


@pytest.mark.parametrize(("bound", "free", "least", "most"), [(70, 100, 0.95, 1), (100, 70, 0, 0.05), (98, 100, 0, 0.05)])
def test_the_clearly_quicker_way_is_gone_and_the_other_tried_now_and_then(bound: int, free: int, least: float, most: float) -> None:
    trial = Trial()
    rounds(trial, 20, bound=bound, free=free)
    assert least <= rounds(trial, 4_000, bound=bound, free=free) <= most


def test_a_way_that_becomes_the_slower_one_is_left() -> None:
    trial = Trial()
    rounds(trial, 2_000, bound=70, free=100)
    rounds(trial, 1_000, bound=130, free=100)
    assert rounds(trial, 2_000, bound=130, free=100) < 0.05


def test_one_long_round_decides_nothing() -> None:
    trial = Trial()
    for number in range(19):
        trial.took((10_000 if number == 12 else 70) if trial.bound else 100)
    assert trial.bound


def test_where_a_crowd_takes_no_turns_its_threads_are_free_until_both_ways_were_tried_again() -> None:
    trial = Trial()
    rounds(trial, 20, bound=70, free=100)
    assert trial.bound
    trial.begin_anew()
    assert rounds(trial, 9, bound=70, free=100) == 0
    assert rounds(trial, 100, bound=70, free=100) > 0.9


needs_linux = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) == 1, reason="needs Linux and two processors"
)


def crowded(file: Driver, monkeypatch: pytest.MonkeyPatch) -> Committer:
    """The committer of a file, with many callers for whom it is quicker to be bound."""
    committer = file.store.committer
    committer.callers = 100
    monkeypatch.setattr(committer._answered, "_trial", SimpleNamespace(bound=True, took=lambda _: None))
    return committer


@needs_linux
def test_a_thread_is_bound_while_it_waits_and_runs_as_before(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    fence = file.claimed(file.agent())
    committer = crowded(file, monkeypatch)
    before = os.sched_getaffinity(0)
    waits = threading.Event()
    seen: list[set[int]] = []

    def wait() -> None:
        thread.append(threading.get_native_id())
        waits.set()
        file.do(op.Append(fence, [entry(1)]))
        seen.append(os.sched_getaffinity(0))

    thread: list[int] = []
    with file.store.transaction():  # The writer waits for it, and the caller for the writer.
        caller = threading.Thread(target=wait)
        caller.start()
        assert waits.wait(20)
        for _ in range(2_000):
            if len(os.sched_getaffinity(thread[0])) == 1:
                break
            threading.Event().wait(0.01)
        assert len(os.sched_getaffinity(thread[0])) == 1
    caller.join(20)
    assert seen == [before]
    writer = committer._writer
    assert writer is not None
    assert writer.native_id is not None
    assert os.sched_getaffinity(writer.native_id) == before, "the writer was started by a thread that was bound"


@needs_linux
def test_a_wait_that_is_broken_off_leaves_its_thread_free(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    fence = file.claimed(file.agent())
    committer = crowded(file, monkeypatch)

    def broken_off() -> None:
        raise KeyboardInterrupt

    before = os.sched_getaffinity(0)
    with monkeypatch.context() as patch:
        patch.setattr(committer._answered, "let_next_go", broken_off)
        with pytest.raises(KeyboardInterrupt):
            file.do(op.Append(fence, [entry(1)]))
    assert os.sched_getaffinity(0) == before


@needs_linux
def test_a_thread_that_its_code_has_bound_stays_where_it_is() -> None:
    before = os.sched_getaffinity(0)
    one = {max(before)}
    try:
        os.sched_setaffinity(0, one)
        assert bind() is None
        assert os.sched_getaffinity(0) == one
    finally:
        unbind(before)


def test_where_a_sandbox_forbids_it_threads_wait_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(
        one_processor, "os", SimpleNamespace(sched_getaffinity=lambda _: {0, 1}, sched_setaffinity=refuses, getpid=lambda: 7)
    )
    monkeypatch.setattr(one_processor, "_can_bind", True)
    assert bind() is None
    assert not one_processor._can_bind

"""Callers whose answers are there go on one after the other, and none is held up for long by one that takes its time."""

from __future__ import annotations

import threading

import pytest

from outlast.store.committer import answered
from outlast.store.committer.answered import Answered


class Now:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    made = Now()
    monkeypatch.setattr(answered, "_now", made)
    return made


def callers(waiting: Answered, count: int) -> list[threading.Lock]:
    locks = [threading.Lock() for _ in range(count)]
    for lock in locks:
        lock.acquire()
        waiting.add(lock)
    return locks


def woken(locks: list[threading.Lock]) -> int:
    return sum(not lock.locked() for lock in locks)


def is_hasty(waiting: Answered) -> bool:
    """Whether callers are woken all at once for now."""
    return answered._now() < waiting._haste_until


def test_each_caller_is_woken_by_the_one_before_it(now: Now) -> None:
    waiting = Answered()
    locks = callers(waiting, 3)
    for count in (1, 2, 3):
        waiting.let_next_go()
        now.seconds += 0.0001
        assert woken(locks) == count
    assert not waiting
    assert waiting.patience_seconds() is None


def test_where_callers_take_their_time_all_are_woken_at_once_for_a_while(now: Now) -> None:
    waiting = Answered()
    locks = callers(waiting, 10)
    waiting.let_next_go()
    now.seconds += 0.02
    waiting.let_next_go()
    assert woken(locks) == 10
    assert is_hasty(waiting)
    locks = callers(waiting, 10)
    waiting.let_next_go()
    assert woken(locks) == 10
    now.seconds += 1
    locks = callers(waiting, 10)
    waiting.let_next_go()
    assert woken(locks) == 1


def test_who_looks_in_vain_wakes_all_and_the_while_grows_until_they_go_on_again(now: Now) -> None:
    waiting = Answered()
    whiles = []
    for _ in range(8):
        locks = callers(waiting, 3)
        waiting.let_next_go()
        assert waiting.goes_on()
        assert woken(locks) == 1
        assert not waiting.goes_on()
        assert woken(locks) == 3
        began = now.seconds
        while is_hasty(waiting):
            now.seconds += 0.001
        whiles.append(now.seconds - began)
    assert whiles == sorted(whiles)
    assert whiles[0] < 0.01
    assert 0.1 < whiles[-1] < 0.3
    locks = callers(waiting, 2)
    for _ in locks:
        waiting.let_next_go()
    callers(waiting, 2)
    waiting.let_next_go()
    assert not waiting.goes_on() or not waiting.goes_on()
    began = now.seconds
    while is_hasty(waiting):
        now.seconds += 0.001
    assert now.seconds - began < 0.01


def test_patience_grows_with_those_who_wait_and_with_what_each_takes(now: Now) -> None:
    waiting = Answered()
    callers(waiting, 2)
    few = waiting.patience_seconds()
    callers(waiting, 30)
    many = waiting.patience_seconds()
    callers(waiting, 10_000)
    assert few is not None
    assert many is not None
    assert few < many <= (waiting.patience_seconds() or 0) <= 0.01


def test_who_is_woken_together_with_all_waits_at_a_lock_and_who_takes_turns_at_a_descriptor(now: Now) -> None:
    waiting = Answered()
    taking_turns = waiting.place()
    waiting._haste_until = now.seconds + 1
    assert type(taking_turns) is not type(threading.Lock())
    assert type(waiting.place()) is type(threading.Lock())

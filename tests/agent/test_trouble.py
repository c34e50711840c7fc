"""An agent whose file fails it tells of it once, and looks again later and later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from outlast.agent import trouble
from outlast.agent.trouble import Trouble
from outlast.errors import StoreDamaged, StoreFull, StoreReplaced
from outlast.store.library import sqlite3


class Moments:
    """Stands for the clock, and for the loop that calls back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.delays: list[float] = []
        monkeypatch.setattr(trouble, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(trouble, "asyncio", SimpleNamespace(get_running_loop=lambda: self))

    def call_later(self, delay: float, _: Callable[[], Any]) -> None:
        self.delays.append(delay)
        self.now += delay


def _raises(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_damage_is_told_once_and_looked_at_later_and_later(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    moments = Moments(monkeypatch)
    made = Trouble(SimpleNamespace(path="app.db"), look_again=lambda: None, end=lambda: None)  # type: ignore[arg-type]
    for _ in range(6):
        made.contained(_raises(sqlite3.DatabaseError("database disk image is malformed")))
    assert moments.delays == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert [record.message for record in caplog.records] == [
        f"this agent will try again: {StoreDamaged('app.db', 'database disk image is malformed')}"
    ]
    made.has_passed()
    for _ in range(3):
        made.contained(_raises(StoreFull("app.db")))
    assert moments.delays[6:] == [1.0, 1.0, 1.0], "room may come at any moment"


def test_what_fails_at_each_ring_puts_off_the_next_look_only_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        looks: list[None] = []
        made = Trouble(SimpleNamespace(path="app.db"), look_again=lambda: looks.append(None), end=lambda: None)  # type: ignore[arg-type]
        for _ in range(100):
            made.has_come(StoreDamaged("app.db", "malformed"))
        assert made.is_fresh
        assert len(asyncio.get_running_loop()._scheduled) == 1  # type: ignore[attr-defined]

    asyncio.run(main())
    assert len(caplog.records) == 1


def test_a_file_that_has_gone_ends_the_agent_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ends: list[None] = []
    made = Trouble(SimpleNamespace(path="app.db"), look_again=lambda: None, end=lambda: ends.append(None))  # type: ignore[arg-type]
    gone = StoreReplaced("app.db", is_gone=True)
    made.contained(_raises(gone))
    made.contained(_raises(gone))
    assert (ends, made.lost, caplog.records) == ([None], gone, [])

"""What the world does to a file and its clock: no room, flipped bytes, a wall clock that somebody sets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast import clock, sleep, sqlite3, step, workflow
from outlast.store.connection import StoreConnection, ThreadConnections
from outlast.store.sqlite import SqliteStore
from outlast.testing import DrivenEngine, driven_engine
from outlast_pytest import outlast_engine

from .commands import eventually

__all__ = ["outlast_engine"]

executed: list[str] = []


@step(name="damage_note")
def note(tag: str) -> str:
    executed.append(tag)
    return "x" * 20


@workflow(name="damage_days")
def days(tag: str) -> list[str]:
    first = note(tag)
    sleep("1d")
    return [first, note(tag)]


@workflow(name="damage_later_days")
async def later_days(tag: str) -> list[str]:
    first = await note.aio(tag)
    await outlast.aio.sleep("1d")
    return [first, await note.aio(tag)]


@step(name="damage_big")
def big(number: int) -> str:
    executed.append(str(number))
    return str(number) * 60_000


@workflow(name="damage_large")
def large() -> int:
    return sum(len(big(number)) for number in range(6))


DAMAGES = {
    "bytes that are no JSON": "set data = x'7b7b7b'",
    "a flipped byte": "set data = cast(x'a2' || substr(data, 2) as blob)",
    "a result that ends early": "set data = cast(substr(data, 1, 9) as blob)",
    "another step's name": "set name = 'other'",
}


@pytest.mark.parametrize("flow", [days, later_days], ids=["sync", "async"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_halted_and_the_others_go_on(outlast_engine: DrivenEngine, damage: str, flow: Any) -> None:
    runs = [outlast_engine.start(flow, f"d{n}") for n in range(3)]
    outlast_engine.until_idle()
    connection = sqlite3.connect(outlast_engine.path)
    with connection:
        (task_id,) = connection.execute("select id from outlast_task where uid = ?", (runs[1].id,)).fetchone()
        statement = f"update outlast_journal {DAMAGES[damage]} where task_id = ? and event = 'completed' and kind = 'step'"
        assert connection.execute(statement, (task_id,)).rowcount == 1
    connection.close()
    outlast_engine.advance("2d")
    assert runs[0].status == runs[2].status == "completed"
    assert runs[1].status == "halted"


@pytest.mark.parametrize("jump", [-3_600.0, -86_400.0 * 400, 86_400.0 * 400], ids=["an hour back", "a year back", "a year ahead"])
def test_a_clock_that_jumps_ends_no_timer_early_and_strands_none(tmp_path: Path, jump: float) -> None:
    with driven_engine(tmp_path / "outlast.db") as engine:
        run = engine.start(days, "jump")
        engine.until_idle()
        virtual = clock.current
        virtual._instants[0] += round(jump * clock.SECOND)  # type: ignore[attr-defined]
        engine.advance("23h")
        assert run.status == "waiting"
        engine.advance("2h")
        assert run.status == "completed"


class Room:
    """How many pages the file may have; none is no limit."""

    pages: int | None = None


class CrampedConnections(ThreadConnections):
    def get(self) -> StoreConnection:
        connection = super().get()
        connection.execute(f"pragma max_page_count = {Room.pages or 1_000_000}")
        return connection


class CrampedStore(SqliteStore):
    connections_type = CrampedConnections


def test_a_full_disk_loses_nothing_and_work_goes_on_when_there_is_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    executed.clear()
    from outlast.settings import resolve

    store = CrampedStore(tmp_path / "outlast.db", create=True)
    engine = outlast.Engine.over(store, resolve({"lease": "60s"}))
    try:
        run = engine.start(large)
        Room.pages = store.connection().execute("pragma page_count").fetchone()[0] + 20
        with engine.agent(concurrency=2):
            eventually(lambda: "1" in executed)
            time.sleep(0.3)
            assert run.status == "running", "the outcome that finds no room is held"
            before = list(executed)
            assert len(before) == len(set(before)) < 6
            Room.pages = None
            assert run.result(timeout="60s") == 360_000
        assert executed == ["0", "1", "2", "3", "4", "5"], "a step whose outcome had no room was executed again"
    finally:
        Room.pages = None
        engine.close()

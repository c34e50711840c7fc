"""A crash at every commit of runs of all shapes: ends, tables and effects are those of the run without one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast import Retry, continue_as_new, current, gather, publish, sleep, step, transaction, workflow
from outlast.testing import DrivenEngine, crash_everywhere
from outlast.testing.left import left_in
from outlast_pytest import outlast_engine

__all__ = ["outlast_engine"]


def effect(line: str) -> None:
    with open(os.environ["LEDGER"], "a") as file:
        file.write(f"{line} {current().idempotency_key}\n")


@step(name="edge_act")
def act(n: int) -> int:
    effect(f"act {n}")
    return n


@act.compensation
def undo_act(result: int | None, n: int) -> None:
    effect(f"undo {n} {result}")


@step(name="edge_flaky", retry=Retry(3))
def flaky(n: int) -> int:
    step_now = current().step
    assert step_now is not None
    effect(f"flaky {n}")
    if step_now.try_number < 3:
        raise ConnectionError("not yet")
    return n


@transaction(name="edge_book")
def book(db: outlast.sqlite3.Connection, n: int) -> int:
    db.execute("insert into booking values (?)", (n,))
    return int(db.execute("select count(*) from booking").fetchone()[0])


@book.compensation
def undo_book(db: outlast.sqlite3.Connection, result: int | None, n: int) -> None:
    db.execute("insert into booking values (?)", (-n,))


@workflow(name="edge_child")
def child(n: int) -> int:
    act(n)
    return book(n)


@child.compensation
def undo_child(result: int | None, n: int) -> None:
    effect(f"undo child {n}")


@workflow(name="edge_undone")
def undone(n: int) -> None:
    act(n)
    child.start(2).result()
    book(3)
    act.submit(4).result()
    raise ValueError("no")


@workflow(name="edge_together")
async def together(n: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(flaky.aio(n)), group.create_task(book.aio(7))]
    await asyncio.sleep(3600)
    return [task.result() for task in tasks]


@workflow(name="edge_late", timeout="1h")
def late(n: int) -> None:
    act(n)
    child.start(2)
    sleep("2h")


@workflow(name="edge_again", retry=Retry(2))
def again(n: int) -> None:
    publish("n", n)
    flaky(n)
    raise ValueError("no")


@step(name="edge_bad")
def bad() -> None:
    raise ValueError("no")


@workflow(name="edge_fan", retry=Retry(2))
def fan(n: int) -> None:
    act.submit(n).result()
    gather(bad.submit(), act.options(delay="1h").submit(n + 1))


@workflow(name="edge_line")
def line(n: int) -> int:
    act(n)
    if n < 3:
        continue_as_new(n + 1)
    return n


@workflow(name="edge_long")
def long(n: int) -> int:
    sleep("3d")
    return n


@workflow(name="edge_refused")
def refused(n: int) -> str:
    only = long.options(unique_key="u", if_exists="fail")
    only.start(n)
    second = only.start(n + 1)
    sleep("1d")
    with contextlib.suppress(outlast.Conflict):
        second.result()
    return "refused"


def tables(connection: Any) -> None:
    connection.execute("create table booking (n)")


@pytest.mark.parametrize("flow", [undone, together, late, again, fan, line, refused], ids=lambda flow: flow.name)
def test_a_crash_at_any_commit_changes_nothing(flow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEDGER", str(tmp_path / "effects"))
    report = crash_everywhere(flow, 1, ledger=tmp_path / "effects", setup=tables)
    assert report.crashes >= 0.8 * report.trials > 12


def test_a_start_that_was_refused_leaves_no_gap_in_the_journal_of_a_run_that_parks(outlast_engine: DrivenEngine) -> None:
    run = outlast_engine.start(refused, 1)
    outlast_engine.until_idle()
    assert run.status == "waiting"
    assert left_in(outlast_engine.store).broken == ()
    assert run.result() == "refused"

"""What the tests of schedules share: a set clock, an app of their own, and the ledger in minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from outlast import clock
from outlast import operations as op
from outlast.clock import SECOND
from outlast.definition.registry import Registry
from outlast.scheduler import Scheduler
from outlast.settings import Settings
from outlast.store.sqlite import SqliteStore
from outlast.views.schedules import ticks_json

MINUTE, HOUR, DAY = 60, 3_600, 86_400
BEGIN = 1_700_000_040 * SECOND
"""A whole minute: 2023-11-14T22:14:00Z."""


def nightly() -> None: ...


def other() -> None: ...


def needy(folder: str, depth: int = 1) -> None: ...


def scheduler(store: SqliteStore, app: Registry) -> Scheduler:
    return Scheduler(store, app, Settings())


def settle(*all_of_them: Scheduler) -> None:
    """Look until nothing is due."""
    for one in all_of_them:
        for _ in range(1_000):
            if one.tick(one._store.now()) > 0:
                break
        else:
            raise AssertionError("it never comes to rest")


def ledger(store: SqliteStore, name: str = "nightly") -> list[tuple[str, int, int | None]]:
    """Outcome, minutes from the beginning to the row's end, and count; the oldest first."""
    rows = ticks_json(store, name, limit=None)
    return [(row["outcome"], (at(row["until"]) - BEGIN) // (MINUTE * SECOND), row["count"]) for row in reversed(rows)]


def at(text: str) -> int:
    return clock.from_datetime(datetime.fromisoformat(text))


def runs(store: SqliteStore) -> list[tuple[str, str, int | None]]:
    """Id, status and tick in minutes of every run, by tick."""
    rows = store.connection().execute(
        "select t.uid, t.status, i.tick from outlast_task t join outlast_input i on i.task_id = t.id order by i.tick, t.id"
    )
    return [(uid, status, None if tick is None else (tick - BEGIN) // (MINUTE * SECOND)) for uid, status, tick in rows]


def finish(store: SqliteStore, name: str = "nightly", limit: int = 1) -> list[str]:
    """Be an agent that takes the due runs and completes them."""
    code = {f"workflow:{name}": "f"}
    agent_id = store.commit(op.RegisterAgent(f"a{time.perf_counter_ns()}", "h", "b", 1, "s", 8, None, HOUR * SECOND, code))
    taken = store.commit(op.Claim(agent_id, limit, code))
    for one in taken:
        store.commit(op.End(one.fence, op.Ending.COMPLETED, output=b"null", simple=True))
    return [one.uid for one in taken]


def eventually(fact: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)

"""What statements cost: no hot one walks a table or sorts, whatever has finished."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import CODE, LEASE, Driver, driver, entry

from outlast import operations as op
from outlast.states import Ending
from outlast.store import claiming, places, sweeping, turns
from outlast.store.committer import together
from outlast.store.transaction import Transaction


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "app.db") as made:
        yield made


_CHEAP_SCANS = (
    # Partial indexes that hold only what is live, or undecided.
    "outlast_agent_live",
    "outlast_task_ending",
    "outlast_task_claimable",
    "outlast_task_suspect",
    "VIRTUAL TABLE",  # json_each over a parameter
)


def plan_of(connection: Any, sql: str) -> list[str]:
    return [str(row[3]) for row in connection.execute(f"explain query plan {sql}")]


def costly(connection: Any, statements: set[str]) -> dict[str, list[str]]:
    """The statements that walk a whole table, or sort: by SQLite's own plan."""
    found = {}
    for sql in statements:
        bad = [
            line
            for line in plan_of(connection, sql)
            if (re.match(r"SCAN (outlast_\w+|[a-z])\b", line) and not any(name in line for name in _CHEAP_SCANS)) or "TEMP B-TREE" in line
        ]
        if bad:
            found[sql] = bad
    return found


def finish_many(file: Driver, count: int) -> None:
    with file.store.transaction() as connection:
        connection.executemany(
            """
            insert into outlast_task (uid, kind, name, queue, status, needs, claim, created_at, started_at, finished_at,
                                      ended_at, deadline_at, ending, parent_id, unique_key)
            values (?, 'run', 'w', 'default', 'completed', 'workflow:w', 1, 1, 1, 1, 1, 1, 'completed', null, null)
            """,
            [(f"old{i}",) for i in range(count)],
        )
        connection.execute(
            """
            insert into outlast_input (task_id, data, chain)
            select id, x'7b7d', uid from outlast_task where uid like 'old%'
            """
        )


def test_no_hot_statement_walks_a_table_or_sorts(file: Driver) -> None:
    finish_many(file, 30_000)
    connection = file.store.connection()
    statements: set[str] = set()
    connection.set_trace_callback(lambda sql: statements.add(sql))
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    part = file.part(fence, "p", seq=1)
    file.do(op.Append(fence, [entry(2)], clears_suspicion=True))
    file.do(op.Append(fence, [entry(3, "t")], unless_signal="go"))
    file.do(op.Publish(fence, entry(4, "pub"), "k", b"1"))
    file.do(op.Emit(fence, entry(5, "em"), "s", [b"1", b"2"]))
    file.do(op.Park(fence, None, signals=("go",), parts=(part,), wait_for_all=True))
    file.do(op.Signal("r", "go", b"1"))
    taken = {one.fence.task_id: one.fence for one in file.claim(agent_id)}
    file.do(op.Again(taken[part], entry(1, "p", "tried", try_number=1), 0))
    (again,) = file.claim(agent_id)
    file.end(again.fence, tries=2, simple=True)
    claiming.notices(connection, agent_id)
    file.do(op.Acknowledge(taken[fence.task_id], 1))
    file.do(op.Heartbeat(agent_id, LEASE))
    file.next_due_at()
    claiming.has_suspects(connection, frozenset(CODE), None, now=file.store.now())
    sweeping.next_deadline_at(connection)
    file.end(taken[fence.task_id], output=b"1")
    file.do(op.Sweep(LEASE))
    connection.set_trace_callback(None)
    hot = {sql for sql in statements if re.match(r"\s*(select|update|insert|delete|with)\b", sql)}
    assert len(hot) > 25, "the trace saw too little"
    assert costly(connection, hot) == {}


def test_no_statement_of_a_claim_is_prepared_anew_for_its_limit() -> None:
    statements = [
        text for module in (claiming, places, turns) for text in vars(module).values() if isinstance(text, str) and ":limit" in text
    ]
    assert len(statements) > 6
    assert not [text for text in statements if re.search(r"limit :limit\s*$", text)]


def test_no_statement_of_a_group_walks_a_table_or_sorts(file: Driver) -> None:
    finish_many(file, 30_000)
    agent_id = file.agent()
    fences = [file.claimed(agent_id, f"r{number}") for number in range(90)]
    connection = file.store.connection()
    statements: set[str] = set()
    connection.set_trace_callback(lambda sql: statements.add(sql))
    with file.store.transaction():
        context = Transaction(connection, now=file.store.now(), wall=1)
        together.append(context, [op.Append(fence, [entry(1)]) for fence in fences])
        together.end(context, [op.End(fence, Ending.COMPLETED, output=b"1", simple=True) for fence in fences])
    connection.set_trace_callback(None)
    hot = {sql for sql in statements if re.match(r"\s*(select|update|insert|delete|with)\b", sql)}
    assert len(hot) > 5, "the trace saw too little"
    plans = {sql: [line for line in plan_of(connection, sql) if line != "SCAN entry" and "-ROW VALUES" not in line] for sql in hot}
    assert {sql for sql, plan in plans.items() if any(re.match(r"SCAN outlast_", line) or "TEMP B-TREE" in line for line in plan)} == set()


def test_a_claim_costs_the_same_work_beside_thirty_thousand_finished_runs(file: Driver) -> None:
    def steps() -> int:
        """SQLite's own count of what a claim did: exact, where time is not."""
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        file.start(f"r{file.number}")
        connection = file.store.connection()
        connection.set_progress_handler(tick, 1)
        (taken,) = file.claim(agent_id)
        connection.set_progress_handler(None, 0)
        file.end(taken.fence, simple=True)
        file.number += 1
        return count

    agent_id = file.agent()
    before = steps()
    finish_many(file, 30_000)
    assert steps() <= before * 1.2


def test_a_claim_costs_the_same_work_behind_thousands_that_are_left_to_other_code(file: Driver) -> None:
    others = CODE | {"workflow:w": "other"}
    agent_id, other = file.agent(), file.agent(code=others)
    file.do(op.GiveBack(file.claimed(agent_id, "left"), refused="f"))
    steps = []

    def tick() -> int:
        steps[-1] += 1
        return 0

    for count in (20, 20_000):
        with file.store.transaction() as connection:
            connection.executemany(
                """
                insert into outlast_task (uid, kind, name, queue, status, needs, due_at, claim, created_at)
                select ?, kind, name, queue, status, needs, due_at, claim, created_at from outlast_task where uid = 'left'
                """,
                [(f"left {count} {number}",) for number in range(count)],
            )
        file.start(f"own {count}")
        steps.append(0)
        connection = file.store.connection()
        connection.set_progress_handler(tick, 1)
        (taken,) = file.claim(agent_id, 4)
        connection.set_progress_handler(None, 0)
        assert taken.uid == f"own {count}"
        file.end(taken.fence, simple=True)
    assert steps[1] <= steps[0] * 1.2
    assert [one.uid for one in file.claim(other, 1, code=others)] == ["left"]


def test_looking_for_suspects_does_not_walk_a_backlog_of_innocents(file: Driver) -> None:
    connection = file.store.connection()
    with file.store.transaction():
        connection.executemany(
            """
            insert into outlast_task (uid, kind, name, queue, status, needs, due_at, created_at)
            values (?, 'run', 'w', 'default', 'pending', 'workflow:w', 1, 1)
            """,
            [(f"p{i}",) for i in range(20_000)],
        )
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    connection.set_progress_handler(tick, 100)
    assert not claiming.has_suspects(connection, frozenset(CODE), None, now=file.store.now())
    connection.set_progress_handler(None, 0)
    assert count < 20

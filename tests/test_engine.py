"""The facade: starts, handles, waits, the process's only engine, the outbox, the embedded agent."""

from __future__ import annotations

import asyncio
import math
import shutil
import signal
import sqlite3 as standard
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from made_runs import Maker

from outlast import caller, clock, codec, sqlite3, views
from outlast import operations as op
from outlast.definition import step, workflow
from outlast.engine import Engine, handle, outbox
from outlast.engine.embedded import EmbeddedAgent
from outlast.engine.handle import StoredRun
from outlast.errors import (
    Conflict,
    InvalidInput,
    KeyNotFound,
    NotStorable,
    OutlastError,
    OutsideRun,
    PayloadTooLarge,
    QueueNotFound,
    RemoteError,
    ResultTimeout,
    RunCancelled,
    RunFinished,
    RunHalted,
    RunNotFound,
    WorkflowNotFound,
    WrongSQLite,
)
from outlast.settings import Settings
from outlast.store import library, retrying
from outlast.store.doorbell import Listener


class Refused(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"refused with {code}")
        self.code = code


@step
def engine_double(number: int) -> int:
    return number * 2


@workflow(timeout="7d", max_crashes=3)
def engine_fulfil(order_id: str, amount: Decimal = Decimal(1), *, gift: bool = False) -> str:
    return order_id


@workflow
def engine_doubled(number: int) -> int:
    return engine_double(number)


@workflow
async def engine_doubled_async(number: int) -> int:
    return await engine_double.aio(number)


NAME = "engine_fulfil"
CODE = {f"workflow:{NAME}": "f"}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "app.db") as opened:
        yield opened


@pytest.fixture
def make(engine: Engine) -> Maker:
    made = Maker(engine.store)
    made.code = {**made.code, **CODE}
    return made


def eventually(fact: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def given(engine: Engine, run: StoredRun[Any]) -> dict[str, Any]:
    return views.run_json(engine.store, views.find_run(engine.store, run.id)[0])


def test_a_started_run_is_on_disk_with_its_arguments_by_name(engine: Engine, tmp_path: Path) -> None:
    run = engine.start(engine_fulfil, "o-1", gift=True)
    engine.close()
    with Engine(tmp_path / "app.db") as again:
        found = given(again, again.get(run.id))
    assert found["input"] == {"order_id": "o-1", "gift": True}
    assert (found["workflow"], found["status"], found["queue"]) == (NAME, "pending", "default")


def test_options_reach_the_row(engine: Engine) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    bound = engine_fulfil.options(key="o-1", priority=5, partition="tenant", tags={"team": "x"}, at=at, timeout="1h", unique_key="u")
    run = engine.start(bound, "o-1")
    task_id, _ = views.find_run(engine.store, run.id)
    found = given(engine, run)
    assert (found["key"], found["partition"], found["tags"]) == ("o-1", "tenant", {"team": "x"})
    assert found["due_at"] == clock.iso(clock.from_datetime(at))
    row = engine.store.connection().execute(
        "select t.priority, t.unique_key, i.timeout, i.max_crashes, t.needs from outlast_task t"
        " join outlast_input i on i.task_id = t.id where t.id = ?",
        (task_id,),
    )
    assert row.fetchone() == (5, "u", 3600 * clock.SECOND, 3, f"workflow:{NAME}")


def test_a_delay_counts_from_the_start(engine: Engine, make: Maker) -> None:
    engine.start(engine_fulfil.options(delay="1h"), "o-1")
    assert engine.store.commit(op.Claim(make.agent(), 1, CODE)) == []


def test_the_same_key_is_the_same_run(engine: Engine) -> None:
    first = engine.start(engine_fulfil.options(key="o-1"), "o-1")
    assert engine.start(engine_fulfil.options(key="o-1"), "o-2") == first
    assert engine.get(engine_fulfil, key="o-1") == engine.get(NAME, key="o-1") == first
    assert engine.get(f"{NAME}:o-1") == engine.get(first.id[:12]) == first
    assert len(engine.runs()) == 1


def test_a_unique_key_that_fails_starts_nothing(engine: Engine) -> None:
    bound = engine_fulfil.options(unique_key="u", if_exists="fail")
    engine.start(bound, "o-1")
    with pytest.raises(Conflict):
        engine.start(bound, "o-1")
    assert len(engine.runs()) == 1


@pytest.mark.parametrize(
    ("start", "error"),
    [
        (lambda e: e.start("engine_fulfill", "o-1"), WorkflowNotFound),
        (lambda e: e.start(f"{NAME}@9", "o-1"), WorkflowNotFound),
        (lambda e: e.start(engine_fulfil), InvalidInput),
        (lambda e: e.start(engine_fulfil, "o-1", colour=3), InvalidInput),
        (lambda e: e.start(engine_fulfil, object()), NotStorable),
        (lambda e: e.start(engine_fulfil, "\udc80"), NotStorable),
        (lambda e: e.start(engine_fulfil, "x" * 2_000_000), PayloadTooLarge),
        (lambda e: e.start(engine_fulfil.options(queue="nowhere"), "o-1"), QueueNotFound),
        (lambda e: e.start(engine_double, 1), InvalidInput),
        (lambda e: e.start(len, []), InvalidInput),
        (lambda e: e.start_named(NAME, {"order_id": "o-1", "amount": "much"}), InvalidInput),
        (lambda e: e.get(engine_fulfil, key="none"), RunNotFound),
        (lambda e: e.get(engine_fulfil), InvalidInput),
        (lambda e: e.get("none"), RunNotFound),
        (lambda e: e.agent(concurrency=0), InvalidInput),
        (lambda e: e.runs(limit=-1), InvalidInput),
        (lambda e: e.runs(limit="many"), InvalidInput),
        (lambda e: e.runs(tags={"a": 1}), InvalidInput),
        (lambda e: e.runs(tags="a"), InvalidInput),
        (lambda e: e.runs(workflow=engine_double), InvalidInput),
        (lambda e: e.agent(queues=["nowhere"]), QueueNotFound),
        (lambda e: e.agent(queues="default"), InvalidInput),
        (lambda e: e.agent(queues=[]), InvalidInput),
    ],
)
def test_bad_input_is_a_typed_error_and_nothing_is_written(
    engine: Engine, start: Callable[[Engine], object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        start(engine)
    assert engine.runs() == []


def test_a_stream_is_asked_for_by_a_name_and_a_number_or_refused_at_once(engine: Engine) -> None:
    run = engine.start(engine_fulfil, "o-1")
    for name, after in (("", 0), ("log", -1), ("log", "3")):
        with pytest.raises(InvalidInput):
            run.stream(name, after)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            run.astream(name, after)  # type: ignore[attr-defined]


def test_outside_input_is_converted_at_the_door(engine: Engine) -> None:
    run = engine.start_named(NAME, {"order_id": "o-1", "amount": "2.50"})
    task_id, _ = views.find_run(engine.store, run.id)
    row = engine.store.connection().execute("select data from outlast_input where task_id = ?", (task_id,)).fetchone()
    assert codec.decode(row[0]) == {"order_id": "o-1", "amount": Decimal("2.50")}


def test_a_url_is_refused_with_a_sentence() -> None:
    with pytest.raises(InvalidInput, match="PostgreSQL"):
        Engine("postgresql://host/db")


def test_windows_is_refused_and_wsl_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.engine._system", lambda: "nt")
    with pytest.raises(OutlastError, match="WSL"):
        Engine(tmp_path / "app.db")
    assert not (tmp_path / "app.db").exists()


def test_runs_filters_by_age_and_workflow(engine: Engine) -> None:
    run = engine.start(engine_fulfil, "o-1")
    other = engine.start(engine_doubled, 1)
    assert engine.runs(workflow=engine_fulfil) == [run]
    assert engine.runs(since="1h") == [other, run]
    assert engine.runs(until="1h") == []
    assert engine.runs(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert engine.runs(limit=1) == [other]


def test_a_waiter_wakes_when_the_run_ends(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    fence = make.claim(make.agent()).fence
    ender = threading.Timer(0.1, lambda: make.complete(fence, "done"))
    ender.start()
    assert run.result(timeout=5) == "done"
    ender.join()


def test_a_commit_that_rings_no_bell_is_found_by_the_data_version(engine: Engine, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = engine.start(engine_fulfil, "o-1")
    fence = make.claim(make.agent()).fence
    monkeypatch.setattr(engine.store, "ring", lambda: None)
    monkeypatch.setattr(engine.store.committer, "_ring", lambda: None)
    ender = threading.Timer(0.1, lambda: make.complete(fence, "done"))
    ender.start()
    assert run.result(timeout=5) == "done"
    ender.join()


def test_who_waits_for_a_run_just_started_hears_before_it_looks(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(Listener, "wait", lambda self, seconds: done.append("hears"))
    monkeypatch.setattr(StoredRun, "_look", lambda self: (done.append("looks"), (True, 1))[1])
    monkeypatch.setattr(handle, "_BEGIN_SECONDS", 3600.0)
    engine.store.doorbell.give_back(engine.store.listen())
    run = engine.start(engine_doubled, 1)
    assert run.result(timeout=60) == 1
    assert done == ["hears", "looks"]
    assert engine.get(run.id).result() == 1
    assert done == ["hears", "looks", "looks"], "what was not started just now may have ended long ago"


def test_a_waiter_costs_next_to_no_time_while_nothing_happens(engine: Engine) -> None:
    run = engine.start(engine_fulfil, "o-1")
    began = time.process_time()
    with pytest.raises(ResultTimeout):
        run.result(timeout=1)
    assert time.process_time() - began < 0.1


def test_a_timeout_changes_nothing(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    with pytest.raises(ResultTimeout, match=f"outlast why {run.id}"):
        run.result(timeout=0)
    assert run.status == "pending"
    with pytest.raises(InvalidInput):
        run.result(timeout="soon")


def test_a_failed_run_raises_its_own_error(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    make.fail(make.claim(make.agent()).fence, Refused(7), simple=True)
    with pytest.raises(Refused) as caught:
        run.result()
    assert caught.value.code == 7
    with pytest.raises(Refused):
        asyncio.run(_awaited(run))


def test_a_system_exit_in_a_workflow_does_not_end_the_waiter(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    make.fail(make.claim(make.agent()).fence, SystemExit(3), simple=True)
    with pytest.raises(RemoteError, match="SystemExit"):
        run.result()


def test_cancelled_and_halted_runs_raise(engine: Engine, make: Maker) -> None:
    cancelled = engine.start(engine_fulfil, "o-1")
    cancelled.cancel()
    with pytest.raises(RunCancelled):
        cancelled.result()
    with pytest.raises(RunFinished):
        cancelled.cancel()
    halted = engine.start(engine_fulfil, "o-2")
    engine.store.commit(op.Halt(make.claim(make.agent()).fence, "needs a look"))
    with pytest.raises(RunHalted, match="needs a look"):
        halted.result()
    halted.resume()
    assert halted.status == "pending"


async def _awaited(run: StoredRun[Any]) -> Any:
    return await run


def test_awaiting_many_runs_leaves_the_loop_free(engine: Engine, make: Maker) -> None:
    runs = [engine.start(engine_fulfil, f"o-{i}") for i in range(20)]
    agent = make.agent(slots=20)
    held = engine.store.commit(op.Claim(agent, 20, CODE))

    async def main() -> tuple[list[str], int]:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        ender = threading.Timer(0.2, lambda: [make.complete(one.fence, one.uid) for one in held])
        ender.start()
        values = await asyncio.gather(*[_awaited(run) for run in runs])
        ticking.cancel()
        return values, turns

    values, turns = asyncio.run(main())
    assert values == [run.id for run in runs]
    assert turns >= 10


def test_an_await_that_is_cancelled_leaves_nothing_behind(engine: Engine) -> None:
    run = engine.start(engine_fulfil, "o-1")

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await run

    asyncio.run(main())
    assert run.status == "pending"


def test_a_signal_is_kept_and_its_key_counts_once(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    run.signal("approval", {"by": "eve"}, key="s-1")
    engine.signal(run.id, "approval", {"by": "mallory"}, key="s-1")
    engine.signal(run, "other")
    rows = engine.store.connection().execute("select name, payload from outlast_signal order by id").fetchall()
    assert [(name, codec.decode(payload)) for name, payload in rows] == [
        ("approval", {"by": "eve"}),
        ("other", None),
    ]
    with pytest.raises(PayloadTooLarge):
        run.signal("big", "x" * 2_000_000)
    with pytest.raises(InvalidInput):
        run.signal("", 1)
    make.complete(make.claim(make.agent()).fence)
    with pytest.raises(RunFinished):
        run.signal("late")


def test_a_stream_is_followed_until_the_run_is_final(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    fence = make.claim(make.agent()).fence
    engine.store.commit(op.Emit(fence, None, "tokens", [codec.encode("a")]))

    def go_on() -> None:
        engine.store.commit(op.Emit(fence, None, "tokens", [codec.encode("b"), codec.encode("c")]))
        make.complete(fence)

    sender = threading.Timer(0.1, go_on)
    sender.start()
    assert list(run.stream("tokens")) == ["a", "b", "c"]
    sender.join()

    async def follow() -> list[object]:
        return [message async for message in run.astream("tokens", after=1)]

    assert asyncio.run(follow()) == ["b", "c"]
    assert list(run.stream("nothing")) == []


def test_query_gives_the_published_value(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    with pytest.raises(KeyNotFound, match="nothing so far"):
        run.query("progress")
    engine.store.commit(op.Publish(make.claim(make.agent()).fence, None, "progress", codec.encode({1, 2})))
    assert run.query("progress") == {1, 2}


def test_pause_and_resume(engine: Engine) -> None:
    run = engine.start(engine_fulfil, "o-1")
    run.pause()
    assert run.status == "paused"
    run.resume()
    assert run.status == "pending"
    with pytest.raises(Conflict):
        run.resume()
    with pytest.raises(Conflict):
        run.resume(not_done=True)
    with pytest.raises(InvalidInput):
        run.resume(done=1, not_done=True)


def test_handles_of_one_run_are_equal(engine: Engine) -> None:
    run = engine.start(engine_fulfil, "o-1")
    assert {run, engine.get(run.id)} == {run}
    assert run != engine.start(engine_fulfil, "o-1")
    assert run.id in repr(run)


def test_a_run_that_was_pruned_is_not_found_by_its_old_handle(engine: Engine) -> None:
    run = engine.start(engine_fulfil, "o-1")
    with engine.store.transaction() as connection:
        connection.execute("delete from outlast_task")
        connection.execute("delete from outlast_input")
    engine.start(engine_fulfil, "o-2")
    with pytest.raises(RunNotFound):
        _ = run.status
    with pytest.raises(RunNotFound):
        run.result()


def failed(engine: Engine, make: Maker, **options: Any) -> StoredRun[str]:
    run = engine.start(engine_fulfil.options(**options), "o-1")
    make.fail(make.claim(make.agent()).fence, ValueError("x"), simple=True)
    return run


def test_a_retry_is_a_new_run_with_the_same_input_and_tags_and_takes_the_key(engine: Engine, make: Maker) -> None:
    run = failed(engine, make, key="o-1", tags={"team": "x"})
    again = run.retry()
    found = given(engine, again)
    assert again != run
    assert (found["retry_of"], found["input"], found["tags"], found["key"]) == (
        run.id, {"order_id": "o-1"}, {"team": "x"}, "o-1",
    )  # fmt: skip
    assert engine.get(engine_fulfil, key="o-1") == again
    assert run.retry() == again
    row = engine.store.connection().execute("select chain from outlast_input where retry_of = ?", (run.id,)).fetchone()
    assert row == (run.id,)


def test_an_open_run_cannot_be_retried(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    with pytest.raises(Conflict):
        run.retry()
    with pytest.raises(OutlastError):
        run.retry(from_step="1")


def test_a_chain_has_one_unfinished_retry_whichever_run_of_it_is_retried(engine: Engine, make: Maker) -> None:
    run = failed(engine, make)
    second = run.retry()
    make.fail(make.claim(make.agent()).fence, ValueError("x"), simple=True)
    third = second.retry()
    assert third not in (run, second)
    assert run.retry() == second.retry() == third


def test_two_retries_at_once_are_one(engine: Engine, make: Maker) -> None:
    run = failed(engine, make)
    found: list[StoredRun[str]] = []
    threads = [threading.Thread(target=lambda: found.append(run.retry())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(engine.runs()) == 2


def test_the_idempotency_keys_of_what_was_undone_do_not_come_back(engine: Engine, make: Maker) -> None:
    run = engine.start(engine_fulfil, "o-1")
    fence = make.claim(make.agent()).fence
    make.charge(fence)
    make.fail(fence, ValueError("x"))
    held = make.claim(make.agent()).fence
    engine.store.commit(op.RecordUndo(held, make.entry(0, "undo/1", "completed", "compensation", "charge")))
    engine.store.commit(op.EndUndo(held))
    assert run.status == "compensated"
    run.retry()
    again = make.claim(make.agent())
    assert again.chain == run.id
    inherited = retrying.load(engine.store.connection(), again.fence.task_id)["1"]
    assert (inherited.event, inherited.generation) == (None, 1)


def test_the_only_engine_serves_start_of_a_workflow(engine: Engine) -> None:
    assert engine_fulfil.start("o-1") == engine.runs()[0]


def test_without_an_engine_start_names_what_to_write(engine: Engine) -> None:
    engine.close()
    engine.close()
    assert caller.start_outside is None
    with pytest.raises(OutsideRun, match="Engine"):
        engine_fulfil.start("o-1")


def test_two_engines_on_two_files_cannot_be_chosen_among(engine: Engine, tmp_path: Path) -> None:
    with Engine(tmp_path / "other.db"), pytest.raises(OutsideRun, match=r"engine\.start"):
        engine_fulfil.start("o-1")
    engine_fulfil.start("o-1")
    with Engine(tmp_path / "app.db"):
        engine_fulfil.start("o-2")
    assert len(engine.runs()) == 2


def test_an_engine_that_nobody_holds_does_not_count(engine: Engine, tmp_path: Path) -> None:
    other = Engine(tmp_path / "other.db")
    other.store.close()
    other.store.doorbell.close()
    del other
    engine_fulfil.start("o-1")


def test_threads_share_an_engine(engine: Engine) -> None:
    def many(thread: int) -> None:
        for number in range(20):
            engine.start(engine_fulfil, f"{thread}-{number}")

    threads = [threading.Thread(target=many, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(engine.runs(limit=None)) == 160


@pytest.fixture
def connection(engine: Engine) -> Iterator[Any]:
    opened = sqlite3.connect(engine.path)
    opened.execute("create table orders (id text)")
    yield opened
    opened.close()


def test_a_run_started_in_the_callers_transaction_is_there_when_it_commits(engine: Engine, connection: Any) -> None:
    connection.execute("insert into orders values ('o-1')")
    run = engine.start(engine_fulfil.options(connection=connection), "o-1")
    with pytest.raises(RunNotFound):
        _ = run.status
    connection.commit()
    assert run.status == "pending"


def test_a_start_in_the_callers_transaction_is_as_durable_as_the_caller_has_it(engine: Engine, connection: Any) -> None:
    connection.execute("pragma synchronous = off")
    before = connection.isolation_level
    engine.start(engine_fulfil.options(connection=connection), "o-1")
    assert connection.in_transaction
    connection.commit()
    assert connection.execute("pragma synchronous").fetchone() == (0,)
    assert connection.isolation_level == before


def test_a_rollback_takes_the_run_with_it(engine: Engine, connection: Any) -> None:
    run = engine.start(engine_fulfil.options(connection=connection), "o-1")
    connection.execute("insert into orders values ('o-1')")
    connection.rollback()
    assert engine.runs() == []
    with pytest.raises(RunNotFound):
        run.result()
    assert connection.execute("select count(*) from orders").fetchone() == (0,)


def test_the_bell_is_rung_once_the_caller_has_committed(engine: Engine, connection: Any) -> None:
    with closing(engine.store.listen()) as listener:
        engine.start(engine_fulfil.options(connection=connection), "o-1")
        assert not listener.wait(0.05)
        connection.commit()
        assert listener.wait(5)


def test_whoever_waits_for_a_commit_in_a_file_that_was_removed_goes_quietly(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    # Its thread opens the file when it first looks, which may be after the file has gone.
    with Engine(tmp_path / "gone" / "app.db") as engine:
        shutil.rmtree(tmp_path / "gone")
        over: list[bool] = []
        expected = outbox._Expected(engine.store, "a-run", math.inf)
        looks = threading.Thread(target=lambda: over.append(expected.is_over()))
        looks.start()
        looks.join()
        assert over == [True]
    assert not (tmp_path / "gone").exists()


def test_a_connection_that_cannot_be_used_here_is_refused(engine: Engine) -> None:
    opened = sqlite3.connect(engine.path)
    opened.close()
    with pytest.raises(InvalidInput, match="an open connection of this thread"):
        engine.start(engine_fulfil.options(connection=opened), "o-1")


def test_a_start_that_fails_leaves_the_callers_changes_alone(engine: Engine, connection: Any) -> None:
    connection.row_factory = sqlite3.Row
    bound = engine_fulfil.options(connection=connection, unique_key="u", if_exists="fail")
    connection.execute("insert into orders values ('o-1')")
    engine.start(bound, "o-1")
    with pytest.raises(Conflict):
        engine.start(bound, "o-2")
    connection.commit()
    assert connection.row_factory is sqlite3.Row
    assert len(engine.runs()) == 1
    assert connection.execute("select count(*) from orders").fetchone()[0] == 1


def test_an_autocommit_connection_needs_a_transaction(engine: Engine) -> None:
    opened = sqlite3.connect(engine.path, isolation_level=None)
    bound = engine_fulfil.options(connection=opened)
    with pytest.raises(InvalidInput, match="BEGIN"):
        engine.start(bound, "o-1")
    opened.execute("begin immediate")
    run = engine.start(bound, "o-1")
    opened.execute("commit")
    opened.close()
    assert run.status == "pending"


def test_a_connection_to_another_file_is_refused(engine: Engine, tmp_path: Path) -> None:
    for name in (str(tmp_path / "foreign.db"), ":memory:"):
        opened = sqlite3.connect(name)
        with pytest.raises(InvalidInput, match="the engine's file is"):
            engine.start(engine_fulfil.options(connection=opened), "o-1")
        opened.close()


@pytest.mark.skipif(not library.differs, reason="Python's own SQLite is the one in use")
def test_a_connection_of_the_other_library_is_refused(engine: Engine) -> None:
    opened = standard.connect(":memory:")
    with pytest.raises(WrongSQLite, match="from outlast import sqlite3"):
        engine.start(engine_fulfil.options(connection=opened), "o-1")  # type: ignore[arg-type]
    opened.close()


def test_an_embedded_agent_carries_runs_to_their_end(engine: Engine) -> None:
    with engine.agent(concurrency=2):
        assert caller.embedded_agent
        assert engine.start(engine_doubled, 21).result(timeout=10) == 42
        assert engine.start(engine_doubled_async, 4).result(timeout=10) == 8
    assert not caller.embedded_agent
    assert views.agents_json(engine.store) == []


def test_an_engine_that_is_closed_stops_its_agents(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "app.db")
    engine.agent().start()
    assert engine.start(engine_doubled, 21).result(timeout=10) == 42
    engine.close()
    # A runner that has just finished its last piece of work ends when it looks for the next.
    for thread in threading.enumerate():
        if thread.name.startswith("outlast-"):
            thread.join(10)
            assert not thread.is_alive(), thread.name
    assert not caller.embedded_agent


def test_an_embedded_agent_learns_what_is_defined_while_it_works(engine: Engine) -> None:
    cells = {"__name__": "notebook"}
    with engine.agent(concurrency=2):
        for number in (1, 2):
            cell = f"@step\ndef late_step():\n    return {number}\n\n@workflow\ndef late():\n    return late_step.submit().result()"
            exec(compile(f"from outlast import step, workflow\n{cell}", f"<cell {number}>", "exec"), cells)
            assert engine.start("late").result(timeout=20) == number
        known = engine.store.connection().execute("select needs, fingerprint from outlast_agent_code").fetchall()
    late: Any = cells["late"]
    assert ("workflow:late", late.fingerprint) in known


def test_an_embedded_agent_leaves_signals_alone_and_steps_elsewhere_only_warn(engine: Engine) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)}
    with engine.agent():
        assert {number: signal.getsignal(number) for number in before} == before
        with pytest.warns(RuntimeWarning, match=r"Write `engine_double.fn"):
            assert engine_double(2) == 4
        assert engine_double.fn(2) == 4
    assert engine_double(2) == 4
    assert {number: signal.getsignal(number) for number in before} == before


def test_an_embedded_agent_in_an_async_program_drains_off_the_loop(engine: Engine) -> None:
    async def main() -> int:
        async with engine.agent():
            return await engine.start(engine_doubled, 5)

    assert asyncio.run(main()) == 10
    assert views.agents_json(engine.store) == []


class _Role:
    """A role that notes what is asked of it."""

    def __init__(self, name: str, notes: list[str], *, fails: bool = False) -> None:
        self.name = name
        self.notes = notes
        self.fails = fails

    def start(self) -> None:
        if self.fails:
            raise RuntimeError(self.name)
        self.notes.append(f"start {self.name}")

    def stop(self) -> None:
        self.notes.append(f"stop {self.name}")


class _Embedded(EmbeddedAgent):
    def __init__(self, notes: list[str], *, fails: bool = False) -> None:
        super().__init__(None, Settings(), concurrency=1, queues=None)  # type: ignore[arg-type]
        self.notes = notes
        self.fails = fails

    def _made(self) -> Iterator[_Role]:
        yield _Role("supervisor", self.notes)
        yield _Role("agent", self.notes, fails=self.fails)
        yield _Role("scheduler", self.notes)


def test_the_supervisor_goes_after_the_agent() -> None:
    notes: list[str] = []
    with _Embedded(notes):
        pass
    started = ["start supervisor", "start agent", "start scheduler"]
    assert notes == [*started, "stop scheduler", "stop agent", "stop supervisor"]


def test_a_role_that_does_not_start_leaves_none_running() -> None:
    notes: list[str] = []
    with pytest.raises(RuntimeError), _Embedded(notes, fails=True):
        pass
    assert notes == ["start supervisor", "stop supervisor"]
    assert not caller.embedded_agent

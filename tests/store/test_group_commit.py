"""Group commit: each operation is all or nothing, and what a failed commit held is written again once."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import CODE, LEASE, Driver, driver, entry

import outlast.agent.answers
from outlast import operations as op
from outlast.errors import LeaseLost, StoreFull, StoreLocked
from outlast.operations.atomic import Operation
from outlast.states import Ending
from outlast.store.committer import group, waiting_place
from outlast.store.connection import transaction
from outlast.store.library import sqlite3
from outlast.store.sqlite import SqliteStore


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "app.db") as made:
        yield made


class Answers:
    """What the committer answered, in its order."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any, BaseException | None]] = []

    def named(self, name: str) -> Any:
        return lambda result, error: self.got.append((name, result, error))


def in_one_group(file: Driver, operations: dict[str, Operation[Any]], monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Hand everything over while the file is busy, so that it goes to disk in one transaction."""
    sizes: list[int] = []
    committer = file.store.committer
    run_group = committer._run_group
    monkeypatch.setattr(committer, "_run_group", lambda group: (sizes.append(len(group)), run_group(group))[1])
    answers = Answers()
    with file.store.transaction():
        committer.submit(op.Heartbeat(0, LEASE))
        while committer._queue:
            pass
        for name, operation in operations.items():
            committer.submit(operation, answers.named(name))
    committer.close()
    assert sizes[:2] == [1, len(operations)]
    return answers


def test_one_failing_operation_in_a_group_fails_alone_and_the_order_is_kept(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_id = file.agent()
    old = file.claimed(agent_id, "old")
    file.do(op.GiveBack(old))
    fence = file.claimed(agent_id, "r")
    file.do(op.Append(fence, [entry(1, "taken")]))
    answers = in_one_group(
        file,
        {
            "a": op.Append(fence, [entry(2, "a")]),
            "zombie": op.Append(old, [entry(9, "zombie")]),
            "half": op.Append(fence, [entry(3, "half"), entry(1, "duplicate")]),
            "b": op.Append(fence, [entry(3, "b")]),
            "no such run": op.Signal("nobody", "go", b"1"),
            "start": op.Start("new", "run", "w", "workflow:w", "default", b"{}"),
            "key twice": op.Start("new", "run", "w", "workflow:w", "default", b"{}"),
            "c": op.End(fence, Ending.COMPLETED, output=b"1", simple=True),
            "after the end": op.Append(fence, [entry(4, "d")]),
        },
        monkeypatch,
    )
    assert [name for name, _, _ in answers.got] == [
        "a", "zombie", "half", "b", "no such run", "start", "key twice", "c", "after the end",
    ]  # fmt: skip
    failed = {name: type(error) for name, _, error in answers.got if error is not None}
    assert set(failed) == {"zombie", "half", "no such run", "key twice", "after the end"}
    assert failed["zombie"] is failed["after the end"] is LeaseLost
    assert file.events(fence.task_id) == [(1, "taken", "completed"), (2, "a", "completed"), (3, "b", "completed")]
    assert file.status(fence.task_id) == "completed"
    assert file.query("select count(*) from outlast_task where uid = 'new'") == [(1,)]


def test_a_group_gives_the_same_answers_as_its_operations_one_by_one(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    fences = [file.claimed(file.agent(), f"r{i}") for i in range(20)]
    answers = in_one_group(
        file,
        {f"{i}{what}": operation for i, fence in enumerate(fences) for what, operation in (
            ("append", op.Append(fence, [entry(1)])),
            ("end", op.End(fence, Ending.COMPLETED, output=b"1", simple=True)),
            ("again", op.End(fence, Ending.FAILED, simple=True)),
        )},
        monkeypatch,
    )  # fmt: skip
    assert [isinstance(error, LeaseLost) for _, _, error in answers.got] == [False, False, True] * 20
    assert {file.status(fence.task_id) for fence in fences} == {"completed"}


def test_nobody_is_answered_before_the_commit(file: Driver) -> None:
    """Whoever is answered can read what was written on any other connection."""
    fence = file.claimed(file.agent())
    seen: list[int] = []
    done = threading.Event()

    def answered(_: Any, __: BaseException | None) -> None:
        other = SqliteStore(file.store.path)
        seen.append(len(list(other.connection().execute("select 1 from outlast_journal"))))
        other.close()
        done.set()

    file.store.submit(op.Append(fence, [entry(1)]), answered)
    assert done.wait(10)
    assert seen == [1]


class FlakyTransaction(transaction):
    """A transaction whose COMMIT fails: before the disk has it, or after, so that only the answer is lost."""

    failures: list[str] = []  # noqa: RUF012

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        how = self.failures.pop(0) if self.failures and kind is None else ""
        match how:
            case "before" | "locked":
                failure = StoreFull("app.db") if how == "before" else StoreLocked("app.db", 5.0)
                super().__exit__(StoreFull, failure, None)
                raise failure
            case "after":
                super().__exit__(None, None, None)
                raise StoreFull("app.db")
            case _:
                super().__exit__(kind, error, trace)


@pytest.fixture
def flaky(file: Driver, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    FlakyTransaction.failures = []
    monkeypatch.setattr(group, "transaction", FlakyTransaction)
    monkeypatch.setattr("outlast.store.committer._RETRY_SECONDS", 0.01)
    file.store.patient = True
    yield FlakyTransaction.failures
    assert FlakyTransaction.failures == [], "the commits did not fail as often as planned"


FAILURES = [["before"], ["locked", "before", "locked"], ["after"], ["before", "after"], ["after", "before", "after"]]


@pytest.mark.parametrize("failures", FAILURES, ids="-".join)
def test_what_a_failed_commit_held_is_written_again_once(file: Driver, flaky: list[str], failures: list[str]) -> None:
    fence = file.claimed(file.agent())
    flaky += failures
    assert file.do(op.Append(fence, [entry(1), entry(2, "2")])) is True
    flaky += failures
    part = file.part(fence, "p", seq=3)
    flaky += failures
    assert file.do(op.Cancel("r")) == "running"
    assert file.row(fence.task_id, "cancel_requested_at is not null") == (1,)
    flaky += failures
    assert file.end(fence, Ending.FAILED, error=b"null") == "cancelled"
    assert file.events(fence.task_id)[:3] == [(1, "1", "completed"), (2, "2", "completed"), (3, "p", "started")]
    assert file.query("select count(*) from outlast_journal where seq < 4") == [(3,)]
    assert file.status(part) == "cancelled"


def test_an_agent_that_cannot_register_for_want_of_room_is_told_so_and_does_not_wait(file: Driver, flaky: list[str]) -> None:
    flaky += ["before", "before"]
    asked = threading.Event()

    def register() -> None:
        with pytest.raises(StoreFull):
            file.agent()
        asked.set()

    # From a thread that fails the test instead of hanging it.
    threading.Thread(target=register, daemon=True).start()
    assert asked.wait(20)


@pytest.mark.parametrize("failures", FAILURES, ids="-".join)
def test_a_start_whose_commit_failed_leads_to_one_run(file: Driver, flaky: list[str], failures: list[str]) -> None:
    flaky += failures
    started = file.do(op.Start("r", "run", "w", "workflow:w", "default", b"{}"))
    assert started.uid == "r"
    assert file.query("select id from outlast_task") == [(started.task_id,)]


@pytest.mark.parametrize("failures", FAILURES, ids="-".join)
def test_a_group_whose_commit_failed_is_written_again_under_its_fences(
    file: Driver, flaky: list[str], failures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id = file.agent()
    zombie = file.claimed(agent_id, "zombie")
    file.do(op.GiveBack(zombie))
    fences = [file.claimed(agent_id, f"r{i}") for i in range(5)]
    operations: dict[str, Operation[Any]] = {"zombie": op.Append(zombie, [entry(1)])}
    for number, fence in enumerate(fences):
        operations[f"append{number}"] = op.Append(fence, [entry(1)])
        operations[f"end{number}"] = op.End(fence, Ending.COMPLETED, output=b"1", simple=True)
    committer, answers = file.store.committer, Answers()
    with file.store.transaction():
        committer.submit(op.Heartbeat(0, LEASE))
        while committer._queue:
            pass
        for name, operation in operations.items():
            committer.submit(operation, answers.named(name))
        flaky += ["", *failures]
    committer.close()
    failed = {name for name, _, error in answers.got if error is not None}
    # Where the first writing had gone through, the append is found; the end that followed it proves that it was ours.
    assert failed == {"zombie"}
    assert [name for name, _, _ in answers.got] == list(operations)
    assert {file.status(fence.task_id) for fence in fences} == {"completed"}
    assert file.query("select count(*) from outlast_journal") == [(5,)]


def test_a_commit_that_fails_for_good_is_told_and_nothing_was_written(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    fence = file.claimed(file.agent())
    before = file.dump()
    monkeypatch.setattr(group, "transaction", FlakyTransaction)
    FlakyTransaction.failures = ["before"]
    with pytest.raises(StoreFull):
        file.do(op.Append(fence, [entry(1)]))
    assert file.dump() == before
    file.do(op.Append(fence, [entry(1)]))


def test_a_full_disk_stops_claims_and_holds_what_was_done(file: Driver, flaky: list[str]) -> None:
    fence = file.claimed(file.agent())
    flaky += ["before"]
    refused, held = Answers(), Answers()
    committer = file.store.committer
    with file.store.transaction():
        committer.submit(op.Heartbeat(0, LEASE))
        while committer._queue:
            pass
        committer.submit(op.Claim(1, 1, CODE), refused.named("claim"))
        committer.submit(op.Append(fence, [entry(1)]), held.named("append"))
        flaky.insert(0, "")
    committer.close()
    assert isinstance(refused.got[0][2], StoreFull)
    assert held.got == [("append", True, None)]
    assert file.events(fence.task_id) == [(1, "1", "completed")]


def test_a_caller_that_waits_in_a_crowd_is_told_of_a_full_disk_too(file: Driver, flaky: list[str]) -> None:
    agent_id = file.agent()
    file.store.committer.callers = 100
    flaky += ["before"]
    with pytest.raises(StoreFull):
        file.do(op.Claim(agent_id, 1, CODE))
    assert file.do(op.Heartbeat(agent_id, LEASE))


def test_every_caller_of_a_crowd_gets_its_answer_though_those_before_it_do_not_come_back(file: Driver) -> None:
    agent_id = file.agent()
    file.store.committer.callers = 100
    fences = [file.claimed(agent_id, f"r{number}") for number in range(20)]
    threads = [threading.Thread(target=file.do, args=(op.Append(fence, [entry(1)]),), daemon=True) for fence in fences]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert file.query("select count(*) from outlast_journal") == [(20,)]


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="without eventfd no place is kept")
def test_a_caller_that_is_interrupted_as_it_waits_does_not_take_the_answer_for_that_of_its_next_call(
    file: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = file.claimed(file.agent())
    committer = file.store.committer
    committer.callers = 100
    monkeypatch.setattr(waiting_place, "_kept", deque())
    assert file.do(op.Append(fence, [entry(1)]))  # Its place is kept for the next wait.
    assert len(waiting_place._kept) == 1
    let_next_go = committer._answered.let_next_go

    def interrupted() -> None:
        monkeypatch.setattr(committer._answered, "let_next_go", let_next_go)
        raise KeyboardInterrupt

    with file.store.transaction():
        monkeypatch.setattr(committer._answered, "let_next_go", interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.do(op.Append(fence, [entry(2, "2")]))
        assert not waiting_place._kept, "the late answer finds a place at which nobody waits any more"
    assert file.do(op.Append(fence, [entry(3, "3")])) is True
    assert [seq for seq, *_ in file.events(fence.task_id)] == [1, 2, 3]


def test_who_starts_runs_does_not_wait_for_the_turns_of_those_that_run(file: Driver) -> None:
    committer = file.store.committer
    answered = [group.Pending(operation, lambda *_: None) for operation in (op.Append(op.Fence(1, 1), []), op.Heartbeat(1, 1))]
    for pending in answered:
        pending.waits = threading.Lock()
        pending.waits.acquire()
        committer._answer([pending])
    assert [pending.waits is not None and pending.waits.locked() for pending in answered] == [True, False]


def test_a_loop_is_woken_once_for_the_answers_of_a_group(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    woken, heard = [], []
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda function: woken.append(function))
    answers = outlast.agent.answers.Answers(file.store, loop)
    answers.begin()
    committer = file.store.committer
    with committer._busy:
        submitting = threading.Thread(
            target=lambda: [answers.submit(op.Heartbeat(0, LEASE), lambda result, _, n=n: heard.append(n)) for n in range(50)]
        )
        submitting.start()
        submitting.join()
    committer.close()
    assert len(woken) == 1
    woken[0]()
    assert heard == list(range(50))
    answers.end()
    loop.close()


def test_a_run_whose_write_is_held_as_its_agents_store_closes_is_dropped_and_not_told_of_the_file(file: Driver, flaky: list[str]) -> None:
    fence = file.claimed(file.agent())
    flaky += ["before"] * 1_000
    held = Answers()
    file.store.submit(op.Append(fence, [entry(1)]), held.named("append"))
    while len(flaky) > 990:
        threading.Event().wait(0.001)
    file.store.close()
    flaky.clear()
    assert [type(error) for _, _, error in held.got] == [LeaseLost]
    connection = sqlite3.connect(file.store.path)
    assert connection.execute("select status, (select count(*) from outlast_journal) from outlast_task").fetchone() == ("running", 0)
    connection.close()


def test_a_real_full_file_refuses_holds_and_goes_on(file: Driver) -> None:
    fence = file.claimed(file.agent())
    connection = file.store.connection()
    pages = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {pages}")
    big = b'"' + b"x" * 200_000 + b'"'
    with pytest.raises(StoreFull):
        file.do(op.Append(fence, [entry(1, data=big)]))
    assert file.events(fence.task_id) == []
    connection.execute("pragma max_page_count = 1000000")
    file.do(op.Append(fence, [entry(1, data=big)]))
    assert file.query("pragma integrity_check") == [("ok",)]


def test_every_operation_has_a_handler_and_every_handler_an_operation() -> None:
    from outlast.store.sqlite import HANDLERS

    made = {value for value in vars(op).values() if isinstance(value, type) and issubclass(value, Operation) and value is not Operation}
    assert made <= set(HANDLERS)


def test_ends_in_one_group_get_their_own_answers_where_a_cancel_or_a_lost_lease_meets_them(
    file: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent_id = file.agent()
    fences = {name: file.claimed(agent_id, name) for name in ("a", "cancelled", "lost", "failed", "b")}
    file.do(op.Cancel("cancelled"))
    file.do(op.GiveBack(fences["lost"]))
    ends: dict[str, Operation[Any]] = {
        name: op.End(fence, Ending.FAILED if name == "failed" else Ending.COMPLETED, output=name.encode(), simple=True)
        for name, fence in fences.items()
    }
    answers = in_one_group(file, ends, monkeypatch)
    got = {name: error if error is not None else result for name, result, error in answers.got}
    assert isinstance(got.pop("lost"), LeaseLost)
    assert got == {"a": "completed", "cancelled": "cancelled", "failed": "failed", "b": "completed"}
    assert {name: file.status(fence.task_id) for name, fence in fences.items()} == got | {"lost": "pending"}
    outputs = file.query("select t.uid, o.output from outlast_outcome o join outlast_task t on t.id = o.task_id where o.output is not null")
    assert dict(outputs) == {name: name.encode() for name in ("a", "failed", "b")}


def test_steps_that_end_in_one_group_wake_the_parked_gather_of_their_run_once(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_id = file.agent()
    run = file.claimed(agent_id)
    parts = [file.part(run, str(number), seq=number) for number in (1, 2, 3)]
    assert file.do(op.Park(run, None, parts=tuple(parts), wait_for_all=True))
    claims = [one.fence for one in file.claim(agent_id)]
    answers = in_one_group(
        file, {str(one.task_id): op.End(one, Ending.COMPLETED, output=b"1", tries=1, simple=True) for one in claims}, monkeypatch
    )
    assert [error for _, _, error in answers.got] == [None] * 3
    assert file.row(run.task_id, "status, wait_count") == ("pending", 0)


def test_an_idle_agents_claim_leaves_the_connection_durable(file: Driver) -> None:
    agent_id = file.agent()
    file.start("r")
    answers = Answers()
    assert file.store.committer.try_claim(op.Claim(agent_id, 8, CODE), answers.named("claim"))
    ((_, claims, error),) = answers.got
    assert error is None
    assert [one.uid for one in claims] == ["r"]
    assert file.query("pragma synchronous") == [(2,)]


def test_an_idle_agents_claim_waits_for_nobody(file: Driver) -> None:
    agent_id = file.agent()
    file.start("r")
    other = SqliteStore(file.store.path)
    answers = Answers()
    try:
        with transaction(other.connection(), None):
            assert not file.store.committer.try_claim(op.Claim(agent_id, 8, CODE), answers.named("claim"))
    finally:
        other.close()
    assert answers.got == []
    assert file.query("pragma synchronous") == [(2,)]
    assert file.query("pragma busy_timeout") == [(5000,)]


def test_what_is_led_is_committed_in_the_leaders_thread(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    fences = [file.claimed(file.agent(), f"r{number}") for number in range(3)]
    committer, answers, threads = file.store.committer, Answers(), []
    run_group = committer._run_group
    monkeypatch.setattr(
        committer, "_run_group", lambda group, **how: (threads.append((threading.get_ident(), len(group))), run_group(group, **how))
    )
    monkeypatch.setattr("outlast.store.committer._LINGER_SECONDS", 0.3)
    for number, fence in enumerate(fences):
        committer.submit_led(op.Append(fence, [entry(1)]), answers.named(str(number)))
    committer.lead()
    assert answers.got == [(str(number), True, None) for number in range(3)]
    assert threads == [(threading.get_ident(), 3)]


@pytest.mark.parametrize("failures", FAILURES, ids="-".join)
def test_a_leader_whose_commit_fails_leaves_it_to_the_writer_and_it_is_written_once(
    file: Driver, flaky: list[str], failures: list[str]
) -> None:
    fence = file.claimed(file.agent())
    committer, answers = file.store.committer, Answers()
    flaky += failures
    committer.submit_led(op.Append(fence, [entry(1)]), answers.named("append"))
    committer.lead()
    committer.close()
    assert answers.got == [("append", True, None)]
    assert file.events(fence.task_id) == [(1, "1", "completed")]


def test_what_a_leader_could_not_write_is_written_though_the_writer_has_looked_in_vain_meanwhile(
    file: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = file.claimed(file.agent())
    committer, written = file.store.committer, threading.Event()
    run_group = committer._run_group

    def fails(*_: Any, **__: Any) -> None:
        deadline = time.monotonic() + 20
        while committer._is_rung:
            assert time.monotonic() < deadline, "the writer has not looked"
            time.sleep(0)
        monkeypatch.setattr(committer, "_run_group", run_group)
        raise StoreLocked("app.db", 5.0)

    monkeypatch.setattr(committer, "_run_group", fails)
    monkeypatch.setattr("outlast.store.committer._LINGER_SECONDS", 0.0)
    with committer._busy:  # The writer waits for it, with the queue empty by the time it has it.
        committer.submit_led(op.Append(fence, [entry(1)]), lambda *_: written.set())
        assert not committer._write_here()
    assert written.wait(20)


def test_a_closing_store_answers_the_run_whose_write_came_last(file: Driver) -> None:
    fence = file.claimed(file.agent())
    committer = file.store.committer
    late = group.Pending(op.Append(fence, [entry(1)]), lambda *_: None)
    late.waits = threading.Lock()
    late.waits.acquire()
    committer._queue.append(late)
    committer.close()
    assert late.waits.acquire(timeout=0)
    assert late.result is True


def test_a_leader_waits_for_no_lock(file: Driver) -> None:
    fence = file.claimed(file.agent())
    committer, answers = file.store.committer, Answers()
    with file.store.transaction():
        committer.submit_led(op.Append(fence, [entry(1)]), answers.named("append"))
        committer.lead()
        assert answers.got == []
    committer.close()
    assert answers.got == [("append", True, None)]


def test_a_loop_is_not_held_up_by_a_slow_disk(file: Driver) -> None:
    fence = file.claimed(file.agent())
    committer, answers = file.store.committer, Answers()
    committer._group_seconds = 1.0
    file.store.connection().execute("begin immediate")  # Nobody can write: only a leader that tries would notice.
    committer.submit_led(op.Append(fence, [entry(1)]), answers.named("append"))
    committer.lead()
    assert answers.got == []
    file.store.connection().execute("rollback")
    committer.close()
    assert answers.got == [("append", True, None)]


def test_callers_whose_answers_a_leader_has_are_all_let_go(file: Driver) -> None:
    agent_id = file.agent()
    committer = file.store.committer
    committer.callers = 100
    fences = [file.claimed(agent_id, f"r{number}") for number in range(20)]
    committer._led_at = float("inf")  # The writer leaves everything to a leader.
    threads = [threading.Thread(target=file.do, args=(op.Append(fence, [entry(1)]),), daemon=True) for fence in fences]
    for thread in threads:
        thread.start()
    while len(committer._queue) < len(fences) and any(thread.is_alive() for thread in threads):
        committer.lead()
    committer.lead()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert file.query("select count(*) from outlast_journal") == [(20,)]


def test_the_writer_looks_for_what_was_queued_by_those_who_left_the_bell_to_one_that_does_not_come_back(file: Driver) -> None:
    fence = file.claimed(file.agent())
    committer = file.store.committer
    committer.close()  # No writer is there to be quicker than the look.
    committer._writer_of = os.getpid()
    caller = threading.Lock()
    caller.acquire()
    committer._answered.add(caller)
    committer._hand_over(group.Pending(op.Append(fence, [entry(1)]), lambda *_: None))
    bell_of_led = committer._is_rung
    waits = group.Pending(op.Append(fence, [entry(2)]), lambda *_: None)
    waits.waits = threading.Lock()
    waits.waits.acquire()
    committer._is_rung = False
    committer._hand_over(waits)
    assert bell_of_led
    assert not committer._is_rung
    committer._answered.let_next_go()
    assert not committer._answered
    assert committer._patience_seconds() is not None
    committer.close()
    assert file.query("select count(*) from outlast_journal") == [(2,)]

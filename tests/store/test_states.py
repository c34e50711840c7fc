"""The state machine: each legal move by an operation, each illegal one refused by the file itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from driving import LEASE, Driver, driver, entry

from outlast import operations as op
from outlast.journal.entry import COMPENSABLE
from outlast.operations.atomic import Operation
from outlast.operations.claimed import Fence
from outlast.states import FINAL, LEGAL, Ending, Status, guard_trigger, is_legal
from outlast.store.library import sqlite3


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "app.db") as made:
        yield made


def pending(file: Driver) -> int:
    return file.start("r")


def running(file: Driver) -> int:
    return file.claimed(file.agent()).task_id


def waiting(file: Driver) -> int:
    fence = file.claimed(file.agent())
    assert file.do(op.Park(fence, None, signals=("go",)))
    return fence.task_id


def halted(file: Driver) -> int:
    fence = file.claimed(file.agent())
    file.do(op.Halt(fence, "a reason"))
    return fence.task_id


def fence_of(file: Driver, task_id: int) -> Fence:
    return Fence(task_id, file.row(task_id, "claim")[0])


def with_undo(file: Driver, task_id: int) -> None:
    """Journal the start of a step with a compensation, under a claim of its own where there is none."""
    at = file.query("select coalesce(max(seq), 0) + 1 from outlast_journal where task_id = ?", task_id)[0][0]
    file.do(op.Append(fence_of(file, task_id), [entry(at, f"u{at}", "started", flags=COMPENSABLE, input=b"{}")]))


def compensating(file: Driver) -> int:
    task_id = running(file)
    with_undo(file, task_id)
    file.end(fence_of(file, task_id), Ending.FAILED)
    return task_id


def final(ending: Ending) -> Callable[[Driver], int]:
    def make(file: Driver) -> int:
        task_id = running(file)
        file.end(fence_of(file, task_id), ending, simple=True)
        return task_id

    return make


def compensated(file: Driver) -> int:
    task_id = compensating(file)
    (taken,) = file.claim(file.agent())
    file.do(op.EndUndo(taken.fence))
    return task_id


WAYS: dict[Status, Callable[[Driver], int]] = {
    Status.PENDING: pending,
    Status.RUNNING: running,
    Status.WAITING: waiting,
    Status.COMPENSATING: compensating,
    Status.HALTED: halted,
    Status.COMPLETED: final(Ending.COMPLETED),
    Status.FAILED: final(Ending.FAILED),
    Status.CANCELLED: final(Ending.CANCELLED),
    Status.COMPENSATED: compensated,
}


def uid_of(file: Driver, task_id: int) -> str:
    return str(file.row(task_id, "uid")[0])


def cancel(file: Driver, task_id: int) -> None:
    file.do(op.Cancel(uid_of(file, task_id)))


def claim(file: Driver, task_id: int) -> None:
    (taken,) = file.claim(file.agent())
    assert taken.fence.task_id == task_id


def pending_after_progress(file: Driver) -> int:
    """A run that has something to undo and was given back."""
    task_id = running(file)
    with_undo(file, task_id)
    file.do(op.GiveBack(fence_of(file, task_id)))
    return task_id


def waiting_after_progress(file: Driver) -> int:
    task_id = running(file)
    with_undo(file, task_id)
    assert file.do(op.Park(fence_of(file, task_id), None, signals=("go",)))
    return task_id


def halted_after_progress(file: Driver) -> int:
    task_id = running(file)
    with_undo(file, task_id)
    file.do(op.Halt(fence_of(file, task_id), "a reason"))
    return task_id


def with_deadline(file: Driver) -> int:
    return file.start("r", deadline_at=file.store.now() + 1)


def parked_with_deadline(file: Driver) -> int:
    fence = file.claimed(file.agent(), deadline_at=file.store.now() + 1)
    assert file.do(op.Park(fence, None, signals=("go",)))
    return fence.task_id


def sweep_late(file: Driver, _: int) -> None:
    file.clock.advance(1)
    file.do(op.Sweep(LEASE))


def signal(file: Driver, task_id: int) -> None:
    file.do(op.Signal(uid_of(file, task_id), "go", b"1"))


def waiting_for_time(file: Driver) -> int:
    fence = file.claimed(file.agent())
    assert file.do(op.Park(fence, file.store.now() + 1))
    return fence.task_id


def claim_later(file: Driver, task_id: int) -> None:
    file.clock.advance(1)
    claim(file, task_id)


def ended_with_a_part(ending: Ending) -> Callable[[Driver], int]:
    """A run whose ending is decided while a submitted step of it runs."""

    def make(file: Driver) -> int:
        fence = file.claimed(file.agent())
        file.part(fence, "p")
        file.claim(file.agent())
        file.end(fence, ending)
        assert file.status(fence.task_id) == "waiting"
        return fence.task_id

    return make


def end_part(file: Driver, task_id: int) -> None:
    (part_id,) = [row[0] for row in file.query("select id from outlast_task where parent_id = ?", task_id)]
    ending = Ending.COMPLETED if file.row(task_id, "ending") == ("completed",) else Ending.CANCELLED
    file.end(fence_of(file, part_id), ending)


def poison_step_of_a_waiting_run(file: Driver) -> int:
    fence = file.claimed(file.agent())
    part_id = file.part(fence, "p")
    assert file.do(op.Park(fence, None, parts=(part_id,), wait_for_all=True))
    (taken,) = file.claim(file.agent(), alone=True)
    assert taken.fence.task_id == part_id
    return fence.task_id


def poison_step_of_a_pending_run(file: Driver) -> int:
    task_id = poison_step_of_a_waiting_run(file)
    with file.store.transaction() as connection:
        connection.execute("update outlast_task set status = 'pending', due_at = 1 where id = ?", (task_id,))
    return task_id


def halt_part(file: Driver, task_id: int) -> None:
    (part_id,) = [row[0] for row in file.query("select id from outlast_task where parent_id = ?", task_id)]
    file.do(op.Halt(fence_of(file, part_id), "poison"))


def undo_under_way(*, cancelled: bool = False) -> Callable[[Driver], int]:
    def make(file: Driver) -> int:
        task_id = running(file)
        with_undo(file, task_id)
        file.end(fence_of(file, task_id), Ending.CANCELLED if cancelled else Ending.FAILED)
        (taken,) = file.claim(file.agent())
        assert taken.status is Status.COMPENSATING
        return task_id

    return make


def end_undo(file: Driver, task_id: int) -> None:
    file.do(op.EndUndo(fence_of(file, task_id)))


def halted_undo(file: Driver) -> int:
    """An undo that gave up, whose compensation a person has recorded as done since."""
    task_id = undo_under_way()(file)
    file.do(op.RecordUndo(fence_of(file, task_id), entry(0, "undo/u1", "completed", "compensation")))
    file.do(op.Halt(fence_of(file, task_id), "gave up"))
    return task_id


def end(ending: Ending) -> Callable[[Driver, int], None]:
    return lambda file, task_id: file.end(fence_of(file, task_id), ending)


def end_with_undo(file: Driver, task_id: int) -> None:
    with_undo(file, task_id)
    file.end(fence_of(file, task_id), Ending.FAILED)


def poison(file: Driver, task_id: int) -> None:
    file.do(op.Halt(fence_of(file, task_id), "a reason"))


def give_back(file: Driver, task_id: int) -> None:
    file.do(op.GiveBack(fence_of(file, task_id)))


def park(file: Driver, task_id: int) -> None:
    assert file.do(op.Park(fence_of(file, task_id), None, signals=("go",)))


def resume(file: Driver, task_id: int) -> None:
    file.do(op.Resume(uid_of(file, task_id)))


S = Status
MOVES: dict[tuple[Status, Status], tuple[Callable[[Driver], int], Callable[[Driver, int], None]]] = {
    (S.PENDING, S.RUNNING): (pending, claim),
    (S.PENDING, S.COMPENSATING): (pending_after_progress, cancel),
    (S.PENDING, S.FAILED): (with_deadline, sweep_late),
    (S.PENDING, S.CANCELLED): (pending, cancel),
    (S.PENDING, S.HALTED): (poison_step_of_a_pending_run, halt_part),
    (S.RUNNING, S.PENDING): (running, give_back),
    (S.RUNNING, S.WAITING): (running, park),
    (S.RUNNING, S.COMPLETED): (running, end(Ending.COMPLETED)),
    (S.RUNNING, S.FAILED): (running, end(Ending.FAILED)),
    (S.RUNNING, S.COMPENSATING): (running, end_with_undo),
    (S.RUNNING, S.CANCELLED): (running, end(Ending.CANCELLED)),
    (S.RUNNING, S.HALTED): (running, poison),
    (S.WAITING, S.PENDING): (waiting, signal),
    (S.WAITING, S.RUNNING): (waiting_for_time, claim_later),
    (S.WAITING, S.COMPLETED): (ended_with_a_part(Ending.COMPLETED), end_part),
    (S.WAITING, S.COMPENSATING): (waiting_after_progress, cancel),
    (S.WAITING, S.FAILED): (parked_with_deadline, sweep_late),
    (S.WAITING, S.CANCELLED): (ended_with_a_part(Ending.CANCELLED), end_part),
    (S.WAITING, S.HALTED): (poison_step_of_a_waiting_run, halt_part),
    (S.COMPENSATING, S.COMPENSATED): (undo_under_way(), end_undo),
    (S.COMPENSATING, S.CANCELLED): (undo_under_way(cancelled=True), end_undo),
    (S.COMPENSATING, S.HALTED): (undo_under_way(), poison),
    (S.HALTED, S.PENDING): (halted, resume),
    (S.HALTED, S.COMPENSATING): (halted_after_progress, cancel),
    (S.HALTED, S.CANCELLED): (halted, cancel),
    (S.HALTED, S.FAILED): (halted_undo, resume),
}


def test_every_legal_move_has_a_way_in_this_file() -> None:
    assert set(MOVES) == {(before, after) for before, many in LEGAL.items() for after in many}


@pytest.mark.parametrize(("before", "after"), MOVES, ids=lambda status: str(status))
def test_a_legal_move_is_made_by_an_operation(file: Driver, before: Status, after: Status) -> None:
    way, move = MOVES[before, after]
    task_id = way(file)
    assert file.status(task_id) == before
    move(file, task_id)
    assert file.status(task_id) == after


ILLEGAL = [(a, b) for a in Status for b in Status if a is not b and not is_legal(a, b)]


def columns_of(status: Status) -> dict[str, Any]:
    """What the CHECKs ask of a row of this status, so that only the move itself can be refused."""
    return {
        "agent_id": 1 if status is Status.RUNNING else None,
        "due_at": 1 if status in (Status.PENDING, Status.WAITING, Status.COMPENSATING) else None,
        "finished_at": 1 if status in FINAL else None,
        "halt_reason": "a reason" if status is Status.HALTED else None,
    }


_FORCE = """
update outlast_task
set status = :status, agent_id = :agent_id, due_at = :due_at, finished_at = :finished_at, halt_reason = :halt_reason
where id = :id
"""


@pytest.mark.parametrize(("before", "after"), ILLEGAL, ids=lambda status: str(status))
def test_the_file_itself_refuses_an_illegal_move(file: Driver, before: Status, after: Status) -> None:
    task_id = WAYS[before](file)
    assert file.status(task_id) == before
    with pytest.raises(sqlite3.IntegrityError, match="illegal move of a task"), file.store.transaction() as connection:
        connection.execute(_FORCE, {"id": task_id, "status": after, **columns_of(after)})
    assert file.status(task_id) == before


@pytest.mark.parametrize(("before", "after"), sorted(MOVES), ids=lambda status: str(status))
def test_the_trigger_lets_every_legal_move_pass(file: Driver, before: Status, after: Status) -> None:
    task_id = WAYS[before](file)
    with file.store.transaction() as connection:
        connection.execute(_FORCE, {"id": task_id, "status": after, **columns_of(after)})
    assert file.status(task_id) == after


@pytest.mark.parametrize("status", sorted(FINAL))
def test_no_operation_changes_a_final_task(file: Driver, status: Status) -> None:
    task_id = WAYS[status](file)
    before, fence, uid = file.dump(), fence_of(file, task_id), uid_of(file, task_id)
    late: list[Operation[Any]] = [
        op.Append(fence, [entry(9)]),
        op.End(fence, Ending.FAILED, error=b"null"),
        op.End(fence, Ending.COMPLETED, output=b"1", simple=True),
        op.Again(fence, entry(9), 0),
        op.Park(fence, None, signals=("go",)),
        op.GiveBack(fence),
        op.Halt(fence, "late"),
        op.EndUndo(fence),
        op.PassUndo(fence),
        op.RecordUndo(fence, entry(0, "undo/1", kind="compensation")),
        op.Publish(fence, None, "k", b"1"),
        op.Emit(fence, None, "k", [b"1"]),
        op.Signal(uid, "go", b"1"),
        op.Cancel(uid),
        op.Pause(uid),
        op.Resume(uid),
    ]
    for operation in late:
        with pytest.raises(Exception, match=r"."):
            file.do(operation)
        assert file.dump() == before, operation
    assert file.claim(1) == []
    assert file.do(op.Sweep(LEASE)) == []
    assert file.status(task_id) == status


@pytest.mark.parametrize(
    "change",
    [
        "status = 'running'",
        "status = 'waiting', finished_at = null",
        "finished_at = null",
        "due_at = 1",
        "agent_id = 1",
        "status = 'job'",
    ],
)
@pytest.mark.parametrize("status", sorted(FINAL))
def test_the_file_refuses_to_revive_a_final_row(file: Driver, status: Status, change: str) -> None:
    task_id = WAYS[status](file)
    with pytest.raises(sqlite3.IntegrityError), file.store.transaction() as connection:
        connection.execute(f"update outlast_task set {change} where id = ?", (task_id,))
    assert file.status(task_id) == status


@pytest.mark.parametrize(
    "row",
    [
        {"status": "running"},
        {"status": "running", "agent_id": 1, "due_at": 1},
        {"status": "pending", "agent_id": 1},
        {"status": "waiting", "agent_id": 1},
        {"status": "halted"},
        {"status": "halted", "halt_reason": "x", "due_at": 1},
        {"status": "completed"},
        {"status": "pending", "finished_at": 1},
        {"status": "paused"},
        {"status": "pending", "ending": "compensated"},
        {"status": "pending", "kind": "job"},
    ],
    ids=str,
)
def test_the_file_refuses_a_row_that_makes_no_sense(file: Driver, row: dict[str, Any]) -> None:
    facts = {"uid": "x", "kind": "run", "name": "w", "queue": "q", "needs": "n", "created_at": 1} | row
    columns, names = ", ".join(facts), ", ".join(f":{name}" for name in facts)
    with pytest.raises(sqlite3.IntegrityError), file.store.transaction() as connection:
        connection.execute(f"insert into outlast_task ({columns}) values ({names})", facts)


def makes_sense(status: Status, *, agent_id: int | None, due_at: int | None, finished_at: int | None, halt_reason: str | None) -> bool:
    return (
        (agent_id is None or status in (Status.RUNNING, Status.COMPENSATING))
        and (agent_id is not None or status is not Status.RUNNING)
        and (due_at is None or (agent_id is None and status in (Status.PENDING, Status.WAITING, Status.COMPENSATING)))
        and (finished_at is not None) == (status in FINAL)
        and (halt_reason is not None or status is not Status.HALTED)
    )


@pytest.mark.parametrize("status", Status)
def test_the_file_takes_of_a_status_just_what_makes_sense(file: Driver, status: Status) -> None:
    taken, allowed = [], []
    for agent_id, due_at, finished_at, halt_reason in product((None, 1), (None, 1), (None, 1), (None, "a reason")):
        facts = {"agent_id": agent_id, "due_at": due_at, "finished_at": finished_at, "halt_reason": halt_reason}
        try:
            with file.store.transaction() as connection:
                connection.execute(_INSERT, {"status": status, **facts})
                connection.execute("delete from outlast_task")
            taken.append(facts)
        except sqlite3.IntegrityError:
            pass
        if makes_sense(status, **facts):
            allowed.append(facts)
    assert taken == allowed


_INSERT = """
insert into outlast_task (uid, kind, name, queue, needs, created_at, status, agent_id, due_at, finished_at, halt_reason)
values ('x', 'run', 'w', 'q', 'n', 1, :status, :agent_id, :due_at, :finished_at, :halt_reason)
"""


def test_the_trigger_of_the_schema_is_the_table_of_the_code(file: Driver) -> None:
    ((sql,),) = file.query("select sql from sqlite_schema where type = 'trigger' and name = 'outlast_task_legal_move'")
    assert _normal(sql) == _normal(guard_trigger())


def _normal(sql: str) -> str:
    return " ".join(sql.lower().rstrip(" ;\n").split())


def test_every_status_of_the_code_is_one_of_the_file_and_no_other(file: Driver) -> None:
    ((sql,),) = file.query("select sql from sqlite_schema where name = 'outlast_task'")
    assert set(re.findall(r"when '(\w+)' then", sql)) == set(Status)
    assert set(WAYS) == set(Status)
    assert {status for status in Status if not LEGAL[status]} == FINAL

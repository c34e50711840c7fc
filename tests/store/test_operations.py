"""The operations of the store: the fence, claims, starts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import CODE, LEASE, Driver, driver, entry

from outlast import operations as op
from outlast.clock import SECOND
from outlast.errors import Conflict, LeaseLost
from outlast.journal.entry import COMPENSABLE
from outlast.operations.atomic import Operation
from outlast.operations.claimed import Fence
from outlast.operations.queues import SetQueue
from outlast.states import Ending
from outlast.store import agents, claiming
from outlast.store.library import sqlite3
from outlast.store.sqlite import SqliteStore


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "app.db") as made:
        yield made


def late_writes(fence: Fence) -> dict[str, Operation[Any]]:
    return {
        "append": op.Append(fence, [entry(50, "late")]),
        "append with a signal": op.Append(fence, [entry(50, "late")], signal_id=1),
        "append of many": op.Append(fence, [entry(50, "late"), entry(51, "later")]),
        "start a part": op.StartPart(fence, entry(50, "late", "started"), op.Start("late", "step", "s", "step:s", "default", b"{}")),
        "publish from a workflow": op.Publish(fence, entry(50, "late"), "k", b"1"),
        "publish from a step": op.Publish(fence, None, "k", b"1"),
        "emit from a workflow": op.Emit(fence, entry(50, "late"), "k", [b"1"]),
        "emit from a step": op.Emit(fence, None, "k", [b"1"]),
        "complete": op.End(fence, Ending.COMPLETED, output=b"1", simple=True),
        "complete with parts": op.End(fence, Ending.COMPLETED, output=b"1"),
        "fail": op.End(fence, Ending.FAILED, error=b"null", tries=3, strays=("x",)),
        "cancel": op.End(fence, Ending.CANCELLED),
        "again": op.Again(fence, entry(50, "late", "tried", try_number=1), 0),
        "park": op.Park(fence, None, signals=("go",)),
        "park for a part": op.Park(fence, None, parts=(1,), wait_for_all=True),
        "give back": op.GiveBack(fence),
        "refuse": op.GiveBack(fence, refused="f"),
        "halt": op.Halt(fence, "late", error=b"null", strays=("x",)),
        "cancel parts": op.CancelParts(fence, (1,)),
        "record an undo": op.RecordUndo(fence, entry(0, "undo/1", kind="compensation")),
        "pass an undo on": op.PassUndo(fence),
        "end an undo": op.EndUndo(fence),
    }


@pytest.mark.parametrize("name", late_writes(Fence(0, 0)))
def test_a_late_write_of_an_old_claim_changes_nothing(file: Driver, name: str) -> None:
    old = file.claimed(file.agent())
    file.do(op.GiveBack(old))
    (taken,) = file.claim(file.agent())
    assert taken.fence == Fence(old.task_id, old.claim + 1)
    before = file.dump()
    with pytest.raises(LeaseLost):
        file.do(late_writes(old)[name])
    assert file.dump() == before


@pytest.mark.parametrize("name", late_writes(Fence(0, 0)))
def test_a_late_write_to_a_task_that_was_given_back_changes_nothing(file: Driver, name: str) -> None:
    agent_id = file.agent()
    old = file.claimed(agent_id)
    file.crash(agent_id, status="lost", seen_dead=False)
    before = file.dump()
    with pytest.raises(LeaseLost):
        file.do(late_writes(old)[name])
    assert file.dump() == before


@pytest.mark.parametrize("name", ["record an undo", "pass an undo on", "end an undo", "halt", "append", "publish from a step", "give back"])
def test_a_late_write_to_an_undo_that_was_taken_over_changes_nothing(file: Driver, name: str) -> None:
    fence = file.undoing()
    (first,) = file.claim(file.agent())
    file.do(op.PassUndo(first.fence))
    (second,) = file.claim(file.agent())
    assert second.fence.claim > first.fence.claim > fence.claim
    before = file.dump()
    with pytest.raises(LeaseLost):
        file.do(late_writes(first.fence)[name])
    assert file.dump() == before


def test_a_late_acknowledgement_does_not_swallow_news_of_the_next_holder(file: Driver) -> None:
    old = file.claimed(file.agent())
    file.do(op.GiveBack(old))
    file.claim(file.agent())
    file.do(op.Signal("r", "go", b"1"))
    file.do(op.Acknowledge(old, 1))
    assert file.row(old.task_id, "notice") == (1,)


def test_an_agent_whose_lease_was_ended_cannot_renew_it(file: Driver) -> None:
    agent_id = file.agent()
    file.crash(agent_id, status="lost", seen_dead=False)
    assert file.do(op.Heartbeat(agent_id, LEASE)) is False
    assert file.query("select status from outlast_agent where id = ?", agent_id) == [("lost",)]


def test_claims_go_by_priority_then_by_due_then_by_id(file: Driver) -> None:
    late = file.start("late", delay=2 * SECOND)
    first, second = file.start("first"), file.start("second")
    urgent = file.start("urgent", priority=5, delay=1 * SECOND)
    low = file.start("low", priority=-1)
    file.clock.advance(5)
    assert [one.fence.task_id for one in file.claim(file.agent())] == [urgent, first, second, late, low]


def test_a_claim_takes_a_batch_and_the_next_the_rest(file: Driver) -> None:
    ids = [file.start(f"r{i}") for i in range(5)]
    one, other = file.agent(), file.agent()
    assert [c.fence.task_id for c in file.claim(one, 3)] == ids[:3]
    assert [c.fence.task_id for c in file.claim(other, 3)] == ids[3:]
    assert file.claim(one, 3) == []


def test_the_claim_number_rises_with_each_claim_and_never_falls(file: Driver) -> None:
    task_id = file.start("r")
    seen = []
    for _ in range(4):
        (taken,) = file.claim(file.agent())
        seen.append(taken.fence.claim)
        file.do(op.GiveBack(taken.fence))
    assert seen == [1, 2, 3, 4]
    (taken,) = file.claim(file.agent())
    file.do(op.Append(taken.fence, [entry(1, "1", "started", flags=COMPENSABLE, input=b"{}")]))
    file.end(taken.fence, Ending.FAILED)
    (undo,) = file.claim(file.agent())
    assert undo.fence.claim > taken.fence.claim
    assert file.status(task_id) == "compensating"


def test_nothing_is_claimed_that_is_not_due_paused_or_of_other_code_or_queues(file: Driver) -> None:
    file.start("later", delay=SECOND)
    file.start("paused")
    file.do(op.Pause("paused"))
    file.start("other", needs="workflow:unknown", name="unknown")
    agent_id = file.agent()
    assert file.claim(agent_id) == []
    file.clock.advance(1)
    assert [one.uid for one in file.claim(agent_id)] == ["later"]
    file.do(op.Resume("paused"))
    assert file.claim(agent_id, queues=("elsewhere",)) == []
    assert [one.uid for one in file.claim(agent_id, queues=("default",))] == ["paused"]


def test_the_next_due_instant_is_of_what_this_code_can_take(file: Driver) -> None:
    file.start("r", delay=3 * SECOND)
    file.start("foreign", delay=1 * SECOND, needs="workflow:other", name="other")
    now = file.store.now()
    assert file.next_due_at() == now + 3 * SECOND
    assert file.next_due_at({"workflow:none"}) is None


def test_a_refused_task_is_left_to_live_agents_with_other_code(file: Driver) -> None:
    old, new = file.agent(code={"workflow:w": "old"}), file.agent(code={"workflow:w": "new"})
    task_id = file.start("r")
    (taken,) = file.claim(new, code={"workflow:w": "new"})
    file.do(op.GiveBack(taken.fence, refused="new"))
    assert file.claim(new, code={"workflow:w": "new"}) == []
    (taken,) = file.claim(old, code={"workflow:w": "old"})
    assert taken.fence.task_id == task_id
    file.do(op.GiveBack(taken.fence))
    file.do(op.LeaveAgent(old))
    file.agent(code={"workflow:w": "old"}, root_id=task_id + 1)  # It works on another run alone: nothing is left to it.
    assert [one.fence.task_id for one in file.claim(new, code={"workflow:w": "new"})] == [task_id]
    assert not agents.others_have_other_code(file.store.connection(), "workflow:w", "new", task_id, now=file.store.now())


@pytest.mark.parametrize("data", [b"", b"{}", b'"\xc3\xa9\\u0000"', b"\0\xff\xfe", bytes(4096), bytes(range(256)) * 17], ids=len)
def test_a_claim_gives_the_input_byte_by_byte(file: Driver, data: bytes) -> None:
    file.start("other")
    file.start("r", input=data)
    assert [one.input for one in file.claim(file.agent())] == [b"{}", data]


@pytest.mark.parametrize("limits", [{}, {"concurrency": 500}, {"per_partition": 500}], ids=str)
def test_what_is_left_to_other_code_hides_nothing_that_stands_behind_it(file: Driver, limits: dict[str, int]) -> None:
    old, new, newer = ({"workflow:w": code} for code in ("old", "new", "newer"))
    agent, first, last = file.agent(code=new), file.agent(code=old), file.agent(code=newer)
    file.do(SetQueue("default", **limits))
    partition = "p" if "per_partition" in limits else None
    for number in range(40):
        file.start(f"r{number}", partition=partition)
    for code, by in ((new, agent), (newer, last)):
        for one in file.claim(by, code=code)[: 40 if by == agent else 20]:
            assert one.needs == "workflow:w"
            file.do(op.GiveBack(one.fence, refused=code["workflow:w"]))
    file.start("own", partition=partition)
    file.start("own too", partition=partition)
    assert [one.uid for one in file.claim(agent, 1, code=new)] == ["own"]
    assert [one.uid for one in file.claim(agent, 4, code=new)] == ["own too"]
    if not limits:
        # Their lease may end without a write that wakes it; what falls due before it looks again is not late for that.
        assert file.next_due_at(new) == file.store.now() + SECOND // 2
        file.start("soon", delay=SECOND // 4)
        assert file.next_due_at(new) == file.store.now() + SECOND // 4
    taken = file.claim(first, 99, code=old)
    assert ({one.uid for one in taken}, {one.needs for one in taken}) == ({f"r{number}" for number in range(20)}, {"workflow:w"})


def test_suspects_are_claimed_only_by_who_asks_for_them(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    file.start("innocent")
    file.crash(agent_id)
    connection, other = file.store.connection(), file.agent()
    assert claiming.has_suspects(connection, frozenset(CODE), None, now=file.store.now())
    assert [one.uid for one in file.claim(other)] == ["innocent"]
    (suspect,) = file.claim(other, suspects=True, alone=True)
    assert suspect.fence.task_id == fence.task_id
    assert suspect.suspect
    assert not claiming.has_suspects(connection, frozenset(CODE), None, now=file.store.now())


def test_an_idle_agent_takes_one_suspect_alone_where_there_is_one(file: Driver) -> None:
    agent_id = file.agent()
    suspects = [file.claimed(agent_id, f"suspect {number}").task_id for number in (1, 2)]
    innocent = file.start("innocent")
    file.crash(agent_id)
    other = file.agent()
    for task_id in suspects:
        (taken,) = file.claim(other, suspects_first=True)
        assert (taken.fence.task_id, taken.suspect, taken.alone) == (task_id, True, True)
    (taken,) = file.claim(other, suspects_first=True)
    assert (taken.fence.task_id, taken.suspect, taken.alone) == (innocent, False, False)


def test_a_suspect_that_an_agent_has_no_code_for_holds_up_nothing_of_it(file: Driver) -> None:
    agent_id = file.agent()
    file.claimed(agent_id)
    file.crash(agent_id)
    other = file.agent(code={"workflow:c": "1"})
    file.start("innocent", name="c", needs="workflow:c")
    assert [one.uid for one in file.claim(other, suspects_first=True, code={"workflow:c": "1"})] == ["innocent"]


def test_a_suspect_that_is_left_to_other_code_holds_up_nothing(file: Driver) -> None:
    old, new = file.agent(code={"workflow:w": "old"}), file.agent(code={"workflow:w": "new"})
    file.start("suspect")
    (taken,) = file.claim(old, code={"workflow:w": "old"})
    file.do(op.GiveBack(taken.fence, refused="old"))
    file.claim(new, code={"workflow:w": "new"})
    file.crash(new)
    file.agent(code={"workflow:w": "new"})  # It is busy for long, or takes from other queues.
    file.start("innocent")
    assert [one.uid for one in file.claim(old, suspects_first=True, code={"workflow:w": "old"})] == ["innocent"]


def test_two_starts_with_one_key_get_one_run(file: Driver) -> None:
    first = file.do(op.Start("a", "run", "w", "workflow:w", "default", b"1", key="k"))
    second = file.do(op.Start("b", "run", "w", "workflow:w", "default", b"2", key="k"))
    assert (first.uid, first.created, second.uid, second.created) == ("a", True, "a", False)
    assert file.query("select count(*) from outlast_task") == [(1,)]


def test_two_stores_on_one_file_that_start_with_one_key_at_once_get_one_run(file: Driver) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def begin(number: int) -> None:
        store = SqliteStore(file.store.path)
        try:
            barrier.wait()
            for key in range(10):
                started = store.commit(op.Start(f"{number}-{key}", "run", "w", "workflow:w", "default", b"{}", key=f"k{key}"))
                found.append(f"{key}:{started.uid}")
        finally:
            store.close()

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert len(set(found)) == 10
    assert file.query("select count(*) from outlast_task") == [(10,)]


def test_a_unique_key_is_free_again_when_its_run_has_ended(file: Driver) -> None:
    def begin(uid: str, **facts: Any) -> Any:
        return file.do(op.Start(uid, "run", "w", "workflow:w", "default", b"{}", unique_key="u", **facts))

    assert begin("a").created
    assert not begin("b").created
    with pytest.raises(Conflict):
        begin("c", if_exists="fail")
    file.do(op.Cancel("a"))
    assert begin("d").created


def test_a_part_is_not_started_without_the_entry_that_says_so(file: Driver) -> None:
    fence = file.claimed(file.agent())
    file.do(op.Append(fence, [entry(1)]))
    before = file.dump()
    with pytest.raises(sqlite3.IntegrityError):
        file.part(fence, "p", seq=1)
    assert file.dump() == before

"""Parking, gathers, notices and intents: no wakeup is lost between the look and the park."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import LEASE, Driver, driver, entry

from outlast import operations as op
from outlast.clock import SECOND
from outlast.errors import RunFinished
from outlast.operations.claimed import Fence
from outlast.operations.retention import Discard, Prune
from outlast.states import Ending
from outlast.store import claiming


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "app.db") as made:
        yield made


def test_a_signal_between_the_look_and_the_park_keeps_the_run_up(file: Driver) -> None:
    fence = file.claimed(file.agent())
    file.do(op.Signal("r", "go", b"1"))
    assert file.do(op.Park(fence, None, signals=("go",), notice=1 << 62)) is False
    assert file.status(fence.task_id) == "running"


def test_a_signal_of_another_name_does_not_hinder_a_park_once_it_was_noticed(file: Driver) -> None:
    fence = file.claimed(file.agent())
    file.do(op.Signal("r", "other", b"1"))
    assert file.do(op.Park(fence, None, signals=("go",))) is False
    assert file.do(op.Park(fence, None, signals=("go",), notice=1)) is True
    file.do(op.Signal("r", "other", b"2"))
    assert file.status(fence.task_id) == "waiting"
    file.do(op.Signal("r", "go", b"3"))
    assert file.row(fence.task_id, "status, due_at") == ("pending", file.store.now())


def test_a_signal_that_does_not_fit_and_was_seen_does_not_hinder_a_park(file: Driver) -> None:
    fence = file.claimed(file.agent())
    file.do(op.Signal("r", "go", b"1"))
    ((signal_id,),) = file.query("select id from outlast_signal")
    assert file.do(op.Park(fence, None, signals=("go",), seen_signal_id=signal_id, notice=1)) is True


def test_a_part_that_ends_between_the_look_and_the_park_keeps_the_run_up(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    part = file.part(fence, "p")
    (taken,) = file.claim(agent_id)
    file.end(taken.fence, simple=True)
    assert file.do(op.Park(fence, None, parts=(part,), notice=1 << 62)) is False


def follow(file: Driver, fence: Fence, path: str, *, seq: int) -> int:
    """Start a child whose key leads to a run that is there."""
    start = op.Start(f"{path}", "run", "c", "workflow:c", "default", b"{}", key="k", parent_id=fence.task_id, parent_path=path)
    started = file.do(op.StartPart(fence, entry(seq, path, "started", "child", "c"), start))
    assert not started.created
    return started.task_id


def test_the_end_of_a_line_whose_first_run_was_pruned_keeps_up_who_waits_for_it_by_its_key(file: Driver) -> None:
    agent_id = file.agent()
    first = file.claimed(agent_id, "first", name="c", needs="workflow:c", key="k")
    fence = file.claimed(agent_id)
    part = follow(file, fence, "p", seq=1)
    file.do(op.ContinueAsNew(first, op.Start("next", "run", "c", "workflow:c", "default", b"{}")))
    assert file.do(Prune((first.task_id,))).runs == 1
    file.do(Discard())
    (following,) = file.claim(agent_id)
    waits = op.Park(fence, None, parts=(part,), places=("p",), notice=1 << 62)
    file.end(following.fence, simple=True)
    assert file.do(waits) is False


def test_a_run_that_one_key_led_to_twice_ends_for_both_places_between_the_look_and_the_park(file: Driver) -> None:
    agent_id = file.agent()
    other = file.claimed(agent_id, "other", name="c", needs="workflow:c", key="k")
    fence = file.claimed(agent_id)
    parts = follow(file, fence, "1", seq=1), follow(file, fence, "2", seq=2)
    file.end(other, simple=True)
    assert file.do(op.Park(fence, None, parts=parts, places=("1", "2"), wait_for_all=True, notice=1 << 62)) is False


@pytest.mark.parametrize("force", [False, True])
def test_a_cancel_between_the_look_and_the_park_keeps_the_run_up(file: Driver, force: bool) -> None:
    fence = file.claimed(file.agent())
    assert file.do(op.Cancel("r", force=force)) == "running"
    assert file.do(op.Park(fence, None, signals=("go",), notice=1 << 62)) is False
    assert file.end(fence, Ending.CANCELLED) == "cancelled"


def test_a_timer_that_is_over_by_now_keeps_the_run_up(file: Driver) -> None:
    fence = file.claimed(file.agent())
    file.clock.advance(2)
    assert file.do(op.Park(fence, file.store.now() - SECOND)) is False


def test_a_parked_run_with_a_timer_is_claimed_as_it_stands(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    assert file.do(op.Park(fence, file.store.now() + SECOND))
    assert file.claim(agent_id) == []
    file.clock.advance(1)
    (taken,) = file.claim(agent_id)
    assert taken.fence == Fence(fence.task_id, 2)


@pytest.mark.parametrize("failing", [False, True])
def test_a_parked_gather_counts_the_ends_of_its_parts_and_wakes_once(file: Driver, failing: bool) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    parts = tuple(file.part(fence, f"p{i}", seq=i + 1) for i in range(4))
    taken = file.claim(agent_id)
    file.end(taken[0].fence, simple=True)
    assert file.do(op.Park(fence, None, parts=parts, wait_for_all=True, fails_fast=True, notice=9))
    assert file.row(fence.task_id, "wait_count") == (3,)
    file.end(taken[1].fence, simple=True)
    assert file.row(fence.task_id, "status, wait_count") == ("waiting", 2)
    if failing:
        file.end(taken[2].fence, Ending.FAILED, simple=True)
        assert file.row(fence.task_id, "status, wait_count") == ("pending", 0)
        return
    file.end(taken[2].fence, simple=True)
    assert file.status(fence.task_id) == "waiting"
    file.end(taken[3].fence, simple=True)
    assert file.row(fence.task_id, "status, wait_count") == ("pending", 0)


def test_a_parked_first_is_woken_by_any_end(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    parts = tuple(file.part(fence, f"p{i}", seq=i + 1) for i in range(3))
    taken = file.claim(agent_id)
    assert file.do(op.Park(fence, None, parts=parts))
    file.end(taken[2].fence, Ending.FAILED, simple=True)
    assert file.status(fence.task_id) == "pending"


def test_a_gather_that_collects_errors_waits_for_all(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    parts = tuple(file.part(fence, f"p{i}", seq=i + 1) for i in range(2))
    taken = file.claim(agent_id)
    assert file.do(op.Park(fence, None, parts=parts, wait_for_all=True))
    file.end(taken[0].fence, Ending.FAILED, simple=True)
    assert file.status(fence.task_id) == "waiting"


def test_a_halted_child_lets_its_parent_park_and_wakes_it_when_it_ends_at_last(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    child = file.part(fence, "c", kind="run")
    (taken,) = file.claim(agent_id)
    file.do(op.Halt(taken.fence, "a person is needed"))
    assert file.do(op.Park(fence, None, parts=(child,), notice=9)) is True
    file.do(op.Resume(f"{fence.task_id}-c"))
    (taken,) = file.claim(agent_id)
    file.end(taken.fence, simple=True)
    assert file.status(fence.task_id) == "pending"


def test_a_halted_step_halts_its_run_and_resume_sends_both_on(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    part = file.part(fence, "p")
    (taken,) = file.claim(agent_id)
    assert file.do(op.Park(fence, None, parts=(part,)))
    file.do(op.Halt(taken.fence, "poison"))
    status, reason = file.row(fence.task_id, "status, halt_reason")
    assert status == "halted"
    assert "its step s is halted: poison" in reason
    file.do(op.Resume("r"))
    assert {file.status(fence.task_id), file.status(part)} == {"pending"}


def test_a_resume_of_a_run_that_halted_in_a_pause_ends_the_pause_of_its_steps_too(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    part = file.part(fence, "p")
    later = file.part(fence, "later", seq=2, delay=SECOND)
    (taken,) = file.claim(agent_id)
    assert file.do(op.Park(fence, None, parts=(part, later), wait_for_all=True))
    file.do(op.Pause("r"))
    file.do(op.Halt(taken.fence, "poison"))
    file.clock.advance(1)
    assert file.claim(agent_id) == []
    file.do(op.Resume("r"))
    assert {one.fence.task_id for one in file.claim(agent_id)} == {fence.task_id, part, later}


def test_a_notice_counts_what_the_holder_has_not_read(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    connection = file.store.connection()
    file.do(op.Signal("r", "a", b"1"))
    file.do(op.Signal("r", "b", b"1"))
    assert claiming.notices(connection, agent_id) == [(fence.task_id, fence.claim, 2, False, False)]
    file.do(op.Pause("r"))
    file.do(op.Acknowledge(fence, 2))
    assert claiming.notices(connection, agent_id) == [(fence.task_id, fence.claim, 1, False, True)]
    file.do(op.Cancel("r"))
    assert claiming.notices(connection, agent_id) == [(fence.task_id, fence.claim, 2, True, True)]
    file.do(op.Acknowledge(fence, 2))
    assert claiming.notices(connection, agent_id) == []


def test_a_cancel_of_an_unleased_run_moves_it_in_the_same_transaction(file: Driver) -> None:
    task_id = file.start("r")
    assert file.do(op.Cancel("r")) == "cancelled"
    assert file.row(task_id, "ending, due_at") == ("cancelled", None)
    with pytest.raises(RunFinished):
        file.do(op.Cancel("r"))


@pytest.mark.parametrize("undo", [None, "skipped"])
def test_a_cancel_reaches_children_and_submitted_steps(file: Driver, undo: str | None) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    waiting_step = file.part(fence, "p1", seq=1)
    child = file.part(fence, "c", kind="run", seq=2)
    (taken_child,) = [one for one in file.claim(agent_id) if one.fence.task_id == child]
    grandchild = file.part(taken_child.fence, "g", kind="run")
    assert file.do(op.Park(fence, None, parts=(child,)))
    file.do(op.Cancel("r", undo=undo is None))
    assert file.row(fence.task_id, "status, ending") == ("waiting", "cancelled")
    # Both were claimed: their agent is told, and only its end settles them.
    assert file.row(child, "notice") == (1,)
    assert file.row(waiting_step, "notice") == (1,)
    file.end(file.fence(waiting_step), Ending.CANCELLED)
    assert file.status(fence.task_id) == "waiting"
    file.end(taken_child.fence, Ending.CANCELLED)
    assert file.status(grandchild) == "cancelled"
    assert file.status(fence.task_id) == "cancelled"
    # Who leaves what a run did as it is leaves what its children did.
    assert [file.row(one, "undo")[0] for one in (fence.task_id, child, grandchild)] == [undo] * 3


@pytest.mark.parametrize("simple", [True, False])
def test_a_cancel_that_came_before_the_end_wins_over_it(file: Driver, simple: bool) -> None:
    fence = file.claimed(file.agent())
    file.do(op.Cancel("r"))
    assert file.end(fence, Ending.COMPLETED, output=b"1", simple=simple) == "cancelled"


def test_a_given_back_task_carries_out_the_cancel_that_waited(file: Driver) -> None:
    fence = file.claimed(file.agent())
    file.do(op.Cancel("r"))
    file.do(op.GiveBack(fence))
    assert file.status(fence.task_id) == "cancelled"


def test_an_ending_is_decided_once(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    file.part(fence, "p")
    file.claim(agent_id)
    file.end(fence, Ending.FAILED, error=b'"first"')
    file.do(op.Cancel("r"))
    file.clock.advance(1)
    file.do(op.Sweep(LEASE))
    assert file.row(fence.task_id, "status, ending") == ("waiting", "failed")
    assert file.query("select error from outlast_outcome where task_id = ?", fence.task_id) == [(b'"first"',)]


def test_no_signal_timer_or_claim_wakes_a_run_whose_ending_is_decided(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    part = file.part(fence, "p")
    file.claim(agent_id)
    assert file.do(op.Park(fence, file.store.now() + SECOND, signals=("go",)))
    file.do(op.Cancel("r"))
    file.do(op.Signal("r", "go", b"1"))
    file.clock.advance(10)
    assert file.claim(agent_id) == []
    assert file.row(fence.task_id, "status, due_at") == ("waiting", None)
    file.end(file.fence(part), Ending.CANCELLED)
    assert file.status(fence.task_id) == "cancelled"

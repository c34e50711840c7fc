"""How tasks end: endings, strays, undo, crashes, and what time leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import LEASE, Driver, driver, entry

from outlast import operations as op
from outlast.clock import SECOND
from outlast.journal.entry import COMPENSABLE
from outlast.operations.claimed import Fence
from outlast.settings import Settings
from outlast.states import Ending
from outlast.store import sweeping
from outlast.supervisor import Supervisor


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "app.db") as made:
        yield made


def test_a_stray_try_holds_up_an_ending_until_it_has_ended(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    file.do(op.Append(fence, [entry(1, "1", "started", flags=COMPENSABLE, input=b"{}")]))
    file.end(fence, Ending.CANCELLED, strays=("1",))
    assert file.row(fence.task_id, "status, ending") == ("waiting", "cancelled")
    file.do(op.Sweep(LEASE))
    assert file.status(fence.task_id) == "waiting"
    file.do(op.StrayEnded(fence.task_id, agent_id, "1", entry(0, "1", "completed", data=b'"paid"')))
    assert file.status(fence.task_id) == "compensating"
    assert (2, "1", "completed") in file.events(fence.task_id)


def test_a_late_outcome_does_not_enter_a_journal_that_somebody_holds(file: Driver) -> None:
    """The next holder gives out the numbers of its journal: an entry beside it would make its next write fail."""
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    file.do(op.Halt(fence, "a try overran", strays=("1",)))
    file.do(op.Resume("r"))
    (taken,) = file.claim(file.agent())
    file.do(op.StrayEnded(fence.task_id, agent_id, "1", entry(0, "1", "completed", data=b"1")))
    assert file.events(fence.task_id) == []
    file.do(op.Append(taken.fence, [entry(1, "1")]))


def test_a_late_outcome_of_a_cancelled_part_does_not_enter_its_running_parents_journal(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    part = file.part(fence, "p")
    (taken,) = file.claim(agent_id)
    file.end(taken.fence, Ending.CANCELLED, strays=("",))
    late = entry(0, "p", "completed", "task", data=b"1")
    file.do(op.StrayEnded(part, agent_id, "", late, fence.task_id))
    assert file.status(part) == "cancelled"
    file.do(op.Append(fence, [entry(2, "x")]))


def test_a_process_seen_dead_takes_its_strays_along(file: Driver) -> None:
    one = file.agent()
    fence = file.claimed(one)
    file.do(op.Cancel("r"))
    file.crash(one, status="lost", seen_dead=False)
    assert file.row(fence.task_id, "status, ending") == ("pending", "cancelled")
    file.crash(one, seen_dead=True)
    assert file.status(fence.task_id) == "cancelled"


def test_a_takeover_after_a_lost_lease_does_not_wait_for_strays(file: Driver) -> None:
    one = file.agent()
    fence = file.claimed(one)
    file.crash(one, status="lost", seen_dead=False)
    (taken,) = file.claim(file.agent())
    assert taken.fence == Fence(fence.task_id, 2)
    assert file.end(taken.fence, Ending.CANCELLED) == "waiting"
    file.crash(one, seen_dead=True)
    assert file.status(fence.task_id) == "cancelled"


@pytest.mark.parametrize("simple", [True, False])
def test_a_run_that_fails_after_a_takeover_waits_for_the_process_that_had_lost_it(file: Driver, simple: bool) -> None:
    """Failed, it could be retried, and its step would run beside itself."""
    one = file.agent()
    fence = file.claimed(one)
    file.crash(one, status="lost", seen_dead=False)
    (taken,) = file.claim(file.agent())
    assert file.end(taken.fence, Ending.FAILED, error=b"null", simple=simple) == "waiting"
    file.do(op.StrayEnded(fence.task_id, one, ""))
    assert file.status(fence.task_id) == "failed"


@pytest.mark.parametrize("simple", [True, False])
def test_a_run_that_completes_after_a_takeover_does_not_wait_for_the_process_that_had_lost_it(file: Driver, simple: bool) -> None:
    """That may be on another host, dead long since and seen by nobody."""
    one = file.agent()
    file.claimed(one)
    file.crash(one, status="lost", seen_dead=False)
    (taken,) = file.claim(file.agent())
    assert file.end(taken.fence, output=b"1", simple=simple) == "completed"


def test_an_undo_waits_for_the_process_that_had_lost_a_submitted_step_which_another_completed(file: Driver) -> None:
    """What it does to the outside may come yet: a charge after its refund."""
    home, one = file.agent(), file.agent()
    fence = file.claimed(home)
    part = file.part(fence, "p", flags=COMPENSABLE)
    file.claim(one)
    file.crash(one, status="lost", seen_dead=False)
    (taken,) = file.claim(home)
    assert file.end(taken.fence, output=b"1", simple=True) == "completed"
    assert file.end(fence, Ending.FAILED, error=b"null") == "waiting"
    file.do(op.Sweep(LEASE))
    assert file.status(fence.task_id) == "waiting"
    file.do(op.StrayEnded(part, one, ""))
    assert file.status(fence.task_id) == "compensating"


@pytest.mark.parametrize("by_death", [True, False])
def test_an_undo_does_not_go_on_beside_the_process_that_had_lost_it(file: Driver, by_death: bool) -> None:
    fence = file.undoing()
    one = file.agent()
    file.claim(one)
    file.crash(one, status="lost", seen_dead=False)
    file.do(op.Sweep(LEASE))
    assert file.claim(file.agent()) == []
    if by_death:
        file.crash(one, seen_dead=True)
    else:
        file.do(op.StrayEnded(fence.task_id, one, ""))
    (taken,) = file.claim(file.agent())
    assert taken.status == "compensating"


def test_an_undo_that_gave_up_is_not_resumed_beside_its_last_try(file: Driver) -> None:
    task_id = undo_that_gave_up(file, Ending.FAILED, strays=("undo/1",))
    file.do(op.Resume(file.row(task_id, "uid")[0]))
    assert file.claim(file.agent()) == []
    (agent_id,) = file.query("select agent_id from outlast_stray where task_id = ?", task_id)[0]
    file.do(op.StrayEnded(task_id, agent_id, "undo/1"))
    assert len(file.claim(file.agent())) == 1


def test_one_resume_of_an_undo_that_gave_up_ends_its_pause_too(file: Driver) -> None:
    task_id = undo_that_gave_up(file, Ending.FAILED)
    (uid,) = file.row(task_id, "uid")
    file.do(op.Pause(uid))
    file.do(op.Resume(uid))
    assert len(file.claim(file.agent())) == 1


def test_one_resume_of_a_halted_run_ends_the_pause_of_its_children_too(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    child_id = file.part(fence, "1", kind="run")
    file.do(op.Halt(fence, "x"))
    file.do(op.Pause("r", children=True))
    assert file.claim(agent_id) == []
    file.do(op.Resume("r"))
    assert {one.fence.task_id for one in file.claim(agent_id)} == {fence.task_id, child_id}


def test_a_run_that_was_paused_for_long_is_due_from_its_resume_on(file: Driver) -> None:
    now, ahead = file.start("r"), file.start("later", delay=2_000 * SECOND)
    for uid in ("r", "later"):
        file.do(op.Pause(uid))
    due_at = file.row(ahead, "due_at")
    file.clock.advance(1_000)
    for uid in ("r", "later"):
        file.do(op.Resume(uid))
    assert file.row(now, "due_at") == (file.store.now(),)
    assert file.row(ahead, "due_at") == due_at


def test_a_forced_cancel_goes_on_and_records_that_the_try_may_still_run(file: Driver) -> None:
    one = file.agent()
    fence = file.claimed(one)
    file.crash(one, status="lost", seen_dead=False)
    assert file.do(op.Cancel("r")) == "pending"
    assert file.do(op.Cancel("r", force=True)) == "cancelled"
    assert [(path, event) for _, path, event in file.events(fence.task_id)] == [("forced", "unknown")]


def test_an_undo_runs_in_reverse_order_of_start_each_success_once(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    started = [entry(i, str(i), "started", name="s", flags=COMPENSABLE, input=b"{}") for i in (1, 2, 3)]
    file.do(op.Append(fence, started))
    file.end(fence, Ending.FAILED, error=b"null")
    seen = []
    while file.status(fence.task_id) == "compensating":
        (taken,) = file.claim(agent_id)
        plan = file_plan(file, fence.task_id)
        if not plan:
            file.do(op.EndUndo(taken.fence))
            break
        seen.append(plan[0])
        done = entry(0, f"undo/{plan[0]}", kind="compensation")
        file.do(op.RecordUndo(taken.fence, done))
        file.do(op.RecordUndo(taken.fence, done))
        file.do(op.PassUndo(taken.fence))
    assert seen == ["3", "2", "1"]
    assert file.row(fence.task_id, "status, undo") == ("compensated", "completed")
    assert [path for _, path, _ in file.events(fence.task_id)][3:] == ["undo/3", "undo/2", "undo/1"]


def file_plan(file: Driver, task_id: int) -> list[str]:
    from outlast.store.undoing import read_plan

    return [undo.path for undo in read_plan(file.store.connection(), task_id)]


def test_a_cancel_changes_nothing_of_an_undo(file: Driver) -> None:
    fence = file.undoing()
    before = file.row(fence.task_id, "status, ending, undo, cancel_requested_at")
    assert file.do(op.Cancel("r", undo=False)) == "compensating"
    assert file.row(fence.task_id, "status, ending, undo, cancel_requested_at") == before


def test_a_cancel_without_undo_leaves_what_was_done(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    file.do(op.Append(fence, [entry(1, "1", "started", flags=COMPENSABLE, input=b"{}")]))
    file.do(op.Park(fence, None, signals=("go",)))
    assert file.do(op.Cancel("r", undo=False)) == "cancelled"
    assert file.row(fence.task_id, "undo") == ("skipped",)


def test_a_workflow_that_returned_stays_for_its_steps_and_fails_with_one(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    one, other = file.part(fence, "p1", seq=1), file.part(fence, "p2", seq=2)
    taken = {claimed.fence.task_id: claimed.fence for claimed in file.claim(agent_id)}
    assert file.end(fence, output=b"1") == "waiting"
    file.end(taken[one], Ending.FAILED, error=b'"bad"', simple=True)
    assert file.row(fence.task_id, "status, ending") == ("waiting", "failed")
    assert file.row(other, "notice") == (1,)
    file.end(taken[other], Ending.CANCELLED)
    assert file.status(fence.task_id) == "failed"
    assert file.query("select output, error from outlast_outcome where task_id = ?", fence.task_id) == [(None, b'"bad"')]


def test_what_failed_before_its_workflow_returned_does_not_fail_the_run(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    caught, left_open = file.part(fence, "p1", seq=1), file.part(fence, "p2", seq=2)
    child = file.part(fence, "c", kind="run", seq=3)
    taken = {claimed.fence.task_id: claimed.fence for claimed in file.claim(agent_id)}
    file.end(taken[caught], Ending.FAILED, error=b'"caught"', simple=True)
    assert file.end(fence, output=b"1") == "waiting"
    file.end(taken[child], Ending.FAILED, error=b'"child"')
    assert file.row(fence.task_id, "status, ending") == ("waiting", "completed")
    file.end(taken[left_open], simple=True)
    assert file.status(fence.task_id) == "completed"


def test_a_pause_that_comes_just_before_a_run_goes_on_holds_its_successor(file: Driver) -> None:
    fence = file.claimed(file.agent())
    file.do(op.Pause("r"))
    file.do(op.ContinueAsNew(fence, op.Start("next", "run", "w", "workflow:w", "default", b"{}")))
    assert file.claim(file.agent()) == []
    file.do(op.Resume("r"))
    assert [one.uid for one in file.claim(file.agent())] == ["next"]


def test_children_outlive_a_parent_that_completed(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    child = file.part(fence, "c", kind="run")
    assert file.end(fence, output=b"1") == "completed"
    assert file.status(child) == "pending"


def test_a_crash_beside_others_makes_suspects_and_counts_for_nobody(file: Driver) -> None:
    agent_id = file.agent()
    ids = [file.start(f"r{i}") for i in range(8)]
    file.claim(agent_id)
    lines = file.crash(agent_id)
    assert len(lines) == 8
    assert {file.row(i, "status, suspect, crashes") for i in ids} == {("pending", 1, 0)}


def test_crashes_alone_are_counted_and_the_last_halts_with_the_evidence(file: Driver) -> None:
    task_id = file.start("r")
    for number in range(1, 3):
        agent_id = file.agent()
        assert file.claim(agent_id, alone=True, suspects=number > 1)
        file.crash(agent_id, max_crashes=3)
        assert file.row(task_id, "status, suspect, crashes") == ("pending", 1, number)
    agent_id = file.agent()
    file.claim(agent_id, alone=True, suspects=True)
    (line,) = file.crash(agent_id, max_crashes=3)
    assert line == "halted w r: it took down its agent 3 times"
    status, crashes, reason = file.row(task_id, "status, crashes, halt_reason")
    assert (status, crashes) == ("halted", 3)
    assert "killed by SIGKILL" in reason
    file.do(op.Resume("r"))
    assert file.row(task_id, "status, suspect, crashes") == ("pending", 0, 0)


def test_a_workflows_own_limit_goes_before_the_settings(file: Driver) -> None:
    task_id = file.start("r", max_crashes=1)
    agent_id = file.agent()
    file.claim(agent_id, alone=True)
    file.crash(agent_id, max_crashes=5)
    assert file.status(task_id) == "halted"


@pytest.mark.parametrize(("status", "seen_dead"), [("stopped", True), ("lost", False)])
def test_a_reboot_and_a_lost_lease_are_no_crash(file: Driver, status: str, seen_dead: bool) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id, alone=True)
    file.crash(agent_id, status=status, seen_dead=seen_dead, max_crashes=1)
    assert file.row(fence.task_id, "status, suspect, crashes") == ("pending", 0, 0)


def test_a_drain_suspects_nobody(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id, alone=True)
    file.do(op.LeaveAgent(agent_id))
    assert file.row(fence.task_id, "status, suspect, crashes") == ("pending", 0, 0)
    assert file.crash(agent_id, max_crashes=1) == []


def test_the_end_of_an_agent_is_recorded_once(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id, alone=True)
    file.crash(agent_id)
    file.crash(agent_id)
    file.crash(agent_id, status="lost", seen_dead=False)
    assert file.row(fence.task_id, "crashes") == (1,)
    assert file.query("select status from outlast_agent where id = ?", agent_id) == [("crashed",)]


def test_suspicion_ends_with_the_first_entry_or_park_made_alone(file: Driver) -> None:
    for number, progress in enumerate(
        [
            lambda fence: op.Append(fence, [entry(1)], clears_suspicion=True),
            lambda fence: op.Park(fence, None, signals=("go",)),
        ]
    ):
        agent_id = file.agent()
        fence = file.claimed(agent_id, f"r{number}")
        file.crash(agent_id)
        (taken,) = file.claim(file.agent(), suspects=True, alone=True)
        file.do(progress(taken.fence))
        assert file.row(fence.task_id, "suspect") == (0,)


def test_a_poison_step_halts_its_parked_run_too(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    part = file.part(fence, "p")
    assert file.do(op.Park(fence, None, parts=(part,)))
    file.claim(agent_id, alone=True)
    file.crash(agent_id, max_crashes=1)
    assert {file.status(part), file.status(fence.task_id)} == {"halted"}


def test_a_cancel_that_waits_is_carried_out_when_its_agent_dies(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    file.do(op.Cancel("r"))
    file.crash(agent_id)
    assert file.status(fence.task_id) == "cancelled"


def test_an_undo_that_takes_down_its_agent_is_halted_as_an_undo(file: Driver) -> None:
    fence = file.undoing()
    agent_id = file.agent()
    file.claim(agent_id, alone=True)
    file.crash(agent_id, max_crashes=1)
    assert file.row(fence.task_id, "status, ending") == ("halted", "failed")
    file.do(op.Resume("r"))
    assert file.status(fence.task_id) == "compensating"


def test_a_sweep_ends_what_is_past_its_deadline_and_only_that(file: Driver) -> None:
    soon = file.start("soon", deadline_at=file.store.now() + SECOND)
    later = file.start("later", deadline_at=file.store.now() + 100 * SECOND)
    assert sweeping.next_deadline_at(file.store.connection()) is not None
    file.clock.advance(1)
    assert "ended w soon: past its deadline" in file.do(op.Sweep(LEASE))
    assert file.status(soon) == "failed"
    assert file.status(later) == "pending"
    ((error,),) = file.query("select error from outlast_outcome where task_id = ?", soon)
    assert b"DeadlineExceeded" in error
    assert file.do(op.Sweep(LEASE)) == []


def test_a_leaseholder_ends_its_own_late_run(file: Driver) -> None:
    fence = file.claimed(file.agent(), timeout=SECOND)
    assert file.row(fence.task_id, "deadline_at") == (file.store.now() + SECOND,)
    file.clock.advance(2)
    assert file.do(op.Sweep(LEASE)) == []
    assert file.status(fence.task_id) == "running"


def test_a_wall_clock_that_jumps_ends_no_run_early(file: Driver) -> None:
    task_id = file.start("r", deadline_at=file.store.now() + 60 * SECOND)
    file.clock.jump(86_400)
    file.do(op.Sweep(LEASE))
    assert file.status(task_id) == "pending"
    file.clock.jump(-3 * 86_400)
    file.do(op.Sweep(LEASE))
    assert file.status(task_id) == "pending"
    file.clock.advance(61)
    file.do(op.Sweep(LEASE))
    assert file.status(task_id) == "failed"


def test_a_start_at_a_wall_instant_follows_the_wall_clock(file: Driver) -> None:
    agent_id = file.agent()
    file.start("r", at_wall=file.clock.wall() + 3600 * SECOND)
    file.clock.jump(3600)
    file.do(op.Sweep(LEASE))
    assert [one.uid for one in file.claim(agent_id)] == ["r"]
    file.start("s", at_wall=file.clock.wall() + 10 * SECOND)
    file.clock.jump(-3600)
    file.do(op.Sweep(LEASE))
    file.clock.advance(60)
    assert file.claim(agent_id) == []
    file.clock.advance(3600)
    assert [one.uid for one in file.claim(agent_id)] == ["s"]


def test_a_deadline_stands_still_while_its_run_is_halted(file: Driver) -> None:
    fence = file.claimed(file.agent(), timeout=10 * SECOND)
    file.clock.advance(4)
    file.do(op.Halt(fence, "a reason"))
    file.clock.advance(1000)
    assert file.do(op.Sweep(LEASE)) == []
    file.do(op.Resume("r"))
    file.clock.advance(5)
    assert file.do(op.Sweep(LEASE)) == []
    file.clock.advance(1)
    file.do(op.Sweep(LEASE))
    assert file.status(fence.task_id) == "failed"


def test_an_undo_that_no_live_agent_has_code_for_is_halted_not_skipped(file: Driver) -> None:
    fence = file.undoing()
    for (agent_id,) in file.query("select id from outlast_agent"):
        file.do(op.LeaveAgent(agent_id))
    file.agent(code={"workflow:w": "f"})
    assert file.do(op.Sweep(LEASE)) == []
    file.clock.advance(31)
    file.do(op.Sweep(LEASE))
    status, reason = file.row(fence.task_id, "status, halt_reason")
    assert status == "halted"
    assert "compensation" in reason
    file.agent()
    file.do(op.Resume("r"))
    assert file.status(fence.task_id) == "compensating"


def test_an_undo_whose_code_has_just_gone_is_given_a_whole_lease(file: Driver) -> None:
    """Its agent was busy for longer than that, and is replaced by one that comes a moment later."""
    fence = file.undoing()
    with_code = [agent_id for (agent_id,) in file.query("select id from outlast_agent")]
    without = file.agent(code={"workflow:w": "f"})
    file.clock.advance(100)
    for agent_id in (*with_code, without):
        file.do(op.Heartbeat(agent_id, LEASE))
    assert file.do(op.Sweep(LEASE)) == []
    for agent_id in with_code:
        file.do(op.LeaveAgent(agent_id))
    file.clock.advance(29)
    assert file.do(op.Sweep(LEASE)) == []
    file.clock.advance(2)
    file.do(op.Sweep(LEASE))
    assert file.status(fence.task_id) == "halted"


def test_a_wall_clock_set_forward_halts_no_undo_for_want_of_code_before_its_lease_is_over(file: Driver) -> None:
    fence = file.undoing()
    supervisor = Supervisor(file.store, Settings())
    for (agent_id,) in file.query("select id from outlast_agent"):
        file.do(op.LeaveAgent(agent_id))
    file.clock.advance(100)
    without = file.agent(code={"workflow:w": "f"})
    supervisor.tick(file.store.now())
    file.clock.jump(3600)
    for seconds, status in ((6, "compensating"), (23, "compensating"), (8, "halted")):
        file.clock.advance(seconds)
        file.do(op.Heartbeat(without, LEASE))
        supervisor.tick(file.store.now())
        assert file.status(fence.task_id) == status


def test_an_agent_of_another_run_halts_no_undo_for_want_of_code(file: Driver) -> None:
    fence = file.undoing()
    for (agent_id,) in file.query("select id from outlast_agent"):
        file.do(op.LeaveAgent(agent_id))
    file.agent(code={"workflow:w": "f"}, root_id=fence.task_id + 1)
    file.clock.advance(100)
    assert file.do(op.Sweep(LEASE)) == []
    assert file.status(fence.task_id) == "compensating"


def test_a_paused_undo_is_not_halted_for_want_of_code(file: Driver) -> None:
    fence = file.undoing()
    for (agent_id,) in file.query("select id from outlast_agent"):
        file.do(op.LeaveAgent(agent_id))
    file.agent(code={"workflow:w": "f"})
    file.do(op.Pause("r"))
    file.clock.advance(100)
    assert file.do(op.Sweep(LEASE)) == []
    assert file.status(fence.task_id) == "compensating"


def test_a_deadline_ends_where_the_undo_begins(file: Driver) -> None:
    fence = file.claimed(file.agent(), timeout=10 * SECOND)
    file.do(op.Append(fence, [entry(1, "1", "started", flags=COMPENSABLE, input=b"{}")]))
    file.end(fence, Ending.FAILED, error=b"null")
    file.clock.advance(100)
    assert file.do(op.Sweep(LEASE)) == []
    assert file.row(fence.task_id, "status, deadline_at") == ("compensating", None)


def test_a_deadline_that_passes_while_a_cancel_is_carried_out_changes_nothing(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id, timeout=10 * SECOND)
    part = file.part(fence, "p")
    (taken,) = file.claim(agent_id)
    file.do(op.Park(fence, None, parts=(part,)))
    file.do(op.Cancel("r"))
    file.clock.advance(100)
    assert file.do(op.Sweep(LEASE)) == []
    file.end(taken.fence, Ending.CANCELLED)
    assert file.status(fence.task_id) == "cancelled"


def test_a_deadline_stands_still_while_a_step_of_its_run_is_halted(file: Driver) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id, timeout=10 * SECOND)
    part = file.part(fence, "p")
    (taken,) = file.claim(agent_id)
    file.do(op.Park(fence, None, parts=(part,)))
    file.do(op.Halt(taken.fence, "poison"))
    file.clock.advance(100)
    assert file.do(op.Sweep(LEASE)) == []
    file.do(op.Resume("r"))
    file.clock.advance(9)
    assert file.do(op.Sweep(LEASE)) == []
    file.clock.advance(2)
    assert file.do(op.Sweep(LEASE)) != []


def test_a_deadline_goes_on_while_its_run_is_paused(file: Driver) -> None:
    fence = file.claimed(file.agent(), timeout=10 * SECOND)
    file.do(op.Park(fence, None, signals=("go",)))
    file.do(op.Pause("r"))
    file.clock.advance(11)
    file.do(op.Sweep(LEASE))
    assert file.status(fence.task_id) == "failed"


def undo_that_gave_up(file: Driver, ending: Ending, strays: tuple[str, ...] = ()) -> int:
    fence = file.claimed(file.agent())
    file.do(op.Append(fence, [entry(1, "1", "started", flags=COMPENSABLE, input=b"{}")]))
    file.end(fence, ending)
    (taken,) = file.claim(file.agent())
    file.do(op.Halt(taken.fence, "the compensation gave up", strays=strays))
    return fence.task_id


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.CANCELLED])
def test_an_undo_that_gave_up_stays_halted_until_a_person_decides(file: Driver, ending: Ending) -> None:
    task_id = undo_that_gave_up(file, ending)
    for _ in range(2):
        file.do(op.Sweep(LEASE))
        assert file.row(task_id, "status, undo") == ("halted", "failed")
    file.do(op.Resume(file.row(task_id, "uid")[0]))
    assert file.row(task_id, "status, undo") == ("compensating", "pending")
    (taken,) = file.claim(file.agent())
    file.do(op.Halt(taken.fence, "the compensation gave up again"))
    file.do(op.Cancel(file.row(task_id, "uid")[0]))
    assert file.row(task_id, "status, undo") == ("cancelled", "failed")


@pytest.mark.parametrize(("ending", "by_cancel"), [(Ending.FAILED, False), (Ending.FAILED, True), (Ending.CANCELLED, True)])
def test_a_childs_undo_that_gave_up_is_let_be_by_a_cancel_of_its_parent_and_not_by_an_error(
    file: Driver, ending: Ending, by_cancel: bool
) -> None:
    agent_id = file.agent()
    fence = file.claimed(agent_id)
    child_id = file.part(fence, "1", kind="run")
    (child,) = file.claim(agent_id)
    file.do(op.Append(child.fence, [entry(1, "1", "started", flags=COMPENSABLE, input=b"{}")]))
    file.end(child.fence, Ending.FAILED, error=b"null")
    (undoing,) = file.claim(agent_id)
    file.do(op.Halt(undoing.fence, "the compensation gave up"))
    file.end(fence, ending, error=b"null")
    if ending is Ending.CANCELLED:
        assert file.status(child_id) == file.status(fence.task_id) == "cancelled"
        return
    assert (file.status(child_id), file.status(fence.task_id)) == ("halted", "waiting")
    if by_cancel:
        file.do(op.Cancel("r"))
        assert (file.status(child_id), file.status(fence.task_id)) == ("cancelled", "failed")
        return
    file.do(op.Resume(file.row(child_id, "uid")[0]))
    (undoing,) = file.claim(agent_id)
    done = entry(2, "undo/1", "completed", kind="compensation")
    file.do(op.RecordUndo(undoing.fence, done))
    file.do(op.EndUndo(undoing.fence))
    assert (file.status(child_id), file.status(fence.task_id)) == ("compensated", "failed")


def test_an_undo_that_gave_up_and_is_let_be_ends_with_its_last_try(file: Driver) -> None:
    task_id = undo_that_gave_up(file, Ending.FAILED, strays=("undo/1",))
    file.do(op.Cancel(file.row(task_id, "uid")[0]))
    assert file.status(task_id) == "halted"
    agent_id = file.query("select agent_id from outlast_stray where task_id = ?", task_id)[0][0]
    file.do(op.StrayEnded(task_id, agent_id, "undo/1"))
    file.do(op.Sweep(LEASE))
    assert file.status(task_id) == "cancelled"

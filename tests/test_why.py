"""`why`: one true sentence for every state that a run can be in, and what to do about it."""

from __future__ import annotations

import os

import pytest
from made_runs import Maker

from outlast import clock, codec
from outlast import operations as op
from outlast.errors import RunNotFound
from outlast.journal.entry import COMPENSABLE, Entry
from outlast.states import Ending, Status
from outlast.store.process import this_process
from outlast.store.sqlite import SqliteStore
from outlast.views import run_json
from outlast.why import Explanation, why

SECOND = clock.SECOND


def text(explanation: Explanation) -> str:
    return "\n".join([explanation.summary, *explanation.details, *explanation.actions])


def test_a_delayed_run_says_when(store: SqliteStore, make: Maker) -> None:
    make.agent()
    started = make.start(delay=3600 * SECOND)
    found = why(store, started.task_id)
    assert found.summary == f"It is not due before {clock.iso(clock.wall() + 3600 * SECOND)} (in 1h)."
    assert found.details == found.actions == []


def test_a_delayed_run_warns_when_nobody_has_its_code(store: SqliteStore, make: Maker) -> None:
    make.agent(code={})
    found = why(store, make.start(delay=SECOND).task_id)
    assert found.details == ["No live agent has the workflow fulfil now; start one by then."]


def test_a_start_at_a_wall_instant_says_that_instant(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    at = clock.wall() + 3600 * SECOND
    started = make.start(at_wall=at)
    manual.jump(60)
    assert clock.iso(at) in why(store, started.task_id).summary


def test_without_an_agent_it_says_to_start_one(store: SqliteStore, make: Maker) -> None:
    found = why(store, make.start().task_id)
    assert found.summary == "It is due, but no live agent is there to take it."
    assert found.actions == ["outlast up"]
    assert found.to_json() == {"summary": found.summary, "details": [], "actions": ["outlast up"]}


def test_an_agent_whose_lease_is_over_or_that_drains_does_not_count(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    started = make.start()
    make.agent()
    manual.advance(31)
    assert "no live agent is there" in why(store, started.task_id).summary
    draining = make.agent()
    store.commit(op.Heartbeat(draining, 30 * SECOND, draining=True))
    found = why(store, started.task_id)
    assert "no live agent is there" in found.summary
    assert "drain" in found.details[0]


def test_code_that_nobody_has_is_named_with_the_versions_that_are_there(store: SqliteStore, make: Maker) -> None:
    make.agent(code={"workflow:fulfil": "a", "workflow:fulfil@2": "b", "workflow:fulfilment": "c"})
    found = why(store, make.start(version="3").task_id)
    assert found.summary == "It is due, but no live agent has the workflow fulfil, version 3."
    assert "They have its versions (none), 2." in found.details
    assert "--app" in found.actions[0]


def test_a_queue_that_nobody_serves_is_named(store: SqliteStore, make: Maker) -> None:
    make.agent(queues='["default"]')
    found = why(store, make.start(queue="emails").task_id)
    assert "'emails'" in found.summary
    assert found.actions == ["outlast agent --queue emails"]


def test_a_run_behind_others_counts_them(store: SqliteStore, make: Maker) -> None:
    make.agent()
    for _ in range(3):
        make.start()
    last = make.start()
    make.start(priority=1)
    make.start(queue="emails", priority=5)
    assert "behind 4 tasks of the queue 'default'" in why(store, last.task_id).summary
    first = make.start(priority=9)
    assert "about to be claimed" in why(store, first.task_id).summary


def test_agents_that_are_late_with_their_lease_are_not_said_to_claim_at_once(
    store: SqliteStore, make: Maker, manual: clock.ManualClock
) -> None:
    make.agent()
    task_id = make.start().task_id
    manual.advance(14)
    assert why(store, task_id).summary == "It is due for 14s and about to be claimed."
    manual.advance(2)
    assert why(store, task_id).summary == "It is due for 16s, but no agent that can take it has been heard for 16s."


def test_an_agent_that_works_on_one_run_alone_is_nobody_for_another(store: SqliteStore, make: Maker) -> None:
    """As that of `outlast run`, which may wait for days."""
    own, other = make.start(), make.start()
    make.agent(root_id=own.task_id)
    assert "about to be claimed" in why(store, own.task_id).summary
    assert why(store, other.task_id).summary == "It is due, but no live agent is there to take it."


def test_full_slots_are_named(store: SqliteStore, make: Maker) -> None:
    agent = make.agent(slots=1)
    make.start()
    make.claim(agent)
    found = why(store, make.start().task_id)
    assert "every slot is taken" in found.summary
    assert "1 of their 1 slots are taken" in found.details[0]


def test_a_suspect_waits_to_run_alone(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    store.commit(op.AgentEnded(1, "crashed", "exit status -11", 5, True))
    make.agent()
    found = why(store, claimed.fence.task_id)
    assert "run alone" in found.summary
    assert found.details == ["Its neighbours must not suffer. Crashes while it was alone, so far: 0."]


def test_refused_fingerprints_wait_for_other_code(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    store.commit(op.GiveBack(claimed.fence, refused="f1"))
    found = why(store, claimed.fence.task_id)
    assert "waits for other code" in found.summary
    assert "the workflow fulfil: f1" in found.details[0]
    make.agent(code={"workflow:fulfil": "other"})
    assert "about to be claimed" in why(store, claimed.fence.task_id).summary


def test_a_submitted_step_in_its_backoff_says_its_error(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    part = make.submit(fence, 1, "1")
    held = make.claim(make.agent()).fence
    error = codec.encode_error(OSError("unreachable"))
    tried = make.entry(1, "1", "tried", "step", "pack", try_number=1, data=error)
    store.commit(op.Again(held, tried, 60 * SECOND))
    found = why(store, part.task_id)
    assert "not due before" in found.summary
    assert "It has failed once, the last by OSError: unreachable" in found.details


@pytest.mark.parametrize(
    ("failed", "said"), [(True, "It has failed once, the last by OSError: unreachable"), (False, "It has failed once.")]
)
def test_a_run_in_its_own_backoff_says_its_error_where_one_was_written(store: SqliteStore, make: Maker, failed: bool, said: str) -> None:
    fence = make.running().fence
    if failed:
        make.append(fence, make.entry(1, "1", "failed", "step", "charge", data=codec.encode_error(OSError("unreachable"))))
    store.commit(op.RetryRun(fence, ("1",) if failed else (), (), 60 * SECOND, 1))
    assert said in why(store, fence.task_id).details


def test_a_running_run_names_its_agent_and_its_last_entry(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.append(fence, make.entry(1, "1", "started", "step", "charge", input=b"{}"))
    manual.advance(7)
    found = why(store, fence.task_id)
    assert "(pid 4711 on elsewhere)" in found.summary
    assert "The agent was heard 7s ago; its lease has 23s left." in found.details
    assert "Its last journal entry, 7s ago: charge at 1 started." in found.details
    make.append(fence, make.entry(2, "2", "started", "first", "first", input=b"{}"))
    assert "Its last journal entry, 0ms ago: first at 2 started." in why(store, fence.task_id).details
    assert "The step charge at 1 has started and has no outcome yet." in found.details


def test_a_silent_agent_is_called_so(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    manual.advance(40)
    found = why(store, fence.task_id)
    assert "silent" in found.summary
    assert "ended 10s ago" in found.details[0]
    assert found.actions == ["outlast up"]


def test_intents_that_the_agent_has_not_heeded_are_told(store: SqliteStore, make: Maker) -> None:
    claimed = make.running(timeout=3600 * SECOND)
    store.commit(op.Pause(claimed.uid))
    store.commit(op.Cancel(claimed.uid))
    found = text(why(store, claimed.fence.task_id))
    assert "asked to be cancelled" in found
    assert "next durable call" in found
    assert "Its deadline is" in found


def test_a_sleeping_run_says_until_when(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    due_at = store.now() + 86_400 * SECOND
    make.append(fence, make.entry(1, "1", "started", "timer", "timer", due_at=due_at))
    make.park(fence, due_at=due_at)
    found = why(store, fence.task_id)
    assert found.summary == f"It sleeps until {clock.iso(clock.wall() + 86_400 * SECOND)} (in 1d) (at 1)."


def test_a_timer_that_is_due_is_explained_as_a_claim(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.park(fence, due_at=store.now() + SECOND)
    manual.advance(40)
    assert why(store, fence.task_id).summary == ("What it waited for is there; it is due, but no live agent is there to take it.")


def test_a_waiting_run_names_the_signal_and_those_that_do_not_fit(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    fence = claimed.fence
    make.append(fence, make.entry(1, "1", "started", "signal", "approval"))
    store.commit(op.Signal(claimed.uid, "approval", b"7"))
    store.commit(op.Signal(claimed.uid, "other", b"1"))
    store.commit(op.Signal(claimed.uid, "other", b"2"))
    make.park(fence, signals=("approval",), seen_signal_id=1, notice=3)
    found = why(store, fence.task_id)
    assert found.summary == "It waits for the signal 'approval' (at 1)."
    assert "1 signal named 'approval' unread: it does not fit the waiting type." in found.details
    assert "2 signals named 'other' unread: it is not what it waits for." in found.details
    logs = f"outlast logs {claimed.uid} (says how it does not fit)"
    assert found.actions == [f"outlast signal {claimed.uid} approval JSON", logs]


def test_a_backoff_inside_a_run_says_the_error_and_the_next_try(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    due_at = store.now() + 5 * SECOND
    error = codec.encode_error(ValueError("busy\nvery"))
    make.append(fence, make.entry(1, "1", "tried", "step", "pack", try_number=2, data=error, due_at=due_at))
    make.park(fence, due_at=due_at)
    assert why(store, fence.task_id).summary.startswith("The step pack at 1 failed in try 2 by ValueError: busy; its next try is ")


def test_parts_are_listed_each_with_its_own_reason(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    steps = [make.submit(fence, seq, str(seq)) for seq in range(1, 8)]
    child = make.child(fence, 8, "8")
    make.park(fence, parts=tuple(step.task_id for step in steps), wait_for_all=True, notice=0)
    found = why(store, fence.task_id)
    assert found.summary == "It waits for parts of it, of which 8 are open."
    assert "It continues after the end of 7 more parts." in found.details
    assert any(detail.startswith("step pack at 1 (") and "about to be claimed" in detail for detail in found.details)
    assert found.details[-1] == "3 more parts not ended."
    assert why(store, child.task_id).summary == "It is due, but no live agent has the workflow invoice."


def test_the_one_part_that_holds_up_a_run_lends_it_its_actions(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    child = make.child(fence, 1, "1")
    make.park(fence, parts=(child.task_id,))
    found = why(store, fence.task_id)
    assert found.summary == f"It waits for the child invoice at 1 ({child.uid})."
    assert any("no live agent has the workflow invoice" in detail for detail in found.details)
    assert any("--app" in action for action in found.actions)


def test_a_chain_of_children_is_not_followed_without_end(store: SqliteStore, make: Maker) -> None:
    make.code["workflow:invoice"] = "f"
    fence = top = make.running().fence
    for _ in range(30):
        child = make.child(fence, 1, "1")
        make.park(fence, parts=(child.task_id,))
        fence = make.claim(make.agent()).fence
    assert len(text(why(store, top.task_id))) < 5_000


def test_an_ending_that_waits_for_parts_counts_them(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.submit(fence, 1, "1")
    make.claim(make.agent())
    assert make.fail(fence, ValueError("x")) == Status.WAITING
    found = why(store, fence.task_id)
    assert found.summary == "It has failed, and waits for 1 open part to end."
    assert "Its error: ValueError: x" in found.details


def test_a_workflow_that_has_returned_waits_for_its_steps_not_for_its_children(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.submit(fence, 1, "1")
    make.child(fence, 2, "2")
    make.complete(fence, simple=False)
    assert why(store, fence.task_id).summary == "It has returned, and waits for 1 open part to end."


def test_an_ending_that_waits_for_a_stray_names_the_process(store: SqliteStore, make: Maker) -> None:
    us = this_process()
    make.start()
    agent = make.agent(host=us.host, pid=os.getpid())
    claimed = make.claim(agent)
    store.commit(op.Cancel(claimed.uid))
    assert store.commit(op.End(claimed.fence, Ending.CANCELLED, strays=("1",))) == Status.WAITING
    found = why(store, claimed.fence.task_id)
    assert found.summary == "It is being cancelled, and waits until a try that may still run has ended."
    assert f"A try at 1 may still run in pid {os.getpid()} on {us.host.partition('/')[0]} (it" in text(found)
    assert found.actions == [f"outlast cancel --force {claimed.uid}"]


def test_an_undo_that_waits_for_a_process_that_had_lost_it_names_that_process(store: SqliteStore, make: Maker) -> None:
    us = this_process()
    make.start()
    agent = make.agent(host=us.host, pid=os.getpid())
    claimed = make.claim(agent)
    started = Entry(1, "1", "started", "step", "s", 1, flags=COMPENSABLE, input=b"{}")
    store.commit(op.Append(claimed.fence, [started]))
    assert store.commit(op.End(claimed.fence, Ending.FAILED, error=codec.encode_error(OSError("x")))) == Status.COMPENSATING
    store.commit(op.Claim(agent, 1, {"compensation:s": "f"}))
    store.commit(op.AgentEnded(agent, "lost", "its lease ran out", 5, False))
    found = why(store, claimed.fence.task_id)
    assert found.summary == "It is being undone: next comes the compensation of s (1)."
    assert f"A try may still run in pid {os.getpid()} on" in text(found)
    assert found.actions == [f"outlast cancel --force {claimed.uid}"]


def test_a_paused_run_says_since_when_and_how_to_go_on(store: SqliteStore, make: Maker) -> None:
    started = make.start()
    store.commit(op.Pause(started.uid))
    found = why(store, started.task_id)
    assert found.summary == f"It has been paused since {clock.iso(clock.wall())}."
    assert found.details == ["Once it is resumed: it is due, but no live agent is there to take it."]
    assert found.actions == [f"outlast resume {started.uid}", "outlast up"]


def test_a_paused_run_says_what_it_will_wait_for_then(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    make.append(claimed.fence, make.entry(1, "1", "started", "signal", "approval"))
    make.park(claimed.fence, signals=("approval",))
    store.commit(op.Pause(claimed.uid))
    found = why(store, claimed.fence.task_id)
    assert found.details == ["Once it is resumed: it waits for the signal 'approval' (at 1)."]
    assert found.actions == [f"outlast resume {claimed.uid}", f"outlast signal {claimed.uid} approval JSON"]


def test_a_halted_run_gives_the_reason_the_error_and_the_ways_on(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    store.commit(op.Halt(claimed.fence, "unknown outcome of charge", error=codec.encode_error(OSError("x"))))
    found = why(store, claimed.fence.task_id)
    assert found.summary == "It is halted and needs a person: unknown outcome of charge"
    assert "Its error: OSError: x" in found.details
    assert f"outlast resume {claimed.uid}" in found.actions
    assert f"outlast cancel {claimed.uid}" in found.actions


def test_a_halted_step_points_to_its_run(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    part = make.submit(claimed.fence, 1, "1")
    make.park(claimed.fence, parts=(part.task_id,))
    store.commit(op.Halt(make.claim(make.agent()).fence, "poison"))
    assert f"outlast resume {claimed.uid}" in why(store, part.task_id).actions
    assert "its step pack is halted: poison" in why(store, claimed.fence.task_id).summary


def test_an_undo_names_the_next_compensation_and_who_is_missing(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.charge(fence)
    make.fail(fence, ValueError("late"))
    store.commit(op.LeaveAgent(1))
    make.agent(code={"workflow:fulfil": "f1"})
    found = why(store, fence.task_id)
    assert found.summary == "It is being undone: next comes the compensation of charge (1)."
    assert "no live agent has the compensation of step charge" in found.details[0]
    assert "It failed with: ValueError: late" in found.details


def test_an_undo_in_its_backoff_says_the_error_and_when(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.charge(fence)
    make.append(fence, make.entry(3, "2", "started", "signal", "approval"))
    make.fail(fence, ValueError("late"))
    held = make.claim(make.agent()).fence
    due_at = store.now() + 9 * SECOND
    error = codec.encode_error(OSError("bank is closed"))
    tried = make.entry(0, "undo/1", "tried", "compensation", "charge", try_number=1, data=error, due_at=due_at)
    store.commit(op.RecordUndo(held, tried))
    running = why(store, fence.task_id)
    assert "is being undone" in running.summary
    assert any("failed in try 1 by OSError: bank is closed" in detail for detail in running.details)
    # What the run itself waited for is not what its undo waits for.
    assert "approval" not in text(running)
    store.commit(op.PassUndo(held, 9 * SECOND))
    found = why(store, fence.task_id)
    assert "(in 9s)" in found.details[0]
    assert "It has failed once, the last by OSError: bank is closed" in found.details


@pytest.mark.parametrize(
    ("status", "expected"),
    [("completed", "It completed at"), ("failed", "It failed at"), ("cancelled", "It was cancelled")],
)
def test_a_final_run_says_how_it_ended(store: SqliteStore, make: Maker, status: str, expected: str) -> None:
    claimed = make.running()
    if status == "completed":
        make.complete(claimed.fence, 1)
    elif status == "failed":
        make.fail(claimed.fence, ValueError("no stock"), simple=True)
    else:
        store.commit(op.Cancel(claimed.uid, undo=False))
        store.commit(op.End(claimed.fence, Ending.CANCELLED))
    found = why(store, claimed.fence.task_id)
    assert found.summary.startswith(expected)
    assert clock.iso(clock.wall()) in found.summary
    assert claimed.uid in found.actions[0]
    if status == "failed":
        assert found.summary.endswith("ValueError: no stock")
    if status == "cancelled":
        assert found.details == ["What it had done was left as it is."]


def test_a_failed_run_says_which_step_failed_and_a_group_that_of_its_first_error(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    for seq, problem in enumerate(("busy", "no stock", "torn"), 1):
        error = codec.encode_error(ValueError(problem))
        make.append(claimed.fence, make.entry(seq, str(seq), "failed", "step", "pack", try_number=1, data=error))
    make.fail(claimed.fence, ExceptionGroup("some", [ValueError("no stock"), ValueError("torn")]), simple=True)
    assert why(store, claimed.fence.task_id).details == ["It is the error of the step pack at 2."]


def test_an_undo_that_gave_up_says_what_resume_and_cancel_do_and_what_a_cancel_left(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    make.charge(claimed.fence)
    make.fail(claimed.fence, ValueError("late"))
    held = make.claim(make.agent()).fence
    store.commit(op.Halt(held, "the compensation of charge gave up", error=codec.encode_error(OSError("closed"))))
    assert any("`resume` tries the compensation again" in detail for detail in why(store, held.task_id).details)
    store.commit(op.Cancel(claimed.uid))
    found = why(store, held.task_id)
    assert found.details == [f"Its undo gave up: OSError: closed; `outlast show {claimed.uid} --undo` lists what was left as it is."]


def test_a_compensated_run_keeps_its_original_error(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.charge(fence)
    make.fail(fence, ValueError("late"))
    held = make.claim(make.agent()).fence
    store.commit(op.RecordUndo(held, make.entry(0, "undo/1", "completed", "compensation", "charge")))
    store.commit(op.EndUndo(held))
    assert why(store, fence.task_id).summary.endswith("ValueError: late")
    assert "undone" in why(store, fence.task_id).summary


def test_a_run_that_is_not_there_is_not_found(store: SqliteStore) -> None:
    with pytest.raises(RunNotFound):
        why(store, 99)


def test_no_state_goes_without_a_sentence(store: SqliteStore, make: Maker) -> None:
    for status in Status:
        with store.transaction() as connection:
            connection.execute("delete from outlast_task")
            connection.execute("delete from outlast_input")
            connection.execute(
                """
                insert into outlast_task
                  (id, uid, kind, name, queue, status, needs, created_at, agent_id, halt_reason, finished_at)
                values (1, 'u', 'run', 'w', 'default', :status, 'workflow:w', 1,
                        case when :status = 'running' then 1 end, case when :status = 'halted' then 'r' end,
                        case when :status in ('completed', 'failed', 'compensated', 'cancelled')
                             then 1 end)
                """,
                {"status": status},
            )
            if status == Status.RUNNING:
                connection.execute("insert into outlast_agent values (1, 'a', 'h', 'b', 1, 's', 1, null, 'active', 0, 1, 1, 1, null)")
        assert why(store, 1).summary.strip().endswith((".", "r", "recorded", "cause."))


def test_a_run_that_failed_by_a_group_names_the_first_error_in_it(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    group = ExceptionGroup("in a TaskGroup", [ExceptionGroup("inner", [ValueError("file 1 is broken"), OSError("x")])])
    make.fail(claimed.fence, group, simple=True)
    summary = why(store, claimed.fence.task_id).summary
    told = "in a TaskGroup (1 sub-exception), the first ValueError: file 1 is broken"
    assert summary.endswith(f"ExceptionGroup: {told}")
    # As `runs`, `show` and `result` say it.
    assert run_json(store, claimed.fence.task_id)["error"]["message"] == told


def test_a_run_that_halted_on_its_error_says_it_once(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    store.commit(op.Halt(claimed.fence, "ValueError: busy", error=codec.encode_error(ValueError("busy"))))
    found = why(store, claimed.fence.task_id)
    assert found.summary == "It is halted and needs a person: ValueError: busy"
    assert not found.details

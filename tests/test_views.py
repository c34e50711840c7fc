"""What the views show of runs, steps, agents and counts, whatever state they are in."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from decimal import Decimal

import pytest
from made_runs import Maker

from outlast import clock, codec, views
from outlast import operations as op
from outlast.cli.render import plain
from outlast.cli.tree import run_lines, step_cells
from outlast.clock import SECOND
from outlast.definition import registry, workflow
from outlast.errors import AmbiguousRun, InvalidInput, KeyNotFound, RunNotFound
from outlast.journal.entry import COMPENSABLE
from outlast.run.unknown import question
from outlast.states import Ending
from outlast.store.sqlite import SqliteStore
from outlast.views.state import messages_json, published_json, published_value, stream_names
from outlast.why import why

RUN_KEYS = [
    "id", "workflow", "version", "status", "queue", "partition", "key", "input", "output", "error", "claim",
    "crashes", "parent_id", "retry_of", "tags", "created_at", "started_at", "finished_at", "due_at",
    "deadline_at", "halt_reason", "undo",
]  # fmt: skip
STEP_KEYS = [
    "path",
    "name",
    "kind",
    "status",
    "input",
    "output",
    "error",
    "tries",
    "started_at",
    "finished_at",
]


def test_a_run_is_found_by_id_by_unique_prefix_and_by_key(store: SqliteStore, make: Maker) -> None:
    started = make.start(uid="abcd0000000000000x", key="o:1")
    make.start(uid="abce0000000000000x")
    expected = (started.task_id, started.uid)
    assert views.find_run(store, started.uid) == expected
    assert views.find_run(store, "abcd") == expected
    assert views.find_run(store, " ABCD ") == expected
    assert views.find_run(store, "fulfil:o:1") == expected
    blank = make.start(key=" o 2 ")
    assert views.find_run(store, "fulfil: o 2 ") == (blank.task_id, blank.uid)


def test_a_prefix_of_several_runs_is_ambiguous_and_says_how_many(store: SqliteStore, make: Maker) -> None:
    make.start(uid="abcd0000000000000x")
    make.start(uid="abce0000000000000x")
    with pytest.raises(AmbiguousRun, match="fits 2 runs"):
        views.find_run(store, "abc")


def test_a_whole_id_is_exact_even_where_it_is_a_prefix(store: SqliteStore, make: Maker) -> None:
    short = make.start(uid="abcd")
    make.start(uid="abcde")
    assert views.find_run(store, "abcd") == (short.task_id, "abcd")


@pytest.mark.parametrize("reference", ["", "zzzz", "no/such", "%", "a\0b", "\udc80", "fulfil:\udc80", "fulfil:none", "{"])
def test_what_names_no_run_is_not_found(store: SqliteStore, make: Maker, reference: str) -> None:
    make.start(uid="abcd0000000000000x")
    with pytest.raises(RunNotFound):
        views.find_run(store, reference)


def test_a_submitted_step_is_not_found_as_a_run(store: SqliteStore, make: Maker) -> None:
    step = make.submit(make.running().fence, 1, "1")
    with pytest.raises(RunNotFound):
        views.find_run(store, step.uid)


def test_a_fresh_run_has_the_documented_keys_in_order(store: SqliteStore, make: Maker) -> None:
    started = make.start(given={"order": "o-1", "price": Decimal("1.50")}, key="k", tags=json.dumps({"team": "x"}))
    found = views.run_json(store, started.task_id)
    assert list(found) == RUN_KEYS
    assert found["input"] == {"order": "o-1", "price": "1.50"}
    assert (found["status"], found["key"], found["tags"], found["claim"]) == (
        "pending",
        "k",
        {"team": "x"},
        0,
    )
    assert found["created_at"] == found["due_at"] == clock.iso(clock.wall())
    assert found["output"] is found["error"] is found["undo"] is found["finished_at"] is None
    json.dumps(found)


def test_raw_values_keep_their_tags(store: SqliteStore, make: Maker) -> None:
    started = make.start(given={"price": Decimal("1.50")})
    assert views.run_json(store, started.task_id, raw=True)["input"]["price"] != "1.50"


def test_due_at_and_deadline_are_shown_in_wall_time_after_a_jump(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    started = make.start(delay=60 * clock.SECOND)
    manual.jump(3600)
    found = views.run_json(store, started.task_id)
    assert found["due_at"] == clock.iso(clock.wall() + 60 * clock.SECOND)


def test_a_start_at_a_wall_instant_shows_that_instant(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    at = clock.wall() + 500 * clock.SECOND
    started = make.start(at_wall=at)
    manual.jump(100)
    assert views.run_json(store, started.task_id)["due_at"] == clock.iso(at)


def test_a_failed_run_shows_its_error_and_a_completed_one_its_output(store: SqliteStore, make: Maker) -> None:
    failed, completed = make.running().fence, make.running().fence
    make.fail(failed, ValueError("no stock"), simple=True)
    make.complete(completed, {"n": 1})
    assert views.run_json(store, completed.task_id)["output"] == {"n": 1}
    found = views.run_json(store, failed.task_id)
    assert found["status"] == "failed"
    assert (found["error"]["type"], found["error"]["message"]) == ("ValueError", "no stock")


def test_a_run_is_paused_only_once_it_stands_still(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    store.commit(op.Pause(claimed.uid))
    assert views.status_of(store, claimed.fence.task_id) == "running"
    store.commit(op.GiveBack(claimed.fence))
    assert views.status_of(store, claimed.fence.task_id) == "paused"
    assert views.run_json(store, claimed.fence.task_id)["status"] == "paused"
    assert [run["id"] for run in views.runs_json(store, status="paused")] == [claimed.uid]
    assert views.runs_json(store, status="pending") == []
    assert views.stats_json(store)["runs"] == {"paused": 1}


def test_a_halted_run_that_was_paused_says_halted(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    store.commit(op.Pause(claimed.uid))
    store.commit(op.Halt(claimed.fence, "unknown outcome"))
    assert views.run_json(store, claimed.fence.task_id)["status"] == "halted"


def test_runs_are_listed_newest_first_by_every_filter(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    first = make.start("a", tags='{"x": "1", "y": "2"}')
    manual.advance(10)
    between = clock.wall()
    manual.advance(10)
    second = make.start("b", tags='{"x": "1"}', version="2")

    def found(**filters: object) -> list[str]:
        return [run["id"] for run in views.runs_json(store, **filters)]  # type: ignore[arg-type]

    assert found() == [second.uid, first.uid]
    assert found(limit=1) == [second.uid]
    assert found(workflow="a") == [first.uid]
    assert found(workflow="b@2") == [second.uid]
    assert found(workflow="b@3") == []
    assert found(tags={"x": "1"}) == [second.uid, first.uid]
    assert found(tags={"x": "1", "y": "2"}) == [first.uid]
    assert found(tags={"x": "2"}) == []
    assert found(since=between) == [second.uid]
    assert found(until=between) == [first.uid]
    assert found(status=["pending", "failed"]) == [second.uid, first.uid]
    assert found(status="failed") == []


def test_an_unknown_status_is_refused_with_the_list(store: SqliteStore) -> None:
    with pytest.raises(InvalidInput, match="paused"):
        views.runs_json(store, status="done")


def test_a_limited_list_walks_the_newest_rows_alone(store: SqliteStore) -> None:
    from outlast.views.runs import _IDS

    nothing = dict.fromkeys(("statuses", "workflow", "version", "since", "until", "tags"))
    plan = store.connection().execute(f"explain query plan {_IDS}", {**nothing, "limit": 1}).fetchall()
    text = " / ".join(row[3] for row in plan)
    assert "SCAN t" in text
    assert "TEMP B-TREE" not in text


def test_a_short_list_of_a_large_file_is_quick(store: SqliteStore, make: Maker) -> None:
    make.start()
    with store.transaction() as connection:
        connection.execute(
            """
            insert into outlast_task
              (uid, kind, name, queue, status, needs, created_at, finished_at, ended_at, ending)
            with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
            select 'x' || i, 'run', 'fulfil', 'default', 'completed', 'workflow:fulfil', 1, 1, 1, 'completed'
            from n
            """
        )
    began = time.perf_counter()
    assert len(views.runs_json(store, limit=20)) == 20
    assert time.perf_counter() - began < 0.1


def test_a_value_that_cannot_be_read_does_not_hide_the_run(store: SqliteStore, make: Maker) -> None:
    started = make.start()
    with store.transaction() as connection:
        connection.execute("update outlast_input set data = ?", (b"{broken",))
    assert "cannot be read" in views.run_json(store, started.task_id)["input"]


def test_an_inline_step_is_one_line_from_one_entry(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    began = clock.wall()
    make.append(
        fence,
        make.entry(
            1, "1", "completed", "step", "pack", try_number=1, started_at=began,
            input=codec.encode({"i": 1}), data=codec.encode("done"),
        ),
    )  # fmt: skip
    [step] = views.steps_json(store, fence.task_id)
    assert list(step) == STEP_KEYS
    assert step == {
        "path": "1",
        "name": "pack",
        "kind": "step",
        "status": "completed",
        "input": {"i": 1},
        "output": "done",
        "error": None,
        "tries": 1,
        "started_at": clock.iso(began),
        "finished_at": clock.iso(began),
    }


def test_a_step_in_its_backoff_shows_its_last_error_and_its_tries(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    error = codec.encode_error(ValueError("busy"))
    due_at = store.now() + 5 * clock.SECOND
    make.append(fence, make.entry(1, "1", "tried", "step", "pack", try_number=2, data=error, due_at=due_at))
    [step] = views.steps_json(store, fence.task_id)
    assert (step["status"], step["tries"], step["error"]["message"]) == ("running", 2, "busy")
    manual.advance(6)
    assert views.steps_json(store, fence.task_id)[0]["tries"] == 3
    make.append(fence, make.entry(2, "1", "completed", "step", "pack", try_number=3, data=codec.encode(1)))
    [step] = views.steps_json(store, fence.task_id)
    assert (step["status"], step["tries"], step["error"], step["output"]) == ("completed", 3, None, 1)


def test_steps_are_in_order_of_start_although_the_first_ended_last(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    early = clock.wall()
    manual.advance(1)
    late = clock.wall()
    make.append(fence, make.entry(1, "2", "completed", "step", "b", started_at=late, data=b"1"))
    make.append(fence, make.entry(2, "1", "completed", "step", "a", started_at=early, data=b"1"))
    assert [step["path"] for step in views.steps_json(store, fence.task_id)] == ["1", "2"]


def test_a_clock_that_is_set_back_does_not_reorder_steps(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    for number, (path, jump) in enumerate((("1", 0), ("2.1", -3600), ("2.2", 0), ("3", -3600), ("4", 7200)), 1):
        manual.jump(jump)
        started_at = clock.wall()
        manual.advance(1)
        make.append(fence, make.entry(number, path, "completed", "step", "pack", try_number=1, started_at=started_at, data=b"1"))
    shown = views.show_json(store, fence.task_id)
    assert [step["path"] for step in shown["steps"]] == ["1", "2.1", "2.2", "3", "4"]
    drawn = [plain(line) for line in run_lines(shown) if " pack " in plain(line)]
    assert [line.split("#")[1].split()[0] for line in drawn] == ["1", "2.1", "2.2", "3", "4"]


def test_a_submitted_step_starts_where_it_was_submitted_whenever_an_agent_tries_it(
    store: SqliteStore, make: Maker, manual: clock.ManualClock
) -> None:
    fence = make.running().fence
    task = make.submit(fence, 1, "1")
    manual.advance(1)
    make.append(fence, make.entry(2, "2", "completed", "step", "b", started_at=clock.wall(), data=b"1"))
    manual.advance(1)
    # While no agent has it, it is drawn as what it is; the statuses that scripts know have no word for that.
    assert views.steps_json(store, fence.task_id)[0]["status"] == "running"
    drawn = [plain(step_cells(step)).split("  ")[1] for step in views.show_json(store, fence.task_id)["steps"]]
    assert drawn == ["pending", "0ms"]
    held = make.claim(make.agent()).fence
    assert plain(step_cells(views.show_json(store, fence.task_id)["steps"][0])).split("  ")[1] == "running"
    assert held.task_id == task.task_id
    make.complete(held, "packed")
    assert [step["path"] for step in views.steps_json(store, fence.task_id)] == ["1", "2"]


def test_a_try_whose_start_is_an_entry_counts_once(store: SqliteStore, make: Maker) -> None:
    # Of a step that is probed or asked about, each try has one.
    fence = make.running().fence
    tries = []
    for seq, event, number in ((1, "started", 1), (2, "tried", 1), (3, "started", 2)):
        make.append(fence, make.entry(seq, "1", event, "step", "charge", try_number=number, due_at=store.now()))
        tries.append(views.steps_json(store, fence.task_id)[0]["tries"])
    assert tries == [1, 2, 2]


def test_a_cancelled_step_has_no_error_although_its_entry_names_a_run(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.append(fence, make.entry(1, "1", "cancelled", "step", "pack", try_number=1, data=b"0rw63sqcsx3cbvyzrs"))
    [step] = views.steps_json(store, fence.task_id)
    assert (step["status"], step["error"], step["output"]) == ("cancelled", None, None)


def test_a_submitted_step_shows_its_own_row_until_its_parent_has_taken_the_outcome(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    task = make.submit(fence, 1, "1")
    [step] = views.steps_json(store, fence.task_id)
    assert (step["kind"], step["status"], step["tries"], step["input"]) == ("task", "running", 0, {"item": 1})
    held = make.claim(make.agent()).fence
    assert held.task_id == task.task_id
    assert views.steps_json(store, fence.task_id)[0]["tries"] == 1
    failed_try = make.entry(1, "1", "tried", "step", "pack", try_number=1, data=codec.encode_error(OSError("x")))
    store.commit(op.Again(held, failed_try, 0))
    [step] = views.steps_json(store, fence.task_id)
    assert (step["status"], step["tries"], step["error"]["type"]) == ("running", 1, "OSError")
    make.complete(make.claim(make.agent()).fence, "packed", tries=2)
    [step] = views.steps_json(store, fence.task_id)
    assert (step["status"], step["output"], step["tries"], step["error"]) == ("completed", "packed", 2, None)
    make.append(fence, make.entry(2, "1", "completed", "task", "pack", data=codec.encode("packed")))
    assert views.steps_json(store, fence.task_id) == [step]


def test_a_step_without_outcome_in_a_final_run_is_unknown(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.append(fence, make.entry(1, "1", "started", "step", "charge", input=b"{}"))
    step = views.steps_json(store, fence.task_id)[0]
    assert (step["status"], step["tries"]) == ("running", 1)
    make.fail(fence, ValueError("x"))
    step = views.steps_json(store, fence.task_id)[0]
    assert (step["status"], step["tries"]) == ("unknown", 1)
    assert plain(step_cells(step)) == "? charge #1  unknown"  # Nobody knows how long it took either.


def test_a_step_that_its_run_cut_off_is_unknown_while_that_is_undone_and_its_try_counts(
    store: SqliteStore, make: Maker, manual: clock.ManualClock
) -> None:
    fence = make.running().fence
    error = codec.encode_error(OSError("unreachable"))
    make.append(
        fence,
        make.entry(1, "1", "started", "step", "charge", input=b"{}", flags=COMPENSABLE),
        make.entry(2, "2", "tried", "step", "pack", try_number=1, data=error, due_at=store.now() + SECOND),
    )
    make.fail(fence, ValueError("x"))
    cut_off = {"1": ("unknown", 1), "2": ("cancelled", 1)}

    def seen() -> dict[str, tuple[str, int]]:
        return {step["path"]: (step["status"], step["tries"]) for step in views.steps_json(store, fence.task_id)}

    assert seen() == cut_off
    held = make.claim(make.agent()).fence
    started_at = clock.wall()
    tried = make.entry(0, "undo/1", "tried", "compensation", "charge", try_number=1, data=error, started_at=started_at)
    store.commit(op.RecordUndo(held, tried))
    manual.advance(2)  # Longer than the backoff.
    assert seen() == {**cut_off, "undo/1": ("running", 2)}
    store.commit(op.RecordUndo(held, make.entry(0, "undo/1", "completed", "compensation", "charge", try_number=2)))
    store.commit(op.EndUndo(held))
    assert seen() == {**cut_off, "undo/1": ("completed", 2)}


@pytest.mark.parametrize(("ahead", "status"), [(SECOND, "cancelled"), (-SECOND, "unknown")])
def test_a_step_whose_run_ended_before_its_next_try_was_due_is_cancelled(store: SqliteStore, make: Maker, ahead: int, status: str) -> None:
    run = make.running()
    error = codec.encode_error(OSError("unreachable"))
    tried = make.entry(1, "1", "tried", "step", "charge", try_number=1, data=error, due_at=store.now() + ahead)
    make.append(run.fence, tried)
    make.park(run.fence, due_at=store.now() + 100 * SECOND)
    store.commit(op.Cancel(run.uid))
    step = views.steps_json(store, run.fence.task_id)[0]
    assert (step["status"], step["error"]["type"]) == (status, "OSError")
    assert (step["finished_at"] is not None) is (status == "cancelled")


def test_bookkeeping_timers_signals_and_children_are_no_steps(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    for seq, kind in enumerate(("timer", "signal", "publish", "emit", "first", "patch", "forced"), 1):
        make.append(fence, make.entry(seq, str(seq), "completed", kind, kind))
    make.child(fence, 8, "8")
    assert views.steps_json(store, fence.task_id) == []


def test_what_was_set_aside_stays_as_a_line_of_its_own(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    error = codec.encode_error(ValueError("first"))
    make.append(
        fence,
        make.entry(1, "1", "failed", "step", "pack", try_number=1, data=error),
        make.entry(2, "1", "set_aside", "step", "pack"),
        make.entry(3, "1", "completed", "step", "pack", try_number=1, data=b"7"),
    )
    found = [(step["status"], step["output"]) for step in views.steps_json(store, fence.task_id)]
    assert found == [("failed", None), ("completed", 7)]


def test_compensations_come_last_with_the_arguments_of_their_step(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.charge(fence)
    assert [(undo["path"], undo["outcome"], undo["result"]) for undo in views.undo_json(store, fence.task_id)] == [
        ("1", "completed", "p-1")
    ]
    make.fail(fence, RuntimeError("late"))
    assert views.run_json(store, fence.task_id)["undo"] == {"status": "pending", "error": None}
    held = make.claim(make.agent()).fence
    store.commit(op.RecordUndo(held, make.entry(0, "undo/1", "completed", "compensation", "charge", try_number=1)))
    store.commit(op.EndUndo(held))
    found = views.run_json(store, fence.task_id)
    assert (found["status"], found["undo"]["status"], found["error"]["message"]) == (
        "compensated",
        "completed",
        "late",
    )
    assert [step["path"] for step in views.steps_json(store, fence.task_id)] == ["1", "undo/1"]
    assert views.steps_json(store, fence.task_id)[1]["input"] == {"order": "o-1", "amount": 100}
    assert [undo["status"] for undo in views.undo_json(store, fence.task_id)] == ["completed"]


def test_show_says_that_a_held_run_is_at_work_or_what_it_waits_for(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    begun_at = clock.iso(clock.wall())
    manual.advance(3)
    [work] = views.show_json(store, fence.task_id)["waits"]
    assert work == {"kind": "work", "name": "", "due_at": None, "since": begun_at}
    drawn = "\n".join(map(plain, run_lines(views.show_json(store, fence.task_id))))
    assert "executes a step or its own code  3s since its last entry" in drawn
    make.append(fence, make.entry(1, "1", "started", "signal", "approval"))
    assert [wait["kind"] for wait in views.show_json(store, fence.task_id)["waits"]] == ["signal"]
    tried = make.entry(2, "2", "tried", "step", "pack", try_number=1, data=codec.encode_error(OSError("x")), due_at=store.now() + SECOND)
    make.append(fence, tried)
    assert [wait["kind"] for wait in views.show_json(store, fence.task_id)["waits"]] == ["signal", "retry"]
    manual.advance(1)  # Its next try is under way.
    assert [wait["kind"] for wait in views.show_json(store, fence.task_id)["waits"]] == ["signal"]
    manual.advance(60)
    assert views.show_json(store, fence.task_id)["waits"] == []  # Its agent is silent: nobody knows.


def test_of_several_steps_that_are_asked_about_those_that_were_answered_are_known(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    parts = [make.submit(claimed.fence, seq, str(seq)) for seq in (1, 2, 3)]
    make.park(claimed.fence, parts=tuple(part.task_id for part in parts))
    for number, agent_id in enumerate([make.agent() for _ in parts], 1):
        asked = question("", "pack", "its agent left it", number)
        store.commit(op.Halt(make.claim(agent_id).fence, "nobody knows", question=asked))

    def statuses() -> list[str]:
        return [plain(step_cells(step)).split()[3] for step in views.show_json(store, claimed.fence.task_id)["steps"]]

    assert statuses() == ["unknown"] * 3
    assert [step["tries"] for step in views.steps_json(store, claimed.fence.task_id)] == [1, 2, 3]
    store.commit(op.Resume(claimed.uid, done=codec.encode("a box")))
    store.commit(op.Resume(claimed.uid, not_done=True))
    assert [step["output"] for step in views.steps_json(store, claimed.fence.task_id)] == ["a box", None, None]
    assert statuses()[1:] == ["pending", "unknown"]
    assert why(store, claimed.fence.task_id).details[0] == 'It asks about the step pack at 3, called with {"item": 1}.'


def test_show_counts_the_parts_of_one_name_that_a_run_waits_for(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    parts = [make.submit(fence, seq, str(seq)) for seq in (1, 2, 3)]
    make.child(fence, 4, "4")
    make.park(fence, parts=tuple(part.task_id for part in parts), wait_for_all=True)
    drawn = [plain(line)[7:] for line in run_lines(views.show_json(store, fence.task_id)) if "waits for" in plain(line)]
    assert drawn == ["waits for 3 steps pack", "waits for the child invoice"]


def test_show_says_for_which_tick_a_run_was_started(store: SqliteStore, make: Maker) -> None:
    started = make.start(tick=clock.wall())
    shown = views.show_json(store, started.task_id)
    assert shown["tick"] == clock.iso(clock.wall())
    assert " · tick 20" in plain(run_lines(shown)[1])


def test_the_name_of_a_workflow_is_no_run_and_leads_to_those_of_it(store: SqliteStore, make: Maker) -> None:
    make.agent(code={"workflow:fulfil@2": "f", "workflow:fulfilment": "g"})
    for name, is_known in (("fulfil", True), ("fulfilment", True), ("fulf", False), ("no_such", False), ("\ud800", False)):
        with pytest.raises(RunNotFound) as refused:
            views.find_run(store, name)
        assert (f"`outlast runs --workflow {name}` lists" in refused.value.hint) == is_known


def test_show_nests_children_down_to_the_last(store: SqliteStore, make: Maker) -> None:
    make.code["workflow:invoice"] = "f"
    fence = make.running().fence
    child = make.child(fence, 1, "1")
    grandchild = make.child(make.claim(make.agent()).fence, 1, "1")
    shown = views.show_json(store, fence.task_id)
    assert list(shown) == [*RUN_KEYS, "steps", "waits", "tick", "children"]
    [shown_child] = shown["children"]
    assert (shown_child["id"], shown_child["parent_id"]) == (child.uid, shown["id"])
    assert [one["id"] for one in shown_child["children"]] == [grandchild.uid]
    assert views.children_ids(store, fence.task_id) == [(child.task_id, child.uid)]


def test_published_values_and_streams_are_read_back(store: SqliteStore, make: Maker) -> None:
    claimed = make.running()
    fence = claimed.fence
    store.commit(op.Publish(fence, None, "progress", codec.encode(Decimal("80"))))
    store.commit(op.Emit(fence, None, "tokens", [codec.encode("a"), codec.encode("b")], step="1", try_number=1))
    assert published_json(store, fence.task_id) == {"progress": "80"}
    assert codec.decode(published_value(store, fence.task_id, "progress", run_id=claimed.uid)) == Decimal("80")
    with pytest.raises(KeyNotFound, match="published progress"):
        published_value(store, fence.task_id, "\udc80", run_id=claimed.uid)
    assert stream_names(store, fence.task_id) == ["tokens"]
    assert [(m["number"], m["value"], m["step"]) for m in messages_json(store, fence.task_id, "tokens")] == [
        (1, "a", "1"),
        (2, "b", "1"),
    ]
    assert [m["value"] for m in messages_json(store, fence.task_id, "tokens", after=1)] == ["b"]


def test_an_agent_whose_lease_is_over_is_silent(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    claimed = make.running()
    [agent] = views.agents_json(store)
    assert (agent["host"], agent["pid"], agent["queues"], agent["status"]) == (
        "elsewhere",
        4711,
        None,
        "active",
    )
    assert agent["running"] == 1
    manual.advance(31)
    assert views.agents_json(store)[0]["status"] == "silent"
    make.agent(queues='["emails"]')
    assert views.agents_json(store)[0]["queues"] == ["emails"]
    store.commit(op.LeaveAgent(1))
    assert len(views.agents_json(store)) == 1
    assert {agent["status"] for agent in views.agents_json(store, everyone=True)} == {"active", "stopped"}
    assert views.status_of(store, claimed.fence.task_id) == "pending"


def test_stats_count_runs_and_say_how_long_the_oldest_has_been_due(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start()
    manual.advance(5)
    make.start(delay=60 * clock.SECOND)
    make.start(queue="emails")
    found = views.stats_json(store)
    assert found["runs"] == {"pending": 3}
    assert (found["depth"], found["running"], found["oldest_seconds"], found["agents"]) == (2, 0, 5.0, {})
    assert [(queue["name"], queue["depth"]) for queue in found["queues"]] == [("default", 1), ("emails", 1)]
    assert list(found["queues"][0]) == [
        "name", "depth", "running", "oldest_seconds", "concurrency", "rate", "per_partition", "paused",
    ]  # fmt: skip


@dataclass
class Parcel:
    weight: int


def send(order_id: str, *items: int, gift: bool = False, parcel: Parcel | None = None) -> None:
    """Send an order."""


def wrap(parcel, others=()): ...  # type: ignore[no-untyped-def]


wrap.__annotations__ = {"parcel": Parcel, "others": list[Parcel]}


def test_workflows_show_what_they_take() -> None:
    with registry.isolated() as defined:
        workflow(name="fulfil", timeout="7d")(send)
        [found] = views.workflows_json(defined)
    assert found["name"] == "fulfil"
    assert found["description"] == "Send an order."
    assert [(one["name"], one["required"]) for one in found["parameters"]] == [
        ("order_id", True),
        ("*items", False),
        ("gift", False),
        ("parcel", False),
    ]
    assert found["parameters"][3]["type"] == "Parcel | None"
    assert found["timeout_seconds"] == 7 * 86_400
    with registry.isolated() as defined:
        workflow(wrap)
        [found] = views.workflows_json(defined)
    assert [one["type"] for one in found["parameters"]] == ["Parcel", "list[Parcel]"]


def test_an_ending_that_waits_shows_no_output_yet(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    make.submit(fence, 1, "1")
    store.commit(op.End(fence, Ending.COMPLETED, output=codec.encode(1)))
    found = views.run_json(store, fence.task_id)
    assert (found["status"], found["output"]) == ("waiting", None)
    drawn = [plain(line) for line in run_lines(views.show_json(store, fence.task_id))]
    assert drawn[-1].endswith("has returned, and waits for what still runs of it")


def test_an_error_of_ours_has_the_name_by_which_it_is_imported(store: SqliteStore, make: Maker) -> None:
    fence = make.running().fence
    store.commit(op.End(fence, Ending.FAILED, error=codec.encode_error(InvalidInput("no"))))
    error = views.run_json(store, fence.task_id)["error"]
    assert (error["type"], error["message"]) == ("InvalidInput", "no")

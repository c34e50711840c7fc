"""Undo: order, results, policies, transactions, children, and what is kept of its outcome."""

from __future__ import annotations

import asyncio
import threading

import pytest
from run_bench import Gate, effects, eventually

import outlast
from outlast import Retry, current, gather, step, transaction, workflow
from outlast.definition import registry
from outlast.errors import RunCancelled, RunHalted, StepTimeout
from outlast.operations import CancelParts
from outlast.run.sync_parts import SyncParts

gate = Gate()
undo_gate = Gate()
FAST = Retry(3, initial="1ms", jitter=0)


class Broken(Exception):
    pass


@step(isolate=True)
def isolated_charge(amount: int) -> str:
    return f"paid {amount}"


@isolated_charge.compensation
def isolated_refund(result: str | None, amount: int) -> None:
    import os

    outlast.publish("refunded", [result, amount, os.getpid(), current().undoing.outcome])  # type: ignore[union-attr]


with registry.isolated() as defined:
    defined.add(isolated_charge)

    @step
    def book(name: str, *, seat: int = 1) -> str:
        effects.append(("book", name))
        return f"{name}-{seat}"

    @book.compensation
    def unbook(booking: str | None, what: str, *, seat: int = 1) -> None:
        undoing = current().undoing
        assert undoing is not None
        effects.append(("unbook", booking, what, seat, undoing.outcome))

    @step
    def refuses(name: str) -> str:
        raise Broken(name)

    @refuses.compensation
    def unrefuse(result: str | None, name: str) -> None:
        effects.append(("unrefuse", result, name, current().undoing.outcome))  # type: ignore[union-attr]

    @step
    async def abook(name: str) -> str:
        await asyncio.sleep(0.01)
        effects.append(("abook", name))
        return name

    @abook.compensation
    async def aunbook(result: str | None, name: str) -> None:
        await asyncio.sleep(0)
        effects.append(("aunbook", result, name))

    @workflow
    def fails_at_the_end() -> None:
        book("a")
        book("b", seat=7)
        abook.submit("c").result()
        raise Broken("end")

    @workflow
    async def afails_at_the_end() -> None:
        await book.aio("a")
        await abook("c")
        await book.aio("b", seat=7)
        raise Broken("end")

    @workflow
    def fails_in_a_compensable_step() -> None:
        book("a")
        refuses("b")

    @workflow
    def catches_an_error(then: str) -> str:
        try:
            refuses("b")
        except Broken:
            pass
        if then == "fail":
            raise ValueError("later")
        return "fine"

    @workflow
    async def books_in_parallel() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(book.aio(name))
        raise Broken("end")

    @step(timeout="0.1s")
    def overruns() -> str:
        gate.pass_through()
        effects.append("overran")
        return "late"

    @overruns.compensation(timeout="5s")
    def unoverrun(result: str | None) -> None:
        effects.append(("unoverrun", result, current().undoing.outcome))  # type: ignore[union-attr]

    @workflow
    def times_out() -> None:
        overruns()

    @workflow
    async def atimes_out() -> None:
        await overruns.aio()

    @workflow
    def submits_what_times_out() -> None:
        overruns.submit().result()

    @step
    def flaky_to_undo(fails: int) -> int:
        return fails

    @flaky_to_undo.compensation(retry=FAST)
    def unflaky(result: int | None, fails: int) -> None:
        effects.append(("unflaky", current().idempotency_key))
        if len(effects) <= fails:
            raise RuntimeError(f"undo {len(effects)}")

    @workflow
    def flaky_undo(fails: int) -> None:
        book("before")
        flaky_to_undo(fails)
        raise Broken("original")

    @transaction
    def take(db: outlast.sqlite3.Connection, item: str) -> int:
        db.execute("create table if not exists stock (item text, taken int)")
        return db.execute("insert into stock values (?, 1)", (item,)).lastrowid or 0

    @take.compensation
    def give_back(db: outlast.sqlite3.Connection, rowid: int | None, item: str) -> None:
        effects.append(("give back", rowid, item))
        db.execute("delete from stock where rowid = ?", (rowid,))
        if effects.count(("give back", rowid, item)) == 1 and item == "twice":
            raise RuntimeError("rolled back")

    @transaction
    def count_stock(db: outlast.sqlite3.Connection) -> int:
        return db.execute("select count(*) from stock").fetchone()[0]

    @workflow
    def takes(item: str) -> None:
        take(item)
        take.submit(item).result()
        raise Broken("end")

    @workflow
    def child(name: str, fails: bool = False) -> str:
        book(name)
        if fails:
            raise Broken(name)
        return f"child {name}"

    @child.compensation
    def uncild(result: str | None, name: str, fails: bool = False) -> None:
        effects.append(("unchild", result, name))

    @workflow
    def parent_fails() -> None:
        child("x")
        raise Broken("parent")

    @workflow
    def child_fails() -> None:
        book("parent")
        child("x", fails=True)

    @workflow
    def waiting_child() -> None:
        book("child")
        outlast.wait_signal("never")

    @workflow
    def fails_beside_a_child() -> None:
        waiting_child.start()
        book("parent")
        outlast.wait_signal("go")
        raise Broken("parent")

    @workflow
    def waits_after_booking() -> None:
        book("a")
        outlast.wait_signal("never")

    @step
    def stands_at_the_gate() -> str:
        gate.pass_through()
        return "through"

    @stands_at_the_gate.compensation
    def unstand(result: str | None) -> None:
        effects.append(("unstand", result, current().undoing.outcome))  # type: ignore[union-attr]

    @workflow
    def stands() -> None:
        stands_at_the_gate()

    @workflow
    async def astands() -> None:
        await stands_at_the_gate.aio()

    @workflow
    def submits_standing() -> None:
        stands_at_the_gate.submit().result()

    @step
    def slow_to_undo() -> str:
        return "x"

    @slow_to_undo.compensation
    def slow_undo(result: str | None) -> None:
        undo_gate.pass_through()
        effects.append("slow undo")

    @step
    def slow_to_undo_on_the_loop() -> str:
        return "x"

    @slow_to_undo_on_the_loop.compensation
    async def slow_undo_on_the_loop(result: str | None) -> None:
        undo_gate.reached.set()
        while not undo_gate.is_open:
            await asyncio.sleep(0.005)
        effects.append("slow undo")

    @workflow
    def undoes_slowly_on_the_loop() -> None:
        slow_to_undo_on_the_loop()
        raise Broken("end")

    @workflow
    def undoes_slowly() -> None:
        book("a")
        slow_to_undo()
        raise Broken("end")

    @workflow
    def isolated_flow() -> None:
        isolated_charge(5)
        raise Broken("end")

    @workflow
    def first_and_pending() -> None:
        handles = [book.options(delay="1h").submit("never"), stands_at_the_gate.submit()]
        del handles
        book("a")
        gate.wait_until_reached()
        raise Broken("end")

    @step
    def undo_overruns() -> str:
        return "x"

    @undo_overruns.compensation(timeout="0.05s", retry=Retry(2, initial="1ms"))
    def undo_that_overruns(result: str | None) -> None:
        effects.append("undo begins")
        if effects.count("undo begins") == 1:
            gate.pass_through()
        effects.append("undo ends")

    @workflow
    def undo_in_time() -> None:
        undo_overruns()
        raise Broken("end")

    @workflow(retry=FAST)
    def sets_a_result_aside() -> None:
        try:
            refuses_once()
        except Broken:
            book("clean")
            raise
        raise ValueError("end")

    @step
    def refuses_once() -> None:
        effects.append("refuses")
        if effects.count("refuses") == 1:
            raise Broken("once")

    @step
    def charge_again() -> str:
        effects.append("charge")
        if effects.count("charge") == 1:
            raise Broken("once")
        gate.pass_through()
        return "paid"

    @charge_again.compensation
    def refund_again(result: str | None) -> None:
        effects.append(("refund", result, current().undoing.outcome))  # type: ignore[union-attr]

    @workflow(retry=FAST)
    def charges_again() -> None:
        charge_again()

    @workflow(retry=FAST)
    def submits_a_charge_again() -> None:
        charge_again.submit().result()

    @workflow(retry=FAST)
    def cancels_what_never_began_twice() -> None:
        gather(refuses.submit("x"), book.options(delay="1h").submit("never"))


with registry.isolated() as steps_alone:
    steps_alone.add(book)


def undone(bench, flow, *args, error=Broken, status="compensated"):
    if not bench.agents:
        bench.agent()
    run = bench.start(flow, *args)
    with pytest.raises(error) as caught:
        run.result(timeout=20)
    assert bench.status(run) == status
    return run, caught.value


def test_compensations_run_in_reverse_order_with_result_and_arguments_by_position(bench):
    undone(bench, fails_at_the_end)
    assert effects[3:] == [
        ("aunbook", "c", "c"),
        ("unbook", "b-7", "b", 7, "completed"),
        ("unbook", "a-1", "a", 1, "completed"),
    ]


def test_an_async_run_is_undone_in_reverse_order(bench):
    undone(bench, afails_at_the_end)
    assert [effect[0] for effect in effects] == ["book", "abook", "book", "unbook", "aunbook", "unbook"]


def test_a_step_that_failed_is_undone_with_no_result(bench):
    undone(bench, fails_in_a_compensable_step)
    assert effects[1:] == [("unrefuse", None, "b", "failed"), ("unbook", "a-1", "a", 1, "completed")]


def test_an_error_that_was_caught_undoes_nothing(bench):
    assert bench.run(catches_an_error, "return") == "fine"
    assert effects == []


def test_a_step_whose_error_was_caught_is_in_the_plan_of_a_run_that_ends_badly(bench):
    undone(bench, catches_an_error, "fail", error=ValueError)
    assert effects == [("unrefuse", None, "b", "failed")]


def test_parallel_branches_have_an_order_too(bench):
    run, _ = undone(bench, books_in_parallel)
    started = [entry for entry in bench.journal(run) if entry.event == "started"]
    assert [effect[2] for effect in effects[3:]] == [{"1.1": "a", "2.1": "b", "3.1": "c"}[entry.path] for entry in reversed(started)]


@pytest.mark.parametrize("flow", [times_out, atimes_out, submits_what_times_out])
def test_an_undo_waits_for_the_thread_that_overran_and_has_its_result(bench, flow):
    agent, told = bench.agent(grace_seconds=0.1), []
    agent._holding.overran = told.append
    run = bench.start(flow)
    gate.wait_until_reached()
    # Nor for ever: after the grace, the process of an agent that is its own is told to end.
    eventually(lambda: told)
    assert effects == []
    gate.open()
    with pytest.raises(StepTimeout):
        run.result(timeout=20)
    assert effects[0] == "overran"
    assert effects[1][0] == "unoverrun"
    assert len(effects) == 2
    assert bench.strays() == 0


def test_a_compensation_has_its_own_retries_and_one_key_of_its_own(bench):
    run, error = undone(bench, flaky_undo, 3)
    assert str(error) == "original"
    keys = {effect[1] for effect in effects if effect[0] == "unflaky"}
    assert keys == {f"{run.id}/undo/2"}
    assert [effect[0] for effect in effects] == ["book", "unflaky", "unflaky", "unflaky", "unbook"]


def test_a_compensation_that_gives_up_halts_and_keeps_both_errors_apart(bench):
    bench.agent()
    run = bench.start(flaky_undo, 5)
    with pytest.raises(RunHalted) as caught:
        run.result(timeout=20)
    assert "undo 4" in str(caught.value)
    assert bench.field(run, "undo") == "failed"
    assert b"original" in bench.one("select error from outlast_outcome where task_id = ?", bench.task_id(run))
    assert b"undo 4" in bench.one("select undo_error from outlast_outcome where task_id = ?", bench.task_id(run))
    assert ("unbook", "before-1", "before", 1, "completed") not in effects
    run.resume()
    with pytest.raises(Broken, match="original"):
        run.result(timeout=20)
    assert bench.status(run) == "compensated"
    assert effects[-1] == ("unbook", "before-1", "before", 1, "completed")


def test_a_compensation_that_was_resumed_gives_up_again_after_its_tries(bench):
    bench.agent()
    run = bench.start(flaky_undo, 99)
    for tries in (4, 7):
        bench.wait_for(run, "halted")
        assert len(effects) == tries
        run.resume()
    bench.wait_for(run, "halted")


def test_a_transaction_is_undone_in_a_transaction(bench):
    undone(bench, takes, "x")
    assert effects == [("give back", 2, "x"), ("give back", 1, "x")]
    assert bench.one("select count(*) from stock") == 0


def test_a_transactions_compensation_that_raises_is_rolled_back(bench):
    bench.agent()
    run = bench.start(takes, "twice")
    for _ in range(2):
        with pytest.raises(RunHalted):
            run.result(timeout=20)
        assert bench.one("select count(*) from stock") > 0
        run.resume()
        eventually(lambda: bench.status(run) in ("halted", "compensated"))
    with pytest.raises(Broken):
        run.result(timeout=20)
    assert bench.one("select count(*) from stock") == 0


def test_a_completed_child_is_undone_by_its_workflows_compensation_alone(bench):
    undone(bench, parent_fails)
    assert effects == [("book", "x"), ("unchild", "child x", "x")]


def test_a_child_that_failed_undoes_itself_before_its_parent_does(bench):
    undone(bench, child_fails)
    assert effects[2:] == [
        ("unbook", "x-1", "x", 1, "completed"),
        ("unchild", None, "x"),
        ("unbook", "parent-1", "parent", 1, "completed"),
    ]


def test_an_unfinished_child_is_cancelled_and_undone_before_its_parent(bench):
    bench.agent()
    run = bench.start(fails_beside_a_child)
    eventually(lambda: len(effects) == 2)
    (waiting,) = run.children()
    run.signal("go")
    with pytest.raises(Broken):
        run.result(timeout=20)
    assert bench.status(waiting) == "cancelled"
    assert [effect[2] for effect in effects[2:]] == ["child", "parent"]


@pytest.mark.parametrize("undo", [True, False])
def test_a_cancelled_run_is_undone_unless_it_is_told_not_to_be(bench, undo):
    bench.agent()
    run = bench.start(waits_after_booking)
    bench.wait_for(run, "waiting")
    run.cancel(undo=undo)
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert len(effects) == (2 if undo else 1)
    assert bench.field(run, "undo") == ("completed" if undo else "skipped")


@pytest.mark.parametrize("flow", [stands, astands, submits_standing])
def test_a_step_that_ends_after_its_run_was_cancelled_is_undone_with_its_result(bench, flow):
    bench.agent()
    run = bench.start(flow)
    gate.wait_until_reached()
    run.cancel()
    eventually(lambda: bench.field(run, "ending") == "cancelled")
    assert bench.status(run) == "waiting"
    gate.open()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects == [("unstand", "through", "completed")]
    assert bench.strays() == 0


def test_an_undo_goes_on_where_a_crash_stopped_it(bench):
    bench.agent()
    run = bench.start(undoes_slowly)
    undo_gate.wait_until_reached()
    bench.kill()
    undo_gate.open()
    eventually(lambda: "slow undo" in effects)
    bench.agent()
    with pytest.raises(Broken):
        run.result(timeout=20)
    eventually(lambda: effects.count("slow undo") == 2)
    done_to_the_world = [e if isinstance(e, str) else e[0] for e in effects]
    # What the dead agent had begun may end at any time.
    assert done_to_the_world[:2] == ["book", "slow undo"]
    assert sorted(done_to_the_world[2:]) == ["slow undo", "unbook"]
    done = [entry for entry in bench.journal(run) if entry.kind == "compensation" and entry.event == "completed"]
    assert len(done) == 2


def test_an_undo_on_the_loop_of_an_agent_that_leaves_goes_on_elsewhere_and_nobody_is_told_of_a_failure(bench, caplog):
    bench.agent()
    run = bench.start(undoes_slowly_on_the_loop)
    undo_gate.wait_until_reached()
    bench.stop(0.0)
    bench.agent()
    undo_gate.open()
    with pytest.raises(Broken):
        run.result(timeout=20)
    assert effects == ["slow undo"]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_cancel_during_an_undo_changes_nothing(bench):
    bench.agent()
    run = bench.start(undoes_slowly)
    undo_gate.wait_until_reached()
    run.cancel()
    undo_gate.open()
    with pytest.raises(Broken):
        run.result(timeout=20)
    assert bench.status(run) == "compensated"


def test_the_compensation_of_an_isolated_step_runs_isolated(bench):
    import os

    run, _ = undone(bench, isolated_flow)
    result, amount, pid, outcome = run.query("refunded")
    assert (result, amount, outcome) == ("paid 5", 5, "completed")
    assert pid != os.getpid()


def test_a_submitted_step_that_never_began_has_nothing_to_undo(bench):
    bench.agent()
    run = bench.start(first_and_pending)
    gate.wait_until_reached()
    gate.open()
    with pytest.raises(Broken):
        run.result(timeout=20)
    assert [effect[0] for effect in effects] == ["book", "unbook", "unstand"]


def test_a_compensation_that_overran_is_not_tried_again_beside_its_thread(bench):
    agent, told = bench.agent(grace_seconds=0.1), []
    agent._holding.overran = told.append
    run = bench.start(undo_in_time)
    gate.wait_until_reached()
    # Its process is told to end: by then the try is counted, else the next agent would begin it again, for ever.
    eventually(lambda: told)
    assert bench.lines(run)[-1][:2] == ("undo/1", "tried")
    assert effects == ["undo begins"]
    gate.open()
    with pytest.raises(Broken):
        run.result(timeout=20)
    assert effects == ["undo begins", "undo ends", "undo begins", "undo ends"]


def test_no_thread_of_an_undo_is_left(bench):
    undone(bench, fails_at_the_end)
    assert not [t for t in threading.enumerate() if t.name.startswith("outlast-step")]


def test_a_run_is_undone_by_an_agent_that_has_its_steps_and_not_its_workflow(bench):
    bench.agent()
    run = bench.start(waits_after_booking)
    bench.wait_for(run, "waiting")
    bench.stop()
    run.cancel()
    bench.agent(registry=steps_alone)
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects[-1][:3] == ("unbook", "a-1", "a")


def test_a_result_that_was_set_aside_by_the_runs_next_try_is_undone_too(bench):
    undone(bench, sets_a_result_aside, error=ValueError)
    assert effects == ["refuses", ("book", "clean"), "refuses", ("unbook", "clean-1", "clean", 1, "completed")]


@pytest.mark.parametrize("flow", [charges_again, submits_a_charge_again])
def test_a_result_that_comes_late_is_not_taken_for_the_failure_that_was_set_aside_at_its_place(bench, flow):
    bench.agent()
    run = bench.start(flow)
    gate.wait_until_reached()
    run.cancel()
    eventually(lambda: bench.field(run, "ending") == "cancelled")
    gate.open()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects == ["charge", "charge", ("refund", "paid", "completed")]


def test_a_step_that_never_began_in_two_tries_of_its_run_has_nothing_to_undo(bench, monkeypatch):
    """Between the cancel of the step and its entry the agent dies: the entry of the first try is not that of the second."""
    kills: list[int] = []
    commit = SyncParts._commit

    def dies_after_a_cancel(self, operation):
        done = commit(self, operation)
        if isinstance(operation, CancelParts) and not kills:
            kills.append(1)
            bench.kill()
            bench.agent()
        return done

    monkeypatch.setattr(SyncParts, "_commit", dies_after_a_cancel)
    undone(bench, cancels_what_never_began_twice)
    assert kills
    assert effects == [("unrefuse", None, "x", "failed")]

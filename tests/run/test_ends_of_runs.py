"""How runs end while something of them is still under way: steps left open, steps cancelled, tries that go on, pauses."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from run_bench import Gate, effects, eventually

import outlast
from outlast import Retry, continue_as_new, current, gather, step, transaction, workflow
from outlast.agent import holding, interrupting
from outlast.definition import registry
from outlast.errors import Conflict, DeadlineExceeded, RunCancelled
from outlast.operations import AgentEnded

gate = Gate()
FAST = Retry(2, initial="1ms", jitter=0)


class Broken(Exception):
    pass


@step(isolate=True)
def sleeps_isolated() -> None:
    import time

    time.sleep(30)


with registry.isolated() as defined:
    defined.add(sleeps_isolated)

    @step
    def stands(name: str) -> str:
        effects.append(("begins", name))
        gate.pass_through()
        effects.append(("ends", name))
        return name

    @step
    def fails(name: str) -> None:
        raise Broken(name)

    @step
    def fails_once() -> int:
        gate.wait_until_reached()
        effects.append("fails once")
        if effects.count("fails once") == 1:
            raise Broken("once")
        return 1

    @step(retry=FAST)
    def fails_behind_the_gate() -> int:
        effects.append("try")
        gate.pass_through()
        if effects.count("try") == 1:
            raise Broken("first")
        return 7

    @step(timeout="0.05s", retry=FAST)
    def overruns() -> str:
        effects.append("begins")
        if effects.count("begins") == 1:
            gate.pass_through()
        effects.append("ends")
        return "in time"

    @step(timeout="0.15s", retry=FAST)
    def overruns_first() -> None:
        effects.append("begins")
        if effects.count("begins") == 1:
            time.sleep(0.2)
        else:
            gate.pass_through()

    @step
    def note(name: object) -> object:
        effects.append(name)
        return name

    @step
    def book(name: str) -> str:
        return name

    @book.compensation
    def unbook(result: str | None, name: str) -> None:
        effects.append(("unbook", name))

    @step
    async def returns_all_the_same() -> str:
        try:
            while True:
                gate.reached.set()
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            return "done"

    @step
    async def cleans_up() -> None:
        gate.reached.set()
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.05)
            effects.append("cleaned up")

    @returns_all_the_same.compensation
    @cleans_up.compensation
    def undo(result: str | None) -> None:
        effects.append(("undone", result, current().undoing.outcome))  # type: ignore[union-attr]

    @workflow
    def child_that_fails() -> None:
        outlast.wait_signal("fail")
        raise Broken("child")

    @workflow
    def caught_one_and_leaves_one() -> str:
        try:
            fails.submit("caught").result()
        except Broken:
            pass
        child_that_fails.start()
        stands.submit("open")
        return "fine"

    @workflow
    def goes_on_beside_its_steps(number: int) -> object:
        if number == 1:
            stands.submit("first run")
            book.options(delay="1h").submit("never")
            continue_as_new(2)
        return note(number)

    @workflow
    def goes_on_after_a_step(number: int) -> object:
        if number == 1:
            stands("first run")
            continue_as_new(2)
        return note(number)

    @workflow
    def fails_after_it_went_on(number: int) -> object:
        if number == 1:
            fails.options(delay="0.2s").submit("late")
            continue_as_new(2)
        return note(number)

    @workflow
    def books_and_waits() -> None:
        book("a")
        outlast.wait_signal("never")

    @workflow(timeout="0.3s")
    def books_and_waits_till_its_deadline() -> None:
        book("a")
        outlast.wait_signal("never")

    @workflow
    def submits_a_step_that_is_tried_again() -> int:
        return fails_behind_the_gate.submit().result()

    @workflow(retry=FAST)
    def tries_a_fan_out_again() -> list[object]:
        return gather(stands.submit("a"), fails_once.submit())

    @workflow(on_error="halt")
    def halts_beside_a_step() -> list[object]:
        return gather(stands.submit("a"), fails_once.submit())

    @step(timeout="50ms")
    def overruns_once() -> int:
        effects.append("begins")
        if effects.count("begins") == 1:
            gate.pass_through()
        return effects.count("begins")

    @workflow(on_error="halt")
    def halts_on_an_overrun() -> int:
        return overruns_once()

    @workflow(on_error="halt")
    async def ahalts_on_an_overrun() -> int:
        return await overruns_once.aio()

    @transaction
    def quick_transaction(db: outlast.sqlite3.Connection) -> None:
        effects.append("transaction")

    @workflow
    def goes_on_after(what: str) -> None:
        if what == "step":
            stands("a")
        elif what == "transaction":
            gate.pass_through()
            quick_transaction()
        else:
            outlast.sleep("0.3s")
        note("after")

    @workflow
    async def agoes_on_after(what: str) -> None:
        if what == "step":
            await stands.aio("a")
        else:
            await outlast.aio.sleep("0.3s")
        await note.aio("after")

    @workflow
    def submits_and_goes_on_after(what: str) -> None:
        stands.submit("a").result()
        note("after")

    @workflow
    def stands_too_long() -> None:
        stands.options(timeout="20ms")("a")

    @workflow
    def stands_for_long() -> None:
        stands.options(timeout="0.15s")("a")

    @workflow
    async def astands_for_long() -> None:
        await stands.options(timeout="0.15s").aio("a")

    @workflow
    def submits_for_later() -> None:
        gather(stands.submit("a"), note.options(delay="0.3s").submit("later"))

    @workflow
    def has_a_child() -> None:
        goes_on_after.start("step").result()

    @workflow
    def overruns_and_tries_again() -> None:
        overruns_first()

    @workflow
    def submits_what_overruns() -> str:
        return overruns.submit().result()

    @workflow(timeout="0.3s")
    def late_in_an_isolated_step() -> str:
        try:
            sleeps_isolated()
        except Exception:
            return "caught"
        return "slept"

    @workflow(timeout="0.3s")
    async def alate_in_an_isolated_step() -> str:
        try:
            await sleeps_isolated.aio()
        except Exception:
            return "caught"
        return "slept"

    @workflow
    async def swallows_the_cancel() -> None:
        await returns_all_the_same()

    @workflow
    async def cleans_up_slowly() -> None:
        await cleans_up()


def test_a_failure_that_the_code_has_caught_does_not_fail_a_run_that_waits_for_other_steps(bench):
    bench.agent()
    run = bench.start(caught_one_and_leaves_one)
    gate.wait_until_reached()
    bench.wait_for(run, "waiting")
    (child,) = run.children()
    child.signal("fail")
    bench.wait_for(child, "failed")
    gate.open()
    assert run.result(timeout=20) == "fine"


def test_a_cancel_reaches_the_steps_of_a_run_that_has_gone_on(bench):
    bench.agent()
    run = bench.start(goes_on_beside_its_steps, 1)
    gate.wait_until_reached()
    bench.wait_for(run, "waiting")
    assert run.status == "pending"
    run.cancel()
    eventually(lambda: [part["status"] for part in bench.parts(run)] == ["waiting", "cancelled"])
    gate.open()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert [bench.status(one) for one in bench.engine.runs()] == ["cancelled", "cancelled"]
    assert 2 not in effects


def test_a_run_that_went_on_fails_with_its_own_step_and_its_handle_says_so(bench):
    bench.agent()
    run = bench.start(fails_after_it_went_on, 1)
    bench.wait_for(run, "waiting")
    assert run.status == "pending"
    with pytest.raises(Broken, match="late"):
        run.result(timeout=20)
    assert run.status == "failed"
    assert effects == []


def test_a_paused_run_that_is_cancelled_ends_and_is_undone(bench):
    bench.agent()
    run = bench.start(books_and_waits)
    bench.wait_for(run, "waiting")
    run.pause()
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects == [("unbook", "a")]


def test_a_deadline_goes_on_in_a_pause_which_holds_back_the_undo(bench):
    bench.agent()
    run = bench.start(books_and_waits_till_its_deadline)
    bench.wait_for(run, "waiting")
    run.pause()
    eventually(lambda: (bench.sweep(), bench.status(run))[1] == "compensating")
    assert run.status == "paused"
    assert effects == []
    run.resume()
    with pytest.raises(DeadlineExceeded):
        run.result(timeout=20)
    assert effects == [("unbook", "a")]


def test_a_pause_holds_back_the_next_try_of_a_submitted_step(bench):
    bench.agent()
    run = bench.start(submits_a_step_that_is_tried_again)
    gate.wait_until_reached()
    bench.wait_for(run, "waiting")
    run.pause()
    gate.open()
    eventually(lambda: [part["status"] for part in bench.parts(run)] == ["pending"])
    time.sleep(0.1)
    assert effects == ["try"]
    run.resume()
    assert run.result(timeout=20) == 7


def test_a_pause_is_not_lost_by_a_run_that_goes_on_as_another(bench):
    bench.agent()
    run = bench.start(goes_on_after_a_step, 1)
    gate.wait_until_reached()
    run.pause()
    gate.open()
    eventually(lambda: run.status == "paused")
    assert 2 not in effects
    run.resume()
    assert run.result(timeout=20) == 2


def test_no_step_of_a_runs_next_try_begins_beside_itself(bench):
    bench.agent()
    run = bench.start(tries_a_fan_out_again)
    eventually(lambda: "fails once" in effects)
    eventually(lambda: bench.one("select count(*) from outlast_task where kind = 'step' and cancel_requested_at is not null"))
    time.sleep(0.2)
    assert effects == [("begins", "a"), "fails once"]
    gate.open()
    assert run.result(timeout=20) == ["a", 1]
    assert effects.count(("begins", "a")) == 2
    assert effects[2] == ("ends", "a")


def test_a_run_that_waits_for_a_step_of_its_last_try_can_leave_its_agent(bench):
    bench.agent()
    run = bench.start(tries_a_fan_out_again)
    eventually(lambda: bench.one("select count(*) from outlast_task where kind = 'step' and cancel_requested_at is not null"))
    agents, bench.agents = bench.agents, []
    leaving = threading.Thread(target=agents[0].stop)
    leaving.start()
    eventually(lambda: bench.status(run) == "pending")
    gate.open()
    leaving.join()
    bench.agent()
    assert run.result(timeout=20) == ["a", 1]


def test_a_submitted_step_that_overran_is_tried_again_when_its_thread_has_ended(bench):
    bench.agent()
    run = bench.start(submits_what_overruns)
    gate.wait_until_reached()
    # Counted before its thread has ended: where it does not, another agent makes the next try, not the same one for ever.
    eventually(lambda: bench.one("select tries from outlast_task where kind = 'step'") == 1)
    assert effects == ["begins"]
    gate.open()
    assert run.result(timeout=20) == "in time"
    assert effects == ["begins", "ends", "begins", "ends"]
    assert bench.strays() == 0


def test_a_cancel_of_the_try_after_one_that_overran_is_not_held_up_for_ever(bench, monkeypatch):
    monkeypatch.setattr(interrupting, "_STEP_GRACE_SECONDS", 0.0)
    bench.agent()
    run = bench.start(overruns_and_tries_again)
    gate.wait_until_reached()
    run.cancel()
    eventually(bench.strays)
    gate.open()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert bench.strays() == 0


def test_an_async_step_that_returns_in_spite_of_a_cancel_is_undone_with_its_result(bench):
    bench.agent()
    run = bench.start(swallows_the_cancel)
    gate.wait_until_reached()
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects == [("undone", "done", "completed")]
    assert bench.strays() == 0


def test_an_undo_waits_for_an_async_step_that_cleans_up_after_its_cancel(bench):
    bench.agent()
    run = bench.start(cleans_up_slowly)
    gate.wait_until_reached()
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    assert effects == ["cleaned up", ("undone", None, "unknown")]


@pytest.mark.parametrize("flow", [late_in_an_isolated_step, alate_in_an_isolated_step])
def test_a_deadline_that_kills_an_isolated_step_is_no_death_of_the_step_that_code_could_catch(bench, flow):
    bench.agent()
    run = bench.start(flow)
    with pytest.raises(DeadlineExceeded):
        run.result(timeout=20)
    assert bench.status(run) == "failed"


def test_a_halted_run_is_not_resumed_beside_its_own_step(bench):
    bench.agent()
    run = bench.start(halts_beside_a_step)
    bench.wait_for(run, "halted")
    with pytest.raises(Conflict, match="Step stands .* still runs"):
        run.resume()
    gate.open()
    eventually(lambda: not bench.one("select count(*) from outlast_task where kind = 'step' and finished_at is null"))
    run.resume()
    assert run.result(timeout=20) == ["a", 1]


@pytest.mark.parametrize("flow", [goes_on_after, agoes_on_after])
@pytest.mark.parametrize("what", ["step", "timer"])
def test_a_pause_acts_at_the_next_durable_call_whatever_the_run_is_at(bench, flow, what):
    bench.agent()
    run = bench.start(flow, what)
    if what == "step":
        gate.wait_until_reached()
        run.pause()
        gate.open()
        eventually(lambda: run.status == "paused")
    else:
        bench.wait_for(run, "waiting")
        run.pause()
        due_at = bench.field(run, "due_at")
        eventually(lambda: bench.store.now() > due_at)
    time.sleep(0.1)
    assert "after" not in effects
    assert run.status == "paused"
    run.resume()
    run.result(timeout=20)
    assert effects.count(("begins", "a")) == (what == "step")
    assert effects.count("after") == 1


@pytest.mark.parametrize("wish", ["pause", "cancel"])
@pytest.mark.parametrize(("flow", "what"), [(goes_on_after, "step"), (agoes_on_after, "step"), (goes_on_after, "transaction")])
def test_nothing_begins_after_a_step_that_ends_before_its_agent_has_read_of_a_wish(bench, monkeypatch, flow, wish, what):
    monkeypatch.setattr(holding.Holding, "read_notices", lambda self: None)
    bench.agent()
    run = bench.start(flow, what)
    gate.wait_until_reached()
    getattr(run, wish)()
    gate.open()
    eventually(lambda: run.status == {"pause": "paused", "cancel": "cancelled"}[wish])
    assert "after" not in effects


@pytest.mark.parametrize("flow", [goes_on_after, agoes_on_after, submits_and_goes_on_after])
def test_a_thread_that_ends_as_its_agents_loop_is_closed_holds_up_no_ending(bench, monkeypatch, flow):
    agent = bench.agent()
    run = bench.start(flow, "step")
    gate.wait_until_reached()
    close = asyncio.SelectorEventLoop.close

    def close_as_the_thread_ends(loop: asyncio.SelectorEventLoop) -> None:
        gate.open()
        eventually(lambda: ("ends", "a") in effects)
        time.sleep(0.02)
        close(loop)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio.SelectorEventLoop, "close", close_as_the_thread_ends)
        agent.stop(0.0)
    eventually(lambda: bench.strays() == 0)
    run.cancel()
    eventually(lambda: run.status == "cancelled")


def test_an_ending_waits_for_a_thread_that_goes_on_although_its_agent_has_left_the_process(bench):
    bench.agent()
    run = bench.start(stands_too_long)
    eventually(bench.strays)
    bench.stop()
    assert bench.status(run) == "waiting"
    gate.open()
    eventually(lambda: bench.status(run) == "failed")


@pytest.mark.parametrize("flow", [stands_for_long, astands_for_long])
def test_a_try_that_overruns_after_its_agent_has_left_counts_until_its_thread_has_ended(bench, flow):
    bench.agent()
    run = bench.start(flow)
    gate.wait_until_reached()
    bench.stop(0.0)
    run.cancel()
    time.sleep(0.25)
    assert bench.status(run) != "cancelled"
    gate.open()
    eventually(lambda: bench.status(run) == "cancelled")


def test_an_ending_waits_no_longer_than_for_a_thread_whose_agent_has_lost_its_lease_meanwhile(bench):
    agent = bench.agent(lease_seconds=0.3)
    run = bench.start(stands_too_long)
    eventually(bench.strays)
    first = agent.agent_id
    bench.store.commit(AgentEnded(first, "lost", "its lease was over", 5, False))
    eventually(lambda: agent.agent_id != first)
    assert bench.status(run) == "waiting"
    gate.open()
    eventually(lambda: bench.status(run) == "failed")


def test_a_pause_holds_back_submitted_steps_that_nobody_has(bench):
    bench.agent()
    run = bench.start(submits_for_later)
    gate.wait_until_reached()
    run.pause()
    gate.open()
    time.sleep(0.4)
    assert "later" not in effects
    run.resume()
    run.result(timeout=20)


@pytest.mark.parametrize("children", [True, False])
def test_a_pause_reaches_children_only_when_asked(bench, children):
    bench.agent()
    run = bench.start(has_a_child)
    gate.wait_until_reached()
    bench.wait_for(run, "waiting")
    run.pause(children=children)
    (child,) = run.children()
    gate.open()
    eventually(lambda: child.status == ("paused" if children else "completed"))
    assert run.status == "paused"
    run.resume()
    run.result(timeout=20)


@pytest.mark.parametrize("flow", [halts_on_an_overrun, ahalts_on_an_overrun])
def test_a_run_that_halted_on_a_step_that_overran_is_not_resumed_beside_it(bench, flow):
    bench.agent()
    run = bench.start(flow)
    bench.wait_for(run, "halted")
    with pytest.raises(Conflict, match="Step overruns_once .* still runs"):
        run.resume()
    gate.open()
    eventually(lambda: not bench.strays())
    run.resume()
    assert run.result(timeout=20) == 2

"""What a crash makes of its neighbours: each runs alone until its first entry, and then among others again."""

from __future__ import annotations

import pytest
from run_bench import Bench, Gate, effects, eventually

from outlast import step, workflow
from outlast.definition import registry
from outlast.operations import AgentEnded

second = Gate()

with registry.isolated() as defined:

    @step
    def begin(name: str) -> None:
        effects.append(name)

    @step
    def stay() -> None:
        second.pass_through()

    @workflow
    def long(name: str) -> str:
        begin(name)
        begin(f"{name} on")
        stay()
        return name

    @workflow
    def short(name: str) -> None:
        begin(name)


def test_an_only_agent_with_one_slot_gives_suspects_every_other_turn(bench: Bench) -> None:
    runs = [bench.start(short, f"{kind}{number}") for kind in ("suspect", "other") for number in range(6)]
    with bench.store.transaction() as connection:
        connection.execute("update outlast_task set suspect = 1 where id <= 6")
    bench.agent(concurrency=1)
    for run in runs:
        run.result(timeout=20)
    kinds = [name.rstrip("0123456789") for name in effects]
    assert kinds[:8] in (["suspect", "other"] * 4, ["other", "suspect"] * 4)


def test_a_long_run_whose_suspicion_has_ended_does_not_hold_up_the_other_suspects(bench: Bench) -> None:
    runs = [bench.start(long, name) for name in ("a", "b", "c")]
    # As after a crash: all of them are suspects.
    with bench.store.transaction() as connection:
        connection.execute("update outlast_task set suspect = 1")
    bench.agent()
    eventually(lambda: sum(bench.field(run, "status") == "running" for run in runs) == 3)
    eventually(lambda: all(bench.field(run, "suspect") == 0 for run in runs))
    assert bench.one("select count(*) from outlast_task where alone") == 0
    second.open()
    assert [run.result(timeout=20) for run in runs] == ["a", "b", "c"]


def test_a_suspect_that_waits_for_an_agent_to_be_empty_does_not_hold_up_all_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.agent.next_claim._SUSPECTS_SECONDS", 0.02)
    monkeypatch.setattr("outlast.agent._GIVEN_WAY_SECONDS", 0.02)
    second.close()
    busy = bench.start(long, "busy")
    bench.agent()
    second.wait_until_reached()
    suspect = bench.start(short.options(delay="1h"), "suspect")
    with bench.store.transaction() as connection:
        connection.execute("update outlast_task set suspect = 1, due_at = 0 where uid = ?", (suspect.id,))
    for number in range(5):
        bench.start(short, f"innocent {number}").result(timeout=10)
    assert (suspect.status, busy.status) == ("pending", "running")
    second.open()
    busy.result(timeout=20)
    suspect.result(timeout=20)


def test_a_crash_of_the_process_that_works_on_one_run_counts(bench: Bench) -> None:
    # As `outlast run` does, with room for the parts of its run; the run itself is the only one there.
    second.close()
    run = bench.start(long, "a")
    agent = bench.agent(root_id=1)
    second.wait_until_reached()
    bench.store.commit(AgentEnded(agent.agent_id, "crashed", "killed by a test", 5, True))
    assert bench.field(run, "crashes") == 1
    second.open()


def test_an_agent_that_hears_twice_that_its_lease_was_ended_begins_anew_once(bench: Bench) -> None:
    agent = bench.agent()
    lost = agent.agent_id

    def lose() -> None:
        bench.store.commit(AgentEnded(lost, "lost", "ended by a test", 5, True))
        # Two answers are under way: each says that the lease of the same agent was ended.
        agent._heartbeat()
        agent._heartbeat()

    agent._answers.on_loop(lose)
    eventually(lambda: agent.agent_id != lost)
    assert bench.run(short, "anew") is None
    assert bench.one("select count(*) from outlast_agent") == 2
    assert bench.one("select agent_id from outlast_agent_code where agent_id = ?", agent.agent_id) == agent.agent_id

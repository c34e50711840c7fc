"""Retention and `prune`: what goes, what somebody still needs, and that nobody is held up."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from made_runs import Maker

from outlast import clock, codec
from outlast import operations as op
from outlast.doctor import examine
from outlast.engine import Engine
from outlast.engine.handle import StoredRun
from outlast.errors import RunNotFound, StoreFull
from outlast.model import new_id
from outlast.operations.retention import DeclareRetention, Discard, Prune, Pruned
from outlast.settings import Settings
from outlast.states import Status
from outlast.store import pruning
from outlast.store.sqlite import SqliteStore
from outlast.supervisor import retention
from outlast.supervisor.retention import KEPT_FOR_A_TIME, Retention, Walk, give_back_some
from outlast.views.chains import was_retried

DAY = 86_400.0


def pruned(store: SqliteStore, seconds: float = 0.0, **facts: object) -> int:
    """Prune all that ended so long ago; gives how many runs went."""
    walk = Walk(store, kept_seconds=seconds, statuses=facts.pop("statuses", KEPT_FOR_A_TIME), **facts)  # type: ignore[arg-type]
    while walk.step():
        pass
    return walk.runs


def left(store: SqliteStore) -> list[str]:
    return [row[0] for row in store.connection().execute("select uid from outlast_task where kind = 'run' order by id")]


def rows(store: SqliteStore, table: str) -> int:
    count: int = store.connection().execute(f"select count(*) from outlast_{table}").fetchone()[0]
    return count


def is_sound(store: SqliteStore) -> bool:
    found = {finding.name: finding.ok for finding in examine(store)}
    return all(found[name] for name in ("leftovers", "inputs", "keys", "journals", "wakeups", "tick runs"))


def test_what_completed_or_was_cancelled_goes_and_the_rest_stays(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    done, cancelled, failed = make.running(), make.start(), make.running()
    make.complete(done.fence, 1)
    store.commit(op.Cancel(cancelled.uid))
    make.fail(failed.fence, ValueError("x"), simple=True)
    waits = make.running()
    make.park(waits.fence, signals=("go",))
    manual.advance(30 * DAY + 1)
    young = make.running()
    make.complete(young.fence, 2)
    assert pruned(store, 30 * DAY) == 2
    assert left(store) == [failed.uid, waits.uid, young.uid]
    with pytest.raises(RunNotFound):
        StoredRun(store, Settings(), done.uid).result(timeout=0)
    assert pruned(store, 0, statuses=("failed",)) == 1
    assert left(store) == [waits.uid, young.uid]
    assert is_sound(store)


def test_nothing_is_left_of_a_run_in_any_table(store: SqliteStore, make: Maker) -> None:
    empty = {table: rows(store, table) for table in tables(store)}
    run = make.running(key="k", tags='{"a": "b"}', unique_key="u")
    make.append(run.fence, make.entry(1, "1", "completed", "step", "charge"))
    step = make.submit(run.fence, 2, "2")
    held = make.claim(make.agent(), root_id=run.fence.task_id)
    make.complete(held.fence)
    for name in ("a", "b"):
        store.commit(op.Signal(run.uid, name, b"1"))
        store.commit(op.Publish(run.fence, None, name, b"1"))
        store.commit(op.Emit(run.fence, None, name, [b"1", b"2"]))
    make.append(run.fence, make.entry(3, "2", "completed", "task", "pack"))
    make.complete(run.fence, simple=False)
    assert step.created
    assert pruned(store) == 1
    for table, count in empty.items():
        if table not in ("agent", "agent_code", "clock", "pruned"):
            assert rows(store, table) == count, table
    assert is_sound(store)


def tables(store: SqliteStore) -> list[str]:
    found = store.connection().execute("select name from sqlite_schema where type = 'table' and name like 'outlast_%'")
    return [name.removeprefix("outlast_") for (name,) in found if name != "outlast_migrations"]


def test_the_id_of_a_task_is_never_given_again(store: SqliteStore, make: Maker) -> None:
    first = make.running()
    make.complete(first.fence)
    assert pruned(store) == 1
    second = make.start()
    assert second.task_id == first.fence.task_id + 1
    store.commit(op.Cancel(second.uid))
    assert pruned(store) == 1
    assert [make.start().task_id for _ in range(2)] == [second.task_id + 1, second.task_id + 2]
    assert rows(store, "pruned") == 1


def test_a_key_is_free_once_its_run_is_gone(store: SqliteStore, make: Maker) -> None:
    first = make.running(key="k")
    make.complete(first.fence)
    assert not make.start(key="k").created
    pruned(store)
    assert make.start(key="k").created


def test_a_child_whose_outcome_its_open_parent_has_not_copied_stays(store: SqliteStore, make: Maker) -> None:
    make.code["workflow:invoice"] = "f5"
    parent = make.running()
    child = make.child(parent.fence, 1, "1")
    make.complete(make.claim(make.agent(), root_id=parent.fence.task_id).fence, 7)
    assert pruned(store) == 0
    make.append(parent.fence, make.entry(2, "1", "completed", "child", "invoice", data=codec.encode(7)))
    assert pruned(store) == 1
    assert left(store) == [parent.uid]
    assert child.uid not in left(store)


def test_a_child_stays_at_whose_place_another_ones_failure_was_set_aside(store: SqliteStore, make: Maker) -> None:
    make.code["workflow:invoice"] = "f5"
    parent = make.running()
    events = ("started", "failed", "set_aside")
    make.append(parent.fence, *[make.entry(number, "1", event, "child", "invoice") for number, event in enumerate(events, 1)])
    make.child(parent.fence, 4, "1")
    make.complete(make.claim(make.agent(), root_id=parent.fence.task_id).fence, 7)
    assert pruned(store) == 0
    make.append(parent.fence, make.entry(5, "1", "completed", "child", "invoice", data=codec.encode(7)))
    assert pruned(store) == 1


def test_a_child_that_was_written_off_but_had_completed_stays_for_the_undo(store: SqliteStore, make: Maker) -> None:
    make.code["workflow:invoice"] = "f5"
    parent = make.running()
    make.child(parent.fence, 1, "1")
    held = make.claim(make.agent(), root_id=parent.fence.task_id)
    make.append(parent.fence, make.entry(2, "1", "cancelled", "child", "invoice", try_number=1))
    make.complete(held.fence, 7)
    assert pruned(store) == 0


def test_a_run_that_another_waits_for_by_its_key_stays_until_it_is_taken(store: SqliteStore, make: Maker) -> None:
    make.code["workflow:invoice"] = "f5"
    other = make.start("invoice", key="i")
    parent = make.running()
    part = op.Start(
        uid=new_id(clock.wall()), kind="run", name="invoice", needs="workflow:invoice", queue="default", input=b"{}", key="i",
        parent_id=parent.fence.task_id, parent_path="1",
    )  # fmt: skip
    started = store.commit(op.StartPart(parent.fence, make.entry(1, "1", "started", "child", "invoice"), part))
    assert started.uid == other.uid
    make.complete(make.claim(make.agent(), root_id=other.task_id).fence, 7)
    assert pruned(store) == 0
    make.append(parent.fence, make.entry(2, "1", "completed", "child", "invoice"))
    assert pruned(store) == 1


def test_a_parent_stays_while_a_child_of_it_is_unfinished(store: SqliteStore, make: Maker) -> None:
    parent = make.running()
    child = make.child(parent.fence, 1, "1")
    make.complete(parent.fence, simple=False)
    assert pruned(store) == 0
    store.commit(op.Cancel(child.uid))
    assert pruned(store) == 2


def test_the_chain_of_an_unfinished_retry_stays_and_what_it_will_go_on_from(store: SqliteStore, make: Maker) -> None:
    make.code["workflow:invoice"] = "f5"
    run = make.running()
    child = make.child(run.fence, 1, "1")
    held = make.claim(make.agent(), root_id=run.fence.task_id)
    make.fail(held.fence, ValueError("x"), simple=True)
    make.append(run.fence, make.entry(2, "1", "failed", "child", "invoice"))
    make.fail(run.fence, ValueError("x"))
    again = store.commit(op.StartRetry(run.uid, new_id(clock.wall())))
    everything = tuple(map(str, (Status.FAILED, Status.COMPLETED, Status.CANCELLED)))
    assert pruned(store, statuses=everything) == 0
    assert left(store) == [run.uid, child.uid, again.uid]
    store.commit(op.Cancel(again.uid))
    assert pruned(store, statuses=everything) == 3
    assert rows(store, "inherited") == 0


def test_a_retry_stays_while_a_run_that_it_retried_is_there(store: SqliteStore, make: Maker) -> None:
    run = make.running()
    make.fail(run.fence, ValueError("x"), simple=True)
    again = store.commit(op.StartRetry(run.uid, new_id(clock.wall())))
    make.complete(make.claim(make.agent()).fence)
    assert pruned(store) == 0
    assert was_retried(store, run.uid)
    assert pruned(store, statuses=("failed",)) == 1
    assert left(store) == [again.uid]
    assert pruned(store) == 1


def test_a_line_of_runs_goes_from_its_beginning(store: SqliteStore, make: Maker) -> None:
    first = make.running()
    start = op.Start(
        uid=new_id(clock.wall()), kind="run", name="fulfil", needs="workflow:fulfil", queue="default", input=b"{}"
    )  # fmt: skip
    store.commit(op.ContinueAsNew(first.fence, start))
    second = make.claim(make.agent())
    make.complete(second.fence, 7)
    handle = StoredRun(store, Settings(), first.uid)
    assert store.commit(Prune((second.fence.task_id,))) == Pruned(0, 1)
    assert handle.result(timeout=0) == 7
    assert pruned(store) == 2


def test_what_was_chosen_and_is_needed_by_now_stays(store: SqliteStore, make: Maker) -> None:
    run = make.running()
    make.complete(run.fence)
    store.commit(op.StartRetry(run.uid, new_id(clock.wall())))
    assert store.commit(Prune((run.fence.task_id, 4711))) == Pruned(0, 2)
    assert run.uid in left(store)


def test_a_long_journal_goes_bit_by_bit_and_a_crash_between_leaves_the_file_sound(store: SqliteStore, make: Maker) -> None:
    run = make.running()
    make.append(run.fence, *[make.entry(number, str(number), "completed", "step", "charge", data=b"1" * 50) for number in range(1, 101)])
    make.complete(run.fence)
    assert store.commit(Prune((run.fence.task_id,))) == Pruned(1, 1)
    assert left(store) == []
    assert is_sound(store)
    counts = []
    while store.commit(Discard(30, 1_000)):
        counts.append(rows(store, "journal"))
        assert is_sound(store)
    assert counts == [80, 60, 40, 20, 0, 0]
    assert rows(store, "input") == rows(store, "outcome") == 0


def test_one_transaction_takes_few_rows(store: SqliteStore, make: Maker) -> None:
    ids = []
    for _ in range(4):
        run = make.running()
        make.submit(run.fence, 1, "1")
        make.complete(make.claim(make.agent(), root_id=run.fence.task_id).fence)
        make.append(run.fence, make.entry(2, "1", "completed", "task", "pack"))
        make.complete(run.fence, simple=False)
        ids.append(run.fence.task_id)
    assert store.commit(Prune(tuple(ids), 3)) == Pruned(2, 2)
    assert pruned(store) == 2
    assert rows(store, "task") == 0


def test_a_walk_by_hand_gives_way_only_while_others_commit(store: SqliteStore, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    make.complete(make.running().fence, 1)
    walk = Walk(store, kept_seconds=0.0, statuses=KEPT_FOR_A_TIME)
    pauses: list[float] = []
    # Of this module alone: another thread that sleeps would not rest otherwise, and be counted.
    monkeypatch.setattr(retention, "time", SimpleNamespace(sleep=pauses.append, perf_counter=time.perf_counter))
    courtesy = retention.Courtesy(store)
    assert walk.step()
    courtesy.give_way()
    assert pauses == []
    other = SqliteStore(store.path)
    other.commit(op.Heartbeat(1, 1))
    other.close()
    assert walk.step()
    courtesy.give_way()
    assert len(pauses) == 1
    assert pauses[0] > 0


def test_a_full_disk_does_not_end_the_supervisor(store: SqliteStore, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    role = Retention(store, Settings(retention_seconds=10.0))
    role.tick(store.now())

    def full(*_: object) -> None:
        raise StoreFull(store.path)

    monkeypatch.setattr(Walk, "step", full)
    assert role.tick(store.now() + 100 * clock.SECOND) == 10.0


def test_the_wall_clock_prunes_nothing_when_it_jumps(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    run = make.running()
    make.complete(run.fence)
    manual.jump(365 * DAY)
    assert pruned(store, 30 * DAY) == 0
    assert left(store) == [run.uid]


def test_a_workflow_says_how_long_its_own_runs_are_kept(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    store.commit(DeclareRetention({"fulfil": 7 * DAY, "invoice": 90 * DAY, "plain": None}))
    assert pruning.by_workflow(store.connection()) == {"fulfil": 7 * DAY, "invoice": 90 * DAY}
    for name in ("fulfil", "invoice", "plain"):
        make.code[f"workflow:{name}"] = "f"
        make.complete(make.running(name).fence)
    manual.advance(8 * DAY)
    assert pruned(store, 30 * DAY) == 1
    manual.advance(30 * DAY)
    assert pruned(store, 30 * DAY) == 1
    assert pruned(store, 30 * DAY, heeds_workflows=False) == 1
    store.commit(DeclareRetention({"fulfil": None}))
    assert pruning.by_workflow(store.connection()) == {"invoice": 90 * DAY}


def test_a_supervisor_prunes_by_the_setting_in_small_steps(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    for _ in range(120):
        make.complete(make.running().fence)
    kept = make.running()
    make.park(kept.fence, signals=("go",))
    role = Retention(store, Settings(retention_seconds=10.0))
    assert role.tick(store.now()) == 1.0
    manual.advance(11)
    counts = []
    while len(left(store)) > 1:
        manual.advance(role.tick(store.now()))
        counts.append(len(left(store)))
    assert sorted(set(counts), reverse=True) == [71, 21, 1]
    for _ in range(10):
        manual.advance(role.tick(store.now()))
    assert role.tick(store.now()) <= 1.0
    assert is_sound(store)


def test_agents_that_ended_long_ago_are_forgotten(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    ended, held = make.agent(), make.agent(slots=1)
    store.commit(op.LeaveAgent(ended))
    store.commit(op.AgentEnded(held, "lost", "its lease ran out", 5, False))
    live = make.agent(lease=10_000_000 * clock.SECOND)
    pruned(store, DAY)
    assert rows(store, "agent") == 3
    manual.advance(DAY + 60)
    pruned(store, DAY)
    assert [row[0] for row in store.connection().execute("select id from outlast_agent")] == [live]
    assert {row[0] for row in store.connection().execute("select agent_id from outlast_agent_code")} == {live}


def test_room_is_given_back_to_the_disk_by_and_by(store: SqliteStore, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_PAGES", 40)
    run = make.running()
    for number in range(1, 21):
        make.append(run.fence, make.entry(number, str(number), "completed", "step", "charge", data=b"1" * 50_000))
    make.complete(run.fence)
    before = pruning.free_pages(store.connection())
    pruned(store)
    free, pages, is_possible = pruning.free_pages(store.connection())
    assert is_possible
    assert free > 200
    assert pages == before[1]
    steps = 0
    while give_back_some(store, spare=0):
        steps += 1
    assert steps > 5
    assert pruning.free_pages(store.connection())[0] == 0
    assert pruning.free_pages(store.connection())[1] < pages - 200


def test_a_file_without_that_is_made_small_by_a_rewrite(tmp_path: Path) -> None:
    with Engine(tmp_path / "app.db") as engine:
        connection = engine.store.connection()
        connection.execute("pragma auto_vacuum = none")
        connection.execute("vacuum")
        assert not give_back_some(engine.store, spare=0)
        pruning.vacuum(connection)
        assert pruning.free_pages(connection)[2]

"""`doctor`: a sound file passes every check, and each way of breaking one is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import Maker

from outlast import clock, codec
from outlast import operations as op
from outlast.doctor import Finding, doctor, examine
from outlast.doctor.invariants import INVARIANTS
from outlast.states import Ending
from outlast.store.process import this_process
from outlast.store.sqlite import SqliteStore


def bad(store: SqliteStore) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(store) if not finding.ok}


def edit(store: SqliteStore, *statements: str) -> None:
    with store.transaction() as connection:
        connection.execute("pragma ignore_check_constraints = on")
        connection.execute("drop trigger if exists outlast_task_legal_move")
        for statement in statements:
            connection.execute(statement)


def test_a_sound_file_in_every_state_passes(store: SqliteStore, make: Maker) -> None:
    make.complete(make.running().fence, 1)
    make.fail(make.running().fence, ValueError("x"), simple=True)
    undone = make.running().fence
    make.charge(undone)
    make.fail(undone, ValueError("x"))
    parked = make.running()
    make.append(parked.fence, make.entry(1, "1", "started", "signal", "approval"))
    make.park(parked.fence, signals=("approval",))
    gathering = make.running().fence
    part = make.submit(gathering, 1, "1")
    make.park(gathering, parts=(part.task_id,))
    ending = make.running().fence
    make.submit(ending, 1, "1")
    make.complete(ending, simple=False)
    store.commit(op.Halt(make.running().fence, "reason"))
    paused = make.start()
    store.commit(op.Pause(paused.uid))
    make.running()
    make.start(key="k", unique_key="u")
    assert bad(store) == {}


def test_the_report_is_json(store: SqliteStore) -> None:
    found = json.loads(json.dumps(doctor(store)))
    assert found["ok"] is True
    assert found["path"] == store.path
    assert set(found["checks"][0]) == {"name", "ok", "detail", "action", "query"}


def test_every_bad_finding_says_what_to_do(store: SqliteStore, make: Maker) -> None:
    assert all(invariant.action for invariant in INVARIANTS)
    assert len({invariant.name for invariant in INVARIANTS}) == len(INVARIANTS)


BREAKS: dict[str, Callable[[SqliteStore, Maker, clock.ManualClock], None]] = {}


def breaks(name: str) -> Callable[[Callable[[SqliteStore, Maker, clock.ManualClock], None]], None]:
    def keep(function: Callable[[SqliteStore, Maker, clock.ManualClock], None]) -> None:
        BREAKS[name] = function

    return keep


@breaks("leases")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.running()
    edit(store, "update outlast_agent set status = 'lost'")


@breaks("expired leases")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.running()
    manual.advance(120)


@breaks("due while held")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.running()
    edit(store, "update outlast_task set due_at = 1")


@breaks("wakeups")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.park(fence, due_at=store.now() + 1)
    edit(store, "update outlast_task set due_at = null")


@breaks("delivered signals")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    claimed = make.running()
    make.park(claimed.fence, signals=("approval",))
    store.commit(op.Signal(claimed.uid, "approval", b"1"))
    edit(store, "update outlast_task set status = 'waiting', due_at = null")
    manual.advance(120)


@breaks("ended parts")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    part = make.submit(fence, 1, "1")
    make.park(fence, parts=(part.task_id,))
    edit(
        store,
        "update outlast_task set status = 'completed', ending = 'completed', due_at = null,"
        f" finished_at = 1, ended_at = 1 where id = {part.task_id}",
    )


@breaks("endings")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.park(fence, signals=("approval",))
    edit(store, "update outlast_task set ending = 'failed'")


@breaks("open parts")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.submit(fence, 1, "1")
    store.commit(op.End(fence, Ending.COMPLETED, output=codec.encode(1), simple=True))


@breaks("undo plans")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.charge(fence)
    make.fail(fence, ValueError("x"))
    edit(store, "update outlast_journal set flags = 0")


@breaks("claims")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.charge(fence)
    edit(store, "update outlast_journal set claim = 9")


@breaks("journals")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.charge(fence)
    make.park(fence, signals=("approval",))
    edit(store, "delete from outlast_journal where seq = 1")


@breaks("keys")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start(key="k")
    edit(store, "delete from outlast_task", "delete from outlast_input")


@breaks("unique keys")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start(unique_key="u")
    make.start(unique_key="v")
    edit(store, "update outlast_task set unique_key = 'u', started_at = 1")


@breaks("inputs")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start()
    edit(store, "delete from outlast_input")


@breaks("leftovers")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start()
    edit(store, "insert into outlast_published values (99, 'k', x'31', 1)")


@breaks("tick runs")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    edit(
        store,
        "insert into outlast_tick (schedule, tick, until, count, outcome, run_id, decided_at) values ('s', 1, 1, 1, 'fired', 'gone', 1)",
    )


@breaks("strays")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.running()
    edit(store, "insert into outlast_stray values (1, 77, '', 1)")


@breaks("deadlines")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running(timeout=clock.SECOND).fence
    make.park(fence, signals=("approval",))
    store.commit(op.LeaveAgent(1))
    manual.advance(120)


@breaks("stuck tasks")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start()
    manual.advance(120)
    make.agent()


@breaks("agents")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start()


@breaks("clock")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    edit(store, "update outlast_clock set engine_at = engine_at + 10000000000")


@breaks("rights")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    Path(store.path).chmod(0o644)


@breaks("schema")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    edit(store, "update outlast_meta set value = '9999' where key = 'schema'")


@breaks("journal mode")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    store.connection().execute("pragma synchronous = off")


@breaks("agents' processes")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    ours = this_process()
    store.commit(op.RegisterAgent("dead", ours.host, ours.boot_id, 2**22 - 1, "1", 1, None, 600 * clock.SECOND, {}))


@breaks("undo order")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    fence = make.running().fence
    make.charge(fence)
    make.fail(fence, ValueError("x"))
    edit(store, "update outlast_task set needs = 'compensation:other'")


@breaks("outcomes")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.complete(make.running().fence)
    edit(store, "delete from outlast_outcome")


@breaks("parents")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start()
    edit(store, "update outlast_task set parent_id = 4711")


@breaks("taken signals")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    started = make.start()
    store.commit(op.Signal(started.uid, "go", b"1"))
    edit(store, "update outlast_signal set taken_path = '1'")


@breaks("lines")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.complete(make.running().fence)
    edit(store, "update outlast_outcome set successor_id = 4711")


@breaks("retries")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    first, second = make.start(), make.start()
    edit(store, f"update outlast_input set chain = '{first.uid}', retry_of = '{second.uid}'")


@breaks("stuck for want of code")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.start("gone")
    manual.advance(120)
    make.agent()


@breaks("successors")
def _(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    make.running()
    edit(store, "insert into outlast_successor (task_id, after_id, due_at) select id, 999, 1 from outlast_task limit 1")


@pytest.mark.parametrize(
    "statement",
    [
        "drop trigger outlast_task_legal_move",
        "drop index outlast_task_parent",
        "create table outlast_mine (x)",
        "create index mine on outlast_task (name)",
    ],
)
def test_a_schema_that_somebody_has_changed_is_found(store: SqliteStore, statement: str) -> None:
    store.connection().execute(statement)
    assert set(bad(store)) == {"schema"}


def test_tables_of_an_application_are_no_finding(store: SqliteStore) -> None:
    store.connection().execute("create table outlastic (x)")
    store.connection().execute("create index outlastic_x on outlastic (x)")
    assert bad(store) == {}


@pytest.mark.parametrize("name", list(BREAKS))
def test_what_is_broken_is_found(name: str, store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    assert name not in bad(store)
    BREAKS[name](store, make, manual)
    found = bad(store)
    assert name in found
    assert found[name].action


def test_every_invariant_has_been_broken_once() -> None:
    assert {invariant.name for invariant in INVARIANTS} <= set(BREAKS)


def test_little_room_on_the_disk_is_a_finding(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.doctor._SHORT_OF_ROOM_BYTES", 1 << 62)
    assert "Make room" in bad(store)["free disk"].action


def test_a_clock_that_was_set_is_told_and_harms_nothing(store: SqliteStore, manual: clock.ManualClock) -> None:
    manual.jump(-3600)
    [found] = [finding for finding in examine(store) if finding.name == "clock"]
    assert found.ok
    assert "1h back" in found.detail


def test_a_check_that_cannot_be_made_is_a_finding(store: SqliteStore) -> None:
    edit(store, "drop table outlast_key")
    found = bad(store)["keys"]
    assert "no such table" in found.detail


def test_unread_signals_of_other_names_are_no_finding(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    claimed = make.running()
    make.park(claimed.fence, signals=("approval",))
    store.commit(op.Signal(claimed.uid, "other", b"1"))
    store.commit(op.LeaveAgent(1))
    manual.advance(120)
    assert bad(store) == {}


def test_what_an_agent_of_one_run_leaves_is_taken_by_nobody_and_not_stuck(
    store: SqliteStore, make: Maker, manual: clock.ManualClock
) -> None:
    own = make.start().task_id
    agent = make.agent(root_id=own, lease=600 * clock.SECOND)
    assert bad(store) == {}
    make.claim(agent, root_id=own)
    make.start()
    make.start("gone")
    manual.advance(50)
    assert {name: one.detail for name, one in bad(store).items()} == {
        "agents": "1 up, 0 of them silent; 2 due, the oldest for 50s, and nobody takes it"
    }
    manual.advance(70)
    assert list(bad(store)) == ["agents"]


def test_a_deep_backlog_before_full_agents_is_not_stuck(store: SqliteStore, make: Maker, manual: clock.ManualClock) -> None:
    agent = make.agent(slots=1, lease=600 * clock.SECOND)
    make.start()
    make.claim(agent)
    make.start()
    manual.advance(120)
    assert bad(store) == {}

"""A unique key has at most one started and one pending run; the pending one goes when the other has ended, whatever ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import LEASE, Driver, driver, entry

from outlast import clock
from outlast.doctor import examine
from outlast.errors import Conflict
from outlast.operations import Append, Cancel, ContinueAsNew, Halt, Park, Pause, Resume, Start, Started, StartRetry, Sweep
from outlast.operations.claimed import Fence
from outlast.states import Ending
from outlast.why import why


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "unique.db") as made:
        yield made


def start(file: Driver, uid: str, **facts: Any) -> Started:
    facts = {"unique_key": "k", "if_exists": "replace"} | facts
    return file.do(Start(uid, "run", "w", "workflow:w", facts.pop("queue", "default"), facts.pop("given", b"{}"), **facts))


def debounced(file: Driver, uid: str, seconds: float = 5, **facts: Any) -> Started:
    most = facts.pop("most", None)
    return start(
        file, uid, if_exists="return", debounce=round(seconds * clock.SECOND),
        debounce_max=None if most is None else round(most * clock.SECOND), **facts,
    )  # fmt: skip


def given(file: Driver, task_id: int) -> bytes:
    [(data,)] = file.query("select data from outlast_input where task_id = ?", task_id)
    return bytes(data)


def seconds_left(file: Driver, task_id: int) -> float | None:
    due_at = file.row(task_id, "due_at")[0]
    return None if due_at is None else (due_at - file.store.now()) / clock.SECOND


def test_replace_cancels_a_run_that_has_not_started(file: Driver) -> None:
    first, second = start(file, "one"), start(file, "two")
    assert second.created
    assert [file.status(one.task_id) for one in (first, second)] == ["cancelled", "pending"]
    assert [one.uid for one in file.claim(file.agent())] == ["two"]


def test_replace_beside_a_started_run_waits_for_its_end(file: Driver) -> None:
    agent = file.agent()
    first = start(file, "one")
    [held] = file.claim(agent)
    second, third = start(file, "two"), start(file, "three")
    assert file.status(second.task_id) == "cancelled"
    assert file.claim(agent) == []
    assert "waits for the end of run one, which has the same unique key 'k'" in why(file.store, third.task_id).summary
    file.clock.advance(1)
    file.end(held.fence, simple=True)
    assert file.status(first.task_id) == "completed"
    assert [one.uid for one in file.claim(agent)] == ["three"]
    assert file.query("select * from outlast_successor") == []


def test_a_run_that_goes_on_as_a_new_one_is_neither_replaced_nor_given_another_input(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    [held] = file.claim(agent)
    file.do(ContinueAsNew(held.fence, Start("more", "run", "w", "workflow:w", "default", b'{"left": 1}')))
    second = start(file, "two")
    third = debounced(file, "three", 0, given=b'{"left": 9}')
    assert (third.task_id, third.created) == (second.task_id, False)
    [more] = file.claim(agent)
    assert (more.uid, more.input) == ("more", b'{"left": 1}')
    file.clock.advance(1)
    file.end(more.fence, simple=True)
    assert [(one.uid, one.input) for one in file.claim(agent)] == [("two", b'{"left": 9}')]


def test_a_retry_that_has_not_begun_is_replaced_by_a_call_and_does_not_lend_it_what_it_inherited(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    [held] = file.claim(agent)
    file.do(Append(held.fence, [entry(1, data=b"1")]))
    file.end(held.fence, Ending.FAILED, error=b"{}")
    again = file.do(StartRetry("one", "again"))
    assert file.query("select data from outlast_inherited where path = '1'") == [(b"1",)]
    call = debounced(file, "two", 0)
    assert call.created
    assert [file.status(one.task_id) for one in (again, call)] == ["cancelled", "pending"]


def test_replace_keeps_the_delay_of_a_run_that_is_held_back(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    [held] = file.claim(agent)
    later = start(file, "two", delay=10 * clock.SECOND)
    file.clock.advance(4)
    file.end(held.fence, simple=True)
    assert seconds_left(file, later.task_id) == 6
    file.clock.advance(6)
    assert [one.uid for one in file.claim(agent)] == ["two"]


def _park_and_cancel(file: Driver, fence: Fence) -> None:
    assert file.do(Park(fence, None, signals=("go",)))
    file.do(Cancel("one"))


def _halt_and_cancel(file: Driver, fence: Fence) -> None:
    file.do(Halt(fence, "for a person"))
    file.do(Cancel("one"))


def _pass_the_deadline(file: Driver, fence: Fence) -> None:
    assert file.do(Park(fence, None, signals=("go",)))
    file.store.connection().execute("update outlast_task set deadline_at = ? where uid = 'one'", (file.store.now() - 1,))
    file.do(Sweep(LEASE))


ENDS: dict[str, Callable[[Driver, Fence], object]] = {
    "completed": lambda file, fence: file.end(fence, simple=True),
    "failed": lambda file, fence: file.end(fence, Ending.FAILED, error=b"null"),
    "cancelled while held": lambda file, fence: (file.do(Cancel("one")), file.end(fence, Ending.CANCELLED)),
    "cancelled while parked": _park_and_cancel,
    "halted, then cancelled": _halt_and_cancel,
    "past its deadline": _pass_the_deadline,
}


@pytest.mark.parametrize("name", ENDS)
def test_whatever_ends_a_run_lets_its_successor_go(file: Driver, name: str) -> None:
    agent = file.agent()
    start(file, "one")
    [held] = file.claim(agent)
    successor = start(file, "two")
    assert seconds_left(file, successor.task_id) is None
    ENDS[name](file, held.fence)
    assert seconds_left(file, successor.task_id) == 0
    assert [one.uid for one in file.claim(agent)] == ["two"]


def test_a_crash_of_the_run_before_it_does_not_let_a_successor_go(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    file.claim(agent)
    successor = start(file, "two")
    file.crash(agent)
    other = file.agent()
    assert [one.uid for one in file.claim(other, alone=True, suspects=True)] == ["one"]
    assert file.claim(other) == []
    assert file.status(successor.task_id) == "pending"


def test_a_halted_run_holds_its_successor_back_until_a_person_has_decided(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    [held] = file.claim(agent)
    successor = start(file, "two")
    file.do(Halt(held.fence, "for a person"))
    assert "is halted" in why(file.store, successor.task_id).summary
    file.do(Resume("one"))
    assert [one.uid for one in file.claim(agent)] == ["one"]


def test_a_successor_that_is_cancelled_leaves_nothing_behind(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    [held] = file.claim(agent)
    debounced(file, "two")
    file.do(Cancel("two"))
    assert file.query("select * from outlast_successor") == file.query("select * from outlast_debounce") == []
    file.end(held.fence, simple=True)
    assert file.claim(agent) == []


def test_a_paused_successor_stays_paused_when_it_may_go(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    [held] = file.claim(agent)
    start(file, "two")
    file.do(Pause("two"))
    file.end(held.fence, simple=True)
    assert file.claim(agent) == []
    file.do(Resume("two"))
    assert [one.uid for one in file.claim(agent)] == ["two"]


def test_other_keys_and_other_workflows_do_not_wait(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    file.claim(agent)
    start(file, "other", unique_key="other")
    file.do(Start("c", "run", "c", "workflow:c", "default", b"{}", unique_key="k", if_exists="replace"))
    assert {one.uid for one in file.claim(agent)} == {"other", "c"}


def test_fail_and_return_look_at_the_newest(file: Driver) -> None:
    agent = file.agent()
    first = start(file, "one")
    assert start(file, "again", if_exists="return") == Started(first.task_id, "one", False)
    file.claim(agent)
    second = start(file, "two")
    assert start(file, "again", if_exists="return") == Started(second.task_id, "two", False)
    with pytest.raises(Conflict, match="two .* with unique key 'k' is pending"):
        start(file, "again", if_exists="fail")


def test_the_last_call_within_the_window_wins(file: Driver) -> None:
    agent = file.agent()
    first = debounced(file, "one", given=b"1")
    for number in (2, 3):
        file.clock.advance(4)
        assert debounced(file, f"call{number}", given=b"%d" % number, priority=number) == Started(first.task_id, "one", False)
    assert seconds_left(file, first.task_id) == 5
    file.clock.advance(4.999)
    assert file.claim(agent) == []
    file.clock.advance(0.001)
    [one] = file.claim(agent)
    assert (one.uid, one.input, one.priority) == ("one", b"3", 3)
    assert len(file.query("select 1 from outlast_task")) == 1


def test_no_run_is_put_off_for_longer_than_the_cap(file: Driver) -> None:
    agent = file.agent()
    first = debounced(file, "one", most=12)
    for _ in range(3):
        file.clock.advance(4)
        debounced(file, "again", most=12, given=b"last")
    assert seconds_left(file, first.task_id) == 0
    [one] = file.claim(agent)
    assert one.input == b"last"


def test_a_call_while_the_run_is_under_way_makes_one_more_run_after_it(file: Driver) -> None:
    agent = file.agent()
    debounced(file, "one")
    file.clock.advance(5)
    [held] = file.claim(agent)
    second = debounced(file, "two", given=b"2")
    assert second.created
    file.clock.advance(3)
    assert debounced(file, "three", given=b"3") == Started(second.task_id, "two", False)
    file.clock.advance(1)
    file.end(held.fence, simple=True)
    assert seconds_left(file, second.task_id) == 4
    file.clock.advance(4)
    assert [(one.uid, one.input) for one in file.claim(agent)] == [("two", b"3")]


def test_a_later_calls_key_leads_to_the_run_that_it_became_part_of(file: Driver) -> None:
    first = debounced(file, "one", key="a")
    debounced(file, "two", key="b")
    assert start(file, "x", key="b", unique_key=None, if_exists="return") == Started(first.task_id, "one", False)


def test_the_wall_clock_neither_shortens_nor_lengthens_a_window(file: Driver) -> None:
    first = debounced(file, "one")
    file.clock.jump(-3600)
    debounced(file, "two")
    assert seconds_left(file, first.task_id) == 5


def test_there_is_never_more_than_one_started_and_one_pending(file: Driver) -> None:
    agents = [file.agent(), file.agent()]
    held: list[Fence] = []
    for number in range(200):
        match number % 7:
            case 0 | 3:
                start(file, f"r{number}")
            case 1 | 5:
                debounced(file, f"r{number}", 0.5)
            case 2:
                start(file, f"r{number}", if_exists="return")
            case 4:
                held += [one.fence for one in file.claim(agents[number % 2])]
            case _:
                if held:
                    file.end(held.pop(), simple=True)
        file.clock.advance(0.11)
        [(started, pending)] = file.query(
            "select count(started_at), count(*) - count(started_at) from outlast_task where finished_at is null"
        )
        assert (started <= 1, pending <= 1) == (True, True), number


def test_the_doctor_finds_a_held_back_run_in_order_and_a_lost_one_broken(file: Driver) -> None:
    agent = file.agent()
    start(file, "one")
    file.claim(agent)
    start(file, "two")
    named = {finding.name: finding for finding in examine(file.store)}
    assert named["wakeups"].ok
    assert named["successors"].ok
    file.store.connection().execute("update outlast_successor set after_id = 4711")
    assert not {finding.name: finding for finding in examine(file.store)}["successors"].ok

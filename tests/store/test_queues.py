"""Limits of queues: held across agents, given back by the dead, exact in time; partitions take turns; nobody deadlocks."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import CODE, Driver, driver

from outlast import clock
from outlast.errors import QueueNotFound
from outlast.operations import Again, Cancel, Claim, GiveBack, Park, Start, StartPart
from outlast.operations.claimed import Claimed, Fence
from outlast.operations.queues import DeclareQueues, PauseQueue, QueueLimits, ResumeQueue, SetQueue
from outlast.store import claiming, contended, queues
from outlast.store.next_due import next_due_at
from outlast.store.sqlite import SqliteStore
from outlast.store.transaction import Transaction

from driving import entry  # isort: skip


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "queues.db") as made:
        yield made


def limit(file: Driver, name: str = "q", **limits: Any) -> None:
    file.do(SetQueue(name, **limits))


def starts(file: Driver, count: int, **facts: Any) -> list[int]:
    first = len(file.query("select 1 from outlast_task"))
    return [file.start(f"r{first + i}", queue=facts.get("queue", "q"), **{k: v for k, v in facts.items() if k != "queue"})
            for i in range(count)]  # fmt: skip


def part(file: Driver, fence: Fence, path: str, *, queue: str, seq: int = 1, kind: str = "step") -> int:
    """Submit a step (or start a child) of a claimed run, in a queue."""
    name, needs = ("s", "step:s") if kind == "step" else ("c", "workflow:c")
    begun = entry(seq, path, "started", "task" if kind == "step" else "child", name, input=b"{}")
    uid = f"{fence.task_id}-{path}"
    start = Start(uid, kind, name, needs, queue, b"{}", parent_id=fence.task_id, parent_path=path)
    return file.do(StartPart(fence, begun, start)).task_id


def ids(taken: list[Claimed]) -> list[int]:
    return [one.fence.task_id for one in taken]


def next_due(file: Driver) -> int | None:
    return next_due_at(file.store.connection(), CODE, None, now=file.store.now())


def seconds_until_due(file: Driver) -> float | None:
    due_at = next_due(file)
    return None if due_at is None else (due_at - file.store.now()) / clock.SECOND


def test_concurrency_holds_over_all_agents(file: Driver) -> None:
    limit(file, concurrency=3)
    starts(file, 10)
    one, two = file.agent(), file.agent()
    taken = file.claim(one, 2) + file.claim(two, 8)
    assert len(taken) == 3
    assert file.claim(one) == file.claim(two) == []
    file.end(taken[0].fence, simple=True)
    assert len(file.claim(two)) == 1


def test_other_queues_do_not_wait_for_a_full_one(file: Driver) -> None:
    limit(file, concurrency=1)
    starts(file, 5)
    other = file.start("other")
    agent = file.agent()
    assert set(ids(file.claim(agent))) == {1, other}


def test_a_dead_agents_place_comes_back_with_its_lease(file: Driver) -> None:
    limit(file, concurrency=1)
    starts(file, 2)
    dead, alive = file.agent(), file.agent()
    assert len(file.claim(dead)) == 1
    assert file.claim(alive) == []
    file.crash(dead, status="lost", seen_dead=False)
    assert len(file.claim(alive)) == 1
    assert file.claim(alive) == []


def test_every_way_off_an_agent_frees_its_place(file: Driver) -> None:
    limit(file, concurrency=1)
    starts(file, 5)
    agent = file.agent()

    def taken() -> Fence:
        [one] = file.claim(agent)
        assert file.claim(agent) == []
        return one.fence

    file.end(taken(), simple=True)
    file.end(taken())
    file.do(Park(taken(), None, signals=("go",)))
    file.do(GiveBack(taken(), due_at=file.store.now() + 3600 * clock.SECOND))
    uid = file.row(taken().task_id, "uid")[0]
    file.do(Cancel(uid))
    assert file.claim(agent) == []  # Its agent has yet to let it go.


def test_a_task_claimed_before_its_queue_had_limits_counts_once_it_has(file: Driver) -> None:
    starts(file, 5)
    agent = file.agent()
    held = file.claim(agent, 2)
    limit(file, concurrency=2)
    assert file.claim(agent) == []
    file.end(held[0].fence, simple=True)
    assert len(file.claim(agent)) == 1


def test_lowering_a_limit_takes_nothing_away_and_raising_it_lets_go_on(file: Driver) -> None:
    limit(file, concurrency=4)
    starts(file, 10)
    agent = file.agent()
    held = file.claim(agent)
    limit(file, concurrency=2)
    for one in held[:2]:
        file.end(one.fence, simple=True)
    assert file.claim(agent) == []
    file.end(held[2].fence, simple=True)
    assert len(file.claim(agent)) == 1
    limit(file, concurrency=None)
    assert len(file.claim(agent)) == 5


def test_an_agent_of_one_run_keeps_to_the_limits_too(file: Driver) -> None:
    limit(file, concurrency=1)
    first, second = starts(file, 2)
    assert ids(file.claim(file.agent(), root_id=first)) == [first]
    assert file.claim(file.agent(), root_id=second) == []


@pytest.mark.parametrize("hold", ["running", "unfinished"])
def test_a_parent_that_waits_for_its_own_queue_does_not_wait_for_ever(file: Driver, hold: str) -> None:
    limit(file, concurrency=1, hold=hold)
    starts(file, 1)
    agent = file.agent()
    [parent] = file.claim(agent)
    assert parent.has_place
    step = part(file, parent.fence, "1", queue="q")
    starts(file, 20)
    assert file.claim(agent) == []
    file.do(Park(parent.fence, None, parts=(step,), wait_for_all=True))
    if hold == "running":
        # The place is free for whoever is longest due; the step is the first.
        assert ids(file.claim(agent)) == [step]
    else:
        assert ids(file.claim(agent)) == [step]
        assert file.claim(agent) == []
    [held] = file.query("select claim from outlast_task where id = ?", step)
    file.end(Fence(step, held[0]), simple=True)
    file.claim(agent, 1) if hold == "running" else None
    if hold == "unfinished":
        assert ids(file.claim(agent)) == [parent.fence.task_id]


def test_a_kept_place_is_used_by_one_task_at_a_time_however_deep(file: Driver) -> None:
    limit(file, concurrency=1, hold="unfinished")
    starts(file, 3)
    agent = file.agent()
    [root] = file.claim(agent)
    child = part(file, root.fence, "1", kind="run", queue="q")
    steps = [part(file, root.fence, str(n), seq=n, queue="q") for n in (2, 3)]
    assert file.claim(agent) == []
    file.do(Park(root.fence, None, parts=(child, *steps), wait_for_all=True))
    [taken] = file.claim(agent)
    assert taken.fence.task_id == child
    grandchild = part(file, taken.fence, "1", kind="run", queue="elsewhere")
    file.do(Park(taken.fence, None, parts=(grandchild,)))
    [elsewhere, one] = sorted(file.claim(agent), key=lambda found: found.queue)
    assert elsewhere.fence.task_id == grandchild
    assert one.fence.task_id == steps[0]
    # Through another queue and back: the place of the run at the top is still the one to use.
    back = part(file, elsewhere.fence, "1", queue="q")
    file.do(Park(elsewhere.fence, None, parts=(back,)))
    assert file.claim(agent) == []
    file.end(one.fence, simple=True)
    assert len(file.claim(agent)) == 1
    assert file.query("select count(distinct slot) from outlast_task where queue = 'q' and slot is not null") == [(1,)]


def test_a_place_that_is_kept_is_free_when_the_run_has_ended(file: Driver) -> None:
    limit(file, concurrency=1, hold="unfinished")
    starts(file, 2)
    agent = file.agent()
    [one] = file.claim(agent)
    file.do(Park(one.fence, file.store.now() + clock.SECOND))
    assert file.claim(agent) == []
    file.clock.advance(1)
    [again] = file.claim(agent)
    assert again.fence.task_id == one.fence.task_id
    file.end(again.fence, simple=True)
    assert len(file.claim(agent)) == 1


def test_the_tasks_of_a_run_with_a_place_do_not_hide_others_that_could_start(file: Driver) -> None:
    limit(file, concurrency=2, hold="unfinished")
    starts(file, 1)
    agent = file.agent()
    [busy] = file.claim(agent)
    for n in range(1, 30):
        part(file, busy.fence, str(n), seq=n, queue="q")
    [late] = starts(file, 1)
    assert ids(file.claim(agent, 4)) == [late]


def test_children_that_outlive_their_parent_find_a_place(file: Driver) -> None:
    limit(file, concurrency=1, hold="unfinished")
    starts(file, 2)
    agent = file.agent()
    [parent] = file.claim(agent)
    children = [part(file, parent.fence, str(n), seq=n, kind="run", queue="q") for n in (1, 2)]
    file.end(parent.fence)
    [first] = file.claim(agent)
    assert first.fence.task_id == 2  # Nothing of the parent's had begun: its place went with it.
    file.end(first.fence, simple=True)
    for child in children:
        [taken] = file.claim(agent)
        assert taken.fence.task_id == child
        file.end(taken.fence, simple=True)


def test_a_rate_is_a_sliding_window_to_the_microsecond(file: Driver) -> None:
    limit(file, rate="3/10s")
    starts(file, 20)
    agent = file.agent()
    began, taken = file.store.now(), []

    def claim(limit: int) -> None:
        taken.extend([(file.store.now() - began) / clock.SECOND] * len(file.claim(agent, limit)))

    claim(2)
    file.clock.advance(4)
    while len(taken) < 12:
        claim(100)
        wait = seconds_until_due(file)
        assert wait is not None
        file.clock.advance(wait - 1e-6)
        assert file.claim(agent) == []
        file.clock.advance(1e-6)
    assert taken == [0, 0, 4, 10, 10, 14, 20, 20, 24, 30, 30, 34]


def test_no_window_of_a_rate_ever_holds_more_starts_than_it_says(file: Driver) -> None:
    limit(file, rate="5/1s")
    starts(file, 60)
    agent = file.agent()
    instants: list[int] = []
    for number in range(200):
        instants += [file.store.now()] * len(file.claim(agent, 1 + number % 4))
        file.clock.advance(0.07)
    assert len(instants) == 60
    assert all(later - instant >= clock.SECOND for instant, later in zip(instants, instants[5:], strict=False))
    assert len(file.query("select 1 from outlast_queue_start")) <= 5


def test_a_rate_survives_a_restart_and_another_agent(file: Driver, tmp_path: Path) -> None:
    limit(file, rate="2/1m")
    starts(file, 5)
    assert len(file.claim(file.agent())) == 2
    file.store.close()
    file.store = SqliteStore(tmp_path / "queues.db")
    other = file.agent()
    assert file.claim(other) == []
    file.clock.advance(59.9)
    assert file.claim(other) == []
    file.clock.jump(3600)
    assert file.claim(other) == []
    file.clock.advance(0.1)
    assert len(file.claim(other)) == 2


def test_a_rate_counts_starts_and_no_wakeups(file: Driver) -> None:
    limit(file, rate="1/1h")
    starts(file, 10)
    agent = file.agent()
    [one] = file.claim(agent)
    file.do(Park(one.fence, file.store.now() + 5 * clock.SECOND))
    assert seconds_until_due(file) == 5
    file.clock.advance(5)
    [again] = file.claim(agent)
    assert again.fence.task_id == one.fence.task_id
    file.do(GiveBack(again.fence))
    assert ids(file.claim(agent)) == [one.fence.task_id]
    assert seconds_until_due(file) == 3595


def test_a_retry_of_a_submitted_step_is_no_start(file: Driver) -> None:
    limit(file, rate="1/1h")
    agent = file.agent()
    run = file.claimed(agent)
    step = part(file, run, "1", queue="q")
    [taken] = file.claim(agent)
    file.do(Again(taken.fence, entry(1, "", "tried", try_number=1), 1))
    file.clock.advance(1)
    assert ids(file.claim(agent)) == [step]


def test_partitions_take_turns_whatever_each_has_waiting(file: Driver) -> None:
    starts(file, 50, partition="a")
    starts(file, 2, partition="b")
    starts(file, 3)
    agent = file.agent()
    order = [one.partition for _ in range(9) for one in file.claim(agent, 1)]
    assert order == ["a", "b", None, "a", "b", None, "a", None, "a"]


def test_turns_go_on_where_they_stood_when_many_are_taken_at_once(file: Driver) -> None:
    for name in "abcde":
        starts(file, 10, partition=name)
    agent = file.agent()
    order = [[one.partition for one in file.claim(agent, 3)] for _ in range(5)]
    assert order == [list("abc"), list("dea"), list("bcd"), list("eab"), list("cde")]
    assert Counter(one.partition for one in file.claim(agent, 20)) == dict.fromkeys("abcde", 4)


def test_one_tenants_ten_thousand_do_not_hold_up_anothers_one(file: Driver) -> None:
    for number in range(10_000):
        file.store.submit(Start(f"big{number}", "run", "w", "workflow:w", "q", b"{}", partition="big"))
    file.start("small", queue="q", partition="small")
    agent = file.agent()
    assert "small" in [one.uid for one in file.claim(agent, 2)]


def test_per_partition_limits_each_and_none_counts_as_one(file: Driver) -> None:
    limit(file, per_partition=2)
    for partition in ("a", "b", None):
        starts(file, 5, partition=partition)
    agent = file.agent()
    taken = file.claim(agent)
    assert Counter(one.partition for one in taken) == {"a": 2, "b": 2, None: 2}
    assert file.claim(agent) == []
    file.end(next(one.fence for one in taken if one.partition == "b"), simple=True)
    assert [one.partition for one in file.claim(agent)] == ["b"]


def test_both_limits_hold_together(file: Driver) -> None:
    limit(file, concurrency=3, per_partition=2)
    starts(file, 5, partition="a")
    starts(file, 5, partition="b")
    agent = file.agent()
    taken = [one for _ in range(10) for one in file.claim(agent, 1)]
    assert sorted(str(one.partition) for one in taken) == ["a", "a", "b"]


def test_what_waits_in_full_partitions_costs_a_vain_claim_nothing(file: Driver) -> None:
    limit(file, per_partition=1)
    agent, other, steps = file.agent(), file.agent(), [0, 0]
    for partition in "abc":
        starts(file, 1, partition=partition)
    assert len(file.claim(other)) == 3

    def tick() -> int:
        steps[-1] += 1
        return 0

    connection = file.store.connection()
    for number, count in enumerate((3, 3_000)):
        with file.store.transaction():
            connection.executemany(
                """
                insert into outlast_task (uid, kind, name, queue, partition, status, needs, due_at, created_at)
                values (?, 'run', 'w', 'q', ?, 'pending', 'workflow:w', 1, 1)
                """,
                [(f"{number} {i}", "abc"[i % 3]) for i in range(count)],
            )
        steps.append(0)
        connection.set_progress_handler(tick, 1)
        assert file.claim(agent) == []
        connection.set_progress_handler(None, 0)
    assert steps[-1] <= steps[-2] * 1.2


def test_a_claim_that_takes_nothing_writes_nothing_however_early_its_walk_stops(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.store.turns._MOST_VISITED", 5)
    limit(file, per_partition=1)
    agent = file.agent()
    for number in range(20):
        starts(file, 2, partition=f"p{number:02}")
    assert len(file.claim(agent)) == 20
    turn = file.query("select * from outlast_turn")
    # Each write has the other agents look again, and each of them would write.
    assert file.claim(agent) == []
    assert file.query("select * from outlast_turn") == turn


def test_a_walk_past_thousands_of_sleeping_partitions_still_finds_what_is_due(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlast.store.turns._MOST_VISITED", 5)
    for number in range(40):
        starts(file, 1, partition=f"p{number:02}", delay=3600 * clock.SECOND)
    starts(file, 4, partition="p17")
    starts(file, 4, partition="p33")
    agent = file.agent()
    order = [one.partition for _ in range(8) for one in file.claim(agent, 1)]
    assert sorted(map(str, order)) == ["p17"] * 4 + ["p33"] * 4
    assert file.claim(agent) == []


def test_a_higher_priority_goes_before_another_partitions_turn(file: Driver) -> None:
    starts(file, 2, partition="a")
    starts(file, 2, partition="b", priority=5)
    agent = file.agent()
    assert [one.partition for _ in range(4) for one in file.claim(agent, 1)] == ["b", "b", "a", "a"]


def test_every_eighth_task_is_the_longest_due_whatever_its_priority(file: Driver) -> None:
    starts(file, 3, queue="default")
    file.clock.advance(1)
    starts(file, 40, queue="default", priority=9)
    agent, taken = file.agent(), []
    while len(taken) < 24:
        taken += file.claim(agent, 3, taken=len(taken))
    assert [number for number, one in enumerate(taken, 1) if one.priority == 0] == [8, 16, 24]


def test_nothing_is_claimed_from_a_paused_queue(file: Driver) -> None:
    limit(file)
    starts(file, 2)
    starts(file, 1, partition="a")
    assert file.do(PauseQueue("q")) is True
    assert file.do(PauseQueue("q")) is False
    agent = file.agent()
    assert file.claim(agent) == []
    assert next_due(file) is None
    assert file.do(ResumeQueue("q")) is True
    assert len(file.claim(agent)) == 3
    assert file.do(ResumeQueue("q")) is False


def test_a_suspect_in_a_paused_queue_does_not_keep_an_agent_from_other_work(file: Driver) -> None:
    limit(file)
    starts(file, 1)
    dead = file.agent()
    file.claim(dead)
    file.crash(dead)
    look = (file.store.connection(), CODE, None)
    assert claiming.has_suspects(*look, now=file.store.now())
    file.do(PauseQueue("q"))
    assert not claiming.has_suspects(*look, now=file.store.now())
    file.do(ResumeQueue("q"))
    assert ids(file.claim(file.agent(), alone=True, suspects=True)) == [1]


def test_what_was_set_at_run_time_wins_over_code_until_it_is_reset(file: Driver) -> None:
    def in_force() -> tuple[Any, ...]:
        found = queues.known(file.store.connection())["emails"]
        return found.concurrency, found.rate, found.per_partition, found.hold

    file.do(DeclareQueues((QueueLimits("emails", concurrency=10, rate="100/1m"),)))
    assert in_force() == (10, "100/1m", None, "running")
    limit(file, "emails", concurrency=2, rate=None)
    assert in_force() == (2, None, None, "running")
    file.do(DeclareQueues((QueueLimits("emails", concurrency=20, per_partition=3),)))
    assert in_force() == (2, None, 3, "running")
    limit(file, "emails", reset=True)
    assert in_force() == (20, None, 3, "running")


def test_a_declaration_that_changes_nothing_writes_nothing(file: Driver) -> None:
    declared = DeclareQueues((QueueLimits("default"), QueueLimits("emails", concurrency=1)))
    file.do(declared)
    before = file.query("select * from outlast_queue")
    file.clock.advance(5)
    file.do(declared)
    assert file.query("select * from outlast_queue") == before
    assert [row[0] for row in before] == ["emails"]


def test_a_queue_that_nobody_knows_is_named(file: Driver) -> None:
    limit(file, "emails")
    for operation in (PauseQueue("email"), ResumeQueue("email"), SetQueue("email", reset=True)):
        with pytest.raises(QueueNotFound, match=r"no queue 'email'.*emails"):
            file.do(operation)
    file.do(PauseQueue("default"))
    assert file.query("select name from outlast_queue order by name") == [("default",), ("emails",)]


def test_limits_hold_under_threads_that_claim_and_end_at_once(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "threads.db", create=True)
    file = Driver.__new__(Driver)
    file.store, file.number = store, 0
    limit(file, concurrency=4, per_partition=2)
    for number in range(120):
        file.start(f"r{number}", queue="q", partition=f"p{number % 3}")
    agents = [file.agent() for _ in range(6)]
    running: Counter[str] = Counter()
    guard, worst, done = threading.Lock(), [0, 0], []

    def work(agent: int) -> None:
        while len(done) < 120:
            for one in file.claim(agent, 3):
                with guard:
                    running[str(one.partition)] += 1
                    worst[0] = max(worst[0], sum(running.values()))
                    worst[1] = max(worst[1], *running.values())
                with guard:
                    running[str(one.partition)] -= 1
                file.end(one.fence, simple=True)
                done.append(one.uid)

    threads = [threading.Thread(target=work, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    store.close()
    assert len(set(done)) == 120
    assert worst[0] <= 4
    assert worst[1] <= 2


def _plans(file: Driver, work: Any) -> list[tuple[str, str]]:
    """The plan of each statement about tasks that a piece of work executes."""
    connection = file.store.connection()
    seen: list[str] = []
    connection.set_trace_callback(lambda text: seen.append(text))
    try:
        work()
    finally:
        connection.set_trace_callback(None)
    plans = []
    for statement in set(seen):
        if "outlast_task" in statement and statement.lstrip().startswith(("select", "with", "update")):
            plans += [(statement, row[3]) for row in connection.execute(f"explain query plan {statement}")]
    assert plans
    return plans


@pytest.mark.parametrize("hold", ["running", "unfinished"])
def test_no_claim_scans_the_tasks_or_sorts_them(file: Driver, hold: str) -> None:
    limit(file, concurrency=500, rate="500/1h", per_partition=2, hold=hold)
    limit(file, "rated", rate="1/1h")
    agent = file.agent()
    for partition in ("a", "b", None):
        starts(file, 5, partition=partition)
        starts(file, 5, queue="plain", partition=partition)
        starts(file, 5, queue="rated", partition=partition)
    for one in file.claim(agent, 5):
        part(file, one.fence, "1", queue=one.queue)
        file.do(Park(one.fence, file.store.now() + 1))
    file.clock.advance(1)

    def work() -> None:
        file.claim(agent, 2)
        file.claim(agent, 40, suspects=True)
        file.claim(agent, 40)
        look = (file.store.connection(), CODE, None)
        next_due_at(*look, now=file.store.now())
        claiming.has_suspects(*look, now=file.store.now())

    for statement, step in _plans(file, work):
        assert not re.match(r"SCAN (outlast_task|t|h|above|kept)\b", step), (step, statement)
        assert "TEMP B-TREE" not in step, (step, statement)


@pytest.mark.parametrize("seed", range(20))
def test_few_waiting_tasks_read_at_once_are_those_that_the_walk_finds(file: Driver, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    limit(file, "limited", concurrency=2)
    limit(file, "free")
    agent_id = file.agent()
    for number in range(14):
        needs = chance.choice(["workflow:w", "workflow:c", "workflow:nobody"])
        file.start(
            f"r{number}", name=needs.partition(":")[2], needs=needs, queue=chance.choice(["default", "limited", "free"]),
            priority=chance.choice([0, 5]), delay=chance.choice([0, 0, clock.SECOND]),
            partition=chance.choice([None] * 12 + ["tenant"]),
        )  # fmt: skip
    with file.store.transaction() as connection:
        connection.execute("update outlast_task set suspect = 1 where id % 3 = 0")
    operation = Claim(agent_id, 8, CODE, queues=chance.choice([None, ("default",), ("limited", "free")]))

    def found() -> Any:
        with file.store.transaction() as connection:
            transaction = Transaction(connection, now=file.store.now(), wall=clock.wall())
            few = connection.execute(claiming._SITUATION, {"id": agent_id, "now": transaction.now}).fetchone()[3]
            contention = contended.Contention(connection, now=transaction.now)
            return claiming._found(transaction, operation, contention, few, are_partitioned=True)

    at_once = found()
    monkeypatch.setattr(claiming, "_MOST_OF_FEW", -1)
    assert [one[:5] for one in at_once] == [one[:5] for one in found()]

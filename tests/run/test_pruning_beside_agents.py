"""Pruning while agents work: nobody is held up, and nobody misses anything."""

from __future__ import annotations

import threading

from run_bench import eventually

import outlast
from outlast import step, workflow
from outlast.definition import registry
from outlast.doctor import examine
from outlast.errors import RunNotFound
from outlast.supervisor.retention import KEPT_FOR_A_TIME, Walk

with registry.isolated() as defined:

    @step
    def double(number: int) -> int:
        return number * 2

    @workflow
    def leaf(number: int) -> int:
        return double(number)

    @workflow
    def tree(number: int) -> int:
        parts = [leaf.start(number + i) for i in range(3)]
        outlast.sleep(0.02)
        return sum(part.result() for part in parts) + sum(outlast.gather(*[double.submit(i) for i in range(3)]))

    @workflow
    def holds(number: int) -> int:
        child = leaf.start(number)
        total = child.result() + double(number)
        return total + int(str(outlast.wait_signal("go")))

    @workflow
    def counts(number: int) -> int:
        double(number)
        if number < 3:
            outlast.continue_as_new(number + 1)
        return number


def test_agents_and_a_pruner_do_not_disturb_each_other(bench):
    bench.agent(park_after_seconds=0.0)
    stopping = threading.Event()
    pruned = [0]

    def prune() -> None:
        while not stopping.is_set():
            walk = Walk(bench.store, kept_seconds=0.0, statuses=KEPT_FOR_A_TIME)
            while walk.step():
                pass
            pruned[0] += walk.runs

    pruner = threading.Thread(target=prune)
    pruner.start()
    try:
        # Each is held by a parent, whose result says that none of its children was missed.
        runs = [bench.start(tree if number % 2 else counts, 1 if number % 2 == 0 else number) for number in range(40)]
        for number, run in enumerate(runs):
            try:
                assert run.result(timeout=60) == (3 if number % 2 == 0 else 6 * number + 6 + 6)
            except RunNotFound:
                pass  # It had completed, and was pruned before we came to look.
    finally:
        stopping.set()
        pruner.join()
    walk = Walk(bench.store, kept_seconds=0.0, statuses=KEPT_FOR_A_TIME)
    while walk.step():
        pass
    assert pruned[0] + walk.runs == 20 * 4 + 20 * 3
    assert bench.engine.runs() == []
    assert [finding.name for finding in examine(bench.store) if not finding.ok] == []


def test_a_run_whose_children_were_pruned_comes_back_by_replay(bench):
    bench.agent(park_after_seconds=0.0)
    run = bench.start(holds, 1)
    eventually(lambda: bench.status(run) == "waiting" and bench.field(run, "awaits"))
    walk = Walk(bench.store, kept_seconds=0.0, statuses=KEPT_FOR_A_TIME)
    while walk.step():
        pass
    assert walk.runs == 1
    assert run.children() == []
    bench.kill()
    bench.agent()
    run.signal("go", 5)
    assert run.result(timeout=20) == 2 + 2 + 5

"""The undo of runs that were retried, and of children that a key has led to: whose step it is, and under which key it is undone."""

from __future__ import annotations

import pytest
from run_bench import Gate, effects

import outlast
from outlast import current, step, workflow
from outlast.definition import registry
from outlast.errors import RunCancelled, RunHalted
from outlast.operations.retention import Prune

gate = Gate()
world: dict[str, int] = {}


class Broken(Exception):
    pass


def broken(what: str) -> bool:
    """Whether something is to fail once more."""
    world[what] = world.get(what, 0) - 1
    return world[what] >= 0


with registry.isolated() as defined:

    @step
    def charge(order: str) -> str:
        effects.append(("charge", current().idempotency_key))
        if broken("charge"):
            raise Broken("charge")
        return f"paid {order}"

    @charge.compensation
    def refund(payment: str | None, order: str) -> None:
        effects.append(("refund", current().idempotency_key))
        if broken("refund"):
            raise Broken("refund")

    @step
    def deliver() -> str:
        if broken("deliver"):
            raise Broken("deliver")
        return "delivered"

    @step
    def lend(order: str) -> str:
        effects.append(("lend", current().idempotency_key))
        if world.get("cut off"):
            gate.pass_through()
        return "lent"

    @lend.probe
    def find_loan(order: str) -> object:
        effects.append(("find", current().idempotency_key))
        return "lent"

    @lend.compensation
    def take_back(loan: str | None, order: str) -> None:
        effects.append(("take back", loan))

    @workflow
    def lends() -> str:
        lend("o-1")
        return deliver()

    @workflow
    def orders() -> str:
        charge("o-1")
        return deliver()

    @step
    def create(name: str) -> None:
        effects.append(("create", name))

    @workflow
    def customer(name: str) -> str:
        create(name)
        if name == "waits":
            outlast.wait_signal("go")
        return name

    @customer.compensation
    def uncustomer(result: str | None, name: str) -> None:
        effects.append(("delete", name))

    @workflow
    def orders_of(name: str) -> str:
        child = customer.options(key=name).start(name)
        if name != "waits":
            child.result()
        return deliver()

    @workflow
    def orders_once_of(name: str) -> str:
        customer.options(unique_key=name).start(name)
        return deliver()


@pytest.fixture(autouse=True)
def nothing_is_broken():
    world.clear()


def keys(what: str) -> list[str]:
    return [effect[1] for effect in effects if effect[0] == what]


def retried(bench, run, times: int):
    for _ in range(times):
        bench.wait_for(run, "compensated", "failed", "cancelled")
        run = run.retry()
    return run


def test_each_run_of_a_chain_undoes_its_own_step_under_a_key_of_its_own(bench):
    world["deliver"] = 3
    bench.agent()
    run = retried(bench, bench.start(orders), 3)
    assert run.result(timeout=20) == "delivered"
    assert len(set(keys("charge"))) == 4
    assert len(keys("refund")) == len(set(keys("refund"))) == 3


def test_a_step_that_had_failed_and_was_undone_is_undone_anew_under_another_key(bench):
    world.update(charge=1, deliver=1)
    bench.agent()
    run = retried(bench, bench.start(orders), 2)
    assert run.result(timeout=20) == "delivered"
    assert len(keys("refund")) == len(set(keys("refund"))) == 2


def test_what_a_retry_inherited_is_undone_under_the_key_of_the_undo_that_gave_up(bench):
    world.update(deliver=2, refund=1)
    bench.agent()
    run = bench.start(orders)
    with pytest.raises(RunHalted):
        run.result(timeout=20)
    run.cancel(undo=False)
    with pytest.raises(RunCancelled):
        run.result(timeout=20)
    with pytest.raises(Broken, match="deliver"):
        run.retry().result(timeout=20)
    assert len(keys("charge")) == 1
    assert len(keys("refund")) == 2
    assert len(set(keys("refund"))) == 1


def test_a_run_that_was_pruned_leaves_its_undo_key_to_no_other(bench):
    world["deliver"] = 3
    bench.agent()
    first = bench.start(orders)
    second = retried(bench, first, 1)
    bench.wait_for(second, "compensated")
    assert bench.store.commit(Prune((bench.task_id(first),))).runs == 1
    third = second.retry()
    bench.wait_for(third, "compensated")
    assert len(keys("refund")) == len(set(keys("refund"))) == 3


@pytest.mark.parametrize("flow", [orders_of, orders_once_of])
def test_a_run_that_a_key_led_to_is_neither_cancelled_nor_undone_by_who_did_not_start_it(bench, flow):
    bench.agent()
    options = {"key": "waits"} if flow is orders_of else {"unique_key": "waits"}
    somebody_elses = bench.start(customer.options(**options), "waits")
    bench.wait_for(somebody_elses, "waiting")
    world["deliver"] = 1
    with pytest.raises(Broken):
        bench.run(flow, "waits")
    assert bench.status(somebody_elses) == "waiting"
    somebody_elses.signal("go")
    assert somebody_elses.result(timeout=20) == "waits"
    assert effects == [("create", "waits")]


def test_a_child_that_was_undone_runs_again_although_it_has_a_key(bench):
    world["deliver"] = 2
    bench.agent()
    run = retried(bench, bench.start(orders_of, "a"), 2)
    assert run.result(timeout=20) == "delivered"
    assert effects == [("create", "a"), ("delete", "a")] * 2 + [("create", "a")]
    assert len(bench.engine.runs(workflow=customer)) == 3
    assert bench.engine.get(customer, key="a") == run.children()[0]


def test_the_probe_before_an_undo_has_the_key_of_the_retrys_own_step(bench):
    world["deliver"] = 1
    bench.agent()
    run = bench.start(lends)
    bench.wait_for(run, "compensated")
    world["cut off"] = 1
    again = run.retry()
    gate.wait_until_reached()
    bench.kill()
    again.cancel()
    gate.open()
    bench.agent()
    with pytest.raises(RunCancelled):
        again.result(timeout=20)
    assert keys("take back") == ["lent", "lent"]
    assert keys("find") == [keys("lend")[1]] != [keys("lend")[0]]

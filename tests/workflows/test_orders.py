"""Orders: what is charged, taken and undone, in one process and under agents that are killed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from shell import Shell, eventually

from outlast import Engine, SignalTimeout, sqlite3
from outlast.handles import Run

BIG = Decimal(250)
SMALL = Decimal("49.90")


class Shop:
    """An engine with an agent, the bank's ledger and the shelf."""

    def __init__(self, engine: Engine, ledger: Path, module: ModuleType) -> None:
        self.engine = engine
        self.module = module
        self.ledger = ledger

    def start(self, amount: Decimal, *items: tuple[str, int], **more: str) -> Run[Any]:
        """Start the order o-1, of one lamp where no items are given."""
        ordered = [self.module.Item(sku, count) for sku, count in items or [("lamp", 1)]]
        return self.engine.start(self.module.order, "o-1", amount, ordered, **more)

    def payments(self) -> list[tuple[str, str]]:
        return payments(self.ledger)

    def stock(self) -> int:
        return stock(Path(self.engine.path), "lamp")

    def undone(self, run: Run[Any]) -> list[str]:
        """The steps that were undone, in the order of their undoing."""
        return [step["name"] for step in run.steps() if step["kind"] == "compensation"]


def payments(ledger: Path) -> list[tuple[str, str]]:
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [(line["order"], line["what"]) for line in map(json.loads, lines)]


def stock(database: Path, sku: str) -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute("select count from stock where sku = ?", (sku,)).fetchone()[0])
    finally:
        connection.close()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workflow_module: Callable[[str], ModuleType]) -> Iterator[Shop]:
    orders = workflow_module("orders")
    ledger = tmp_path / "bank.jsonl"
    monkeypatch.setenv("BANK_LEDGER", str(ledger))
    with Engine(tmp_path / "shop.db") as engine, engine.agent():
        assert engine.start(orders.restock, "lamp", 5).result(timeout=20) == 5
        yield Shop(engine, ledger, orders)


def test_a_small_order_is_charged_taken_and_handed_over(shop: Shop) -> None:
    receipt = shop.start(SMALL).result(timeout=20)

    assert receipt == shop.module.Receipt("o-1", "charge-1", 1, None)
    assert shop.payments() == [("o-1", "charge")]
    assert shop.stock() == 4


def test_a_big_order_waits_for_the_approval_of_a_person(shop: Shop) -> None:
    run = shop.start(BIG)
    eventually(lambda: run.status == "waiting")
    assert run.query("state") == "waits for an approval"

    run.signal("approval", {"by": "eve"})

    assert run.result(timeout=20).approved_by == "eve"
    assert shop.stock() == 4


def test_a_refused_order_is_undone_the_latest_step_first(shop: Shop) -> None:
    run = shop.start(BIG)
    run.signal("approval", {"by": "bob", "granted": False})

    with pytest.raises(shop.module.Refused, match="bob refused the order o-1"):
        run.result(timeout=20)

    assert run.status == "compensated"
    assert shop.undone(run) == ["take", "charge"]
    assert shop.payments() == [("o-1", "charge"), ("o-1", "refund")]
    assert shop.stock() == 5


def test_an_approval_that_does_not_come_in_time_undoes_the_order(shop: Shop) -> None:
    run = shop.start(BIG, approval_within="100ms")

    with pytest.raises(SignalTimeout):
        run.result(timeout=20)

    assert shop.payments() == [("o-1", "charge"), ("o-1", "refund")]
    assert shop.stock() == 5


def test_an_order_of_more_than_there_is_takes_nothing_and_is_refunded(shop: Shop) -> None:
    run = shop.start(SMALL, ("lamp", 2), ("table", 1))

    with pytest.raises(shop.module.OutOfStock, match="There are no 1 of 'table'"):
        run.result(timeout=20)

    assert run.status == "compensated"
    assert shop.payments() == [("o-1", "charge"), ("o-1", "refund")]
    assert shop.stock() == 5


def test_a_cancelled_order_is_undone(shop: Shop) -> None:
    run = shop.start(BIG)
    eventually(lambda: run.status == "waiting")

    run.cancel()

    eventually(lambda: run.status == "cancelled")
    assert shop.payments() == [("o-1", "charge"), ("o-1", "refund")]
    assert shop.stock() == 5


@pytest.mark.crash
def test_orders_end_as_they_should_while_their_agents_are_killed(up: Shell) -> None:
    up.run("run", "restock", "sku=lamp", "count=20")

    def start(name: str, amount: str, count: int, *more: str) -> None:
        items = json.dumps([{"sku": "lamp", "count": count}])
        given = (f"order_id={name}", f"amount={amount}", f"items:={items}", "--key", name, *more)
        up.run("start", "order", *given)

    start("granted", "250", 3)
    start("refused", "250", 4)
    start("late", "250", 5, "approval_within=1s")
    start("missing", "49.90", 99)
    up.kill_an_agent()
    for small in ("small-1", "small-2"):
        start(small, "49.90", 1)
    up.run("signal", "order:granted", "approval", '{"by": "eve"}')
    eventually(lambda: len(up.live_agents()) == 2, what="two agents")
    up.kill_an_agent()
    up.run("signal", "order:refused", "approval", '{"by": "bob", "granted": false}')

    ends = {
        "granted": "completed",
        "refused": "compensated",
        "late": "compensated",
        "missing": "compensated",
        "small-1": "completed",
        "small-2": "completed",
    }
    status = lambda: {run["key"]: run["status"] for run in up.json("runs", "--workflow", "order")}  # noqa: E731
    eventually(lambda: status() == ends or not set(status().values()) & {"pending", "running", "waiting"})
    eventually(lambda: "compensating" not in status().values())
    assert status() == ends

    wanted = [(name, "charge") for name in ends]
    wanted += [(name, "refund") for name, end in ends.items() if end == "compensated"]
    assert Counter(payments(up.folder / "bank.jsonl")) == Counter(wanted)
    assert stock(up.folder / "outlast.db", "lamp") == 20 - 3 - 1 - 1
    up.run("doctor")

"""An order as a saga: reserve stock, charge the card, wait for an approval, ship; undone in reverse when something fails.

The stock lives in tables of the application's own, in the same SQLite file, changed by `@transaction` steps: exactly once. The payment
provider is a pretended one, a ledger file that deduplicates by idempotency key, as real providers do: a charge that is asked for
twice is made once. Try it:

    outlast start order item=lamp quantity:=1 amount:=49 --key o-1
    outlast signal order:o-1 approval '{"by": "eve", "granted": true}'
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from outlast import Fail, Retry, SignalTimeout, current, sqlite3, step, transaction, wait_signal, workflow

STOCK = {"lamp": 5, "chair": 2, "table": 0}


@dataclass(frozen=True)
class Approval:
    """What the signal `approval` carries."""

    by: str
    granted: bool = True


class OutOfStock(Exception):
    """There are not so many."""


class Refused(Exception):
    """Somebody said no, or nobody said anything."""


def _tables(db: sqlite3.Connection) -> None:
    db.execute("create table if not exists shop_stock (item text primary key, quantity integer not null)")
    db.execute("create table if not exists shop_shipment (run text primary key, item text not null, quantity integer not null)")
    db.executemany("insert or ignore into shop_stock (item, quantity) values (?, ?)", list(STOCK.items()))


@transaction
def reserve(db: sqlite3.Connection, item: str, quantity: int) -> int:
    """Take items out of the stock; what is left. The change and its journal entry are one commit."""
    _tables(db)
    row = db.execute(
        "update shop_stock set quantity = quantity - ? where item = ? and quantity >= ? returning quantity",
        (quantity, item, quantity),
    ).fetchone()
    if row is None:
        raise OutOfStock(f"there are not {quantity} of {item}")
    left: int = row[0]
    return left


@reserve.compensation
def put_back(db: sqlite3.Connection, left: int | None, item: str, quantity: int) -> None:
    """Put them back, if they were taken: a reservation that failed has no result."""
    if left is not None:
        db.execute("update shop_stock set quantity = quantity + ? where item = ?", (quantity, item))


@step(retry=Retry(3, initial="100ms"), timeout="30s")
def charge(ledger: str, amount: int) -> str:
    """Charge the card. The key is the same on every try and after every crash, so the provider charges once."""
    if amount <= 0:
        raise Fail(f"an amount of {amount} cannot be charged")
    return _Provider(ledger).call("charge", current().idempotency_key, amount)


@charge.compensation(retry=Retry(5, initial="100ms"))
def refund(payment: str | None, ledger: str, amount: int) -> None:
    """Give the money back, also where nobody knows whether the charge was made: the provider does."""
    key = current().idempotency_key.replace("/undo/", "/")
    _Provider(ledger).call("refund", key, amount, only_if=("charge", key))


@transaction
def ship(db: sqlite3.Connection, item: str, quantity: int) -> str:
    """Write the shipment."""
    run = current().run_id
    db.execute("insert into shop_shipment (run, item, quantity) values (?, ?, ?)", (run, item, quantity))
    return f"shipment of {run}"


@workflow
def order(
    item: str, quantity: int = 1, amount: int = 49, ledger: str = "payments.jsonl", patience: str = "2d"
) -> dict[str, object]:
    """Sell something: every step that took effect is undone in reverse if a later one fails."""
    left = reserve(item, quantity)
    payment = charge(ledger, amount)
    try:
        approval = wait_signal("approval", Approval, timeout=patience)
    except SignalTimeout:
        raise Refused(f"nobody approved within {patience}") from None
    if not approval.granted:
        raise Refused(f"{approval.by} refused")
    return {"payment": payment, "left": left, "shipment": ship(item, quantity), "approved_by": approval.by}


class _Provider:
    """A payment provider: an append-only ledger, a line an effect, one effect for each key."""

    def __init__(self, ledger: str) -> None:
        self._ledger = Path(ledger)

    def call(self, action: str, key: str, amount: int, *, only_if: tuple[str, str] | None = None) -> str:
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        known = {(line["action"], line["key"]) for line in map(json.loads, lines)}
        if (action, key) not in known and (only_if is None or only_if in known):
            with self._ledger.open("a") as file:
                file.write(json.dumps({"action": action, "key": key, "amount": amount}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return f"{action} of {amount} for {key}"

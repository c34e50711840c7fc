"""An order: the card is charged, the stock taken, a big order approved by a person, the parcel handed over.

    outlast run restock sku=lamp count=10
    outlast start order order_id=o-1 amount=49.90 items:='[{"sku": "lamp"}]' --key o-1
    outlast start order order_id=o-2 amount=250 items:='[{"sku": "lamp", "count": 3}]' --key o-2
    outlast signal order:o-2 approval '{"by": "eve", "granted": true}'

Whatever goes wrong after the charge (nothing in stock, a refusal, no answer in time) undoes what was done,
the latest first. The payment service is a pretence, a file of JSON lines, `$BANK_LEDGER` or `bank.jsonl` in the
folder of the agents; like a real one it is somebody else's, and it remembers the keys of requests. The stock
is in tables of our own in Outlast's file: there the change and the journal entry are one transaction.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from outlast import Fail, Retry, current, publish, sqlite3, step, transaction, wait_signal, workflow

APPROVED_FROM = Decimal(100)
"""An order of this amount or more waits for a person."""


@dataclass(frozen=True)
class Item:
    sku: str
    count: int = 1


@dataclass(frozen=True)
class Approval:
    """The payload of the signal `approval`."""

    by: str
    granted: bool = True


@dataclass(frozen=True)
class Receipt:
    order_id: str
    payment: str
    parcel: int
    approved_by: str | None


class OutOfStock(Fail):
    """There is too little of something: trying again at once does not help."""


class Refused(Exception):
    """A person said no."""


@workflow(timeout="7d")
def order(order_id: str, amount: Decimal, items: list[Item], approval_within: str = "2d") -> Receipt:
    """Charge, take from the stock, wait for the approval of a big order, hand over the parcel."""
    payment = charge(order_id, amount)
    take(order_id, items)
    approval = None
    if amount >= APPROVED_FROM:
        publish("state", "waits for an approval")
        approval = wait_signal("approval", Approval, timeout=approval_within)
        if not approval.granted:
            raise Refused(f"{approval.by} refused the order {order_id}.")
    parcel = hand_over(order_id)
    publish("state", "handed over")
    return Receipt(order_id, payment, parcel, approval.by if approval else None)


@workflow
def restock(sku: str, count: int) -> int:
    """Put new goods on the shelf; gives how many there are now."""
    return add_stock(sku, count)


@step(retry=Retry(5, initial="200ms", unless=Fail), timeout="30s")
def charge(order_id: str, amount: Decimal) -> str:
    """Charge the card. It may be asked twice; the key, the same on every try, makes it one payment."""
    if amount <= 0:
        raise Fail(f"The amount of an order must be more than 0, not {amount}.")
    with _bank() as bank:
        return bank.book("charge", order_id, amount, key=current().idempotency_key)


@charge.compensation(retry=Retry(10, initial="200ms"))
def refund(payment: str | None, order_id: str, amount: Decimal) -> None:
    """Give the money back: where nobody knows whether the charge took effect, the bank does."""
    with _bank() as bank:
        if payment is not None or bank.has_charged(order_id):
            bank.book("refund", order_id, amount, key=current().idempotency_key)


@transaction
def take(db: sqlite3.Connection, order_id: str, items: list[Item]) -> int:
    """Take all items from the stock, or none."""
    _make_tables(db)
    for item in items:
        taken = db.execute(
            "update stock set count = count - :count where sku = :sku and count >= :count and :count > 0",
            {"sku": item.sku, "count": item.count},
        )
        if taken.rowcount == 0:
            raise OutOfStock(f"There are no {item.count} of {item.sku!r} for the order {order_id}.")
        db.execute("insert into taken (order_id, sku, count) values (?, ?, ?)", (order_id, item.sku, item.count))
    return sum(item.count for item in items)


@take.compensation
def put_back(db: sqlite3.Connection, taken: int | None, order_id: str, items: list[Item]) -> None:
    """Put them back. Without a result nothing was taken: the transaction was rolled back."""
    if taken is None:
        return
    for item in items:
        db.execute("update stock set count = count + ? where sku = ?", (item.count, item.sku))
    db.execute("delete from taken where order_id = ?", (order_id,))


@transaction
def hand_over(db: sqlite3.Connection, order_id: str) -> int:
    """Write the parcel down, for the courier to fetch; gives its number."""
    number = db.execute("insert into parcel (order_id) values (?)", (order_id,)).lastrowid
    assert number is not None
    return number


@transaction
def add_stock(db: sqlite3.Connection, sku: str, count: int) -> int:
    _make_tables(db)
    row = db.execute(
        "insert into stock (sku, count) values (?, ?) on conflict (sku) do update set count = count + excluded.count returning count",
        (sku, count),
    ).fetchone()
    return int(row[0])


def _make_tables(db: sqlite3.Connection) -> None:
    db.execute("create table if not exists stock (sku text primary key, count integer not null check (count >= 0))")
    db.execute("create table if not exists taken (order_id text not null, sku text not null, count integer not null)")
    db.execute("create table if not exists parcel (number integer primary key, order_id text not null unique)")


class Bank:
    """The pretended payment service: a line for each payment, in a file that is locked meanwhile."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        file.seek(0)
        self._lines: list[dict[str, Any]] = [json.loads(line) for line in file]

    def book(self, what: str, order_id: str, amount: Decimal, *, key: str) -> str:
        """Move the money, unless a request with this key did; gives the number of the payment."""
        for number, line in enumerate(self._lines, 1):
            if line["key"] == key:
                return f"{line['what']}-{number}"
        self._lines.append({"what": what, "order": order_id, "amount": str(amount), "key": key})
        self._file.write(json.dumps(self._lines[-1]) + "\n")
        return f"{what}-{len(self._lines)}"

    def has_charged(self, order_id: str) -> bool:
        return any(line["what"] == "charge" and line["order"] == order_id for line in self._lines)


@contextmanager
def _bank() -> Iterator[Bank]:
    with Path(os.environ.get("BANK_LEDGER") or "bank.jsonl").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield Bank(file)
        file.flush()
        os.fsync(file.fileno())

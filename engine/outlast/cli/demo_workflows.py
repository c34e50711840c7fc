"""The order saga of `outlast demo`: three steps that touch the world, a fourth that fails, and what undoes
them.

Owns a bank and a warehouse that are files, so that everybody can read afterwards what really happened, how
often, and in which process. The bank is slow to answer and remembers the key of every request, as payment
services do. Refuses to be an example of anything else: see `workflows/` for real ones.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from outlast import Retry, current, step, workflow

BANK_SECONDS = 1.5
"""How long the bank takes to answer: time enough to kill whoever waits for it."""


@step
def reserve(folder: str, item: str) -> str:
    """Take an item off the shelf."""
    _write(folder, "warehouse", "reserved", item)
    return item


@reserve.compensation
def put_back(reserved: str | None, folder: str, item: str) -> None:
    """Put it back."""
    _write(folder, "warehouse", "put back", item)


@step(retry=Retry(3, initial="100ms"))
def charge(folder: str, amount: int) -> str:
    """Charge the card.

    The key is the same on every try, so the bank charges once, however often it is asked.
    """
    key = current().idempotency_key
    is_repeated = any(line["key"] == key for line in ledger(folder) if line["what"] == "charged")
    _write(folder, "bank", "asked again" if is_repeated else "charged", f"{amount} EUR", key=key)
    if not is_repeated:
        time.sleep(BANK_SECONDS)
    return f"payment-{amount}"


@charge.compensation
def refund(payment: str | None, folder: str, amount: int) -> None:
    """Give the money back."""
    _write(folder, "bank", "refunded", f"{amount} EUR")


@step(retry=Retry(2, initial="100ms"))
def ship(folder: str, item: str) -> str:
    """Ask a courier, who refuses."""
    _write(folder, "courier", "refused", item)
    raise RuntimeError(f"the courier does not take {item}")


@workflow(name="demo_order")
def order(folder: str, item: str, amount: int) -> str:
    """Reserve, charge, ship; what was done is undone when the shipping fails."""
    reserve(folder, item)
    charge(folder, amount)
    return ship(folder, item)


def ledger(folder: str) -> list[dict[str, Any]]:
    """What happened in the world, in order."""
    try:
        text = Path(folder, "ledger.jsonl").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def _write(folder: str, who: str, what: str, which: str, *, key: str = "") -> None:
    line = json.dumps({"who": who, "what": what, "which": which, "pid": os.getpid(), "key": key})
    with Path(folder, "ledger.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")

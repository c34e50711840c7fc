"""`crash_everywhere`: finds what a crash repeats, and nothing where nothing is repeated."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import outlast
from outlast import InvalidInput, Retry, current, gather, sleep, step, transaction, wait_signal, workflow
from outlast.codec import payloads
from outlast.testing import crash_everywhere


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "effects"
    monkeypatch.setenv("LEDGER", str(path))
    return path


def effect(line: str) -> None:
    with open(os.environ["LEDGER"], "a") as file:
        file.write(line + "\n")


@step(name="kit_charge")
def charge(order: str) -> str:
    effect(f"charge {order}")
    return f"p-{order}"


@step(name="kit_charge_once")
def charge_once(order: str) -> str:
    effect(f"charge {order} {current().idempotency_key}")
    return f"p-{order}"


@charge_once.compensation
def refund(payment: str | None, order: str) -> None:
    effect(f"refund {payment} {current().idempotency_key}")


@transaction(name="kit_book")
def book(db: outlast.sqlite3.Connection, order: str) -> int:
    db.execute("insert into seats (name) values (?)", (order,))
    return int(db.execute("select count(*) from seats").fetchone()[0])


@step(name="kit_pack", retry=Retry(3))
def pack(item: int) -> int:
    effect(f"pack {item} {current().idempotency_key}")
    return item * 2


@step(name="kit_refuse")
def refuse() -> None:
    raise ValueError("no")


def seats(connection: outlast.sqlite3.Connection) -> None:
    connection.execute("create table seats (id integer primary key, name text)")


@workflow(name="kit_careless")
def careless(order: str) -> str:
    return charge(order)


@workflow(name="kit_child")
def child(order: str) -> int:
    sleep("1d")
    return book(order)


@workflow(name="kit_careful")
def careful(order: str) -> list[object]:
    payment = charge_once(order)
    packed = gather(*[pack.submit(n) for n in range(2)])
    sleep("2d")
    word = wait_signal("word", str)
    return [payment, packed, child.start(order).result(), word]


@workflow(name="kit_undone")
def undone(order: str) -> None:
    charge_once(order)
    book(order)
    refuse()


@workflow(name="kit_later")
async def later(order: str) -> list[str]:
    return [await charge_once.aio(order), await charge_once.aio(order + "b")]


replays: list[None] = []


@workflow(name="kit_fickle")
def fickle() -> None:
    replays.append(None)
    if len(replays) != 2:
        sleep("1s")


def test_a_halt_that_only_one_execution_comes_to_is_told_with_its_reason() -> None:
    replays.clear()
    with pytest.raises(AssertionError, match=r"ended completed; halted \(the code disagrees with the journal: .*\) without the crash"):
        crash_everywhere(fickle)


def test_a_charge_that_is_not_idempotent_is_found(ledger: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        crash_everywhere(careless, "o1", ledger=ledger)
    said = str(caught.value)
    assert "killed just before the commit of «step kit_charge completed" in said
    assert "the effect 'charge o1' happened twice; once without the crash" in said
    assert "kit_careless: 1 of " in said, said


def test_an_effect_that_may_come_again_is_no_finding(ledger: Path) -> None:
    report = crash_everywhere(careless, "o1", ledger=ledger, repeatable=["charge .*"])
    assert report.trials == 2 * len(report.points) - 1 == report.crashes


def test_a_careful_workflow_passes_at_every_point(ledger: Path) -> None:
    report = crash_everywhere(careful, "o1", ledger=ledger, signals={"word": "go"}, setup=seats)
    names = "\n".join(report.points)
    for part in (
        "the claim of kit_careful",
        "step kit_charge_once completed",
        "submitted step kit_pack",
        "parks",
        "child kit_child",
        "the transaction kit_book",
    ):
        assert part in names, names
    # A parent may find its parts done or park, as it happens: then a point of the first execution is not reached.
    assert report.crashes >= 0.8 * report.trials >= 32


def test_the_undo_is_crashed_too(ledger: Path) -> None:
    report = crash_everywhere(undone, "o1", ledger=ledger, setup=seats)
    assert any("undo of kit_charge_once completed" in name for name in report.points)
    assert report.crashes >= 0.8 * report.trials > 10


def test_an_async_workflow_is_crashed_everywhere(ledger: Path) -> None:
    assert crash_everywhere(later, "o1", ledger=ledger).crashes >= 8


def test_no_crash_at_all_is_refused() -> None:
    with pytest.raises(InvalidInput, match="crashes must be"):
        crash_everywhere(careless, "o1", crashes=0)


def test_two_crashes_in_one_run(ledger: Path) -> None:
    report = crash_everywhere(careless, "o1", ledger=ledger, repeatable=["charge .*"], crashes=2)
    assert report.crashes > report.trials >= 20


@pytest.mark.crash
def test_real_processes_are_killed_at_every_point(ledger: Path) -> None:
    report = crash_everywhere(later, "o1", ledger=ledger, processes=True)
    assert report.crashes >= 8


class Nonced:
    """Other bytes each time, as a cipher has them."""

    name = "nonced"

    def encode(self, data: bytes) -> bytes:
        return os.urandom(4) + data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[4:][::-1]


def test_a_crash_changes_nothing_under_a_codec_that_never_writes_the_same(ledger: Path) -> None:
    outlast.register_payload_codec(Nonced())
    try:
        assert crash_everywhere(undone, "o1", ledger=ledger, setup=seats).crashes > 10
    finally:
        payloads.forget_all()

"""What the decorators make of functions, and what they refuse."""

from __future__ import annotations

import inspect
import pydoc
import sqlite3
from pathlib import Path
from typing import Any

import made_definitions
import pytest
from made_definitions import book, charge, fetch, fulfil, module_of, nightly

from outlast import NOT_DONE, Retry, step
from outlast.definition import AsyncStep, AsyncWorkflow, NotDone, SyncStep, SyncWorkflow, Transaction, registry
from outlast.errors import (
    InvalidDefinition,
    InvalidInput,
)


def test_a_definition_keeps_what_its_decorator_said() -> None:
    assert isinstance(charge, SyncStep)
    assert (charge.name, charge.kind, charge.asynchronous) == ("charge", "step", False)
    assert (charge.retry, charge.timeout_seconds, charge.isolate, charge.on_unknown) == (
        Retry(5),
        30,
        True,
        "halt",
    )
    assert (charge.module, charge.file, charge.queue) == (made_definitions.__name__, made_definitions.__file__, None)
    assert isinstance(fulfil, SyncWorkflow)
    assert (fulfil.queue, fulfil.timeout_seconds, fulfil.version, fulfil.on_error) == (
        "orders",
        604_800,
        "",
        "fail",
    )
    assert isinstance(nightly, AsyncWorkflow)
    assert (nightly.queue, nightly.asynchronous, nightly.retry) == ("default", True, Retry(1))
    assert isinstance(fetch, AsyncStep)
    assert isinstance(book, Transaction)
    assert (book.kind, book.timeout_seconds) == ("transaction", 5)


def test_a_definition_looks_like_its_function() -> None:
    assert charge.__name__ == "charge"  # type: ignore[attr-defined]
    assert charge.__doc__ == "Take the money."
    assert str(inspect.signature(charge)) == "(order_id: 'str', amount: 'int' = 1) -> 'str'"
    assert "Take the money." in pydoc.render_doc(charge)
    assert repr(charge).startswith("<step charge of ")


def test_the_signature_of_a_transaction_is_without_the_connection() -> None:
    assert str(inspect.signature(book)) == "(order_id: 'str') -> 'int'"
    assert book.signature.named(("o-1",), {}) == {"order_id": "o-1"}
    with pytest.raises(InvalidInput):
        book.signature.named(("o-1", 2), {})


def test_the_undecorated_function_is_kept_for_tests() -> None:
    assert charge.fn("o-1", 5) == "o-1:5"
    assert fulfil.fn("o-1") == {"payment": "o-1:1"}
    assert book.fn(sqlite3, "o-1") == 3


def test_options_are_bound_to_a_copy_that_is_the_same_definition() -> None:
    bound = charge.options(queue="fast").options(priority=3)
    assert bound is not charge
    assert bound.definition is charge
    assert charge.definition is charge
    assert (bound.bound.queue, bound.bound.priority) == ("fast", 3)
    assert charge.bound.queue is None
    assert bound("o-1") == "o-1:1"


def test_the_fingerprint_tells_other_code_apart_and_the_same_code_not(tmp_path: Path) -> None:
    text = "\n\n@step\ndef one(x):\n    return x\n"
    with registry.isolated():
        first = module_of(tmp_path / "one.py", text).one
        again = module_of(tmp_path / "moved.py", "# moved down\n" + text, name="one").one
        other = module_of(tmp_path / "other.py", text.replace("return x", "return x + 1"), name="one").one
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_the_fingerprint_is_of_the_code_that_was_loaded(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    with registry.isolated():
        module = module_of(file, "@step\ndef one(x):\n    return x\n")
        before = module.one.fingerprint
        file.write_text("a newer deploy")
        assert module.one.fingerprint == before


def test_code_without_source_has_a_fingerprint() -> None:
    def defined(text: str) -> Any:
        space: dict[str, Any] = {"step": step, "__name__": "made"}
        exec(text, space)
        return space["one"].fingerprint

    with registry.isolated():
        text = "@step\ndef one(x):\n    return x in {'a', 'b', 'c'}"
        assert defined(text) == defined(text)
        assert defined(text) != defined(text.replace("'c'", "'d'"))
        assert defined(text) != defined(text.replace("x in", "not x in"))


# What is refused when a decorator runs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def f():\n    @step\n    def g(): ...\nf()", "is nested in a function"),
        ("class A:\n    @step\n    def g(self): ...", "is a method"),
        ("class A:\n    @step\n    @staticmethod\n    def g(): ...", "Move it out of its class"),
        ("workflow(lambda: 1)", "@workflow cannot take a lambda. Write a `def` at the top of a module."),
        ("step(int)", "@step decorates a function, not <class 'int'>"),
        ("step('charge')", "@step decorates a function, not 'charge'"),
        ("@step\n@workflow\ndef g(): ...", "@step decorates a function, not <workflow g"),
        ("@workflow\ndef g():\n    yield 1", "is a generator"),
        ("@workflow\nasync def g():\n    yield 1", "is a generator"),
        (
            "@transaction\nasync def g(db): ...",
            "g ({place}:3) is an `async def`; a transaction cannot await.",
        ),
        ("@transaction\ndef g(): ...", "Write `def g(db, ...)`."),
        ("@transaction\ndef g(*, db): ...", "Write `def g(db, ...)`."),
        ("@step(name='two words')\ndef g(): ...", "name of @step g must be a name, not 'two words'."),
        ("@step(name='-x')\ndef g(): ...", "name of @step g must be a name"),
        ("@workflow(name='a:b')\ndef g(): ...", "name of @workflow g must be a name"),
        ("@step(timeout=0)\ndef g(): ...", "timeout of @step g must be more than 0 s"),
        ("@step(timeout='soon')\ndef g(): ...", "timeout of @step g must be a duration"),
        ("@step(retry=0)\ndef g(): ...", "retry of @step g must be a whole number of at least 1"),
        ("@step(isolate=1)\ndef g(): ...", "isolate of @step g must be True or False"),
        (
            "@step(on_unknown='ask')\ndef g(): ...",
            "on_unknown of @step g must be one of 'retry', 'halt', 'undo'",
        ),
        ("@workflow(on_error='undo')\ndef g(): ...", "on_error of @workflow g must be one of 'fail', 'halt'"),
        ("@workflow(max_crashes=0)\ndef g(): ...", "max_crashes of @workflow g must be a whole number"),
        ("@workflow(queue=7)\ndef g(): ...", "queue of @workflow g must be a name, not 7."),
        ("@workflow(version=2)\ndef g(): ...", "version of @workflow g must be a name, not 2."),
    ],
)
def test_what_cannot_be_defined_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with (
        registry.isolated() as found,
        pytest.raises((InvalidDefinition, InvalidInput), match=r"^[^\n]+$") as refused,
    ):
        module_of(tmp_path / "app.py", text)
    assert said.format(place=tmp_path / "app.py") in str(refused.value)
    assert found.steps() == []


def test_a_compensation_is_kept_and_given_back_unchanged(tmp_path: Path) -> None:
    with registry.isolated():
        module = module_of(
            tmp_path / "a.py",
            """
@step(retry=3, timeout="9s")
def charge(order_id, amount=1, *, note=""): ...
@charge.compensation
def refund(result, order, amount=1, *, note=""): ...

@step(retry=3)
def pack(x): ...
@pack.options(queue="q").compensation(retry=2, timeout="1m")
async def unpack(result, x): ...

@transaction
def book(db, x): ...
@book.compensation
def unbook(db, result, x): ...

@workflow(retry=3, timeout="1d")
def ship(*parcels, **how): ...
@ship.compensation
def unship(result, *parcels, **how): ...
""",
        )
    kept = module.charge.compensated_by
    assert (kept.fn, kept.asynchronous, kept.retry, kept.timeout_seconds) == (
        module.refund,
        False,
        Retry(3),
        9,
    )
    kept = module.pack.compensated_by
    assert (kept.fn, kept.asynchronous, kept.retry, kept.timeout_seconds) == (
        module.unpack,
        True,
        Retry(2),
        60,
    )
    assert module.book.compensated_by.timeout_seconds == 5
    assert (module.ship.compensated_by.retry, module.ship.compensated_by.timeout_seconds) == (Retry(1), None)
    assert inspect.isfunction(module.refund)
    assert module.charge.spelled_out({"order_id": "o", "note": "n"}) == (("o", 1), {"note": "n"})
    named = module.ship.signature.named((1, 2), {"by": "air"})
    assert module.ship.spelled_out(named) == ((1, 2), {"by": "air"})


def test_a_probe_is_kept_and_given_back_unchanged(tmp_path: Path) -> None:
    with registry.isolated():
        module = module_of(
            tmp_path / "a.py",
            "@step\ndef charge(x): ...\n@charge.probe\ndef charged(x): return NOT_DONE\n"
            "@step\ndef pay(x): ...\n@pay.probe\nasync def paid(x): return NOT_DONE\n",
        )
    assert (module.charge.probed_by.fn, module.charge.probed_by.asynchronous) == (module.charged, False)
    assert module.pay.probed_by.asynchronous
    assert module.charged(1) is NOT_DONE
    assert repr(NOT_DONE) == "NOT_DONE"
    assert isinstance(NOT_DONE, NotDone)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "@charge.compensation\ndef refund(order_id, amount): ...",
            "Write `def refund(result, order_id, amount)`.",
        ),
        (
            "@charge.compensation\ndef refund(result, order_id, amount, extra): ...",
            "missing a required argument",
        ),
        ("@charge.compensation(retry=0)\ndef refund(r, o, a): ...", "retry of @charge.compensation"),
        ("@charge.compensation(timeout=0)\ndef refund(r, o, a): ...", "timeout of @charge.compensation"),
        ("charge.compensation(lambda r, o, a: None)", "@charge.compensation cannot take a lambda"),
        ("@charge.compensation\ndef refund(r, o, a):\n    yield", "is a generator"),
        (
            "@charge.probe\ndef charged(order_id): ...",
            "cannot stand under @charge.probe: too many positional",
        ),
        ("@book.compensation\ndef unbook(result, x): ...", "Write `def unbook(db, result, x)`."),
        ("@book.compensation\nasync def unbook(db, result, x): ...", "under a transaction it cannot await"),
        ("@ship.compensation\ndef unship(result): ...", "Write `def unship(result, *parcels)`."),
        (
            "@charge.compensation\ndef refund(r, o, a): ...\n@charge.compensation\ndef void(r, o, a): ...",
            "@charge.compensation is given to two functions, refund (",
        ),
        ("@charge.probe\ndef seen(o, a): ...\n@charge.probe\ndef looked(o, a): ...", "@charge.probe is given to two functions, seen ("),
    ],
)
def test_a_compensation_that_does_not_fit_is_refused_with_one_that_does(tmp_path: Path, text: str, said: str) -> None:
    definitions = "@step\ndef charge(order_id, amount): ...\n@transaction\ndef book(db, x): ...\n@workflow\ndef ship(*parcels): ...\n"
    with (
        registry.isolated(),
        pytest.raises((InvalidDefinition, InvalidInput), match=r"^[^\n]+$") as refused,
    ):
        module_of(tmp_path / "a.py", definitions + text)
    assert said in str(refused.value)


def test_a_compensation_that_is_written_anew_stands_in_for_itself(tmp_path: Path) -> None:
    text = "@step\ndef charge(x): ...\n" + "@charge.compensation\ndef refund(result, x): ...\n" * 2
    with registry.isolated():
        module = module_of(tmp_path / "a.py", text)
    assert module.charge.compensated_by.fn is module.refund


def test_a_compensation_need_not_repeat_the_defaults_of_its_step(tmp_path: Path) -> None:
    text = (
        "from outlast import step\n\n@step\ndef pay(order_id, amount=1, *, gift=False): ...\n\n"
        "@pay.compensation\ndef refund(payment, order_id, amount, *, gift): ...\n"
    )
    with registry.isolated():
        exec(compile(text, str(tmp_path / "flows.py"), "exec"), names := {"__name__": "flows"})
    pay: Any = names["pay"]
    assert pay.compensated_by.fn is names["refund"]
    assert pay.spelled_out({"order_id": "o-1"}) == (("o-1", 1), {"gift": False})

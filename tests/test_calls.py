"""What a call of a definition, or of a durable function, does where it is made."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from made_definitions import book, charge, fetch, fulfil, nightly

import outlast
from outlast import aio, durable, step
from outlast import caller as caller_module
from outlast.definition import registry
from outlast.errors import (
    InvalidInput,
    OutsideRun,
    WrongColour,
)
from outlast.handles import Handle

with registry.isolated():

    @step
    def named_as_ours(self: int, definition: int, args: int, kwargs: int) -> int:
        return self + definition + args + kwargs


class RecordingCaller:
    """Writes down what it is asked for."""

    def __init__(self, *, asynchronous: bool = False, in_step: bool = False) -> None:
        self.asynchronous = asynchronous
        self.in_step = in_step
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def ask(*args: Any, **kwargs: Any) -> Any:
            self.asked.append((name, *args, *kwargs.items()))
            return self._later(name) if self.asynchronous and name in _WAITS else name

        return ask

    async def _later(self, name: str) -> str:
        return name


_WAITS = ("call", "map", "sleep", "wait_signal", "gather", "first")


class FakeHandle(Handle[int]):
    def result(self, timeout: Any = None) -> int:
        return 1

    def __await__(self) -> Any:
        yield


@contextmanager
def called_by(*, asynchronous: bool = False, in_step: bool = False) -> Iterator[RecordingCaller]:
    caller = RecordingCaller(asynchronous=asynchronous, in_step=in_step)
    token = caller_module.active.set(caller)  # type: ignore[arg-type]
    try:
        yield caller
    finally:
        caller_module.active.reset(token)


def run(awaitable: Any) -> Any:
    async def main() -> Any:
        return await awaitable

    return asyncio.run(main())


def test_in_a_run_a_call_goes_to_the_caller_with_the_original_and_its_options() -> None:
    with called_by() as caller:
        called: Any = charge.options(priority=2)("o-1", amount=3)
        assert called == "call"
        book("o-1")
        fulfil("o-1")
    name, definition, args, kwargs, options = caller.asked[0]
    assert (name, definition, args, kwargs) == ("call", charge, ("o-1",), {"amount": 3})
    assert definition is charge
    assert options.priority == 2
    assert [asked[1] for asked in caller.asked[1:]] == [book, fulfil]


def test_in_an_async_run_a_call_is_awaited() -> None:
    with called_by(asynchronous=True) as caller:
        fetched: Any = run(fetch("u"))
        assert fetched == "call"
        assert run(charge.aio("o-1")) == "call"
        assert run(book.aio("o-1")) == "call"
        assert run(fulfil.aio("o-1")) == "call"
        assert run(nightly()) == "call"
    assert [asked[1] for asked in caller.asked] == [fetch, charge, book, fulfil, nightly]


def test_the_wrong_colour_is_refused_and_the_right_one_named() -> None:
    with called_by(asynchronous=True) as caller:
        with pytest.raises(WrongColour, match=r"Write `await charge.aio\(...\)`"):
            charge("o-1")
        with pytest.raises(WrongColour, match=r"Write `await fulfil.aio\(...\)`"):
            fulfil("o-1")
        with pytest.raises(WrongColour, match=r"Write `await outlast.aio.map\(charge, ...\)`"):
            charge.map(["o-1"])
    with called_by() as caller:
        with pytest.raises(WrongColour, match=r"Write `fetch.submit\(...\).result\(\)`, or make the workflow"):
            fetch("u")
        with pytest.raises(WrongColour, match=r"Write `nightly.start\(...\).result\(\)`, or make the workflow"):
            nightly()
        with pytest.raises(WrongColour, match=r"Write `charge\(...\)`"):
            charge.aio("o-1")
        with pytest.raises(WrongColour, match=r"fetch.submit\(item\) for item in items"):
            fetch.map(["u"])
        with pytest.raises(WrongColour, match=r"Write `await fetch\(...\)`"):
            fetch.aio("u")  # type: ignore[attr-defined]
    assert caller.asked == []


def test_a_parameter_may_have_any_name() -> None:
    assert named_as_ours(self=1, definition=2, args=3, kwargs=4) == 10
    with called_by() as caller:
        named_as_ours.submit(self=1, definition=2, args=3, kwargs=4)
    assert caller.asked[0][3] == {"self": 1, "definition": 2, "args": 3, "kwargs": 4}


def test_a_workflow_is_neither_submitted_nor_mapped() -> None:
    with called_by() as caller:
        with pytest.raises(InvalidInput, match=r"Write `fulfil.start\(...\)`"):
            fulfil.submit("o-1")  # type: ignore[attr-defined]
        with pytest.raises(InvalidInput, match=r"fulfil.start\(item\) for item in items"):
            fulfil.map(["o-1"])  # type: ignore[attr-defined]
    assert caller.asked == []


def test_a_child_takes_no_connection_but_a_start_in_a_step_does() -> None:
    connection = sqlite3.connect(":memory:")
    bound = fulfil.options(connection=connection)
    with called_by() as caller:
        for call in (bound, bound.start):
            with pytest.raises(InvalidInput, match="Leave out connection="):
                call("o-1")
    assert caller.asked == []
    with called_by(asynchronous=True), pytest.raises(InvalidInput, match="Leave out connection="):
        bound.aio("o-1")
    with called_by(in_step=True) as caller:
        bound.start("o-1")
    assert [asked[0] for asked in caller.asked] == ["start"]
    connection.close()


def test_a_step_called_in_a_step_is_the_plain_function() -> None:
    with called_by(in_step=True) as caller:
        assert charge("o-1") == "o-1:1"
        assert run(charge.aio("o-1")) == "o-1:1"
        assert run(fetch("u")) == b"u"
    assert caller.asked == []


def test_what_waits_for_others_is_refused_in_a_step() -> None:
    with called_by(in_step=True) as caller:
        with pytest.raises(OutsideRun, match=r"fulfil is a workflow, called in a step. Write `fulfil.start\(...\)`."):
            fulfil("o-1")
        with pytest.raises(OutsideRun, match="book is a transaction, called in a step"):
            book("o-1")
        with pytest.raises(OutsideRun, match=r"charge.submit\(...\) needs a workflow that calls it"):
            charge.submit("o-1")
        with pytest.raises(OutsideRun, match=r"Write `\[charge\(item\) for item in items\]`"):
            charge.map(["o-1"])
        started: Any = fulfil.start("o-1")
        assert started == "start"
    assert [asked[0] for asked in caller.asked] == ["start"]


def test_outside_a_run_a_step_is_the_plain_function() -> None:
    assert charge("o-1", amount=2) == "o-1:2"
    assert run(charge.aio("o-1")) == "o-1:1"
    assert run(fetch("u")) == b"u"


def test_outside_a_run_what_needs_one_names_what_to_write_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a process that has had no engine; commands of other tests leave theirs to the collector.
    monkeypatch.setattr(caller_module, "start_outside", None)
    with pytest.raises(OutsideRun, match=r"Write `fulfil.start\(...\)`, or `fulfil.fn\(...\)` in a test."):
        fulfil("o-1")
    with pytest.raises(OutsideRun, match=r"Write `fulfil.start"):
        fulfil.aio("o-1")
    with pytest.raises(OutsideRun, match=r"Write `nightly.start"):
        nightly()
    with pytest.raises(OutsideRun, match=r"`book.fn\(db, ...\)`"):
        book("o-1")
    with pytest.raises(OutsideRun, match=r"Write `charge\(...\)`"):
        charge.submit("o-1")
    with pytest.raises(OutsideRun, match=r"\[await fetch\(item\) for item in items\]"):
        fetch.map(["u"])
    with pytest.raises(OutsideRun, match="Create one first"):
        fulfil.start("o-1")


def test_outside_a_run_a_workflow_is_started_by_the_only_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(caller_module, "start_outside", lambda *given: asked.append(given) or "a run")
    started: Any = fulfil.options(key="k").start("o-1")
    assert started == "a run"
    assert asked[0][:3] == (fulfil, ("o-1",), {})
    assert asked[0][3].key == "k"


def test_in_an_agents_process_a_step_in_a_thread_without_a_run_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caller_module, "agent_process", True)
    with pytest.raises(OutsideRun, match=r"charge is a step, called from a thread that has no run"):
        charge("o-1")
    with called_by(in_step=True):
        assert charge("o-1") == "o-1:1"


def test_beside_an_embedded_agent_a_step_without_a_run_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_module, "embedded_agent", True)
    with pytest.warns(RuntimeWarning, match="charge is a step") as warned:
        assert charge("o-1") == "o-1:1"
    assert warned[0].filename == __file__


def test_a_map_hands_its_items_and_limits_to_the_caller() -> None:
    with called_by() as caller:
        mapped: Any = charge.map(["a", "b"], concurrency=2)
        assert mapped == "map"
        with pytest.raises(InvalidInput, match="concurrency of a map"):
            charge.map(["a"], concurrency=0)
    asked = caller.asked[0]
    assert asked[:3] == ("map", charge, ["a", "b"])
    assert asked[4:] == (("concurrency", 2), ("return_exceptions", False))
    with called_by(asynchronous=True):
        assert run(fetch.map(["u"])) == "map"
        assert run(aio.map(charge, ["a"])) == "map"
        with pytest.raises(InvalidInput, match=r"map\(\) takes a step"):
            run(aio.map(print, []))  # type: ignore[arg-type]


# Durable functions

SYNC: dict[str, Callable[[], Any]] = {
    "sleep": lambda: outlast.sleep("1s"),
    "wait_signal": lambda: outlast.wait_signal("x"),
    "gather": lambda: outlast.gather(FakeHandle()),
    "first": lambda: outlast.first(FakeHandle()),
}
ASYNC: dict[str, Callable[[], Any]] = {
    "sleep": lambda: aio.sleep("1s"),
    "wait_signal": lambda: aio.wait_signal("x"),
    "gather": lambda: aio.gather(FakeHandle()),
    "first": lambda: aio.first(FakeHandle()),
}
WORKFLOW_ONLY: dict[str, Callable[[], Any]] = {
    "signal_handle": lambda: outlast.signal_handle("x"),
    "patched": lambda: outlast.patched("x"),
}
ANYWHERE: dict[str, Callable[[], Any]] = {
    "publish": lambda: outlast.publish("x", 1),
    "emit": lambda: outlast.emit("x", 1),
    "now": outlast.now,
    "uuid4": outlast.uuid4,
    "rng": outlast.rng,
    "current": outlast.current,
}


@pytest.mark.parametrize("name", [*SYNC, *WORKFLOW_ONLY, *ANYWHERE])
def test_a_durable_function_asks_the_run(name: str) -> None:
    with called_by() as caller:
        ({**SYNC, **WORKFLOW_ONLY, **ANYWHERE})[name]()
    assert [asked[0] for asked in caller.asked] == [name]


@pytest.mark.parametrize("name", [*SYNC, *WORKFLOW_ONLY, *ANYWHERE])
def test_outside_a_run_a_durable_function_names_what_to_write_instead(name: str) -> None:
    with pytest.raises(OutsideRun, match=rf"^{name}\(\) was called outside a run\. \S[^\n]+$"):
        ({**SYNC, **WORKFLOW_ONLY, **ANYWHERE})[name]()


@pytest.mark.parametrize(("call", "instead"), [(lambda: aio.sleep(1), "await asyncio.sleep"), (lambda: aio.gather(), "await handle for")])
def test_outside_a_run_an_awaitable_names_an_awaitable_instead(call: Callable[[], Any], instead: str) -> None:
    with pytest.raises(OutsideRun, match=rf"^outlast\.aio\.\w+\(\) was called outside a run\. .*{instead}"):
        run(call())


@pytest.mark.parametrize("name", [*SYNC, *WORKFLOW_ONLY])
def test_in_a_step_what_belongs_in_a_workflow_is_refused(name: str) -> None:
    with called_by(in_step=True), pytest.raises(OutsideRun, match=rf"^{name}\(\) was called in a step"):
        ({**SYNC, **WORKFLOW_ONLY})[name]()


@pytest.mark.parametrize("name", list(ANYWHERE))
def test_in_a_step_the_rest_asks_the_step(name: str) -> None:
    with called_by(in_step=True) as caller:
        ANYWHERE[name]()
    assert [asked[0] for asked in caller.asked] == [name]


@pytest.mark.parametrize("name", list(SYNC))
def test_what_waits_has_a_twin_for_each_colour_that_the_other_names(name: str) -> None:
    with called_by(asynchronous=True) as caller:
        with pytest.raises(WrongColour, match=rf"Write `await outlast\.aio\.{name}\(...\)`"):
            SYNC[name]()
        assert run(ASYNC[name]()) in (None, name)
    assert [asked[0] for asked in caller.asked] == [name]
    with called_by(), pytest.raises(WrongColour, match=rf"Write `outlast\.{name}\(...\)`"):
        run(ASYNC[name]())


def test_durations_and_types_reach_the_caller_as_they_are_meant() -> None:
    with called_by() as caller:
        outlast.sleep("2m")
        outlast.wait_signal("approval", dict[str, int], timeout="1h")
        outlast.wait_signal("approval")
    assert caller.asked == [
        ("sleep", 120.0),
        ("wait_signal", "approval", dict[str, int], 3600.0),
        ("wait_signal", "approval", object, None),
    ]


@pytest.mark.parametrize(
    "call",
    [
        lambda: outlast.sleep("soon"),
        lambda: outlast.sleep(-1),
        lambda: outlast.wait_signal(""),
        lambda: outlast.wait_signal("x", timeout="soon"),
        lambda: outlast.publish("", 1),
        lambda: outlast.emit(7, 1),  # type: ignore[arg-type]
        lambda: outlast.gather(7),  # type: ignore[call-overload]
        lambda: outlast.gather([FakeHandle()]),  # type: ignore[call-overload]
        lambda: outlast.first(),
        lambda: outlast.patched(""),
    ],
)
def test_bad_input_to_a_durable_function_is_refused_in_one_sentence(call: Callable[[], Any]) -> None:
    with called_by() as caller, pytest.raises(InvalidInput, match=r"^[^\n]+$"):
        call()
    assert caller.asked == []


def test_continue_as_new_asks_the_run_and_does_not_come_back() -> None:
    with called_by() as caller, pytest.raises(AssertionError):
        outlast.continue_as_new(1, x=2)
    assert caller.asked == [("continue_as_new", (1,), {"x": 2})]
    with pytest.raises(OutsideRun, match="continue_as_new"):
        outlast.continue_as_new()


def test_every_durable_function_says_what_to_write_instead() -> None:
    assert {*SYNC, *WORKFLOW_ONLY, *ANYWHERE, "continue_as_new", "map"} == set(durable._INSTEAD)

"""Errors come back as their own class; encoding one never fails."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pydantic
import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast import codec
from outlast.errors import Cancelled, InvalidInput, NotStorable, RemoteError, RunNotFound


class Declined(Exception):
    def __init__(self, code: int, *, lock: object = None) -> None:
        super().__init__(f"declined with {code}")
        self.code = code
        self.lock = lock
        CALLS.append(code)


class Picky(Exception):
    def __init__(self, *args: Any, needed: int) -> None:
        pass

    def __new__(cls, *args: Any, needed: int) -> Picky:
        return super().__new__(cls, *args)


class Slotted(OSError):
    __slots__ = ("extra",)


class Mean(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Rude(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Frozen(Exception):
    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("frozen")


@dataclass
class Data(Exception):
    a: int


CALLS: list[int] = []


def back(error: BaseException) -> Any:
    return codec.decode_error(codec.encode_error(error))


def caught(work: Any) -> BaseException:
    try:
        work()
    except BaseException as error:
        return error
    raise AssertionError


ERRORS = [
    lambda: 1 / 0,
    lambda: {}["x"],
    lambda: Path("/nowhere/x").read_text(),
    lambda: b"\xff".decode(),
    lambda: "\ud800".encode(),
    lambda: int("x"),
    lambda: json.loads("{"),
    lambda: compile("a b", "f", "exec"),
    lambda: None.x,
    lambda: unknown,  # noqa: F821
    lambda: sys.exit(3),
    lambda: next(iter(())),
    lambda: __import__("nowhere"),
]


@pytest.mark.parametrize("work", ERRORS)
def test_a_builtin_error_comes_back_as_it_was(work: Any) -> None:
    error = caught(work)
    again = back(error)
    assert type(again) is type(error)
    if not isinstance(error, UnicodeEncodeError):  # its surrogates are escaped
        assert str(again) == str(error)
        assert again.args == error.args
    for name in ("errno", "filename", "reason", "start", "lineno", "name", "code", "value", "pos"):
        assert getattr(again, name, None) == getattr(error, name, None)
    assert "Traceback" in again.__outlast_traceback__


def test_an_error_is_rebuilt_without_its_init() -> None:
    error = Declined(5, lock=object())
    CALLS.clear()
    again = back(error)
    assert (type(again), again.code, again.args, CALLS) == (Declined, 5, ("declined with 5",), [])
    assert not hasattr(again, "lock")


def test_our_own_errors_come_back_with_their_fields() -> None:
    again = back(NotStorable("a[1]", "no", hint="do this"))
    assert (type(again), again.place, str(again)) == (
        NotStorable,
        "a[1]",
        "a[1] cannot be stored: no. do this",
    )
    assert type(back(RunNotFound("x"))) is RunNotFound
    assert type(back(Cancelled())) is Cancelled
    assert back(RemoteError("a.B", "m")).type_name == "a.B"


@pytest.mark.parametrize("error", [Picky("a", needed=1), Frozen("a"), Data(3), Slotted(2, "no")])
def test_an_unusual_class_comes_back_as_itself(error: Any) -> None:
    assert type(back(error)) is type(error)
    assert back(error).args == error.args


def test_notes_cause_and_context_are_kept() -> None:
    def fail() -> None:
        try:
            {}["a"]
        except KeyError as key:
            try:
                raise ValueError("v") from key
            except ValueError:
                error = TypeError("t")
                error.add_note("a note")
                raise error  # noqa: B904

    again = back(caught(fail))
    assert again.__notes__ == ["a note"]
    assert type(again.__context__) is ValueError
    assert type(again.__context__.__cause__) is KeyError
    assert again.__context__.__suppress_context__


def test_the_members_of_a_group_are_kept() -> None:
    group = ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [Declined(1)])])
    again = back(group)
    assert type(again) is ExceptionGroup
    assert again.split(Declined)[0] is not None
    assert (again.message, str(again.exceptions[0])) == ("g", "a")
    assert type(back(BaseExceptionGroup("b", [KeyboardInterrupt()]))) is BaseExceptionGroup


def test_a_class_that_is_not_loaded_becomes_a_remote_error() -> None:
    class Local(Exception):
        pass

    again = back(Local("gone"))
    assert isinstance(again, RemoteError)
    assert again.type_name.endswith("Local")
    assert again.message == "gone"
    assert str(again) == f"{again.type_name}: gone" == str(back(again))
    data = codec.encode_error(ValueError("x")).replace(b"builtins:ValueError", b"builtins:int")
    assert isinstance(codec.decode_error(data), RemoteError)
    data = data.replace(b"builtins:int", b"wave:Error")
    sys.modules.pop("wave", None)
    assert isinstance(codec.decode_error(data), RemoteError)
    assert "wave" not in sys.modules


class Loaded(Exception):
    pass


def test_an_error_of_a_class_that_is_not_loaded_is_still_caught_by_its_bases() -> None:
    """A replay in a process where nobody has imported the class has to go the way of the first execution."""

    class Local(Loaded, ConnectionError):
        pass

    data = codec.encode_error(Local(5, "gone"))
    again = codec.decode_error(data)
    assert isinstance(again, RemoteError)
    assert again.type_name.endswith("Local")
    assert (isinstance(again, Loaded), isinstance(again, OSError), isinstance(again, ValueError)) == (True, True, False)
    assert again.errno == 5
    assert (codec.encode_error(again), type(back(again).__cause__)) == (data, type(None))
    unknown = data.replace(b":Loaded", b":Unloaded")
    assert isinstance(codec.decode_error(unknown), ConnectionError)
    assert type(codec.decode_error(unknown.replace(b"builtins:", b"nowhere:"))) is RemoteError


def test_an_error_that_is_an_argument_and_an_attribute_stays_both() -> None:
    again = back(URLError(ConnectionRefusedError(111, "refused")))
    assert (type(again), str(again)) == (URLError, "<urlopen error [Errno 111] refused>")
    assert (again.reason.errno, again.args[0].errno) == (111, 111)


def cyclic() -> BaseException:
    error = ValueError("a")
    error.__cause__ = TypeError("b")
    error.__cause__.__cause__ = error
    error.args = (error, [error])
    return error


def long_chain() -> BaseException:
    error = ValueError(0)
    for index in range(3000):
        after = ValueError(index)
        after.__cause__ = error
        error = after
    return error


def deep_group() -> BaseException:
    error: Exception = ValueError(0)
    for _ in range(400):
        error = ExceptionGroup("g", [error])
    return error


def loop() -> None:
    loop()


NASTY = [
    Mean("x"),
    Rude("x"),
    ValueError("\ud800"),
    ValueError("x" * 10_000_000),
    ValueError(["x" * 1000] * 10_000),
    ValueError(object()),
    ValueError(Mean()),
    cyclic(),
    long_chain(),
    deep_group(),
    ExceptionGroup("many", [ValueError("x" * 9000)] * 3000),
    caught(loop),
    ValueError(*range(100_000)),
]


@pytest.mark.parametrize("index", range(len(NASTY)))
def test_no_error_is_too_nasty_to_encode(index: int) -> None:
    data = codec.encode_error(NASTY[index])
    assert len(data) < 1_000_000
    again = codec.decode_error(data)
    assert isinstance(again, BaseException)
    assert set(codec.summary(data)) == {"type", "message", "traceback"}
    codec.encode_error(again)


@settings(deadline=None)
@given(
    st.text(alphabet=st.characters()),
    st.recursive(st.integers() | st.binary(), lambda inner: st.tuples(inner, inner)),
)
def test_any_arguments_come_back(text: str, value: Any) -> None:
    again = back(ValueError(text, value))
    assert again.args[1] == value
    assert type(again) is ValueError


def test_the_first_traceback_survives_a_second_encoding() -> None:
    error = caught(lambda: int("x"))
    again = back(caught(lambda: (_ for _ in ()).throw(back(error))))
    assert "<lambda>" in again.__outlast_traceback__
    assert again.__outlast_traceback__ == back(error).__outlast_traceback__


def test_a_summary_needs_no_class() -> None:
    data = codec.encode_error(InvalidInput("no"))
    assert codec.summary(data)["type"] == "outlast.errors.InvalidInput"
    assert codec.summary(data)["message"] == "no"


def test_an_error_within_a_value_comes_back() -> None:
    again = codec.decode(codec.encode([ValueError("x"), 1]))
    assert type(again[0]) is ValueError
    with pytest.raises(codec.NotDecodable):
        codec.decode_error(b"[1]")


class Parcel(pydantic.BaseModel):
    weight: int
    stamps: list[int] = []

    @pydantic.field_validator("weight")
    @classmethod
    def check(cls, weight: int) -> int:
        if weight > 9:
            raise ValueError("too heavy")
        if weight < 0:
            raise pydantic_core.PydanticCustomError("negative", "less than nothing: {n}", {"n": weight})
        return weight


@pytest.mark.parametrize("fields", [{"weight": "x"}, {"weight": 10}, {}, {"weight": -1}, {"weight": "x" * 100_000}, {"weight": object()}])
def test_pydantics_own_error_comes_back_as_itself(fields: Any) -> None:
    error: Any = caught(lambda: Parcel(**fields))
    again: Any = back(error)
    assert type(again) is pydantic.ValidationError
    assert (again.title, len(again.errors())) == (error.title, 1)
    one, other = again.errors()[0], error.errors()[0]
    assert [one[part] for part in ("type", "loc", "msg")] == [other[part] for part in ("type", "loc", "msg")]
    assert str(back(again)) == str(again)

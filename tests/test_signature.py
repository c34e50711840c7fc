"""Arguments by name, from Python, from the journal, from JSON and from a command line."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Required, TypedDict, TypeVar

import annotated_types
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.errors import InvalidInput
from outlast.signature import Signature, convert_value

if TYPE_CHECKING:
    from nowhere import Missing


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Item:
    name: str
    price: Decimal = Decimal(0)


class Pair(NamedTuple):
    a: int
    b: str = ""


class Approval(pydantic.BaseModel):
    by: str
    at: datetime | None = None


class Order(TypedDict, total=False):
    items: list[Item]


class Record(msgspec.Struct):
    item: Item


class Partial(TypedDict, total=False):
    id: Required[int]
    note: str


class Whole(TypedDict):
    id: int
    note: NotRequired[str]


T = TypeVar("T")


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Boxes(Generic[T]):
    first: Box[T]
    rest: dict[str, list[T]]


class Slot(NamedTuple, Generic[T]):
    content: T


class Shelf(msgspec.Struct, Generic[T]):
    content: T


def fulfil(order_id: str, items: list[str]) -> None: ...
def wide(a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **extra: int) -> None: ...
def hinted(x: Missing, y: int, z: list[Missing] = ()) -> None: ...
def book(db: Any, order_id: str, seats: int = 1) -> None: ...


F = Signature(fulfil, place="fulfil")
W = Signature(wide, place="wide")


def test_arguments_are_bound_by_name_in_the_order_of_the_parameters() -> None:
    assert F.named(("o", ["a"]), {}) == {"order_id": "o", "items": ["a"]}
    assert list(F.named((), {"items": [], "order_id": "o"})) == ["order_id", "items"]
    assert W.named((1, 2, 3, 4), {"c": 5, "z": 6}) == {
        "a": 1,
        "b": 2,
        "rest": (3, 4),
        "c": 5,
        "extra": {"z": 6},
    }
    assert Signature(book, skip=1, place="book").named(("o",), {}) == {"order_id": "o"}
    assert W.required == ["a", "c"]


@settings(deadline=None)
@given(
    st.lists(st.integers(), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(["b", "d", "e", "rest", "a", "extra"]), st.integers()),
)
def test_a_call_gets_back_what_was_bound(args: list[int], kwargs: dict[str, int]) -> None:
    def probe(a, /, b=2, *rest, c, d=4, **extra):  # type: ignore[no-untyped-def]
        return a, b, rest, c, d, extra

    kwargs["c"] = 1
    try:
        expected = probe(*args, **kwargs)
    except TypeError:
        with pytest.raises(InvalidInput):
            W.named(tuple(args), kwargs)
        return
    got_args, got_kwargs = W.call(W.named(tuple(args), kwargs))
    if "extra" not in kwargs and "rest" not in kwargs:
        assert probe(*got_args, **got_kwargs) == expected


@pytest.mark.parametrize(
    ("args", "kwargs", "sentence"),
    [
        (("o",), {"itms": 1}, "fulfil() takes order_id, items: 'itms' is unknown; did you mean 'items'?"),
        (("o",), {}, "fulfil() takes order_id, items: items is missing."),
        ((), {}, "fulfil() takes order_id, items: order_id is missing."),
        ((1, 2, 3), {}, "fulfil() takes order_id, items: 3 values were given by position."),
        ((1, 2), {"items": 3}, "fulfil() takes order_id, items: items was given twice."),
        ((), {"\ud800\0": 1}, "fulfil() takes order_id, items: '\\ud800\\x00' is unknown."),
    ],
)
def test_arguments_that_do_not_fit_get_one_sentence(args: Any, kwargs: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        F.named(args, kwargs)
    assert str(refused.value) == sentence


def test_stored_names_that_no_longer_fit_are_refused() -> None:
    assert F.call({"order_id": 1, "items": 2}) == ((), {"order_id": 1, "items": 2})
    for stored in ({"order_id": 1}, {"order_id": 1, "items": 2, "old": 3}):
        with pytest.raises(InvalidInput):
            F.call(stored)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, int, 1),
        (1, float, 1.0),
        ("5", int, 5),
        ("a", str, "a"),
        ({"x": 1}, Any, {"x": 1}),
        ("1.5", Decimal, Decimal("1.5")),
        ("2026-01-01T00:00:00Z", datetime, NOW),
        ("2026-01-01", date, date(2026, 1, 1)),
        ("5m", timedelta, timedelta(minutes=5)),
        (str(uuid.UUID(int=1)), uuid.UUID, uuid.UUID(int=1)),
        ("red", Colour, Colour.RED),
        ("RED", Colour, Colour.RED),
        ([1, "a"], tuple[int, str], (1, "a")),
        ([1, 1], set[int], {1}),
        ([{"name": "n", "price": "2"}], list[Item], [Item("n", Decimal(2))]),
        (None, int | None, None),
        ("null", str | None, "null"),
        ("5", int | str, "5"),
        (5, int | str, 5),
        ({"name": "n"}, Item | Pair, Item("n")),
        ([1], Pair, Pair(1)),
        ({"a": 1, "b": "x"}, Pair, Pair(1, "x")),
        ("a", Literal["a", 1], "a"),
        ({"by": "eve"}, Approval, Approval(by="eve")),
        ([{"by": "eve"}], list[Approval], [Approval(by="eve")]),
        ({"items": [{"name": "n"}]}, Order, {"items": [Item("n")]}),
        ({"item": {"name": "n"}}, Record, Record(Item("n"))),
        ({"1": "2026-01-01"}, dict[int, date], {1: date(2026, 1, 1)}),
        ("/x", Path, Path("/x")),
        (3, Annotated[int, msgspec.Meta(ge=1)], 3),
        (None, Annotated[int | None, msgspec.Meta(ge=1)], None),
        ([{"by": "eve"}], Annotated[list[Approval], pydantic.Field(min_length=1)], [Approval(by="eve")]),
        (" a ", Annotated[str, pydantic.StringConstraints(strip_whitespace=True)], "a"),
        ("a", Annotated[str, "somebody else's", msgspec.Meta(ge=1)], "a"),
        (Item("n"), Item, Item("n")),
        ([Item("n")], list[Item], [Item("n")]),
        (True, bool, True),
        ("x", "Unresolved", "x"),
        (None, None, None),
    ],
)
def test_a_value_from_outside_becomes_the_annotated_type(value: Any, annotation: Any, expected: Any) -> None:
    found = convert_value(value, annotation, "x")
    assert found == expected
    assert type(found) is type(expected)
    assert convert_value(found, annotation, "x") == expected


@pytest.mark.parametrize(
    ("value", "annotation", "part"),
    [
        ("abc", int, "x must be int, not 'abc'."),
        (1.5, int, "int"),
        (True, int, "int"),
        (1, str, "str"),
        (None, int, "int"),
        ([1, "b"], list[int], "x[1] must be int, not 'b'."),
        ([{"nam": 1}], list[Item], "no 'nam'"),
        ({}, Item, "name is missing"),
        ("green", Colour, "'red'"),
        ("a", list[str], "list[str]"),
        ([[]], set[Any], "set"),
        ({"by": 1}, Approval, "by"),
        (0, Annotated[int, msgspec.Meta(ge=1)], "x must be int (Expected `int` >= 1), not 0."),
        ("0", Annotated[int, msgspec.Meta(ge=1)], "x must be int (Expected `int` >= 1), not 0."),
        (0, Annotated[int, msgspec.Meta(ge=1)] | None, ">= 1"),
        (0, Annotated[int | None, msgspec.Meta(ge=1)], ">= 1"),
        ([1, 2], Annotated[list[int], msgspec.Meta(max_length=1)], "length <= 1"),
        ([5, 0], list[Annotated[int, pydantic.Field(ge=1)]], "x[1] must be int (Input should be greater than or equal to 1), not 0."),
        ("ab", Annotated[str, pydantic.StringConstraints(max_length=1)], "at most 1 character"),
        ({"by": "eve"}, Annotated[dict[str, str], annotated_types.MinLen(2)], "at least 2 items"),
        (3, Annotated[int, pydantic.AfterValidator(lambda number: exec("raise ValueError('odd')"))], "odd"),
        ("x", int | None, "int"),
        ("b", Literal["a"], "'a'"),
        ("\ud800", int, "int"),
        ("\ud800", datetime, "datetime"),
        ([1, 2], tuple[int], "tuple[int]"),
        ("x\0", uuid.UUID, "UUID"),
        ({"item": {}}, Record, "name"),
        ("x", object, "") if False else (object(), int, "int"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_the_type(value: Any, annotation: Any, part: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        convert_value(value, annotation, "x")
    assert part in str(refused.value)
    str(refused.value).encode()


def test_a_text_for_a_model_is_answered_with_its_fields() -> None:
    for annotation, example in ((Approval, '{"by": ..., "at": ...}'), (Item, '{"name": ...'), (dict[str, int], '{"key": "value"}')):
        with pytest.raises(InvalidInput) as refused:
            read("x=eve", annotation)
        assert f"='{example}" in refused.value.hint


def read(text: str, annotation: Any) -> Any:
    def fn(x): ...  # type: ignore[no-untyped-def]

    fn.__annotations__ = {"x": annotation}
    return Signature(fn, place="fn").parse([text])["x"]


@pytest.mark.parametrize(
    ("text", "annotation", "expected"),
    [
        ("x=123", str, "123"),
        ("x=123", int, 123),
        ("x=123", Any, 123),
        ("x=abc", Any, "abc"),
        ("x=a=b", str, "a=b"),
        ("x=", str, ""),
        ('x=["a"]', list[str], ["a"]),
        ("x=yes", bool, True),
        ("x=0", bool, False),
        ("x=False", bool, False),
        ("x=null", int | None, None),
        ("x=null", str | None, "null"),
        ("x:=null", str | None, None),
        ("x=5", int | None, 5),
        ("x=5", int | str, 5),
        ("x:=5", Any, 5),
        ('x={"name":"n"}', Item, Item("n")),
        ("x=red", Colour, Colour.RED),
        ("x=1h", timedelta, timedelta(hours=1)),
        ("x=1", Literal[1, "a"], 1),
        ("x=true", Literal[True, "a"], True),
        ("x=true", Literal[True, "true"], "true"),
        ("x=1.5", float, 1.5),
        ("x=[1]", Any, [1]),
        ('x={"by":"eve"}', Approval, Approval(by="eve")),
    ],
)
def test_a_pair_of_the_command_line_takes_the_annotation(text: str, annotation: Any, expected: Any) -> None:
    found = read(text, annotation)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "annotation", "part"),
    [
        ("x=a,b", list[str], """x='["a","b"]'"""),
        ("x=abc", int, "x must be int, not 'abc'."),
        ("x", str, "key=value"),
        ("=1", str, "key=value"),
        ("x:={", str, "not JSON"),
        ("y=1", str, "'y' is unknown"),
        ("x=maybe", bool, "bool"),
        ("x=\ud800", int, "int"),
        ("\ud800=1", int, "unknown"),
        ("x:=" + "[" * 9000, Any, "not JSON"),
        ("x:=5", str, "str"),
        ("x=x", int | None, "int"),
        ("x={}", Item, "name is missing"),
        ("x=5", Item, "JSON"),
    ],
)
def test_a_pair_that_does_not_fit_gets_one_sentence(text: str, annotation: Any, part: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(text, annotation)
    assert part in str(refused.value)
    str(refused.value).encode()


@settings(deadline=None)
@given(
    st.text(alphabet=st.characters()),
    st.sampled_from([int, str, bool, list[int], Item, Any, datetime, Colour, int | None]),
)
def test_no_text_gives_a_traceback(text: str, annotation: Any) -> None:
    for pair in (text, "x=" + text, "x:=" + text):
        try:
            read(pair, annotation)
        except InvalidInput as error:
            str(error).encode()


def test_a_whole_input_is_an_object_or_an_array() -> None:
    assert F.from_json({"items": ["a"], "order_id": "o"}) == {"order_id": "o", "items": ["a"]}
    assert F.from_json(["o", ["a"]]) == {"order_id": "o", "items": ["a"]}
    for value in (None, "o", 3, ["o"], {"order_id": "o"}, ["o", [], 1], {"order_id": 1, "items": []}):
        with pytest.raises(InvalidInput):
            F.from_json(value)


def test_rest_and_extra_are_converted_too() -> None:
    assert W.from_json({"a": "1", "rest": ["5"], "c": 3, "z": "9"}) == {
        "a": 1,
        "rest": (5,),
        "c": 3,
        "extra": {"z": 9},
    }
    args, kwargs = W.call({"a": 1, "rest": (5,), "c": 3})
    assert (args, kwargs) == ((1, 2, 5), {"c": 3})
    with pytest.raises(InvalidInput):
        W.from_json({"a": 1, "c": 1, "z": "q"})


def test_an_annotation_that_cannot_be_resolved_means_object() -> None:
    signature = Signature(hinted, place="hinted")
    assert signature.from_json([{"any": 1}, "5"]) == {"x": {"any": 1}, "y": 5}


def test_a_repeated_key_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        F.parse(["order_id=1", "order_id=2"])


@pytest.mark.parametrize("kind", [Box, Slot, Shelf])
def test_a_generic_class_takes_its_argument_for_its_fields(kind: Any) -> None:
    assert convert_value({"content": "5"}, kind[int], "box") == kind(5)
    assert convert_value({"content": "5"}, kind[str], "box") == kind("5")
    with pytest.raises(InvalidInput, match="box"):
        convert_value({"content": "x"}, kind[int], "box")


def test_a_type_argument_reaches_the_fields_of_fields() -> None:
    given = {"first": {"content": "1"}, "rest": {"a": ["2"]}}
    assert convert_value(given, Boxes[int], "boxes") == Boxes(Box(1), {"a": [2]})
    with pytest.raises(InvalidInput, match=r"boxes.rest\['a'\]\[0\] must be int"):
        convert_value({"first": {"content": 1}, "rest": {"a": ["x"]}}, Boxes[int], "boxes")


@pytest.mark.parametrize("kind", [Partial, Whole])
def test_required_and_not_required_hold_in_postponed_annotations(kind: Any) -> None:
    assert convert_value({"id": "1"}, kind, "order") == {"id": 1}
    with pytest.raises(InvalidInput, match="id is missing"):
        convert_value({"note": "x"}, kind, "order")

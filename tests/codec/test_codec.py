"""Values come back equal and of equal type, or are refused at once with their place."""

from __future__ import annotations

import enum
import math
import sys
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast import codec
from outlast.errors import InvalidDefinition, NotStorable


class Colour(enum.Enum):
    RED = "red"
    BLUE = ("blue", 2)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Item:
    name: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0

    def __post_init__(self) -> None:
        if self.x > 100:
            raise ValueError("too far")


@dataclass
class Lazy:
    x: int

    @cached_property
    def lock(self) -> object:
        return object()


class Pair(NamedTuple):
    left: int
    right: Any = None


Old = namedtuple("Old", "a b")


class Model(pydantic.BaseModel):
    when: datetime
    inner: Point | None = None
    _secret: int = 3


class Open(pydantic.BaseModel, extra="allow"):
    a: int


class Record(msgspec.Struct, frozen=True):
    a: int
    b: tuple[int, ...] = ()


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    def __hash__(self) -> int:
        return hash(self.cents)


class Text(str):
    pass


BERLIN = ZoneInfo("Europe/Berlin")

VALUES = [
    None,
    True,
    0,
    -1,
    2**63,
    -(2**64),
    2**200,
    10**6000,
    1.5,
    -0.0,
    1e300,
    math.inf,
    -math.inf,
    "",
    "a\0b",
    "é😀",
    [],
    {},
    (),
    set(),
    frozenset(),
    [1, [2, (3, {4})]],
    (1,),
    ((),),
    {"a": (1, 2)},
    {1: 2, "1": 3, (1, 2): [4], None: 5},
    {"$t": "decimal", "v": "1"},
    {"$t": 1},
    {"": {"$t": {}}},
    b"",
    b"\xff\0",
    bytearray(b"x"),
    datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
    datetime(2026, 1, 1, 0, 0, 0, 1),
    datetime(1, 1, 1),
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-3, seconds=7), "odd")),
    date(2026, 1, 1),
    time(1, 2, 3, 4),
    time(1, 2, tzinfo=BERLIN),
    time(1, 2, tzinfo=UTC, fold=1),
    timedelta(days=-1, microseconds=1),
    Decimal("1.50"),
    Decimal("Infinity"),
    uuid.UUID(int=5),
    BERLIN,
    UTC,
    Colour.RED,
    Colour.BLUE,
    Level.LOW,
    Word.YES,
    Right.READ,
    Right.READ | Right.WRITE,
    Right(0),
    Item("a", Decimal("2"), {"x"}),
    Point(1, 2),
    Pair(1, (2,)),
    Old(1, 2),
    Model(when="2026-01-01T00:00:00Z"),
    Open(a=1, b=[2]),
    Record(1, (2, 3)),
    Path("/tmp/x"),
    PurePosixPath("a/b"),
    complex(1, -2),
    range(1, 9, 2),
    OrderedDict([("b", 1), ("a", 2)]),
    Counter("aab"),
    deque([1, 2], maxlen=3),
    defaultdict(list, {"a": [1]}),
    msgspec.UNSET,
    {Point(1): {Level.LOW: Item("n", Decimal(1))}},
    {frozenset({(1, "a")}), Colour.RED},
]


def same_shape(left: object, right: object) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert [type(key) for key in left] == [type(key) for key in right]
        for key, value in left.items():
            same_shape(value, right[key])
    elif isinstance(left, (list, tuple)):
        for mine, other in zip(left, right, strict=True):
            same_shape(mine, other)


@pytest.mark.parametrize("value", VALUES, ids=[f"{type(value).__name__}-{number}" for number, value in enumerate(VALUES)])
def test_a_value_comes_back_equal_and_of_equal_type(value: Any) -> None:
    for wrapped in (value, [value], {"k": (value,)}):
        back = codec.decode(codec.encode(wrapped))
        assert back == wrapped
        same_shape(wrapped, back)


@pytest.mark.parametrize("value", VALUES, ids=[f"{type(value).__name__}-{number}" for number, value in enumerate(VALUES)])
def test_every_value_has_a_readable_and_a_raw_form_that_is_json(value: Any) -> None:
    data = codec.encode(value)
    msgspec.json.encode(codec.readable(data))
    assert msgspec.json.encode(codec.raw(data)) == data


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.sampled_from([*Colour, *Level, *Word])
    | st.datetimes(timezones=st.none() | st.timezones(), allow_imaginary=True)
)
keys = st.text() | st.just("$t") | st.integers() | st.tuples(st.integers(), st.text()) | st.none()
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(st.integers() | st.text(), max_size=4)
        | st.builds(Pair, st.integers(), inner)
    ),
    max_leaves=15,
)


@settings(deadline=None)
@given(values)
def test_any_nesting_comes_back_equal(value: Any) -> None:
    back = codec.decode(codec.encode(value))
    assert back == value
    same_shape(value, back)
    assert codec.encode(back) == codec.encode(value)
    msgspec.json.encode(codec.readable(codec.encode(value)))


@settings(deadline=None)
@given(st.datetimes(timezones=st.timezones()), st.integers(0, 1))
def test_a_datetime_keeps_its_zone_and_fold(value: datetime, fold: int) -> None:
    value = value.replace(fold=fold)
    back = codec.decode(codec.encode(value))
    assert (back.replace(tzinfo=None), back.fold, back.tzinfo) == (
        value.replace(tzinfo=None),
        fold,
        value.tzinfo,
    )


def test_nan_and_negative_zero_survive() -> None:
    back = codec.decode(codec.encode([math.nan, -0.0]))
    assert math.isnan(back[0])
    assert math.copysign(1, back[1]) == -1


def test_equal_sets_have_equal_bytes() -> None:
    assert codec.encode(set("abcdef")) == codec.encode(set("fedcba"))


@pytest.mark.parametrize(
    ("value", "place", "problem"),
    [
        ({"items": [1, 2, 3, object()]}, 'result["items"][3]', "object"),
        ([{"a": "\ud800"}], 'result[0]["a"]', "surrogate"),
        ({"\ud800": 1}, "result key", "surrogate"),
        ({1: {"b": print}}, 'result[1]["b"]', "builtin_function_or_method"),
        (Item("a", Decimal(1), {Text("x")}), "result.tags", "subclass of str"),
        ([Text("x")], "result[0]", "subclass of str"),
        ((int,), "result[0]", "class int itself"),
        ((1, memoryview(b"")), "result[1]", "memoryview"),
        (defaultdict(lambda: 1), "result", "factory"),
        ((x for x in ()), "result", "generator"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place(value: Any, place: str, problem: str) -> None:
    with pytest.raises(NotStorable) as refused:
        codec.encode(value, place="result")
    assert refused.value.place.startswith(place)
    assert problem in str(refused.value)
    str(refused.value).encode()


def test_a_coroutine_is_refused_with_a_hint() -> None:
    async def work() -> None: ...

    coroutine = work()
    with pytest.raises(NotStorable, match="await"):
        codec.encode(coroutine)
    coroutine.close()


def test_a_local_class_is_refused_when_stored_not_at_recovery() -> None:
    @dataclass
    class Local:
        a: int

    with pytest.raises(NotStorable, match="top level"):
        codec.encode(Local(1))


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), lambda v: {1: v}, lambda v: Pair(1, v)])
def test_nesting_is_stored_up_to_the_limit_and_refused_beyond(wrap: Any) -> None:
    value: Any = 1
    for _ in range(140):
        value = wrap(value)
    assert codec.decode(codec.encode(value)) == value
    for _ in range(5000):
        value = wrap(value)
    with pytest.raises(NotStorable, match="nested"):
        codec.encode(value)


def test_a_cycle_is_refused() -> None:
    loop: list[Any] = [1]
    loop.append({"again": (loop,)})
    with pytest.raises(NotStorable, match="contains itself"):
        codec.encode(loop)
    value: dict[str, Any] = {}
    value["me"] = value
    with pytest.raises(NotStorable, match="contains itself"):
        codec.encode(value)


def test_the_same_part_twice_is_no_cycle() -> None:
    part = (1,)
    assert codec.decode(codec.encode([part, part])) == [part, part]


def test_no_init_runs_when_a_dataclass_comes_back() -> None:
    point = Point(1)
    object.__setattr__(point, "x", 500)
    assert codec.decode(codec.encode(point)).x == 500


def test_a_cached_property_is_not_stored() -> None:
    lazy = Lazy(1)
    assert lazy.lock is not None
    assert codec.decode(codec.encode(lazy)) == Lazy(1)


def test_a_field_that_the_class_gained_takes_its_default() -> None:
    data = codec.encode(Item("a", Decimal(1), {"x"}))
    old = data.replace(b',"tags":{"$t":"set","v":["x"]}', b"")
    assert old != data
    assert codec.decode(old) == Item("a", Decimal(1))


def test_a_class_that_is_not_loaded_is_named_and_not_imported() -> None:
    data = b'{"$t":"dataclass","c":"wave:Wave_write","v":{}}'
    sys.modules.pop("wave", None)
    with pytest.raises(codec.ClassNotLoaded, match="wave"):
        codec.decode(data)
    assert "wave" not in sys.modules
    assert codec.readable(data) == {}


@pytest.mark.parametrize(
    "data",
    [
        b'{"$t":"dataclass","c":"builtins:int","v":{}}',
        b'{"$t":"enum","c":"os:system","n":"x","v":1}',
        b'{"$t":"enum","c":"subprocess:Popen","n":"x","v":1}',
        b'{"$t":"struct","c":"subprocess:Popen","v":{"args":"true"}}',
        b'{"$t":"namedtuple","c":"builtins:tuple","v":{}}',
        b'{"$t":"custom","c":"builtins:eval","v":"1"}',
        b'{"$t":"no such tag"}',
        b'{"$t":["x"]}',
        b'{"$t":"decimal"}',
        b"not json",
        b"\xff",
        b"",
        b"[" * 5000,
    ],
)
def test_damaged_or_hostile_data_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(codec.NotDecodable):
        codec.decode(data)


def test_readable_shows_what_a_person_expects() -> None:
    value = {
        "price": Decimal("1.50"),
        "set": {2, 1},
        "text": b"abc",
        "bytes": b"\xff",
        "item": Item("a", Decimal(1)),
        "level": Level.LOW,
        "colour": Colour.RED,
        "wait": timedelta(minutes=1),
        "keys": {1: "a"},
        "clash": {1: "a", "1": "b"},
        "nan": math.nan,
        "error": KeyError("x"),
        "model": Model(when=datetime(2026, 1, 1, tzinfo=UTC)),
    }
    assert codec.readable(codec.encode(value)) == {
        "price": "1.50",
        "set": [1, 2],
        "text": "abc",
        "bytes": "/w==",
        "item": {"name": "a", "price": "1", "tags": []},
        "level": 1,
        "colour": "red",
        "wait": 60.0,
        "keys": {"1": "a"},
        "clash": [[1, "a"], ["1", "b"]],
        "nan": "NaN",
        "error": {"type": "KeyError", "message": "'x'"},
        "model": {"when": "2026-01-01T00:00:00+00:00", "inner": None},
    }


@pytest.mark.parametrize("value", [{"a": "é" * 5000}, ["\0\"'\\" * 900], [Decimal(1)] * 900, {"k": list(range(9000))}])
@pytest.mark.parametrize("limit", [80, 333, 2048])
def test_a_preview_is_short_decodable_and_ends_with_an_ellipsis(value: Any, limit: int) -> None:
    cut = codec.preview(codec.encode(value), limit)
    assert len(cut) <= limit
    assert isinstance(codec.decode(cut), codec.Preview)
    assert codec.readable(cut).endswith("…")


def test_a_preview_of_what_fits_is_the_value() -> None:
    assert codec.decode(codec.preview(codec.encode((1,)), 2048)) == (1,)


def test_a_user_type_is_stored_once_it_is_registered() -> None:
    with pytest.raises(NotStorable, match="register_type"):
        codec.encode(Money(5))
    codec.register_type(Money, lambda money: {"cents": (money.cents,)}, lambda stored: Money(*stored["cents"]))
    assert codec.decode(codec.encode([{Money(5)}])) == [{Money(5)}]
    assert codec.readable(codec.encode(Money(5))) == {"cents": [5]}


def test_a_builtin_type_cannot_be_registered() -> None:
    for cls in (str, dict, Decimal, datetime):
        with pytest.raises(InvalidDefinition):
            codec.register_type(cls, str, cls)


def test_a_frozen_clock_does_not_make_datetimes_unstorable() -> None:
    import freezegun

    with freezegun.freeze_time("2026-01-01"):
        from datetime import datetime as frozen

        data = codec.encode([frozen.now(), frozen.now(UTC)])
    assert codec.decode(data) == [datetime(2026, 1, 1), datetime(2026, 1, 1, tzinfo=UTC)]


def test_a_fingerprint_is_sixteen_bytes_and_tells_values_apart() -> None:
    assert len(codec.fingerprint(b"1")) == 16
    assert codec.fingerprint(b"1") != codec.fingerprint(b"2")


@pytest.mark.parametrize("functions", [("str", int), (str, None)])
def test_a_type_is_registered_with_functions(functions: Any) -> None:
    class Registered:
        pass

    with pytest.raises(InvalidDefinition, match="must be a function"):
        codec.register_type(Registered, *functions)

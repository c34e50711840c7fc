"""From values to tagged JSON: each type that JSON lacks becomes an object with a tag in it.

Owns the way in: `Tagger` walks a value and knows the place it is at, and each type has a function that tags it; the way back
is `build`'s. Refuses to guess: a subclass never becomes its base, a class that could not be found again is refused when
it is stored, not at recovery, and what nobody has taught the codec is named by its place.
"""

from __future__ import annotations

import enum
import functools
import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import datetime, time, timedelta, timezone, tzinfo
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import msgspec

from ..errors import InvalidDefinition, NotStorable
from .types import (
    BARE,
    DEEPEST,
    FACTORIES,
    LEAVES,
    TAG,
    TEXTS,
    Custom,
    Preview,
    dump,
    field_names,
    find_class,
    is_pydantic,
    name_of_class,
    registered,
    registered_by_name,
    short,
)

_LONGEST_BITS = 14_000


def register(cls: type, to_json: Callable[[Any], object], from_json: Callable[[Any], object]) -> None:
    """Store instances of exactly `cls` as what `to_json` returns, any storable value."""
    if not isinstance(cls, type):
        raise InvalidDefinition(f"register_type() takes a class, not {short(cls)}.")
    if cls in _TAGGERS or cls in LEAVES or cls in (float, list, dict):
        raise InvalidDefinition(f"register_type() cannot change how {cls.__qualname__} is stored.")
    for name, function in (("to_json", to_json), ("from_json", from_json)):
        if not callable(function):
            raise InvalidDefinition(f"{name} of register_type() must be a function, not {short(function)}.")
    custom = Custom(f"{cls.__module__}:{cls.__qualname__}", cls, to_json, from_json)
    registered[cls] = registered_by_name[custom.name] = custom


class Tagger:
    """Turns one value into plain JSON with tags. `place` names it in refusals, with the path below it."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._path: list[str | int] = []
        self._open: set[int] = set()

    def tag(self, value: object) -> object:
        kind = type(value)
        if kind is str:
            return value if value.isascii() else self._text(value)  # type: ignore
        if kind is int:
            return value if value.bit_length() <= _LONGEST_BITS else {TAG: "int", "v": hex(value)}  # type: ignore
        if kind is bool or value is None:
            return value
        if kind is float:
            return value if math.isfinite(value) else {TAG: "float", "v": str(value)}  # type: ignore
        if id(value) in self._open:
            self.refuse("it contains itself")
        if len(self._path) > DEEPEST:
            self.refuse(f"it is nested more than {DEEPEST} levels deep", place=self._place)
        self._open.add(id(value))
        tagged = self._tagger_of(kind)(self, value)
        self._open.discard(id(value))
        return tagged

    def inner(self, segment: str | int, value: object) -> object:
        """Tag a part of the value; `segment` is its index, or its place as text."""
        self._path.append(segment)
        tagged = self.tag(value)
        self._path.pop()
        return tagged

    def inner_list(self, values: Iterable[object]) -> list[object]:
        return [self.inner(index, value) for index, value in enumerate(values)]

    def inner_fields(self, values: Iterable[tuple[str, object]]) -> dict[str, object]:
        return {self._text(name): self.inner(f".{name}", value) for name, value in values}

    def refuse(self, problem: str, *, hint: str = "", place: str = "") -> NoReturn:
        segments = (f"[{part}]" if type(part) is int else str(part) for part in self._path)
        path = (place or self._place + "".join(segments)).encode("utf-8", "backslashreplace").decode()
        raise NotStorable(path if len(path) <= 300 else f"{path[:200]}…{path[-99:]}", problem, hint=hint)

    def class_name(self, cls: type) -> str:
        name = name_of_class(cls)
        if find_class(name) is not cls:
            self.refuse(
                f"its class {cls.__qualname__} cannot be found again in {cls.__module__}",
                hint="Define the class at the top level of a module.",
            )
        return name

    def _text(self, text: str) -> str:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            self.refuse(f"its text has a lone surrogate ({text[error.start]!r}) at position {error.start}")
        return text

    def _tagger_of(self, kind: type) -> Callable[[Tagger, Any], object]:
        if kind in registered:
            return _tag_custom
        tagger = _TAGGERS.get(kind)
        if tagger is not None:
            return tagger
        if issubclass(kind, enum.Enum):
            return _tag_enum
        if issubclass(kind, BaseException):
            return _tag_error
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return _tag_namedtuple
        if kind.__module__ == "freezegun.api":
            # A frozen clock hands out subclasses of datetime and date; they mean what they stand for.
            return _TAGGERS.get(kind.__mro__[1]) or _refuse_stranger
        if issubclass(kind, BARE):
            return _refuse_subclass
        if issubclass(kind, msgspec.Struct):
            return _tag_struct
        if is_pydantic(kind):
            return _tag_pydantic
        if field_names(kind) is not None:
            return _tag_dataclass
        return _refuse_stranger


def _tag_items(tag: str, tagger: Tagger, value: Iterable[object]) -> object:
    return {TAG: tag, "v": tagger.inner_list(value)}


def _tag_set(tag: str, tagger: Tagger, value: Iterable[object]) -> object:
    # Sorted, so that equal sets have equal bytes: the order of texts in a set differs between processes.
    return {TAG: tag, "v": sorted((tagger.inner(" (a member of it)", member) for member in value), key=dump)}


def _tag_text(tag: str, text: Callable[[Any], str], tagger: Tagger, value: object) -> object:
    return {TAG: tag, "v": tagger.inner("", text(value))}


def _tag_dict(tagger: Tagger, value: dict[Any, object]) -> object:
    if set(map(type, value)) <= {str} and TAG not in value:
        return {tagger.inner(f" key {short(key)}", key): tagger.inner(f"[{_quoted(key)}]", part) for key, part in value.items()}
    return {TAG: "dict", "v": _pairs(tagger, value)}


def _pairs(tagger: Tagger, value: dict[Any, object]) -> list[object]:
    return [[tagger.inner(f" key {short(key)}", key), tagger.inner(f"[{_quoted(key)}]", part)] for key, part in value.items()]


def _quoted(key: object) -> str:
    return dump(key).decode() if type(key) is str and key.isascii() else short(key)


def _tag_defaultdict(tagger: Tagger, value: defaultdict[Any, object]) -> object:
    factory = value.default_factory
    if factory is not None and factory not in FACTORIES.values():
        tagger.refuse("it is a defaultdict with a factory of its own", hint="Pass dict(value).")
    name = factory.__name__ if isinstance(factory, type) else None
    return {TAG: "defaultdict", "f": name, "v": _pairs(tagger, value)}


def _tag_datetime(tagger: Tagger, value: datetime) -> object:
    return {
        TAG: "datetime",
        "v": value.isoformat(),
        **_zone(tagger, value.tzinfo),
        **({"fold": 1} if value.fold else {}),
    }


def _tag_time(tagger: Tagger, value: time) -> object:
    return {
        TAG: "time",
        "v": value.isoformat(),
        **_zone(tagger, value.tzinfo),
        **({"fold": 1} if value.fold else {}),
    }


def _zone(tagger: Tagger, zone: tzinfo | None) -> dict[str, object]:
    kind = type(zone)
    if kind is ZoneInfo and zone.key:  # type: ignore[union-attr]
        return {"zone": zone.key}  # type: ignore[union-attr]
    if kind is timezone:
        name = zone.__reduce__()[1][1:]
        return {"name": tagger.inner(" zone", name[0])} if name else {}
    if zone is not None and not kind.__module__.startswith("pydantic_core"):
        tagger.refuse(f"its time zone is a {kind.__module__}.{kind.__qualname__}", hint="Use zoneinfo.ZoneInfo.")
    return {}


def _tag_zone(tagger: Tagger, value: tzinfo) -> object:
    if type(value) is ZoneInfo:
        return {TAG: "zone", "v": value.key} if value.key else tagger.refuse("it is a ZoneInfo without a key")
    return {TAG: "timezone", "v": [tagger.tag(part) for part in value.__reduce__()[1]]}


def _tag_enum(tagger: Tagger, value: enum.Enum) -> object:
    cls = type(value)
    node: dict[str, object] = {TAG: "enum", "c": tagger.class_name(cls)}
    # The name identifies a member; a combination of flags has none, and its value identifies it.
    if value._name_ in cls.__members__:
        node["n"] = value._name_
    try:
        node["v"] = tagger.inner(".value", value._value_)
    except NotStorable:
        if "n" not in node:
            raise
        tagger._path.pop()
    return node


def _tag_namedtuple(tagger: Tagger, value: Any) -> object:
    return {
        TAG: "namedtuple",
        "c": tagger.class_name(type(value)),
        "v": tagger.inner_fields(zip(value._fields, value, strict=True)),
    }


def _tag_dataclass(tagger: Tagger, value: Any) -> object:
    cls = type(value)
    names = field_names(cls) or ()
    node: dict[str, object] = {TAG: "dataclass", "c": tagger.class_name(cls)}
    node["v"] = tagger.inner_fields((name, getattr(value, name)) for name in names if hasattr(value, name))
    extra = [(name, part) for name, part in getattr(value, "__dict__", {}).items() if name not in names]
    kept = [(name, part) for name, part in extra if not isinstance(getattr(cls, name, None), functools.cached_property)]
    if kept:
        node["x"] = tagger.inner_fields(kept)
    return node


def _tag_struct(tagger: Tagger, value: msgspec.Struct) -> object:
    fields = ((name, getattr(value, name)) for name in value.__struct_fields__ if hasattr(value, name))
    return {TAG: "struct", "c": tagger.class_name(type(value)), "v": tagger.inner_fields(fields)}


def _tag_pydantic(tagger: Tagger, value: Any) -> object:
    cls = type(value)
    node: dict[str, object] = {TAG: "model", "c": tagger.class_name(cls)}
    node["v"] = tagger.inner_fields((k, v) for k, v in value.__dict__.items() if k in cls.model_fields)
    node["s"] = sorted(value.__pydantic_fields_set__)
    if value.__pydantic_extra__:
        node["x"] = tagger.inner_fields(value.__pydantic_extra__.items())
    private = {k: v for k, v in (value.__pydantic_private__ or {}).items() if type(v).__name__ != "PydanticUndefinedType"}
    if private:
        node["p"] = tagger.inner_fields(private.items())
    return node


def _tag_custom(tagger: Tagger, value: object) -> object:
    custom = registered[type(value)]
    try:
        stored = custom.to_json(value)
    except Exception as error:  # noqa: BLE001 - a user's converter
        tagger.refuse(f"the to_json() of {custom.cls.__qualname__} raised {short(error)}")
    return {TAG: "custom", "c": custom.name, "v": tagger.inner("", stored)}


def _tag_error(_: Tagger, value: BaseException) -> object:
    from .errors import tag_error

    return tag_error(value)


def _refuse_subclass(tagger: Tagger, value: object) -> NoReturn:
    kind = type(value)
    base = next(base for base in kind.__mro__ if base in BARE)
    tagger.refuse(
        f"it is a {kind.__module__}.{kind.__qualname__}, a subclass of {base.__name__} unknown to the codec",
        hint=f"Convert it with {base.__name__}(...), or use outlast.register_type().",
    )


def _refuse_stranger(tagger: Tagger, value: object) -> NoReturn:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if name == "coroutine":
        tagger.refuse("it is a coroutine", hint="Is an `await` missing?")
    if callable(getattr(kind, "result", None)) and hasattr(kind, "__await__"):
        tagger.refuse(f"it is a handle ({short(value)})", hint="Is its `.result()`, or an `await`, missing?")
    if isinstance(value, type):
        tagger.refuse(f"it is the class {value.__qualname__} itself", hint="Pass an instance, or its name.")
    article = "an" if name[:1] in "aeiouAEIOU" else "a"
    tagger.refuse(
        f"it is {article} {name}",
        hint="Pass plain data, a dataclass or a model, or use outlast.register_type().",
    )


_TAGGERS: dict[type, Callable[[Tagger, Any], object]] = {
    list: lambda tagger, value: tagger.inner_list(value),
    dict: _tag_dict,
    tuple: functools.partial(_tag_items, "tuple"),
    set: functools.partial(_tag_set, "set"),
    frozenset: functools.partial(_tag_set, "frozenset"),
    datetime: _tag_datetime,
    time: _tag_time,
    timedelta: lambda _, value: {TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]},
    ZoneInfo: _tag_zone,
    timezone: _tag_zone,
    range: lambda _, value: {TAG: "range", "v": [value.start, value.stop, value.step]},
    deque: lambda tagger, value: {TAG: "deque", "m": value.maxlen, "v": tagger.inner_list(value)},
    OrderedDict: lambda tagger, value: {TAG: "ordereddict", "v": _pairs(tagger, value)},
    Counter: lambda tagger, value: {TAG: "counter", "v": _pairs(tagger, value)},
    defaultdict: _tag_defaultdict,
    Preview: lambda tagger, value: {TAG: "preview", "v": tagger.inner(".text", value.text)},
    msgspec.UnsetType: lambda *_: {TAG: "unset"},
    **{kind: functools.partial(_tag_text, tag, text) for kind, (tag, text, _) in TEXTS.items()},
}

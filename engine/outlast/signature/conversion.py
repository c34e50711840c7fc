"""Outside input as annotated types: JSON, or a command line's text, becomes what a parameter says it is.

Owns the walk over an annotation: unions, containers, dataclasses and the like, down to what is converted whole
(`leaves`); each is then held against its constraints (`constraints`). Refuses nothing that it does not
understand: without an annotation, or with one that no value can be checked against, a value passes unchanged, and so does one that
is already an instance. Strict conversion is tried before a lenient one, so that a text stays a text where the annotation allows it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from collections import deque
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import msgspec

from ..codec.types import is_pydantic, load, registered
from ..errors import InvalidInput
from .constraints import constrained
from .hints import describe_type, hints_of_fields, metadata_of, required_keys, unwrapped
from .leaves import SCALARS, Misfit, built, check_fields, refuse, show, to_enum, to_literal, to_model, to_scalar

_LISTS: dict[Any, type] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    deque: deque,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    collections.abc.Set: set,
    collections.abc.MutableSet: set,
}
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_BOOLS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


def convert_value(value: object, annotation: Any, place: str) -> Any:
    """Convert a value from outside to the annotated type, or raise `InvalidInput` that names `place`."""
    try:
        return _convert(value, annotation, place)
    except Misfit as misfit:
        raise InvalidInput(str(misfit)) from misfit.__cause__
    except RecursionError:
        raise InvalidInput(f"{place} is nested too deeply.") from None


JSON_HINT = """In JSON, names and texts are in double quotes, as in {"by": ["eve"]}."""


def convert_text(text: str, annotation: Any, place: str) -> Any:
    """Convert a command line's text to the annotated type; without one, JSON if it parses, else the text."""
    try:
        return _convert_text(text, annotation, place)
    except Misfit as misfit:
        raise InvalidInput(str(misfit)) from misfit.__cause__
    except RecursionError:
        raise InvalidInput(f"{place} is nested too deeply.") from None


def parse_json(text: str, place: str) -> Any:
    try:
        return load(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise InvalidInput(f"{place} is not JSON: {show(text)}.", hint=JSON_HINT) from None


def _convert(value: Any, annotation: Any, place: str, strict: bool = False) -> Any:
    return constrained(_converted(value, annotation, place, strict), annotation, place)


def _converted(value: Any, annotation: Any, place: str, strict: bool) -> Any:
    hint = unwrapped(annotation)
    if hint is Any or hint is object or isinstance(hint, (str, typing.TypeVar, typing.ForwardRef)):
        return value
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, arguments, place, strict)
    if origin is typing.Literal:
        return to_literal(value, hint, arguments, place)
    if origin in _LISTS:
        return _convert_list(value, hint, _LISTS[origin], arguments, place, strict)
    if origin in _DICTS:
        return _convert_dict(value, hint, arguments, place, strict)
    if typing.is_typeddict(origin):
        return _convert_typeddict(value, origin, arguments, place, strict)
    if not isinstance(origin, type):
        return value
    if origin is type(None):
        return None if value is None else refuse(place, hint, value)
    return _convert_to_class(value, origin, annotation, place, strict)


def _convert_to_class(value: Any, cls: Any, annotation: Any, place: str, strict: bool) -> Any:
    if _is_instance(value, cls) and not (type(value) is bool and cls in (int, float)):
        return value
    if cls in registered:
        return built(registered[cls].from_json, value, cls, place)
    if is_pydantic(cls):
        return to_model(value, cls, place)
    if issubclass(cls, enum.Enum):
        return to_enum(value, cls, place)
    if cls in SCALARS:
        return to_scalar(value, cls, place, strict)
    arguments = typing.get_args(unwrapped(annotation))
    if dataclasses.is_dataclass(cls):
        return _convert_to_dataclass(value, cls, arguments, place, strict)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _convert_to_namedtuple(value, cls, arguments, place, strict)
    if issubclass(cls, msgspec.Struct):
        return _convert_to_struct(value, cls, unwrapped(annotation), place, strict)
    if issubclass(cls, PurePath) and isinstance(value, str):
        return Path(value) if cls is Path else cls(value)
    if getattr(cls, "_is_protocol", False):
        return value
    return refuse(place, cls, value)


def _is_instance(value: object, cls: type) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:
        return False


def _convert_union(value: Any, hint: Any, members: tuple[Any, ...], place: str, strict: bool) -> Any:
    # First what fits exactly, then what converts strictly, then leniently: "5" stays a text for `int | str`.
    for member in members:
        plain = unwrapped(member)
        if isinstance(plain, type) and type(value) is plain and plain not in _LISTS and plain not in _DICTS and not metadata_of(member):
            return value
    refusals: list[Exception] = []
    for is_strict in (True,) if strict else (True, False):
        for member in members:
            try:
                return _convert(value, member, place, is_strict)
            except (Misfit, InvalidInput) as refusal:
                refusals.append(refusal)
    # With one real candidate (Optional), its own refusal says more than that no member fits.
    real = [index for index, member in enumerate(members) if unwrapped(member) is not type(None)]
    if len(real) == 1:
        raise refusals[real[0]]
    return refuse(place, hint, value)


def _convert_list(value: Any, hint: Any, kind: type, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if not isinstance(value, (list, tuple, set, frozenset, deque)):
        refuse(place, hint, value)
    parts = list(value)
    if kind is tuple and arguments and arguments[-1] is not ...:
        wanted = () if arguments == ((),) else arguments
        if len(parts) != len(wanted):
            refuse(place, hint, value)
        return tuple(_convert(p, h, f"{place}[{i}]", strict) for i, (p, h) in enumerate(zip(parts, wanted, strict=True)))
    if arguments:
        parts = [_convert(part, arguments[0], f"{place}[{index}]", strict) for index, part in enumerate(parts)]
    try:
        return kind(parts)
    except TypeError:
        refuse(place, hint, value)  # a set of what cannot be hashed


def _convert_dict(value: Any, hint: Any, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if not isinstance(value, Mapping):
        refuse(place, hint, value)
    if len(arguments) != 2:
        return value
    found = {}
    for key, part in value.items():
        inner = f"{place}[{show(key)}]"
        # JSON has text keys alone, so that the key of a dict[int, ...] is a text there.
        name = _convert_text(key, arguments[0], f"{inner} (the key)") if type(key) is str else _convert(key, arguments[0], inner)
        found[name] = _convert(part, arguments[1], inner, strict)
    return found


def _convert_typeddict(value: Any, cls: Any, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if not isinstance(value, Mapping):
        refuse(place, cls, value)
    hints = hints_of_fields(cls, arguments)
    check_fields(value, hints, sorted(required_keys(cls, hints)), cls, place)
    return {name: _convert(part, hints[name], f"{place}[{show(name)}]", strict) for name, part in value.items()}


def _convert_to_dataclass(value: Any, cls: Any, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if not isinstance(value, Mapping):
        refuse(place, cls, value)
    hints = hints_of_fields(cls, arguments)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    missing = dataclasses.MISSING
    required = [n for n, field in fields.items() if field.default is missing and field.default_factory is missing]
    check_fields(value, fields, required, cls, place)
    values = {name: _convert(part, hints.get(name, object), f"{place}.{name}", strict) for name, part in value.items()}
    return built(cls, value, cls, place, **values) if values else built(lambda _: cls(), value, cls, place)


def _convert_to_namedtuple(value: Any, cls: Any, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if isinstance(value, (list, tuple)) and len(value) <= len(cls._fields):
        value = dict(zip(cls._fields, value, strict=False))
    if not isinstance(value, Mapping):
        refuse(place, cls, value)
    required = [name for name in cls._fields if name not in cls._field_defaults]
    check_fields(value, cls._fields, required, cls, place)
    hints = hints_of_fields(cls, arguments)
    return cls(**{name: _convert(part, hints.get(name, object), f"{place}.{name}", strict) for name, part in value.items()})


def _convert_to_struct(value: Any, cls: Any, annotation: Any, place: str, strict: bool) -> Any:
    def hook(kind: Any, part: Any) -> Any:
        return _convert(part, kind, place, strict)

    for is_strict in (True,) if strict else (True, False):
        try:
            return msgspec.convert(value, annotation, strict=is_strict, dec_hook=hook)
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            refusal = error
    raise InvalidInput(f"{place} must be {describe_type(cls)}, not {show(value)}: {refusal}.") from refusal


def _convert_text(text: str, annotation: Any, place: str) -> Any:
    hint = unwrapped(annotation)
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is str:
        return _convert(text, annotation, place)
    if origin is bool:
        return _BOOLS[text.lower()] if text.lower() in _BOOLS else refuse(place, "bool (true or false)", text)
    if origin in (typing.Union, types.UnionType):
        return _text_to_union(text, hint, arguments, place)
    if origin is typing.Literal:
        choices = {"null" if choice is None else str(getattr(choice, "value", choice)): choice for choice in arguments}
        spelt = text.capitalize() if text in ("true", "false") and text not in choices else text
        return choices[spelt] if spelt in choices else refuse(place, hint, text)
    if origin is type(None):
        return None if text in ("null", "None") else refuse(place, hint, text)
    if origin in SCALARS:
        return _convert(text, annotation, place)
    if _is_structured(origin):
        return _convert(_structure(text, hint, origin, place), annotation, place)
    found = _json_or_text(text)
    try:
        return _convert(found, annotation, place)
    except (Misfit, InvalidInput):
        if found == text:
            raise
        return _convert(text, annotation, place)


def _text_to_union(text: str, hint: Any, members: tuple[Any, ...], place: str) -> Any:
    plain = [unwrapped(member) for member in members]
    has_text = str in plain
    # With a text among the members, "null" is that text; key:=null gives None.
    ordered = [m for m, p in zip(members, plain, strict=True) if p is not str and not (has_text and p is type(None))]
    refusals: list[Exception] = []
    for member in [*ordered, *([str] if has_text else [])]:
        try:
            return _convert_text(text, member, place)
        except (Misfit, InvalidInput) as refusal:
            if unwrapped(member) is not type(None):
                refusals.append(refusal)
    if len(refusals) == 1:
        raise refusals[0]
    return refuse(place, hint, text)


def _is_structured(origin: Any) -> bool:
    if origin in _LISTS or origin in _DICTS or typing.is_typeddict(origin):
        return True
    if not isinstance(origin, type) or origin in registered:
        return False
    return (
        dataclasses.is_dataclass(origin)
        or issubclass(origin, msgspec.Struct)
        or (issubclass(origin, tuple) and hasattr(origin, "_fields"))
        or (is_pydantic(origin) and "root" not in getattr(origin, "model_fields", {}))
    )


def _structure(text: str, hint: Any, origin: Any, place: str) -> Any:
    try:
        found = load(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        found = None
    if isinstance(found, (list, dict)):
        return found
    parts = [part.strip() for part in text.split(",")] if text.isprintable() and len(text) < 60 else ["a", "b"]
    is_list = origin in _LISTS
    example = msgspec.json.encode([_json_or_text(part) for part in parts]).decode() if is_list else _example(origin)
    name = place.rpartition(" ")[2]
    raise InvalidInput(
        f"{place} must be {describe_type(hint)}, not {show(text)}.",
        hint=f"Write it as JSON: {name}='{example}'.",
    )


def _example(cls: Any) -> str:
    named = ("model_fields", "__struct_encode_fields__", "__dataclass_fields__", "__annotations__")
    names: list[str] = next((list(found) for name in named if (found := getattr(cls, name, None))), [])
    if not names:
        return '{"key": "value"}'
    return "{" + ", ".join(f'"{name}": ...' for name in names[:5]) + (", ...}" if len(names) > 5 else "}")


def _json_or_text(text: str) -> Any:
    try:
        return load(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text

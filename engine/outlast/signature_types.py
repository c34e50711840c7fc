"""Outside input as annotated types: JSON, or a command line's text, becomes what a parameter says it is.

Owns the walk over an annotation (unions, containers, dataclasses, models) and its sentences: each refusal
names the place, the value and the expected type. Refuses nothing that it does not understand: without an
annotation, or with one that no value can be checked against, a value passes unchanged, and so does one that
is already an instance. Strict conversion is tried before a lenient one, so that a text stays a text where
the annotation allows it. Pydantic is used where a model is a pydantic one, and never imported.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import types
import typing
from collections import deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any, NoReturn
from uuid import UUID

import msgspec

from .codec_types import is_pydantic, load, registered, short
from .duration import seconds
from .errors import InvalidInput, OutlastError

show = short
_SCALARS = (bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID)
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


class _Misfit(Exception):
    """A value that does not fit an annotation, at a place."""

    def __init__(self, place: str, expected: str, value: object) -> None:
        super().__init__(f"{place} must be {expected}, not {show(value)}.")


def convert_value(value: object, annotation: Any, place: str) -> Any:
    """Convert a value from outside to the annotated type, or raise `InvalidInput` that names `place`."""
    try:
        return _convert(value, annotation, place)
    except _Misfit as misfit:
        raise InvalidInput(str(misfit)) from misfit.__cause__
    except RecursionError:
        raise InvalidInput(f"{place} is nested too deeply.") from None


def convert_text(text: str, annotation: Any, place: str) -> Any:
    """Convert a command line's text to the annotated type; without one, JSON if it parses, else the text."""
    try:
        return _convert_text(text, annotation, place)
    except _Misfit as misfit:
        raise InvalidInput(str(misfit)) from misfit.__cause__
    except RecursionError:
        raise InvalidInput(f"{place} is nested too deeply.") from None


def parse_json(text: str, place: str) -> Any:
    try:
        return load(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        raise InvalidInput(f"{place} is no JSON: {show(text)}.") from None


def describe_type(annotation: Any) -> str:
    """An annotation as a person would write it."""
    annotation = _plain(annotation)
    if annotation is type(None):
        return "None"
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__qualname__.rpartition(".")[2]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(repr(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe_type(argument) for argument in arguments)
    if origin is not None and arguments:
        inner = ", ".join("..." if argument is ... else describe_type(argument) for argument in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return str(annotation).replace("typing.", "")


def _plain(annotation: Any) -> Any:
    """The annotation without `Annotated`, `NewType`, `Required` and the alias statement."""
    while True:
        if typing.get_origin(annotation) in (
            typing.Annotated,
            typing.Required,
            typing.NotRequired,
            typing.Final,
        ):
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return type(None) if annotation is None else annotation


def _convert(value: Any, annotation: Any, place: str, strict: bool = False) -> Any:
    hint = _plain(annotation)
    if hint is Any or hint is object or isinstance(hint, (str, typing.TypeVar, typing.ForwardRef)):
        return value
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, hint, arguments, place, strict)
    if origin is typing.Literal:
        return _convert_literal(value, hint, arguments, place)
    if origin in _LISTS:
        return _convert_list(value, hint, _LISTS[origin], arguments, place, strict)
    if origin in _DICTS:
        return _convert_dict(value, hint, arguments, place, strict)
    if typing.is_typeddict(origin):
        return _convert_typeddict(value, origin, arguments, place, strict)
    if not isinstance(origin, type):
        return value
    if origin is type(None):
        return None if value is None else _misfit(place, hint, value)
    return _convert_to_class(value, origin, annotation, place, strict)


def _convert_to_class(value: Any, cls: Any, annotation: Any, place: str, strict: bool) -> Any:
    if _is_instance(value, cls) and not (type(value) is bool and cls in (int, float)):
        return _check_constraints(value, annotation, cls, place)
    if cls in registered:
        return _call(registered[cls].from_json, value, cls, place)
    if is_pydantic(cls):
        return _convert_to_model(value, cls, place)
    if issubclass(cls, enum.Enum):
        return _convert_to_enum(value, cls, place)
    if cls in _SCALARS:
        return _convert_to_scalar(value, cls, annotation, place, strict)
    arguments = typing.get_args(_plain(annotation))
    if dataclasses.is_dataclass(cls):
        return _convert_to_dataclass(value, cls, arguments, place, strict)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _convert_to_namedtuple(value, cls, arguments, place, strict)
    if issubclass(cls, msgspec.Struct):
        return _convert_to_struct(value, cls, _plain(annotation), place, strict)
    if issubclass(cls, PurePath) and isinstance(value, str):
        return Path(value) if cls is Path else cls(value)
    if getattr(cls, "_is_protocol", False):
        return value
    return _misfit(place, cls, value)


def _is_instance(value: object, cls: type) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:
        return False


def _misfit(place: str, expected: Any, value: object) -> NoReturn:
    raise _Misfit(place, describe_type(expected), value)


def _call(build: Callable[..., Any], value: object, cls: Any, place: str, **fields: object) -> Any:
    """Build an instance with a class's own code, whose refusal becomes part of the sentence."""
    try:
        return build(**fields) if fields else build(value)
    except (OutlastError, RecursionError):
        raise
    except Exception as error:
        problem = show(str(error) or type(error).__name__, 200)
        raise InvalidInput(f"{place} must be {describe_type(cls)}, not {show(value)}: {problem}.") from error


def _check_constraints(value: Any, annotation: Any, cls: Any, place: str) -> Any:
    """Hold `Annotated[int, msgspec.Meta(ge=0)]` against a value that is an int already."""
    if annotation is cls or cls not in _SCALARS:
        return value
    try:
        return msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        raise _Misfit(place, f"{describe_type(cls)} ({error})", value) from error
    except Exception:  # noqa: BLE001 - an annotation that msgspec does not know
        return value


def _convert_union(value: Any, hint: Any, members: tuple[Any, ...], place: str, strict: bool) -> Any:
    # First what fits exactly, then what converts strictly, then leniently: "5" stays a text for `int | str`.
    for member in members:
        plain = _plain(member)
        if isinstance(plain, type) and type(value) is plain and plain not in _LISTS and plain not in _DICTS:
            return value
    refusals: list[Exception] = []
    for is_strict in (True,) if strict else (True, False):
        for member in members:
            try:
                return _convert(value, member, place, is_strict)
            except (_Misfit, InvalidInput) as refusal:
                refusals.append(refusal)
    # With one real candidate (Optional), its own refusal says more than that no member fits.
    real = [index for index, member in enumerate(members) if _plain(member) is not type(None)]
    if len(real) == 1:
        raise refusals[real[0]]
    _misfit(place, hint, value)


def _convert_literal(value: Any, hint: Any, choices: tuple[Any, ...], place: str) -> Any:
    for choice in choices:
        if choice == value and type(choice) is type(value):
            return choice
        if isinstance(choice, enum.Enum) and value in (choice.value, choice.name):
            return choice
    _misfit(place, hint, value)


def _convert_list(value: Any, hint: Any, kind: type, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if not isinstance(value, (list, tuple, set, frozenset, deque)):
        _misfit(place, hint, value)
    parts = list(value)
    if kind is tuple and arguments and arguments[-1] is not ...:
        wanted = () if arguments == ((),) else arguments
        if len(parts) != len(wanted):
            _misfit(place, hint, value)
        return tuple(_convert(p, h, f"{place}[{i}]", strict) for i, (p, h) in enumerate(zip(parts, wanted, strict=True)))
    if arguments:
        parts = [_convert(part, arguments[0], f"{place}[{index}]", strict) for index, part in enumerate(parts)]
    try:
        return kind(parts)
    except TypeError:
        _misfit(place, hint, value)  # a set of what cannot be hashed


def _convert_dict(value: Any, hint: Any, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if not isinstance(value, Mapping):
        _misfit(place, hint, value)
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
        _misfit(place, cls, value)
    hints = _hints(cls, arguments)
    _check_fields(value, hints, sorted(_required(cls, hints)), cls, place)
    return {name: _convert(part, hints[name], f"{place}[{show(name)}]", strict) for name, part in value.items()}


def _convert_to_dataclass(value: Any, cls: Any, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if not isinstance(value, Mapping):
        _misfit(place, cls, value)
    hints = _hints(cls, arguments)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    missing = dataclasses.MISSING
    required = [n for n, field in fields.items() if field.default is missing and field.default_factory is missing]
    _check_fields(value, fields, required, cls, place)
    values = {name: _convert(part, hints.get(name, object), f"{place}.{name}", strict) for name, part in value.items()}
    return _call(cls, value, cls, place, **values) if values else _call(lambda _: cls(), value, cls, place)


def _convert_to_namedtuple(value: Any, cls: Any, arguments: tuple[Any, ...], place: str, strict: bool) -> Any:
    if isinstance(value, (list, tuple)) and len(value) <= len(cls._fields):
        value = dict(zip(cls._fields, value, strict=False))
    if not isinstance(value, Mapping):
        _misfit(place, cls, value)
    required = [name for name in cls._fields if name not in cls._field_defaults]
    _check_fields(value, cls._fields, required, cls, place)
    hints = _hints(cls, arguments)
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


def _convert_to_model(value: Any, cls: Any, place: str) -> Any:
    try:
        return cls.model_validate(value)
    except RecursionError:
        raise
    except Exception as error:
        problem = show(str(error), 200)
        listed = getattr(error, "errors", None)
        if callable(listed) and (first := listed()[:1]):
            where = ".".join(str(part) for part in first[0]["loc"])
            problem = f"{where}: {first[0]['msg']}" if where else first[0]["msg"]
        shown = show(value)
        raise InvalidInput(f"{place} must be {describe_type(cls)}, not {shown}: {problem}.") from error


def _convert_to_enum(value: Any, cls: type[enum.Enum], place: str) -> Any:
    try:
        return cls(value)
    except (ValueError, TypeError):
        pass
    if isinstance(value, str) and value in cls.__members__:
        return cls.__members__[value]
    choices = " or ".join(show(member.value) for member in list(cls)[:10])
    raise _Misfit(place, f"{describe_type(cls)} ({choices})" if choices else describe_type(cls), value)


def _convert_to_scalar(value: Any, cls: Any, annotation: Any, place: str, strict: bool) -> Any:
    for is_strict in (True,) if strict else (True, False):
        try:
            return msgspec.convert(value, annotation, strict=is_strict)
        except (msgspec.ValidationError, UnicodeEncodeError):
            pass
        except TypeError:
            annotation = cls
    if isinstance(value, str) and not strict:
        try:
            if cls in (datetime, date, time):
                return cls.fromisoformat(value)
            if cls is timedelta:
                return timedelta(seconds=seconds(value))
        except (ValueError, InvalidInput):
            pass
    expected = "bytes (base64 text)" if cls is bytes else describe_type(cls)
    raise _Misfit(place, expected, value)


def _hints(cls: Any, arguments: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The types of a class's fields; those of `Box[int]` with its arguments put in."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
        known = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
        return {name: _put_in(hint, known) for name, hint in hints.items()} if known else hints
    except Exception:  # noqa: BLE001 - annotations are a stranger's expressions
        return dict.fromkeys(getattr(cls, "__annotations__", {}), object)


def _put_in(hint: Any, known: Mapping[Any, Any]) -> Any:
    if isinstance(hint, typing.TypeVar):
        return known.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if isinstance(hint, type) or not parameters:
        return hint
    return hint[tuple(known.get(parameter, parameter) for parameter in parameters)]


def _required(cls: Any, hints: Mapping[str, Any]) -> set[str]:
    """The keys that a typed dict must have: told by its hints, since Python misreads `Required` in postponed annotations."""
    asked = {name for name, hint in hints.items() if typing.get_origin(hint) is typing.Required}
    spared = {name for name, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired}
    return (set(cls.__required_keys__) | asked) - spared


def _check_fields(value: Mapping[Any, Any], known: Any, required: Any, cls: Any, place: str) -> None:
    for name in value:
        if name not in known:
            raise InvalidInput(f"{place} must be {describe_type(cls)}, which has no {show(name)}.")
    for name in required:
        if name not in value:
            raise InvalidInput(f"{place} must be {describe_type(cls)}: {name} is missing.")


def _convert_text(text: str, annotation: Any, place: str) -> Any:
    hint = _plain(annotation)
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is str:
        return _convert(text, annotation, place)
    if origin is bool:
        return _BOOLS[text.lower()] if text.lower() in _BOOLS else _misfit(place, "bool (true or false)", text)
    if origin in (typing.Union, types.UnionType):
        return _text_to_union(text, hint, arguments, place)
    if origin is typing.Literal:
        choices = {"null" if choice is None else str(getattr(choice, "value", choice)): choice for choice in arguments}
        return choices[text] if text in choices else _misfit(place, hint, text)
    if origin is type(None):
        return None if text in ("null", "None") else _misfit(place, hint, text)
    if origin in _SCALARS:
        return _convert(text, annotation, place)
    if _is_structured(origin):
        return _convert(_structure(text, hint, origin, place), annotation, place)
    found = _json_or_text(text)
    try:
        return _convert(found, annotation, place)
    except (_Misfit, InvalidInput):
        if found == text:
            raise
        return _convert(text, annotation, place)


def _text_to_union(text: str, hint: Any, members: tuple[Any, ...], place: str) -> Any:
    plain = [_plain(member) for member in members]
    has_text = str in plain
    # With a text among the members, "null" is that text; key:=null gives None.
    ordered = [m for m, p in zip(members, plain, strict=True) if p is not str and not (has_text and p is type(None))]
    refusals: list[Exception] = []
    for member in [*ordered, *([str] if has_text else [])]:
        try:
            return _convert_text(text, member, place)
        except (_Misfit, InvalidInput) as refusal:
            if _plain(member) is not type(None):
                refusals.append(refusal)
    if len(refusals) == 1:
        raise refusals[0]
    _misfit(place, hint, text)


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
    example = msgspec.json.encode([_json_or_text(part) for part in parts]).decode() if is_list else '{"key": "value"}'
    name = place.rpartition(" ")[2]
    raise InvalidInput(
        f"{place} must be {describe_type(hint)}, not {show(text)}.",
        hint=f"Write it as JSON: {name}='{example}'.",
    )


def _json_or_text(text: str) -> Any:
    try:
        return load(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text

"""Values that are converted whole: scalars, literals, enums, and models that check themselves.

Owns the refusal that names place, value and expected type, and what converts without a look at the parts of a value; `conversion`
walks containers and classes down to here. Strict conversion is tried before a lenient one. Pydantic is never imported.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

import msgspec

from ..codec.types import short
from ..errors import InvalidInput, OutlastError
from ..text.duration import seconds
from .hints import describe_type

show = short

SCALARS = (bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID)


class Misfit(Exception):
    """A value that does not fit an annotation, at a place."""

    def __init__(self, place: str, expected: str, value: object) -> None:
        super().__init__(f"{place} must be {expected}, not {show(value)}.")


def refuse(place: str, expected: Any, value: object) -> NoReturn:
    raise Misfit(place, describe_type(expected), value)


def built(build: Callable[..., Any], value: object, cls: Any, place: str, **fields: object) -> Any:
    """Build an instance with a class's own code, whose refusal becomes part of the sentence."""
    try:
        return build(**fields) if fields else build(value)
    except (OutlastError, RecursionError):
        raise
    except Exception as error:
        problem = show(str(error) or type(error).__name__, 200)
        raise InvalidInput(f"{place} must be {describe_type(cls)}, not {show(value)}: {problem}.") from error


def to_literal(value: Any, hint: Any, choices: tuple[Any, ...], place: str) -> Any:
    for choice in choices:
        if choice == value and type(choice) is type(value):
            return choice
        if isinstance(choice, enum.Enum) and value in (choice.value, choice.name):
            return choice
    refuse(place, hint, value)


def to_model(value: Any, cls: Any, place: str) -> Any:
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


def to_enum(value: Any, cls: type[enum.Enum], place: str) -> Any:
    try:
        return cls(value)
    except (ValueError, TypeError):
        pass
    if isinstance(value, str) and value in cls.__members__:
        return cls.__members__[value]
    choices = " or ".join(show(member.value) for member in list(cls)[:10])
    raise Misfit(place, f"{describe_type(cls)} ({choices})" if choices else describe_type(cls), value)


def to_scalar(value: Any, cls: Any, place: str, strict: bool) -> Any:
    for is_strict in (True,) if strict else (True, False):
        try:
            return msgspec.convert(value, cls, strict=is_strict)
        except (msgspec.ValidationError, UnicodeEncodeError):
            pass
    if isinstance(value, str) and not strict:
        try:
            if cls in (datetime, date, time):
                return cls.fromisoformat(value)
            if cls is timedelta:
                return timedelta(seconds=seconds(value))
        except (ValueError, InvalidInput):
            pass
    expected = "bytes (base64 text)" if cls is bytes else describe_type(cls)
    raise Misfit(place, expected, value)


def check_fields(value: Mapping[Any, Any], known: Any, required: Any, cls: Any, place: str) -> None:
    for name in value:
        if name not in known:
            raise InvalidInput(f"{place} must be {describe_type(cls)}, which has no {show(name)}.")
    for name in required:
        if name not in value:
            raise InvalidInput(f"{place} must be {describe_type(cls)}: {name} is missing.")

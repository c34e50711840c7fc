"""Annotations as they are meant, and as a person would write them.

Owns what a hint says once its wrappers are off, the hints of a class's fields (a generic's arguments put in), and the words that a
refusal names a type by. Refuses to look at values: that is `conversion`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any


def describe_type(annotation: Any) -> str:
    """An annotation as a person would write it."""
    annotation = unwrapped(annotation)
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


_WRAPPERS = (typing.Annotated, typing.Required, typing.NotRequired, typing.Final)


def _layers(annotation: Any) -> Iterator[Any]:
    """An annotation, and what is below each of its wrappers (also `NewType` and the alias statement), down to the type itself."""
    while True:
        yield annotation
        if typing.get_origin(annotation) in _WRAPPERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return


def unwrapped(annotation: Any) -> Any:
    """The annotation without its wrappers."""
    *_, innermost = _layers(annotation)
    return type(None) if innermost is None else innermost


def metadata_of(annotation: Any) -> list[Any]:
    """What `Annotated` says of a value, the innermost last."""
    return [one for layer in _layers(annotation) if typing.get_origin(layer) is typing.Annotated for one in layer.__metadata__]


def hints_of_fields(cls: Any, arguments: tuple[Any, ...] = ()) -> dict[str, Any]:
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


def required_keys(cls: Any, hints: Mapping[str, Any]) -> set[str]:
    """The keys that a typed dict must have: told by its hints, since Python misreads `Required` in postponed annotations."""
    asked = {name for name, hint in hints.items() if typing.get_origin(hint) is typing.Required}
    spared = {name for name, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired}
    return (set(cls.__required_keys__) | asked) - spared

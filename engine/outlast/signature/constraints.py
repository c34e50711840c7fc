"""Constraints inside `Annotated`: `msgspec.Meta`, and those of pydantic and annotated_types where pydantic is loaded.

Owns the look at a value that has been converted to its type already. Refuses to enforce what nobody here understands: other metadata says
something to somebody else. Pydantic is never imported: whoever writes its constraints has done so.
"""

from __future__ import annotations

import sys
import typing
from typing import Any

import msgspec

from .hints import describe_type, metadata_of
from .leaves import SCALARS, Misfit

_FOREIGN = ("pydantic", "annotated_types")
_PLAIN = (*SCALARS, list, dict, tuple, set, frozenset)
_MOST = 1_000
_adapters: dict[tuple[Any, int], tuple[Any, Any]] = {}
"""What pydantic has built for a type and a constraint: by its id (some have no hash), and with it, so that the id stays its own."""


def constrained(value: Any, annotation: Any, place: str) -> Any:
    """Hold a converted value against the constraints of its annotation. Pydantic's may change it, as `strip_whitespace` does."""
    metadata = metadata_of(annotation)
    if not metadata or value is None:
        return value
    kind = type(value) if type(value) in _PLAIN else Any
    for one in metadata:
        if isinstance(one, msgspec.Meta):
            _hold(value, kind, one, annotation, place)
        elif type(one).__module__.partition(".")[0] in _FOREIGN and "pydantic" in sys.modules:
            value = _validated(value, kind, one, annotation, place)
    return value


def _hold(value: Any, kind: Any, meta: msgspec.Meta, annotation: Any, place: str) -> None:
    try:
        msgspec.convert(value, typing.Annotated[kind, meta])
    except msgspec.ValidationError as error:
        raise Misfit(place, f"{describe_type(annotation)} ({error})", value) from error
    except Exception:  # noqa: BLE001 - a constraint that means nothing for this type
        return


def _validated(value: Any, kind: Any, constraint: Any, annotation: Any, place: str) -> Any:
    adapter = _adapter(kind, constraint)
    if adapter is None:
        return value
    try:
        return adapter.validate_python(value)
    except Exception as error:
        listed = getattr(error, "errors", None)
        first = listed()[:1] if callable(listed) else []
        problem = first[0]["msg"] if first else str(error) or type(error).__name__
        raise Misfit(place, f"{describe_type(annotation)} ({problem})", value) from error


def _adapter(kind: Any, constraint: Any) -> Any:
    key = kind, id(constraint)
    if key not in _adapters:
        if len(_adapters) >= _MOST:
            _adapters.clear()
        try:
            adapter = sys.modules["pydantic"].TypeAdapter(typing.Annotated[kind, constraint])
        except Exception:  # noqa: BLE001 - a constraint that means nothing for this type
            adapter = None
        _adapters[key] = constraint, adapter
    return _adapters[key][1]

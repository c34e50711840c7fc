"""What both halves of the codec speak of: the tag, the types that have one, and the classes that a name in the data can reach.

Owns the types that are stored as a text, those that an application registers, and the errors of data that this code cannot
read. `tags` turns values into `{"$t": tag, ...}` objects, `build` builds equal values of equal type from them.
Refuses to import: classes are looked up among loaded modules, by the dictionaries of module and class (a module's
`__getattr__` could import).
"""

from __future__ import annotations

import base64
import dataclasses
import sys
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import NoneType
from typing import Any
from uuid import UUID

import msgspec

from ..errors import OutlastError

TAG = "$t"
MARKER = b'{"$t":'
"""Occurs in encoded data if and only if a tag does: inside a JSON string the quotes would be escaped, and a
plain dict that holds the tag's key is stored as a tagged one."""

DEEPEST = 150
"""Levels of nesting. The limit keeps encoding and decoding clear of the interpreter's recursion limit."""

LEAVES = frozenset({NoneType, bool, int, str})
BARE = (str, int, float, complex, bytes, bytearray, list, dict, tuple, set, frozenset)

dump = msgspec.json.Encoder().encode
load = msgspec.json.Decoder().decode


class NotDecodable(OutlastError):
    """Stored data that this code cannot turn back into a value."""

    exit_code = 1


class ClassNotLoaded(NotDecodable):
    """Stored data names a class that no loaded module has."""

    def __init__(self, name: str) -> None:
        module, _, qualname = name.partition(":")
        if module in sys.modules:
            problem, hint = (
                f"has no class {qualname}",
                "Restore the class, or leave an alias under its old name.",
            )
        else:
            problem, hint = "is not loaded in this process", f"Import {module} where the workflow is defined."
        super().__init__(f"A stored value is of the class {qualname} of {module}, and that module {problem}.", hint=hint)
        self.name = name


@dataclasses.dataclass(frozen=True, slots=True)
class Preview:
    """The beginning of a value that was not kept whole."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True, slots=True)
class Custom:
    """A type that a user taught the codec."""

    name: str
    cls: type
    to_json: Callable[[Any], object]
    from_json: Callable[[Any], object]


registered: dict[type, Custom] = {}
registered_by_name: dict[str, Custom] = {}


def find_class(name: str) -> type | None:
    """The class `module:qualname` among loaded modules, or None. Runs no code of theirs."""
    module, _, qualname = name.partition(":")
    try:
        names: Mapping[str, object] = object.__getattribute__(sys.modules[module], "__dict__")
    except (KeyError, AttributeError):
        return None
    found: object = None
    for part in qualname.split("."):
        found = names.get(part)
        if not isinstance(found, type):
            return None
        names = found.__dict__
    return found if isinstance(found, type) else None


def name_of_class(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def short(value: object, limit: int = 80) -> str:
    """A `repr` for messages: cut, printable, and no error whatever the value is."""
    try:
        text = repr(value)
    except BaseException:  # noqa: BLE001 - a repr of a stranger's object may do anything
        text = f"<{type(value).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def is_pydantic(cls: object) -> bool:
    """Whether `cls` is a pydantic model class. Pydantic is looked at only if someone else has imported it."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def field_names(cls: type) -> tuple[str, ...] | None:
    if "__dataclass_fields__" in dir(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    attributes = getattr(cls, "__attrs_attrs__", None)
    return None if attributes is None else tuple(attribute.name for attribute in attributes)


FACTORIES: dict[str, type] = {kind.__name__: kind for kind in (list, dict, set, tuple, str, int, float, bool)}

TEXTS: dict[type, tuple[str, Callable[[Any], str], Callable[[str], object]]] = {
    Decimal: ("decimal", str, Decimal),
    UUID: ("uuid", str, UUID),
    date: ("date", date.isoformat, date.fromisoformat),
    bytes: ("bytes", lambda value: base64.b64encode(value).decode(), base64.b64decode),
    bytearray: (
        "bytearray",
        lambda value: base64.b64encode(value).decode(),
        lambda text: bytearray(base64.b64decode(text)),
    ),
    type(Path()): ("path", str, Path),
    PurePosixPath: ("pureposixpath", str, PurePosixPath),
    PureWindowsPath: ("purewindowspath", str, PureWindowsPath),
    complex: ("complex", repr, complex),
}

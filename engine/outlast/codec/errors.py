"""Errors as values, so that `except ThatError` matches on replay as it did on the first run.

Owns how an exception is stored (its class's name, arguments, attributes, notes, cause, context, members of
a group, traceback text). Refuses to fail: `encode_error` returns bytes whatever the error is; what cannot be
stored is dropped or becomes its `repr`, what is gigantic is cut. How it is built again is `errors_build`'s.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from ..errors import RemoteError
from .errors_build import LONGEST_REPR, NOT_ATTRIBUTES, ORIGIN, TRACEBACK, build_error, slots, validation_error
from .payloads import opened
from .tags import Tagger
from .types import TAG, NotDecodable, dump, load, name_of_class, short

_LONGEST_TEXT = 16_384
_BUDGET = 262_144
_LONGEST_CHAIN = 20
_SPENT_TEXT = 60
_MOST_FRAMES = 60
_MOST_KINDS = 20


def encode_error(error: BaseException) -> bytes:
    """Encode an error. Never raises: what cannot be stored of it is dropped or cut."""
    try:
        return dump(tag_error(error))
    except BaseException:  # noqa: BLE001 - an error that cannot be described must still be recorded
        kind = type(error)
        return dump(
            {
                TAG: "error",
                "type": clean(kind.__qualname__),
                "m": "",
                "c": clean(name_of_class(kind)),
                "tb": "",
            }
        )


def decode_error(data: bytes) -> BaseException:
    """Build the error again, of its own class where that is loaded, else a `RemoteError`."""
    data = opened(data)
    try:
        node = load(data)
        is_error = node[TAG] == "error"
    except Exception as problem:
        raise NotDecodable(f"Stored data is not an error: {short(data)}.") from problem
    if not is_error:
        raise NotDecodable(f"Stored data is not an error: {short(data)}.")
    try:
        return build_error(node)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as problem:
        raise NotDecodable(f"Stored data is not an error: {short(data)}.") from problem


def summary(data: bytes, *, within_groups: bool = False) -> dict[str, str]:
    """`type`, `message` and `traceback` of an encoded error, as text. Needs no class to be loaded.

    With `within_groups`, those of the first error that a group holds, which a group's own message does not tell.
    """
    try:
        node = load(opened(data))
    except (ValueError, RecursionError) as problem:
        raise NotDecodable(f"Stored data is not an error: {short(data)}.") from problem
    if not isinstance(node, dict):
        raise NotDecodable(f"Stored data is not an error: {short(data)}.")
    while within_groups and isinstance(inner := node.get("members"), list) and inner and isinstance(inner[0], dict):
        node = inner[0]
    found = {"type": node.get("type", ""), "message": node.get("m", ""), "traceback": node.get("tb", "")}
    return {key: text if isinstance(text, str) else "" for key, text in found.items()}


def clean(text: str, limit: int = _LONGEST_TEXT) -> str:
    """Text that can be stored: lone surrogates escaped, the middle cut out of what is too long."""
    if len(text) > limit:
        text = f"{text[: limit // 2]}… ({len(text) - limit:,} characters cut) …{text[-(limit // 2) :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def tag_error(error: BaseException) -> dict[str, Any]:
    """The error as JSON with tags."""
    return _Describer().describe(error, _LONGEST_CHAIN)


class _Describer:
    """Describes one error and those it holds, within one budget of bytes."""

    def __init__(self) -> None:
        self._left = _BUDGET
        self._seen: set[int] = set()
        self._done: dict[int, dict[str, Any]] = {}

    def describe(self, error: BaseException, room: int) -> dict[str, Any]:
        self._seen.add(id(error))
        kind = type(error)
        if isinstance(origin := error.__dict__.get(ORIGIN), dict):
            self._left -= len(dump(origin))
            return origin
        node: dict[str, Any] = {TAG: "error", "c": clean(name_of_class(kind)), "type": type_name(kind)}
        if kinds := _kinds(kind):
            node["b"] = kinds
        node["m"] = self._spend(_message(error))
        node["tb"] = self._spend(_traceback(error)) if self._left > 0 else ""
        members = _members(error)
        node["a"] = [self._argument(argument) for argument in (error.args[:1] if members else error.args)]
        if members:
            node["members"] = [self._inner(member, room) for member in members]
        if kind is validation_error():
            node["v"] = self._validation(error)
        attributes = dict(self._attributes(error))
        if attributes:
            node["d"] = attributes
        notes = getattr(error, "__notes__", None)
        if isinstance(notes, (list, tuple)) and notes:
            node["n"] = [self._spend(clean(note if type(note) is str else short(note))) for note in notes[:100]]
        self._describe_origin(error, node, room)
        self._done[id(error)] = node
        return node

    def _describe_origin(self, error: BaseException, node: dict[str, Any], room: int) -> None:
        if error.__cause__ is not None and self._may_describe(error.__cause__, room):
            node["cause"] = self._inner(error.__cause__, room)
        context = error.__context__
        if context is not None and not error.__suppress_context__ and self._may_describe(context, room):
            node["context"] = self._inner(context, room)
        if error.__suppress_context__:
            node["suppress"] = True

    def _may_describe(self, error: BaseException, room: int) -> bool:
        return room > 0 and self._left > 0 and id(error) not in self._seen

    def _inner(self, error: BaseException, room: int) -> dict[str, Any]:
        if room > 0 and id(error) not in self._seen:
            return self.describe(error, room - 1)
        kind = type(error)
        return {
            TAG: "error",
            "c": clean(name_of_class(kind)),
            "type": type_name(kind),
            "m": self._spend(_message(error)),
            "tb": "",
            "a": [],
        }

    def _spend(self, text: str) -> str:
        text = text if len(text) <= self._left else clean(text, max(self._left, _SPENT_TEXT))
        self._left -= len(text)
        return text

    def _argument(self, value: object) -> object:
        if type(value) is str:
            return self._spend(clean(value))
        stored, size = self._try(value)
        if size:
            self._left -= size
            return stored
        return self._spend(clean(short(value, LONGEST_REPR)))

    def _attributes(self, error: BaseException) -> Iterator[tuple[str, object]]:
        for name, value in _attribute_values(error):
            if type(value) is str:
                yield clean(name), self._spend(clean(value))
                continue
            stored, size = self._try(value)
            if size:
                self._left -= size
                yield clean(name), stored

    def _validation(self, error: Any) -> object:
        """What pydantic's own error is made of; it has no arguments. Inputs that cannot be stored are shown."""
        for keep in (_as_it_is, _shown):
            lines = [
                {**line, "input": keep(line["input"]), "ctx": {name: _text(keep(value)) for name, value in line.get("ctx", {}).items()}}
                for line in error.errors(include_url=False)
            ]
            stored, size = self._try([error.title, lines])
            if size:
                break
        self._left -= size
        return stored

    def _try(self, value: object) -> tuple[object, int]:
        """The value as JSON with tags, and its size: 0 if it cannot be stored, or is too big."""
        if isinstance(value, BaseException):
            if (known := self._done.get(id(value))) is not None:
                # An argument that is an attribute as well, as the `reason` of a URLError.
                size = len(dump(known))
                return (known, size) if size <= self._left else (None, 0)
            if not self._may_describe(value, 1):
                return None, 0
            return self._inner(value, 1), 1
        try:
            stored = Tagger("argument").tag(value)
            size = len(dump(stored))
        except Exception:  # noqa: BLE001 - a stranger's object
            return None, 0
        return (stored, size) if size <= min(_LONGEST_TEXT, self._left) else (None, 0)


def _as_it_is(value: object) -> object:
    return value


def _shown(value: object) -> object:
    return value if isinstance(value, (int, float, BaseException)) else clean(value, 200) if isinstance(value, str) else short(value)


def _text(value: object) -> object:
    return str(value) if isinstance(value, BaseException) else value


def type_name(kind: type) -> str:
    """The name of an error's type as a traceback shows it."""
    return clean(kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}")


def _kinds(kind: type) -> list[str]:
    """What else an `except` clause may call it, but for what all errors are; nothing of a class that is loaded everywhere."""
    if kind.__module__ in ("builtins", RemoteError.__module__):
        return []
    bases = [base for base in kind.__mro__[1:] if base not in (Exception, BaseException, object)]
    return [clean(name_of_class(base)) for base in bases[:_MOST_KINDS]]


def _message(error: BaseException) -> str:
    try:
        return clean(str(error))
    except BaseException:  # noqa: BLE001 - a __str__ that raises
        return ""


def _traceback(error: BaseException) -> str:
    original = error.__dict__.get(TRACEBACK)
    if isinstance(original, str):
        return clean(original)
    try:
        return clean("".join(traceback.format_exception(error, limit=-_MOST_FRAMES)))
    except BaseException:  # noqa: BLE001 - it calls __str__ and __repr__ of strangers
        return ""


def _members(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def _attribute_values(error: BaseException) -> Iterator[tuple[str, object]]:
    """What makes up the error: its dictionary, its slots, and what builtin errors keep in C (`errno`)."""
    for name, descriptor in slots(type(error)).items():
        try:
            value = descriptor.__get__(error, type(error))
        except Exception:  # noqa: BLE001 - unset, or not for reading
            continue
        if value is not None:
            yield name, value
    for name, value in error.__dict__.items():
        if type(name) is str and name not in NOT_ATTRIBUTES:
            yield name, value

"""Values as bytes: UTF-8 JSON with type tags, and back to equal values of equal type.

Owns the one form in which arguments, results, signals and errors are stored. Refuses what could not come
back: it raises `NotStorable` with the place of the offending part, there and then. Never pickles, never
imports. Plain JSON values take a fast path (a scan of exact types, then one call into msgspec), since every
durable call pays for it; everything else is in `tags` and `build`, errors as values in `errors`. `readable` and
`raw` are for people and scripts, and need none of the classes that the data names.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from ..errors import NotStorable
from . import payloads
from .build import untag
from .errors import decode_error, encode_error, summary
from .payloads import SEALED
from .tags import Tagger, register
from .types import DEEPEST, LEAVES, MARKER, TAG, ClassNotLoaded, NotDecodable, Preview, dump, load, short

__all__ = [
    "ClassNotLoaded",
    "NotDecodable",
    "Preview",
    "decode",
    "decode_error",
    "decode_input",
    "encode",
    "encode_error",
    "fingerprint",
    "is_json",
    "preview",
    "raw",
    "readable",
    "register_type",
    "summary",
]

T = TypeVar("T")
_READ_WHOLE = 65_536
_BROKEN = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


def encode(value: object, *, place: str = "value") -> bytes:
    """Encode a value as JSON with tags.

    Raises `NotStorable`, whose `place` is a path such as `result["items"][3]`, for what could not
    be decoded to an equal value.
    """
    try:
        if _is_plain(value, DEEPEST):
            try:
                return dump(value)
            except (UnicodeEncodeError, ValueError):
                pass  # a lone surrogate, or an int too long for decimal: the tagger knows the place, or a tag
        return dump(Tagger(place).tag(value))
    except RecursionError:
        raise NotStorable(place, "it is nested too deeply") from None


def decode(data: bytes) -> Any:
    """Decode to a value equal to the one that was encoded, of equal type. Raises `NotDecodable`, `PayloadUnreadable`."""
    try:
        value = load(data)
    except _BROKEN as error:
        # Asked only here, since every durable call pays for a question: nothing that is sealed is JSON.
        if data[:1] == SEALED:
            return decode(payloads.opened(data))
        raise _no_json(data) from error
    if MARKER not in data:
        return value
    try:
        return untag(value)
    except NotDecodable:
        raise
    except Exception as error:
        raise NotDecodable(f"Stored data cannot be turned back into a value: {short(error)}.") from error


def raw(data: bytes) -> Any:
    """The stored JSON with its tags."""
    return _load(payloads.opened(data))


def decode_input(data: bytes) -> dict[str, Any]:
    """The arguments by name that were stored for a call."""
    named = decode(data)
    if type(named) is not dict:
        raise NotDecodable(f"Stored data is not a set of arguments: {short(data)}.")
    return named


def is_json(data: bytes) -> bool:
    """Whether it can be what `encode` has written; false of bytes that something has damaged."""
    try:
        _load(data)
    except NotDecodable:
        return False
    return True


def readable(data: bytes) -> Any:
    """A JSON structure for people and scripts: a Decimal as text, a set as a list, a dataclass as an object.

    Needs no class to be loaded.
    """
    data = payloads.opened(data)
    value = _load(data)
    try:
        return value if MARKER not in data else _read(value)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise NotDecodable(f"Stored data cannot be turned back into a value: {short(error)}.") from error


def preview(data: bytes, limit: int) -> bytes:
    """Cut encoded data to at most `limit` bytes, still decodable (to a `Preview`); what fits is unchanged.

    It carries the fingerprint of the whole, by which equal data is known again.
    """
    if len(data) <= limit:
        return data
    source = dump(readable(data)) if MARKER in data and len(data) <= _READ_WHOLE else data
    room = limit
    whole = fingerprint(data).hex()
    while True:
        text = source[: max(room, 0)].decode("utf-8", "ignore").rstrip()
        cut = dump({TAG: "preview", "v": f"{text}…", "of": whole})
        if len(cut) <= limit or room <= 0:
            return cut
        # Quotes and control characters grow when they are escaped once more.
        room = min(room - 1, room * limit // len(cut))


def fingerprint(data: bytes) -> bytes:
    """16 bytes that are equal for equal encoded data."""
    return hashlib.blake2b(data, digest_size=16).digest()


def register_type(cls: type[T], to_json: Callable[[T], object], from_json: Callable[[Any], T]) -> None:
    """Store instances of exactly `cls` as what `to_json` returns, any storable value.

    Call it in the module that defines the workflow, so that every process that decodes has called it.
    """
    register(cls, to_json, from_json)


def _load(data: bytes) -> Any:
    try:
        return load(data)
    except _BROKEN as error:
        raise _no_json(data) from error


def _no_json(data: bytes) -> NotDecodable:
    return NotDecodable(f"Stored data is not JSON: {short(data)}.")


def _is_plain(value: object, room: int) -> bool:
    """Whether msgspec alone encodes it losslessly: exact types, finite floats, no tag's key."""
    kind = type(value)
    if kind in LEAVES:
        return True
    if kind is float:
        return value - value == 0.0  # type: ignore[operator, no-any-return]
    members: Iterable[object]
    if kind is list:
        members = value  # type: ignore[assignment]
    elif kind is dict:
        for key in value:  # type: ignore[attr-defined]
            if type(key) is not str or key == TAG:
                return False
        members = value.values()  # type: ignore[attr-defined]
    else:
        return False
    if len(value) > 12 and LEAVES.issuperset(map(type, members)):  # type: ignore[arg-type]
        return True
    for member in members:
        if type(member) not in LEAVES and not (room and _is_plain(member, room - 1)):
            return False
    return True


def _read(node: Any) -> Any:
    if type(node) is list:
        return [_read(part) for part in node]
    if type(node) is not dict:
        return node
    if TAG in node:
        reader = _READERS.get(node[TAG])
        return reader(node) if reader is not None else _read(node.get("v"))
    return {key: _read(part) for key, part in node.items()}


def _read_pairs(node: Any) -> Any:
    """An object if the keys stay apart as text, else the pairs."""
    pairs = [(_read(key), _read(part)) for key, part in node["v"]]
    named = {key if type(key) is str else dump(key).decode(): part for key, part in pairs}
    return named if len(named) == len(pairs) else [list(pair) for pair in pairs]


def _read_bytes(node: Any) -> str:
    try:
        text = base64.b64decode(node["v"]).decode()
    except ValueError:
        return str(node["v"])
    return text if text.isprintable() else str(node["v"])


def _read_object(node: Any) -> Any:
    return _read({**node["v"], **node.get("x", {})})


def _read_enum(node: Any) -> Any:
    return _read(node["v"]) if "v" in node else node["n"]


def _read_error(node: Any) -> Any:
    return {key: node[name] for key, name in (("type", "type"), ("message", "m"))}


_READERS: dict[str, Callable[[Any], Any]] = {
    "float": lambda node: {"nan": "NaN", "inf": "Infinity"}.get(node["v"], "-Infinity"),
    "dict": _read_pairs,
    "ordereddict": _read_pairs,
    "counter": _read_pairs,
    "defaultdict": _read_pairs,
    "bytes": _read_bytes,
    "bytearray": _read_bytes,
    "timedelta": lambda node: timedelta(*node["v"]).total_seconds(),
    "range": lambda node: list(node["v"]),
    "dataclass": _read_object,
    "model": _read_object,
    "enum": _read_enum,
    "error": _read_error,
    "unset": lambda _: None,
}

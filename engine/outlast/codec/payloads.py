"""Payloads at rest: the application's own codec, which encrypts or compresses what is stored.

Owns the codecs that an application has registered, and the marker by which stored bytes say which of them wrote them: so plain payloads
stay readable, and several codecs stand side by side while keys are rotated. Refuses to guess: bytes of a codec that is not registered,
or that it cannot decode, are `PayloadUnreadable`, whose text names it; what cannot be encoded is not stored plain instead. Everything
above the store sees plain bytes: fingerprints, previews and comparisons are made before bytes are sealed, and are sealed with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..errors import InvalidDefinition, OutlastError, PayloadNotEncoded, PayloadUnreadable

SEALED = b"\0"
"""What sealed bytes begin with, and no JSON does. The length of the codec's name follows, its name, and what it made."""

_LONGEST_NAME = 100


class PayloadCodec(Protocol):
    """Turns payload bytes into what is stored, and back. Called from any thread; `decode(encode(data)) == data`."""

    @property
    def name(self) -> str:
        """Stands beside everything that it writes; a key that is rotated has a codec, and a name, of its own."""

    def encode(self, data: bytes, /) -> bytes: ...

    def decode(self, data: bytes, /) -> bytes: ...


_codecs: dict[str, PayloadCodec] = {}

writer: PayloadCodec | None = None
"""The codec that writes; None where payloads are stored as they are, which then costs nothing."""

look_further: Callable[[], object] | None = None
"""Loads the code that may register a codec not known so far: of commands that need no code else."""


def register_payload_codec(codec: PayloadCodec, *, writes: bool = True) -> None:
    """Store payloads as `codec` makes them. Call it in a module of the app, so that every process of it has called it.

    One codec writes; those registered with `writes=False` only read what they once wrote. One of the same name replaces the one
    before, as when a module is loaded again.
    """
    global writer
    name = getattr(codec, "name", None)
    if not isinstance(name, str) or not name or len(name.encode()) > _LONGEST_NAME or not name.isprintable():
        raise InvalidDefinition(f"The name of a payload codec must be 1 to {_LONGEST_NAME} printable bytes, not {name!r}.")
    if not callable(getattr(codec, "encode", None)) or not callable(getattr(codec, "decode", None)):
        raise InvalidDefinition(f"The payload codec {name!r} needs the methods encode(bytes) and decode(bytes).")
    if writes and writer is not None and writer.name != name:
        raise InvalidDefinition(
            f"Two payload codecs would write: {writer.name!r} and {name!r}.",
            hint="Register the one that only reads old payloads with writes=False.",
        )
    if writes:
        writer = codec
    elif writer is not None and writer.name == name:
        writer = None
    _codecs[name] = codec


def seal(data: bytes) -> bytes:
    """The stored form; what is sealed already, and nothing at all, is left as it is."""
    codec = writer
    if codec is None or not data or data[:1] == SEALED:
        return data
    try:
        made = codec.encode(data)
    except Exception as error:
        raise PayloadNotEncoded(codec.name, type(error).__name__) from error
    if not isinstance(made, bytes):
        raise PayloadNotEncoded(codec.name, f"it gave {type(made).__name__}, not bytes")
    name = codec.name.encode()
    return b"".join((SEALED, bytes((len(name),)), name, made))


def opened(data: bytes) -> bytes:
    """The plain bytes of what is stored. Raises `PayloadUnreadable`."""
    if data[:1] != SEALED:
        return data
    name, made = _parts(data)
    codec = _codecs.get(name)
    if codec is None and look_further is not None:
        try:
            look_further()
        except (OutlastError, SystemExit) as error:
            raise PayloadUnreadable(name, f"the app that may register it cannot be loaded: {error}") from error
        codec = _codecs.get(name)
    if codec is None:
        raise PayloadUnreadable(name, "it is not registered here")
    try:
        plain = codec.decode(made)
    except Exception as error:
        raise PayloadUnreadable(name, f"it fails by {type(error).__name__}") from error
    if not isinstance(plain, bytes):
        raise PayloadUnreadable(name, f"it gave {type(plain).__name__}, not bytes")
    return plain


def need_writer(beside: bytes) -> None:
    """Raise `PayloadNotEncoded` where `beside` is sealed, and no codec writes here even once the app is loaded."""
    if writer is None and beside[:1] == SEALED:
        opened(beside)
        if writer is None:
            raise PayloadNotEncoded(_parts(beside)[0], "it is registered here to read only")


def is_current(data: bytes) -> bool:
    """Whether it is stored as it would be now: plain, or by the codec that writes."""
    name = writer.name if writer is not None else None
    return (_parts(data)[0] if data[:1] == SEALED else None) == name


def told(error: BaseException, text: str) -> str:
    """What a plain column may say of an error: `text`, or its type alone where payloads are sealed."""
    return text if writer is None else f"{type(error).__name__} (its text is not kept in plain)"


def forget_all() -> None:
    """As if none had been registered: for tests."""
    global writer
    writer = None
    _codecs.clear()


def _parts(data: bytes) -> tuple[str, bytes]:
    length = data[1] if len(data) > 1 else 0
    return data[2 : 2 + length].decode(errors="replace"), data[2 + length :]

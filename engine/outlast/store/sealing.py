"""Operations as the file gets them: every payload in them sealed by the application's codec, where it has one.

Owns which bytes of an operation are payloads: all of them, but for the ids that some entries carry in their place, and what a question
to a person holds. Refuses to open what is stored while something is committed: the store, doctor and prune go on without the key. So what
the undo has to know of a sealed error (that its try may have taken effect) becomes a flag beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ..codec import payloads
from ..errors import PayloadNotEncoded
from ..journal.entry import UNSURE, Entry
from ..journal.plan import is_known
from ..operations import StrayEnded
from ..operations.atomic import Operation, Refused

S = TypeVar("S", bound=Struct)

log = logging.getLogger("outlast")

_IDS = ("started", "cancelled")
"""Events whose `data` names a task: what SQL, and whoever has no key, must be able to read."""


def sealed(operation: S) -> S:
    """The same with its payloads sealed. Raises `PayloadNotEncoded`."""
    changed = {}
    is_entry = isinstance(operation, Entry)
    for name in operation.__struct_fields__:
        value = getattr(operation, name)
        if is_entry and name == "data" and (operation.event in _IDS or operation.kind == "question"):  # type: ignore[attr-defined]
            continue
        stored = _stored(value)
        if stored is not value:
            changed[name] = stored
    if is_entry and "data" in changed and operation.event == "failed" and not is_known(operation):  # type: ignore
        changed["flags"] = operation.flags | UNSURE  # type: ignore[attr-defined]
    return replace(operation, **changed) if changed else operation


def sealed_or_refused(operation: Operation[Any]) -> Operation[Any]:
    """The same sealed; where that fails, an operation that does nothing and has this error as its answer."""
    try:
        return sealed(operation)
    except PayloadNotEncoded as error:
        log.error("%s was not written: %s", type(operation).__name__, error)
        if isinstance(operation, StrayEnded) and operation.entry is not None:
            # That the try has ended has to be known, else its run's ending waits for it; what came of it is not.
            return replace(operation, entry=None)
        return Refused(error)


def opened(some: Iterable[S]) -> list[S]:
    """Entries, or what a run has inherited, in plain. Raises `PayloadUnreadable`."""
    return [_opened(one) for one in some]


def _opened(one: Any) -> Any:
    given, data = one.input, one.data
    if (given is None or given[:1] != payloads.SEALED) and (data is None or data[:1] != payloads.SEALED):
        return one
    return replace(
        one, input=None if given is None else payloads.opened(given), data=None if data is None else payloads.opened(data)
    )  # fmt: skip


def _stored(value: Any) -> Any:
    if type(value) is bytes:
        return payloads.seal(value)
    if isinstance(value, Struct):
        return sealed(value)
    if type(value) in (list, tuple) and any(isinstance(part, bytes | Struct) for part in value):
        return type(value)(_stored(part) for part in value)
    return value

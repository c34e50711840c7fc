"""Stored values as JSON for people and scripts.

Owns the one way in which the views show values, errors and instants. Refuses to raise: a value that cannot
be read is shown as a sentence that says so, since a view that fails would hide the rest of the run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .. import clock, codec
from ..errors import OutlastError

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore


_OWN = f"{OutlastError.__module__}."


def value_json(data: bytes | None, *, raw: bool = False) -> Any:
    """A stored value in readable JSON, or with its tags; None where there is none."""
    if data is None:
        return None
    try:
        return codec.raw(data) if raw else codec.readable(data)
    except (OutlastError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"(cannot be read: {error})"


def error_json(data: bytes | None, *, deepest: bool = False) -> dict[str, str] | None:
    """`type`, `message` and `traceback` of a stored error; None where there is none. The message of a group names the first error that it
    holds: its own only counts them. The `deepest` of a group is that first error itself.
    """
    found, inner = _read_error(data)
    if deepest:
        return inner or found
    return found if found is None or inner is None else {**found, "message": f"{found['message']}, the first {_in_one_line(inner)}"}


def same_error(one: dict[str, str] | None, other: dict[str, str] | None) -> bool:
    """Whether two errors say the same: the traceback grows on the way."""
    return one is not None and other is not None and (one["type"], one["message"]) == (other["type"], other["message"])


def _read_error(data: bytes | None) -> tuple[dict[str, str] | None, dict[str, str] | None]:
    """An error, and where it is a group the first that it holds."""
    if data is None:
        return None, None
    try:
        found, inner = (
            {**one, "type": shown_type(one["type"])} for one in (codec.summary(data, within_groups=within) for within in (False, True))
        )
    except (OutlastError, ValueError, LookupError, TypeError, AttributeError) as error:
        return {"type": "unknown", "message": f"(cannot be read: {error})", "traceback": ""}, None
    return found, inner if inner != found else None


def shown_type(name: str) -> str:
    """The name of an error's class as its users write it: of our own errors, without the module that they are defined in."""
    return name.removeprefix(_OWN)


def error_line(data: bytes | None) -> str:
    """An error in one line: its type and the first line of its message; of a group, those of its first error too."""
    found, inner = _read_error(data)
    if found is None:
        return "no error was recorded"
    text = _in_one_line(found)
    return text if inner is None else f"{text}, the first {_in_one_line(inner)}"


def _in_one_line(error: dict[str, str]) -> str:
    lines = error["message"].splitlines()
    first = lines[0] if lines else ""
    return f"{error['type']}: {first}" if first else error["type"]


def tags_json(text: str | None) -> dict[str, str]:
    """The tags of a run; where they cannot be read, one that says so."""
    try:
        tags = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        tags = None
    return tags if isinstance(tags, dict) else {"?": "(cannot be read)"}


def wall_json(wall_at: int | None) -> str | None:
    """A wall instant as ISO 8601 in UTC."""
    return None if wall_at is None else _iso(wall_at)


def engine_json(store: SqliteStore, engine_at: int | None) -> str | None:
    """An engine instant as ISO 8601 in UTC: when it is, or was, due as the wall clock is set now."""
    return None if engine_at is None else _iso(store.engine_time().to_wall(engine_at))


_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_000


def _iso(wall_at: int) -> str:
    # A delay of a thousand years and more is legal, a datetime after the year 9999 is not.
    return clock.iso(min(max(wall_at, _FIRST), _LAST))

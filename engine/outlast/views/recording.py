"""A run as `outlast export` records it, for a replay elsewhere: as an agent would claim it, with its journal.

Owns the form of `recording`: payloads in plain, instants as ISO 8601 in UTC to the microsecond, since a replay gives them to the code
again. Reads old ones too, whose instants are numbers. Refuses to replay.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from .. import clock
from ..codec import payloads
from ..store import journal, sealing
from .open_runs import recorded_run

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_WALL = ("at", "started_at", "tick")
_ENGINE = ("due_at", "deadline_at")
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999


def recording_json(store: SqliteStore, task_id: int) -> dict[str, Any]:
    """Raises `PayloadUnreadable`."""
    claimed = recorded_run(store.connection(), task_id)
    claimed.input = payloads.opened(claimed.input)
    entries = sealing.opened(journal.load(store.connection(), task_id))
    return {"claimed": _written(store, claimed), "journal": [_written(store, entry) for entry in entries]}


def read_instants(recording: Any) -> Any:
    """The same with its instants as numbers, whichever way they were written. Raises `ValueError`, `TypeError`."""
    return {"claimed": _read(recording["claimed"]), "journal": [_read(entry) for entry in recording["journal"]]}


def _written(store: SqliteStore, struct: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(struct)
    time = store.engine_time()
    for name in (*_WALL, *_ENGINE):
        if found.get(name) is not None:
            wall_at = found[name] if name in _WALL else time.to_wall(found[name])
            wall_at = min(max(wall_at, _FIRST), _LAST)
            found[name] = clock.to_datetime(wall_at).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return found


def _read(fields: dict[str, Any]) -> dict[str, Any]:
    texts = {name: fields[name] for name in (*_WALL, *_ENGINE) if isinstance(fields.get(name), str)}
    return {**fields, **{name: clock.from_datetime(datetime.fromisoformat(text)) for name, text in texts.items()}}

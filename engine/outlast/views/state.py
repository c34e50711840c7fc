"""What a run says while it goes on: published values, and the messages of its streams.

Owns their reading, as stored bytes for the handles and as JSON for screens. Refuses to wait: who follows a
stream asks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import KeyNotFound
from .values import value_json, wall_json

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_VALUE = "select value from outlast_published where task_id = :id and key = :key"

_KEYS = "select key from outlast_published where task_id = :id order by key"


def published_value(store: SqliteStore, task_id: int, key: str, *, run_id: str) -> bytes:
    """The stored value that a run has published under `key`. Raises `KeyNotFound`, which lists the keys
    there are.
    """
    connection = store.connection()
    try:
        row = connection.execute(_VALUE, {"id": task_id, "key": key}).fetchone()
    except UnicodeEncodeError:
        row = None  # A lone surrogate: no stored key has one.
    if row is None:
        keys = [found for (found,) in connection.execute(_KEYS, {"id": task_id})]
        hint = f"It has published {', '.join(keys)}." if keys else "It has published nothing so far."
        raise KeyNotFound(f"Run {run_id} has published no {key!r}.", hint=hint)
    value: bytes = row[0]
    return value


_UID = "select uid from outlast_task where id = :id"


def uid_of(store: SqliteStore, task_id: int) -> str | None:
    """The id of a run by its number; None where it has been pruned meanwhile."""
    row = store.connection().execute(_UID, {"id": task_id}).fetchone()
    return None if row is None else row[0]


_INPUT = "select i.data from outlast_task t join outlast_input i on i.task_id = t.id where t.uid = :uid"


def stored_input(store: SqliteStore, uid: str) -> bytes:
    """The input of a run as it is stored; nothing where there is no such run."""
    row = store.connection().execute(_INPUT, {"uid": uid}).fetchone()
    return b"" if row is None else row[0]


_OUTPUT = "select output from outlast_outcome where task_id = :id"


def stored_output(store: SqliteStore, task_id: int) -> bytes | None:
    """What a run has returned, as it is stored."""
    row = store.connection().execute(_OUTPUT, {"id": task_id}).fetchone()
    return None if row is None else row[0]


_PUBLISHED = "select key, value, at from outlast_published where task_id = :id order by key"


def published_json(store: SqliteStore, task_id: int, *, raw: bool = False) -> dict[str, Any]:
    """All published values by key."""
    return {key: value_json(value, raw=raw) for key, value, _ in store.connection().execute(_PUBLISHED, {"id": task_id})}


def published_list(store: SqliteStore, task_id: int, *, raw: bool = False) -> list[dict[str, Any]]:
    """All published values in the order of their keys, each with the wall instant at which it was set."""
    rows = store.connection().execute(_PUBLISHED, {"id": task_id})
    return [{"key": key, "value": value_json(value, raw=raw), "at": wall_json(at)} for key, value, at in rows]


_MESSAGES = """
select number, value, at, step, try_number from outlast_stream
where task_id = :id and stream = :stream and number > :after
order by number limit :limit
"""

_BATCH = 500


def messages(
    store: SqliteStore, task_id: int, stream: str, *, after: int = 0, limit: int = _BATCH
) -> list[tuple[int, bytes, int, str | None, int | None]]:
    """(number, stored value, wall instant, path of the step, try) of the messages after a number."""
    rows = store.connection().execute(_MESSAGES, {"id": task_id, "stream": stream, "after": after, "limit": limit})
    return [tuple(row) for row in rows]


def messages_json(store: SqliteStore, task_id: int, stream: str, *, after: int = 0, raw: bool = False) -> list[dict[str, Any]]:
    """The next messages of a stream after a number."""
    return [message_json(*one, raw=raw) for one in messages(store, task_id, stream, after=after)]


def message_json(number: int, value: bytes, at: int, step: str | None, try_number: int | None, *, raw: bool = False) -> dict[str, Any]:
    """A message for screens."""
    return {"number": number, "value": value_json(value, raw=raw), "at": wall_json(at), "step": step, "try_number": try_number}


_STREAMS = "select distinct stream from outlast_stream where task_id = :id order by stream"


def stream_names(store: SqliteStore, task_id: int) -> list[str]:
    return [name for (name,) in store.connection().execute(_STREAMS, {"id": task_id})]

"""What a shell offers where a name is expected: workflows of the app, runs, schedules and queues of the file, statuses.

Owns the look for each. Refuses to write, to wait, and to say anything: whatever goes wrong, nothing is offered. Only names of workflows
need the app's code; the rest is one query on a connection that cannot write.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..states import Status

if TYPE_CHECKING:
    from .context import Context

_MOST = 50

_QUERIES = {
    "run": "select uid, name || ', ' || status from outlast_task"
    " where kind = 'run' and uid >= :begun and uid < :begun || 'zzzzzzzzzzzzzzzzzzzz' order by id desc limit :most",
    "queue": "select name, '' from outlast_queue where substr(name, 1, length(:begun)) = :begun order by name limit :most",
    "schedule": "select name, description from outlast_schedule"
    " where gone_at is null and substr(name, 1, length(:begun)) = :begun order by name limit :most",
}


def offered(kind: str, context: Context, begun: str) -> list[tuple[str, str]]:
    """Names that begin so, each with a word about it."""
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return [(name, about) for name, about in _found(kind, context, begun) if name.startswith(begun)]
    except (Exception, SystemExit):  # noqa: BLE001 - a shell that completes has no place for it
        return []


def _found(kind: str, context: Context, begun: str) -> Iterator[tuple[str, str]]:
    if kind == "status":
        yield from ((str(status), "") for status in (*Status, "paused"))
    elif kind == "workflow":
        # By name: several versions are one to whoever starts it.
        found = {one.name: (one.fn.__doc__ or "").strip().partition("\n")[0] for one in context.registry.workflows()}
        yield from found.items()
    else:
        if kind == "queue":
            yield "default", ""
        yield from _read(kind, context.path, begun)


def _read(kind: str, path: str, begun: str) -> list[tuple[str, str]]:
    from ..store.library import sqlite3

    with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=0.2)) as connection:
        return [(name, about) for name, about in connection.execute(_QUERIES[kind], {"begun": begun, "most": _MOST}) if name != "default"]

"""Starts from outside as values, and a start inside the caller's own transaction.

Owns the merge of a definition's options with a call's, the limits on what is given, and the outbox: a run
that is there if and only if the caller's own changes are. Refuses a connection of the other SQLite library,
to another file, or in no transaction. What a start writes is the store's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import clock, codec, registry
from .errors import InvalidInput, PayloadTooLarge, QueueNotFound, WrongSQLite
from .model import DEFAULT_QUEUE, new_id, workflow_code
from .operations import Start, Started
from .stored_retry import stored_retry

if TYPE_CHECKING:
    from .definition import Workflow
    from .options import Options
    from .settings import Settings
    from .store.sqlite import SqliteStore


def start_operation(
    definition: Workflow[..., Any],
    named: Mapping[str, object],
    options: Options,
    settings: Settings,
    *,
    key: str | None = None,
    has_queue: Callable[[str], bool] = lambda _: False,
) -> Start:
    """The start of a run from outside, as a value. Raises `NotStorable`, `PayloadTooLarge`, `QueueNotFound`.

    `has_queue` is asked about a queue that this process does not declare.
    """
    place = f"the arguments of {definition.name}"
    data = codec.encode(dict(named), place=place)
    if len(data) > settings.max_payload:
        raise PayloadTooLarge(place, len(data), settings.max_payload)
    queue = options.queue or definition.queue or DEFAULT_QUEUE
    try:
        registry.queue(queue)
    except QueueNotFound:
        if not has_queue(queue):
            raise
    timeout = options.timeout_seconds if options.timeout_seconds is not None else definition.timeout_seconds
    uid = new_id(clock.wall())
    return Start(
        uid=uid,
        kind="run",
        name=definition.name,
        needs=workflow_code(definition.name, definition.version),
        version=definition.version,
        queue=queue,
        input=data,
        partition=options.partition,
        priority=options.priority,
        delay=_microseconds(options.delay_seconds),
        at_wall=None if options.at is None else clock.from_datetime(options.at),
        key=key if key is not None else options.key,
        unique_key=options.unique_key,
        if_exists=options.if_exists,
        debounce=_microseconds(options.debounce_seconds),
        debounce_max=_microseconds(options.debounce_max_seconds),
        tags=json.dumps(dict(options.tags)) if options.tags else None,
        timeout=_microseconds(timeout),
        chain=uid,
        options=stored_retry(options.retry) if options.retry is not None else None,
        max_crashes=definition.max_crashes,
    )


def start_within(store: SqliteStore, connection: Any, operation: Start) -> Started:
    """Write a start into the caller's transaction: it is there when, and only when, the caller commits.

    Its durability is the caller's `synchronous` then. Agents see the commit by the file's data version,
    within some 20 ms. A connection with an `isolation_level` gets its transaction begun here, as it would
    by the caller's next write. Where this raises, nothing of it is left in the transaction.
    """
    from .store import starting
    from .store.library import sqlite3
    from .store.transaction import Transaction
    from .store.translation import is_of_the_file, translate

    _check(store, connection)
    engine_time = store.engine_time()
    try:
        if not connection.in_transaction:
            if connection.isolation_level is None:
                raise InvalidInput(
                    "connection is in no transaction: the run would outlive a rollback.",
                    hint="Execute BEGIN IMMEDIATE first, or leave connection away.",
                )
            connection.execute("begin immediate")
        with _plain_rows(connection):
            connection.execute("savepoint outlast_start")
            try:
                # The first statement that writes takes the lock, if the caller has not;
                # `now` may precede it by the wait.
                now = engine_time.now()
                started = starting.start(Transaction(connection, now=now, wall=engine_time.to_wall(now)), operation)
            except BaseException:
                connection.execute("rollback to outlast_start")
                connection.execute("release outlast_start")
                raise
            connection.execute("release outlast_start")
    except sqlite3.Error as error:
        if is_of_the_file(error):
            raise translate(error, store.path) from error
        raise
    return started


def _check(store: SqliteStore, connection: Any) -> None:
    from .store.library import sqlite3

    if not isinstance(connection, sqlite3.Connection):
        kind = type(connection)
        raise WrongSQLite(
            f"connection is of {kind.__module__}, the engine's file needs {sqlite3.__name__}.",
            hint="Write `from outlast import sqlite3` and connect by that.",
        )
    with _plain_rows(connection):
        found = connection.execute("pragma database_list").fetchall()
    name = next((file for _, schema, file in found if schema == "main"), "")
    if not name or not Path(name).samefile(store.path):
        raise InvalidInput(
            f"connection is to {name or 'a database in memory'}, the engine's file is {store.path}.",
            hint="Connect to the engine's file: only one file can be in one transaction.",
        )


@contextmanager
def _plain_rows(connection: Any) -> Iterator[None]:
    """Rows as tuples and text as str inside the block, whatever the caller has set."""
    row_factory, text_factory = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    try:
        yield
    finally:
        connection.row_factory, connection.text_factory = row_factory, text_factory


def _microseconds(length_seconds: float | None) -> int | None:
    return None if length_seconds is None else round(length_seconds * clock.SECOND)

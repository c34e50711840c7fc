"""What two executions of one run are compared by.

Owns the reading of everything that a run has left in its file: how it and its parts ended, the application's own tables,
and the invariants. Refuses to read what may differ between two good executions: claims, instants, numbers of tries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..codec import payloads
from ..doctor.invariants import INVARIANTS

if TYPE_CHECKING:
    from ..store.library import sqlite3
    from ..store.sqlite import SqliteStore


@dataclass(frozen=True, slots=True)
class Left:
    """What an execution has left. `rows` are an application table's, as text, in any order."""

    tasks: dict[str, tuple[str, str, str]]
    """By id: kind, name and status."""
    halts: dict[str, str]
    """By id, the reasons of those that are halted."""
    outputs: dict[str, bytes]
    errors: dict[str, bytes]
    tables: dict[str, list[str]]
    chains: frozenset[str]
    broken: tuple[str, ...]
    """The invariants that do not hold."""


_PATIENCE = 60_000_000
"""What is younger may not have been looked at yet."""

_TASKS = """
select t.uid, t.kind, t.name, t.status, i.chain, iif(t.status = 'halted', t.halt_reason, null)
from outlast_task t left join outlast_input i on i.task_id = t.id
"""

_OUTCOMES = """
select t.uid, o.output, o.error from outlast_task t join outlast_outcome o on o.task_id = t.id
where t.finished_at is not null
"""

_TABLES = """
select name from sqlite_schema
where type = 'table' and name not like 'outlast!_%' escape '!' and name not like 'sqlite!_%' escape '!'
order by name
"""


def left_in(store: SqliteStore) -> Left:
    """Read it all."""
    connection = store.connection()
    tasks = connection.execute(_TASKS).fetchall()
    outcomes = connection.execute(_OUTCOMES).fetchall()
    return Left(
        {uid: (kind, name, status) for uid, kind, name, status, _, _ in tasks},
        {uid: reason for uid, *_, reason in tasks if reason is not None},
        {uid: payloads.opened(output) for uid, output, _ in outcomes if output is not None},
        {uid: payloads.opened(error) for uid, _, error in outcomes if error is not None},
        {name: _rows(connection, name) for (name,) in connection.execute(_TABLES).fetchall()},
        frozenset(chain or uid for uid, _, _, _, chain, _ in tasks),
        tuple(_broken(store)),
    )


def _rows(connection: sqlite3.Connection, table: str) -> list[str]:
    # The name is one that the schema itself has given.
    quoted = table.replace('"', '""')
    return sorted(repr(row) for row in connection.execute(f'select * from "{quoted}"').fetchall())


def _broken(store: SqliteStore) -> list[str]:
    now = store.now()
    wall = store.engine_time().to_wall(now)
    given = {"limit": 3, "now": now, "before": now - _PATIENCE, "wall_before": wall - _PATIENCE}
    return [one.name for one in INVARIANTS if store.connection().execute(one.query, given).fetchone() is not None]

"""The schema of the file: which version it has, which this code wants, and the way from one to the other.

Owns `schema/NNNN_name.sql`, applied forward only, through sqlite-utils' `Migrations`, with the record kept in
`outlast_migrations` and the newest number in `outlast_meta`. All that is pending is applied in one immediate
transaction: whoever dies in the middle, or comes second, finds the old schema whole or the new one. Refuses
files of newer code, and leaves a file without our tables to whoever may create them. sqlite-utils costs 0.2 s
to import, so that only a file that must be changed pays for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InvalidDefinition, NotFound, StoreDamaged, StoreTooNew, StoreTooOld
from .connection import StoreConnection, transaction
from .library import sqlite3
from .translation import translate
from .turn import Turn

_SCHEMA_ROW = "select value from outlast_meta where key = 'schema'"

_WRITE_SCHEMA_ROW = """
    insert into outlast_meta (key, value) values ('schema', :value)
    on conflict (key) do update set value = :value
"""

# The table as sqlite-utils makes it, but strict; it finds it there and leaves it so.
_RECORD_TABLE = """
    create table if not exists outlast_migrations (
        id integer primary key, migration_set text not null, name text not null, applied_at text not null
    ) strict
"""
_RECORD_INDEX = """
    create unique index if not exists outlast_migrations_name on outlast_migrations (migration_set, name)
"""

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of the schema."""

    number: int
    name: str
    file: Path

    def statements(self) -> Iterator[str]:
        return split(self.file.read_text(encoding="utf-8"))


def schema_version(connection: sqlite3.Connection) -> int | None:
    """The number of the newest migration in the file; None where it has no tables of ours."""
    try:
        row = connection.execute(_SCHEMA_ROW).fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise
    return int(row[0]) if row is not None else None


def newest(schema: Path | None = None) -> int:
    """The schema that this code works with."""
    return _discover(schema)[-1].number


def statements() -> Iterator[str]:
    """The statements of every migration, in order: the schema as it is made anew."""
    for migration in _discover(None):
        yield from migration.statements()


def check(connection: StoreConnection, path: str, *, schema: Path | None = None) -> None:
    """Raise unless the file has exactly the schema of this code. For whoever may not create or migrate."""
    found = _version_or_error(connection, path)
    if found is None:
        raise NotFound(f"{path} has no outlast tables.", hint="Run `outlast migrate` to add them.")
    wanted = newest(schema)
    if found > wanted:
        raise StoreTooNew(path, f"{found:04d}")
    if found < wanted:
        raise StoreTooOld(path)


def is_pending(connection: StoreConnection, path: str, *, schema: Path | None = None) -> bool:
    """Whether `migrate` would change the file. Raises `StoreTooNew` for a file of newer code."""
    found, wanted = _version_or_error(connection, path), newest(schema)
    if found is not None and found > wanted:
        raise StoreTooNew(path, f"{found:04d}")
    return found != wanted


def migrate(connection: StoreConnection, path: str, *, turn: Turn | None = None, schema: Path | None = None) -> list[str]:
    """Bring the file to the schema of this code, or add our tables to it; return the names of what was
    applied.

    Two processes that migrate at once do not collide: the second waits, and finds nothing left to do.
    """
    if not is_pending(connection, path, schema=schema):
        return []
    migrations = _discover(schema)
    with transaction(connection, turn):
        # Another process may have migrated between the look above and our write lock.
        if not is_pending(connection, path, schema=schema):
            return []
        applied = _apply(connection, migrations)
        connection.execute(_WRITE_SCHEMA_ROW, {"value": f"{migrations[-1].number:04d}"})
    return applied


def split(script: str) -> Iterator[str]:
    """Cut a script into its statements;

    a trigger, which holds semicolons, stays one. `executescript` would commit first.
    """
    statement = ""
    for part in re.split(r"(?<=;)", script):
        statement += part
        # A semicolon in a text, a comment or a trigger does not end the statement; SQLite itself knows.
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if re.sub(r"--[^\n]*|/\*.*?\*/|\s", "", statement, flags=re.DOTALL):
        raise InvalidDefinition(f"A statement of the schema has no end: {statement.strip()[:60]!r}.")


def _version_or_error(connection: StoreConnection, path: str) -> int | None:
    try:
        return schema_version(connection)
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except ValueError:
        raise StoreDamaged(path, "the version of its schema is not a number") from None


def _apply(connection: StoreConnection, migrations: tuple[Migration, ...]) -> list[str]:
    """Run what is pending. The transaction is open, so sqlite-utils makes savepoints and commits nothing."""
    from sqlite_utils import Database, Migrations

    class Ours(Migrations):
        migrations_table = "outlast_migrations"

    connection.execute(_RECORD_TABLE)
    connection.execute(_RECORD_INDEX)
    applied: list[str] = []
    ours = Ours("outlast")
    for migration in migrations:
        ours(name=migration.name)(_step(connection, migration, applied))
    ours.apply(Database(connection, recursive_triggers=False, execute_plugins=False))
    return applied


def _step(connection: StoreConnection, migration: Migration, applied: list[str]) -> Callable[[Any], None]:
    def run(_: Any) -> None:
        for statement in migration.statements():
            connection.execute(statement)
        applied.append(migration.name)

    return run


def _discover(schema: Path | None) -> tuple[Migration, ...]:
    if schema is None:
        return _own_migrations()
    found = []
    for file in schema.iterdir():
        match = _NAME.fullmatch(file.name)
        if match is not None:
            found.append(Migration(int(match[1]), file.name.removesuffix(".sql"), file))
    found.sort(key=lambda migration: migration.number)
    if not found or [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise InvalidDefinition("The schema files must be numbered 0001, 0002, … without a gap.")
    return tuple(found)


@cache
def _own_migrations() -> tuple[Migration, ...]:
    # By its path: importlib.resources costs each process that opens a file 8 ms.
    return _discover(Path(__file__).with_name("schema"))

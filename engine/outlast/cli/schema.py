"""The file's creation and migration, by those commands that may: `up`, `run`, `start`, `migrate` and their like.

Owns the rule that whoever creates or migrates a file says so on stderr, with its path, and that a migration is preceded by a backup.
Refuses to touch a file of newer code, and one that holds something else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import output

if TYPE_CHECKING:
    from ..store.connection import StoreConnection


def bring_up_to_date(path: str, *, migrate: bool, allow_network: bool) -> list[str]:
    """Make the file where there is none; with `migrate`, back an old one up and migrate it. Gives the names of what was applied."""
    from ..errors import StoreTooOld
    from ..store import migrations
    from ..store.connection import connect

    is_new = not os.path.lexists(path)
    connection = connect(path, create=True, allow_network=allow_network)
    try:
        if not migrations.is_pending(connection, path):
            return []
        found = migrations.schema_version(connection)
        if found is None:
            applied = _migrate(connection, path)
            # Of several that come at once, one makes the tables; who made the file may be another.
            if is_new or applied:
                output.note(f"Created {path}." if is_new else f"Added outlast's tables to {path}.")
            return applied
        if not migrate:
            raise StoreTooOld(path)
        copy = _back_up(path, found, allow_network=allow_network)
        applied = _migrate(connection, path)
        if applied:
            output.note(f"Migrated {path} from schema {found:04d} to {migrations.newest():04d}; the backup is {copy}.")
        return applied
    finally:
        connection.close()


def _migrate(connection: StoreConnection, path: str) -> list[str]:
    from ..store import migrations
    from ..store.turn import Turn

    turn = Turn(path)
    try:
        return migrations.migrate(connection, path, turn=turn)
    finally:
        turn.close()


def _back_up(path: str, found: int, *, allow_network: bool) -> str:
    """Copy the file beside itself, under a name that says what it is."""
    from ..errors import AlreadyExists
    from ..store.backup import backup as copy

    for number in range(1_000):
        name = f"{path}.schema-{found:04d}{f'-{number}' if number else ''}.bak"
        try:
            copy(path, name, allow_network=allow_network)
            return name
        except AlreadyExists:
            continue
    raise AlreadyExists(f"There are too many backups beside {path}.", hint="Move them away.")

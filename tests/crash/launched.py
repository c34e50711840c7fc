"""`python launched.py ARGUMENTS`: outlast's own command line in a process that a test has prepared.

Owns three faults, each named by a variable of the environment: `DIES_AT` is a commit at which the process kills itself,
`CLOCK_SHIFT` a file whose number of seconds is added to the wall clock whenever it is read, `FILE_LIMIT` the bytes beyond which no
file can grow. Refuses to change anything else: what runs is `outlast.cli.main`, as it is.
"""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

from outlast import clock
from outlast.store import backup, migrations
from outlast.store.connection import StoreConnection
from outlast.store.sqlite import HANDLERS

MIGRATE, BACKUP = "Migrate", "Backup"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Doom:
    """The commit to die at: `SIDE OPERATION`, just before or just after the first COMMIT of one that has changed a row."""

    def __init__(self, side: str, operation: str) -> None:
        self.is_before = side == "before"
        self.connection: StoreConnection | None = None
        """The one whose open transaction holds the operation."""
        if operation == MIGRATE:
            self._watch_migrations()
        else:
            [kind] = [one for one in HANDLERS if one.__name__ == operation]
            self._watch(kind)
        self._watch_commits()

    def _watch(self, kind: type) -> None:
        handler = HANDLERS[kind]

        def watched(transaction: Any, operation: Any) -> Any:
            before = transaction.connection.total_changes
            result = handler(transaction, operation)
            if transaction.connection.total_changes > before:
                self.connection = transaction.connection
            return result

        HANDLERS[kind] = watched

    def _watch_migrations(self) -> None:
        apply = migrations._apply

        def watched(connection: StoreConnection, found: Any) -> list[str]:
            applied = apply(connection, found)
            self.connection = connection
            return applied

        migrations._apply = watched

    def _watch_commits(self) -> None:
        execute = StoreConnection.execute

        def watched(connection: StoreConnection, sql: str, *parameters: Any) -> Any:
            is_it = sql == "commit" and connection is self.connection
            if is_it and self.is_before:
                die()
            result = execute(connection, sql, *parameters)
            if is_it:
                die()
            return result

        StoreConnection.execute = watched  # type: ignore[method-assign]


def die_within(number: int) -> None:
    """Die in the transaction of a migration, just after this one of its files."""
    step = migrations._step

    def watched(connection: StoreConnection, migration: migrations.Migration, applied: list[str]) -> Any:
        run = step(connection, migration, applied)

        def last(database: Any) -> None:
            run(database)
            if migration.number == number:
                die()

        return last

    migrations._step = watched


def die_at_backup(*, is_before: bool) -> None:
    """Die as a backup is complete, just before or just after it gets its name."""
    give_name = backup._give_name

    def watched(part: str, target_name: str) -> None:
        if not is_before:
            give_name(part, target_name)
        die()

    backup._give_name = watched


class ShiftedClock(clock.SystemClock):
    """The machine's clocks, the wall's set to what somebody has written into a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def wall(self) -> int:
        return super().wall() + round(float(self._file.read_text()) * clock.SECOND)


def main() -> None:
    point = os.environ.pop("DIES_AT", "")
    if point:
        side, operation = point.split()
        if operation == BACKUP:
            die_at_backup(is_before=side == "before")
        elif side == "within":
            die_within(int(operation))
        else:
            Doom(side, operation)
    if shift := os.environ.get("CLOCK_SHIFT"):
        clock.current = ShiftedClock(Path(shift))
    if limit := os.environ.get("FILE_LIMIT"):
        # Beyond it a write gets EFBIG, as on a disk that is full, and no signal.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    from outlast.cli.main import main

    main()


if __name__ == "__main__":
    main()

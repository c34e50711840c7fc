"""The file: `doctor`, `backup`, `migrate`, `export`, and its creation by those commands that may create it.

Owns the rule that whoever creates or migrates a file says so with its path, and that a migration is preceded
by a backup. Refuses to touch a file of newer code, and one that holds something else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from . import output
from .context import Context
from .group import command
from .render import Cell, mark, print_lines, status_cell
from .text import safe

if TYPE_CHECKING:
    from ..store.connection import StoreConnection


def bring_up_to_date(context: Context, *, create: bool, migrate: bool) -> list[str]:
    """Make the file where there is none; with `migrate`, back an old one up and migrate it.

    Says on stderr what it did.
    """
    from ..errors import StoreTooOld
    from ..store import migrations
    from ..store.connection import connect

    context.refuse_server()
    path = context.path
    is_new = not os.path.lexists(path)
    connection = connect(path, create=create, allow_network=context.settings.allow_network)
    try:
        if not migrations.is_pending(connection, path):
            return []
        found = migrations.schema_version(connection)
        if found is None:
            applied = _migrate(connection, path)
            output.note(f"Created {path}." if is_new else f"Added outlast's tables to {path}.")
            return applied
        if not migrate:
            raise StoreTooOld(path)
        copy = _back_up(context, found)
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


def _back_up(context: Context, found: int) -> str:
    """Copy the file beside itself, under a name that says what it is."""
    from ..errors import AlreadyExists
    from ..store.backup import backup as copy

    for number in range(1_000):
        name = f"{context.path}.schema-{found:04d}{f'-{number}' if number else ''}.bak"
        try:
            copy(context.path, name, allow_network=context.settings.allow_network)
            return name
        except AlreadyExists:
            continue
    raise AlreadyExists(f"There are too many backups beside {context.path}.", hint="Move them away.")


@command(
    "migrate",
    help="Create the file, or bring an old one up to date, after a backup.",
    examples=["outlast migrate"],
)
@click.pass_obj
def migrate(context: Context) -> int:
    applied = bring_up_to_date(context, create=True, migrate=True)
    if context.machine:
        context.answer({"path": context.path, "applied": applied})
    elif not applied:
        output.write(f"{safe(context.path)} is up to date.")
    return 0


@command(
    "backup",
    help="Copy the database to FILE, whole and at one instant, while others write to it.",
    examples=["outlast backup /backups/outlast-$(date +%F).db"],
)
@click.argument("file", metavar="FILE")
@click.pass_obj
def backup(context: Context, file: str) -> int:
    from ..errors import InvalidInput
    from ..store.backup import backup as copy

    if not file or "\0" in file:
        raise InvalidInput(f"{file!r} is no name of a file.")
    context.require_file()
    copy(context.path, file, allow_network=context.settings.allow_network)
    size = os.stat(file).st_size  # noqa: PTH116
    if context.machine:
        context.answer({"path": os.path.abspath(file), "bytes": size})  # noqa: PTH100
    else:
        output.write(f"Copied {safe(context.path)} to {safe(file)} ({size:,} bytes).")
    return 0


@command(
    "export",
    help="Print all that is known of a run, as one JSON document.",
    examples=["outlast export 4x2k > run.json"],
)
@click.argument("reference", metavar="RUN")
@click.pass_obj
def export(context: Context, reference: str) -> int:
    from ..views import show_json
    from ..views.recording import recording_json
    from ..views.state import messages_json, published_json, stream_names

    store = context.store()
    task_id, _ = context.find(store, reference)
    streams: dict[str, list[dict[str, Any]]] = {}
    for name in stream_names(store, task_id):
        messages: list[dict[str, Any]] = []
        streams[name] = messages
        while batch := messages_json(store, task_id, name, after=messages[-1]["number"] if messages else 0, raw=context.raw):
            messages.extend(batch)
    output.document(
        {
            **show_json(store, task_id, raw=context.raw),
            "published": published_json(store, task_id, raw=context.raw),
            "streams": streams,
            "recording": recording_json(store, task_id),
        }
    )
    return 0


@command(
    "doctor",
    help="Check SQLite, the file and its invariants; exit 1 where something is wrong.",
    examples=["outlast doctor", "outlast doctor --json", "outlast doctor --alive"],
)
@click.option("--alive", is_flag=True, help="Only whether the file answers and an agent is up: cheap, for a health check.")
@click.pass_obj
def doctor(context: Context, alive: bool) -> int:
    from ..doctor import doctor as examine
    from ..doctor import is_alive

    found = is_alive(context.store()) if alive else examine(context.store())
    if context.machine:
        context.answer(found)
    else:
        _print_findings(found)
    return 0 if found["ok"] else output.FAILED


def _print_findings(found: dict[str, Any]) -> None:
    for check in found["checks"]:
        state = "completed" if check["ok"] else "failed"
        line: list[Cell] = [status_cell(state, mark(state)), (f" {safe(check['name'])}", "")]
        print_lines([[*line, (f"  {safe(check['detail'])}", "dim" if check["ok"] else "red")]])
        if check["action"]:
            print_lines([[("  > ", "cyan"), (safe(check["action"]), "")]])

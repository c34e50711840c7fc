"""The file: `doctor`, `backup`, `migrate`, `export`.

Owns what a person asks of the file as a whole, and how the answers read. Refuses to touch a file of newer code, and one that holds
something else.
"""

from __future__ import annotations

import os
from typing import Any

import click

from . import output
from .context import Context
from .group import command
from .render import Cell, mark, print_lines, status_cell
from .text import safe


@command(
    "migrate",
    help="Create the file, or bring an old one up to date, after a backup.",
    examples=["outlast migrate"],
)
@click.pass_obj
def migrate(context: Context) -> int:
    applied = context.prepare(migrate=True)
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
        raise InvalidInput(f"{file!r} cannot be the name of a file.")
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
    help="Check SQLite, the file and its invariants; exits with 1 if something is wrong.",
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

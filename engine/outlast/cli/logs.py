"""What a run's code has logged: `logs`.

Owns how a record is printed and the filter by step. Refuses to store anything: records are the run's stream `log`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from . import output
from .context import Context
from .group import command
from .looking import messages_of
from .text import safe

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore


@command(
    "logs",
    help="Print what the code of a run and of its steps has logged, from INFO, in order.\n\n"
    "RUN is an id, a prefix of one, or WORKFLOW:KEY.",
    examples=["outlast logs 4x2k --follow", "outlast logs fulfil:o-1 --step charge"],
)
@click.argument("reference", metavar="RUN")
@click.option("--follow", "-f", "following", is_flag=True, help="Go on until the run has ended.")
@click.option("--step", help="Only of this step: its name, or its place as `show` prints it.")
@click.pass_obj
def logs(context: Context, reference: str, following: bool, step: str | None) -> int:
    store = context.store()
    task_id, uid = context.find(store, reference)
    places = _places(store, task_id, uid, step) if step is not None else None
    as_list = context.as_json and not context.as_lines and not following
    found: list[dict[str, Any]] = []
    for message in messages_of(store, task_id, "log", 0, following=following, raw=False):
        if places is not None and message["step"] not in places:
            continue
        record = dict(message["value"]) | {"step": message["step"], "try_number": message["try_number"]}
        if as_list:
            found.append(record)
        elif context.machine:
            output.lines([record])
        else:
            output.write(_line(record))
        if following:
            sys.stdout.flush()
    if as_list:
        output.document(found)
    return 0


def _line(record: dict[str, Any]) -> str:
    where = f"#{record['step']}" if record["step"] else "workflow"
    if (record["try_number"] or 1) > 1:
        where += f" try {record['try_number']}"
    return safe(f"{record['at']} {record['level']:<7} {where} {record['logger']}: {record['message']}")


def _places(store: SqliteStore, task_id: int, uid: str, step: str) -> set[str]:
    from ..errors import StepNotFound
    from ..views import steps_json

    known = steps_json(store, task_id)
    places = {found["path"] for found in known if step in (found["name"], found["path"], f"#{found['path']}")}
    if not places:
        raise StepNotFound(step, run_id=uid)
    return places

"""What a run's code has logged: `logs`.

Owns how a record is printed and the filter by step. Refuses to store anything: records are the run's stream `log`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import StepNotFound
from . import output
from .context import Context
from .group import command
from .looking import messages_of
from .text import safe, safe_lines

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore


_FIELDS = {"level", "logger", "message", "at"}


@command(
    "logs",
    help="Print what the code of a run and of its steps has logged, from INFO, in order.\n\n"
    "With --follow, the logs of the runs that continue it (continue_as_new) come next.\n\n"
    "RUN is an id, a prefix of one, or WORKFLOW:KEY.",
    examples=["outlast logs 4x2k --follow", "outlast logs fulfil:o-1 --step charge"],
)
@click.argument("reference", metavar="RUN")
@click.option("--follow", "-f", "following", is_flag=True, help="Keep printing until the run has ended.")
@click.option("--step", help="Only of this step: its name, or its place as `show` prints it.")
@click.pass_obj
def logs(context: Context, reference: str, following: bool, step: str | None) -> int:
    store = context.store()
    task_id, uid = context.find(store, reference)
    of_step = _OfStep(store, step) if step is not None else None
    if of_step is not None and not following and not of_step.is_in(task_id):
        raise StepNotFound(step or "", run_id=uid)
    as_list = context.as_json and not context.as_lines and not following
    found: list[dict[str, Any]] = []
    for message in messages_of(store, task_id, "log", 0, following=following, raw=False, picks=of_step):
        value = message["value"]
        if not isinstance(value, dict) or not value.keys() >= _FIELDS:
            # The code has written to the stream by itself.
            value = {"level": "INFO", "logger": "emit", "message": output.dumped(value), "at": message["at"]}
        record = value | {"run_id": message["run_id"], "step": message["step"], "try_number": message["try_number"]}
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
    head = safe(f"{record['at']} {record['level']:<7} {where} {record['logger']}: ")
    # A traceback is to be read; what is indented cannot pass for a record.
    return head + safe_lines(record["message"]).replace("\n", "\n    ")


class _OfStep:
    """Picks the records of one step, by its name or place. Which places have the name is the affair of each run, and of a step that
    is on its first try the file knows it later than its first record.
    """

    def __init__(self, store: SqliteStore, step: str) -> None:
        self._store = store
        self._step = step
        self._known: dict[tuple[str, str], bool] = {}

    def is_in(self, task_id: int) -> bool:
        from ..views import steps_json

        return any(self._is(found) for found in steps_json(self._store, task_id))

    def __call__(self, message: dict[str, Any]) -> bool | None:
        from ..views import find_run, steps_json

        uid, path = message["run_id"], message["step"]
        if path is None or uid is None:
            return False
        if (uid, path) not in self._known:
            for found in steps_json(self._store, find_run(self._store, uid)[0]):
                self._known[uid, found["path"]] = self._is(found)
        return self._known.get((uid, path))

    def _is(self, found: dict[str, Any]) -> bool:
        return self._step in (found["name"], found["path"], f"#{found['path']}")

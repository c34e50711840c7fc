"""`check`: the open runs against the code on disk.

Owns what is printed of the verdicts. What the workflows' bodies print goes to stderr.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import click

from . import output
from .context import Context
from .group import command
from .render import Cell, print_lines, print_table
from .text import safe, safe_lines

if TYPE_CHECKING:
    from ..checking import Report

_STYLES = {"fits": "green", "differs": "bold red", "no code": "bold red", "hangs": "bold red", "no key": "bold red"}


@command(
    "check",
    help="Replay open runs against the code on disk, before you deploy it. No step runs and nothing is written; the workflows' "
    "own code does run, on a copy of the file. Names the first step that differs. Exits with 1 if a run does not fit.\n\n"
    "RUN is an id, a prefix of one, or WORKFLOW:KEY; without any, all open runs are checked.",
    examples=["outlast check", "outlast check --workflow fulfil", "outlast check 4x2k --json"],
)
@click.argument("references", metavar="[RUN]...", nargs=-1)
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow.")
@click.pass_obj
def check(context: Context, references: tuple[str, ...], workflow: str | None) -> int:
    from .. import checking

    store = context.store()
    ids = {context.find(store, reference)[1] for reference in references} if references else None
    with redirect_stdout(sys.stderr):
        context.warn_of_queues()
        report = checking.check(context.path, context.registry, context.settings, workflow=workflow, ids=ids)
    # Threads of bodies that hang would keep the process from its end.
    output.has_strays |= any(one.result == "hangs" for one in report.runs)
    if context.machine:
        context.answer(report.to_json())
    else:
        _print(report)
    return 0 if report.is_fit else 1


def _print(report: Report) -> None:
    rows: list[list[Cell]] = [
        [
            (one.id, ""),
            (safe(one.workflow + (f"@{one.version}" if one.version else "")), "bold"),
            (one.status, ""),
            (one.result, _STYLES[one.result]),
            (safe(one.message or ""), ""),
        ]
        for one in report.runs
    ]
    print_table(["ID", "WORKFLOW", "STATUS", "RESULT", "WHY"], rows, empty="No open run.", flexible=4)
    for one in report.runs:
        for warning in one.warnings:
            print_lines([[("! ", "yellow"), (f"{one.id}: {safe_lines(warning)}", "")]])
    if report.not_looked_at:
        count = f"{report.not_looked_at:,} more run{'s' if report.not_looked_at > 1 else ''}"
        print_lines([[("! ", "yellow"), (f"{count} of workflows that hang were not looked at; `outlast check RUN` looks at one.", "")]])
    for patch in report.patches():
        name = safe(patch["id"])
        if not patch["in_code"]:
            marked = _runs(patch["marked"], "have")
            text = f'patched("{name}"): no code that was replayed asks about it; {marked} the mark, which is skipped'
        elif patch["needed_by"]:
            text = f'patched("{name}") is needed: {_runs(len(patch["needed_by"]), "go")} by the old code'
        else:
            text = f'patched("{name}") can go, with the old code: no open run needs it'
        print_lines([[("· ", "cyan"), (text, "")]])


def _runs(count: int, verb: str) -> str:
    """So many open runs and what they do, in the singular too."""
    singular = {"go": "goes", "have": "has"}[verb]
    return f"1 open run {singular}" if count == 1 else f"{count:,} open runs {verb}"

"""`prune`: old runs and ticks leave the file while others work on it.

Owns the options, the question on a terminal, and the report. Refuses to delete what an unfinished run still needs, and, unless a status
is named, what ended badly: that is evidence.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from ..states import FINAL
from ..text.counted import counted
from . import output
from .context import Context
from .group import command

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore
    from ..supervisor.retention import Walk


@command(
    "prune",
    help="Delete runs that have completed or were cancelled, and ticks, older than an age; without one, as the setting `retention` "
    "says. What an unfinished run still needs stays. Agents can keep working.",
    examples=["outlast prune --older-than 30d", "outlast prune --older-than 90d --status failed --dry-run"],
)
@click.option("--older-than", metavar="DURATION", help="Since their end, as 30d. Without it: the setting `retention`.")
@click.option("--workflow", metavar="NAME", help="Only runs of this workflow, and no ticks.")
@click.option("--status", "statuses", metavar="STATUS", multiple=True, help="These statuses instead (failed, ...), and no ticks.")
@click.option("--dry-run", is_flag=True, help="Count only.")
@click.option("--vacuum", is_flag=True, help="Then rewrite the whole file to shrink it; nobody can write meanwhile.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask on a terminal.")
@click.pass_obj
def prune(
    context: Context,
    older_than: str | None,
    workflow: str | None,
    statuses: tuple[str, ...],
    dry_run: bool,
    vacuum: bool,
    yes: bool,
) -> int:
    from ..errors import InvalidInput
    from ..supervisor.retention import KEPT_FOR_A_TIME, Courtesy, Walk
    from ..text.duration import seconds

    for status in statuses:
        if status not in FINAL:
            raise InvalidInput(f"A run that is {status!r} cannot be pruned.", hint=f"Final are {', '.join(sorted(FINAL))}.")
    kept = context.settings.retention_seconds if older_than is None else seconds(older_than, place="--older-than")
    store = context.store()

    def walk() -> Walk:
        return Walk(
            store, kept_seconds=kept, statuses=statuses or KEPT_FOR_A_TIME, workflow=workflow,
            heeds_workflows=older_than is None, with_ticks=workflow is None and not statuses,
        )  # fmt: skip

    if dry_run or (not yes and sys.stdin.isatty()):
        runs, ticks = walk().count()
        if dry_run:
            _report(context, runs, ticks, 0, is_dry=True)
            return 0
        if not click.confirm(f"Delete {counted(runs, 'run')} and {counted(ticks, 'tick')}?", err=True):
            output.note("Nothing was done.")
            return 0
    before = _size(store)
    walked = walk()
    courtesy = Courtesy(store)
    while walked.step():
        courtesy.give_way()
    _make_small(store, rewrite=vacuum)
    _report(context, walked.runs, walked.ticks, max(0, before - _size(store)), is_dry=False)
    return 0


def _make_small(store: SqliteStore, *, rewrite: bool) -> None:
    from ..store.pruning import vacuum
    from ..supervisor.retention import Courtesy, give_back_some

    courtesy = Courtesy(store)
    while give_back_some(store, spare=0):
        courtesy.give_way()
    if rewrite:
        with store.turn_taken():
            vacuum(store.connection())


def _size(store: SqliteStore) -> int:
    connection = store.connection()
    size: int = connection.execute("pragma page_count").fetchone()[0] * connection.execute("pragma page_size").fetchone()[0]
    return size


def _report(context: Context, runs: int, ticks: int, freed: int, *, is_dry: bool) -> None:
    if context.machine:
        context.answer({"runs": runs, "ticks": ticks, "bytes": freed, "dry_run": is_dry})
        return
    verb = "Would prune" if is_dry else "Pruned"
    room = f"; the file is {freed:,} bytes smaller" if freed else ""
    output.write(f"{verb} {counted(runs, 'run')} and {counted(ticks, 'tick')}{room}.")

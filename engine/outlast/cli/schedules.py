"""`schedules`, and the verbs of `schedule` that look; those that change are in `schedule_changes`.

Owns what is printed of a schedule. What comes next is shown as the clock on the wall there will show it, and
in UTC.
"""

from __future__ import annotations

from typing import Any

import click

from ..errors import Conflict, OutlastError, ScheduleNotFound
from . import output
from .context import Context
from .group import LARGEST, Command, Count, Nouns, command
from .render import Cell, print_facts, print_table
from .schedule_changes import VERBS
from .schedule_view import STYLES, code_of, print_ticks, word_cell
from .text import age, ago, safe


@command("schedules", help="List schedules, and when each fires next.", examples=["outlast schedules --json"])
@click.pass_obj
def schedules(context: Context) -> int:
    from ..views.schedules import schedules_json

    found = schedules_json(context.store(), code_of(context), raw=context.raw)
    if context.machine:
        context.answer(found)
        return 0
    print_table(
        ["NAME", "WORKFLOW", "STATUS", "NEXT", "LAST", "RULE"],
        [
            [
                (safe(one["name"]), "bold"),
                (safe(one["workflow"]), ""),
                word_cell(one["status"]),
                (_next(one), ""),
                _last(one["last"]),
                (safe(one["rule"]), ""),
            ]
            for one in found
        ],
        empty='No schedule; @workflow(schedule="0 2 * * *") or `outlast schedule create` makes one.',
        flexible=5,
    )
    return 0


@click.group(
    "schedule",
    cls=Nouns,
    help="Show, create, change or pause one schedule.",
    examples=["outlast schedule show nightly", 'outlast schedule create nightly report --cron "0 2 * * *"'],
)
def schedule() -> None:
    pass


for verb in VERBS:
    schedule.add_command(verb)


@schedule.command("list", cls=Command, help="The same as `outlast schedules`.", examples=["outlast schedule list"])
@click.pass_context
def schedule_list(ctx: click.Context) -> int:
    code: int = ctx.invoke(schedules)
    return code


@schedule.command(
    "show",
    cls=Command,
    help="Show a schedule: when it fires, or why it does not.",
    examples=["outlast schedule show nightly"],
)
@click.argument("name")
@click.pass_obj
def show(context: Context, name: str) -> int:
    from ..views.schedules import schedule_json

    found = schedule_json(context.store(), name, code_of(context), raw=context.raw)
    if context.machine:
        context.answer(found)
        return 0
    coming, last = found["next"], found["last"]
    print_facts(
        [
            ("schedule", found["name"]),
            ("workflow", found["workflow"]),
            ("rule", found["rule"]),
            ("status", found["status"]),
            ("why", found["why"]),
            ("next", f"{coming['local']} ({coming['tick']})" if coming else None),
            ("last", _sentence(last) if last else None),
            ("catch up", _catch_up(found)),
            ("overlap", found["overlap"]),
            ("input", output.dumped(found["input"]) if found["input"] else None),
            ("made by", f"code, {found['file']}" if found["source"] == "code" else found["source"]),
        ]
    )
    return 0


@schedule.command(
    "next",
    cls=Command,
    help="List the coming ticks, in local time and in UTC.",
    examples=["outlast schedule next nightly -n 10"],
)
@click.argument("name")
@click.option("-n", "--limit", "--count", "count", type=click.IntRange(1, 10_000), default=5, show_default=True, help="How many.")
@click.pass_obj
def next_ticks(context: Context, name: str, count: int) -> int:
    from .. import clock, scheduling
    from ..scheduling.backfill import found as find
    from ..views.schedules import next_json

    code = code_of(context)
    store = context.store()
    after, made = clock.wall(), None
    try:
        stored = find(store, name)
        made = scheduling.read(stored, store.path, code)
        after = max(after, stored.cursor)
        if stored.gone_at is not None or stored.paused_at is not None or stored.error is not None:
            output.note(_state_note(context, name))
    except OutlastError:
        if name not in code:
            raise
        made = code[name].schedule
    if made is None:
        raise Conflict(
            f"The trigger of schedule {name} is an object in code that is not loaded here.",
            hint="Name the code that has it with --app.",
        )
    found = next_json(made, after, count)
    if context.machine:
        context.answer(found)
        return 0
    print_table(
        ["LOCAL", "UTC", "IN"],
        [[(one["local"], "bold"), (one["tick"], ""), (age(one["tick"]).removeprefix("in "), "")] for one in found],
        empty=f"Schedule {safe(name)} has no tick to come.",
    )
    return 0


@schedule.command(
    "ticks",
    cls=Command,
    help="Show what became of each tick, the newest first.",
    examples=["outlast schedule ticks nightly --since 7d", "outlast schedule ticks nightly --outcome missed"],
)
@click.argument("name")
@click.option("--since", metavar="WHEN", help='Only since: an instant, or an age as "2h".')
@click.option("--until", metavar="WHEN", help="Only before.")
@click.option(
    "--outcome",
    type=click.Choice(["fired", "triggered", "backfilled", "coalesced", "skipped", "missed", "paused"]),
    help="Only of this outcome.",
)
@click.option("--limit", type=Count(1), default=100, show_default=True, help="At most this many rows.")
@click.pass_obj
def ticks(context: Context, name: str, since: str | None, until: str | None, outcome: str | None, limit: int) -> int:
    from ..views.schedules import ticks_json
    from .listing import when

    begin, end = when(since, place="--since"), when(until, place="--until")
    try:
        found = ticks_json(context.store(), name, since=begin, until=end, outcome=outcome, limit=min(limit + 1, LARGEST))
    except ScheduleNotFound:
        # No scheduler has taken it up yet: it has no tick, and is listed all the same.
        if name not in code_of(context):
            raise
        found = []
    found, has_more = found[:limit], len(found) > limit
    if context.machine:
        context.answer(found)
        return 0
    print_ticks(found, empty="No tick fits." if since or until or outcome else f"No tick of {safe(name)} is in the ledger yet.")
    if has_more:
        output.note(f"The newest {limit}; --limit shows more.")
    return 0


def _state_note(context: Context, name: str) -> str:
    from ..views.schedules import schedule_json

    return safe(schedule_json(context.store(), name, {})["why"])


def _next(one: dict[str, Any]) -> str:
    """When it ticks next; a tick that has passed is due, unless a pause holds it."""
    if one["next"] is None:
        return "-"
    ahead = age(one["next"]["tick"])
    if ahead.startswith("in "):
        return ahead
    return "due" if one["status"] == "active" else "-"


def _last(row: dict[str, Any] | None) -> Cell:
    return ("-", "") if row is None else (f"{row['outcome']} {ago(row['until'])}", STYLES.get(row["outcome"], ""))


def _sentence(row: dict[str, Any]) -> str:
    text = f"{row['outcome']} {row['until']}"
    if row["run_id"]:
        text += f", run {row['run_id']}"
    return f"{text}, {row['reason']}" if row["reason"] else text


def _catch_up(found: dict[str, Any]) -> str:
    from ..text.duration import describe

    window = found["catch_up_window_seconds"]
    return f"{found['catch_up']}, within {describe(window)}" if window is not None else f"{found['catch_up']}, of any age"

"""What lists: `runs`, `workflows`, `workflow show`, `agents`, `stats`, `queues`.

Owns the columns and the filters. Refuses to truncate in a pipe; on a terminal the last column gives way.
"""

from __future__ import annotations

from typing import Any

import click

from ..errors import InvalidInput
from ..text.duration import describe
from . import output
from .context import Context
from .group import LARGEST, Count, Nouns, command
from .render import STYLES, Cell, mark, print_facts, print_lines, print_table, status_cell
from .starting import instant
from .starting import tags as read_tags
from .text import age, ago, brief, safe, span
from .tree import error_text


@command(
    "runs",
    help="List runs, the newest first.",
    examples=[
        "outlast runs --status failed --since 1d",
        "outlast runs --workflow fulfil --tag shop=berlin --jsonl",
    ],
)
@click.option("--status", "statuses", metavar="STATUS", multiple=True, help="pending, running, ... May be repeated.")
@click.option("--workflow", metavar="NAME", help="Only of this workflow.")
@click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="Only with this tag. May be repeated.")
@click.option("--since", metavar="WHEN", help='Started since: an instant, or an age as "2h".')
@click.option("--until", metavar="WHEN", help="Started before.")
@click.option("--limit", type=Count(1), default=100, show_default=True, help="At most this many.")
@click.pass_obj
def runs(
    context: Context,
    statuses: tuple[str, ...],
    workflow: str | None,
    tags: tuple[str, ...],
    since: str | None,
    until: str | None,
    limit: int,
) -> int:
    from ..views import runs_json

    found = runs_json(
        context.store(),
        status=statuses or None,
        workflow=workflow,
        tags=read_tags(tags) or None,
        since=when(since, place="--since"),
        until=when(until, place="--until"),
        limit=min(limit + 1, LARGEST),
        raw=context.raw,
    )
    found, has_more = found[:limit], len(found) > limit
    if context.machine:
        context.answer(found)
        return 0
    print_table(
        ["ID", "WORKFLOW", "STATUS", "AGE", "TOOK", "KEY", "ERROR"],
        [_run_row(run) for run in found],
        empty="No runs." if not (statuses or workflow or tags or since or until) else "No run fits.",
        flexible=6,
    )
    if has_more:
        output.note(f"The newest {limit}; --limit shows more.")
    return 0


def _run_row(run: dict[str, Any]) -> list[Cell]:
    problem = run["halt_reason"] if run["status"] == "halted" else error_text(run["error"]) if run["error"] else ""
    name = f"{run['workflow']}@{run['version']}" if run["version"] else run["workflow"]
    return [
        (run["id"], "bold"),
        (safe(name), ""),
        status_cell(run["status"], f"{mark(run['status'])} {run['status']}"),
        (age(run["created_at"]), ""),
        (span(run["started_at"], run["finished_at"]), ""),
        (safe(run["key"] or ""), ""),
        (safe(problem or ""), "red"),
    ]


def when(text: str | None, *, place: str) -> int | None:
    """A wall instant in microseconds, from an instant or from an age such as `2h`."""
    if text is None:
        return None
    from .. import clock
    from ..text.duration import seconds

    try:
        return clock.wall() - round(seconds(text, place=place) * clock.SECOND)
    except InvalidInput:
        pass
    try:
        return clock.from_datetime(instant(text, place=place))
    except InvalidInput as error:
        raise InvalidInput(error.message, hint='Write an age as "2h", or an instant as 2026-01-31T08:00.') from None


@command(
    "workflows",
    help="List the workflows of the app.",
    examples=["outlast workflows", "outlast workflows --app shop.flows"],
)
@click.pass_obj
def workflows(context: Context) -> int:
    from ..views import workflows_json

    found = workflows_json(context.registry)
    context.warn_of_queues()
    if context.machine:
        context.answer(found)
        return 0
    print_table(
        ["NAME", "VERSION", "TAKES", "QUEUE", "SCHEDULE", "DOES"],
        [
            [
                (safe(one["name"]), "bold"),
                (safe(one["version"] or "-"), ""),
                (safe(_parameters(one)), ""),
                (safe(one["queue"]), ""),
                (_schedule(context, one), ""),
                (safe(one["description"]), "dim"),
            ]
            for one in found
        ],
        empty=f"No workflow is defined: {context.looked()}.",
        flexible=5,
    )
    return 0


def _parameters(workflow: dict[str, Any]) -> str:
    return ", ".join(_parameter(one) for one in workflow["parameters"]) or "-"


def _parameter(one: dict[str, Any]) -> str:
    text = str(one["name"])
    if one["type"]:
        text += f": {one['type']}"
    if one["default"] is not None:
        text += f" = {one['default']}" if one["type"] else f"={one['default']}"
    return text


def _schedule(context: Context, one: dict[str, Any]) -> str:
    if not one["scheduled"]:
        return "-"
    from ..timetable import Schedule

    schedule = context.registry.workflow(one["name"], one["version"]).schedule
    parts = schedule if isinstance(schedule, list | tuple) else [schedule]
    return safe(", ".join(part.describe() if isinstance(part, Schedule) else str(part) for part in parts))


@click.group("workflow", cls=Nouns, help="Show one workflow.", examples=["outlast workflow show fulfil"])
def workflow() -> None:
    pass


@workflow.command("list", cls=type(workflows), help="The same as `outlast workflows`.", examples=["outlast workflow list"])
@click.pass_context
def workflow_list(ctx: click.Context) -> int:
    code: int = ctx.invoke(workflows)
    return code


@workflow.command(
    "show",
    cls=type(workflows),
    help="Show what a workflow takes, where it is and how it is run.",
    examples=["outlast workflow show fulfil"],
)
@click.argument("name")
@click.pass_obj
def workflow_show(context: Context, name: str) -> int:
    from ..views.definitions import workflow_json

    found = context.workflow(name)
    shown = workflow_json(found)
    if context.machine:
        context.answer(shown)
        return 0
    print_lines([[(safe(shown["name"]), "bold"), (f"({safe(_parameters(shown) if shown['parameters'] else '')})", "")]])
    doc = (found.fn.__doc__ or "").strip()
    if doc:
        print_lines([[(f"  {safe(line.strip())}".rstrip(), "dim")] for line in doc.splitlines()])
    timeout = shown["timeout_seconds"]
    print_facts(
        [
            ("file", f"{shown['file']}:{shown['line']}"),
            ("version", shown["version"]),
            ("queue", shown["queue"]),
            ("timeout", describe(timeout) if timeout else None),
            ("tries", shown["tries"] if shown["tries"] > 1 else None),
            ("on error", shown["on_error"] if shown["on_error"] != "fail" else None),
            ("schedule", _schedule(context, shown) if shown["scheduled"] else None),
            ("start it", f"outlast start {shown['name']} {_example(shown)}".rstrip()),
        ]
    )
    return 0


def _example(shown: dict[str, Any]) -> str:
    return " ".join(f"{one['name']}=..." for one in shown["parameters"] if one["required"])


_AGENT = ("id", "host", "pid", "queues", "status", "running", "heartbeat_at")


@command("agents", help="List the agents that are up.", examples=["outlast agents", "outlast agents --all --json"])
@click.option("--all", "everyone", is_flag=True, help="Also those that have ended.")
@click.pass_obj
def agents(context: Context, everyone: bool) -> int:
    from ..views import agents_json

    found = agents_json(context.store(), everyone=everyone)
    if context.machine:
        # What tables show besides is no part of what scripts are promised.
        context.answer([{name: one[name] for name in _AGENT} for one in found])
        return 0
    print_table(
        ["ID", "HOST", "PID", "STATUS", "RUNNING", "QUEUES", "HEARD"],
        [
            [
                (safe(one["id"]), "bold"),
                (safe(one["host"]), ""),
                (str(one["pid"]), ""),
                status_cell(one["status"]),
                (f"{one['running']} of {one['slots']}", ""),
                (safe(", ".join(one["queues"]) if one["queues"] else "all"), ""),
                (ago(one["heartbeat_at"]), ""),
            ]
            for one in found
        ],
        empty="No agent is up; `outlast up` starts some.",
        flexible=5,
    )
    return 0


@command("stats", help="Count runs by status, and what waits.", examples=["outlast stats", "outlast stats --json"])
@click.pass_obj
def stats(context: Context) -> int:
    from ..views import stats_json

    found = stats_json(context.store())
    if context.machine:
        context.answer(found)
        return 0
    print_lines([[("runs", "bold")]])
    counts = found["runs"] or {}
    print_lines(
        [[("  ", ""), status_cell(status, f"{mark(status)} {status:<13}"), (f"{count:>9,}", "")] for status, count in counts.items()]
    )
    if not counts:
        print_lines([[("  none", "dim")]])
    running = sum(found["agents"].values())
    print_facts(
        [
            ("due, not taken", f"{found['depth']:,}"),
            ("oldest due", f"{found['oldest_seconds']:g} s" if found["oldest_seconds"] else None),
            ("on agents", f"{found['running']:,}"),
            (
                "agents",
                f"{running} with {found['slots']} slots" if running else "none; `outlast up` starts some",
            ),
        ]
    )
    return 0


@command("queues", help="List the queues: what waits, what runs, limits.", examples=["outlast queues --json"])
@click.pass_obj
def queues(context: Context) -> int:
    from ..views import queues_json

    found = queues_json(context.store(), context.registry_if_whole())
    if context.machine:
        context.answer(found)
        return 0
    print_table(
        ["NAME", "DUE", "RUNNING", "OLDEST", "CONCURRENCY", "RATE", "PER PARTITION", "PAUSED"],
        [
            [
                (safe(one["name"]), "bold"),
                (f"{one['depth']:,}", ""),
                (f"{one['running']:,}", ""),
                (brief(one["oldest_seconds"]) if one["oldest_seconds"] is not None else "-", ""),
                *((safe(one[name] or "-"), "") for name in ("concurrency", "rate", "per_partition")),
                ("paused", STYLES["paused"]) if one["paused"] else ("-", ""),
            ]
            for one in found
        ],
        empty="No queues.",
    )
    return 0

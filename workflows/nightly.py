"""Every night, what the engine itself has done: a report in Markdown on the runs of the last day.

    outlast run nightly_report day=2026-11-26
    outlast schedule next nightly_report

It is written to `reports/<day>.md` where the agents run, or in `$REPORT_FOLDER`. The day is that of the tick, so a report that
was missed while the machine was off is about its own day when it is caught up.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median

from outlast import Cron, Engine, current, now, step, workflow

FAILURES = 20
"""Failed runs that are listed one by one."""


@dataclass(frozen=True)
class Flow:
    """The runs of one workflow on that day."""

    name: str
    by_status: dict[str, int]
    median_seconds: float | None
    longest_seconds: float | None


@dataclass(frozen=True)
class Day:
    day: date
    flows: list[Flow] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    crashes: int = 0


@workflow(schedule=Cron("15 0 * * *", timezone="UTC", catch_up="all", catch_up_window="7d"), retention="90d")
def nightly_report(day: date | None = None) -> str:
    """Write the report on a day, by default the one before the tick; gives the file's path."""
    told = day or (current().tick or now()).date() - timedelta(days=1)
    return write(examine(told))


@step(timeout="10m")
def examine(day: date) -> Day:
    """Read the day's runs by the public API, from the file that this agent works on."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    with Engine() as engine:
        runs = [run.to_json() for run in engine.runs(since=begin, until=begin + timedelta(days=1), limit=None)]
    flows = []
    for name in sorted({run["workflow"] for run in runs}):
        own = [run for run in runs if run["workflow"] == name]
        took = [seconds for run in own if (seconds := _seconds(run["started_at"], run["finished_at"])) is not None]
        flows.append(Flow(name, dict(Counter(run["status"] for run in own)), median(took) if took else None, max(took) if took else None))
    bad = [run for run in runs if run["status"] in ("failed", "compensated", "halted")]
    failures = [f"{run['id']} {run['workflow']} {run['status']}: {_reason(run)}" for run in bad[:FAILURES]]
    return Day(day, flows, failures, sum(run["crashes"] for run in runs))


@step
def write(found: Day) -> str:
    """Write the report in the place of an older one, whole or not at all."""
    folder = Path(os.environ.get("REPORT_FOLDER", "reports")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{found.day}.md"
    new = file.with_suffix(f".{os.getpid()}.new")
    new.write_text(render(found), encoding="utf-8")
    new.replace(file)
    return str(file)


def render(found: Day) -> str:
    """The report as Markdown."""
    lines = [f"# Runs of {found.day}", ""]
    if not found.flows:
        lines += ["No run was started.", ""]
    else:
        lines += ["| workflow | runs | by status | median | longest |", "| --- | ---: | --- | ---: | ---: |"]
        for flow in found.flows:
            statuses = ", ".join(f"{count} {status}" for status, count in sorted(flow.by_status.items()))
            total = sum(flow.by_status.values())
            lines.append(f"| {flow.name} | {total} | {statuses} | {_span(flow.median_seconds)} | {_span(flow.longest_seconds)} |")
        lines.append("")
    if found.failures:
        lines += ["## What went wrong", "", *[f"- {failure}" for failure in found.failures], ""]
    if found.crashes:
        lines += [f"{found.crashes} times a run took its agent down.", ""]
    return "\n".join(lines)


def _seconds(started_at: str | None, finished_at: str | None) -> float | None:
    if started_at is None or finished_at is None:
        return None
    return (datetime.fromisoformat(finished_at) - datetime.fromisoformat(started_at)).total_seconds()


def _reason(run: dict[str, object]) -> str:
    error = run["error"]
    text = f"{error['type']}: {error['message']}" if isinstance(error, dict) else str(run["halt_reason"])
    return text.splitlines()[0][:200] if text else ""


def _span(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3f} s" if seconds < 60 else f"{seconds / 60:.1f} min"

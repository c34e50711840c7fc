"""What the suite says: the machine and the versions, a table, and the same as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from outlast import sqlite3

from . import peers
from .figures import Curve, Measured


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpu = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    total = next((int(line.split()[1]) // 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "processor": f"{cpu}, {os.cpu_count()} cores", "memory": f"{total:,} MiB", "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), "sqlite": f"{sqlite3.sqlite_version} by {sqlite3.__name__.partition('.')[0]}",
        "load": ", ".join(f"{load:.1f}" for load in os.getloadavg()), "outlast": version("outlast"), **peers.versions(),
    }  # fmt: skip


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def table(measured: Iterable[Measured], curves: Iterable[Curve]) -> str:
    """Markdown: a figure a line, with its bar; then the curves."""
    lines = ["| figure | min | median | max | bar | |", "| --- | ---: | ---: | ---: | --- | --- |"]
    for one in measured:
        title = f"**{one.benchmark.title}**"
        if one.skipped is not None:
            lines.append(f"| {title}: incomplete, {one.skipped} | | | | | |")
            continue
        lines.append(f"| {title} ({len(one.rounds)} rounds) | | | | | |")
        for figure in one.figures:
            bar = one.bar_of(figure)
            spread = one.spread(figure)
            verdict = "" if bar is None else "met" if bar.is_met(spread[1]) else "MISSED"
            lines.append(f"| {figure} | {' | '.join(map(number, spread))} | {bar or ''} | {verdict} |")
        lines += [f"| _{side}: {text}_ | | | | | |" for side, text in one.benchmark.durability.items()]
    for curve in curves:
        points = ", ".join(f"{number(size)}: {number(value)}" for size, value in curve.points)
        lines += ["", f"{curve.title}, {curve.figure} by {curve.size}: {points}"]
    return "\n".join(lines)


def page(measured: Sequence[Measured], curves: Sequence[Curve], words: Sequence[str], chart: Path | None) -> str:
    """The whole as a page: how it was measured, on what, and the figures."""
    facts = "\n".join(f"- {name}: {value}" for name, value in machine().items())
    picture = f"\n![Each figure against its bar, and the curves]({chart.name})\n" if chart is not None else ""
    return (
        f"# Results\n\nThe output of `python -m benchmarks {' '.join(words)}`.\n\n"
        "The machine is shared with other work, so ratios, which are made of things measured next to each other, say more than\n"
        f"single figures; the verdict is on the median.\n\n{facts}\n{picture}\n{table(measured, curves)}\n"
    )


def number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def as_json(measured: Iterable[Measured], curves: Iterable[Curve]) -> dict[str, Any]:
    return {
        "machine": machine(),
        "benchmarks": [
            {
                "name": one.benchmark.name,
                "title": one.benchmark.title,
                "skipped": one.skipped,
                "durability": one.benchmark.durability,
                "rounds": one.rounds,
                "figures": {figure: dict(zip(("min", "median", "max"), one.spread(figure), strict=True)) for figure in one.figures},
                "bars": [{"figure": bar.figure, "bar": str(bar), "met": bar not in one.missed()} for bar in one.benchmark.bars],
            }
            for one in measured
        ],
        "curves": [{"title": c.title, "size": c.size, "figure": c.figure, "points": c.points} for c in curves],
    }

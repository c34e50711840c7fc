"""The command: `python -m benchmarks [--quick] [--no-bars] [--only NAME] [--json FILE] [--svg FILE]`.

Measures every figure, most of them against a bar, round by round through all of them, so that what else the machine does falls on each;
then how costs grow with size. Ends with 1 when the median of a figure misses its bar. Needs a quiet machine to be believed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from . import chart, draining, growth, report, several, sizes, steps
from .figures import Benchmark, Curve, Measured, Setting

BENCHMARKS: tuple[Benchmark, ...] = (*steps.BENCHMARKS, *draining.BENCHMARKS, *several.BENCHMARKS, *sizes.BENCHMARKS)


def main() -> int:
    names = [*(one.name for one in BENCHMARKS), *growth.CURVES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--quick", action="store_true", help="smaller sizes and three rounds: a first look, not a verdict")
    parser.add_argument("--no-bars", action="store_true", help="only look: end with 0 whatever is missed")
    parser.add_argument("--no-curves", action="store_true", help="leave out how costs grow with size")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}; may repeat")
    parser.add_argument("--rounds", type=int, help="how often each is measured (at least 3 to be believed)")
    parser.add_argument("--folder", type=Path, help="where the files lie, on the disk to measure")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="the page of results: machine, table and chart")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    given = parser.parse_args()
    setting = Setting(given.quick, given.folder)
    for name, value in report.machine().items():
        print(f"{name}: {value}")
    print(flush=True)
    measured = measure([one for one in BENCHMARKS if not given.only or one.name in given.only], setting, given.rounds)
    curves: list[Curve] = []
    for name, curve in growth.CURVES.items():
        if name in (given.only or ()) or not (given.only or given.no_curves):
            curves.append(curve(setting))
    print("\n" + report.table(measured, curves))
    if given.json:
        given.json.write_text(json.dumps(report.as_json(measured, curves), indent=1) + "\n")
    if given.svg:
        given.svg.write_text(chart.draw(measured, curves))
    if given.markdown:
        given.markdown.write_text(report.page(measured, curves, sys.argv[1:], given.svg))
    missed = [f"{one.benchmark.title}: {bar.figure} {bar}" for one in measured for bar in one.missed()]
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if missed and not given.no_bars else 0


def measure(benchmarks: list[Benchmark], setting: Setting, rounds: int | None) -> list[Measured]:
    """Round after round through all that have rounds left."""
    measured = [Measured(one, skipped=one.is_there()) for one in benchmarks]
    wanted = {one.benchmark.name: rounds or (3 if setting.quick else one.benchmark.rounds) for one in measured}
    for number in range(max(wanted.values(), default=0)):
        for one in measured:
            if number >= wanted[one.benchmark.name]:
                continue
            began = time.monotonic()
            one.rounds.append(one.benchmark.measure(setting))
            figures = ", ".join(f"{name} {report.number(value)}" for name, value in one.rounds[-1].items())
            print(f"{one.benchmark.name} {number + 1}: {figures} [{time.monotonic() - began:.1f} s]", flush=True)
    return measured


if __name__ == "__main__":
    sys.exit(main())

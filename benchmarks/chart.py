"""The chart: each ratio between its bar and its aim, and each curve by size. Plain SVG, written by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .figures import Bar, Curve, Measured
from .report import number

_WIDTH, _LEFT, _ROW = 860, 330, 34
_LONGEST_TITLE = 48
_CELL_WIDTH, _CELL_HEIGHT = 280, 170
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .small { font-size: 10px; fill: #57606a }
.met { fill: #2da44e } .missed { fill: #cf222e } .bar { stroke: #24292f; stroke-width: 2 }
.line { fill: none; stroke: #0969da; stroke-width: 2 } .dot { fill: #0969da } .frame { fill: none; stroke: #d0d7de }
"""


def draw(measured: Sequence[Measured], curves: Sequence[Curve]) -> str:
    judged = [(one, bar) for one in measured for bar in one.benchmark.bars if bar.figure in one.figures]
    top = 40 + _ROW * len(judged)
    height = top + 30 + _CELL_HEIGHT * math.ceil(len(curves) / 3)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        '<text x="12" y="22">Median of each figure against its bar (the black line); longer is better throughout</text>',
    ]  # fmt: skip
    for index, (one, bar) in enumerate(judged):
        parts.append(_row(one, bar, 36 + _ROW * index))
    for index, curve in enumerate(curves):
        parts.append(_cell(curve, 12 + index % 3 * _CELL_WIDTH, top + 20 + index // 3 * _CELL_HEIGHT))
    return "\n".join([*parts, "</svg>\n"])


def _row(one: Measured, bar: Bar, y: int) -> str:
    value = one.spread(bar.figure)[1]
    limit = bar.at_least if bar.at_least is not None else bar.at_most or 1.0
    # How far beyond the bar: the value by it, or it by the value where less is better; four times is the edge.
    times = value / limit if bar.at_least is not None else limit / max(value, 1e-9)
    unit = (_WIDTH - _LEFT - 170) / 4
    length = unit * min(times, 4)
    css = "met" if bar.is_met(value) else "missed"
    return (
        f'<text x="12" y="{y + 12}">{escape(_short(one.benchmark.title))}</text>'
        f'<text x="12" y="{y + 25}" class="small">{escape(bar.figure)}</text>'
        f'<rect x="{_LEFT}" y="{y + 3}" width="{length:.1f}" height="16" class="{css}"/>'
        f'<line x1="{_LEFT + unit:.1f}" x2="{_LEFT + unit:.1f}" y1="{y}" y2="{y + 22}" class="bar"/>'
        f'<text x="{_LEFT + length + 6:.1f}" y="{y + 15}">{number(value)} <tspan class="small">bar {escape(str(bar))}</tspan></text>'
    )


def _short(title: str) -> str:
    return title if len(title) <= _LONGEST_TITLE else f"{title[: _LONGEST_TITLE - 1]}…"


def _cell(curve: Curve, x: int, y: int) -> str:
    width, height = _CELL_WIDTH - 40, _CELL_HEIGHT - 60
    logs = [math.log10(size) for size, _ in curve.points]
    highest = max(value for _, value in curve.points) * 1.15 or 1.0
    span = (logs[-1] - logs[0]) or 1.0
    dots = [
        (x + 8 + (log - logs[0]) / span * (width - 30), y + 20 + height - value / highest * height)
        for log, (_, value) in zip(logs, curve.points, strict=True)
    ]
    marks = "".join(
        f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="3" class="dot"/><text x="{cx:.1f}" y="{cy - 6:.1f}" class="small">{number(value)}</text>'
        f'<text x="{cx:.1f}" y="{y + height + 33}" class="small">{size:,.0f}</text>'
        for (cx, cy), (size, value) in zip(dots, curve.points, strict=True)
    )
    path = " ".join(f"{cx:.1f},{cy:.1f}" for cx, cy in dots)
    return (
        f'<text x="{x}" y="{y + 12}">{escape(curve.title)}, {escape(curve.figure)} by {escape(curve.size)}</text>'
        f'<rect x="{x}" y="{y + 20}" width="{width}" height="{height}" class="frame"/><polyline points="{path}" class="line"/>{marks}'
    )

"""Tables and lines on a terminal in colour, in a pipe as plain aligned text.

Owns the choice between the two and the marks and colours of a status. Refuses to interpret anything that a
user wrote: cells come as text and style apart, and every text is made safe here. rich is imported for a
terminal alone, since it costs more than most commands do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from . import output
from .catalogue import wants_colour
from .text import safe
from .wrapping import broken, cells

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Cell = tuple[str, str]
"""A text and its style; the style is empty where it has none."""
Line = Sequence[Cell]

STYLES = {
    "pending": "dim",
    "running": "blue",
    "waiting": "cyan",
    "compensating": "magenta",
    "halted": "bold red",
    "completed": "green",
    "failed": "red",
    "compensated": "magenta",
    "cancelled": "yellow",
    "paused": "yellow",
    "unknown": "bold yellow",
    "active": "green",
    "draining": "yellow",
    "silent": "bold red",
    "crashed": "red",
    "lost": "red",
    "stopped": "dim",
}

_MARKS = {
    "pending": "○",
    "running": "●",
    "waiting": "◌",
    "compensating": "↺",
    "halted": "‼",
    "completed": "✓",
    "failed": "✗",
    "compensated": "↺",
    "cancelled": "⊘",
    "paused": "‖",
    "unknown": "?",
}
_PLAIN_MARKS = {
    "pending": ".",
    "running": "*",
    "waiting": "~",
    "compensating": "<",
    "halted": "!",
    "completed": "+",
    "failed": "x",
    "compensated": "<",
    "cancelled": "-",
    "paused": "=",
    "unknown": "?",
}
_BRANCHES = ("├─ ", "└─ ", "│  ", "   ")
_PLAIN_BRANCHES = ("|- ", "`- ", "|  ", "   ")

_LEAST = 12
"""What a column that was made narrow still shows."""
_GAP = 2


def status_cell(status: str, text: str | None = None) -> Cell:
    return safe(text or status), STYLES.get(status, "")


def mark(status: str, stream: TextIO | None = None) -> str:
    """The sign of a status, as far as the stream can show one."""
    marks = _MARKS if _can_draw(stream or sys.stdout) else _PLAIN_MARKS
    return marks.get(status, "·" if marks is _MARKS else ".")


def branches(stream: TextIO | None = None) -> tuple[str, str, str, str]:
    """What a tree is drawn with: a branch, the last branch, a trunk beside them, nothing."""
    return _BRANCHES if _can_draw(stream or sys.stdout) else _PLAIN_BRANCHES


def _can_draw(stream: TextIO) -> bool:
    try:
        "├✓".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def is_rich(stream: TextIO | None = None) -> bool:
    """Whether colour, or at least a width, is to be had there."""
    return wants_colour((stream or sys.stdout).isatty())


def console(stream: TextIO | None = None) -> Console:
    """A console that interprets no markup, emoji or numbers."""
    from rich.console import Console

    stream = stream or sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else 10_000
    # Rich itself would leave out colours alone where NO_COLOR is set, and still write bold and dim.
    return Console(
        file=stream,
        color_system="auto" if is_rich(stream) else None,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
        width=width,
    )


def text_of(line: Line) -> Text:
    from rich.text import Text

    made = Text(overflow="fold")
    for text, style in line:
        made.append(text, style or None)
    return made


def plain(line: Line) -> str:
    return "".join(text for text, _ in line).rstrip()


def wrapped(line: Line, width: int, *, hang: int | None = None) -> list[Text]:
    """A line as those that a terminal of this width shows: broken between words."""
    text = text_of(line)
    if cells(text.plain) <= width and "\n" not in text.plain:
        return [text]
    return [text_of([(lead, "dim")]) + text[begin:end] for lead, begin, end in broken(text.plain, width, hang=hang)]


def print_lines(lines: Iterable[Line], *, hang: int | None = None) -> None:
    """Lines of cells, coloured where that is wanted, and broken between words where there is a width."""
    if sys.stdout.isatty() or is_rich(sys.stdout):
        screen = console(sys.stdout)
        for line in lines:
            for part in wrapped(line, screen.width, hang=hang):
                screen.print(part, soft_wrap=True)
        return
    for line in lines:
        sys.stdout.write(plain(line) + "\n")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], *, empty: str, flexible: int | None = None) -> None:
    """A table; `flexible` is the column that gives way where a terminal is narrow.

    `empty` is said on stderr when there are no rows.
    """
    if not rows:
        output.note(empty)
        return
    if sys.stdout.isatty() or is_rich():
        _print_rich_table(heads, rows, flexible)
        return
    widths = [max(len(heads[i]), *(len(row[i][0]) for row in rows)) for i in range(len(heads))]
    for texts in (heads, *([cell[0] for cell in row] for row in rows)):
        output.write("  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip())


def _print_rich_table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], flexible: int | None) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    screen = console()
    longest = [max(map(cell_len, (head, *(row[index][0] for row in rows)))) for index, head in enumerate(heads)]
    widths = fitted(longest, screen.width, flexible=flexible)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    for index, width in widths.items():
        table.add_column(heads[index], no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        table.add_row(*(Text(row[index][0], row[index][1], no_wrap=True, overflow="ellipsis") for index in widths))
    screen.print(table)
    # An empty column tells nothing, so its absence is no loss.
    missing = [head for index, head in enumerate(heads) if index not in widths and any(row[index][0] for row in rows)]
    if missing:
        output.note(f"No room for {', '.join(missing)}: a wider terminal or --json shows it all.")


def fitted(longest: Sequence[int], room: int, *, flexible: int | None = None) -> dict[int, int]:
    """How wide each column is in so much room; those that find none are left out, from the right.

    The first, an id or a name, stays whole. The flexible one gives way before the others, the widest of which
    gives way next. None is made so narrow that it would tell nothing.
    """
    least = [width if index == 0 else min(width, _LEAST) for index, width in enumerate(longest)]
    kept = list(range(len(longest)))
    while len(kept) > 1 and sum(least[index] for index in kept) + _GAP * (len(kept) - 1) > room:
        kept.pop()
    widths = {index: longest[index] for index in kept}
    over = sum(widths.values()) + _GAP * (len(kept) - 1) - room
    for index in sorted(kept[1:], key=lambda index: (index != flexible, -longest[index])):
        given = max(0, min(over, widths[index] - least[index]))
        widths[index] -= given
        over -= given
    return widths


def print_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Names and values below each other; values that are None or empty are left out."""
    shown = [(name, value) for name, value in facts if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    print_lines([[(name.ljust(width + 2), "dim"), (safe(value), "")] for name, value in shown], hang=width + 2)

"""What is to come of each workflow of the simulation when nobody interferes.

Owns the table of the shapes: the status, how often each effect is there, whose bookings stand. Deaths, frozen agents and a person may
only add to the effects what `simulated_checks` allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import simulated_lines as lines
from . import simulated_work as work


@dataclass(frozen=True, slots=True)
class Shape:
    """A workflow, the status it ends with, how often each effect is there then, whose bookings stand and whose were undone."""

    workflow: Any
    ends: str
    effects: dict[str, int]
    books: tuple[str, ...] = ()
    unbooks: tuple[str, ...] = ()
    or_ends: str = ""
    """What it may end with as well, when agents die or nothing comes of it in time."""
    fails_first: bool = False
    """It ends badly until a person has mended its trouble and retries it."""
    awaits: bool = False
    """It waits for a signal."""
    is_alone: bool = False
    """All of its runs have one unique key."""


def _acted(*numbers: int, word: str = "act") -> dict[str, int]:
    return {f"{word} {{}}.{n}": 2 if n == 1 else 1 for n in numbers}


def _undone(*numbers: int) -> dict[str, int]:
    return _acted(*numbers) | _acted(*numbers, word="undo")


SHAPES = {
    shape.workflow.name: shape
    for shape in (
        Shape(work.plain, "completed", {"note {}.0": 1, "act {}.1": 2, "note {}.2": 1}, ("{}",)),
        Shape(work.saga, "compensated", {**_undone(0, 1, 2), "note {}.3": 1}, unbooks=("{}",)),
        Shape(work.wide, "completed", {**_acted(0, 1, 2), "pack {}.5": 1, "pack {}.6": 1}, ("{}",)),
        Shape(work.wide_saga, "compensated", _undone(0, 1, 2)),
        Shape(work.books_in_line, "completed", {"note {}.0": 1}, ("{}a", "{}b")),
        Shape(work.books_and_fails, "compensated", _undone(0), unbooks=("{}a", "{}b")),
        Shape(work.parent, "completed", {"note {}.0": 1, "act {}c.0": 1}, ("{}c",)),
        Shape(work.parent_saga, "compensated", {**_undone(0, 1), "act {}c.0": 1, "undo_child {}c.9": 1}, ("{}c",)),
        Shape(work.asks, "completed", {"act {}.0": 1, "note {}.7": 1}, awaits=True),
        Shape(work.may_ask, "completed", {}, ("{}",), awaits=True),
        Shape(
            work.branches,
            "completed",
            {**_acted(0, 1, 2), "hear {}.0": 1, "hear {}.1": 1, "hear {}.2": 1},
            ("{}",),
        ),
        Shape(work.branches_saga, "compensated", {**_undone(0, 1, 2), "hear {}.3": 1}),
        Shape(work.on, "completed", {"note {}.2": 1, "note {}.1": 1, "note {}.0": 1}),
        Shape(work.again, "completed", {"act {}.0": 1, "stumble {}.1": 2}, ("{}",)),
        Shape(work.hurries, "completed", {"note {}.0": 1}, awaits=True),
        Shape(work.one_fails, "compensated", {"hopeless {}.3": 1}),
        Shape(work.catches, "completed", {"act {}.0": 1, "stumble {}.1": 1}, ("{}",)),
        Shape(work.halts, "completed", {"act {}.0": 1, "stumble {}.1": 2}),
        Shape(work.in_doubt, "completed", {"act {}.0": 1}, or_ends="compensated"),
        Shape(work.leaves_a_child, "compensated", {"act {}.1": 2, "undo {}.1": 2}),
        Shape(work.late, "compensated", _undone(0), or_ends="failed"),
        Shape(work.brittle, "completed", {"note {}.0": 1, "fragile {}.1": 2}, fails_first=True),
        Shape(work.brittle_saga, "completed", {"act {}.0": 2, "undo {}.0": 1, "fragile {}.1": 2}, fails_first=True),
        Shape(work.unsure, "completed", {"pay {}.0": 1, "probed {}.1": 1}),
        Shape(work.overruns, "completed", {"dawdle {}.0": 2}),
        Shape(lines.alone, "completed", {"act {}.0": 1, "note {}.1": 1}, is_alone=True),
        Shape(lines.alone_saga, "compensated", _undone(0, 1), is_alone=True),
        Shape(lines.alone_on, "completed", {"note {}.1": 1, "note {}.0": 1}, is_alone=True),
        Shape(lines.alone_brittle, "completed", {"note {}.0": 1, "fragile {}.1": 2}, fails_first=True, is_alone=True),
    )
}

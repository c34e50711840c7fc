"""What the commands about schedules share: the code that they look at, and how ticks and states are printed.

Refuses to let code that cannot be loaded hide the schedules of the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import output
from .context import Context
from .render import Cell, print_table
from .text import safe

if TYPE_CHECKING:
    from ..scheduling import Declared
    from ..store.sqlite import SqliteStore

STYLES = {
    "active": "green",
    "new": "cyan",
    "paused": "yellow",
    "broken": "bold red",
    "gone": "red",
    "ended": "dim",
    "fired": "green",
    "triggered": "green",
    "backfilled": "green",
    "coalesced": "dim",
    "skipped": "yellow",
    "missed": "red",
}


def code_of(context: Context) -> dict[str, Declared]:
    """The schedules of the app; code that cannot be loaded hides no schedule of the file."""
    from ..scheduling import declared

    if (registry := context.registry_if_whole()) is None:
        return {}
    found, problems = declared(registry)
    for problem in problems:
        output.note(safe(problem))
    return found


def with_schedule(context: Context, name: str) -> SqliteStore:
    """The file, with this schedule in it: one that code declares and no scheduler has seen yet begins here."""
    from ..scheduling import take_up
    from ..store import schedules

    store = context.store()
    if schedules.find(store.connection(), name) is None:
        one = code_of(context).get(name)
        if one is not None and take_up(store, name, one):
            output.note(f"The schedule {safe(name)} is new in the code, and begins now.")
    return store


def report(context: Context, name: str) -> int:
    from ..views.schedules import schedule_json

    found = schedule_json(context.store(), name, {}, raw=context.raw)
    if context.machine:
        context.answer(found)
    else:
        output.write(f"Schedule {safe(name)} ({safe(found['rule'])}): {safe(found['why'])}")
    return 0


def print_ticks(found: list[dict[str, Any]], *, empty: str) -> None:
    print_table(
        ["TICK", "UNTIL", "COUNT", "OUTCOME", "RUN", "REASON"],
        [
            [
                (one["tick"], ""),
                (one["until"] if one["until"] != one["tick"] else "", ""),
                (f"{one['count']:,}" if one["count"] is not None else "many", ""),
                word_cell(one["outcome"]),
                (one["run_id"] or "-", ""),
                (safe(one["reason"] or ""), "dim"),
            ]
            for one in found
        ],
        empty=empty,
        flexible=5,
    )


def word_cell(word: str) -> Cell:
    return safe(word), STYLES.get(word, "")

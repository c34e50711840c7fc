"""Sentences about entries of a journal: what is waited for, the next try, the last entry, and instants.

Owns the words for one entry. Refuses to say why a run stands still: `why` puts them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import clock
from ..journal.entry import Entry
from ..text.duration import describe
from ..views.values import error_line, wall_json
from ..views.waiting import open_entries

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore


def wait_texts(store: SqliteStore, entries: list[Entry]) -> list[str]:
    """A sentence for each timer, signal and backoff that is open; parts have their own."""
    texts = []
    for entry in open_entries(entries):
        until = f" until {when(store, entry.due_at)}" if entry.due_at is not None else ""
        if entry.kind == "timer":
            texts.append(f"It sleeps{until} (at {entry.path}).")
        elif entry.kind == "signal":
            texts.append(f"It waits for the signal {entry.name!r}{until} (at {entry.path}).")
        elif entry.event == "tried":
            texts.append(_backoff_text(store, entry))
        elif entry.kind not in ("task", "child"):
            texts.append(f"The step {entry.name} at {entry.path} has started and has no outcome yet.")
    return texts


def _backoff_text(store: SqliteStore, entry: Entry) -> str:
    at = when(store, entry.due_at) if entry.due_at is not None else "soon"
    verb = "is" if entry.due_at is None or entry.due_at > store.now() else "was due"
    by = error_line(entry.data).removesuffix(".")
    return f"The step {entry.name} at {entry.path} failed in try {entry.try_number} by {by}; its next try {verb} {at}."


def entry_text(entry: Entry) -> str:
    named = entry.name if entry.kind in ("step", "transaction", entry.name) else f"{entry.kind} {entry.name}"
    return f"{named} at {entry.path} {entry.event}"


def when(store: SqliteStore, engine_at: int) -> str:
    left = engine_at - store.now()
    at = wall_json(store.engine_time().to_wall(engine_at))
    return f"{at} (in {length(left)})" if left > 0 else f"{at} ({length(-left)} ago)"


def length(microseconds: int) -> str:
    return describe(microseconds / clock.SECOND)

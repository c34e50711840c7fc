"""The undo of a run as JSON: what was undone, and what is left to undo or would be, in order.

Owns the reading of both from the journal, with the outcomes of parts that the run has not taken yet, so that it can be asked of an open
run, which goes on undisturbed. Refuses to foretell whether the run will end badly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from ..journal.entry import Entry
from ..journal.plan import UNDO_PREFIX, Undo, undo_plan, undone
from ..states import FINAL, Status
from ..store import journal, undoing
from .values import engine_json, error_json, value_json, wall_json

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_STATUS = "select status from outlast_task where id = :id"


def undo_json(store: SqliteStore, task_id: int, raw: bool = False) -> list[dict[str, Any]]:
    """The compensations of a run with the arguments and results of their steps: first those that have run, in that order.

    `status` is `completed` for one that has run, `pending` for one that would run or will, and `left` where the run has ended without
    it. A completed run has none: it is not undone any more.
    """
    row = store.connection().execute(_STATUS, {"id": task_id}).fetchone()
    status = Status(row[0]) if row is not None else Status.COMPLETED
    if status is Status.COMPLETED:
        return []
    entries = _entries(store, task_id)
    last = {entry.path.removeprefix(UNDO_PREFIX): entry for entry in entries if entry.kind == "compensation"}
    to_come = "left" if status in FINAL else "pending"
    lines = [_line(store, undo, "completed", last.get(undo.path), raw=raw) for undo in undone(entries)]
    return lines + [_line(store, undo, to_come, last.get(undo.path), raw=raw) for undo in undo_plan(entries)]


def _entries(store: SqliteStore, task_id: int) -> list[Entry]:
    entries = journal.load(store.connection(), task_id)
    last_seq = max((entry.seq for entry in entries), default=0)
    not_taken = undoing.outcomes_not_taken(store.connection(), task_id)
    return entries + [replace(entry, seq=last_seq + number) for number, entry in enumerate(not_taken, 1)]


def _line(store: SqliteStore, undo: Undo, status: str, last: Entry | None, *, raw: bool) -> dict[str, Any]:
    return {
        "path": undo.path,
        "name": undo.name,
        "kind": undo.kind,
        "status": status,
        "outcome": undo.outcome,
        "input": value_json(undo.input, raw=raw),
        "result": value_json(undo.result, raw=raw),
        "error": error_json(last.data) if last is not None and last.event != "completed" else None,
        "tries": last.try_number if last is not None else 0,
        "due_at": engine_json(store, undo.due_at) if status == "pending" else None,
        "finished_at": wall_json(last.at) if last is not None and status == "completed" else None,
    }

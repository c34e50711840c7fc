"""What a run takes from the one that it retries, place by place, in the order of its own code.

Owns the question whether an inherited result stands for a call, which is so for the same kind, name and input, and the entries by
which the run makes it its own: from then on its journal alone counts, as on any replay. Refuses to take anything twice: what was
taken and set aside since runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from .. import codec
from ..journal.entry import COMPENSABLE, INHERITED, PREVIEW, Entry
from ..journal.inheritance import STEPS, Inherited, began_at
from .history import History

PREVIEW_BYTES = 2048


class Inheritance:
    """What one run has inherited; of a run that is no retry, nothing."""

    def __init__(self, inherited: Mapping[str, Inherited], history: History) -> None:
        self._inherited = inherited
        self._history = history
        self.began_at = began_at(inherited)

    def at(self, path: str, kind: str, name: str, data: bytes | None = None) -> Inherited | None:
        """The result that stands for a call with this input."""
        one = self._result(path)
        if one is None or one.kind != kind or one.name != name:
            return None
        return one if data is None or is_equal(one.input, data, is_preview=bool(one.flags & PREVIEW)) else None

    def child_before(self, path: str, name: str, data: bytes) -> str | None:
        """The child with this input that had not completed: the new one goes on from there."""
        one = self._inherited.get(path)
        if one is None or one.event is not None or one.kind != "child" or one.name != name:
            return None
        if not is_equal(one.input, data, is_preview=bool(one.flags & PREVIEW)):
            return None
        return None if self._history.generation(path) else one.uid

    def generation(self, path: str) -> int:
        """How many finished results were set aside here in the runs before; one that was refused is such a one."""
        one = self._inherited.get(path)
        if one is None:
            return 0
        return one.generation + (one.kind in STEPS and self._result(path) is not None)

    def is_ahead(self) -> bool:
        """Whether there are results at places that the code has not come to."""
        return any(
            one.event is not None and one.kind != "patch" and one.path not in self._history.records and self._result(one.path) is not None
            for one in self._inherited.values()
        )

    def _result(self, path: str) -> Inherited | None:
        one = self._inherited.get(path)
        return None if one is None or one.event is None or self._history.has_inherited(path) else one


def entries_of(one: Inherited, next_seq: Callable[[], int], *, kept: bytes | None = None, flags: int = 0) -> list[Entry]:
    """The entries that make a result the run's own. A step that may be undone, and a part, have their start as well."""
    entries = []
    needs_start = bool(flags & COMPENSABLE) or one.kind in ("task", "child")
    if needs_start:
        data = f"0 {one.uid}".encode() if one.uid is not None else None
        at = one.started_at if one.started_at is not None else one.at
        entries.append(Entry(next_seq(), one.path, "started", one.kind, one.name, at, flags=flags, started_at=at, input=kept, data=data))
    entries.append(
        Entry(
            next_seq(),
            one.path,
            one.event or "completed",
            one.kind,
            one.name,
            one.at,
            try_number=one.try_number,
            flags=(flags & PREVIEW) | INHERITED,
            started_at=one.started_at,
            input=None if needs_start else kept,
            data=one.data,
        )  # fmt: skip
    )
    return entries


def is_equal(kept: bytes | None, data: bytes, *, is_preview: bool) -> bool:
    """Whether an input is the one that a journal has kept, whole or as a preview."""
    if kept is None:
        return False
    if is_preview:
        # It ends in a fingerprint of the whole.
        return len(data) > PREVIEW_BYTES and codec.preview(data, PREVIEW_BYTES) == kept
    return kept == data or _canonical(kept) == _canonical(data)


def _canonical(data: bytes) -> Any:
    """The same text for values that differ in the order of their names alone."""
    return json.dumps(json.loads(data), sort_keys=True)

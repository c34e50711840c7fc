"""The undo plan: which compensations a journal calls for, in which order.

Owns one pure function over journal entries, used by the store (what does the run need next?), by the undo (what to run?) and by
`outlast show --undo` (what would run?). Refuses I/O. Compensations run in reverse order of the steps' start; one that completed is
done; a step that never began a try has nothing to undo.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..codec.errors import summary, type_name
from ..codec.payloads import SEALED
from ..codec.types import NotDecodable
from ..errors import OutcomeUnknown, StepDied, StepTimeout
from .entry import COMPENSABLE, UNSURE, Entry

UNDO_PREFIX = "undo/"


@dataclass(frozen=True, slots=True)
class Undo:
    """One compensation to run: of the step at `path`, with its input, and its result where it has one."""

    path: str
    """Its place; with `~N` where the place had been set aside N times."""
    name: str
    kind: str
    input: bytes
    outcome: str
    """`completed`, `failed` or `unknown`."""
    result: bytes | None
    tries: int
    due_at: int | None


def undo_plan(entries: Iterable[Entry]) -> list[Undo]:
    """The compensations still to run, the latest started step first.

    What was set aside stays in the plan; but a step that had not succeeded and began again at its place is one step, not two.
    """
    reading = _Reading(entries)
    return [undo for key, undo in reading.begun() if key not in reading.done and not reading.never_ran(key)]


def undone(entries: Iterable[Entry]) -> list[Undo]:
    """What was undone, in the order in which it was."""
    reading = _Reading(entries)
    begun = dict(reading.begun())
    return [begun[key] for key in reading.done if key in begun]


def undone_places(entries: Iterable[Entry]) -> frozenset[str]:
    """The places whose present step was undone; one that had been set aside before is another."""
    reading = _Reading(entries)
    return frozenset(path for path, here in reading.keys.items() if here[-1] in reading.done)


class _Reading:
    """A journal, read for what has to be undone."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.started: dict[str, Entry] = {}
        self.outcomes: dict[str, Entry] = {}
        self.tries: dict[str, Entry] = {}
        self.done: dict[str, Entry] = {}
        self.keys: dict[str, list[str]] = {}
        """By place: the keys in the plan of what was there, the last one of what is there now."""
        for entry in entries:
            self._read(entry)

    def _read(self, entry: Entry) -> None:
        if entry.kind == "compensation":
            key = entry.path.removeprefix(UNDO_PREFIX)
            if entry.event == "completed":
                self.done[key] = entry
            else:
                self.tries[key] = entry
            return
        if entry.kind in ("question", "probe"):
            return
        here = self.keys.setdefault(entry.path, [entry.path])
        if entry.event == "set_aside":
            here.append(f"{entry.path}~{len(here)}")
        elif entry.event == "started" and entry.flags & COMPENSABLE and entry.try_number <= 1:
            if len(here) > 1 and _goes_on_with(self.started.get(here[-2]), self.outcomes.get(here[-2]), entry):
                # One step with one idempotency key: its last outcome counts.
                here.pop()
                self.outcomes.pop(here[-1], None)
            self.started[here[-1]] = entry
        elif entry.event in ("completed", "failed", "cancelled", "unknown"):
            known = self.outcomes.get(here[-1])
            if known is None or known.event != "completed":
                self.outcomes[here[-1]] = entry

    def begun(self) -> list[tuple[str, Undo]]:
        """Every step that has a compensation, the latest started first."""
        latest_first = sorted(self.started.items(), key=lambda pair: -pair[1].seq)
        return [(key, self._undo(key, entry)) for key, entry in latest_first]

    def never_ran(self, key: str) -> bool:
        outcome = self.outcomes.get(key)
        return outcome is not None and outcome.event == "cancelled" and outcome.try_number == 0

    def _undo(self, key: str, entry: Entry) -> Undo:
        outcome = self.outcomes.get(key)
        failed_try = self.tries.get(key)
        return Undo(
            path=key,
            name=entry.name,
            kind=entry.kind,
            input=entry.input or b"{}",
            outcome=outcome.event if outcome is not None and is_known(outcome) else "unknown",
            result=outcome.data if outcome is not None and outcome.event == "completed" else None,
            tries=failed_try.try_number if failed_try is not None and failed_try.event == "tried" else 0,
            due_at=failed_try.due_at if failed_try is not None else None,
        )


_UNKNOWN = frozenset({type_name(StepTimeout), type_name(StepDied), type_name(OutcomeUnknown)})


def is_known(outcome: Entry) -> bool:
    """Whether an outcome says what the step did: who overran, or died, may have taken effect."""
    if outcome.flags & UNSURE:
        return False
    if outcome.event == "failed" and outcome.kind in ("step", "task") and outcome.data is not None and outcome.data[:1] != SEALED:
        try:
            return summary(outcome.data)["type"] not in _UNKNOWN
        except NotDecodable:  # A damaged row: the undo goes on, and what cannot be read is nobody's result.
            return True
    return outcome.event in ("completed", "failed")


def _goes_on_with(before: Entry | None, outcome: Entry | None, entry: Entry) -> bool:
    return before is not None and before.name == entry.name and (outcome is None or outcome.event != "completed")

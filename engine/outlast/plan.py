"""The undo plan: which compensations a journal calls for, in which order.

Owns one pure function over journal entries, used by the store (what does the run need next?), by the undo (what to run?) and by
`outlast show --undo` (what would run?). Refuses I/O. Compensations run in reverse order of the steps' start; one that completed is
done; a step that never began a try has nothing to undo.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .operations import COMPENSABLE, Entry

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
    started: dict[str, Entry] = {}
    outcomes: dict[str, Entry] = {}
    tries: dict[str, Entry] = {}
    done: set[str] = set()
    keys: dict[str, list[str]] = {}
    """By place: the keys in this plan of what was there, the last one of what is there now."""
    for entry in entries:
        if entry.kind == "compensation":
            key = entry.path.removeprefix(UNDO_PREFIX)
            if entry.event == "completed":
                done.add(key)
            else:
                tries[key] = entry
            continue
        here = keys.setdefault(entry.path, [entry.path])
        if entry.event == "set_aside":
            here.append(f"{entry.path}~{len(here)}")
        elif entry.event == "started" and entry.flags & COMPENSABLE:
            if len(here) > 1 and _goes_on_with(started.get(here[-2]), outcomes.get(here[-2]), entry):
                # One step with one idempotency key: its last outcome counts.
                here.pop()
                outcomes.pop(here[-1], None)
            started[here[-1]] = entry
        elif entry.event in ("completed", "failed", "cancelled", "unknown"):
            known = outcomes.get(here[-1])
            if known is None or known.event != "completed":
                outcomes[here[-1]] = entry
    plan = []
    for key, entry in started.items():
        outcome = outcomes.get(key)
        if key in done or (outcome is not None and outcome.event == "cancelled" and outcome.try_number == 0):
            continue
        completed = outcome is not None and outcome.event == "completed"
        failed_try = tries.get(key)
        plan.append(
            (
                entry.seq,
                Undo(
                    path=key,
                    name=entry.name,
                    kind=entry.kind,
                    input=entry.input or b"{}",
                    outcome=outcome.event if outcome is not None and outcome.event in ("completed", "failed") else "unknown",
                    result=outcome.data if completed and outcome is not None else None,
                    tries=failed_try.try_number if failed_try is not None and failed_try.event == "tried" else 0,
                    due_at=failed_try.due_at if failed_try is not None else None,
                ),
            )
        )
    return [undo for _, undo in sorted(plan, key=lambda pair: -pair[0])]


def _goes_on_with(before: Entry | None, outcome: Entry | None, entry: Entry) -> bool:
    return before is not None and before.name == entry.name and (outcome is None or outcome.event != "completed")

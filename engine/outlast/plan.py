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
    name: str
    kind: str
    input: bytes
    outcome: str
    """`completed`, `failed` or `unknown`."""
    result: bytes | None
    tries: int
    due_at: int | None


def undo_plan(entries: Iterable[Entry]) -> list[Undo]:
    """The compensations still to run, the latest started step first."""
    started: dict[str, Entry] = {}
    outcomes: dict[str, Entry] = {}
    tries: dict[str, Entry] = {}
    done: set[str] = set()
    for entry in entries:
        if entry.kind == "compensation":
            step_path = entry.path.removeprefix(UNDO_PREFIX)
            if entry.event == "completed":
                done.add(step_path)
            else:
                tries[step_path] = entry
        elif entry.event == "started" and entry.flags & COMPENSABLE:
            started[entry.path] = entry
        elif entry.event in ("completed", "failed", "cancelled", "unknown"):
            known = outcomes.get(entry.path)
            if known is None or known.event not in ("completed",):
                outcomes[entry.path] = entry
    plan = []
    for path, entry in started.items():
        outcome = outcomes.get(path)
        if path in done or (outcome is not None and outcome.event == "cancelled" and outcome.try_number == 0):
            continue
        completed = outcome is not None and outcome.event == "completed"
        failed_try = tries.get(path)
        plan.append(
            (
                entry.seq,
                Undo(
                    path=path,
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

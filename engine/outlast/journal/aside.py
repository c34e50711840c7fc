"""Setting outcomes aside: what of a journal a run that is tried again must not see.

Owns one pure function over journal entries. Refuses I/O. What is set aside stays in the history and in the undo plan; a replay goes on as
if its places had never been reached.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .entry import Entry

_KEPT = frozenset({"patch", "forced", "compensation", "question", "probe", "void"})
_OUTCOMES = frozenset({"completed", "failed", "cancelled", "unknown"})


def to_set_aside(entries: Iterable[Entry], failed: Collection[str], branches: Collection[str]) -> list[Entry]:
    """The first entry of each place to set aside: the failed ones, and what `branches` began after the first of these failures.

    What others had cancelled by then goes with it: the cancel was the failure's doing.
    """
    firsts: dict[str, Entry] = {}
    outcomes: dict[str, Entry] = {}
    for entry in entries:
        if entry.kind in _KEPT:
            continue
        if entry.event == "set_aside":
            firsts.pop(entry.path, None)
            outcomes.pop(entry.path, None)
            continue
        firsts.setdefault(entry.path, entry)
        if entry.event in _OUTCOMES:
            outcomes.setdefault(entry.path, entry)
    cut = min((outcomes[path].seq for path in failed if path in outcomes), default=None)
    if cut is None:
        return []
    return [first for path, first in firsts.items() if _goes(first, outcomes.get(path), failed, branches, cut)]


def branch_of(path: str) -> str:
    """The prefix of the branch that a place is on."""
    return path[: path.rfind(".") + 1]


def _goes(first: Entry, outcome: Entry | None, failed: Collection[str], branches: Collection[str], cut: int) -> bool:
    if first.path in failed:
        return True
    if first.seq > cut and branch_of(first.path) in branches:
        return True
    return outcome is not None and outcome.event == "cancelled" and outcome.seq > cut

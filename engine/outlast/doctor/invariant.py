"""One thing that must hold in every file, and what to do where it does not.

Owns the shape alone; the lists are in `invariants` and `invariants_of_rows`. Refuses to know how a find is repaired: the operations keep
these by themselves, each in the transaction that could break it, so a find is a defect of ours, or a file that somebody edited.
"""

from __future__ import annotations

from dataclasses import dataclass

REPORT = "Make a backup, and report it with the output of `outlast show RUN --json`."


@dataclass(frozen=True, slots=True)
class Invariant:
    """One thing that must hold. `holds` and `broken` say what was found."""

    name: str
    holds: str
    broken: str
    action: str
    query: str

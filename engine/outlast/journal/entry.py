"""One line of a journal, as a value.

Owns the shape of an entry and the flags that it carries. Refuses to know how it is written and what it leads to: those who read journals
(a replay, an undo, a view) need no more.
"""

from __future__ import annotations

from msgspec import Struct

COMPENSABLE = 1
"""Journal flag: the step has a compensation."""

PREVIEW = 2
"""Journal flag: the input kept is a preview, since nothing will ever need it."""

INHERITED = 4
"""Journal flag: the outcome was taken from the run that this one retries."""

UNSURE = 8
"""Journal flag: a failure that does not say whether the try took effect, of which the error itself is sealed."""


class Entry(Struct, frozen=True, gc=False):
    """One line of a journal. `seq` is its place in the order of delivery."""

    seq: int
    path: str
    event: str
    kind: str
    name: str
    at: int
    try_number: int = 0
    flags: int = 0
    started_at: int | None = None
    due_at: int | None = None
    """Engine time: of what is waited for, when it is over; of an outcome in an async run, when it was written."""
    input: bytes | None = None
    data: bytes | None = None

"""`Queue`: what a workflow file says about a name that tasks wait under.

Owns the declaration as a validated value. Refuses to know how limits are held across agents, which is the
store's, and how `outlast queue set` changes them.
"""

from __future__ import annotations

import sys
from dataclasses import KW_ONLY, dataclass, field
from types import CodeType
from typing import Literal, get_args

from ..errors import InvalidInput
from ..text.duration import seconds
from ..text.names import DEFAULT_QUEUE, checked_name, checked_whole
from . import registry
from .options import checked_choice
from .source import shown

Hold = Literal["running", "unfinished"]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and its limits, which hold across all agents.

    At most `concurrency` tasks of it run at once, and at most `per_partition` of one partition. `rate`, as in
    "100/1m", is how many may start within any such window. `hold="unfinished"` keeps the slot of a parked
    run. Declared when created; raises `InvalidInput` for limits that make no sense.
    """

    name: str
    _: KW_ONLY
    concurrency: int | None = None
    rate: str | None = None
    per_partition: int | None = None
    hold: Hold = "running"
    rate_count: int | None = field(init=False, repr=False, default=None)
    rate_window_seconds: float | None = field(init=False, repr=False, default=None)
    module: str = field(init=False, repr=False, compare=False, default="")
    place: str = field(init=False, repr=False, compare=False, default="")
    """File and line of the declaration."""
    code: CodeType | None = field(init=False, repr=False, compare=False, default=None)
    """What was executed then: one and the same for two declarations of a file, another when it is reloaded."""

    def __post_init__(self) -> None:
        place = f"queue {self.name!r}"
        checked_name(self.name, place="The name of a queue")
        if self.concurrency is not None:
            checked_whole(self.concurrency, place=f"concurrency of {place}", least=1)
        if self.per_partition is not None:
            checked_whole(self.per_partition, place=f"per_partition of {place}", least=1)
        checked_choice(self.hold, get_args(Hold), place=f"hold of {place}")
        if self.rate is not None:
            count, window_seconds = parsed_rate(self.rate, place=f"rate of {place}")
            object.__setattr__(self, "rate_count", count)
            object.__setattr__(self, "rate_window_seconds", window_seconds)
        # Two frames up: this method, the generated __init__, the declaration.
        frame = sys._getframe(2)
        object.__setattr__(self, "module", str(frame.f_globals.get("__name__", "")))
        object.__setattr__(self, "place", f"{shown(frame.f_code.co_filename)}:{frame.f_lineno}")
        object.__setattr__(self, "code", frame.f_code)
        registry.add_queue(self)


_MOST_DIGITS = 18
"""SQLite holds any whole number of so many digits."""


def parsed_rate(text: object, *, place: str = "rate") -> tuple[int, float]:
    """The count and the window in seconds of a rate such as "100/1m" or "5/s"; else `InvalidInput`."""
    count, slash, window = text.partition("/") if isinstance(text, str) else ("", "", "")
    digits = count.strip()
    if not slash or not (digits.isascii() and digits.isdigit()) or len(digits) > _MOST_DIGITS or int(digits) < 1:
        raise InvalidInput(f"{place} must be a count and a window, as in '100/1m', not {text!r}.")
    window = window.strip()
    length = seconds(f"1{window}" if window.isalpha() else window, place=f"The window of {place}")
    if length <= 0:
        raise InvalidInput(f"{place} must have a window of more than 0 s, not {text!r}.")
    return int(digits), length


DEFAULT = Queue(DEFAULT_QUEUE)
"""The queue of what names none: without limits unless a file declares it anew."""

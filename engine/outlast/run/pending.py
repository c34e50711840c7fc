"""A durable call that an async run has made, and that has no outcome yet.

Owns what such a call is known by, and what brings its outcome about. Refuses behaviour: the run acts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..journal.inheritance import Inherited
from .parts import Part

if TYPE_CHECKING:
    from .inline import InlineStep


class Pending:
    """A durable call that has no outcome yet: the future that the code waits for, and what brings it about."""

    __slots__ = (
        "due_at", "future", "inherited", "inline", "kind", "name", "over_at", "part", "path", "seen_signal_id", "start", "timeout_seconds",
        "timer", "type_",
    )  # fmt: skip

    def __init__(self, path: str, kind: str, name: str) -> None:
        self.path = path
        self.kind = kind
        self.name = name
        self.future: asyncio.Future[Any] | None = None
        self.start: Callable[[Pending], None] | None = None
        self.inline: InlineStep | None = None
        self.part: Part[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.due_at: int | None = None
        self.over_at: int | None = None
        """Of a timer: when it is over, or was, in engine time."""
        self.timeout_seconds: float = 0.0
        self.type_: Any = object
        self.seen_signal_id = 0
        self.inherited: tuple[Inherited, Any, bytes] | None = None
        """A result that stands for it, with the definition and the input of the call."""

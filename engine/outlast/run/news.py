"""A bell for one thread that waits: rung from any thread, heard once.

Owns one plain lock, held while nothing is new. Exists because an `Event` costs more to make than a short run costs to execute.
"""

from __future__ import annotations

import threading


class News:
    """`ring` wakes the one that waits, now or at its next `wait`; many rings are one."""

    __slots__ = ("_silence",)

    def __init__(self) -> None:
        self._silence = threading.Lock()
        self._silence.acquire()

    def ring(self) -> None:
        try:
            self._silence.release()
        except RuntimeError:
            pass  # Rung already.

    def wait(self, seconds: float = -1) -> bool:
        """Wait for a ring and take it; false where none came in time."""
        return self._silence.acquire(timeout=seconds)

    def drop(self) -> None:
        """Take the ring that has come, if one has."""
        self._silence.acquire(blocking=False)

"""Streams for what is said by the way: progress, logs, what steps print.

Owns the rule that no work fails because nobody can hear of it: what a reader that has gone, or a full disk, does not take is lost, and
what follows is tried again. Refuses to hold an answer, whose loss has to be told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO, cast


def forgiving(stream: TextIO) -> TextIO:
    """The same stream, of which no write and no flush fails."""
    return cast(TextIO, _Forgiving(stream))


class _Forgiving:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

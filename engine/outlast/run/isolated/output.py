"""What an isolated step prints, line by line, in bounded memory.

Owns the cutting of one stream into lines. Refuses to hold back the step or to fill memory: a long line is
cut, and of more than `MOST_OUTPUT` bytes only the end is handed on, after a line that says how much was
dropped.
"""

from __future__ import annotations

from collections.abc import Callable

LONGEST_LINE = 8_192
"""Bytes of one line that are kept."""
MOST_OUTPUT = 1 << 20
"""Bytes of one stream that are handed on as they come."""


class Output:
    """One stream of one try."""

    def __init__(self, name: str, deliver: Callable[[str, str], None] | None) -> None:
        self._name = name
        self._deliver = deliver
        self._line = b""
        self._tail = b""
        self._kept = 0
        self._is_cut = False
        self._cut = 0
        self._passed_over = 0

    @property
    def dropped(self) -> int:
        return self._cut + self._passed_over

    def feed(self, data: bytes) -> None:
        if self._kept < MOST_OUTPUT:
            self._split(data)
            return
        self._tail += data
        self._passed_over += max(0, len(self._tail) - LONGEST_LINE)
        self._tail = self._tail[-LONGEST_LINE:]

    def finish(self) -> None:
        """Hand on what is left: the end of what was too much, a line without an end."""
        tail = self._tail
        if self._passed_over:
            self._end_line()
            first, _, tail = tail.partition(b"\n")
            self._passed_over += len(first) + 1
            self._split(f"… {self._passed_over:,} bytes of {self._name} were dropped …\n".encode())
        self._split(tail)
        self._end_line()

    def _split(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._add(line)
            self._end_line(always=True)
        self._add(rest)

    def _add(self, part: bytes) -> None:
        room = LONGEST_LINE - len(self._line)
        self._line += part[:room]
        self._cut += max(0, len(part) - room)
        self._is_cut = self._is_cut or len(part) > room

    def _end_line(self, *, always: bool = False) -> None:
        if not self._line and not always:
            return
        text = self._line.decode("utf-8", "replace").removesuffix("\r") + ("…" if self._is_cut else "")
        self._kept += len(self._line) + 1
        self._line, self._is_cut = b"", False
        if self._deliver is not None:
            self._deliver(self._name, text)

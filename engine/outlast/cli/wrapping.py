"""Where a line that is wider than the terminal is broken: between words, and what follows stands below its beginning.

Owns the places of the breaks and the room that there is. Refuses to break a word or a command in backticks, which somebody may want to
copy: what is too long by itself is left to the terminal.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from typing import TextIO

_WORD = re.compile(r"(?:`[^`\n]*`|[^\s`]|`)+")
_BETWEEN = " · "
_FACT = re.compile(rf"[^\s](?:(?!{_BETWEEN})[^\n])*(?:{_BETWEEN.rstrip()})?")
_LEAD = re.compile(r"(?: |├─ |└─ |│  |\|- |`- |\|  )*")
_BELOW = str.maketrans("├└─`-", "│    ")
_LEAST = 24
"""With less room than this beside what leads a line, nothing is broken by us."""


def width_of(stream: TextIO) -> int | None:
    """The columns of a terminal; None where there is none."""
    if not stream.isatty():
        return None
    if (given := os.environ.get("COLUMNS", "")).isdigit() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def broken(text: str, width: int, *, hang: int | None = None) -> Iterator[tuple[str, int, int]]:
    """The lines that a text makes: what leads each (nothing, for the first), and where of the text it begins and ends. `hang` says how
    far what follows is indented; else it is a little more than the text itself, below the lines of its tree.
    """
    below = _below(text) if hang is None else " " * hang
    if width - len(below) < _LEAST:
        below = ""
    begin = at = 0
    for line in text.splitlines() or [""]:
        lead, room = ("", width) if at == 0 else (below, width - len(below))
        begin = end = at
        for word_begin, word_end in _words(text, at, at + len(line), room=width - len(below)):
            if end > begin and cells(text[begin:word_end]) > room and text[begin:end].strip(" │├└─|`-"):
                yield lead, begin, end
                lead, room, begin = below, width - len(below), word_begin
            end = word_end
        yield lead, begin, end
        at += len(line) + 1


def _words(text: str, begin: int, end: int, *, room: int) -> Iterator[tuple[int, int]]:
    """What is not broken: words, and facts between dots where there is room for one."""
    facts = list(_FACT.finditer(text, begin, end)) if _BETWEEN in text[begin:end] else []
    for fact in facts:
        if cells(fact[0]) <= room:
            yield fact.span()
        else:
            yield from (word.span() for word in _WORD.finditer(text, *fact.span()))
    if not facts:
        yield from (word.span() for word in _WORD.finditer(text, begin, end))


def _below(text: str) -> str:
    found = _LEAD.match(text)
    lead = found[0] if found is not None else ""
    return lead.replace("|- ", "|  ").translate(_BELOW) + ("  " if lead else "")


def cells(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii():
        return len(text)
    return len(text) + sum(_more(one) for one in text if one >= "\u0300")


def _more(one: str) -> int:
    return -1 if unicodedata.combining(one) else 1 if unicodedata.east_asian_width(one) in "WF" else 0

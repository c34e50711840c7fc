"""What a name may look like, and what text may be kept.

Owns the rule for names of definitions, queues and schedules, which appear on the command line, in paths of
steps and in `WORKFLOW:KEY`, and the rule for free text such as keys. Refuses what could not be written on a
command line or stored.
"""

from __future__ import annotations

import re

from ..errors import InvalidInput

DEFAULT_QUEUE = "default"
"""The queue of a workflow that names none; it always exists."""

_NAME = re.compile(r"\w[\w.\-]*")


def checked_name(value: object, *, place: str) -> str:
    """The name itself, or `InvalidInput`: letters, digits, `_`, `-` and `.`, the last two not first."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidInput(
            f"{place} must be a name, not {value!r}.",
            hint="Use letters, digits, '_', '-' and '.', a letter first.",
        )
    return value


def checked_text(value: object, *, place: str) -> str:
    """Text that can be stored: a string that is not empty and has no lone surrogate; else `InvalidInput`."""
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{place} must be a text that is not empty, not {value!r}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{place} has a lone surrogate at {error.start}, which cannot be stored.") from None
    return value


LONGEST_KEY = 500
"""Characters of a key: it names something, and stands in indexes, in lists and on command lines."""


def checked_key(value: object, *, place: str) -> str:
    """Text that names something outside: as `checked_text`, and of at most `LONGEST_KEY` characters."""
    text = checked_text(value, place=place)
    if len(text) > LONGEST_KEY:
        raise InvalidInput(
            f"{place} has {len(text):,} characters; the limit is {LONGEST_KEY}.",
            hint="Give a shorter one, such as a hash of it.",
        )
    return text


def checked_whole(value: object, *, place: str, least: int) -> int:
    """A whole number of at least `least` that fits 32 bits; else `InvalidInput`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise InvalidInput(f"{place} must be a whole number of at least {least}, not {value!r}.")
    return value

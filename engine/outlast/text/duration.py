"""Durations as people write them: `"1500ms"`, `"30s"`, `"1h30m"`, a number of seconds, a timedelta.

Owns their reading and their display. Refuses what is negative, not finite, longer than a thousand years, or
not understood, with one sentence that names what is allowed. Pure.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

from ..errors import InvalidInput

LONGEST = 1_000 * 365.25 * 86_400.0

_UNITS = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
_PART = re.compile(rf"({_NUMBER})\s*(ms|[wdhms])\s*")
_BARE_NUMBER = re.compile(_NUMBER)
_TEXT = 'a duration such as "1500ms", "30s", "5m", "1h30m", "7d" or "2w"'
_ALLOWED_AS_TEXT = f"{_TEXT}, or a number of seconds"
_ALLOWED = f"{_TEXT}, a number of seconds, or a timedelta"


def seconds(value: str | int | float | timedelta, *, place: str = "duration") -> float:
    """Read a duration as seconds. `place` names it when it is refused."""
    if isinstance(value, timedelta):
        found: float | None = value.total_seconds()
    elif isinstance(value, str):
        found = _read_text(value.strip().lower())
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = _read_number(value)
    else:
        found = None
    # Who wrote a text may be at a command line, where there is nothing else.
    allowed = _ALLOWED_AS_TEXT if isinstance(value, str) else _ALLOWED
    if found is None or not math.isfinite(found):
        raise InvalidInput(f"{place} must be {allowed}, not {_shown(value)}.")
    if found < 0:
        raise InvalidInput(f"{place} must not be negative: {_shown(value)}; give {allowed}.")
    if found > LONGEST:
        raise InvalidInput(f"{place} must not be longer than a thousand years: {_shown(value)}; give {allowed}.")
    return found


def describe(seconds: float) -> str:
    """A duration in its two largest units, as `1h 30m`, `2.5s` or `250ms`."""
    if not math.isfinite(seconds):
        return "forever" if seconds > 0 else "unknown"
    if seconds < 0:
        return f"-{describe(-seconds)}"
    if seconds < 0.9995:
        milliseconds = seconds * 1000
        return f"{milliseconds:.0f}ms" if milliseconds >= 10 or milliseconds == 0 else f"{milliseconds:.3g}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def _read_text(text: str) -> float | None:
    if _BARE_NUMBER.fullmatch(text):
        return float(text)
    if text.startswith("-") and _read_text(text[1:].strip()) is not None:
        return -1.0
    total, position = 0.0, 0
    sizes: list[float] = []
    while part := _PART.match(text, position):
        size = _UNITS[part[2]]
        # From large to small, each once: "30m1h" and "5m5m" are more likely a mistake than a sum.
        if sizes and size >= sizes[-1]:
            return None
        sizes.append(size)
        total += float(part[1]) * size
        position = part.end()
    return total if sizes and position == len(text) else None


def _read_number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return LONGEST * 2 if value > 0 else -1.0


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > 1_000:
        return "a number of more than 300 digits"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"

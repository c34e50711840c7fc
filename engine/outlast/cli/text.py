"""Text that is safe to show: what users and their data wrote, made harmless, and instants, ages and durations
made short.

Owns the escape of control characters, which would otherwise move the cursor, change the title or hide text on
whoever looks. Refuses markup: nothing that passes here is interpreted by anyone.
"""

from __future__ import annotations

import re
from datetime import datetime

from .. import clock
from ..duration import describe

# C0, DEL, C1, the marks that turn the direction of writing around, line separators, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_LINES = re.compile("(?![\n\t])" + _UNSAFE.pattern)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: object) -> str:
    """One line without a control character: `\\n` and `\\t` are spelled, others shown as `\\xNN`."""
    return _UNSAFE.sub(_spelled, str(text))


def safe_lines(text: object) -> str:
    """The same for a text of several lines, which keeps its line ends and tabs."""
    return _UNSAFE_IN_LINES.sub(_spelled, str(text))


def safe_json(text: str) -> str:
    """JSON text whose strings hold no raw control character; it stays the same JSON."""
    return _UNSAFE_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def shortened(text: str, width: int) -> str:
    """The text itself, or its beginning and an ellipsis."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def instant(iso: object) -> datetime | None:
    """The datetime of an instant of a view, or None."""
    if not isinstance(iso, str) or not iso:
        return None
    try:
        return datetime.fromisoformat(iso)
    except ValueError:
        return None


def now() -> datetime:
    return clock.to_datetime(clock.wall())


def age(iso: object) -> str:
    """How long ago an instant was, as `5m`; `in 5m` where it is ahead."""
    at = instant(iso)
    if at is None:
        return "-"
    seconds = (now() - at).total_seconds()
    return f"in {brief(-seconds)}" if seconds < -0.5 else brief(max(0.0, seconds))


def brief(seconds: float) -> str:
    """A duration by its largest unit, where a table has little room."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size * 2:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def span(begin: object, end: object) -> str:
    """The time from one instant to another, or to now where it has no end; empty where it has not begun."""
    started = instant(begin)
    if started is None:
        return ""
    return describe(max(0.0, ((instant(end) or now()) - started).total_seconds()))


def local(iso: object) -> str:
    """An instant in local time, to the second."""
    at = instant(iso)
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def is_future(iso: object) -> bool:
    at = instant(iso)
    return at is not None and at > now()


def _spelled(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")

"""Text for the person who looks: instants, ages and durations made short, beside the texts made harmless.

Owns what is cut and rounded for a screen. Refuses markup: nothing that passes here is interpreted by anyone.
"""

from __future__ import annotations

from datetime import datetime

from .. import clock
from ..text.duration import describe
from ..text.printable import safe as safe
from ..text.printable import safe_json as safe_json
from ..text.printable import safe_lines as safe_lines


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


def ago(iso: object) -> str:
    """The age of what has happened, as `5m ago`; `5m ahead` where the wall clock was set back since."""
    text = age(iso)
    return f"{text[3:]} ahead" if text.startswith("in ") else f"{text} ago"


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

"""Text that is safe to show: what users and their data wrote, made harmless.

Owns the escape of control characters, which would otherwise move the cursor, change the title or hide text on
whoever looks. Refuses to lose one: each is spelled, so that what was there can still be read.
"""

from __future__ import annotations

import re

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


def _spelled(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    return _SHORT.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")

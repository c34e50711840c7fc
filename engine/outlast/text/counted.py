"""Numbers of things, as a sentence has them.

Owns the plural. Refuses nouns that do not take an s. Pure.
"""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """How many: `1 run`, `3,000 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def times(count: int) -> str:
    """How often: `once`, `3 times`."""
    return "once" if count == 1 else f"{count:,} times"

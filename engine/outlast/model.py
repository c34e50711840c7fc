"""Values that the layers share: ids, the names of code, and the place of a call in a workflow.

Owns how an id is made and derived, and how the code that a task needs is named. Refuses I/O. An id begins with the hour of its
making, so that rows of one time lie together in the file's index, and goes on at random, so that a short prefix is unique.
"""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import blake2b

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_HOUR = 3_600_000_000
_EPOCH_HOURS = 473_352  # 2024-01-01T00:00Z
_HOUR_DIGITS = 4
_RANDOM_DIGITS = 14
_DIGIT_OF_BYTE = (_ALPHABET * 8).encode()
"""For each byte one of 32 digits, as often as every other."""

DEFAULT_QUEUE = "default"


def new_id(wall_at: int) -> str:
    """A new public id, sorted by the hour of `wall_at`."""
    return _hour_digits(wall_at // _HOUR) + os.urandom(_RANDOM_DIGITS).translate(_DIGIT_OF_BYTE).decode()


def derived_id(parent: str, path: str, *, generation: int = 0) -> str:
    """The id of what a run starts at a place: the same on every replay."""
    text = f"{parent}\0{path}\0{generation}".encode()
    number = int.from_bytes(blake2b(text, digest_size=16).digest()) & ((1 << (5 * _RANDOM_DIGITS)) - 1)
    return parent[:_HOUR_DIGITS] + _digits(number, _RANDOM_DIGITS)


def workflow_code(name: str, version: str = "") -> str:
    """What a run of this workflow needs an agent to have."""
    return f"workflow:{name}@{version}" if version else f"workflow:{name}"


def step_code(name: str) -> str:
    return f"step:{name}"


def compensation_code(name: str) -> str:
    return f"compensation:{name}"


REFUSED_BY = "\n"
"""Between the code that a task needs and the fingerprints (a JSON list) of that code that disagreed with its journal."""


def code_alone(needs: str) -> str:
    """What a task needs, whatever has been refused of that."""
    return needs.partition(REFUSED_BY)[0]


def idempotency_key(chain: str, path: str, *, generation: int = 0) -> str:
    """The key of a step on every try and claim: the first run of the chain, the path, and a generation."""
    return f"{chain}/{path}" if generation == 0 else f"{chain}/{path}/{generation}"


@lru_cache(maxsize=2)
def _hour_digits(hour: int) -> str:
    return _digits(max(0, hour - _EPOCH_HOURS), _HOUR_DIGITS)


def _digits(number: int, count: int) -> str:
    out = []
    for _ in range(count):
        number, digit = divmod(number, 32)
        out.append(_ALPHABET[digit])
    return "".join(reversed(out))

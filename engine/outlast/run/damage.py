"""What of a task cannot be read: somebody, or a bad disk, has changed the file; or the code lacks a class that it had.

Owns the sentence, and the halt. Refuses to let it be an error of the code: the code could catch it and go on against its journal, or
the run would be undone by data that is as doubtful.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from .. import codec
from ..codec import NotDecodable
from ..codec.errors import encode_error
from ..operations import Halt
from ..operations.claimed import Claimed, Fence


def halt(fence: Fence, what: str, data: bytes, error: NotDecodable, *, strays: Iterable[str] = ()) -> Halt:
    reason = f"{what} cannot be read: {error.message}" if codec.is_json(data) else f"the file is damaged: {what} cannot be read"
    return Halt(fence, reason, error=encode_error(error), strays=tuple(strays))


def of_input(claimed: Claimed) -> Halt | None:
    """Where a task's arguments cannot be read."""
    try:
        codec.decode_input(claimed.input)
    except NotDecodable as error:
        return halt(claimed.fence, "its input", claimed.input, error)
    return None


def of_tags(claimed: Claimed) -> Halt | None:
    """Where the tags that the code may ask for cannot be read."""
    if not claimed.tags:
        return None
    try:
        if isinstance(json.loads(claimed.tags), dict):
            return None
    except (ValueError, RecursionError):
        pass
    return Halt(claimed.fence, "the file is damaged: its tags cannot be read")

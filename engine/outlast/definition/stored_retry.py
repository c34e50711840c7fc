"""A retry policy as text, for an agent in another process.

Owns the names of error classes in it, which are looked up among loaded modules and never imported. Apart from `retry`, so that
defining a workflow does not load the codec.
"""

from __future__ import annotations

import json
from typing import Any

from ..codec.types import NotDecodable, find_class, name_of_class, short
from .retry import ErrorTypes, Retry


def stored_retry(policy: Retry) -> str:
    """The policy as text, for an agent in another process."""
    return json.dumps(
        {
            "tries": policy.tries,
            "on": _names(policy.on),
            "unless": _names(policy.unless),
            "initial": policy.initial_seconds,
            "factor": policy.factor,
            "maximum": policy.maximum_seconds,
            "jitter": policy.jitter,
        }
    )


def retry_from(text: str) -> Retry:
    """The policy of a stored text. A class that is not loaded here is left out: no error of it can be raised here."""
    try:
        return _retry_from(json.loads(text))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise NotDecodable(f"Stored data is not a retry policy: {short(text)}.") from error


def _retry_from(fields: dict[str, Any]) -> Retry:
    for name in ("on", "unless"):
        if name in fields:
            found = [find_class(class_name) for class_name in fields[name]]
            fields[name] = tuple(c for c in found if c is not None and issubclass(c, Exception))
    return Retry(**fields)


def _names(types: ErrorTypes) -> list[str]:
    return [name_of_class(one) for one in (types if isinstance(types, tuple) else (types,))]

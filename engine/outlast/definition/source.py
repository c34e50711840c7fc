"""Which functions can be defined, where they come from, and how their code is told from other code.

Refuses what no other process could find by its name (nested functions, lambdas, methods) and what has no
single outcome (generators). The source is read when the decorator runs: read later, the file may hold
newer code than this process runs.
"""

from __future__ import annotations

import inspect
import linecache
import os
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from ..errors import InvalidDefinition


def checked_function(fn: object, decorator: str) -> Callable[..., Any]:
    """The function itself, or `InvalidDefinition` with the way out."""
    if not isinstance(fn, FunctionType):
        raise InvalidDefinition(f"{decorator} decorates a function, not {fn!r}.", hint=_hint_for(fn))
    if fn.__name__ == "<lambda>":
        raise InvalidDefinition(f"{decorator} cannot take a lambda.", hint="Write a `def` at the top of a module.")
    if "<locals>" in fn.__qualname__:
        raise InvalidDefinition(
            f"{fn.__qualname__} ({place_of(fn)}) is nested in a function: no other process can find it.",
            hint="Move it to the top of its module.",
        )
    if "." in fn.__qualname__:
        raise InvalidDefinition(
            f"{fn.__qualname__} ({place_of(fn)}) is a method; {decorator} takes functions.",
            hint="Move it to the top of its module and give it what it needs as arguments.",
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise InvalidDefinition(
            f"{fn.__qualname__} ({place_of(fn)}) is a generator, which has no result that could be stored.",
            hint="Return a list, or emit() values to a stream.",
        )
    return fn


def file_of(fn: Callable[..., Any]) -> str:
    return _code(fn).co_filename


def line_of(fn: Callable[..., Any]) -> int:
    return _code(fn).co_firstlineno


def place_of(fn: Callable[..., Any]) -> str:
    """File and line, as in `workflows/orders.py:12`."""
    return f"{shown(file_of(fn))}:{line_of(fn)}"


def shown(file: str) -> str:
    """A path as people read it: relative to the current folder where it lies below that."""
    try:
        relative = os.path.relpath(file)
    except (OSError, ValueError):
        return file
    return file if relative.startswith("..") else relative


def code_text(fn: Callable[..., Any]) -> str:
    """The function's source text; where there is none, text made of its compiled code."""
    code = _code(fn)
    if code.co_filename == "<string>":
        # Of `exec`, whichever text it had: from Python 3.13 on, one text goes by this name, that of `python -c`.
        return "\n".join(_compiled(code))
    linecache.checkcache(code.co_filename)
    lines = linecache.getlines(code.co_filename, fn.__globals__ if isinstance(fn, FunctionType) else None)
    if 0 < code.co_firstlineno <= len(lines):
        return "".join(inspect.getblock(lines[code.co_firstlineno - 1 :]))
    return "\n".join(_compiled(code))


def digest_of(text: str) -> str:
    from hashlib import blake2b

    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _code(fn: Callable[..., Any]) -> CodeType:
    code = inspect.unwrap(fn).__code__
    assert isinstance(code, CodeType)
    return code


def _compiled(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield repr(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _compiled(constant)
        elif isinstance(constant, frozenset):
            # The order of a set of strings differs from process to process.
            yield repr(sorted(map(repr, constant)))
        else:
            yield repr(constant)


def _hint_for(fn: object) -> str:
    if isinstance(fn, staticmethod | classmethod):
        return "Move it out of its class, to the top of its module."
    if isinstance(fn, type):
        return "Write a `def` at the top of a module."
    return "Put it directly above a `def`, and write its options by name."

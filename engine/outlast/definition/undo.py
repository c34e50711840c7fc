"""What a definition says about undoing it and about finding out what it did: its compensation and its probe.

Owns both as values and the check that they fit the definition's arguments. They are called with those
arguments as the definition was called; a compensation has the result before them (`None` when there is none),
and of a transaction `db` before that.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ..errors import InvalidDefinition
from ..handles import Duration
from ..text.duration import seconds
from .retry import Retry, as_retry
from .source import checked_function, place_of


class NotDone(enum.Enum):
    """The type of `NOT_DONE`."""

    NOT_DONE = "NOT_DONE"

    def __repr__(self) -> str:
        return "NOT_DONE"


NOT_DONE: Final = NotDone.NOT_DONE
"""What a probe returns that found no effect of its step."""


@dataclass(frozen=True, slots=True)
class Compensation:
    """The function that undoes a definition, and its own policy."""

    fn: Callable[..., Any]
    asynchronous: bool
    retry: Retry
    timeout_seconds: float | None
    """For one try."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The function that finds out what a step of unknown outcome did. Its policy is the step's."""

    fn: Callable[..., Any]
    asynchronous: bool


def compensation_of(
    fn: object,
    definition: Callable[..., Any],
    *,
    leading: tuple[str, ...],
    skip: int,
    retry: Retry | int | None,
    timeout: Duration | None,
    inherited: tuple[Retry, float | None],
    kept: Compensation | None,
) -> Compensation:
    """A compensation of `definition`, or `InvalidDefinition`.

    `leading` names what comes before the arguments, `skip` how many parameters of the definition are no
    arguments. The retry and timeout that are not given are the inherited ones. `kept` is the one there is.
    """
    decorator = f"@{definition.__name__}.compensation"
    checked = checked_function(fn, decorator)
    _check_only_one(checked, kept, decorator)
    _check_arguments(checked, definition, decorator, leading=leading, skip=skip)
    return Compensation(
        checked,
        inspect.iscoroutinefunction(checked),
        inherited[0] if retry is None else as_retry(retry, place=f"retry of {decorator}"),
        inherited[1] if timeout is None else positive_seconds(timeout, place=f"timeout of {decorator}"),
    )


def probe_of(fn: object, definition: Callable[..., Any], *, kept: Probe | None) -> Probe:
    """A probe of the step `definition`, or `InvalidDefinition`. `kept` is the one there is."""
    decorator = f"@{definition.__name__}.probe"
    checked = checked_function(fn, decorator)
    _check_only_one(checked, kept, decorator)
    _check_arguments(checked, definition, decorator, leading=(), skip=0)
    return Probe(checked, inspect.iscoroutinefunction(checked))


def positive_seconds(value: Duration, *, place: str) -> float:
    """A duration of more than nothing; else `InvalidDefinition`."""
    length = seconds(value, place=place)
    if length <= 0:
        raise InvalidDefinition(f"{place} must be more than 0 s, not {value!r}.")
    return length


def _check_only_one(fn: Callable[..., Any], kept: Compensation | Probe | None, decorator: str) -> None:
    # A function of the same name is the same one, written anew: in a notebook, say.
    if kept is not None and kept.fn.__qualname__ != fn.__qualname__:
        raise InvalidDefinition(
            f"{decorator} is given to two functions, {kept.fn.__qualname__} ({place_of(kept.fn)}) and {fn.__qualname__} ({place_of(fn)}):"
            " the second would stand in for the first.",
            hint="Take it off one of them, and call that one from the other.",
        )


def _check_arguments(
    fn: Callable[..., Any],
    definition: Callable[..., Any],
    decorator: str,
    *,
    leading: tuple[str, ...],
    skip: int,
) -> None:
    """Refuse a function that a call of the definition would not fit. It is called with the definition's defaults, too."""
    wanted = list(inspect.signature(definition).parameters.values())[skip:]
    positional = [p.name for p in wanted if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = {p.name: None for p in wanted if p.kind is p.KEYWORD_ONLY}
    mine = inspect.signature(fn)
    expected = ", ".join([*leading, *(str(p).split(":")[0].split("=")[0].strip() for p in wanted)])
    try:
        mine.bind(*leading, *positional, **by_name)
        variadic = {p.kind for p in wanted} & {
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        }
        if not variadic <= {p.kind for p in mine.parameters.values()}:
            raise TypeError("it takes fewer arguments")
    except TypeError as error:
        raise InvalidDefinition(
            f"{fn.__name__} ({place_of(fn)}) cannot stand under {decorator}: {error}.",
            hint=f"Write `def {fn.__name__}({expected})`.",
        ) from None

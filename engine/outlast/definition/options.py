"""What a caller may say about one call: `fn.options(...)`.

Owns the options as one frozen, validated value, with durations in seconds and instants aware. Refuses
contradictions here, in one sentence, before anything is started. Which of them a kind of definition takes is
settled here too; what they do is the run's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from ..errors import InvalidInput
from ..text.duration import seconds
from ..text.names import checked_key, checked_name, checked_text
from .retry import Retry, as_retry

if TYPE_CHECKING:
    from sqlite3 import Connection

    from ..handles import Duration

IfExists = Literal["return", "fail", "replace"]


class Given(TypedDict, total=False):
    """The keywords of `fn.options(...)`."""

    key: str
    """The idempotency key: the same workflow and key is the same run, for as long as the run is kept."""
    unique_key: str
    """At most one unfinished run of this workflow has it."""
    if_exists: IfExists
    """What a start does while an unfinished run has the `unique_key`; "return" gives that run back."""
    debounce: Duration
    """Of the calls with one `unique_key` within this window, the last wins."""
    debounce_max: Duration
    """However often calls come, the first is not put off for longer than this."""
    queue: str
    partition: str
    priority: int
    """Higher goes first; 0 is the default."""
    delay: Duration
    at: datetime
    """Not before this instant of wall time; a naive one is local time."""
    timeout: Duration
    retry: Retry | int
    tags: Mapping[str, str]
    connection: Connection
    """Start inside this connection's own transaction on the engine's file."""


_RUNS_ONLY = ("key", "unique_key", "if_exists", "debounce", "debounce_max", "connection")


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one call, validated. `DEFAULT` is the shared value of what was given none."""

    key: str | None = None
    unique_key: str | None = None
    if_exists: IfExists = "return"
    debounce_seconds: float | None = None
    debounce_max_seconds: float | None = None
    queue: str | None = None
    partition: str | None = None
    priority: int = 0
    delay_seconds: float | None = None
    at: datetime | None = None
    """Aware."""
    timeout_seconds: float | None = None
    retry: Retry | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    connection: Connection | None = None

    @property
    def stands_in_line(self) -> bool:
        """Whether a step that is called so is a task: it has a queue, a share of one, or a time before which it must not run."""
        return self.queue is not None or self.partition is not None or self.delay_seconds is not None or self.at is not None

    def updated(self, given: Given, *, kind: str = "workflow") -> Options:
        """These options with `given` laid over them. Raises `InvalidInput`."""
        fields = _validated(given, kind)
        merged = replace(self, **fields)
        if merged.delay_seconds is not None and merged.at is not None:
            raise InvalidInput("delay and at exclude each other.", hint="Give one of them.")
        if merged.unique_key is None:
            for name in ("if_exists", "debounce", "debounce_max"):
                if name in given:
                    raise InvalidInput(
                        f"{name} needs a unique_key.",
                        hint="Say with unique_key=... which runs exclude each other.",
                    )
        if "debounce_max" in given and merged.debounce_seconds is None:
            raise InvalidInput("debounce_max needs a debounce.")
        if merged.debounce_seconds is not None and (merged.debounce_max_seconds or merged.debounce_seconds) < merged.debounce_seconds:
            raise InvalidInput("debounce_max is shorter than debounce.")
        if merged.debounce_seconds is not None and merged.if_exists == "fail":
            raise InvalidInput(
                'debounce and if_exists="fail" exclude each other: with debounce the last call wins.',
                hint="Leave one of them away.",
            )
        return merged


DEFAULT = Options()


def _validated(given: Given, kind: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in given.items():
        if kind != "workflow" and name in _RUNS_ONLY:
            raise InvalidInput(f"{name} is an option of workflows; a {kind} has none.")
        match name:
            case "key" | "unique_key" | "partition":
                values[name] = checked_key(value, place=name)
            case "if_exists":
                values[name] = checked_choice(value, get_args(IfExists), place=name)
            case "queue":
                values[name] = checked_name(value, place=name)
            case "debounce" | "debounce_max" | "delay" | "timeout":
                values[f"{name}_seconds"] = _duration(value, name)
            case "priority":
                values[name] = _priority(value)
            case "at":
                values[name] = _instant(value)
            case "retry":
                values[name] = as_retry(value)  # type: ignore[arg-type]
            case "tags":
                values[name] = checked_tags(value)
            case "connection":
                values[name] = _connection(value)
            case _:
                known = ", ".join(Given.__annotations__)
                raise InvalidInput(f"There is no option {name!r}.", hint=f"The options are {known}.")
    return values


def checked_choice(value: object, choices: tuple[str, ...], *, place: str) -> str:
    """One of `choices`, or `InvalidInput` that lists them."""
    if value not in choices:
        raise InvalidInput(f"{place} must be one of {', '.join(map(repr, choices))}, not {value!r}.")
    return str(value)


def checked_tags(value: object) -> dict[str, str]:
    """A copy of tags: a mapping of text to text; else `InvalidInput`."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"tags must be a dict of text to text, not {value!r}.")
    for key, tag in value.items():
        checked_text(key, place="A tag's name")
        if not isinstance(tag, str):
            raise InvalidInput(f"The tag {key!r} must be text, not {tag!r}.")
        if tag:
            checked_text(tag, place=f"The tag {key!r}")
    return dict(value)


def _duration(value: Any, name: str) -> float:
    length = seconds(value, place=name)
    if length < 0 or (length == 0 and name != "delay"):
        raise InvalidInput(f"{name} must be {'no less' if name == 'delay' else 'more'} than 0 s, not {value!r}.")
    return length


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        raise InvalidInput(f"priority must be a whole number of 32 bits, not {value!r}.")
    return value


def _instant(value: object) -> datetime:
    if not isinstance(value, datetime):
        raise InvalidInput(f"at must be a datetime, not {value!r}.", hint="Give a delay for a time from now.")
    try:
        instant = value if value.tzinfo is not None else value.astimezone()
        is_near = 1970 <= instant.astimezone(UTC).year < 9000
    except (ValueError, OverflowError, OSError):
        is_near = False
    if not is_near:
        raise InvalidInput(f"at must lie between the years 1970 and 9000, not {value.isoformat()}.")
    return instant


def _connection(value: object) -> object:
    # Two SQLite libraries may be in play, so a class cannot be named here; the store checks which one it is.
    kind = type(value)
    if not (hasattr(kind, "execute") and hasattr(kind, "in_transaction")):
        raise InvalidInput(f"connection must be a connection of outlast.sqlite3, not {value!r}.")
    return value

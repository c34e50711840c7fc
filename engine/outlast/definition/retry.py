"""How often a step, a run or a compensation is tried, and how long is waited between tries.

Owns the policy `Retry` as a value. Refuses to wait, to draw random numbers or to read the time: whoever
executes asks `wants` and `delay_seconds`, with the random number as an argument, so that a policy can be
tested without luck.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field

from ..errors import Fail, InvalidInput, RetryAfter
from ..handles import Duration
from ..text.duration import seconds
from ..text.names import checked_whole


class _Unsaid(str):
    """A default that can be told from the same text said by a caller."""


_MINUTE = _Unsaid("1m")

ErrorTypes = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True)
class Retry:
    """Try up to `tries` times, the first try included.

    An error is tried again if it is an instance of `on` and of none of `unless`. The wait after the first try
    is `initial`, and each later one `factor` times longer, up to `maximum` (a minute, or `initial` where that is longer and no
    maximum was given); then it is varied by `jitter`
    (0.1: up to 10 % shorter or longer), so that what failed together does not come back together. Raises
    `InvalidInput` for values that make no sense.
    """

    tries: int
    _: KW_ONLY
    on: ErrorTypes = Exception
    unless: ErrorTypes = ()
    initial: Duration = "1s"
    factor: float = 2
    maximum: Duration = _MINUTE
    jitter: float = 0.1
    initial_seconds: float = field(init=False, repr=False, compare=False)
    maximum_seconds: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_whole(self.tries, place="tries of a Retry", least=1)
        _error_types(self.on, "on")
        _error_types(self.unless, "unless")
        object.__setattr__(self, "initial_seconds", seconds(self.initial, place="initial of a Retry"))
        if isinstance(self.maximum, _Unsaid):
            is_longer = self.initial_seconds > seconds(str(self.maximum))
            object.__setattr__(self, "maximum", self.initial if is_longer else str(self.maximum))
        object.__setattr__(self, "maximum_seconds", seconds(self.maximum, place="maximum of a Retry"))
        if self.initial_seconds > self.maximum_seconds:
            raise InvalidInput(
                f"initial of a Retry ({self.initial_seconds:g} s) is longer than its maximum ({self.maximum_seconds:g} s).",
                hint="Give a larger maximum.",
            )
        if not _is_number(self.factor) or not 1 <= self.factor < float("inf"):
            raise InvalidInput(f"factor of a Retry must be a number of at least 1, not {self.factor!r}.")
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            raise InvalidInput(f"jitter of a Retry must be a number from 0 to 1, not {self.jitter!r}.")

    def delay_seconds(self, try_number: int, *, random: float) -> float:
        """How long to wait after try `try_number` (from 1). `random` is from 0 to 1; 0.5 varies nothing."""
        try:
            delay = self.initial_seconds * float(self.factor) ** (try_number - 1)
        except OverflowError:
            delay = self.maximum_seconds
        return min(delay, self.maximum_seconds) * (1 + self.jitter * (2 * random - 1))

    def wants(self, error: BaseException, try_number: int) -> bool:
        """Whether another try follows try `try_number`, which ended with `error`.

        Never after `Fail`; after `RetryAfter`, which asks for it, whatever `on` says; both only while tries
        are left.
        """
        if try_number >= self.tries or isinstance(error, Fail):
            return False
        if isinstance(error, RetryAfter):
            return True
        return isinstance(error, self.on) and not isinstance(error, self.unless)


def as_retry(value: Retry | int, *, place: str = "retry") -> Retry:
    """A policy from a policy, or from a number of tries; else `InvalidInput`."""
    if isinstance(value, Retry):
        return value
    return Retry(checked_whole(value, place=place, least=1))


def _error_types(value: object, name: str) -> None:
    types = value if isinstance(value, tuple) else (value,)
    for one in types:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise InvalidInput(f"{name} of a Retry must be an error class or a tuple of them, not {one!r}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


ONCE = Retry(1)
"""The policy of what was given none."""

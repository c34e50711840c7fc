"""The facts that workflows, steps and transactions share.

Owns `Definition`: a function, its name and the options of its decorator, validated when the decorator runs,
so that a wrong option fails at import and not in the night. Refuses to execute anything. A definition with
the options of one call bound to it (`fn.options(...)`) is a light copy that shares the original's identity,
which is `definition`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, cast, get_args

from ..errors import InvalidDefinition
from ..text.names import checked_name, checked_whole
from . import options as options_module
from . import registry
from .options import Options, checked_choice
from .retry import ONCE, Retry, as_retry
from .source import checked_function, code_text, digest_of, file_of, line_of, shown
from .undo import Compensation, Probe, compensation_of, positive_seconds

if TYPE_CHECKING:
    from ..handles import Duration
    from ..signature import Signature
    from .options import Given

Kind = Literal["workflow", "step", "transaction"]
OnUnknown = Literal["retry", "halt", "undo"]
OnError = Literal["fail", "halt"]


class Definition:
    """A decorated function. What differs between calls is in `bound`; everything else is the decorator's."""

    kind: Kind
    skip = 0
    """How many of the function's first parameters the engine gives."""

    name: str
    fn: Callable[..., Any]
    """The undecorated function, for tests."""
    asynchronous: bool
    """Whether the function is an `async def`."""
    module: str
    file: str
    line: int
    queue: str | None
    timeout_seconds: float | None
    """Of a workflow for the whole run; else for one try."""
    retry: Retry
    isolate: bool
    on_unknown: OnUnknown
    version: str
    """Empty for a workflow that names none, and for steps."""
    on_error: OnError
    max_crashes: int | None
    """None: what the settings say."""
    retention_seconds: float | None
    """None: what the settings say."""
    schedule: object
    """As written; the timetable makes sense of it."""
    compensated_by: Compensation | None
    probed_by: Probe | None
    bound: Options

    def __init__(
        self,
        fn: object,
        *,
        name: str | None = None,
        queue: str | None = None,
        timeout: Duration | None = None,
        retry: Retry | int | None = None,
        isolate: bool = False,
        on_unknown: OnUnknown = "retry",
        version: str = "",
        on_error: OnError = "fail",
        max_crashes: int | None = None,
        retention: Duration | None = None,
        schedule: object = None,
    ) -> None:
        decorator = f"@{self.kind}"
        self.fn = checked_function(fn, decorator)
        functools.update_wrapper(cast(Callable[..., Any], self), self.fn)
        place = f"{decorator} {self.fn.__name__}"
        self.name = checked_name(self.fn.__name__ if name is None else name, place=f"name of {place}")
        self.asynchronous = inspect.iscoroutinefunction(self.fn)
        self.module = self.fn.__module__
        self.file = file_of(self.fn)
        self.line = line_of(self.fn)
        self._code_text = code_text(self.fn)
        self.queue = None if queue is None else checked_name(queue, place=f"queue of {place}")
        self.timeout_seconds = None if timeout is None else positive_seconds(timeout, place=f"timeout of {place}")
        self.retry = ONCE if retry is None else as_retry(retry, place=f"retry of {place}")
        self.isolate = _checked_flag(isolate, place=f"isolate of {place}")
        checked_choice(on_unknown, get_args(OnUnknown), place=f"on_unknown of {place}")
        self.on_unknown = on_unknown
        self.version = checked_name(version, place=f"version of {place}") if version != "" else ""
        checked_choice(on_error, get_args(OnError), place=f"on_error of {place}")
        self.on_error = on_error
        self.max_crashes = None if max_crashes is None else checked_whole(max_crashes, place=f"max_crashes of {place}", least=1)
        self.retention_seconds = None if retention is None else positive_seconds(retention, place=f"retention of {place}")
        self.schedule = schedule
        self.compensated_by = None
        self.probed_by = None
        self._original = self
        self.bound = options_module.DEFAULT

    @property
    def definition(self) -> Self:
        """The definition itself; of a copy with bound options, the original."""
        return cast(Self, self._original)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the function's source as this process loaded it."""
        return digest_of(self._code_text)

    @cached_property
    def signature(self) -> Signature:
        """How arguments fit the function, without those that the engine gives."""
        from ..signature import Signature

        return Signature(self.fn, skip=self.skip, place=self.name)

    def spelled_out(self, named: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments by name, as a journal keeps them, as compensations and probes are called with them.

        By position where the function allows it, so that theirs may have other names, and with the function's
        defaults.
        """
        positional: list[Any] = []
        by_name: dict[str, Any] = {}
        for name, parameter in self.signature.parameters.items():
            match parameter.kind:
                case parameter.VAR_POSITIONAL:
                    positional.extend(named.get(name, ()))
                case parameter.VAR_KEYWORD:
                    by_name.update(named.get(name, {}))
                case parameter.KEYWORD_ONLY:
                    by_name[name] = named.get(name, parameter.default)
                case _:
                    positional.append(named.get(name, parameter.default))
        return tuple(positional), by_name

    @property
    def place(self) -> str:
        """File and line, as in `workflows/orders.py:12`."""
        return f"{shown(self.file)}:{self.line}"

    def options(self, **given: Unpack[Given]) -> Self:
        """The same definition with the options of one call bound to it. Raises `InvalidInput`."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.bound = self.bound.updated(given, kind=self.kind)
        return copy

    def _compensate(self, fn: object, *, leading: tuple[str, ...], retry: Retry | int | None, timeout: Duration | None) -> object:
        """Keep a compensation and give its function back; without a function, the decorator that will."""

        def keep(fn: object) -> object:
            self.definition.compensated_by = compensation_of(
                fn,
                self.fn,
                leading=leading,
                skip=self.skip,
                retry=retry,
                timeout=timeout,
                inherited=inherited,
                kept=self.definition.compensated_by,
            )
            registry.changed()
            return fn

        # A workflow's policy is about the whole run, which is no measure for one function.
        inherited = (ONCE, None) if self.kind == "workflow" else (self.retry, self.timeout_seconds)
        return keep if fn is None else keep(fn)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name} of {self.place}>"


def _checked_flag(value: object, *, place: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidDefinition(f"{place} must be True or False, not {value!r}.")
    return value

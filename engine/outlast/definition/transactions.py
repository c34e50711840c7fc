"""`@transaction`: a step whose writes to the engine's own file and whose journal entry are one: exactly once.

Owns the decorator and its types. The engine gives the first parameter, `db`; callers do not see it. Refuses
`async def`: the transaction holds SQLite's one write lock, and awaiting would hold it for as long as
something else takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, overload

from ..errors import InvalidDefinition
from . import registry
from .calls import P, R, Submits, SyncMaps, T
from .source import place_of

if TYPE_CHECKING:
    from sqlite3 import Connection

    from ..handles import Duration
    from .retry import Retry

TIMEOUT_SECONDS = 5.0
"""What a transaction may take that names no timeout: it holds up every other writer."""


class Transaction(SyncMaps[P, R], Submits[P, R]):
    """A transaction. `P` is without `db`."""

    kind = "transaction"
    skip = 1
    fn: Callable[Concatenate[Connection, P], R]
    __signature__: inspect.Signature

    def __init__(self, fn: object, *, name: str | None, retry: Retry | int | None, timeout: Duration | None) -> None:
        super().__init__(fn, name=name, retry=retry, timeout=TIMEOUT_SECONDS if timeout is None else timeout)
        if self.asynchronous:
            raise InvalidDefinition(
                f"{self.fn.__name__} ({self.place}) is an `async def`; a transaction cannot await.",
                hint="It holds the one write lock: write a `def`, and await in a step before it.",
            )
        whole = inspect.signature(self.fn)
        parameters = list(whole.parameters.values())
        if not parameters or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise InvalidDefinition(
                f"{self.fn.__name__} ({self.place}) has no first parameter for the connection.",
                hint=f"Write `def {self.fn.__name__}(db, ...)`.",
            )
        self.__signature__ = whole.replace(parameters=parameters[1:])

    @overload
    def compensation(
        self, fn: Callable[Concatenate[Connection, R | None, P], T], /
    ) -> Callable[Concatenate[Connection, R | None, P], T]: ...
    @overload
    def compensation(
        self, /, *, retry: Retry | int | None = None, timeout: Duration | None = None
    ) -> Callable[[Callable[Concatenate[Connection, R | None, P], T]], Callable[Concatenate[Connection, R | None, P], T]]: ...
    def compensation(self, fn: Any = None, /, *, retry: Retry | int | None = None, timeout: Duration | None = None) -> Any:
        """Say which function undoes this one.

        It takes `db`, the result, `None` when there is none, then the arguments. Its own SQL and the record
        that it ran are one transaction. Returns the function unchanged. Raises `InvalidDefinition` if it does
        not fit.
        """
        if inspect.iscoroutinefunction(fn):
            raise InvalidDefinition(
                f"{fn.__name__} ({place_of(fn)}) is an `async def`; under a transaction it cannot await.",
                hint="Write a `def`.",
            )
        return self._compensate(fn, leading=("db", "result"), retry=retry, timeout=timeout)


class _Decorator(Protocol):
    def __call__(self, fn: Callable[Concatenate[Connection, P], R], /) -> Transaction[P, R]: ...


@overload
def transaction(fn: Callable[Concatenate[Connection, P], R], /) -> Transaction[P, R]: ...
@overload
def transaction(*, name: str | None = None, retry: Retry | int | None = None, timeout: Duration | None = None) -> _Decorator: ...
def transaction(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | int | None = None,
    timeout: Duration | None = None,
) -> Any:
    """Make a transaction of a module-level function whose first parameter is the connection `db`.

    What it writes by `db` is committed with its journal entry, or not at all: exactly once, whenever the process
    dies. An error, and a result that cannot be stored, roll it back; a workflow started in it is part of it. `with
    db:` is a savepoint; what would end the transaction is refused, and so is a change of a PRAGMA or of the engine's
    tables. It holds the one write lock while it runs: its `timeout` is 5 s unless given. Raises `InvalidDefinition`
    or `InvalidInput`.
    """

    def define(fn: Any) -> Transaction[..., Any]:
        return registry.add(Transaction(fn, name=name, retry=retry, timeout=timeout))

    return define if fn is None else define(fn)

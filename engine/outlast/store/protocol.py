"""What the roles need of a store: the contract that SQLite fulfils, and that PostgreSQL will.

Owns the protocol alone. A store executes operations (`operations`) atomically and fenced, in the order in which
they were handed over, and answers after they are durable. Refuses to say how: reads go through the functions of this package, which
take a connection and hold the SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..operations.atomic import Operation, R


class Listening(Protocol):
    """Hears that something may have changed. A hint: the tables are the truth."""

    def fileno(self) -> int: ...

    def drain(self) -> bool: ...

    def close(self) -> None: ...


class Store(Protocol):
    """One database that runs live in."""

    patient: bool
    """Whether what cannot be written for want of room or a lock is held and tried again (agents), or refused (people)."""

    def commit(self, operation: Operation[R]) -> R:
        """Execute one operation and wait until it is durable. Raises what it raises, `LeaseLost` or a `StoreError`.

        If the process dies before this returns, the operation was done whole or not at all.
        """

    def submit(self, operation: Operation[Any], done: Callable[[Any, BaseException | None], None] | None = None) -> None:
        """Execute soon, in order; `done` is called once it is durable, on a thread of the store's."""

    def now(self) -> int:
        """The engine instant in microseconds: elapsed time, the same for every process, never falling."""

    def listen(self) -> Listening:
        """Begin to hear that others have committed something that concerns agents."""

    def ring(self) -> None:
        """Wake whoever listens."""

    def data_version(self) -> int:
        """A number that changes when another connection has committed: for commits by processes that ring no bell."""

    def close(self) -> None:
        """Write what is queued, then close."""

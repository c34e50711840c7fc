"""One write transaction as the operations see it: a connection inside `BEGIN IMMEDIATE`, and the instants of its begin.

Owns nothing but that pairing and the note whether the bell must ring after the commit. Refuses to begin or end anything: that is the
committer's. `now` is read after the write lock was taken, so that it never falls from one commit to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .library import sqlite3


class Transaction:
    """`now` is engine time, `wall` the wall clock, both in microseconds; `ring` asks for the bell after the commit."""

    __slots__ = ("connection", "execute", "now", "ring", "wall")

    def __init__(self, connection: sqlite3.Connection, *, now: int, wall: int) -> None:
        self.connection = connection
        self.execute: Callable[..., Any] = connection.execute
        self.now = now
        self.wall = wall
        self.ring = False

    def one(self, sql: str, parameters: dict[str, Any]) -> tuple[Any, ...] | None:
        """The first row, or None."""
        row: tuple[Any, ...] | None = self.execute(sql, parameters).fetchone()
        return row

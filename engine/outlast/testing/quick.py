"""A store that does not wait for the disk: a test's file need not outlast a power cut.

Owns that one pragma. Everything else is the store of the product.
"""

from __future__ import annotations

import os

from ..store.connection import StoreConnection, ThreadConnections
from ..store.sqlite import SqliteStore


class _QuickConnections(ThreadConnections):
    def get(self) -> StoreConnection:
        connection = super().get()
        if getattr(self._local, "quick", None) != os.getpid():
            connection.execute("pragma synchronous = off")
            self._local.quick = os.getpid()
        return connection


class QuickStore(SqliteStore):
    """`SqliteStore` without fsync."""

    connections_type = _QuickConnections

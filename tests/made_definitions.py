"""A shop's definitions, and modules made of a text, for the tests of definitions, of their calls and of their names."""

from __future__ import annotations

import importlib.util
import sqlite3
from pathlib import Path
from types import ModuleType

from outlast import Retry, step, transaction, workflow
from outlast.definition import registry

with registry.isolated():

    @step(retry=Retry(5), timeout="30s", isolate=True, on_unknown="halt")
    def charge(order_id: str, amount: int = 1) -> str:
        """Take the money."""
        return f"{order_id}:{amount}"

    @step
    async def fetch(url: str) -> bytes:
        return url.encode()

    @transaction
    def book(db: sqlite3.Connection, order_id: str) -> int:
        return len(order_id)

    @workflow(queue="orders", timeout="7d")
    def fulfil(order_id: str) -> dict[str, str]:
        """Bring it to the customer."""
        return {"payment": charge(order_id)}

    @workflow
    async def nightly(folder: str = "/data") -> int:
        return len(folder)


def module_of(path: Path, text: str, *, name: str | None = None) -> ModuleType:
    """The module that a file with this text is, executed anew at each call."""
    path.write_text("from outlast import NOT_DONE, Queue, step, transaction, workflow\n\n" + text)
    spec = importlib.util.spec_from_file_location(name or path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

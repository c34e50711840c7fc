"""How a node's child is called: its command line and its environment.

Owns the promise that a child runs the node's code under the node's settings, wherever those came from.
Refuses to pass anything by re-importing `__main__`: a child is `python -m outlast`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from ..child_path import passed_on
from ..settings import HOME_VARIABLE, Settings, find_root

SCHEDULER = -1
"""The number of the child that is the scheduler."""


def agent_command(database: str, apps: Sequence[str], concurrency: int, queues: Sequence[str]) -> Callable[[int], list[str]]:
    """The command line of child `number`: 0 is the agent with one slot that runs suspects, `SCHEDULER` the scheduler."""
    named = [part for app in apps for part in ("--app", app)]
    only = [part for queue in queues for part in ("--queue", queue)]
    # `-P` keeps the current folder from going first on the path by itself: it is where PYTHONPATH has it.
    called = [sys.executable, "-P", "-m", "outlast", "--db", database, *named, "agent", *only]

    def command(number: int) -> list[str]:
        if number == SCHEDULER:
            return [*called[: called.index("agent")], "scheduler"]
        return [*called, "--concurrency", str(concurrency)] if number else [*called, "--solo"]

    return command


def child_environ(settings: Settings, *, grace_seconds: float) -> dict[str, str]:
    """Our environment, with our `sys.path` as PYTHONPATH and the settings as the variables that they are read
    from.

    The root of the app goes behind all others: the child puts it first by itself, when it has imported what it runs on. As PYTHONPATH
    it would come before the standard library, and an app's own `random.py` into every module of ours.
    """
    paths = [path or str(Path.cwd()) for path in sys.path]
    root = find_root(os.environ.get(HOME_VARIABLE))
    paths.sort(key=lambda path: path in (str(root), str(root / "src")))
    values = {field.name.removesuffix("_seconds"): getattr(settings, field.name) for field in fields(settings)}
    values["grace"] = grace_seconds
    return passed_on(os.environ, paths) | {f"OUTLAST_{name.upper()}": _as_text(value) for name, value in values.items()}


def _as_text(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)

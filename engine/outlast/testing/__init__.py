"""Testing workflows: an engine in virtual time, and a crash at every point.

Owns the names that tests import. Refuses to be imported by anything that is not a test; pytest itself is needed by the
fixture alone, which lives in `outlast_pytest`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .crash import CrashReport, crash_everywhere
    from .driven import DrivenEngine, DrivenRun, Stuck, driven_engine
    from .recorded import replays

__all__ = ["CrashReport", "DrivenEngine", "DrivenRun", "Stuck", "crash_everywhere", "driven_engine", "replays"]

_WHERE = {
    "CrashReport": "crash",
    "crash_everywhere": "crash",
    "DrivenEngine": "driven",
    "DrivenRun": "driven",
    "Stuck": "driven",
    "driven_engine": "driven",
    "replays": "recorded",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value

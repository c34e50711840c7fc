"""The path on which a child of a node finds its code.

Owns how the node's `sys.path` comes to a child, and that it goes no further. Refuses to leave it in the child's environment: what a step
starts, another Python or a tool of another environment, would import this one's standard library and packages.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, MutableMapping

_PATH = "PYTHONPATH"
_BEFORE = "OUTLAST_PYTHONPATH"
"""What PYTHONPATH is without us; empty where it is not set."""


def passed_on(environ: Mapping[str, str], paths: Iterable[str]) -> dict[str, str]:
    """The environment of a child that is to find its modules on `paths`."""
    return {**environ, _PATH: os.pathsep.join(dict.fromkeys(paths)), _BEFORE: environ.get(_PATH, "")}


def take_out(environ: MutableMapping[str, str]) -> None:
    """Restore the environment in a child, whose interpreter has read its path by now."""
    before = environ.pop(_BEFORE, None)
    if before:
        environ[_PATH] = before
    elif before is not None:
        environ.pop(_PATH, None)

"""What is asked of the store about retention, as values: how long runs are kept, and what goes.

Owns the operations, each small enough to hold up nobody. Refuses to choose: who commits them has looked before, without a lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from .atomic import Operation

if TYPE_CHECKING:
    from ..definition.registry import Registry


class DeclareRetention(Operation[None], frozen=True, gc=False):
    """Bring what code says into the file: by workflow, how long its runs are kept; None where it says nothing."""

    seconds: dict[str, float | None]


def declaration(registry: Registry) -> DeclareRetention:
    """What the code of a process says about its workflows; of several versions the last."""
    return DeclareRetention({workflow.name: workflow.retention_seconds for workflow in registry.workflows()})


class Pruned(Struct, frozen=True, gc=False):
    """How many of the runs went, and how many were looked at: the others are for another transaction."""

    runs: int
    looked_at: int


class Prune(Operation[Pruned], frozen=True, gc=False):
    """Take runs out of sight, with their submitted steps, and out of the reach of keys, until so many rows have gone.

    What somebody has come to need since they were chosen stays.
    """

    runs: tuple[int, ...]
    rows: int = 2_000


class Discard(Operation[int], frozen=True, gc=False):
    """Delete some rows of tasks that were pruned; gives how many, 0 when nothing is left of them."""

    rows: int = 500
    bytes: int = 8 << 20


class PruneAgents(Operation[int], frozen=True, gc=False):
    """Forget agents that have ended, whose lease was over before an engine instant; gives how many."""

    before: int

"""What is asked of the store about queues, as values: their declaration, their limits, their pause.

Owns the operations and the limits that they carry. Refuses to judge limits: `Queue` and the command line have,
before such a value is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET, Struct, UnsetType

from .atomic import Operation

if TYPE_CHECKING:
    from ..definition.registry import Registry


class QueueLimits(Struct, frozen=True, gc=False):
    """What code says about a queue; None is no limit. `rate` is as it was written."""

    name: str
    concurrency: int | None = None
    rate: str | None = None
    per_partition: int | None = None
    hold: str = "running"


class DeclareQueues(Operation[None], frozen=True, gc=False):
    """Bring what code declares into the file; what was set at run time stays in force."""

    queues: tuple[QueueLimits, ...]


def declaration(registry: Registry) -> DeclareQueues:
    """What the code of a process says about queues."""
    return DeclareQueues(
        tuple(
            QueueLimits(queue.name, queue.concurrency, queue.rate, queue.per_partition, queue.hold)
            for _, queue in sorted(registry.queues().items())
        )
    )


class SetQueue(Operation[None], frozen=True, gc=False):
    """Set limits of a queue at run time, which makes one that was not there; None takes a limit away.

    With `reset`, all that was set at run time is forgotten first.
    """

    name: str
    concurrency: int | UnsetType | None = UNSET
    rate: str | UnsetType | None = UNSET
    per_partition: int | UnsetType | None = UNSET
    hold: str | UnsetType = UNSET
    reset: bool = False


class PauseQueue(Operation[bool], frozen=True, gc=False):
    """Let nothing be claimed from a queue any more; false where it was so already."""

    name: str


class ResumeQueue(Operation[bool], frozen=True, gc=False):
    """End the pause of a queue; false where there was none."""

    name: str

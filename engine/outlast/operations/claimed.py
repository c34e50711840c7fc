"""What an agent has of a task: the fence of its writes, what the claim read, and what others want of it meanwhile.

Owns these values. Refuses to say what may be written under a fence: that is `operations`.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from ..errors import LeaseLost
from ..states import Status


class Fence(Struct, frozen=True, gc=False):
    """A task and the claim that a write belongs to."""

    task_id: int
    claim: int

    def lost(self) -> LeaseLost:
        """What a write raises that finds the claim over."""
        return LeaseLost(f"The lease of task {self.task_id} (claim {self.claim}) is lost.")


class Claimed(Struct, gc=False):
    """A task that this agent has the lease of."""

    fence: Fence
    uid: str
    kind: str
    name: str
    version: str
    status: Status
    needs: str
    queue: str
    partition: str | None
    priority: int
    tries: int
    suspect: bool
    alone: bool
    parent_id: int | None
    parent_path: str | None
    root_id: int | None
    started_at: int
    deadline_at: int | None
    cancel_requested: bool
    notice: int
    input: bytes
    tags: str | None
    tick: int | None
    chain: str
    idempotency_key: str | None
    options: str | None
    timeout: int | None
    parent_uid: str | None
    crashes: int
    parent_name: str | None = None
    grandparent_uid: str | None = None
    """Of a step: the run that started its run."""
    has_place: bool = False
    """It uses one of the places that its queue is limited to: a run leaves it as soon as it waits."""


class Wanted(StrEnum):
    """What somebody has asked of a run by the time that an entry of it is written."""

    PAUSE = "pause"
    CANCEL = "cancel"

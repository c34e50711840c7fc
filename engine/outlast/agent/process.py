"""The process that an agent works in: what it registers as, what its code declares, how the interpreter is set.

Owns what an agent tells the store of its process, and what it changes there; an application's process, which it is embedded in, stays
as it is. Refuses to claim and to renew: that is `agent`'s.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .. import clock
from ..model import new_id
from ..operations import RegisterAgent
from ..operations import queues as queue_operations
from ..operations import retention as retention_operations
from ..operations.atomic import Operation
from ..store.process import this_process

if TYPE_CHECKING:
    from ..definition.code import Code
    from ..definition.registry import Registry
    from ..settings import Settings


def registration(settings: Settings, code: Code, *, slots: int, queues: tuple[str, ...] | None, root_id: int | None) -> RegisterAgent:
    """The row of a new agent of this process."""
    identity = this_process()
    return RegisterAgent(
        uid=new_id(clock.wall()),
        host=identity.host,
        boot_id=identity.boot_id,
        pid=identity.pid,
        process_started=identity.started,
        slots=slots,
        queues=json.dumps(queues) if queues is not None else None,
        lease=round(settings.lease_seconds * clock.SECOND),
        code=code.fingerprints,
        root_id=root_id,
    )


def declarations(registry: Registry) -> tuple[Operation[Any], ...]:
    """What the code of the process says about queues and retention."""
    return queue_operations.declaration(registry), retention_operations.declaration(registry)


@contextmanager
def tuned() -> Iterator[None]:
    """Set the interpreter of a process that is an agent's alone, for as long as it is one, by what `benchmarks/` measure."""
    thresholds = gc.get_threshold()
    # What is loaded by now stays: no collection need walk it. Steps leave few cycles, so they may be collected seldom.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()

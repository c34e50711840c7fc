"""What carries a claimed task on: a run of either colour, a submitted step, an undo.

Owns the choice, and the reading of what such a task needs from the file. Refuses what cannot be read, with the halt that says so, and gives
back what this agent has no code for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from ..codec import payloads
from ..codec.types import NotDecodable
from ..errors import PayloadUnreadable
from ..operations import GiveBack, Halt
from ..operations.claimed import Claimed
from ..run import damage
from ..run.async_run import AsyncRun
from ..run.sync_run import SyncRun
from ..run.task_run import TaskRun
from ..run.undo_run import UndoRun
from ..states import Status
from ..store import journal, sealing

if TYPE_CHECKING:
    from ..definition.code import Code
    from ..run.execution import Ended
    from ..run.host import Host

Threaded = SyncRun | TaskRun | UndoRun
"""What carries a task on in a thread, but for an async step, which a `TaskRun` executes on the loop."""

Finished: TypeAlias = "Callable[[AsyncRun, Ended | None], None]"


def carrier(host: Host, code: Code, claimed: Claimed, *, finished: Finished) -> AsyncRun | Threaded | Halt | GiveBack:
    """What carries the task on; or the `Halt` or `GiveBack` with which it leaves at once."""
    halted = damage.of_tags(claimed)
    if halted is not None:
        return halted
    try:
        return _made_of(host, code, claimed, finished)
    except PayloadUnreadable as error:
        return Halt(claimed.fence, str(error))
    except NotDecodable as error:
        return damage.halt(claimed.fence, "its retry policy", (claimed.options or "").encode(), error)


def _made_of(host: Host, code: Code, claimed: Claimed, finished: Finished) -> AsyncRun | Threaded | GiveBack:
    if claimed.input[:1] == payloads.SEALED:
        claimed.input = payloads.opened(claimed.input)
    if claimed.status is Status.COMPENSATING:
        return UndoRun(host, claimed)
    if claimed.kind == "step":
        step = code.step(claimed.name)
        if step is not None:
            return TaskRun(host, claimed, step)
    else:
        workflow = code.workflow(claimed.name, claimed.version)
        if workflow is not None:
            entries = sealing.opened(journal.load(host.store.connection(), claimed.fence.task_id)) if claimed.fence.claim > 1 else []
            if workflow.asynchronous:
                return AsyncRun(host, claimed, workflow, entries, finished=finished)
            return SyncRun(host, claimed, workflow, entries)
    return GiveBack(claimed.fence)

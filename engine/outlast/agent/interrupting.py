"""A cancel or a deadline that comes while a task is carried on: what can be stopped is, and what cannot is not waited for long.

Owns the deadline's timer, and the decision of an ending beside a sync step that goes on in its thread: the ending then waits for that
thread as for a part. Refuses to judge whether a cancel was asked for: `holding` reads the notices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import clock
from ..operations import End
from ..run.async_run import AsyncRun
from ..run.execution import Execution
from ..run.sync_run import SyncRun
from ..run.task_run import TaskRun
from ..run.undo_run import UndoRun
from ..states import Ending
from .answers import nothing

if TYPE_CHECKING:
    from ..run.held import Held
    from ..run.host import Host

_STEP_GRACE_SECONDS = 0.2


def cancel(host: Host, work: Held) -> None:
    """Let a task know that it is cancelled; an undo goes on."""
    if work.cancel_requested or isinstance(work, UndoRun):
        return
    work.cancel_requested = True
    _end_now(host, work)


def watch_deadline(host: Host, work: Held) -> None:
    """End the work when its deadline passes."""
    deadline_at = work.claimed.deadline_at
    if deadline_at is None or not isinstance(work, Execution):
        return

    def passed() -> None:
        if work.ended or work.lost:
            return
        left = (deadline_at - host.store.now()) / clock.SECOND
        if left > 0:
            host.loop.call_later(min(left, 3600.0) + 0.001, passed)
            return
        work.late = True
        _end_now(host, work)
        work.notify()

    passed()


def _end_now(host: Host, work: Held) -> None:
    """A cancel or a deadline: stop what can be stopped, and do not wait long for a sync step that cannot."""
    if isinstance(work, AsyncRun):
        return
    if isinstance(work, TaskRun) and work.task is not None:
        work.task.cancel()
    elif not work.stop():
        host.loop.call_later(_STEP_GRACE_SECONDS, _decide_beside, host, work)


def _decide_beside(host: Host, work: Held) -> None:
    """The step goes on in its thread: decide the run's ending now; it waits for the thread as for a part."""
    if work.ended or work.ending_decided or work.lost:
        return
    if isinstance(work, SyncRun):
        if work.step_path is None:
            return
        work.strays.add(work.step_path)
        operation = work.abort()
    elif isinstance(work, TaskRun):
        work.strays.add("")
        operation = End(work.fence, Ending.CANCELLED, tries=work.number, strays=("",))
    else:
        return
    work.ending_decided = True
    host.submit(operation, nothing)

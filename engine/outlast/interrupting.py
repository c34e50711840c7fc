"""A cancel or a deadline that comes while a task is carried on: what can be stopped is, and what cannot is not waited for long.

Owns the deadline's timer, and the decision of an ending beside a sync step that goes on in its thread: the ending then waits for that
thread as for a part. Refuses to judge whether a cancel was asked for: `holding` reads the notices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import clock
from .answers import nothing
from .operations import End
from .run.async_run import AsyncRun
from .run.execution import Execution
from .run.sync_run import SyncRun
from .run.task_run import TaskRun
from .states import Ending

if TYPE_CHECKING:
    from .run.host import Host

_STEP_GRACE_SECONDS = 0.2


def cancel(host: Host, work: Any) -> None:
    if getattr(work, "cancel_requested", True):
        return  # Known, or an undo, which a cancel does not change.
    work.cancel_requested = True
    _end_now(host, work)


def watch_deadline(host: Host, work: Any) -> None:
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
        notify(work)

    passed()


def notify(work: Any) -> None:
    """Let it look at what has changed, where it waits."""
    notify = getattr(work, "notify", None)
    if notify is not None:
        notify()


def _end_now(host: Host, work: Any) -> None:
    """A cancel or a deadline: stop what can be stopped, and do not wait long for a sync step that cannot."""
    if isinstance(work, AsyncRun):
        return
    if isinstance(work, TaskRun):
        task = getattr(work, "task", None)
        if task is not None:
            task.cancel()
            return
        if work.stop():
            return
    elif isinstance(work, SyncRun) and work.kill_isolated is not None:
        work.kill_isolated()
        return
    host.loop.call_later(_STEP_GRACE_SECONDS, _decide_beside, host, work)


def _decide_beside(host: Host, work: Any) -> None:
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

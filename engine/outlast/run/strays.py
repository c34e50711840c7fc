"""Threads that go on after their task's ending was decided, and the word that they have ended.

Owns when a stray is reported: by the agent's loop, after the write that named it, so that a report cannot overtake what it is about. A
stray that nobody reports holds up the end of its run until its process has gone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ..operations import StrayEnded
from ..operations.atomic import Operation
from ..store import agents
from .tries import Tried

if TYPE_CHECKING:
    from .execute import ThreadTry
    from .held import Held
    from .host import Host

UNWINDING = "unwinding"
"""The path of a stray that is the workflow's own code."""


def code_ended(work: Held, last: tuple[str, Tried] | None) -> None:
    """Called in a task's thread once its code has ended; `last` is the try that it executed last, and its place.

    From here on nothing of the task is under way in this thread. Threads of steps that overran report their own end.
    """
    host = work.host
    if work.ending_decided or work.lost or work.cancel_requested or work.late or host.is_draining:
        host.reports.append(partial(_report, work, last))
        # Asked for after that: the loop looks at the reports once more after it has said that it has left. What is given to a loop
        # between its last turn and its end would be neither done nor refused.
        if host.has_left:
            hand_out(host)
        else:
            host.on_loop(partial(hand_out, host))


def hand_out(host: Host) -> None:
    """Report those that have ended; on the agent's loop, or after its end in whatever thread."""
    while host.reports:
        try:
            report = host.reports.popleft()
        except IndexError:
            return  # Another thread was quicker.
        report()


def agent_has_left(host: Host) -> None:
    """The agent's loop does nothing more: say what was to be said on it, and what no answer will tell it."""
    host.is_draining = host.has_left = True
    hand_out(host)
    for work in host.left:
        thread_ended(work)


def thread_ended(work: Held) -> None:
    """A thread of a task has ended, after the task has left or while its agent does: then the file names it by the task alone."""
    if not (work.is_in_threads or work.overrunning):
        work.host.store.submit(StrayEnded(work.fence.task_id, work.agent_id, ""))


def try_ended(work: Held, path: str, tried: Tried) -> None:
    """A try that outlived its task's ending has ended; its result is kept for the undo."""
    entry = work.late_outcome(path, tried) if tried.error is None and tried.committed is None else None
    work.host.store.submit(StrayEnded(work.fence.task_id, work.agent_id, path, entry, work.run_id))
    if (work.lost or work.host.is_draining) and not work.strays:
        thread_ended(work)


def goes_on(work: Held, thread: ThreadTry) -> None:
    """A thread has overrun: where it does not end, and the end of its task waits for it, its process has to."""
    work.host.on_loop(partial(_look_later, work, thread))


def _look_later(work: Held, thread: ThreadTry) -> None:
    work.host.loop.call_later(work.host.settings.grace_seconds, _look, work, thread)


def _look(work: Held, thread: ThreadTry) -> None:
    if thread.wait(0):
        return
    if agents.is_waited_for(work.host.store.connection(), work.agent_id, work.fence.task_id):
        work.host.overran(work.fence.task_id)
    else:
        _look_later(work, thread)


def lease_was_lost(work: Held) -> None:
    """The last write of a task was refused: its lease had been ended while its code ran to its end, and the file has it as a stray."""
    work.lost = True
    if not work.strays:
        thread_ended(work)


def _report(work: Held, last: tuple[str, Tried] | None) -> None:
    host = work.host
    if work.ending_decided:
        for path in (work.strays | {UNWINDING}) - work.overrunning:
            if last is not None and last[0] == path:
                host.stray_ended(work, path, last[1])
            else:
                host.store.submit(StrayEnded(work.fence.task_id, work.agent_id, path))
    if work.lost or host.is_draining:
        thread_ended(work)


def after_write(work: Held, operation: Operation[Any]) -> None:
    """Report strays that ended between the look at them and the write that names them."""
    for path in getattr(operation, "strays", ()):
        if path not in work.strays and path != UNWINDING:
            work.host.store.submit(StrayEnded(work.fence.task_id, work.agent_id, path))

"""The roles in this process: `up`, `agent`, `supervisor`, `scheduler`.

Owns the way from a command to a role, and its end by a signal: the first drains, the second stops at once,
and the exit code says which signal it was. Refuses to create the file, but for `up`, which says so.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from . import output
from .catalogue import wants_colour
from .context import Context
from .forgiving import forgiving
from .group import command
from .text import safe

if TYPE_CHECKING:
    from ..liveness import Pulse

_ONE_SIGNAL_SECONDS = 0.3

_GRACE = click.option("--grace", metavar="DURATION", help="How long a drain may take; 20s by default.")
_CONCURRENCY = click.option("--concurrency", type=click.IntRange(1, 10_000), default=8, show_default=True, help="Tasks at once.")


def say(text: str) -> None:
    """A line of what happened, with the time; on stderr, since stdout is for answers."""
    from .. import clock

    # Not `time.strftime`: it reads a coarser clock, which lags, and what came of a tick would be said a second before it.
    moment = clock.to_datetime(clock.wall()).astimezone().strftime("%H:%M:%S")
    line = output.fitted(f"{moment} {safe(text)}", hang=len(moment) + 1)
    if wants_colour(sys.stderr.isatty()):
        line = f"\x1b[2m{moment}\x1b[0m{line.removeprefix(moment)}"
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@command(
    "up",
    help="Keep agents, a supervisor and a scheduler alive until Ctrl-C or SIGTERM; a dead agent is "
    "replaced at once. Creates the file if there is none, and migrates an old one after a backup.",
    examples=["outlast up", "outlast up --agents 4 --concurrency 16 --grace 1m"],
)
@click.option("--agents", type=click.IntRange(1, 256), default=2, show_default=True, help="Agent processes.")
@_CONCURRENCY
@_GRACE
@click.option("--reload", is_flag=True, help="Restart agents and the scheduler when workflow code changes.")
@click.pass_obj
def up(context: Context, agents: int, concurrency: int, grace: str | None, reload: bool) -> int:
    from ..node import Node

    settings = context.settings_with(grace=grace)
    registry = context.registry
    context.prepare(migrate=True)
    if not registry.workflows():
        output.note(f"No workflow is defined yet: {context.looked()}.")
    context.warn_of_queues()
    node = Node(
        context.path,
        context.app_names,
        settings,
        agents=agents,
        concurrency=concurrency,
        grace=settings.grace_seconds,
        on_event=say,
        reload=reload,
    )
    with quiet_logging():
        return output.TERMINATED if output.was_terminated else node.run()


@command(
    "agent",
    help="Run one agent in this process: it claims runs and steps, and executes them.",
    examples=["outlast agent --queue emails --queue default", "outlast agent --once"],
)
@click.option("--queue", "queues", metavar="NAME", multiple=True, help="Only these queues. May be repeated.")
@_CONCURRENCY
@click.option("--once", is_flag=True, help="Exit when nothing is due any more.")
@_GRACE
@click.option("--solo", is_flag=True, hidden=True, help="Take what brought an agent down, one at a time.")
@click.pass_obj
def agent(context: Context, queues: tuple[str, ...], concurrency: int, once: bool, grace: str | None, solo: bool) -> int:
    from ..agent import Agent
    from ..store import queues as stored_queues

    settings = context.settings_with(grace=grace)
    context.require_file()
    registry = context.registry
    store = context.store(tolerant=False)
    for queue in queues:
        if not stored_queues.exists(store.connection(), queue):
            registry.queue(queue)
    made = Agent(store, registry, settings, concurrency=concurrency, queues=queues or None, solo=solo)
    # What steps print is no answer: a log that cannot be written must not fail them.
    with quiet_logging(), redirect_stdout(forgiving(sys.stdout)):
        try:
            return run_role(lambda: made.run(once=once), made.stop)
        finally:
            output.has_strays |= made.has_strays


@command(
    "supervisor",
    help="Run the supervisor in this process: it gives back what dead agents held, and ends what is late.",
    examples=["outlast supervisor"],
)
@click.pass_obj
def supervisor(context: Context) -> int:
    from ..supervisor import Supervisor

    made = Supervisor(context.store(), context.settings, on_change=say)
    with quiet_logging():
        return run_role(made.run, made.stop)


@command(
    "scheduler",
    help="Run the scheduler in this process: it starts the runs that schedules ask for.",
    examples=["outlast scheduler"],
)
@click.pass_obj
def scheduler(context: Context) -> int:
    from ..liveness import Pulse
    from ..scheduler import Scheduler

    context.require_file()
    registry = context.registry
    pulse = Pulse()
    made = Scheduler(context.store(), registry, context.settings, on_change=say, tells_ticks=not pulse.has_node)
    if pulse.has_node:
        # Its loop may rest for a minute; what has to be known is when the node is gone.
        threading.Thread(target=_beat, args=(pulse,), name="outlast-pulse", daemon=True).start()
    with quiet_logging():
        return run_role(made.run, made.stop)


def _beat(pulse: Pulse) -> None:
    from ..liveness import BEAT_SECONDS

    while pulse.beat():
        time.sleep(BEAT_SECONDS)


def run_role(run: Callable[[], Any], stop: Callable[[], Any]) -> int:
    """Run a role in the main thread until it ends or a signal ends it. Each signal calls `stop`, the second
    at once.

    The exit code is 0 where the role ended by itself, 130 or 143 where a signal did.
    """
    received: list[int] = []
    received_at = 0.0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal received_at
        now = time.monotonic()
        # `timeout` signals the process and then its group: two that come as one are one wish to drain.
        if received and now - received_at < _ONE_SIGNAL_SECONDS:
            return
        received_at = now
        received.append(number)
        stop()

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    try:
        if output.was_terminated:
            return output.TERMINATED
        run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else 0


@contextmanager
def quiet_logging() -> Iterator[None]:
    """Show the engine's own log on stderr, one safe line a record."""
    logger = logging.getLogger("outlast")
    if logger.handlers or logging.getLogger().handlers:
        yield
        return
    handler = _Lines()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if output.debugging() else logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None and not output.debugging():
                text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
            say(text)
        except Exception:  # noqa: BLE001 - a log line must not end a role
            self.handleError(record)

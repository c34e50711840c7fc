"""The node: keeps agent processes, a supervisor and a scheduler alive on this machine. It is what `outlast
up` runs.

Owns its children from start to death: replaces a dead one at once, renews for one that is silent, kills one
that hangs, starts one with a single slot for tasks that brought an agent down, and ends all of them with
itself. Refuses to run workflow code or to wait for the file: a child is replaced or killed whatever state the
file is in. Should the node itself be killed, its children see their pipes break, drain and end; whatever is
started next takes over from the file.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from ..definition import registry
from ..loop import RoleLoop
from ..settings import Settings
from ..store.sqlite import SqliteStore
from ..supervisor import Supervisor
from .child import Child, Place, describe_exit
from .command import SCHEDULER, agent_command, child_environ
from .record import NodeRecord
from .reload import LOOK_SECONDS, SourceWatch
from .signals import handled

_log = logging.getLogger("outlast")

_LOOK_SECONDS = 1.0
_STALL_SECONDS = 2.0
_SILENT_SECONDS = 3.0
_START_SECONDS = 30.0
"""What a child may need, beyond the hang limit, until its first beat: imports are slow on a small machine."""
_OVERTIME_SECONDS = 2.0
"""What a child may take, beyond the grace time in which it drains, to write that and to end."""
_SUSPECT_SECONDS = 0.3
_DRAINED = (0, 128 + signal.SIGTERM, -signal.SIGTERM)
_LONGEST_SOLO_DELAY_SECONDS = 60.0


class Node:
    """One `outlast up`. `run` from the main thread, so that signals reach it; `stop` from anywhere."""

    def __init__(
        self,
        database: str | os.PathLike[str],
        apps: Sequence[str],
        settings: Settings,
        *,
        agents: int = 2,
        concurrency: int = 8,
        grace: float | None = None,
        on_event: Callable[[str], None] | None = None,
        reload: bool = False,
        queues: Sequence[str] | None = None,
        command: Callable[[int], list[str]] | None = None,
    ) -> None:
        """`grace`: seconds of a drain, else the settings'. `command(number)` gives a child's command line,
        number 0 being the agent with one slot that runs suspects; tests give it.
        """
        self._database = os.fspath(database)
        self._apps = tuple(apps)
        self._settings = settings
        self._concurrency = concurrency
        self._grace_seconds = settings.grace_seconds if grace is None else grace
        self._on_event = on_event
        self._command = command or agent_command(self._database, apps, concurrency, queues or ())
        self._environ = child_environ(settings, grace_seconds=self._grace_seconds)
        self._places = [Place(f"agent {number}", number) for number in range(1, agents + 1)]
        # A process of its own where code may change: schedules are code, and the node loads its own once.
        self._has_scheduler_child = reload and command is None
        if self._has_scheduler_child:
            self._places.append(Place("scheduler", SCHEDULER))
        self._solo = Place("solo agent", 0)
        self._leaving: list[Child] = []
        self._suspects_since: float | None = None
        self._vain_solos = 0
        self._reloads = reload
        self._source: SourceWatch | None = None
        self._signals: list[int] = []
        self._is_stopping = False
        self._planned_at: float | None = None
        self._saying = threading.Lock()
        self._end_scheduler: Callable[[], object] = lambda: None
        self._loop: RoleLoop | None = None
        self._supervisor: Supervisor | None = None

    def run(self) -> int:
        """Keep everything alive until a signal; give the exit code (130 or 143). No child outlives it."""
        settings = self._settings
        self._store = SqliteStore(self._database, allow_network=settings.allow_network, durability=settings.durability)
        with ExitStack() as ends:
            ends.callback(self._store.close)
            loop = self._loop = RoleLoop("node", self._tick, self._store, watched=self._fds)
            self._record = NodeRecord(self._store, self._settings, say=self._say, wake=self._wake)
            supervisor = self._supervisor = Supervisor(self._store, self._settings, on_change=self._say, leaves=self._record.leaves)
            ends.callback(supervisor.stop)
            ends.enter_context(handled(self.stop))
            ends.callback(self._end_children)
            supervisor.start()
            if not self._has_scheduler_child:
                self._start_scheduler(ends)
            self._source = SourceWatch(self._apps) if self._reloads else None
            loop.run()
        return 128 + self._signals[0] if self._signals else 0

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """What the signal does: the first lets the agents drain, the second kills them. From any thread."""
        self._signals.append(signum)
        if len(self._signals) > 2:
            self._end_loop()
        self._wake()

    def _tick(self, _: int) -> float:
        # First of all: an agent that has ended because the file was replaced must not be replaced by one on the other file.
        self._store.connection()
        now = time.monotonic()
        if self._planned_at is not None and now - self._planned_at > _STALL_SECONDS:
            # We stood still (stopped, starved of processor): what looks like a child's silence may be ours.
            for child in self._children():
                child.forgive()
        for child in self._children():
            child.hear()
        self._bury()
        if self._signals:
            delay = self._stop_children()
        else:
            self._follow_source(now)
            self._look_for_suspects(now)
            delay = self._start_due(now)
            if self._source is not None:
                delay = min(delay, LOOK_SECONDS)
            if self._suspects_since is not None:
                delay = min(delay, _SUSPECT_SECONDS)
        # While they drain too: a step that holds the interpreter to the end of the grace time keeps its lease
        # until then.
        self._watch_silence()
        lease, limit = self._settings.lease_seconds, self._settings.hang_limit_seconds
        delay = min(delay, self._end_overdue(), limit / 4, lease / 6)
        self._planned_at = time.monotonic() + delay
        return delay

    def _start_due(self, now: float) -> float:
        """Start the children whose time has come; give the seconds until the next one's."""
        delay = _LOOK_SECONDS
        for place in self._places:
            if place.child is None and place.due_at <= now:
                place.child = self._start(place)
            if place.child is None:
                delay = min(delay, max(0.0, place.due_at - now))
        return delay

    def _start(self, place: Place) -> Child | None:
        try:
            child = Child(
                place.name,
                self._command(place.number),
                self._environ,
                hang_seconds=self._settings.hang_limit_seconds,
            )
        except OSError as error:
            place.due_at = time.monotonic() + place.delay_after(0.0)
            self._say(f"{place.name} could not be started: {error.strerror or error}")
            return None
        self._record.began(child.pid)
        self._say(f"{place.name} started (pid {child.pid})")
        return child

    def _bury(self) -> None:
        """See which children have died, tell the store, and plan their replacement."""
        for place in (*self._places, self._solo):
            for child in (place.child, place.successor):
                status = child.reap() if child is not None else None
                if child is not None and status is not None:
                    self._end_of(child, status, place)
        for child in self._leaving[:]:
            status = child.reap()
            if status is not None:
                self._leaving.remove(child)
                self._end_of(child, status, None)

    def _end_of(self, child: Child, status: int, place: Place | None) -> None:
        how = describe_exit(status)
        # What ended because we said so has not crashed, drained or not. What died otherwise has, unless it
        # left in good order: then the store knows no live agent of this pid any more.
        obeyed = child.told_to_end_at is not None and (child.is_killed or status in _DRAINED)
        if child.killed_for is not None:
            how += f" ({child.killed_for})"
        elif obeyed and status >= 0:
            how = "has drained and ended"
        verdict = "stopped" if obeyed and not child.hung else "crashed"
        self._record.ended(child.pid, verdict, f"pid {child.pid} {how}")
        follows = ""
        if place is not None and child is place.successor:
            place.successor = None
            follows = f"; the {place.name.split()[0]} with the code as it was goes on"
        elif place is not None:
            place.child = None
            if not (self._signals or self._is_stopping):
                follows = self._plan_after(child, status, place)
        self._say(f"{child.name} (pid {child.pid}) {how}{follows}")

    def _plan_after(self, child: Child, status: int, place: Place) -> str:
        if place is self._solo and status == 0:
            # It found nothing that it could take. Suspects whose code nobody has must not start it over and
            # over.
            self._vain_solos += 1
            place.due_at = time.monotonic() + min(2.0**self._vain_solos, _LONGEST_SOLO_DELAY_SECONDS)
            return ""
        delay = place.delay_after(child.age_seconds())
        place.due_at = time.monotonic() + delay
        if place is self._solo:
            return ""
        return f"; replaced in {delay:g} s" if delay else "; replaced"

    def _watch_silence(self) -> None:
        """Renew for a child whose loop is held up; kill it once that has lasted for the hang limit.

        When it fell silent, its last heartbeat may have been a third of the lease old: the renewal comes
        before two.
        """
        limit = self._settings.hang_limit_seconds
        lease = self._settings.lease_seconds
        for child in self._children():
            silent = child.silent_seconds()
            if silent > (limit if child.has_beaten else limit + _START_SECONDS) and not child.is_killed:
                why = f"it hung for {silent:.0f} s"
                self._record.hangs(child.pid, f"pid {child.pid} was killed: {why}")
                child.hung = True
                child.kill(why)
            elif silent > min(_SILENT_SECONDS, lease / 3) and child.renewal_is_due(lease / 4):
                self._record.renew(child.pid)

    def _look_for_suspects(self, now: float) -> None:
        """Start an agent with one slot beside the others when tasks wait that must run alone, and no idle
        agent takes them.
        """
        if self._concurrency == 1 or self._solo.child is not None:
            return
        if not self._record.has_suspects():
            self._suspects_since, self._vain_solos = None, 0
            return
        if self._suspects_since is None:
            self._suspects_since = now
        if now - self._suspects_since >= _SUSPECT_SECONDS and now >= self._solo.due_at:
            self._solo.child = self._start(self._solo)

    def _follow_source(self, now: float) -> None:
        """Replace agents one for one when code has changed: each leaves once its successor has come up."""
        for place in self._places:
            if place.successor is not None and place.successor.has_beaten:
                if place.child is not None:
                    self._let_go(place.child)
                place.child, place.successor = place.successor, None
        if self._source is None or not self._source.is_due(now):
            return
        changed = self._source.changed()
        if not changed:
            return
        self._say(f"{Path(changed[0]).name}{' and others' if len(changed) > 1 else ''} changed; agents restart")
        for place in self._places:
            if place.successor is not None:
                self._let_go(place.successor)
            place.successor = self._start(place) if place.child is not None else None
            place.due_at = now
        if self._solo.child is not None:
            self._let_go(self._solo.child)
            self._solo.child = None

    def _let_go(self, child: Child) -> None:
        child.ask_to_end()
        self._leaving.append(child)

    def _stop_children(self) -> float:
        """Let the children drain, and end the loop when the last has gone."""
        children = self._children()
        if not self._is_stopping:
            self._is_stopping = True
            self._end_scheduler()
            if children:
                self._say(f"agents drain for up to {self._grace_seconds:g} s; a second signal kills them")
        for child in children:
            child.ask_to_end()
            if len(self._signals) > 1:
                child.kill("a second signal")
        if not children:
            self._end_loop()
        return _LOOK_SECONDS

    def _end_overdue(self) -> float:
        """Kill who has not drained in time; give the seconds until the next one's time is over."""
        delay = _LOOK_SECONDS
        for child in self._children():
            if child.told_to_end_at is None or child.is_killed:
                continue
            left = child.told_to_end_at + self._grace_seconds + _OVERTIME_SECONDS - time.monotonic()
            if left <= 0:
                child.kill(f"it did not drain within {self._grace_seconds:g} s")
            delay = min(delay, max(0.0, left))
        return delay

    def _end_children(self) -> None:
        """Leave no child behind, whatever ended the loop."""
        self._is_stopping = True
        for child in self._children():
            child.kill("its node ended")
        while self._children():
            self._bury()
            time.sleep(0.005)

    def _children(self) -> list[Child]:
        places = (*self._places, self._solo)
        held = [child for place in places for child in (place.child, place.successor) if child is not None]
        return held + self._leaving

    def _fds(self) -> Iterator[int]:
        for child in self._children():
            yield from child.fds()

    def _wake(self) -> None:
        for loop in (self._loop, self._supervisor):
            if loop is not None:
                loop.wake()

    def _end_loop(self) -> None:
        if self._loop is not None:
            self._loop.stop(0)

    def _start_scheduler(self, ends: ExitStack) -> None:
        from ..scheduler import Scheduler

        scheduler = Scheduler(self._store, registry.current(), self._settings, on_change=self._say, tells_ticks=False)
        ends.callback(scheduler.stop)
        self._end_scheduler = scheduler.stop
        scheduler.start()

    def _say(self, text: str) -> None:
        """Tell what happened. Called from several threads; a screen that has gone ends nothing."""
        if self._on_event is not None:
            with self._saying:
                try:
                    self._on_event(text)
                except Exception as error:  # noqa: BLE001 - what shows events is not ours
                    _log.debug("An event could not be shown: %s", error)

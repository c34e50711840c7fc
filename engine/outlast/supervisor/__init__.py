"""The supervisor: gives back what dead and silent agents held, and looks after what time leaves behind.

Owns the decision that an agent has ended, by seeing its process die or by its lease's timestamp, and the
moments of a sweep. Refuses to change tasks by itself: it hands idempotent operations to the store, so any
number of supervisors on one file do no harm, and it may die anywhere. Refuses to judge agents by a time in
which it stood still itself: what held it up may have held up their heartbeats too, so after a stall every
lease holds for one more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .. import clock
from ..clock import SECOND
from ..loop import RoleLoop
from ..operations import AgentEnded, Sweep
from ..settings import Settings
from ..store import agents, sweeping
from ..store.agents import AgentRow
from ..store.process import ProcessIdentity
from .retention import Retention
from .watch import DeathWatch

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_log = logging.getLogger("outlast")

_LOOK_SECONDS = 1.0
"""The longest delay: an agent that registered since is watched from the next look on, and a new deadline is
seen.
"""
_BLIND_SECONDS = 0.5
_SWEEP_SECONDS = 5.0
_SHORTEST_STALL_SECONDS = 2.0
_RECORD_SECONDS = 10.0


def _leaves_nobody(_: AgentRow) -> bool:
    return False


class Supervisor:
    """One supervisor of one file. `tick` from one thread only; `run`, `start` and `stop` as a role does."""

    def __init__(
        self,
        store: SqliteStore,
        settings: Settings,
        *,
        on_change: Callable[[str], None] | None = None,
        leaves: Callable[[AgentRow], bool] = _leaves_nobody,
    ) -> None:
        """`on_change` is told, in this role's thread, a line for each thing that changed. `leaves` names
        agents whose death somebody else in this process reports, with better evidence (a node, of its own
        children).
        """
        self._store = store
        self._lease = round(settings.lease_seconds * SECOND)
        self._max_crashes = settings.max_crashes
        self._on_change = on_change
        self._leaves = leaves
        self._watch = DeathWatch()
        self._retention = Retention(store, settings)
        self._stall = max(round(_SHORTEST_STALL_SECONDS * SECOND), self._lease // 3)
        self._planned_at: int | None = None
        self._spared_until = 0
        self._skew: int | None = None
        self._jump = 0
        self._jump_counts_until = 0
        self._swept_at: int | None = None
        self._recorded_at: int | None = None
        self._loop = RoleLoop("supervisor", self.tick, store, watched=self._watch.fds)

    def run(self) -> None:
        """Supervise in this thread until `stop`."""
        try:
            self._loop.run()
        finally:
            self._watch.close()

    def start(self) -> None:
        """Supervise in a background thread."""
        self._loop.start()

    def stop(self) -> None:
        """End after the tick under way. From any thread or signal handler."""
        if self._loop.stop():
            self._watch.close()

    def wake(self) -> None:
        """Look now."""
        self._loop.wake()

    def tick(self, now: int) -> float:
        """Look once; give the seconds until the next look, unless a watched process dies earlier."""
        self._note_stall(now)
        live = agents.live(self._store.connection())
        strays = agents.with_strays(self._store.connection())
        self._watch.follow(_identity(agent) for agent in (*live, *strays) if not self._leaves(agent))
        ended = self._end_dead(live)
        self._end_dead(agent for agent in strays if agent.id not in ended)
        silent = [agent for agent in live if agent.id not in ended and self._lease_of(agent) < now]
        self._sweep(now, at_once=bool(silent))
        if silent:
            now = self._expire(now)
        self._record_time(now)
        delay_seconds = min(self._delay(now, [agent for agent in live if agent.id not in ended]), self._retention.tick(now))
        self._planned_at = now + round(delay_seconds * SECOND)
        return delay_seconds

    def _note_stall(self, now: int) -> None:
        if self._planned_at is not None and now - self._planned_at > self._stall:
            stood_seconds = (now - self._planned_at) / SECOND
            _log.info("The supervisor stood still for %.1f s: every lease holds for one more.", stood_seconds)
            self._spared_until = now + self._lease

    def _lease_of(self, agent: AgentRow) -> int:
        return max(agent.lease_until, self._spared_until)

    def _end_dead(self, rows: Iterable[AgentRow]) -> set[int]:
        """Record the end of every agent whose process was seen dead. One that had ended before only loses its
        strays.
        """
        ended: set[int] = set()
        for agent in rows:
            if self._leaves(agent) or not self._watch.is_dead(_identity(agent)):
                continue
            rebooted = agent.boot_id != clock.boot_id()
            how = "ended with the boot that it ran in" if rebooted else "is gone"
            evidence = f"its process (pid {agent.pid}) {how}, seen {clock.iso(clock.wall())}"
            status = "stopped" if rebooted else "crashed"
            self._end(agent, status, evidence, seen_dead=True)
            ended.add(agent.id)
        return ended

    def _expire(self, now: int) -> int:
        """End agents by timestamp. Gives the instant of the second look, which decides."""
        # The sweep has just had the write lock. If it had to wait long for that, so did the heartbeats; and
        # whoever renewed while it waited has done so in the file by now. Hence a second look, and only then
        # the verdict.
        after = self._store.now()
        if after - now > self._stall:
            self._spared_until = after + self._lease
            return after
        for agent in agents.live(self._store.connection()):
            if self._lease_of(agent) >= after or self._watch.is_dead(_identity(agent)):
                continue
            # A process that was killed because it hung has crashed, even where its death cannot be seen from
            # here.
            status = "crashed" if agent.hung else "lost"
            late = (after - agent.lease_until) / SECOND
            evidence = f"its lease (pid {agent.pid} on {agent.host.partition('/')[0]}) ran out {late:.1f} s ago"
            self._end(agent, status, evidence, seen_dead=False)
        return after

    def _end(self, agent: AgentRow, status: str, evidence: str, *, seen_dead: bool) -> None:
        changed = self._store.commit(AgentEnded(agent.id, status, evidence, self._max_crashes, seen_dead))
        self._say(f"agent {agent.id} {status}: {evidence}", *changed)

    def _sweep(self, now: int, *, at_once: bool) -> None:
        deadline_at = sweeping.next_deadline_at(self._store.connection())
        is_late = deadline_at is not None and deadline_at <= now
        is_time = self._swept_at is None or now - self._swept_at >= _SWEEP_SECONDS * SECOND
        if at_once or is_late or is_time:
            self._say(*self._store.commit(Sweep(self._patience(now))))
            self._swept_at = now

    def _patience(self, now: int) -> int:
        """How long an undo waits for code. Of an agent's start only the wall instant is known: set forward, the wall
        clock says that it was long ago, until a lease has passed.
        """
        skew = self._store.engine_time().skew()
        set_forward = 0 if self._skew is None else skew - self._skew
        self._skew = skew
        if now >= self._jump_counts_until:
            self._jump = 0
        if set_forward > SECOND:
            self._jump += set_forward
            self._jump_counts_until = now + self._lease
        return self._lease + self._jump

    def _record_time(self, now: int) -> None:
        """Keep fresh what bridges a reboot; a write, so no more often than a lease needs it."""
        every = min(round(_RECORD_SECONDS * SECOND), self._lease // 3)
        if self._recorded_at is None or now - self._recorded_at >= every:
            with self._store.transaction() as connection:
                self._store.engine_time().record(connection)
            self._recorded_at = now

    def _delay(self, now: int, live: list[AgentRow]) -> float:
        instants = [self._lease_of(agent) + 1 for agent in live]
        deadline_at = sweeping.next_deadline_at(self._store.connection())
        if deadline_at is not None:
            instants.append(deadline_at)
        # What is due and still there belongs to others (a leaseholder ends its own run): it is no reason to
        # hurry.
        ahead = [(at - now) / SECOND for at in instants if at > now]
        longest = _BLIND_SECONDS if self._watch.has_unwatched() else _LOOK_SECONDS
        return min([longest, *ahead])

    def _say(self, *lines: str) -> None:
        if self._on_change is not None:
            for line in lines:
                self._on_change(line)


def _identity(agent: AgentRow) -> ProcessIdentity:
    return ProcessIdentity(agent.host, agent.boot_id, agent.pid, agent.process_started)

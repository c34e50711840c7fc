"""What a node tells the store about its children, and asks it: never waiting for the file.

Owns the way from a child's pid to its agents' rows, the report of a child's end and the renewal of a silent
child's lease. Refuses to hold up the node: writes go through the committer's own thread, since a locked file
or a full disk must neither delay the replacement of a child nor the killing of the one that holds the lock.
What cannot be written is left to the supervisor.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import clock
from ..clock import SECOND
from ..errors import StoreReplaced
from ..operations import AgentEnded, Heartbeat
from ..settings import Settings
from ..store import agents, claiming
from ..store.agents import AgentRow
from ..store.process import this_process

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_log = logging.getLogger("outlast")

_LAST_WORD_SECONDS = 0.3


class _EveryCode(frozenset[str]):
    """Stands for all code there is: which of its agents has a task's code is theirs to see."""

    def __contains__(self, needs: object) -> bool:
        return True


class NodeRecord:
    """Used by the node's thread; `leaves` by its supervisor's, and `say` is called on the writer's."""

    def __init__(self, store: SqliteStore, settings: Settings, *, say: Callable[[str], None], wake: Callable[[], None]) -> None:
        self._store = store
        self._lease = round(settings.lease_seconds * SECOND)
        self._max_crashes = settings.max_crashes
        self._say = say
        self._wake = wake
        self._host = this_process().host
        self._pids: set[int] = set()
        self._renewing: set[int] = set()

    def began(self, pid: int) -> None:
        """A child runs; its end will be reported from here."""
        self._pids.add(pid)

    def leaves(self, agent: AgentRow) -> bool:
        """Whether the supervisor shall leave this agent's death to the node, which knows how it died."""
        return agent.pid in self._pids and self._is_here(agent)

    def ended(self, pid: int, status: str, evidence: str) -> None:
        """Report that a child is dead. Its tasks go back with the commit, a millisecond later where the file
        is free.
        """
        try:
            rows = self._agents_of(pid)
        except StoreReplaced:
            rows = []  # The node ends by the same.
        except Exception as error:  # noqa: BLE001 - the supervisor sees the death too, and tries again
            _log.warning("The end of pid %d could not be looked up: %s", pid, error)
            rows = []
        for number, row in enumerate(rows, start=1):
            self._submit_end(row, status, evidence, seen_dead=True, pid=pid if number == len(rows) else None)
        if not rows:
            self._pids.discard(pid)
            self._wake()

    def hangs(self, pid: int, evidence: str) -> None:
        """Put on record that a child hangs, right before it is killed; where the file is locked, perhaps by
        that very child, the killing goes first.
        """
        written = threading.Event()
        try:
            for row in self._agents_of(pid):
                self._submit_end(row, "crashed", evidence, seen_dead=False, then=written.set)
                written.wait(_LAST_WORD_SECONDS)
        except Exception as error:  # noqa: BLE001 - it is killed all the same
            _log.warning("The hanging of pid %d could not be put on record first: %s", pid, error)

    def renew(self, pid: int) -> None:
        """Renew the lease of a child that is too busy to do so itself."""
        if pid in self._renewing:
            return  # The file is locked: one renewal in the queue is enough.
        try:
            for row in self._agents_of(pid):
                self._renewing.add(pid)
                self._store.submit(Heartbeat(row.id, self._lease), lambda _, __: self._renewing.discard(pid))
        except Exception as error:  # noqa: BLE001 - its lease holds for a while yet
            self._renewing.discard(pid)
            _log.warning("The lease of pid %d could not be renewed: %s", pid, error)

    def has_suspects(self) -> bool:
        """Whether tasks wait that must run alone."""
        try:
            now = self._store.now()
            return claiming.has_suspects(self._store.connection(), _EveryCode(), None, now=now)
        except Exception as error:  # noqa: BLE001 - asked again in a moment
            _log.debug("Suspects could not be looked for: %s", error)
            return False

    def _agents_of(self, pid: int) -> list[AgentRow]:
        connection = self._store.connection()
        found = {row.id: row for row in (*agents.live(connection), *agents.with_strays(connection))}
        return [row for row in found.values() if row.pid == pid and self._is_here(row)]

    def _is_here(self, row: AgentRow) -> bool:
        # While our child has this pid nobody else does: an older row that names it too is of a process that
        # is gone.
        return row.host == self._host and row.boot_id == clock.boot_id()

    def _submit_end(
        self,
        row: AgentRow,
        status: str,
        evidence: str,
        *,
        seen_dead: bool,
        pid: int | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        def done(changed: Any, error: BaseException | None) -> None:
            if then is not None:
                then()
            if error is not None:
                _log.warning("The end of agent %d is left to the supervisor: %s", row.id, error)
            for line in changed or ():
                self._say(line)
            if pid is not None:
                self._pids.discard(pid)
                self._wake()

        self._store.submit(AgentEnded(row.id, status, evidence, self._max_crashes, seen_dead), done)

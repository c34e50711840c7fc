"""The checks of `doctor` that no single query makes: agents whose process is gone, the order of an undo, schedules
that cannot fire, what waits for a person.

Owns those four. Refuses to call a halted run a defect: it is told, since nothing will happen to it by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import scheduling
from ..errors import OutlastError
from ..model import compensation_code
from ..store import agents, schedules, undoing
from ..store.process import ProcessIdentity, is_alive

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_HELD_BY = "select count(*) from outlast_task where agent_id = :id"


def dead_agents(store: SqliteStore) -> list[str]:
    """Agents of this host that count as up although their process is gone, each with what it holds."""
    connection = store.connection()
    found = []
    for agent in agents.live(connection):
        if is_alive(ProcessIdentity(agent.host, agent.boot_id, agent.pid, agent.process_started)) is False:
            held: int = connection.execute(_HELD_BY, {"id": agent.id}).fetchone()[0]
            found.append(f"agent {agent.id} (pid {agent.pid}, holds {held})")
    return found


_COMPENSATING = """
select id, uid, needs from outlast_task where status = 'compensating' and ending is not null and finished_at is null and agent_id is null
"""


def wrong_undo(store: SqliteStore) -> list[str]:
    """Runs that are to be undone and wait for other code than that of the next compensation, or for none."""
    connection = store.connection()
    found = []
    for task_id, uid, needs in connection.execute(_COMPENSATING).fetchall():
        plan = undoing.read_plan(connection, task_id)
        if plan and needs != compensation_code(plan[0].name):
            found.append(f"{uid} waits for {needs}, next comes {compensation_code(plan[0].name)}")
        elif not plan and not _was_undone(store, task_id):
            found.append(f"{uid} has nothing left to undo, and never had")
    return found


_UNDONE = "select 1 from outlast_journal where task_id = :id and kind = 'compensation' limit 1"


def _was_undone(store: SqliteStore, task_id: int) -> bool:
    # All is undone, and its agent died before it could say so: the next one does.
    return store.connection().execute(_UNDONE, {"id": task_id}).fetchone() is not None


def broken_schedules(store: SqliteStore) -> list[str]:
    """Schedules that cannot fire, each with the reason, in order of their names."""
    found = []
    for stored in schedules.everything(store.connection()):
        error = stored.error
        if error is None:
            try:
                scheduling.read(stored, store.path, {})
            except OutlastError as unread:
                error = str(unread)
        if error is not None and stored.gone_at is None:
            found.append(f"{stored.name}: {error}")
    return found


_HALTED = "select uid from outlast_task where status = 'halted' and kind = 'run' order by id desc"


def halted(store: SqliteStore) -> list[str]:
    """The runs that wait for a person, the newest first."""
    return [uid for (uid,) in store.connection().execute(_HALTED)]

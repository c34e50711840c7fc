"""Agents in the store: their registration, their lease, and what becomes of their tasks when they end.

Owns the one row per agent whose `lease_until` covers every task that names it, and the accounting of crashes. Refuses to renew a lease
that a supervisor has ended: the agent learns that everything under it is somebody else's by now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..operations import AgentEnded, Heartbeat, LearnCode, LeaveAgent, RegisterAgent
from ..operations.claimed import Fence
from ..states import Ending
from ..text.counted import times
from . import ending, halting
from .library import sqlite3
from .transaction import Transaction

_REGISTER = """
insert into outlast_agent (uid, host, boot_id, pid, process_started, slots, queues, status, lease_until, started_at, heartbeat_at, root_id)
values (:uid, :host, :boot_id, :pid, :process_started, :slots, :queues, 'active', :lease_until, :wall, :wall, :root_id)
"""

_REGISTER_CODE = """
insert or replace into outlast_agent_code (agent_id, needs, fingerprint) values (:agent_id, :needs, :fingerprint)
"""


def register(transaction: Transaction, operation: RegisterAgent) -> int:
    """Enter an agent and the code that it has."""
    cursor = transaction.execute(
        _REGISTER,
        {
            "uid": operation.uid,
            "host": operation.host,
            "boot_id": operation.boot_id,
            "pid": operation.pid,
            "process_started": operation.process_started,
            "slots": operation.slots,
            "queues": operation.queues,
            "lease_until": transaction.now + operation.lease,
            "wall": transaction.wall,
            "root_id": operation.root_id,
        },
    )
    agent_id: int = cursor.lastrowid
    for needs, fingerprint in operation.code.items():
        transaction.execute(_REGISTER_CODE, {"agent_id": agent_id, "needs": needs, "fingerprint": fingerprint})
    return agent_id


_NAMED = "select id, claim from outlast_task where agent_id = :agent_id"


def named(connection: sqlite3.Connection, agent_id: int) -> list[Fence]:
    """The tasks that name an agent as theirs, each with its claim."""
    return [Fence(task_id, claim) for task_id, claim in connection.execute(_NAMED, {"agent_id": agent_id}).fetchall()]


_IS_WAITED_FOR = "select 1 from outlast_stray where agent_id = :agent_id and task_id = :task_id limit 1"


def is_waited_for(connection: sqlite3.Connection, agent_id: int, task_id: int) -> bool:
    """Whether a try that outlived a task is named as under way in an agent."""
    return connection.execute(_IS_WAITED_FOR, {"agent_id": agent_id, "task_id": task_id}).fetchone() is not None


_OTHER_CODE = """
select 1
from outlast_agent_code c join outlast_agent a on a.id = c.agent_id
where c.needs = :needs and a.status = 'active' and a.root_id is null and a.lease_until > :now and c.fingerprint <> :fingerprint
  and c.fingerprint not in (
    select value from json_each(coalesce((select refused from outlast_input where task_id = :id), '[]')))
limit 1
"""


def others_have_other_code(connection: sqlite3.Connection, needs: str, fingerprint: str, task_id: int, *, now: int) -> bool:
    """Whether a live agent has code for a task that is not this one's, and that has not given it back yet."""
    values = {"needs": needs, "fingerprint": fingerprint, "now": now, "id": task_id}
    return connection.execute(_OTHER_CODE, values).fetchone() is not None


_LEARN = """
insert or replace into outlast_agent_code (agent_id, needs, fingerprint)
select id, :needs, :fingerprint from outlast_agent where id = :agent_id and status in ('active', 'draining')
"""


def learn(transaction: Transaction, operation: LearnCode) -> None:
    """Enter code that an agent has learnt since it was registered; nothing where it has ended."""
    for needs, fingerprint in operation.code.items():
        transaction.execute(_LEARN, {"agent_id": operation.agent_id, "needs": needs, "fingerprint": fingerprint})


_RENEW = """
update outlast_agent
set lease_until = :lease_until, heartbeat_at = :wall,
    status = case when :draining then 'draining' else status end
where id = :id and status in ('active', 'draining')
"""


def heartbeat(transaction: Transaction, operation: Heartbeat) -> bool:
    """Renew the lease of everything that the agent holds; false where it was ended."""
    cursor = transaction.execute(
        _RENEW,
        {
            "id": operation.agent_id,
            "lease_until": transaction.now + operation.lease,
            "draining": operation.draining,
            "wall": transaction.wall,
        },
    )
    return bool(cursor.rowcount)


_STOP = "update outlast_agent set status = :status, heartbeat_at = :wall where id = :id and status in ('active', 'draining')"

_FORGET_CODE = "delete from outlast_agent_code where agent_id = :id"


def leave(transaction: Transaction, operation: LeaveAgent) -> None:
    """An agent ends in good order. What it still holds goes back, nobody suspected."""
    _stop(transaction, operation.agent_id, "stopped")
    for task_id in operation.running:
        transaction.execute(_ADD_STRAY, {"task_id": task_id, "agent_id": operation.agent_id, "wall": transaction.wall})
    for held in _held_by(transaction, operation.agent_id):
        _give_back(transaction, held, crashed=False)
    if not operation.is_embedded:
        drop_strays(transaction, operation.agent_id)


# An undo is halted when nobody has had its code for a lease: that begins with the end of who had it.
_KEEP_UNDO_WAITING = """
update outlast_task set due_at = :now
where ending is not null and finished_at is null and status = 'compensating' and agent_id is null and due_at < :now
  and needs in (select needs from outlast_agent_code where agent_id = :id)
"""


def _stop(transaction: Transaction, agent_id: int, status: str) -> bool:
    stopped = transaction.execute(_STOP, {"id": agent_id, "status": status, "wall": transaction.wall}).rowcount
    transaction.execute(_KEEP_UNDO_WAITING, {"id": agent_id, "now": transaction.now})
    transaction.execute(_FORGET_CODE, {"id": agent_id})
    return bool(stopped)


@dataclass(frozen=True, slots=True)
class _Held:
    task_id: int
    uid: str
    name: str
    kind: str
    status: str
    crashes: int
    alone: bool
    max_crashes: int | None
    cancel_requested: bool


_HELD = """
select t.id, t.uid, t.name, t.kind, t.status, t.crashes, t.alone, i.max_crashes, t.cancel_requested_at is not null
from outlast_task t left join outlast_input i on i.task_id = t.id
where t.agent_id = :agent_id
"""


def _held_by(transaction: Transaction, agent_id: int) -> list[_Held]:
    return [
        _Held(row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6]), row[7], bool(row[8]))
        for row in transaction.execute(_HELD, {"agent_id": agent_id}).fetchall()
    ]


_ADD_STRAY = """
insert or ignore into outlast_stray (task_id, agent_id, path, since_at) values (:task_id, :agent_id, '', :wall)
"""


def ended(transaction: Transaction, operation: AgentEnded) -> list[str]:
    """Give back what a dead or silent agent held; count a crash where it was alone, and halt what crashed too often."""
    agent_id = operation.agent_id
    changed: list[str] = []
    crashed = operation.status == "crashed"
    if not _stop(transaction, agent_id, operation.status) and not operation.seen_dead:
        return changed
    if operation.seen_dead:
        drop_strays(transaction, agent_id)
    for held in _held_by(transaction, agent_id):
        if not operation.seen_dead:
            # Its process may go on: a takeover need not wait for it, an ending must.
            transaction.execute(_ADD_STRAY, {"task_id": held.task_id, "agent_id": agent_id, "wall": transaction.wall})
        if crashed and held.alone and _crashed_too_often(transaction, held, operation):
            changed.append(f"halted {held.name} {held.uid}: it took down its agent {times(held.crashes + 1)}")
        else:
            _give_back(transaction, held, crashed=crashed)
            changed.append(f"gave back {held.name} {held.uid}")
    if changed:
        transaction.ring = True
    return changed


_GIVE_BACK = """
update outlast_task
set status = case status when 'compensating' then 'compensating' else 'pending' end,
    -- An undo does not go on beside a compensation that a live process may be executing.
    due_at = case when status = 'compensating' and exists (select 1 from outlast_stray s where s.task_id = outlast_task.id)
             then null else :now end,
    agent_id = null, notice = 0, suspect = case when :crashed then 1 else suspect end,
    crashes = crashes + (:crashed and alone)
where id = :id and agent_id is not null
"""


def _give_back(transaction: Transaction, held: _Held, *, crashed: bool) -> None:
    transaction.execute(_GIVE_BACK, {"id": held.task_id, "now": transaction.now, "crashed": crashed})
    if held.cancel_requested and held.status == "running":
        ending.decide(transaction, held.task_id, Ending.CANCELLED)
    transaction.ring = True


_HALT_POISON = """
update outlast_task
set status = 'halted', halt_reason = :reason, halted_at = :now, agent_id = null, due_at = null, notice = 0,
    suspect = 0, crashes = crashes + 1
where id = :id and agent_id is not null
"""


def _crashed_too_often(transaction: Transaction, held: _Held, operation: AgentEnded) -> bool:
    limit = held.max_crashes if held.max_crashes is not None else operation.max_crashes
    if held.crashes + 1 < limit:
        return False
    reason = f"it took down its agent {times(held.crashes + 1)} while it ran alone; the last time: {operation.evidence}"
    transaction.execute(_HALT_POISON, {"id": held.task_id, "reason": reason, "now": transaction.now})
    halting.after_halt(transaction, held.task_id, reason)
    return True


_STRAYS = "select distinct task_id from outlast_stray where agent_id = :agent_id"
_DROP_STRAYS = "delete from outlast_stray where agent_id = :agent_id"


def drop_strays(transaction: Transaction, agent_id: int) -> None:
    """The agent's process is gone, and with it every try that outlived its task; what waited for them settles."""
    tasks = transaction.execute(_STRAYS, {"agent_id": agent_id}).fetchall()
    if not tasks:
        return
    transaction.execute(_DROP_STRAYS, {"agent_id": agent_id})
    for (task_id,) in tasks:
        ending.stray_gone(transaction, task_id)


_LIVE = """
select id, uid, host, boot_id, pid, process_started, lease_until, hung, slots from outlast_agent
where status in ('active', 'draining')
"""

_WITH_STRAYS = """
select id, uid, host, boot_id, pid, process_started, lease_until, hung, slots from outlast_agent
where id in (select agent_id from outlast_stray)
"""


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent as a supervisor sees it."""

    id: int
    uid: str
    host: str
    boot_id: str
    pid: int
    process_started: str
    lease_until: int
    hung: bool
    slots: int


def live(connection: sqlite3.Connection) -> list[AgentRow]:
    """The agents whose end nobody has recorded."""
    return [_agent_row(row) for row in connection.execute(_LIVE)]


def with_strays(connection: sqlite3.Connection) -> list[AgentRow]:
    """Agents, ended or not, whose tries may still be under way."""
    return [_agent_row(row) for row in connection.execute(_WITH_STRAYS)]


def _agent_row(row: Any) -> AgentRow:
    return AgentRow(row[0], row[1], row[2], row[3], row[4], row[5], row[6], bool(row[7]), row[8])

"""Claims: an agent takes due tasks whose code it has, many in one transaction.

Owns the walk over the claimable index and the fenced hand-over. Refuses tasks whose code the agent lacks, and suspects, unless the
claim asks for one to run alone. The walk jumps from one (queue, priority, code) to the next and reads only the due head of each, so
neither a million finished rows nor a hundred thousand sleeping ones cost it anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..operations import Claim, Claimed, Fence
from ..states import Status
from .transaction import Transaction

_NEXT_QUEUE = """
select queue from outlast_task
where due_at is not null and paused_at is null and queue > :queue order by queue limit 1
"""
_NEXT_PRIORITY = """
select priority from outlast_task
where due_at is not null and paused_at is null and queue = :queue and priority < :priority
order by priority desc limit 1
"""
_NEXT_NEEDS = """
select needs from outlast_task
where due_at is not null and paused_at is null and queue = :queue and priority = :priority and needs > :needs
order by needs limit 1
"""
_HIGHEST = 1 << 62


def combinations(connection: Any, queues: tuple[str, ...] | None) -> Iterator[tuple[str, int, str]]:
    """Every (queue, priority, code) that some unleased task waits under; a jump in the index for each."""
    for queue in queues if queues is not None else _walk_queues(connection):
        priority = _HIGHEST
        while True:
            row = connection.execute(_NEXT_PRIORITY, {"queue": queue, "priority": priority}).fetchone()
            if row is None:
                break
            priority = row[0]
            needs = ""
            while True:
                row = connection.execute(
                    _NEXT_NEEDS, {"queue": queue, "priority": priority, "needs": needs}
                ).fetchone()
                if row is None:
                    break
                needs = row[0]
                yield queue, priority, needs


def _walk_queues(connection: Any) -> Iterator[str]:
    queue = ""
    while True:
        row = connection.execute(_NEXT_QUEUE, {"queue": queue}).fetchone()
        if row is None:
            return
        queue = row[0]
        yield queue


_DUE = """
select id, due_at from outlast_task
where due_at <= :now and paused_at is null
  and queue = :queue and priority = :priority and needs = :needs and suspect = :suspect
order by due_at, id limit :limit
"""

_DUE_OF_ROOT = """
select id, priority, due_at, needs, suspect from outlast_task
where root_id = :root_id and due_at <= :now and paused_at is null
union all
select id, priority, due_at, needs, suspect from outlast_task
where id = :root_id and due_at <= :now and paused_at is null
limit :limit
"""

_INPUT = """
select data, tags, tick, chain, idempotency_key, options, timeout, refused
from outlast_input where task_id = :id
"""

_TAKE = """
update outlast_task
set status = case status when 'compensating' then 'compensating' else 'running' end,
    agent_id = :agent_id, claim = claim + 1, due_at = null, alone = :alone, awaits = null, wait_count = null,
    started_at = coalesce(started_at, :wall)
where id = :id and due_at is not null and agent_id is null
returning claim, uid, kind, name, version, status, needs, queue, partition, priority, tries, suspect,
          parent_id, parent_path, root_id, started_at, deadline_at, cancel_requested_at, notice, crashes
"""

_SET_DEADLINE = """
update outlast_task set deadline_at = min(coalesce(deadline_at, :deadline_at), :deadline_at)
where id = :id returning deadline_at
"""

_SET_FINGERPRINT = """
update outlast_input set fingerprint = :fingerprint where task_id = :id and fingerprint is not :fingerprint
"""

_PARENT = """
select p.uid, p.name, g.uid, i.tags, i.tick
from outlast_task p join outlast_input i on i.task_id = p.id left join outlast_task g on g.id = p.parent_id
where p.id = :id
"""

_NOBODY = (None, None, None, None, None)


def claim(transaction: Transaction, operation: Claim) -> list[Claimed]:
    """Take due tasks: the highest priority first, then the longest due. The claim number rises: it is the fence."""
    taken: list[Claimed] = []
    for task_id, needs in _candidates(transaction, operation):
        if len(taken) == operation.limit:
            break
        claimed = _take(transaction, operation, task_id, needs)
        if claimed is not None:
            taken.append(claimed)
    return taken


def _candidates(transaction: Transaction, operation: Claim) -> list[tuple[int, str]]:
    found: list[tuple[int, int, int, str]] = []
    if operation.root_id is not None:
        rows = transaction.execute(
            _DUE_OF_ROOT,
            {"root_id": operation.root_id, "now": transaction.now, "limit": operation.limit * 4},
        )
        found = [
            (-priority, due_at, task_id, needs)
            for task_id, priority, due_at, needs, _ in rows
            if needs in operation.code
        ]
    else:
        for queue, priority, needs in combinations(transaction.connection, operation.queues):
            if needs not in operation.code:
                continue
            rows = transaction.execute(
                _DUE,
                {
                    "now": transaction.now,
                    "queue": queue,
                    "priority": priority,
                    "needs": needs,
                    "suspect": int(operation.suspects),
                    "limit": operation.limit,
                },
            )
            found += [(-priority, due_at, task_id, needs) for task_id, due_at in rows]
    found.sort()
    return [(task_id, needs) for _, _, task_id, needs in found]


def _take(transaction: Transaction, operation: Claim, task_id: int, needs: str) -> Claimed | None:
    given = transaction.one(_INPUT, {"id": task_id})
    if given is None:
        return None
    data, tags, tick, chain, idempotency_key, options, timeout, refused = given
    if refused is not None and _leaves_to_others(transaction, needs, refused, operation.code[needs]):
        return None
    row = transaction.one(
        _TAKE,
        {
            "id": task_id,
            "agent_id": operation.agent_id,
            "alone": int(operation.alone),
            "wall": transaction.wall,
        },
    )
    if row is None:
        return None
    (claim_number, uid, kind, name, version, status, needs, queue, partition, priority, tries, suspect,
     parent_id, parent_path, root_id, started_at, deadline_at, cancel_requested_at, notice, crashes) = row  # fmt: skip
    if timeout is not None and kind == "run" and claim_number == 1:
        deadline = transaction.one(_SET_DEADLINE, {"id": task_id, "deadline_at": transaction.now + timeout})
        deadline_at = deadline[0] if deadline is not None else None
    if kind == "run" and claim_number > 1 and needs in operation.code:
        transaction.execute(_SET_FINGERPRINT, {"id": task_id, "fingerprint": operation.code[needs]})
    parent = transaction.one(_PARENT, {"id": parent_id}) if parent_id is not None else None
    parent_uid, parent_name, grandparent_uid, parent_tags, parent_tick = parent or _NOBODY
    if kind == "step":
        # A step knows what its run knows.
        tags, tick = parent_tags, parent_tick
    return Claimed(
        Fence(task_id, claim_number), uid, kind, name, version, Status(status), needs, queue, partition,
        priority, tries, bool(suspect), operation.alone, parent_id, parent_path, root_id, started_at,
        deadline_at, cancel_requested_at is not None, notice, data, tags, tick, chain, idempotency_key,
        options, timeout, parent_uid, crashes, parent_name,
        grandparent_uid,
    )  # fmt: skip


_OTHER_CODE = """
select 1
from outlast_agent_code c join outlast_agent a on a.id = c.agent_id
where c.needs = :needs and a.status = 'active' and a.lease_until > :now
  and c.fingerprint not in (select value from json_each(:refused))
limit 1
"""


def _leaves_to_others(transaction: Transaction, needs: str, refused: str, fingerprint: str) -> bool:
    """Whether this code disagreed with the journal before while a live agent has code that has not."""
    if fingerprint not in json.loads(refused):
        return False
    return transaction.one(_OTHER_CODE, {"needs": needs, "now": transaction.now, "refused": refused}) is not None


_NEXT_DUE = """
select due_at from outlast_task
where due_at is not null and paused_at is null and queue = :queue and priority = :priority and needs = :needs
order by due_at limit 1
"""


def next_due_at(connection: Any, code: frozenset[str], queues: tuple[str, ...] | None) -> int | None:
    """The engine instant at which the next task that this code can take falls due."""
    due = [
        connection.execute(_NEXT_DUE, {"queue": queue, "priority": priority, "needs": needs}).fetchone()[0]
        for queue, priority, needs in combinations(connection, queues)
        if needs in code
    ]
    return min(due, default=None)


_HAS_SUSPECTS = """
select 1 from outlast_task
where due_at <= :now and paused_at is null and suspect = 1
  and queue = :queue and priority = :priority and needs = :needs
limit 1
"""


def has_suspects(connection: Any, code: frozenset[str], queues: tuple[str, ...] | None, *, now: int) -> bool:
    """Whether a task waits that must run alone."""
    return any(
        connection.execute(
            _HAS_SUSPECTS, {"now": now, "queue": queue, "priority": priority, "needs": needs}
        ).fetchone()
        for queue, priority, needs in combinations(connection, queues)
        if needs in code
    )


_NOTICES = """
select id, claim, notice, cancel_requested_at is not null, paused_at is not null
from outlast_task where agent_id = :agent_id and notice > 0
"""


def notices(connection: Any, agent_id: int) -> list[tuple[int, int, int, bool, bool]]:
    """(task, claim, count, cancel requested, paused) of each of this agent's tasks that has news."""
    return [
        (task_id, claim_number, count, bool(cancelled), bool(paused))
        for task_id, claim_number, count, cancelled, paused in connection.execute(
            _NOTICES, {"agent_id": agent_id}
        )
    ]

"""Claims: an agent takes due tasks whose code it has, many in one transaction.

Owns the walk over the claimable indexes and the fenced hand-over. Refuses tasks whose code the agent lacks, what limits of a queue hold
back, and suspects, unless the claim asks for one to run alone. The walk jumps from one (queue, priority, code) to the next and reads only
the due head of each, so neither a million finished rows nor a hundred thousand sleeping ones cost it anything. Queues without limits
and partitions go by that walk alone; the others are `contended`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import structs

from ..errors import LeaseLost
from ..model import code_alone
from ..operations import Claim
from ..operations.claimed import Claimed, Fence
from ..states import Status
from . import contended
from .contended import Found
from .one_row import as_one_row, decoded, ids_of, rows_of
from .places import set_place
from .refusals import Takeable
from .transaction import Transaction
from .walk import PARTITIONED, PLAIN, Combination, combinations

if TYPE_CHECKING:
    from .library import sqlite3

# A bare parameter behind LIMIT has SQLite prepare the statement anew at each execution, since its value counts for the plan.
_DUE = as_one_row(
    "id, due_at",
    """
from (
  select id, due_at from outlast_task
  where due_at <= :now and paused_at is null and partition is null
    and queue = :queue and priority = :priority and needs = :needs and suspect = 0
  order by due_at, id limit :limit + 0)
""",
)

_MOST_OF_FEW = 16

_DUE_OF_ROOT = """
select id, due_at, partition, started_at is null, slot, parent_id, queue, priority, needs from outlast_task
where root_id = :root_id and due_at <= :now and paused_at is null
union all
select id, due_at, partition, started_at is null, slot, parent_id, queue, priority, needs from outlast_task
where id = :root_id and due_at <= :now and paused_at is null
limit :limit + 0
"""

_FACTS = as_one_row(
    """id, claim, uid, kind, name, version, status, needs, queue, partition, priority, tries, suspect,
       parent_id, parent_path, root_id, started_at, deadline_at, cancel_requested_at, notice, crashes,
       iif(length(data) <= 4096, hex(data), null), tags, tick, chain, idempotency_key, options, timeout""",
    """
from outlast_task join outlast_input on task_id = id
where id in (select value from json_each(:ids)) and due_at is not null and agent_id is null
""",
)

_LONG_INPUT = "select data from outlast_input where task_id = :id"

_TAKE = """
update outlast_task
set status = case status when 'compensating' then 'compensating' else 'running' end,
    agent_id = :agent_id, claim = claim + 1, due_at = null, alone = :alone, awaits = null, wait_count = null,
    started_at = coalesce(started_at, :wall)
where id in (select value from json_each(:ids)) and due_at is not null and agent_id is null
"""

_SET_DEADLINE = """
update outlast_task set deadline_at = min(coalesce(deadline_at, :deadline_at), :deadline_at)
where id = :id returning deadline_at
"""

_SET_FINGERPRINT = """
update outlast_input set fingerprint = :fingerprint where task_id = :id and fingerprint is not :fingerprint
"""

_PARENTS = """
select p.id, p.uid, p.name, g.uid, i.tags, i.tick
from outlast_task p join outlast_input i on i.task_id = p.id left join outlast_task g on g.id = p.parent_id
where p.id in (select value from json_each(:ids))
"""

_NOBODY = (None, None, None, None, None)

_MOST_OF_ROOT = 10_000
_OLDEST_OF = 8


# In one statement: most claims find none of the first three, and so need to read nothing more of them; and where few tasks wait, the
# last reads them all, where a walk takes a statement for each step of it.
_SITUATION = """
select
  exists (select 1 from outlast_task
          where suspect = 1 and due_at is not null and paused_at is null and due_at <= :now and queue > ''),
  exists (select 1 from outlast_task where due_at is not null and paused_at is null and partition is not null and queue > ''),
  exists (select 1 from outlast_queue where name > '' and (
    concurrency is not null or rate is not null or per_partition is not null or paused_at is not null)),
  (select json_group_array(json_array(queue, priority, needs, due_at, id, suspect)) from (
    select queue, priority, needs, due_at, id, suspect from outlast_task
    where due_at is not null and paused_at is null and partition is null and queue > ''
    limit 17))
from outlast_agent where id = :id and status in ('active', 'draining')
"""


def claim(transaction: Transaction, operation: Claim) -> list[Claimed]:
    """Take due tasks: the highest priority first, then the longest due. The claim number rises: it is the fence.

    An agent whose lease has been ended takes nothing: nobody watches over it any more, and what it held would be held for ever.
    """
    situation = transaction.one(_SITUATION, {"id": operation.agent_id, "now": transaction.now})
    if situation is None:
        raise LeaseLost(f"The lease of agent {operation.agent_id} was ended.")
    are_suspected, are_partitioned, are_limited, few = situation
    if operation.suspects_first and are_suspected:
        operation = _alone_if_suspects(transaction, operation)
    taken: list[Claimed] = []
    contention = contended.Contention(transaction.connection, now=transaction.now, are_limited=bool(are_limited))
    in_order = _in_order(_found(transaction, operation, contention, few, are_partitioned=bool(are_partitioned)), operation.taken)
    plain: dict[int, None] = {}
    for _, _, _, task_id, _, candidate in in_order:
        if candidate is None:
            plain[task_id] = None
        else:
            # It competes for places: what is chosen after it depends on whether it was taken.
            taken += _take(transaction, operation, plain)
            plain = {}
            place = contention.place_for(candidate) if len(taken) < operation.limit else contended.REFUSED
            if place != contended.REFUSED:
                claims = _take(transaction, operation, [task_id])
                taken += claims
                for claimed in claims:
                    contention.take(candidate, place)
                    if place is not None:
                        claimed.has_place = contention.has_places(candidate.queue)
                        if candidate.slot != place:
                            set_place(transaction, task_id, place)
        if len(taken) + len(plain) >= operation.limit:
            taken += _take(transaction, operation, plain)
            plain = {}
            if len(taken) >= operation.limit:
                break
    taken += _take(transaction, operation, plain)
    contention.record(transaction)
    return taken


def _alone_if_suspects(transaction: Transaction, operation: Claim) -> Claim:
    if not has_suspects(transaction.connection, operation.code, operation.queues, now=transaction.now):
        return operation
    return structs.replace(operation, limit=1, alone=True, suspects=True)


def _found(transaction: Transaction, operation: Claim, contention: contended.Contention, few: str, *, are_partitioned: bool) -> list[Found]:
    """What could be taken, best first. `few` is what the situation gave."""
    code = Takeable(transaction.connection, operation.code, now=transaction.now)
    if operation.root_id is not None:
        rows = transaction.execute(
            _DUE_OF_ROOT,
            {"root_id": operation.root_id, "now": transaction.now, "limit": _MOST_OF_ROOT},
        )
        return sorted(contention.as_they_are(rows, code))
    if operation.suspects:
        rows = _suspects(transaction.connection, operation.queues, now=transaction.now)
        return sorted(contention.as_they_are(rows, code))
    connection = transaction.connection
    if are_partitioned:
        contention.expect(one for one in combinations(connection, operation.queues, PARTITIONED) if one[2] in code)
    rows = decoded(few)
    waiting = _of_few if len(rows) <= _MOST_OF_FEW else _of_many
    found = waiting(transaction, operation, code, contention, rows)
    found += contention.found(code, limit=operation.limit)
    found.sort()
    return found


def _of_many(transaction: Transaction, operation: Claim, code: Takeable, contention: contended.Contention, _: list[Any]) -> list[Found]:
    """The due heads of all combinations; those of contended queues are left to `contention`."""
    found: list[Found] = []
    for combination in combinations(transaction.connection, operation.queues, PLAIN):
        queue, priority, needs = combination
        if needs not in code:
            continue
        if contention.concerns(queue):
            contention.add(combination)
            continue
        head = {"now": transaction.now, "queue": queue, "priority": priority, "needs": needs, "limit": operation.limit}
        found += [(-priority, due_at, task_id, task_id, needs, None) for task_id, due_at in rows_of(transaction, _DUE, head)]
    return found


def _of_few(transaction: Transaction, operation: Claim, code: Takeable, contention: contended.Contention, rows: list[Any]) -> list[Found]:
    """The same of these rows, which are all that wait."""
    found: list[Found] = []
    contending: set[Combination] = set()
    for queue, priority, needs, due_at, task_id, suspect in rows:
        if needs not in code or (operation.queues is not None and queue not in operation.queues):
            continue
        if contention.concerns(queue):
            contending.add((queue, priority, needs))
        elif due_at <= transaction.now and not suspect:
            found.append((-priority, due_at, task_id, task_id, needs, None))
    for combination in sorted(contending, key=lambda one: (one[0], -one[1], one[2])):
        contention.add(combination)
    return found


def _in_order(found: list[Found], taken: int) -> Iterator[Found]:
    """Best first; but where priorities differ, every eighth is the longest due, so that none waits for ever."""
    if not found or found[0][0] == found[-1][0]:
        yield from found
        return
    oldest = iter(sorted(found, key=lambda one: one[1]))
    best = iter(found)
    given: set[int] = set()
    for number in range(taken + 1, taken + 1 + len(found)):
        one = next(one for one in (oldest if number % _OLDEST_OF == 0 else best) if one[3] not in given)
        given.add(one[3])
        yield one


def _take(transaction: Transaction, operation: Claim, tasks: Collection[int]) -> list[Claimed]:
    """Take these tasks; what somebody else has by now is left out."""
    if not tasks:
        return []
    found = {row[0]: row for row in rows_of(transaction, _FACTS, {"ids": ids_of(tasks)})}
    # Of these rows nothing changes in between: the transaction has the write lock. Read beforehand, they cost half of what
    # they do as `returning`, and the update no more than its rows.
    facts = {"ids": ids_of(found), "agent_id": operation.agent_id, "alone": int(operation.alone), "wall": transaction.wall}
    transaction.execute(_TAKE, facts)
    parents = _parents(transaction, {row[13] for row in found.values() if row[13] is not None})
    return [_claimed(transaction, operation, found[task_id], parents) for task_id in tasks if task_id in found]


def _parents(transaction: Transaction, ids: set[int]) -> dict[int, tuple[Any, ...]]:
    if not ids:
        return {}
    return {row[0]: row[1:] for row in transaction.execute(_PARENTS, {"ids": ids_of(ids)})}


def _claimed(transaction: Transaction, operation: Claim, row: Any, parents: Mapping[int, tuple[Any, ...]]) -> Claimed:
    """What the agent gets of a task whose row is as it was before the claim."""
    (task_id, claims, uid, kind, name, version, status, needs, queue, partition, priority, tries, suspect,
     parent_id, parent_path, root_id, started_at, deadline_at, cancel_requested_at, notice, crashes,
     short, tags, tick, chain, idempotency_key, options, timeout) = row  # fmt: skip
    data = bytes.fromhex(short) if short is not None else transaction.execute(_LONG_INPUT, {"id": task_id}).fetchone()[0]
    claim_number = claims + 1
    if timeout is not None and kind == "run" and claim_number == 1:
        deadline = transaction.one(_SET_DEADLINE, {"id": task_id, "deadline_at": transaction.now + timeout})
        deadline_at = deadline[0] if deadline is not None else None
    if kind == "run" and claim_number > 1:
        needs = code_alone(needs)
        if needs in operation.code:
            transaction.execute(_SET_FINGERPRINT, {"id": task_id, "fingerprint": operation.code[needs]})
    parent_uid, parent_name, grandparent_uid, parent_tags, parent_tick = parents.get(parent_id, _NOBODY)
    if kind == "step":
        # A step knows what its run knows.
        tags, tick = parent_tags, parent_tick
    return Claimed(
        Fence(task_id, claim_number), uid, kind, name, version,
        Status.COMPENSATING if status == "compensating" else Status.RUNNING, needs, queue, partition,
        priority, tries, bool(suspect), operation.alone, parent_id, parent_path, root_id,
        started_at if started_at is not None else transaction.wall,
        deadline_at, cancel_requested_at is not None, notice, data, tags, tick, chain, idempotency_key,
        options, timeout, parent_uid, crashes, parent_name,
        grandparent_uid,
    )  # fmt: skip


_SUSPECTS = """
select id, due_at, partition, started_at is null, slot, parent_id, queue, priority, needs from outlast_task
where suspect = 1 and due_at is not null and paused_at is null and due_at <= :now and queue > ''
"""


def _suspects(connection: sqlite3.Connection, queues_served: tuple[str, ...] | None, *, now: int) -> list[tuple[Any, ...]]:
    """What is due and must run alone. There are few: what was on agents that crashed."""
    rows = connection.execute(_SUSPECTS, {"now": now}).fetchall()
    return rows if queues_served is None else [row for row in rows if row[6] in queues_served]


def has_suspects(connection: sqlite3.Connection, code: Collection[str], queues_served: tuple[str, ...] | None, *, now: int) -> bool:
    """Whether a task waits that must run alone, that no limit of its queue holds back, and that this code does not leave to other code."""
    rows = _suspects(connection, queues_served, now=now)
    if not rows:
        return False
    contention = contended.Contention(connection, now=now)
    found = contention.as_they_are(rows, Takeable(connection, code, now=now))
    return any(one[-1] is None or contention.place_for(one[-1]) != contended.REFUSED for one in found)


_NOTICES = """
select id, claim, notice, cancel_requested_at is not null, paused_at is not null
from outlast_task where agent_id = :agent_id and notice > 0
"""


def notices(connection: sqlite3.Connection, agent_id: int) -> list[tuple[int, int, int, bool, bool]]:
    """(task, claim, count, cancel requested, paused) of each of this agent's tasks that has news."""
    return [
        (task_id, claim_number, count, bool(cancelled), bool(paused))
        for task_id, claim_number, count, cancelled, paused in connection.execute(_NOTICES, {"agent_id": agent_id})
    ]

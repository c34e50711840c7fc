"""Parking: a waiting run leaves its agent, unless what it waits for is there already.

Owns the one statement pair in which a run looks at everything that could wake it and lies down. Refuses to park a run with unread
news. Look and lie-down share one immediate transaction: a signal that arrives between our last look and this update would otherwise
find nobody waiting, and we would wait for a wakeup that has been.
"""

from __future__ import annotations

import json

from ..operations import Acknowledge, Again, GiveBack, Park, RetryRun
from ..states import Ending, Status
from .ending import cancel, decide
from .journal import open_aside, set_aside, write_next
from .refusals import refuse
from .transaction import Transaction

_HELD = """
select notice, cancel_requested_at, paused_at from outlast_task
where id = :id and claim = :claim and status = 'running' and agent_id is not null and ending is null
"""

_UNREAD_SIGNAL = """
select 1 from outlast_signal
where task_id = :id and taken_path is null and id > :seen and name in (select value from json_each(:names)) limit 1
"""

# Each part counts by the last of its line, and so for each place that one key led to. The first of a line may have been pruned: then
# the row of who follows it leads on. A halted step counts, since it halts its run; a halted child is waited for.
_ENDED_PARTS = """
with recursive part(id, place) as materialized (select value ->> 0, value ->> 1 from json_each(:parts)),
line(place, id) as (
  select place, id from part
  union all select path, task_id from outlast_follower where parent_id = :id and path in (select place from part)
  union select line.place, o.successor_id from line join outlast_outcome o on o.task_id = line.id where o.successor_id is not null)
select line.place, t.status
from line join outlast_task t on t.id = line.id
where (t.finished_at is not null or (t.status = 'halted' and t.kind = 'step'))
  and not exists (select 1 from outlast_outcome o where o.task_id = t.id and o.successor_id is not null)
"""

_LIE_DOWN = """
update outlast_task
set status = 'waiting', agent_id = null, notice = 0, due_at = :due_at, awaits = :awaits,
    seen_signal = case when :awaits is not null then (select coalesce(max(id), 0) from outlast_signal where task_id = :id) end,
    wait_count = :wait_count, wait_fails_fast = :fails_fast, suspect = case when alone then 0 else suspect end
where id = :id and claim = :claim and status = 'running' and agent_id is not null
"""


def park(transaction: Transaction, operation: Park) -> bool:
    """Take a run off its agent; false where it must look again first."""
    fence = operation.fence
    row = transaction.one(_HELD, {"id": fence.task_id, "claim": fence.claim})
    if row is None:
        raise fence.lost()
    notice, cancel_requested_at, _ = row
    if cancel_requested_at is not None or notice > operation.notice:
        return False
    if operation.due_at is not None and operation.due_at <= transaction.now:
        return False
    names = json.dumps(operation.signals)
    if operation.signals and transaction.one(_UNREAD_SIGNAL, {"id": fence.task_id, "seen": operation.seen_signal_id, "names": names}):
        return False
    wait_count: int | None = None
    if operation.parts:
        places = operation.places or tuple(map(str, operation.parts))
        parts = json.dumps(list(zip(operation.parts, places, strict=True)))
        ended = dict(transaction.execute(_ENDED_PARTS, {"id": fence.task_id, "parts": parts}).fetchall())
        wait_count = len(places) - len(ended) if operation.wait_for_all else (0 if ended else 1)
        has_failed = any(status != Status.COMPLETED for status in ended.values())
        if wait_count <= 0 or (has_failed and operation.fails_fast):
            return False
    transaction.execute(
        _LIE_DOWN,
        {
            "id": fence.task_id,
            "claim": fence.claim,
            "due_at": operation.due_at,
            "awaits": names if operation.signals else None,
            "wait_count": wait_count,
            "fails_fast": int(operation.fails_fast),
        },
    )
    return True


_GIVE_BACK = """
update outlast_task
set status = case status when 'compensating' then 'compensating' else 'pending' end,
    agent_id = null, notice = 0, due_at = coalesce(:due_at, :now), claim = claim
where id = :id and claim = :claim and status in ('running', 'compensating') and agent_id is not null
returning cancel_requested_at, status
"""


def give_back(transaction: Transaction, operation: GiveBack) -> None:
    """Return a task unharmed, claimable at once or from `due_at`; a cancel that came meanwhile is carried out."""
    fence = operation.fence
    row = transaction.one(
        _GIVE_BACK,
        {"id": fence.task_id, "claim": fence.claim, "due_at": operation.due_at, "now": transaction.now},
    )
    if row is None:
        raise fence.lost()
    if operation.refused is not None:
        refuse(transaction, fence.task_id, operation.refused)
    cancel_requested_at, status = row
    if cancel_requested_at is not None and status == "pending":
        decide(transaction, fence.task_id, Ending.CANCELLED)
    transaction.ring = True


_ACKNOWLEDGE = """
update outlast_task set notice = max(0, notice - :notice) where id = :id and claim = :claim
"""


def acknowledge(transaction: Transaction, operation: Acknowledge) -> None:
    """Lower the count of unread notices by those that the holder has read; later ones stay."""
    transaction.execute(
        _ACKNOWLEDGE,
        {"id": operation.fence.task_id, "claim": operation.fence.claim, "notice": operation.notice},
    )


_RETRY_RUN = """
update outlast_task
set status = 'pending', agent_id = null, notice = 0, due_at = :due_at, tries = :tries,
    suspect = case when alone then 0 else suspect end
where id = :id and claim = :claim and status = 'running' and agent_id is not null and ending is null
returning cancel_requested_at
"""


_CANCEL_REQUESTED = "select 1 from outlast_task where id = :id and claim = :claim and cancel_requested_at is not null"

# A try of a part or of what belongs to it; what only waits, or is being undone, holds up nobody.
_STILL_RUNS = """
with recursive tree(id) as (
  select value from json_each(:parts) union all select t.id from outlast_task t join tree on t.parent_id = tree.id)
select 1 from tree join outlast_task t on t.id = tree.id
where t.finished_at is null
  and (t.status = 'running' or exists (select 1 from outlast_stray s where s.task_id = t.id))
limit 1
"""


def retry_run(transaction: Transaction, operation: RetryRun) -> bool:
    """Set outcomes aside and put the run back until its next try; what it had submitted or taken after them is undone.

    No try of a step begins beside the one before: parts that go are cancelled first, and the run stays while they still run.
    """
    fence = operation.fence
    open_parts = open_aside(transaction, fence, operation.failed, operation.branches)
    if open_parts and transaction.one(_CANCEL_REQUESTED, {"id": fence.task_id, "claim": fence.claim}) is None:
        for part_id in open_parts:
            cancel(transaction, part_id)
        if transaction.one(_STILL_RUNS, {"parts": json.dumps(open_parts)}) is not None:
            return False
    aside = set_aside(transaction, fence, operation.failed, operation.branches)
    row = transaction.one(
        _RETRY_RUN,
        {
            "id": fence.task_id,
            "claim": fence.claim,
            "due_at": transaction.now + operation.delay,
            "tries": operation.tries,
        },
    )
    if row is None:
        raise fence.lost()
    if row[0] is not None:
        decide(transaction, fence.task_id, Ending.CANCELLED)
    else:
        for part_id in aside:
            cancel(transaction, part_id)
    transaction.ring = True
    return True


_AGAIN = """
update outlast_task
set status = 'pending', agent_id = null, notice = 0, due_at = :due_at, tries = :tries,
    suspect = case when alone then 0 else suspect end
where id = :id and claim = :claim and status = 'running' and agent_id is not null and ending is null
returning cancel_requested_at
"""


def again(transaction: Transaction, operation: Again) -> None:
    """Journal a submitted step's failed try and put the step back until its next one."""
    fence = operation.fence
    row = transaction.one(
        _AGAIN,
        {
            "id": fence.task_id,
            "claim": fence.claim,
            "due_at": transaction.now + operation.delay,
            "tries": operation.entry.try_number if operation.tries is None else operation.tries,
        },
    )
    if row is None:
        raise fence.lost()
    # By the store's number: the tries of a step that was resumed count from one again.
    write_next(transaction, fence, operation.entry)
    if row[0] is not None:
        decide(transaction, fence.task_id, Ending.CANCELLED)
    transaction.ring = True

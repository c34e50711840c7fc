"""How tasks end: an ending is decided once, and settles when nothing of the task is under way any more.

Owns the two moves of an ending (docs/hard-cases.md, section 6): `decide` stores the ending and cancels the parts; `settle` moves the task
to its last status, or to its undo, once its parts are final and no try executes. Refuses to decide twice, and asks for no fence: what a
holder writes is `last_writes`. Whoever ends a part settles its parent in the same transaction, so no sweep is needed; the supervisor's is a
second look.
"""

from __future__ import annotations

from ..states import FINAL, Ending, Status
from . import succession, undoing
from .transaction import Transaction

INSERT_OUTCOME = """
insert into outlast_outcome (task_id, output, error) values (:id, :output, :error)
on conflict (task_id) do update set output = excluded.output, error = excluded.error
"""


_DECIDE = """
update outlast_task
set ending = :ending,
    status = case status when 'running' then 'waiting' else status end,
    undo = case when :undo or undo is not null then undo else 'skipped' end,
    -- Who cancels a paused run wants its end, not that its undo waits for a resume.
    paused_at = case when :ending = 'cancelled' then null else paused_at end,
    agent_id = null, due_at = null, suspect = 0, notice = 0
where id = :id and ending is null and finished_at is null and status <> 'compensating'
returning undo
"""


def decide(
    transaction: Transaction,
    task_id: int,
    ending: Ending,
    *,
    output: bytes | None = None,
    error: bytes | None = None,
    undo: bool = True,
) -> Status:
    """Store the ending, cancel what is open of the task, and settle it if nothing is. Deciding again changes nothing."""
    row = transaction.one(_DECIDE, {"id": task_id, "ending": ending, "undo": undo})
    if row is not None:
        if output is not None or error is not None:
            transaction.execute(INSERT_OUTCOME, {"id": task_id, "output": output, "error": error})
        if ending is not Ending.COMPLETED:
            # A cancel is a person's word, for all of the tree; an error or a deadline ends no undo that gave up.
            cancel_open_parts(transaction, task_id, undo=row[0] != "skipped", ends_failed_undo=ending is Ending.CANCELLED)
        settle(transaction, task_id)
    return status_of(transaction, task_id)


_STATUS = "select status from outlast_task where id = :id"


def status_of(transaction: Transaction, task_id: int) -> Status:
    row = transaction.one(_STATUS, {"id": task_id})
    assert row is not None
    return Status(row[0])


_CANCEL_PENDING_STEPS = """
update outlast_task
set status = 'cancelled', ending = 'cancelled', due_at = null, suspect = 0, finished_at = :wall, ended_at = :now
where parent_id = :id and kind = 'step' and status = 'pending' and ending is null
  and not exists (select 1 from outlast_stray s where s.task_id = outlast_task.id)
"""

_OPEN_PARTS = """
select id from outlast_task where parent_id = :id and finished_at is null and ended_at is null
"""


def cancel_open_parts(transaction: Transaction, task_id: int, *, undo: bool = True, ends_failed_undo: bool = True) -> None:
    """Cancel every submitted step and child that is not final yet.

    Without `ends_failed_undo`, a child whose undo gave up stays halted.
    """
    transaction.execute(_CANCEL_PENDING_STEPS, {"id": task_id, "wall": transaction.wall, "now": transaction.now})
    for (part_id,) in transaction.execute(_OPEN_PARTS, {"id": task_id}).fetchall():
        cancel(transaction, part_id, undo=undo, ends_failed_undo=ends_failed_undo)


_REQUEST_CANCEL = """
update outlast_task
set cancel_requested_at = coalesce(cancel_requested_at, :wall),
    notice = notice + (agent_id is not null),
    undo = case when :undo or undo is not null then undo else 'skipped' end
where id = :id and finished_at is null and status <> 'compensating' and ending is null
returning agent_id
"""


def cancel(transaction: Transaction, task_id: int, *, undo: bool = True, ends_failed_undo: bool = True) -> None:
    """Cancel a task: at once where no agent has it, by notice where one has. An undo under way goes on."""
    row = transaction.one(_REQUEST_CANCEL, {"id": task_id, "wall": transaction.wall, "undo": undo})
    if row is None:
        _override_completion(transaction, task_id, undo=undo, ends_failed_undo=ends_failed_undo)
    elif row[0] is None:
        decide(transaction, task_id, Ending.CANCELLED, undo=undo)
    transaction.ring = True


_OVERRIDE_COMPLETION = """
update outlast_task
set ending = 'cancelled', cancel_requested_at = coalesce(cancel_requested_at, :wall), paused_at = null, halted_at = null,
    undo = case when :undo or undo is not null then undo else 'skipped' end
where id = :id and finished_at is null
  and ((status = 'waiting' and ending = 'completed') or (status = 'halted' and ending is not null and :ends_failed_undo))
"""


def _override_completion(transaction: Transaction, task_id: int, *, undo: bool, ends_failed_undo: bool) -> None:
    """A workflow that returned while its submitted steps are open can still be cancelled, and an undo that gave up ended."""
    given = {"id": task_id, "wall": transaction.wall, "undo": undo, "ends_failed_undo": ends_failed_undo}
    cursor = transaction.execute(_OVERRIDE_COMPLETION, given)
    if cursor.rowcount:
        cancel_open_parts(transaction, task_id, undo=undo, ends_failed_undo=ends_failed_undo)
        settle(transaction, task_id)


# An undo that gave up stands until a person resumes it or cancels it, which takes its `halted_at`.
_UNSETTLED = """
select kind, ending, undo, parent_id, cancel_requested_at from outlast_task
where id = :id and ending is not null and finished_at is null and agent_id is null and status <> 'compensating'
  and not (status = 'halted' and undo is 'failed' and halted_at is not null)
"""

_HAS_OPEN_PART = """
select 1 from outlast_task
where parent_id = :id and ended_at is null and finished_at is null and (kind = 'step' or :ending <> 'completed')
limit 1
"""

# A process that had lost the task is no reason for one that has completed it to wait, as whoever took it over did not.
_HAS_STRAY = "select 1 from outlast_stray where task_id = :id and path <> '' limit 1"

# Those that have ended too: a part that was taken over may be tried still by the process that had lost it. Strays are few.
_PART_HAS_STRAY = """
with recursive above(id) as (
  select task_id from outlast_stray
  union select t.parent_id from above join outlast_task t on t.id = above.id where t.parent_id is not null)
select 1 from above where id = :id
"""

_CLOSE = """
update outlast_task
set status = :status, undo = coalesce(:undo, undo), agent_id = null, due_at = null, notice = 0, suspect = 0,
    finished_at = :wall, ended_at = :now, halt_reason = null, halted_at = null, paused_at = null
where id = :id and finished_at is null
"""


def settle(transaction: Transaction, task_id: int) -> bool:
    """Move a task whose ending is decided to its last status or its undo, if nothing of it is under way any more."""
    row = transaction.one(_UNSETTLED, {"id": task_id})
    if row is None:
        return False
    kind, ending_text, undo, parent_id, _ = row
    ending = Ending(ending_text)
    if transaction.one(_HAS_OPEN_PART, {"id": task_id, "ending": ending}) is not None:
        return False
    if has_stray(transaction, task_id, ending):
        return False
    if ending is not Ending.COMPLETED and kind == "run":
        undoing.gather_outcomes(transaction, task_id)
        if undo not in ("skipped", "failed") and undoing.begin(transaction, task_id):
            return True
    close(transaction, task_id, Status(ending), parent_id=parent_id)
    return True


def has_stray(transaction: Transaction, task_id: int, ending: Ending) -> bool:
    """Whether a try of a task, or of a part of it where its ending is a bad one, may still be under way."""
    statement = _HAS_STRAY if ending is Ending.COMPLETED else _PART_HAS_STRAY
    return transaction.one(statement, {"id": task_id}) is not None


_LET_UNDO_GO_ON = """
update outlast_task set due_at = :now
where id = :id and status = 'compensating' and agent_id is null and due_at is null
  and not exists (select 1 from outlast_stray s where s.task_id = outlast_task.id)
"""

_PARENT = "select parent_id from outlast_task where id = :id"


def stray_gone(transaction: Transaction, task_id: int) -> None:
    """A try of a task is under way no more: what waited for that goes on, the task or what it is a part of."""
    above: int | None = task_id
    while above is not None:
        if transaction.execute(_LET_UNDO_GO_ON, {"id": above, "now": transaction.now}).rowcount:
            transaction.ring = True
        settle(transaction, above)
        row = transaction.one(_PARENT, {"id": above})
        above = None if row is None else row[0]


def close(transaction: Transaction, task_id: int, status: Status, *, parent_id: int | None, undo: str | None = None) -> None:
    """Make a task final and tell its parent."""
    assert status in FINAL
    transaction.execute(
        _CLOSE,
        {"id": task_id, "status": status, "undo": undo, "wall": transaction.wall, "now": transaction.now},
    )
    transaction.ring = True
    successor_id = succession.successor_of(transaction, task_id)
    if successor_id is not None:
        if status is Status.COMPLETED:
            succession.pass_on(transaction, task_id, successor_id)
            return
        succession.cut(transaction, task_id)
        decide(transaction, successor_id, Ending.CANCELLED)
    tell_followers(transaction, task_id, failed=status is not Status.COMPLETED)
    if parent_id is not None:
        tell_parent(transaction, parent_id, task_id, failed=status is not Status.COMPLETED)


_FOLLOWERS = "select parent_id from outlast_follower where task_id = :id"


def tell_followers(transaction: Transaction, task_id: int, *, failed: bool) -> None:
    for (follower_id,) in transaction.execute(_FOLLOWERS, {"id": task_id}).fetchall():
        tell_parent(transaction, follower_id, task_id, failed=failed)


_WAKE_GATHER = """
update outlast_task
set wait_count = case when wait_fails_fast and :failed then 0 else wait_count - 1 end,
    status = case when (wait_fails_fast and :failed) or wait_count <= 1 then 'pending' else 'waiting' end,
    due_at = case when (wait_fails_fast and :failed) or wait_count <= 1 then :now else due_at end
where id = :id and status = 'waiting' and ending is null and wait_count is not null
"""

NOTIFY = """
update outlast_task set notice = notice + 1 where id = :id and agent_id is not null
"""

_DECIDED = """
select ending from outlast_task where id = :id and ending is not null and finished_at is null
"""


def tell_parent(transaction: Transaction, parent_id: int, part_id: int, *, failed: bool) -> None:
    """A part became final: count it for a parked parent, leave a notice for a leased one, settle an ended one."""
    transaction.ring = True
    if transaction.execute(_WAKE_GATHER, {"id": parent_id, "failed": failed, "now": transaction.now}).rowcount:
        return
    if transaction.execute(NOTIFY, {"id": parent_id}).rowcount:
        return
    row = transaction.one(_DECIDED, {"id": parent_id})
    if row is None:
        return
    if row[0] == Ending.COMPLETED and failed:
        _fail_completion(transaction, parent_id, part_id)
    settle(transaction, parent_id)


_FAILED_STEP = """
select o.error from outlast_task t join outlast_outcome o on o.task_id = t.id
where t.id = :part_id and t.kind = 'step' and t.status = 'failed' and t.cancel_requested_at is null
"""

_TURN_TO_FAILURE = """
update outlast_task set ending = 'failed' where id = :id and ending = 'completed' and finished_at is null
"""


def _fail_completion(transaction: Transaction, task_id: int, part_id: int) -> None:
    """A submitted step failed after its workflow had returned: so does the run. What failed before is the code's affair."""
    row = transaction.one(_FAILED_STEP, {"part_id": part_id})
    if row is None:
        return
    transaction.execute(_TURN_TO_FAILURE, {"id": task_id})
    transaction.execute(INSERT_OUTCOME, {"id": task_id, "output": None, "error": row[0]})
    cancel_open_parts(transaction, task_id, ends_failed_undo=False)

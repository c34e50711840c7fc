"""How tasks end: an ending is decided once, and settles when nothing of the task is under way any more.

Owns the two moves of SEMANTICS "How a run ends": `decide` stores the ending and cancels the parts; `settle` moves the task to its last
status, or to its undo, once its parts are final and no try executes. Refuses to decide twice. Whoever ends a part settles its
parent in the same transaction, so no sweep is needed; the supervisor's is a second look only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..errors import LeaseLost
from ..operations import CancelParts, End, EndUndo, Entry, Fence, Halt, StrayEnded
from ..states import FINAL, Ending, Status
from . import journal, succession, undoing
from .transaction import Transaction

# A step that has ended before the cancel came to it has ended so: what it did is there, and its run's undo must know.
_FINISH = """
update outlast_task
set status = :status, ending = :status, agent_id = null, due_at = null, suspect = 0, notice = 0, tries = :tries,
    finished_at = :wall, ended_at = :now
where id = :id and claim = :claim and status = 'running' and ending is null
  and (cancel_requested_at is null or kind = 'step')
returning parent_id
"""

_INSERT_OUTCOME = """
insert into outlast_outcome (task_id, output, error) values (:id, :output, :error)
on conflict (task_id) do update set output = excluded.output, error = excluded.error
"""


def end(transaction: Transaction, operation: End) -> Status:
    """Record how a claimed task ends. If the process dies before the commit, the task is claimed again after its lease."""
    fence = operation.fence
    if not operation.simple:
        return _end_with_parts(transaction, operation)
    row = transaction.one(
        _FINISH,
        {
            "status": operation.ending,
            "tries": operation.tries,
            "wall": transaction.wall,
            "now": transaction.now,
            "id": fence.task_id,
            "claim": fence.claim,
        },
    )
    if row is None:
        # Lost, or a cancel came that the agent has not read yet.
        return _end_with_parts(transaction, operation)
    transaction.execute(_INSERT_OUTCOME, {"id": fence.task_id, "output": operation.output, "error": operation.error})
    keep_aside(transaction, operation)
    _tell_followers(transaction, fence.task_id, failed=operation.ending is not Ending.COMPLETED)
    if row[0] is not None:
        tell_parent(transaction, row[0], fence.task_id, failed=operation.ending is not Ending.COMPLETED)
    else:
        transaction.ring = True
    return Status(operation.ending)


def write_outcomes(transaction: Transaction, operations: Sequence[End]) -> None:
    """Store what came of tasks that end in this transaction."""
    rows = [{"id": one.fence.task_id, "output": one.output, "error": one.error} for one in operations]
    transaction.connection.executemany(_INSERT_OUTCOME, rows)


_FENCED = """
select cancel_requested_at, agent_id from outlast_task
where id = :id and claim = :claim and status = 'running' and ending is null
"""

_SET_TRIES = "update outlast_task set tries = :tries where id = :id and tries < :tries"


def _end_with_parts(transaction: Transaction, operation: End) -> Status:
    fence = operation.fence
    held = transaction.one(_FENCED, {"id": fence.task_id, "claim": fence.claim})
    if held is None:
        raise LeaseLost(f"The lease of task {fence.task_id} (claim {fence.claim}) is lost.")
    if operation.tries:
        transaction.execute(_SET_TRIES, {"id": fence.task_id, "tries": operation.tries})
    _add_strays(transaction, fence.task_id, operation.strays, agent_id=held[1])
    if held[0] is not None:
        # Whoever asked for the cancel was told that it will be: it wins over an end that came a moment later.
        return decide(transaction, fence.task_id, Ending.CANCELLED, undo=operation.undo)
    keep_aside(transaction, operation)
    return decide(
        transaction,
        fence.task_id,
        operation.ending,
        output=operation.output,
        error=operation.error,
        undo=operation.undo,
    )


_KEEP_ASIDE = """
insert into outlast_outcome (task_id, aside) values (:id, :aside) on conflict (task_id) do update set aside = excluded.aside
"""


def keep_aside(transaction: Transaction, operation: End) -> None:
    """What a retry of the run will set aside: only the code that ends now knows where its error came from."""
    if operation.failed:
        aside = json.dumps({"failed": operation.failed, "branches": operation.branches})
        transaction.execute(_KEEP_ASIDE, {"id": operation.fence.task_id, "aside": aside})


_ADD_STRAY = """
insert or ignore into outlast_stray (task_id, agent_id, path, since_at) values (:id, :agent_id, :path, :wall)
"""


def _add_strays(transaction: Transaction, task_id: int, paths: tuple[str, ...], *, agent_id: int) -> None:
    for path in paths:
        transaction.execute(_ADD_STRAY, {"id": task_id, "agent_id": agent_id, "path": path, "wall": transaction.wall})


_DECIDE = """
update outlast_task
set ending = :ending,
    status = case status when 'running' then 'waiting' else status end,
    undo = case when :undo or undo is not null then undo else 'skipped' end,
    -- Who cancels a paused run wants its end, not that its undo waits for a resume.
    paused_at = case when :ending = 'cancelled' then null else paused_at end,
    agent_id = null, due_at = null, suspect = 0, notice = 0
where id = :id and ending is null and finished_at is null and status <> 'compensating'
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
    cursor = transaction.execute(_DECIDE, {"id": task_id, "ending": ending, "undo": undo})
    if cursor.rowcount:
        if output is not None or error is not None:
            transaction.execute(_INSERT_OUTCOME, {"id": task_id, "output": output, "error": error})
        if ending is not Ending.COMPLETED:
            cancel_open_parts(transaction, task_id)
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


def cancel_open_parts(transaction: Transaction, task_id: int) -> None:
    """Cancel every submitted step and child that is not final yet."""
    transaction.execute(_CANCEL_PENDING_STEPS, {"id": task_id, "wall": transaction.wall, "now": transaction.now})
    for (part_id,) in transaction.execute(_OPEN_PARTS, {"id": task_id}).fetchall():
        cancel(transaction, part_id)


_REQUEST_CANCEL = """
update outlast_task
set cancel_requested_at = coalesce(cancel_requested_at, :wall),
    notice = notice + (agent_id is not null),
    undo = case when :undo or undo is not null then undo else 'skipped' end
where id = :id and finished_at is null and status <> 'compensating' and ending is null
returning agent_id
"""


def cancel(transaction: Transaction, task_id: int, *, undo: bool = True) -> None:
    """Cancel a task: at once where no agent has it, by notice where one has. An undo under way goes on."""
    row = transaction.one(_REQUEST_CANCEL, {"id": task_id, "wall": transaction.wall, "undo": undo})
    if row is None:
        _override_completion(transaction, task_id, undo=undo)
    elif row[0] is None:
        decide(transaction, task_id, Ending.CANCELLED, undo=undo)
    transaction.ring = True


_OVERRIDE_COMPLETION = """
update outlast_task
set ending = 'cancelled', cancel_requested_at = coalesce(cancel_requested_at, :wall), paused_at = null, halted_at = null,
    undo = case when :undo or undo is not null then undo else 'skipped' end
where id = :id and finished_at is null
  and ((status = 'waiting' and ending = 'completed') or (status = 'halted' and ending is not null))
"""


def _override_completion(transaction: Transaction, task_id: int, *, undo: bool) -> None:
    """A workflow that returned while its submitted steps are open can still be cancelled, and an undo that gave up let be."""
    cursor = transaction.execute(_OVERRIDE_COMPLETION, {"id": task_id, "wall": transaction.wall, "undo": undo})
    if cursor.rowcount:
        cancel_open_parts(transaction, task_id)
        settle(transaction, task_id)


def cancel_parts(transaction: Transaction, operation: CancelParts) -> None:
    """Cancel parts that a claimed run no longer waits for."""
    fence = operation.fence
    if transaction.one(_FENCED, {"id": fence.task_id, "claim": fence.claim}) is None:
        raise LeaseLost(f"The lease of task {fence.task_id} (claim {fence.claim}) is lost.")
    for part_id in succession.own_parts(transaction, fence.task_id, operation.parts):
        cancel(transaction, part_id)


# An undo that gave up stands until a person resumes it or lets it be, which takes its `halted_at`.
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

_HAS_STRAY = "select 1 from outlast_stray where task_id = :id limit 1"

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
    if transaction.one(_HAS_STRAY, {"id": task_id}) is not None:
        return False
    if ending is not Ending.COMPLETED and kind == "run":
        undoing.gather_outcomes(transaction, task_id)
        if undo not in ("skipped", "failed") and undoing.begin(transaction, task_id):
            return True
    close(transaction, task_id, Status(ending), parent_id=parent_id)
    return True


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
    _tell_followers(transaction, task_id, failed=status is not Status.COMPLETED)
    if parent_id is not None:
        tell_parent(transaction, parent_id, task_id, failed=status is not Status.COMPLETED)


_FOLLOWERS = "select parent_id from outlast_follower where task_id = :id"


def _tell_followers(transaction: Transaction, task_id: int, *, failed: bool) -> None:
    for (follower_id,) in transaction.execute(_FOLLOWERS, {"id": task_id}).fetchall():
        tell_parent(transaction, follower_id, task_id, failed=failed)


_WAKE_GATHER = """
update outlast_task
set wait_count = case when wait_fails_fast and :failed then 0 else wait_count - 1 end,
    status = case when (wait_fails_fast and :failed) or wait_count <= 1 then 'pending' else 'waiting' end,
    due_at = case when (wait_fails_fast and :failed) or wait_count <= 1 then :now else due_at end
where id = :id and status = 'waiting' and ending is null and wait_count is not null
"""

_NOTIFY = """
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
    if transaction.execute(_NOTIFY, {"id": parent_id}).rowcount:
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
    transaction.execute(_INSERT_OUTCOME, {"id": task_id, "output": None, "error": row[0]})
    cancel_open_parts(transaction, task_id)


_HOLDER = "select agent_id from outlast_task where id = :id and agent_id is not null"

_HALT = """
update outlast_task
set status = 'halted', halt_reason = :reason, halted_at = :now, agent_id = null, due_at = null, notice = 0, suspect = 0
where id = :id and claim = :claim
  and (status in ('running', 'compensating') and agent_id is not null
       or :is_parked and status in ('waiting', 'pending') and agent_id is null and ending is null)
returning parent_id, kind, cancel_requested_at, ending
"""

_KEEP_UNDO_ERROR = """
insert into outlast_outcome (task_id, undo_error) values (:id, :error)
on conflict (task_id) do update set undo_error = excluded.undo_error
"""

_FAIL_UNDO = "update outlast_task set undo = 'failed' where id = :id and undo = 'pending' and ending is not null"

_KEEP_ERROR = """
insert into outlast_outcome (task_id, error) values (:id, :error)
on conflict (task_id) do update set error = coalesce(excluded.error, error)
"""


def halt(transaction: Transaction, operation: Halt) -> None:
    """Stop a claimed task until a person decides; the deadline stands still. A halted submitted step halts its run."""
    fence = operation.fence
    for part_id in journal.set_aside(transaction, fence, operation.failed, operation.branches):
        cancel(transaction, part_id)
    agent = transaction.one(_HOLDER, {"id": fence.task_id})
    row = transaction.one(
        _HALT,
        {
            "id": fence.task_id,
            "claim": fence.claim,
            "reason": operation.reason,
            "now": transaction.now,
            "is_parked": operation.is_parked,
        },
    )
    if row is None:
        raise LeaseLost(f"The lease of task {fence.task_id} (claim {fence.claim}) is lost.")
    if operation.question is not None:
        journal.write_next(transaction, fence, operation.question)
    if agent is not None:
        _add_strays(transaction, fence.task_id, operation.strays, agent_id=agent[0])
    after_halt(transaction, fence.task_id, operation.reason, error=operation.error)


_HALTED = "select parent_id, kind, cancel_requested_at, ending from outlast_task where id = :id"

_HALT_PARENT = """
update outlast_task
set status = 'halted', halt_reason = :reason, halted_at = :now, due_at = null
where id = :id and status in ('pending', 'waiting') and ending is null
"""

_STEP_NAME = "select name from outlast_task where id = :id"


def after_halt(transaction: Transaction, task_id: int, reason: str, *, error: bytes | None = None) -> None:
    """What follows when a task was halted: keep its error, halt the run of a step, heed a cancel that waits."""
    if transaction.execute(_FAIL_UNDO, {"id": task_id}).rowcount:
        # The undo's error stands beside the one that ended the run, never in its place.
        transaction.execute(_KEEP_UNDO_ERROR, {"id": task_id, "error": error})
    elif error is not None:
        transaction.execute(_KEEP_ERROR, {"id": task_id, "error": error})
    transaction.ring = True
    row = transaction.one(_HALTED, {"id": task_id})
    assert row is not None
    parent_id, kind, cancel_requested_at, ending = row
    if cancel_requested_at is not None and ending is None:
        decide(transaction, task_id, Ending.CANCELLED)
    elif kind == "step" and parent_id is not None:
        name = transaction.one(_STEP_NAME, {"id": task_id})
        text = f"its step {name[0] if name else '?'} is halted: {reason}"
        halted = transaction.execute(_HALT_PARENT, {"id": parent_id, "reason": text, "now": transaction.now}).rowcount
        if not halted:
            transaction.execute(_NOTIFY, {"id": parent_id})


_DROP_STRAY = "delete from outlast_stray where task_id = :task_id and agent_id = :agent_id and path = :path"

# Only where the ending is decided: a run that goes on gives the next number of its journal itself, and has no use for this.
_CLAIM_OF = "select claim from outlast_task where id = :id and finished_at is null and ending is not null"


def stray_ended(transaction: Transaction, operation: StrayEnded) -> None:
    """A try that outlived its run's ending has ended: keep its outcome for the undo, and settle."""
    transaction.execute(
        _DROP_STRAY,
        {"task_id": operation.task_id, "agent_id": operation.agent_id, "path": operation.path},
    )
    if operation.entry is not None:
        run_id = operation.run_id or operation.task_id
        claim = transaction.one(_CLAIM_OF, {"id": run_id})
        if claim is not None:
            _write_late(transaction, run_id, claim[0], operation.entry)
    settle(transaction, operation.task_id)


def _write_late(transaction: Transaction, task_id: int, claim: int, entry: Entry) -> None:
    journal.write_late(transaction, Fence(task_id, claim), entry)


_UNDOING = """
select parent_id, ending from outlast_task
where id = :id and claim = :claim and status = 'compensating' and agent_id is not null
"""


def end_undo(transaction: Transaction, operation: EndUndo) -> Status:
    """All is undone: the run gets its last status, by the ending that was decided."""
    fence = operation.fence
    row = transaction.one(_UNDOING, {"id": fence.task_id, "claim": fence.claim})
    if row is None:
        raise LeaseLost(f"The lease of task {fence.task_id} (claim {fence.claim}) is lost.")
    parent_id, ending = row
    status = Status.CANCELLED if ending == Ending.CANCELLED else Status.COMPENSATED
    close(transaction, fence.task_id, status, parent_id=parent_id, undo="completed")
    return status

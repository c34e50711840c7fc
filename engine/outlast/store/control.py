"""What a person decides about a run: cancel, pause, resume.

Owns the setting of intents, and the move of a run that no agent holds in the same transaction. Refuses what the run's state does not
allow, with `Conflict`. An agent that holds the run gets a notice and acts on it.
"""

from __future__ import annotations

from ..errors import Conflict, OutcomeNeeded, RunFinished, RunNotFound
from ..operations import Cancel, Pause, Resume
from ..states import FINAL, Ending, Status
from . import ending, questions, succession, undoing
from .transaction import Transaction

_FIND = """
select id, status, parent_id, ending, agent_id, paused_at, halted_at, deadline_at, cancel_requested_at
from outlast_task where uid = :uid
"""

_STRAYS_OF_TREE = """
with recursive tree(id) as (
  select :id union all select t.id from outlast_task t join tree on t.parent_id = tree.id)
delete from outlast_stray where task_id in (select id from tree)
returning task_id, agent_id, path
"""

# Numbered downwards from the first: a holder of the task may be about to write the entry after the last.
_RECORD_FORCED = """
insert into outlast_journal (task_id, seq, path, event, kind, name, claim, at, data)
values (:id, (select coalesce(min(seq), 1) - 1 from outlast_journal where task_id = :id), :path, 'unknown', 'forced',
        :name, (select claim from outlast_task where id = :id), :at, null)
"""


def cancel(transaction: Transaction, operation: Cancel) -> str:
    """Cancel a run and all that belongs to it. During an undo it changes nothing; a final run refuses."""
    uid = succession.last_of_line(transaction.connection, operation.uid)
    row = transaction.one(_FIND, {"uid": uid})
    if row is None:
        raise RunNotFound(operation.uid)
    task_id, status = row[0], Status(row[1])
    if status in FINAL:
        raise RunFinished(operation.uid, status)
    # Of a run whose steps have not ended yet, its successor has not begun: its own end takes that along.
    task_id = succession.open_before(transaction.connection, uid) or task_id
    ending.cancel(transaction, task_id, undo=operation.undo)
    if row[3] == Ending.FAILED and status is Status.WAITING:
        # It ends by its error all the same; but a person has spoken for what it waits for.
        ending.cancel_open_parts(transaction, task_id)
    if operation.force:
        strays = transaction.execute(_STRAYS_OF_TREE, {"id": task_id}).fetchall()
        for stray_task, agent_id, path in strays:
            transaction.execute(
                _RECORD_FORCED,
                {
                    "id": stray_task,
                    "path": f"forced/{path}" if path else "forced",
                    "name": f"agent {agent_id} may still run it",
                    "at": transaction.wall,
                },
            )
            ending.stray_gone(transaction, stray_task)
        ending.settle(transaction, task_id)
    return ending.status_of(transaction, task_id)


_PAUSE = """
update outlast_task set paused_at = coalesce(paused_at, :wall), notice = notice + (agent_id is not null)
where id = :id and finished_at is null
"""

# Those too that an agent has: their next try is held back.
_PAUSE_STEPS = """
update outlast_task set paused_at = coalesce(paused_at, :wall)
where parent_id = :id and kind = 'step' and finished_at is null
"""

_CHILDREN = "select id from outlast_task where parent_id = :id and kind = 'run' and finished_at is null"


def pause(transaction: Transaction, operation: Pause) -> str:
    """Hold a run at its next durable call, and its unclaimed steps; its children only when asked."""
    uid = succession.last_of_line(transaction.connection, operation.uid)
    row = transaction.one(_FIND, {"uid": uid})
    if row is None:
        raise RunNotFound(operation.uid)
    if Status(row[1]) in FINAL:
        raise RunFinished(operation.uid, row[1])
    _pause(transaction, row[0], children=operation.children)
    transaction.execute(_PAUSE_STEPS, {"id": succession.open_before(transaction.connection, uid), "wall": transaction.wall})
    transaction.ring = True
    return ending.status_of(transaction, row[0])


def _pause(transaction: Transaction, task_id: int, *, children: bool) -> None:
    transaction.execute(_PAUSE, {"id": task_id, "wall": transaction.wall})
    transaction.execute(_PAUSE_STEPS, {"id": task_id, "wall": transaction.wall})
    if children:
        for (child_id,) in transaction.execute(_CHILDREN, {"id": task_id}).fetchall():
            _pause(transaction, child_id, children=True)


# Due from here on at the soonest: what a pause held back is nobody's delay.
_END_PAUSE = "update outlast_task set paused_at = null, due_at = max(due_at, :now) where id = :id"
_END_PAUSE_STEPS = """
update outlast_task set paused_at = null, due_at = max(due_at, :now) where parent_id = :id and kind = 'step' and paused_at is not null
"""
_PAUSED_CHILDREN = """
select id from outlast_task where parent_id = :id and kind = 'run' and paused_at is not null and finished_at is null
"""

_UNHALT = """
update outlast_task
set status = 'pending', due_at = :now, crashes = 0, suspect = 0, halt_reason = null,
    deadline_at = deadline_at + (:now - coalesce(halted_at, :now)), halted_at = null, paused_at = null, tries = 0
where id = :id and status = 'halted'
"""

_LET_GO = "update outlast_task set halted_at = null where id = :id and status = 'halted'"

# What a halt has set aside has left its place, and is cancelled; its try may go on in a thread. So may one of the run itself that overran.
_STILL_RUNS = """
select j.name from outlast_stray s join outlast_journal j on j.task_id = s.task_id and j.path = s.path where s.task_id = :id
union all
select t.name from outlast_task t
where t.parent_id = :id and t.kind = 'step' and t.finished_at is null and instr(t.parent_path, '^') > 0
  and (t.status = 'running' or exists (select 1 from outlast_stray s where s.task_id = t.id))
limit 1
"""

_STAY_HALTED = "update outlast_task set halt_reason = :reason where id = :id and status = 'halted'"

_HALTED_STEPS = "select id from outlast_task where parent_id = :id and kind = 'step' and status = 'halted'"


def resume(transaction: Transaction, operation: Resume) -> str:
    """End a pause, or send a halted run (and its halted steps) on; an undo that gave up is tried again."""
    uid = succession.last_of_line(transaction.connection, operation.uid)
    row = transaction.one(_FIND, {"uid": uid})
    if row is None:
        raise RunNotFound(operation.uid)
    task_id, status, parent_id, ending_decided, _, paused_at = row[:6]
    if Status(status) in FINAL:
        raise RunFinished(operation.uid, status)
    answers = operation.done is not None or operation.not_done
    question = questions.open_question(transaction.connection, task_id) if status == Status.HALTED else None
    if question is not None and not answers:
        raise OutcomeNeeded(operation.uid, question.name)
    if status == Status.HALTED and ending_decided is None:
        still_runs = transaction.one(_STILL_RUNS, {"id": task_id})
        if still_runs is not None:
            raise Conflict(
                f"Step {still_runs[0]} of run {operation.uid} still runs, from before the run was halted: it would run beside itself.",
                hint="Resume the run once that has ended.",
            )
    if question is None and answers:
        raise Conflict(
            f"Run {operation.uid} does not wait for the outcome of a step.",
            hint=f"`outlast resume {operation.uid}` sends it on, without --done and --not-done.",
        )
    if question is not None:
        questions.answer(transaction, question, done=operation.done, by=operation.by)
        if (another := questions.open_question(transaction.connection, task_id)) is not None:
            reason = f"nobody knows whether its step {another.name} took effect either: {another.cause}"
            transaction.execute(_STAY_HALTED, {"id": task_id, "reason": reason})
            return ending.status_of(transaction, task_id)
    if status == Status.HALTED:
        _unhalt(transaction, task_id, undo=ending_decided is not None)
        if paused_at is not None:
            _end_pause(transaction, task_id)
        if parent_id is not None:
            _resume_halted_parent(transaction, task_id)
    elif paused_at is not None:
        _end_pause(transaction, task_id)
        transaction.execute(_END_PAUSE_STEPS, {"id": succession.open_before(transaction.connection, uid), "now": transaction.now})
    else:
        raise Conflict(
            f"Run {operation.uid} is {status}: it is neither paused nor halted.",
            hint=f"`outlast why {operation.uid}` says what it waits for.",
        )
    transaction.ring = True
    return ending.status_of(transaction, task_id)


def _unhalt(transaction: Transaction, task_id: int, *, undo: bool) -> None:
    if undo:
        transaction.execute(_LET_GO, {"id": task_id})
        if not undoing.begin(transaction, task_id):
            ending.settle(transaction, task_id)
        return
    transaction.execute(_UNHALT, {"id": task_id, "now": transaction.now})
    transaction.execute(_END_PAUSE_STEPS, {"id": task_id, "now": transaction.now})
    for (step_id,) in transaction.execute(_HALTED_STEPS, {"id": task_id}).fetchall():
        transaction.execute(_UNHALT, {"id": step_id, "now": transaction.now})


_PARENT_OF_STEP = """
select p.id from outlast_task t join outlast_task p on p.id = t.parent_id
where t.id = :id and t.kind = 'step' and p.status = 'halted' and p.ending is null
"""


def _resume_halted_parent(transaction: Transaction, step_id: int) -> None:
    row = transaction.one(_PARENT_OF_STEP, {"id": step_id})
    if row is not None:
        _unhalt(transaction, row[0], undo=False)


def _end_pause(transaction: Transaction, task_id: int) -> None:
    transaction.execute(_END_PAUSE, {"id": task_id, "now": transaction.now})
    transaction.execute(_END_PAUSE_STEPS, {"id": task_id, "now": transaction.now})
    for (child_id,) in transaction.execute(_PAUSED_CHILDREN, {"id": task_id}).fetchall():
        _end_pause(transaction, child_id)

"""The steps of a run as JSON, merged from its journal and the rows of its submitted steps.

Owns the merge: one line for each place in the code where a step is, with its last outcome, in order of
start, compensations after them. What was set aside stays as a line of its own. A step that runs right now
without a started entry is not visible, since nothing of it has been written: `waits_json` says that the run is at work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..journal.entry import Entry
from ..journal.plan import UNDO_PREFIX
from ..states import FINAL, Status
from ..store import journal
from ..store.questions import PREFIX as QUESTION_PREFIX
from .values import error_json, value_json, wall_json

if TYPE_CHECKING:
    from ..store.library import sqlite3
    from ..store.sqlite import SqliteStore

STEP_KINDS = frozenset({"step", "transaction", "task", "compensation"})
_OUTCOMES = frozenset({"completed", "failed", "cancelled", "unknown"})


@dataclass(slots=True)
class StepLine:
    """What is known of one place."""

    path: str
    name: str
    kind: str
    seq: int
    status: str = "running"
    input: bytes | None = None
    output: bytes | None = None
    error: bytes | None = None
    tries: int = 0
    started_at: int | None = None
    submitted_at: int | None = None
    finished_at: int | None = None
    due_at: int | None = None
    """Of a backoff: the engine instant of the next try."""
    is_set_aside: bool = False
    is_pending: bool = False
    """It was submitted, and no agent has it."""
    has_begun: bool = False
    """The try under way is counted already: a step that is asked about has an entry for the start of each."""


def steps_json(store: SqliteStore, task_id: int, raw: bool = False, *, drawn: bool = False) -> list[dict[str, Any]]:
    """The steps of a run in order of start. Values are readable JSON; with `raw` they have their tags. What is to be drawn tells those that
    wait for an agent from those that run: of the statuses that scripts know, both are `running`.
    """
    return [
        {
            "path": line.path,
            "name": line.name,
            "kind": line.kind,
            "status": line.status,
            "input": value_json(line.input, raw=raw),
            "output": value_json(line.output, raw=raw),
            "error": error_json(line.error),
            "tries": line.tries,
            "started_at": wall_json(line.started_at),
            "finished_at": wall_json(line.finished_at),
            **({"is_pending": line.is_pending} if drawn else {}),
        }
        for line in step_lines(store, task_id)
    ]


_OWNER = "select finished_at, ended_at, undo = 'pending' or undo = 'failed' from outlast_task where id = :id"


def step_lines(store: SqliteStore, task_id: int) -> list[StepLine]:
    """What `steps_json` shows, for those who read on."""
    connection = store.connection()
    lines = merge(journal.load(connection, task_id))
    _add_tasks(connection, task_id, {line.path: line for line in lines if line.kind == "task"})
    _add_inputs_of_undo(lines)
    finished_at, ended_at, is_undone = connection.execute(_OWNER, {"id": task_id}).fetchone() or (None, None, 0)
    now = store.now()
    undone_at = min((line.started_at for line in lines if line.kind == "compensation" and line.started_at is not None), default=None)
    # The undo may have taken longer than a backoff: what its run cut off is what was under way as it began.
    cut_off_at = store.engine_time().from_wall(undone_at) if undone_at is not None else now if ended_at is None else ended_at
    for line in lines:
        if line.status == "running" and line.kind != "task":
            is_cut_off = finished_at is not None or (is_undone and line.kind != "compensation")
            if line.due_at is not None and line.due_at > (cut_off_at if is_cut_off else now):
                if is_cut_off:
                    line.status, line.finished_at = "cancelled", finished_at
                continue
            line.tries += not line.has_begun
            if is_cut_off:  # Also while it is being undone: by then no try executes any more.
                line.status, line.finished_at = "unknown", None
    return _in_order(lines)


def _in_order(lines: list[StepLine]) -> list[StepLine]:
    """By their start. A finished step has one entry, written when it ended, so that the journal alone does not tell. A submitted one
    starts where it is submitted, for the undo too, whenever an agent tries it. On one branch a step does not start before those at the
    places before it, whatever the wall clock said; compensations run one after another.
    """
    began: dict[int, int] = {}
    latest: dict[tuple[int, ...], int] = {}
    for line in sorted(lines, key=lambda line: (_place(line.path), line.seq)):
        if line.kind == "compensation":
            continue
        place = _place(line.path)
        began_at = line.started_at if line.submitted_at is None else line.submitted_at
        began[id(line)] = max(began_at or 0, *(latest.get(place[:depth], 0) for depth in range(len(place))), 0)
        latest[place[:-1]] = began[id(line)]
    return sorted(lines, key=lambda line: (line.kind == "compensation", began.get(id(line), 0), line.seq))


def _place(path: str) -> tuple[int, ...]:
    return tuple(int(number) for number in path.split(".") if number.isdecimal())


def merge(entries: list[Entry]) -> list[StepLine]:
    """One line for each place where a step is; another one after what was set aside."""
    lines: list[StepLine] = []
    current: dict[str, StepLine] = {}
    for entry in entries:
        if entry.kind == "question":
            _ask(current.get(entry.path.removeprefix(QUESTION_PREFIX)), entry)
        if entry.kind not in STEP_KINDS:
            continue
        line = current.get(entry.path)
        if entry.event == "set_aside":
            if line is not None:
                line.is_set_aside = True
            continue
        if line is None or line.is_set_aside:
            line = current[entry.path] = StepLine(entry.path, entry.name, entry.kind, entry.seq)
            lines.append(line)
        _add(line, entry)
    return lines


def _ask(line: StepLine | None, entry: Entry) -> None:
    """What is not known until somebody says it."""
    if line is None or line.status not in ("running", "unknown"):
        return
    line.status = "unknown" if entry.event == "started" else "running"


def _add(line: StepLine, entry: Entry) -> None:
    line.tries = max(line.tries, entry.try_number)
    line.has_begun = entry.event == "started" and entry.try_number > 0
    started_at = entry.started_at if entry.started_at is not None else entry.at
    line.started_at = started_at if line.started_at is None else min(line.started_at, started_at)
    if line.input is None:
        line.input = entry.input
    if entry.event == "tried":
        line.error, line.due_at = entry.data, entry.due_at
    elif entry.event in _OUTCOMES and line.status != "completed":
        line.status, line.finished_at, line.due_at = entry.event, entry.at, None
        if entry.event == "completed":
            line.output, line.error = entry.data, None
        elif entry.event != "cancelled":  # Whose data is no error: it names the run that was cancelled.
            line.error = entry.data if entry.data is not None else line.error


_TASKS = """
select t.id, t.parent_path, t.status,
       -- The try that left a question is not counted in the row, which says how many may follow.
       case when t.status = 'halted'
         then max(t.tries, coalesce((select max(j.try_number) from outlast_journal j where j.task_id = t.id), 0))
         else t.tries end,
       t.claim, t.created_at, t.started_at, t.finished_at,
       t.due_at, i.data, o.output, o.error
from outlast_task t
left join outlast_input i on i.task_id = t.id
left join outlast_outcome o on o.task_id = t.id
where t.parent_id = :id and t.kind = 'step'
order by t.id
"""

_LAST_TRIED = """
select j.task_id, j.data from outlast_task t join outlast_journal j on j.task_id = t.id
where t.parent_id = :id and t.kind = 'step' and t.finished_at is null and j.event = 'tried'
order by j.task_id, j.seq
"""


_ANSWERED = """
select j.task_id, j.kind = 'question', j.event, j.data from outlast_task t join outlast_journal j on j.task_id = t.id
where t.parent_id = :id and t.kind = 'step' and t.status = 'halted' and (j.kind = 'question' or j.event = 'completed')
order by j.task_id, j.seq
"""


def _answered(connection: sqlite3.Connection, task_id: int) -> dict[int, bytes | None]:
    """The halted steps of a run about which a person has answered, and which go on with the last answer: the result that was given, or None
    for one that was not done.
    """
    found: dict[int, bytes | None] = {}
    results: dict[int, bytes] = {}
    for part_id, is_question, event, data in connection.execute(_ANSWERED, {"id": task_id}):
        if not is_question:
            results[part_id] = data
        elif event == "completed":
            found[part_id] = results.pop(part_id, None)
        else:
            found.pop(part_id, None)
    return found


def _add_tasks(connection: sqlite3.Connection, task_id: int, lines: dict[str, StepLine]) -> None:
    """Complete the lines of submitted steps by their own rows: tries, times, outcomes not yet taken."""
    if not lines:
        return
    errors = dict(connection.execute(_LAST_TRIED, {"id": task_id}).fetchall())
    answered = _answered(connection, task_id)
    for row in connection.execute(_TASKS, {"id": task_id}):
        (part_id, path, status, tries, claim, created_at, started_at, finished_at,
         due_at, given, output, error) = row  # fmt: skip
        line = lines.get(path)
        if line is None or line.is_set_aside:
            continue
        line.input = line.input if line.input is not None else given
        line.started_at = started_at if started_at is not None else created_at
        line.submitted_at = created_at
        line.tries = max(tries, 1) if claim and (Status(status) in FINAL or status == Status.HALTED) else tries
        if line.status != "running":
            line.finished_at = finished_at if finished_at is not None else line.finished_at
            continue
        line.status, line.is_pending = _task_status(status), status == Status.PENDING
        line.finished_at, line.due_at = finished_at, due_at if tries else None
        line.output, line.error = output, error if error is not None else errors.get(part_id)
        if status == Status.RUNNING:
            line.tries = tries + 1
        elif status == Status.HALTED and part_id in answered:
            line.output = answered[part_id]
            line.status, line.is_pending = ("running", True) if line.output is None else ("completed", False)


def _task_status(status: str) -> str:
    match Status(status):
        case Status.COMPLETED | Status.FAILED | Status.CANCELLED:
            return status
        case Status.HALTED:
            return "unknown"
        case _:
            return "running"


def _add_inputs_of_undo(lines: list[StepLine]) -> None:
    """A compensation runs with the arguments of its step, which are in the journal once."""
    inputs = {line.path: line.input for line in lines}
    for line in lines:
        if line.kind == "compensation" and line.input is None:
            line.input = inputs.get(line.path.removeprefix(UNDO_PREFIX))

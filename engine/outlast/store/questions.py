"""Questions to a person: what a try of unknown outcome did, and what was answered.

Owns the reading of the question that a halted run waits on, and the writing of its answer. Refuses to halt and to resume: `ending` and
`control` do. A question and its answer are entries of the journal, so that later readers know who has said what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from ..codec.errors import encode_error
from ..errors import OutcomeUnknown, OutlastError
from ..journal.entry import Entry
from ..operations.claimed import Fence
from . import journal
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

PREFIX = "question/"

_OPEN = """
select j.task_id, j.path, j.name, j.try_number, j.data, t.kind, t.ending, t.claim
from outlast_task t join outlast_journal j on j.task_id = t.id
where t.status = 'halted' and (t.id = :id or (t.parent_id = :id and t.kind = 'step'))
  and j.kind = 'question' and j.event = 'started'
  and not exists (
    select 1 from outlast_journal a
    where a.task_id = j.task_id and a.path = j.path and a.kind = 'question' and a.event = 'completed' and a.seq > j.seq)
order by j.at, j.task_id, j.seq
"""


@dataclass(frozen=True, slots=True)
class Question:
    """What did the try of a step do? `task_id` has it in its journal: the run, or a submitted step of it."""

    task_id: int
    path: str
    """The step's place in that journal; empty where it is the task itself."""
    name: str
    try_number: int
    cause: str
    is_task: bool
    is_undoing: bool
    claim: int


def open_question(connection: sqlite3.Connection, task_id: int) -> Question | None:
    """The oldest question that a halted run, or a halted step of it, waits on: the one that an answer is to."""
    return next(iter(open_questions(connection, task_id)), None)


def open_questions(connection: sqlite3.Connection, task_id: int) -> list[Question]:
    """Those that a halted run and its halted steps wait on, in the order in which they are answered."""
    return [
        Question(
            owner, path.removeprefix(PREFIX), name, number, msgspec.json.decode(data)["cause"], kind == "step", ending is not None, claim
        )
        for owner, path, name, number, data, kind, ending, claim in connection.execute(_OPEN, {"id": task_id})
    ]


_KIND = "select kind from outlast_journal where task_id = :id and path = :path and kind <> 'question' order by seq limit 1"


def answer(transaction: Transaction, question: Question, *, done: bytes | None, by: str) -> None:
    """Write what a person has found out: the step's result, or (None) that it was not done."""
    fence = Fence(question.task_id, question.claim)
    row = transaction.one(_KIND, {"id": question.task_id, "path": question.path})
    kind = row[0] if row is not None else "step"
    said = msgspec.json.encode({"answer": "not done" if done is None else "done", "by": by})

    def write(path: str, event: str, kind: str, number: int, data: bytes) -> None:
        entry = Entry(0, path, event, kind, question.name, transaction.wall, try_number=number, data=data)
        journal.write_next(transaction, fence, entry)

    if done is not None:
        write(question.path, "completed", kind, max(question.try_number, 1), done)
    elif question.is_undoing:
        error = encode_error(OutlastError(f"{by or 'Somebody'} found out that {question.name} was not done."))
        write(question.path, "failed", kind, max(question.try_number, 1), error)
    else:
        # The try that did nothing is no try: it begins again, whatever the policy has left.
        error = encode_error(OutcomeUnknown(question.name, question.cause))
        write(question.path, "tried", kind, max(question.try_number - 1, 0), error)
    write(PREFIX + question.path, "completed", "question", question.try_number, said)

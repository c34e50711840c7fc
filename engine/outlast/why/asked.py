"""What a halted run asks a person, in words: about which step, called with what.

Owns the sentence beside the answers that `why` offers. Refuses to order the questions: `store/questions.py` does, and an answer is to the
first of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..store import journal, questions
from ..text.counted import counted
from ..views.values import value_json

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_LONGEST = 200
_SUBMITTED = "select t.parent_path, i.data from outlast_task t left join outlast_input i on i.task_id = t.id where t.id = :id"


def question_texts(store: SqliteStore, task_id: int) -> list[str]:
    """The question that an answer would answer, and how many more there are; nothing where there is none."""
    connection = store.connection()
    open_ones = questions.open_questions(connection, task_id)
    if not open_ones:
        return []
    asked = open_ones[0]
    if asked.is_task:
        path, given = connection.execute(_SUBMITTED, {"id": asked.task_id}).fetchone()
    else:
        path = asked.path
        inputs = (entry.input for entry in journal.load(connection, task_id) if entry.path == path and entry.input is not None)
        given = next(inputs, None)
    text = json.dumps(value_json(given), ensure_ascii=False, default=str)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    texts = [f"It asks about the step {asked.name} at {path}, called with {shown}."]
    if len(open_ones) > 1:
        texts.append(f"{counted(len(open_ones) - 1, 'more question')} of its kind: an answer is to this one, then the next is asked.")
    return texts

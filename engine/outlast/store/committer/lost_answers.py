"""Answers that were lost: of operations that fail when they are written again, because their first writing had been committed.

Owns the look at the file that tells so. A transaction whose COMMIT failed may be on the disk all the same, and a caller that was told
of a failure would do the work once more. Refuses to write.
"""

from __future__ import annotations

from typing import Any

from ...errors import LeaseLost
from ...operations import Append, End, Start, Started, StartPart
from ...operations.atomic import Operation
from ...states import Status
from ..library import sqlite3
from ..transaction import Transaction

_ENTRY_IS_THERE = """
select 1 from outlast_journal where task_id = :id and seq = :seq and claim = :claim and path = :path
"""
_ENDED_AS = """
select status from outlast_task
where id = :id and ending is not null and (claim = :claim or claim = :claim + 1 and status = 'compensating')
"""
_STARTED_AS = "select id from outlast_task where uid = :uid"


def find(transaction: Transaction, operation: Operation[Any], error: BaseException) -> Any:
    """The answer of an operation whose second writing failed so; None where the first was not committed."""
    match operation:
        case Append() if isinstance(error, sqlite3.IntegrityError | LeaseLost):
            fence = operation.fence
            is_there = all(
                transaction.one(
                    _ENTRY_IS_THERE,
                    {"id": fence.task_id, "seq": entry.seq, "claim": fence.claim, "path": entry.path},
                )
                for entry in operation.entries
            )
            return True if is_there else None
        case End() if isinstance(error, LeaseLost):
            row = transaction.one(_ENDED_AS, {"id": operation.fence.task_id, "claim": operation.fence.claim})
            return Status(row[0]) if row is not None else None
        case Start() | StartPart() if isinstance(error, sqlite3.IntegrityError | LeaseLost):
            # An id is made for one start, so whoever has it is that start.
            uid = operation.uid if isinstance(operation, Start) else operation.start.uid
            row = transaction.one(_STARTED_AS, {"uid": uid})
            return Started(row[0], uid, True) if row is not None else None
    return None

"""One unfinished run at a time for a unique key.

Owns what `if_exists` decides when a start meets an unfinished run of its unique key: give that one back, fail, or replace it. Refuses
nothing else. The look and the start are one immediate transaction, so two starts cannot both find nobody.
"""

from __future__ import annotations

from ..errors import Conflict
from ..operations import Start, Started
from .transaction import Transaction

_UNFINISHED = """
select id, uid, status from outlast_task
where name = :name and unique_key = :unique_key and finished_at is null
order by id desc limit 1
"""


def admit(transaction: Transaction, operation: Start) -> Started | None:
    """The run that stands for this start, or None when it may be written."""
    found = transaction.one(_UNFINISHED, {"name": operation.name, "unique_key": operation.unique_key})
    if found is None:
        return None
    task_id, uid, status = found
    if operation.if_exists == "fail":
        raise Conflict(
            f"Run {uid} of {operation.name} with unique key {operation.unique_key!r} is {status}.",
            hint="Wait for its end, or use if_exists='return' or 'replace'.",
        )
    return Started(task_id, uid, False)

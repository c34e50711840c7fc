"""Parts of a run: a child or a submitted step is started together with its parent's journal entry, under the parent's fence.

Owns the choice between a new task and one that is there: a key may lead to somebody else's run, and the retry of a run goes on with
the children that had not completed. Refuses a start whose parent's claim is lost: then there is neither a task nor an entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..journal.entry import COMPENSABLE, Entry
from ..journal.plan import undone_places
from ..operations import Start, Started, StartPart
from .journal import load, write_entry
from .retrying import present_child, retry_child
from .starting import run_of_key, start
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

_FOLLOW = "insert or ignore into outlast_follower (task_id, parent_id, path) values (:task_id, :parent_id, :path)"

_CLAIM_HELD = """
select coalesce(root_id, id), deadline_at from outlast_task
where id = :task_id and claim = :claim and status = 'running'
"""


# The run that had started a child before, and where, if it is an earlier one of the chain of retries.
_OF_CHAIN = """
select c.parent_id, c.parent_path from outlast_task c
join outlast_input before on before.task_id = c.parent_id join outlast_input i on i.task_id = :id
where c.id = :child_id and c.parent_id <> :id and before.chain = i.chain
"""


def start_part(transaction: Transaction, operation: StartPart) -> Started:
    """Start a child or a submitted step together with the parent's journal entry, under the parent's fence."""
    fence = operation.fence
    held = transaction.one(_CLAIM_HELD, {"task_id": fence.task_id, "claim": fence.claim})
    if held is None:
        raise fence.lost()
    root_id, deadline_at = held
    part = operation.start
    within = _within(part, root_id=root_id, deadline_at=deadline_at)
    entry = operation.entry
    started = retry_child(transaction, within) if within.retry_of is not None else None
    if started is None:
        started = start(transaction, replace(within, retry_of=None))
        if not started.created:
            before = transaction.one(_OF_CHAIN, {"child_id": started.task_id, "id": fence.task_id})
            if before is None:
                # Its key has led to somebody else's run: that is not ours to undo.
                entry = replace(entry, flags=entry.flags & ~COMPENSABLE)
            elif before[1] in undone_places(load(transaction.connection, before[0])):
                # What was undone runs again, under the key that it had.
                started = start(transaction, replace(within, retry_of=started.uid))
    if not started.created:
        transaction.execute(_FOLLOW, {"task_id": started.task_id, "parent_id": fence.task_id, "path": entry.path})
    write_entry(transaction, fence, _naming(entry, started))
    return started


def may_lead_elsewhere(part: Start) -> bool:
    """Whether a start may give another run than it asks for."""
    return part.key is not None or part.unique_key is not None or part.retry_of is not None


def leads_to(connection: sqlite3.Connection, part: Start) -> str | None:
    """The run that a start would give now, where it is there already: for who cannot wait for the commit."""
    if part.retry_of is not None:
        return present_child(connection, part.retry_of)
    return run_of_key(connection, part.name, part.key) if part.key is not None else None


def _within(part: Start, *, root_id: int, deadline_at: int | None) -> Start:
    return replace(part, root_id=root_id, deadline_at=deadline_at if part.kind == "run" else None)


def _naming(entry: Entry, started: Started) -> Entry:
    return replace(entry, data=f"{started.task_id} {started.uid}".encode())

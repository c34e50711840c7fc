"""Open runs as an agent that claimed them would see them, for those who only look.

Owns one read. Refuses to claim: nothing is written, and the claim number is the one that the run has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import OutlastError
from ..model import code_alone
from ..operations.claimed import Claimed, Fence
from ..states import Status

if TYPE_CHECKING:
    from ..store.library import sqlite3

_SELECT = """
select t.id, t.claim, t.uid, t.kind, t.name, t.version, t.status, t.needs, t.queue, t.partition, t.priority, t.tries,
       t.parent_id, t.parent_path, t.root_id, coalesce(t.started_at, t.created_at), t.deadline_at, i.data, i.tags, i.tick, i.chain,
       i.idempotency_key, i.options, i.timeout, p.uid, t.crashes, p.name, g.uid, t.ending
from outlast_task t join outlast_input i on i.task_id = t.id
left join outlast_task p on p.id = t.parent_id left join outlast_task g on g.id = p.parent_id
"""

_OPEN = (
    _SELECT
    + """
where t.kind = 'run' and t.finished_at is null and t.id > :after and (:workflow is null or t.name = :workflow)
order by t.id limit 500
"""
)


def open_runs(connection: sqlite3.Connection, *, workflow: str | None = None) -> Iterator[tuple[Claimed, str | None]]:
    """Every run that has not ended, in order of start, with the ending that was decided for it."""
    after = 0
    while rows := connection.execute(_OPEN, {"after": after, "workflow": workflow}).fetchall():
        for row in rows:
            yield _claimed(row), row[-1]
        after = rows[-1][0]


_ONE = _SELECT + "where t.id = :id"


def recorded_run(connection: sqlite3.Connection, task_id: int) -> Claimed:
    """One run, open or final. Raises `OutlastError` where its input has been deleted from the file."""
    row = connection.execute(_ONE, {"id": task_id}).fetchone()
    if row is None:
        raise OutlastError("The run's input is not in the file any more.", hint="`outlast doctor` says what else is missing.")
    return _claimed(row)


def _claimed(row: tuple[Any, ...]) -> Claimed:
    (task_id, claim, uid, kind, name, version, status, needs, queue, partition, priority, tries, parent_id, parent_path, root_id,
     started_at, deadline_at, data, tags, tick, chain, idempotency_key, options, timeout, parent_uid, crashes, parent_name,
     grandparent_uid, _) = row  # fmt: skip
    return Claimed(
        Fence(task_id, claim), uid, kind, name, version, Status(status), code_alone(needs), queue, partition, priority, tries, False, False,
        parent_id, parent_path, root_id, started_at, deadline_at, False, 0, data, tags, tick, chain, idempotency_key, options, timeout,
        parent_uid, crashes, parent_name, grandparent_uid,
    )  # fmt: skip

"""When an agent that finds nothing to claim is to look again.

Owns the read of the next due instant, over the same walk as the claims. Refuses to tell of what somebody must end first, a pause or a
full queue: whoever ends that writes to the file, and so wakes the agent.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from .. import clock
from ..model import code_alone
from . import queues
from .refusals import Takeable
from .walk import PARTITIONED, PLAIN, combinations

if TYPE_CHECKING:
    from .library import sqlite3

_NEXT_DUE = """
select due_at from outlast_task
where due_at is not null and paused_at is null and partition is null
  and queue = :queue and priority = :priority and needs = :needs and due_at > :after
order by due_at limit 1
"""

_NEXT_DUE_OF_PARTITIONS = """
select due_at from outlast_task
where due_at is not null and paused_at is null and partition is not null
  and queue = :queue and priority = :priority and needs = :needs and due_at > :after
order by due_at limit 1
"""

_LOOK_AGAIN = clock.SECOND // 2


def next_due_at(connection: sqlite3.Connection, code: Collection[str], queues_served: tuple[str, ...] | None, *, now: int) -> int | None:
    """The engine instant at which the next task that this code can take falls due, or may start by its queue's rate.

    What a full or a paused queue holds back is left out: whoever ends that writes to the file, and so wakes us.
    """
    limited = queues.limited(connection)
    takeable = Takeable(connection, code, now=now)
    due = [
        queues.next_start_at(connection, limits, now=now)
        for limits in limited.values()
        if limits.rate is not None and limits.paused_at is None and queues.starts_left(connection, limits, now=now) == 0
    ]
    for kind, statement in ((PLAIN, _NEXT_DUE), (PARTITIONED, _NEXT_DUE_OF_PARTITIONS)):
        for queue, priority, needs in combinations(connection, queues_served, kind):
            limits = limited.get(queue)
            if code_alone(needs) not in code or (limits is not None and limits.paused_at is not None):
                continue
            after = -1 if limits is None else now
            row = connection.execute(statement, {"queue": queue, "priority": priority, "needs": needs, "after": after}).fetchone()
            if row is not None:
                # Left to other code, until its agents have gone: that need not write to the file.
                due.append(row[0] if needs in takeable else max(row[0], now + _LOOK_AGAIN))
    return min(due, default=None)

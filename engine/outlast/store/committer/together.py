"""Many operations of one kind in a group, by a statement or two for all of them: what every step and every short run goes through.

Owns the forms of `Append` and `End` for many. A statement costs more around its rows than in them: SQLite's set-up, and the
interpreter's lock that is let go and taken again for each. Refuses whatever is not plain: one row that does not go through, since a
fence or a cancel stands in its way, raises `Uneven`, and the committer begins the transaction anew with the single forms.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from ...operations import Append, End
from ...operations.claimed import Wanted
from ...states import Ending, Status
from .. import ending, journal, last_writes
from ..transaction import Transaction

_Together = Callable[[Transaction, Sequence[Any]], Sequence[Any]]


class Uneven(Exception):
    """Not every operation goes through as all of them must."""


def append(transaction: Transaction, operations: Sequence[Append]) -> Sequence[bool | Wanted]:
    """Write the entries of many runs; each row names its claim, as alone."""
    if not all(map(journal.is_plain, operations)):
        return [journal.append(transaction, operation) for operation in operations]
    if not journal.write_entries(transaction, [(operation.fence, entry) for operation in operations for entry in operation.entries]):
        raise Uneven
    return [True] * len(operations)


_FINISH = """
update outlast_task
set status = :status, ending = :status, agent_id = null, due_at = null, suspect = 0, notice = 0, tries = :tries,
    finished_at = :wall, ended_at = :now
where (id, claim) in (select cast(key as integer), value from json_each(:claims)) and status = 'running' and ending is null
  and (cancel_requested_at is null or kind = 'step')
  and (kind = 'step' or :status = 'completed' or not exists (select 1 from outlast_stray s where s.task_id = outlast_task.id))
"""

_PARENTS = """
select parent_id, id from outlast_task where id in (select cast(key as integer) from json_each(:claims)) and parent_id is not null
"""

_FOLLOWED = """
select 1 from outlast_follower where task_id in (select cast(key as integer) from json_each(:claims)) limit 1
"""


def end(transaction: Transaction, operations: Sequence[End]) -> Sequence[Status]:
    """End many tasks that have no parts, no undo and no stray try."""
    alike: dict[tuple[Ending, int], list[End]] = defaultdict(list)
    for operation in operations:
        if not operation.simple:
            raise Uneven
        alike[operation.ending, operation.tries].append(operation)
    for (how, tries), some in alike.items():
        claims = json.dumps({one.fence.task_id: one.fence.claim for one in some})
        given = {"claims": claims, "status": how, "tries": tries, "wall": transaction.wall, "now": transaction.now}
        if transaction.execute(_FINISH, given).rowcount < len(some) or transaction.one(_FOLLOWED, {"claims": claims}) is not None:
            raise Uneven
        last_writes.write_outcomes(transaction, some)
        for operation in some:
            last_writes.keep_aside(transaction, operation)
        for parent_id, part_id in transaction.execute(_PARENTS, {"claims": claims}).fetchall():
            ending.tell_parent(transaction, parent_id, part_id, failed=how is not Ending.COMPLETED)
    # Somebody may wait for any of them.
    transaction.ring = True
    return [Status(operation.ending) for operation in operations]


TOGETHER: Mapping[type, _Together] = {Append: append, End: end}


def runs_of_a_kind(group: Sequence[Any]) -> list[tuple[type, list[Any]]]:
    """Neighbours of one kind, in the order of the group: what a task has asked for one after the other stays so."""
    return [(kind, list(some)) for kind, some in groupby(group, key=lambda pending: type(pending.operation))]

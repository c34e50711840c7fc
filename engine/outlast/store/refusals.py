"""Refusals: what a code leaves to other code, because it disagreed with the journal.

Owns who may take a refused task. What such a task needs names the fingerprints that disagreed too, so that the walk of the claims meets
all of them as one combination: however many there are, they cost one question and hide nothing of what stands behind them. Refuses to
judge code: a run finds out by its journal.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from ..model import REFUSED_BY, code_alone
from .transaction import Transaction

if TYPE_CHECKING:
    from .library import sqlite3

_NOTE = """
update outlast_input
set refused = (select json_group_array(value) from (
  select value from json_each(coalesce(refused, '[]')) union select :refused))
where task_id = :id
returning refused
"""

_NEEDS = "select needs from outlast_task where id = :id"

_MARK = "update outlast_task set needs = :needs where id = :id"


def refuse(transaction: Transaction, task_id: int, fingerprint: str) -> None:
    """Note that this code disagreed with the journal of a task."""
    (refused,) = transaction.execute(_NOTE, {"id": task_id, "refused": fingerprint}).fetchone()
    (needs,) = transaction.execute(_NEEDS, {"id": task_id}).fetchone()
    transaction.execute(_MARK, {"id": task_id, "needs": code_alone(needs) + REFUSED_BY + refused})


_OTHER_CODE = """
select 1
from outlast_agent_code c join outlast_agent a on a.id = c.agent_id
where c.needs = :needs and a.status = 'active' and a.root_id is null and a.lease_until > :now
  and c.fingerprint not in (select value from json_each(:refused))
limit 1
"""


class Takeable(Collection[str]):
    """What an agent may take: all that it has the code for, but what its code leaves to other code while a live agent has that."""

    def __init__(self, connection: sqlite3.Connection, code: Collection[str], *, now: int) -> None:
        self._connection = connection
        self._code = code
        self._now = now
        self._refused: dict[str, bool] = {}
        """Of what some code has refused: whether it may be taken."""

    def __contains__(self, needs: object) -> bool:
        if needs in self._code:
            return True
        if not isinstance(needs, str) or REFUSED_BY not in needs:
            return False
        if needs not in self._refused:
            self._refused[needs] = self._may_take(needs)
        return self._refused[needs]

    def _may_take(self, needs: str) -> bool:
        code, _, refused = needs.partition(REFUSED_BY)
        if code not in self._code:
            return False
        if not isinstance(self._code, Mapping) or self._code[code] not in json.loads(refused):
            return True
        return self._connection.execute(_OTHER_CODE, {"needs": code, "now": self._now, "refused": refused}).fetchone() is None

    def __iter__(self) -> Iterator[str]:
        """What has been asked for so far of the refused, and all the rest."""
        yield from self._code
        yield from (needs for needs, may_take in self._refused.items() if may_take)

    def __len__(self) -> int:
        return sum(1 for _ in self)

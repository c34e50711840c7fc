"""The runs before and after a run: those that it retries, its retries, and the line of those that went on from it.

Owns the looks along both. Refuses to choose which of them a retry goes on from: that is the store's, in the transaction that starts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..store.succession import last_of_line
from ..text.counted import counted

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_RETRIES = """
select t.uid, t.status from outlast_task old
join outlast_input o on o.task_id = old.id
join outlast_input i on i.chain = o.chain and i.retry_of is not null
join outlast_task t on t.id = i.task_id and t.kind = 'run'
where old.uid = :uid and t.id > old.id
order by t.id
"""


def retries(store: SqliteStore, uid: str) -> list[tuple[str, str]]:
    """(id, status) of the later runs of a run's chain, the newest last."""
    rows: list[tuple[str, str]] = store.connection().execute(_RETRIES, {"uid": uid}).fetchall()
    return rows


def was_retried(store: SqliteStore, uid: str) -> bool:
    """Whether a run has been retried already."""
    return bool(retries(store, uid))


_ID = "select uid from outlast_task where id = :id"
_ID_OF = "select id from outlast_task where uid = :uid"


def last_in_line(store: SqliteStore, task_id: int) -> int:
    """The run that goes on with what a run began by `continue_as_new`; itself, where none does."""
    connection = store.connection()
    row = connection.execute(_ID, {"id": task_id}).fetchone()
    if row is None:
        return task_id
    found = connection.execute(_ID_OF, {"uid": last_of_line(connection, row[0])}).fetchone()
    return task_id if found is None else int(found[0])


_ROOT = "select case when parent_id is null then coalesce(root_id, id) else id end from outlast_task where id = :id"


def root_of(store: SqliteStore, task_id: int) -> int:
    """The run by whose number all that belongs to a run is found: the first of its line."""
    row = store.connection().execute(_ROOT, {"id": task_id}).fetchone()
    return task_id if row is None else int(row[0])


_RETRY_OF = """
select i.retry_of, count(h.path) from outlast_task t join outlast_input i on i.task_id = t.id
left join outlast_inherited h on h.task_id = t.id and h.event is not null
  and h.kind in ('step', 'transaction', 'task', 'child')
where t.uid = :uid and i.retry_of is not null
"""


def chain_texts(store: SqliteStore, uid: str) -> list[str]:
    """What a person should know of a run's place in its chain, in sentences."""
    texts = []
    row = store.connection().execute(_RETRY_OF, {"uid": uid}).fetchone()
    if row is not None and row[0] is not None:
        texts.append(f"It is a retry of {row[0]}, and began with {counted(row[1], 'result')} of the runs before.")
    last = last_of_line(store.connection(), uid)
    if last != uid:
        texts.append(f"It went on as a new run; the last of them is {last}.")
    later = retries(store, uid)
    if later:
        newest, status = later[-1]
        texts.append(f"It was retried; the newest retry is {newest}, which is {status}.")
    return texts

"""The chain of a run: the run that was retried, and its retries.

Owns the look along it. Refuses to choose which of them a retry goes on from: that is the store's, in the transaction that starts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


_RETRY_OF = """
select i.retry_of, count(h.path) from outlast_task t join outlast_input i on i.task_id = t.id
left join outlast_inherited h on h.task_id = t.id and h.event is not null
where t.uid = :uid and i.retry_of is not null
"""


def chain_texts(store: SqliteStore, uid: str) -> list[str]:
    """What a person should know of a run's place in its chain, in sentences."""
    texts = []
    row = store.connection().execute(_RETRY_OF, {"uid": uid}).fetchone()
    if row is not None and row[0] is not None:
        count = "1 result" if row[1] == 1 else f"{row[1]:,} results"
        texts.append(f"It is a retry of {row[0]}, and began with {count} of the runs before.")
    later = retries(store, uid)
    if later:
        newest, status = later[-1]
        texts.append(f"It was retried; the newest retry is {newest}, which is {status}.")
    return texts

"""From what a person writes to a run: an id, a unique prefix of one, or `WORKFLOW:KEY`.

Owns the lookup. Refuses to guess: a prefix that fits several runs is `AmbiguousRun`, one that fits none is
`RunNotFound`. Submitted steps have ids too, and are never found here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import AmbiguousRun, RunNotFound

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_ID = re.compile(r"[0-9a-z]{1,64}")


def find_run(store: SqliteStore, reference: str) -> tuple[int, str]:
    """The row and the id of the run that `reference` names. Raises `RunNotFound` or `AmbiguousRun`."""
    if ":" in reference:
        # A key may end in a blank.
        return _by_key(store, reference.lstrip())
    prefix = reference.strip().lower()
    if not _ID.fullmatch(prefix):
        raise _not_found(store, reference)
    return _exact(store, prefix) or _by_prefix(store, prefix)


_IS_WORKFLOW = """
select exists (select 1 from outlast_agent_code where needs = :code or needs >= :code || '@' and needs < :code || 'A')
"""


def _not_found(store: SqliteStore, reference: str) -> RunNotFound:
    """Whoever names a workflow is told how to list its runs: of one that an agent has had the code for."""
    try:
        (is_workflow,) = store.connection().execute(_IS_WORKFLOW, {"code": f"workflow:{reference}"}).fetchone()
    except UnicodeEncodeError:
        is_workflow = False
    return RunNotFound(reference, is_workflow=bool(is_workflow))


_EXACT = "select id, uid from outlast_task where uid = :uid and kind = 'run'"


def _exact(store: SqliteStore, uid: str) -> tuple[int, str] | None:
    row = store.connection().execute(_EXACT, {"uid": uid}).fetchone()
    return None if row is None else (row[0], row[1])


_BY_PREFIX = """
select id, uid from outlast_task
where uid >= :prefix and uid < :after and kind = 'run'
limit :limit
"""

_MOST_COUNTED = 1_000


def _by_prefix(store: SqliteStore, prefix: str) -> tuple[int, str]:
    # An id has only digits and small letters, and "{" follows "z".
    rows = store.connection().execute(_BY_PREFIX, {"prefix": prefix, "after": f"{prefix}{{", "limit": _MOST_COUNTED})
    found = rows.fetchall()
    if not found:
        raise _not_found(store, prefix)
    if len(found) > 1:
        raise AmbiguousRun(prefix, len(found))
    return found[0][0], found[0][1]


_BY_KEY = """
select t.id, t.uid
from outlast_key k join outlast_task t on t.id = k.task_id
where k.workflow = :workflow and k.key = :key
"""


def _by_key(store: SqliteStore, text: str) -> tuple[int, str]:
    workflow, _, key = text.partition(":")
    try:
        row = store.connection().execute(_BY_KEY, {"workflow": workflow, "key": key}).fetchone()
    except UnicodeEncodeError:
        row = None  # A lone surrogate: no stored key has one.
    if row is None:
        raise RunNotFound(text)
    return row[0], row[1]

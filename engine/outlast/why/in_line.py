"""Why a scheduled run is not claimed yet: it stands in line behind an earlier run of its schedule.

Owns that sentence. Refuses to say anything of other runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore
    from ..views.task_facts import TaskFacts
    from .unclaimed import Text

_PLACE = """
select k.schedule, t.uid, t.status
from outlast_task mine
join outlast_tick k on k.run_id = mine.uid and k.place = 'waiting'
left join outlast_tick o on o.schedule = k.schedule and o.place = 'open'
left join outlast_task t on t.uid = o.run_id and t.finished_at is null
where mine.id = :id
order by t.id is null, o.tick desc limit 1
"""


def why_in_line(store: SqliteStore, facts: TaskFacts, text: Text, *, what: str) -> bool:
    """Complete the explanation of a run that waits for its turn; else leave it and give false."""
    row = store.connection().execute(_PLACE, {"id": facts.id}).fetchone()
    if row is None:
        return False
    schedule, run_id, status = row
    text.summary = f"{what} stands in line: runs of the schedule {schedule} go one after another"
    if run_id is None:
        text.summary += "; a scheduler lets the next one go, and `outlast up` has one."
    else:
        text.summary += f", and run {run_id} is {status}."
        text.actions.append(f"outlast why {run_id}")
    text.actions.append(f"outlast schedule show {schedule}")
    return True

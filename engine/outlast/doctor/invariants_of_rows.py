"""What must hold between the rows of a file: nothing leads nowhere, and nothing is there twice.

Owns one half of the list that `doctor` goes through; the other half, what a run does, is in `invariants`. Every query gives what breaks
it first.
"""

from __future__ import annotations

from .invariant import REPORT, Invariant

OF_ROWS = (
    Invariant(
        "keys",
        "every idempotency key leads to a run",
        "a key that leads nowhere",
        REPORT,
        """
        select k.workflow || ':' || k.key from outlast_key k
        where not exists (select 1 from outlast_task t where t.id = k.task_id)
        limit :limit
        """,
    ),
    Invariant(
        "unique keys",
        "no two started runs share a unique key",
        "a unique key of two started runs",
        REPORT,
        """
        select name || ':' || unique_key from outlast_task
        where unique_key is not null and finished_at is null and started_at is not null
        group by name, unique_key having count(*) > 1
        limit :limit
        """,
    ),
    Invariant(
        "successors",
        "every run that is held back waits for one that has not ended",
        "held back for a run that has ended, or is not there",
        REPORT,
        """
        select t.uid from outlast_successor s
        join outlast_task t on t.id = s.task_id left join outlast_task before on before.id = s.after_id
        where before.id is null or before.finished_at is not null or t.due_at is not null or t.started_at is not null
        limit :limit
        """,
    ),
    Invariant(
        "lines",
        "every run that went on as a new one leads to it",
        "its successor is not there, or is held back although it has completed",
        REPORT,
        """
        select t.uid from outlast_outcome o
        join outlast_task t on t.id = o.task_id left join outlast_task next on next.id = o.successor_id
        where o.successor_id is not null
          and (next.id is null or next.id <= t.id or t.status = 'completed' and next.claim = 0 and next.status = 'pending'
               and next.due_at is null and next.id not in (select task_id from outlast_successor))
        limit :limit
        """,
    ),
    Invariant(
        "retries",
        "every chain of retries has one unfinished run at most",
        "a chain with several unfinished runs",
        REPORT,
        """
        select i.chain from outlast_input i join outlast_task t on t.id = i.task_id
        where i.retry_of is not null and t.kind = 'run' and t.finished_at is null
        group by i.chain having count(*) > 1
        limit :limit
        """,
    ),
    Invariant(
        "inputs",
        "every task has its input",
        "has no input",
        REPORT,
        """
        select t.uid from outlast_task t
        where not exists (select 1 from outlast_input i where i.task_id = t.id)
        limit :limit
        """,
    ),
    Invariant(
        "leftovers",
        "no row belongs to a task that is not there",
        "rows without a task",
        REPORT,
        """
        with present as (select id from outlast_task union select task_id from outlast_pruned), rows_of(source, id) as (
          select 'input', task_id from outlast_input
          union select 'outcome', task_id from outlast_outcome
          union select 'journal', task_id from outlast_journal
          union select 'signal', task_id from outlast_signal
          union select 'published', task_id from outlast_published
          union select 'stream', task_id from outlast_stream
          union select 'inherited', task_id from outlast_inherited)
        select 'outlast_' || source || ' ' || id from rows_of where id not in (select id from present)
        limit :limit
        """,
    ),
    Invariant(
        "tick runs",
        "every tick that fired has its run",
        "a tick whose run is not there, although nobody pruned it",
        REPORT,
        """
        select schedule || ' at ' || tick from outlast_tick
        where run_id is not null and not run_pruned and run_id not in (select uid from outlast_task)
        limit :limit
        """,
    ),
    Invariant(
        "outcomes",
        "every run that has completed or failed has its outcome",
        "has ended, and what came of it is not there",
        REPORT,
        """
        select t.uid from outlast_task t
        where t.status in ('completed', 'failed', 'compensated')
          and not exists (select 1 from outlast_outcome o where o.task_id = t.id)
        limit :limit
        """,
    ),
    Invariant(
        "parents",
        "everything unfinished that belongs to a run has that run",
        "unfinished, and the run that it belongs to is not there",
        REPORT,
        """
        select t.uid from outlast_task t
        where t.parent_id is not null and t.finished_at is null and t.parent_id not in (select id from outlast_task)
        limit :limit
        """,
    ),
    Invariant(
        "taken signals",
        "every signal that was taken is in the journal of who took it",
        "a signal counts as taken, and its run knows nothing of it",
        REPORT,
        """
        select t.uid || ' ' || s.name from outlast_signal s join outlast_task t on t.id = s.task_id
        where s.taken_path is not null
          and (s.task_id, s.taken_path) not in (
            select task_id, path from outlast_journal where kind = 'signal' and event = 'completed'
            union all select task_id, path from outlast_inherited where kind = 'signal')
        limit :limit
        """,
    ),
)

"""What must hold in every file, as queries that find nothing where it does.

Owns the list that `doctor` goes through. Every query gives the id of what breaks it first. `before` is a minute ago: what is younger
has not been looked at yet. Refuses false alarms: each says what is in order although it looks odd.
"""

from __future__ import annotations

from .invariant import REPORT, Invariant
from .invariants_of_rows import OF_ROWS

_SUPERVISE = "Start a supervisor: `outlast up` or `outlast supervisor`."

INVARIANTS = (
    Invariant(
        "leases",
        "every lease is of an agent that is up",
        "held by an agent that has ended",
        REPORT,
        """
        select t.uid from outlast_task t left join outlast_agent a on a.id = t.agent_id
        where t.agent_id is not null and (a.id is null or a.status not in ('active', 'draining'))
        limit :limit
        """,
    ),
    Invariant(
        "expired leases",
        "no lease has been over for a minute",
        "held by an agent that has been silent for long",
        _SUPERVISE,
        """
        select t.uid from outlast_task t join outlast_agent a on a.id = t.agent_id
        where t.agent_id is not null and a.status in ('active', 'draining') and a.lease_until < :before
        limit :limit
        """,
    ),
    Invariant(
        "due while held",
        "nothing that is held can be claimed",
        "held and claimable at once",
        REPORT,
        """
        select uid from outlast_task
        where agent_id is not null and (due_at is not null or finished_at is not null)
        limit :limit
        """,
    ),
    Invariant(
        "wakeups",
        "everything that waits has something that wakes it",
        "waits for nothing",
        REPORT,
        """
        select t.uid from outlast_task t
        where t.finished_at is null and t.agent_id is null and t.due_at is null
          and (t.status = 'compensating' or t.ending is null
               and (t.status = 'pending' or t.status = 'waiting' and t.wait_count is null and coalesce(t.awaits, '[]') = '[]'))
          and t.id not in (select task_id from outlast_successor)
          and not exists (select 1 from outlast_tick k where k.run_id = t.uid and k.place = 'waiting')
          and not exists (
            select 1 from outlast_outcome o join outlast_task before on before.id = o.task_id
            where o.successor_id = t.id and before.finished_at is null)
          and not (t.status = 'compensating' and exists (select 1 from outlast_stray s where s.task_id = t.id))
        limit :limit
        """,
    ),
    Invariant(
        "delivered signals",
        "nobody waits beside a signal that it would take",
        "waits for a signal that came after it had lain down: its wakeup was lost",
        "Send the signal again; make a backup, and report it.",
        """
        select t.uid from outlast_task t
        where t.status = 'waiting' and t.ending is null and t.awaits is not null
          and (t.due_at is null or t.due_at > :now)
          and exists (
            select 1 from outlast_signal s
            -- What was there before, it has looked at: that does not fit the waiting type. Of one that lay down under an
            -- earlier schema nobody knows what it has looked at.
            where s.task_id = t.id and s.taken_path is null and s.id > t.seen_signal
              and s.name in (select value from json_each(t.awaits)))
        limit :limit
        """,
    ),
    Invariant(
        "ended parts",
        "nobody waits for parts that have ended",
        "waits for more ends than it has open parts",
        REPORT,
        """
        select t.uid from outlast_task t
        where t.status = 'waiting' and t.ending is null and t.wait_count is not null
          and (t.wait_count <= 0 or t.wait_count > (
            select count(*) from outlast_task part where part.parent_id = t.id and part.finished_at is null) + (
            select count(*) from outlast_follower f join outlast_task other on other.id = f.task_id
            where f.parent_id = t.id and other.finished_at is null))
          and not (t.due_at is not null and t.due_at <= :now)
        limit :limit
        """,
    ),
    Invariant(
        "endings",
        "every ending that could be settled is",
        "its ending is decided and nothing of it is open, yet it has not ended",
        _SUPERVISE,
        """
        select t.uid from outlast_task t
        where t.ending is not null and t.finished_at is null and t.agent_id is null
          and t.status not in ('compensating', 'halted')
          and not exists (select 1 from outlast_stray s where s.task_id = t.id)
          and not exists (
            select 1 from outlast_task part
            where part.parent_id = t.id and part.finished_at is null
              and (part.kind = 'step' or t.ending <> 'completed'))
        limit :limit
        """,
    ),
    Invariant(
        "open parts",
        "no final run has an open part that should have ended with it",
        "open although its run has ended",
        REPORT,
        """
        select part.uid from outlast_task part join outlast_task t on t.id = part.parent_id
        where part.finished_at is null and t.finished_at is not null
          and (part.kind = 'step' or t.status <> 'completed')
        limit :limit
        """,
    ),
    Invariant(
        "undo plans",
        "everything that is being undone has something to undo",
        "is being undone without a compensation in its journal",
        REPORT,
        """
        select t.uid from outlast_task t
        where t.status = 'compensating' and t.finished_at is null
          and not exists (
            select 1 from outlast_journal j where j.task_id = t.id and j.event = 'started' and j.flags & 1)
        limit :limit
        """,
    ),
    Invariant(
        "claims",
        "no journal was written by a claim that has not been",
        "its journal is of a later claim than its row",
        REPORT,
        """
        select t.uid from outlast_task t
        where t.claim < (select max(j.claim) from outlast_journal j where j.task_id = t.id)
        limit :limit
        """,
    ),
    Invariant(
        "journals",
        "no journal has a gap",
        "entries of its journal are missing",
        REPORT,
        """
        select t.uid from outlast_task t
        where t.agent_id is null
          -- What a forced cancel left behind is numbered downwards from the first.
          and (select count(*) <> max(j.seq) from outlast_journal j where j.task_id = t.id and j.seq > 0)
        limit :limit
        """,
    ),
    Invariant(
        "strays",
        "every try that may still run is of an agent that may still live",
        "a try counts as running on an agent that has ended, and holds up",
        REPORT,
        """
        select coalesce(t.uid, 'task ' || s.task_id)
        from outlast_stray s
        left join outlast_task t on t.id = s.task_id
        left join outlast_agent a on a.id = s.agent_id
        where t.id is null or a.id is null or a.status in ('stopped', 'crashed')
        limit :limit
        """,
    ),
    Invariant(
        "deadlines",
        "no run is long past its deadline",
        "past its deadline, and nobody ends it",
        _SUPERVISE,
        """
        select uid from outlast_task
        where deadline_at < :before and finished_at is null and ending is null
          and status in ('pending', 'waiting')
        limit :limit
        """,
    ),
    Invariant(
        "stuck for want of code",
        "no due task waits for code that no live agent has",
        "due for long, and no live agent has the code that it needs",
        "`outlast why RUN` names the code; start an agent with it, or cancel the run.",
        """
        select t.uid from outlast_task t
        where t.due_at < :before and t.due_at is not null and t.paused_at is null
          and not exists (
            select 1 from outlast_agent_code c join outlast_agent a on a.id = c.agent_id
            where c.needs = substr(t.needs, 1, instr(t.needs || char(10), char(10)) - 1) and a.status = 'active' and a.lease_until > :now
              and (a.root_id is null or a.root_id = coalesce(t.root_id, t.id)))
          and exists (select 1 from outlast_agent a where a.status = 'active' and a.root_id is null and a.lease_until > :now)
        limit :limit
        """,
    ),
    Invariant(
        "stuck tasks",
        "nothing that an idle agent could take has been due for a minute",
        "due for long although an agent with its code has room",
        "`outlast why RUN` says more.",
        """
        select t.uid from outlast_task t join outlast_input i on i.task_id = t.id
        where t.due_at < :before and t.due_at is not null and t.paused_at is null and t.suspect = 0
          and i.refused is null
          and not exists (
            select 1 from outlast_queue q
            where q.name = t.queue
              and (q.concurrency is not null or q.rate is not null or q.per_partition is not null or q.paused_at is not null))
          and exists (
            select 1 from outlast_agent_code c join outlast_agent a on a.id = c.agent_id
            where c.needs = t.needs and a.status = 'active' and a.lease_until > :now
              and (a.root_id is null or a.root_id = coalesce(t.root_id, t.id))
              and (a.queues is null or instr(a.queues, t.queue))
              and a.slots > (select count(*) from outlast_task held where held.agent_id = a.id))
        limit :limit
        """,
    ),
    *OF_ROWS,
)

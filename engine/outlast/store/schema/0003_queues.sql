-- Queues: limits and pauses, who holds a place, the turns of partitions, the windows of starts; and runs that are held back.
-- Instants called *_at are wall microseconds, except those of outlast_queue_start, outlast_successor and outlast_debounce, and
-- all durations: those are engine time.

-- Of a task that was claimed from a queue with limits: the task whose place it uses. Its own id; with hold = 'unfinished' that of
-- the run above it in the same queue, whose place all of its tasks share.
alter table outlast_task add column slot integer;

-- Tasks with a partition lie apart, so that turns can be taken among partitions, and so that all others pay nothing for it.
drop index outlast_task_claimable;
create index outlast_task_claimable on outlast_task (queue, priority desc, needs, due_at, id)
  where due_at is not null and paused_at is null and partition is null;
create index outlast_task_turn on outlast_task (queue, priority desc, needs, partition, due_at, id)
  where due_at is not null and paused_at is null and partition is not null;
create index outlast_task_turn_due on outlast_task (queue, priority desc, needs, due_at, id)
  where due_at is not null and paused_at is null and partition is not null;

-- Places: taken by what is leased, or (hold = 'unfinished') by what has not ended; and what comes back to its place.
create index outlast_task_place on outlast_task (queue, partition) where slot is not null and agent_id is not null;
create index outlast_task_place_kept on outlast_task (queue, slot, agent_id) where slot is not null and finished_at is null;
create index outlast_task_place_due on outlast_task (queue, due_at, id)
  where slot is not null and due_at is not null and paused_at is null;

-- A queue that code has declared or a person has set. What is in `declared` and `overrides` (JSON) makes the columns after them.
create table outlast_queue (
  name text primary key,
  declared text,
  overrides text not null default '{}',
  concurrency integer check (concurrency >= 1),
  rate text,
  rate_count integer check (rate_count >= 1),
  rate_window integer check (rate_window >= 1),
  per_partition integer check (per_partition >= 1),
  hold text not null default 'running' check (hold in ('running', 'unfinished')),
  paused_at integer,
  changed_at integer not null,
  check ((rate is null) = (rate_count is null) and (rate is null) = (rate_window is null))
) strict;

-- What a claim reads first: nothing, where no queue has limits.
create index outlast_queue_limited on outlast_queue (name)
  where concurrency is not null or rate is not null or per_partition is not null or paused_at is not null;

-- Starts of a queue with a rate, by instant: how many there had been before it, and with it. So the starts of a window are the
-- difference of two numbers, however many they are.
create table outlast_queue_start (
  queue text not null,
  at integer not null,
  before integer not null,
  total integer not null,
  primary key (queue, at)
) strict, without rowid;

-- Where the turn among a queue's partitions stands: the one that was served last ('' is none).
create table outlast_turn (
  queue text primary key,
  partition text not null
) strict, without rowid;

-- A run that is held back until another of its unique key has ended; due_at is null until then, this is what it will be.
create table outlast_successor (
  task_id integer primary key,
  after_id integer not null,
  due_at integer not null
) strict;
create index outlast_successor_after on outlast_successor (after_id);

-- A run that waits for calls to settle: when the first of them came.
create table outlast_debounce (
  task_id integer primary key,
  first_at integer not null
) strict;

-- Whatever ends a run lets its successor go, in the same statement: no crash comes between, and nobody can forget it.
create trigger outlast_task_successor after update of finished_at on outlast_task
when new.unique_key is not null and new.finished_at is not null and old.finished_at is null
begin
  update outlast_task
  set due_at = max(new.ended_at, (select due_at from outlast_successor where task_id = outlast_task.id))
  where id in (select task_id from outlast_successor where after_id = new.id)
    and status = 'pending' and due_at is null and agent_id is null;
  delete from outlast_successor where after_id = new.id;
  delete from outlast_successor where task_id = new.id;
  delete from outlast_debounce where task_id = new.id;
end;

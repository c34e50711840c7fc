-- Retention: what is pruned, and how long what is kept.

-- By workflow: how long its runs are kept, where its code says so.
create table outlast_retention (
  workflow text primary key,
  seconds real not null check (seconds > 0)
) strict, without rowid;

-- Tasks that were pruned, some of whose rows are still to be deleted: a journal may be too long for one transaction. Nobody
-- sees them, since their rows in outlast_task are gone. The highest id stays here, so that it is never given again.
create table outlast_pruned (
  task_id integer primary key,
  is_gone integer not null default 0
) strict;

-- The run of this tick was pruned.
alter table outlast_tick add column run_pruned integer not null default 0;

-- Who leads to a run that is pruned, and whose retry would go on from it.
create index outlast_key_task on outlast_key (task_id);
create index outlast_outcome_successor on outlast_outcome (successor_id) where successor_id is not null;
create index outlast_inherited_uid on outlast_inherited (uid) where uid is not null;

-- While parked for a signal: the newest signal that the run had seen. A later one it would take has been missed.
alter table outlast_task add column seen_signal integer;

-- Schedules, and the ledger of their ticks. All instants here are wall microseconds: a schedule names wall time.

create table outlast_schedule (
  name text primary key,
  -- Of this making of the schedule: ids of runs derive from it, so that one made anew under an old name starts its own.
  uid text not null unique,
  workflow text not null,
  -- The rule and its options as data (Schedule.to_json). A foreign trigger is only described here; its object lives in code.
  rule text not null,
  description text not null,
  fingerprint text not null,
  -- The arguments of its runs, by name.
  input blob not null,
  source text not null check (source in ('code', 'command')),
  -- Of one from code: the file that declares it, and where that file is.
  origin text,
  origin_host text,
  -- Rises with every change of the row: whoever decides by what it has read names the revision, and loses if it is old.
  revision integer not null default 1,
  -- Every tick up to here is decided: the ledger says what became of it.
  cursor integer not null,
  -- The next tick, and when it fires (its jitter later). Null when nothing is to come, or nobody may look.
  next_tick integer,
  next_at integer,
  paused_at integer,
  pause_reason text,
  -- The end of the last pause: ticks up to here that nobody has decided yet fell into it.
  paused_until integer,
  -- It disappeared from its code; it fires no more.
  gone_at integer,
  -- Why it cannot fire, until it changes.
  error text,
  -- Ticks up to here were pruned from the ledger: nobody can say any more which of them fired.
  low_water integer,
  created_at integer not null,
  changed_at integer not null,
  check ((source = 'code') = (origin is not null)),
  check (next_at is null or (next_tick is not null and gone_at is null and error is null))
) strict;

-- What a scheduler walks: by the workflows whose code it has, the earliest first.
create index outlast_schedule_due on outlast_schedule (workflow, next_at) where next_at is not null;

-- The ledger: what became of each tick. Neighbours of one outcome share a row, from `tick` to `until`.
create table outlast_tick (
  schedule text not null,
  tick integer not null,
  -- 1: started by hand, at an instant that need not be a tick.
  by_hand integer not null default 0,
  until integer not null,
  -- Null where there are more than can be counted.
  count integer,
  outcome text not null check (outcome in ('fired', 'triggered', 'backfilled', 'coalesced', 'skipped', 'missed', 'paused')),
  reason text,
  run_id text,
  -- Of a run that the overlap rule looks at: 'waiting' stands in line until the runs before it have ended.
  place text check (place in ('open', 'waiting')),
  decided_at integer not null,
  primary key (schedule, tick, by_hand),
  check ((run_id is not null) = (outcome in ('fired', 'triggered', 'backfilled'))),
  check (run_id is null or (until = tick and count = 1)),
  check (until >= tick)
) strict, without rowid;

create index outlast_tick_open on outlast_tick (schedule, tick) where place is not null;
create index outlast_tick_waiting on outlast_tick (schedule) where place = 'waiting';
create unique index outlast_tick_run on outlast_tick (run_id) where run_id is not null;

-- The scheduler processes that are up, and the workflows whose code each has.
create table outlast_scheduler (
  uid text primary key,
  host text not null,
  boot_id text not null,
  pid integer not null,
  process_started text not null,
  workflows text not null,
  started_at integer not null,
  heartbeat_at integer not null
) strict, without rowid;

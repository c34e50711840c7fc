-- The core: tasks, what they were given and what came of them, their journals, signals and state, and the agents.
-- Instants called *_at are wall microseconds, except due_at, deadline_at, halted_at, ended_at and lease_until: those are engine time
-- (elapsed microseconds, kept across boots), since a wall clock that jumps must not move them.

create table outlast_meta (
  key text primary key,
  value text not null
) strict;

-- Engine time: elapsed microseconds since boot plus this offset. The pair (wall_at, engine_at) bridges a reboot.
create table outlast_clock (
  one integer primary key check (one = 1),
  boot_id text not null,
  elapsed_offset integer not null,
  wall_at integer not null,
  engine_at integer not null
) strict;

-- The hot row of a run or of a submitted step: small, since every change of status rewrites it.
create table outlast_task (
  id integer primary key,
  uid text not null unique,
  kind text not null check (kind in ('run', 'step')),
  name text not null,
  version text not null default '',
  queue text not null,
  partition text,
  priority integer not null default 0,
  status text not null,
  -- The code that goes on with it: workflow:NAME[@VERSION], step:NAME or compensation:NAME. Agents claim what they have.
  needs text not null,
  -- Claimable from this instant on; null while nobody may claim it.
  due_at integer,
  -- The fence: rises with each claim; every write of an agent names it.
  claim integer not null default 0,
  agent_id integer,
  -- Set by whoever has news for the leaseholder (an intent, a signal, a child's end); the holder reads and clears it.
  notice integer not null default 0,
  -- It was on an agent that crashed: it runs alone until its first journal entry.
  suspect integer not null default 0,
  alone integer not null default 0,
  crashes integer not null default 0,
  tries integer not null default 0,
  -- A parked gather: how many ends of its parts wake it, and whether one failure does.
  wait_count integer,
  wait_fails_fast integer not null default 0,
  -- While parked: the names of the signals that wake it (JSON list).
  awaits text,
  parent_id integer,
  parent_path text,
  root_id integer,
  -- The ending that was decided, while parts of the run may still be under way.
  ending text check (ending = 'completed' or ending = 'failed' or ending = 'cancelled'),
  undo text check (undo = 'completed' or undo = 'pending' or undo = 'failed' or undo = 'skipped'),
  cancel_requested_at integer,
  paused_at integer,
  unique_key text,
  deadline_at integer,
  created_at integer not null,
  started_at integer,
  finished_at integer,
  ended_at integer,
  halt_reason text,
  -- When it was halted: the deadline stands still from there on.
  halted_at integer,
  -- What goes with each status: who holds it, from when on it may be claimed, and whether it has ended. One after the other, since
  -- SQLite makes a table of each longer list of `in` for every row that it checks: that took a third of a claim and half of an end.
  constraint outlast_task_fits_its_status check (case status
    when 'running' then agent_id is not null and due_at is null and finished_at is null
    when 'completed' then agent_id is null and due_at is null and finished_at is not null
    when 'pending' then agent_id is null and finished_at is null
    when 'waiting' then agent_id is null and finished_at is null
    when 'compensating' then (agent_id is null or due_at is null) and finished_at is null
    when 'halted' then agent_id is null and due_at is null and finished_at is null and halt_reason is not null
    when 'failed' then agent_id is null and due_at is null and finished_at is not null
    when 'compensated' then agent_id is null and due_at is null and finished_at is not null
    when 'cancelled' then agent_id is null and due_at is null and finished_at is not null
    else false
  end)
) strict;

-- What a claim walks: finished, leased, halted and endlessly waiting rows are not in it.
create index outlast_task_claimable on outlast_task (queue, priority desc, needs, due_at, id)
  where due_at is not null and paused_at is null;
-- Suspects are few: looking for them must not walk a backlog of innocents.
create index outlast_task_suspect on outlast_task (queue, priority desc, needs, due_at, id)
  where suspect = 1 and due_at is not null and paused_at is null;
create index outlast_task_leased on outlast_task (agent_id) where agent_id is not null;
create index outlast_task_parent on outlast_task (parent_id, ended_at) where parent_id is not null;
create index outlast_task_deadline on outlast_task (deadline_at) where deadline_at is not null and finished_at is null;
create index outlast_task_unique on outlast_task (name, unique_key) where unique_key is not null;
-- What the supervisor looks through: the undecided, and what stands still.
create index outlast_task_ending on outlast_task (id) where ending is not null and finished_at is null;
create index outlast_task_root on outlast_task (root_id, due_at) where root_id is not null and due_at is not null;

create trigger outlast_task_legal_move before update of status on outlast_task
when old.status <> new.status and not (
      (old.status = 'pending' and (new.status = 'cancelled' or new.status = 'compensating' or new.status = 'failed' or new.status = 'halted' or new.status = 'running'))
   or (old.status = 'running' and (new.status = 'cancelled' or new.status = 'compensating' or new.status = 'completed' or new.status = 'failed' or new.status = 'halted' or new.status = 'pending' or new.status = 'waiting'))
   or (old.status = 'waiting' and (new.status = 'cancelled' or new.status = 'compensating' or new.status = 'completed' or new.status = 'failed' or new.status = 'halted' or new.status = 'pending' or new.status = 'running'))
   or (old.status = 'compensating' and (new.status = 'cancelled' or new.status = 'compensated' or new.status = 'halted'))
   or (old.status = 'halted' and (new.status = 'cancelled' or new.status = 'compensating' or new.status = 'failed' or new.status = 'pending'))
)
begin
  select raise(abort, 'illegal move of a task');
end;

-- What a task was given: written once, read at a claim.
create table outlast_input (
  task_id integer primary key,
  data blob not null,
  key text,
  tags text,
  -- The wall instant asked for by `at`; due_at is its image in engine time, set anew when the wall clock jumps.
  at_wall integer,
  tick integer,
  retry_of text,
  -- The first run of a chain of retries: the root of all idempotency keys.
  chain text not null,
  -- Of a submitted step: the idempotency key, and a policy that differs from the definition's.
  idempotency_key text,
  options text,
  timeout integer,
  max_crashes integer,
  -- Of a run: the source of the code that holds it, and the sources that disagreed with its journal (JSON list).
  fingerprint text,
  refused text
) strict;
create index outlast_input_at on outlast_input (at_wall) where at_wall is not null;

-- What came of a task: written when its ending is decided.
create table outlast_outcome (
  task_id integer primary key,
  output blob,
  error blob,
  undo_error blob,
  -- Of a run that went on by continue_as_new: the run that did.
  successor_id integer
) strict;

-- A run that another one waits for although it did not start it: a key led there.
create table outlast_follower (
  task_id integer not null,
  parent_id integer not null,
  path text not null,
  primary key (task_id, parent_id, path)
) strict, without rowid;
create index outlast_follower_parent on outlast_follower (parent_id);

-- The record of what a run has done, append only. `seq` is the order in which outcomes reach the code.
create table outlast_journal (
  task_id integer not null,
  seq integer not null,
  path text not null,
  event text not null check (
    event = 'completed' or event = 'started' or event = 'tried' or event = 'failed' or event = 'cancelled' or event = 'unknown'
    or event = 'set_aside'),
  kind text not null,
  name text not null,
  claim integer not null,
  try_number integer not null default 0,
  -- 1: a compensation exists; 2: `input` is a preview.
  flags integer not null default 0,
  started_at integer,
  at integer not null,
  -- Of a timer, a timeout or a backoff: the engine instant it is over.
  due_at integer,
  input blob,
  data blob,
  primary key (task_id, seq)
) strict, without rowid;

create table outlast_signal (
  id integer primary key,
  task_id integer not null,
  name text not null,
  key text,
  payload blob not null,
  created_at integer not null,
  -- The place that took it; null while it is unread.
  taken_path text
) strict;
create index outlast_signal_unread on outlast_signal (task_id, name, id) where taken_path is null;
create unique index outlast_signal_key on outlast_signal (task_id, name, key) where key is not null;

create table outlast_published (
  task_id integer not null,
  key text not null,
  value blob not null,
  at integer not null,
  primary key (task_id, key)
) strict, without rowid;

create table outlast_stream (
  task_id integer not null,
  stream text not null,
  number integer not null,
  value blob not null,
  at integer not null,
  step text,
  try_number integer,
  primary key (task_id, stream, number)
) strict, without rowid;

-- The idempotency key of a start leads to the newest run of its chain.
create table outlast_key (
  workflow text not null,
  key text not null,
  task_id integer not null,
  primary key (workflow, key)
) strict, without rowid;

-- A process that claims. Its lease covers every task that names it; one row is renewed, not each task.
create table outlast_agent (
  id integer primary key,
  uid text not null unique,
  host text not null,
  boot_id text not null,
  pid integer not null,
  process_started text not null,
  slots integer not null,
  queues text,
  status text not null check (status in ('active', 'draining', 'stopped', 'lost', 'crashed')),
  -- Set by a supervisor that saw it hang and killed it: such an end is a crash.
  hung integer not null default 0,
  lease_until integer not null,
  started_at integer not null,
  heartbeat_at integer not null
) strict;
create index outlast_agent_live on outlast_agent (lease_until) where status in ('active', 'draining');

-- The code that an agent has: what it may claim, and the fingerprint of each definition's source.
create table outlast_agent_code (
  agent_id integer not null,
  needs text not null,
  fingerprint text not null,
  primary key (agent_id, needs)
) strict, without rowid;
create index outlast_agent_code_needs on outlast_agent_code (needs);

-- A try that may still be under way although its task has moved on: in a thread that overran, or on an agent whose lease
-- was lost while its process could not be seen dead. An ending waits for it.
create table outlast_stray (
  task_id integer not null,
  agent_id integer not null,
  path text not null default '',
  since_at integer not null,
  primary key (task_id, agent_id, path)
) strict, without rowid;
create index outlast_stray_agent on outlast_stray (agent_id);

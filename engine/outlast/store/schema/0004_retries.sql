-- Retries of whole runs: what a new run takes over from the one that it retries.

-- Of a run that ended by an error of its own: the outcomes behind that error, and the branches that saw it (JSON).
alter table outlast_outcome add column aside text;

-- What a retry has not taken into its own journal yet: by place, the result that stands there for equal input. The code takes
-- it instead of executing anything; what it never reaches is left to the next retry of the chain.
create table outlast_inherited (
  task_id integer not null,
  path text not null,
  kind text not null,
  name text not null,
  -- The order in which outcomes had reached the code.
  seq integer not null,
  -- Null: no result, only the number or the run beside it.
  event text check (event in ('completed', 'failed')),
  -- How many finished results were set aside here before: part of the idempotency key.
  generation integer not null default 0,
  try_number integer not null default 0,
  flags integer not null default 0,
  started_at integer,
  at integer not null,
  -- Of a child, and of a submitted step: its id.
  uid text,
  input blob,
  data blob,
  primary key (task_id, path)
) strict, without rowid;

create index outlast_input_chain on outlast_input (chain) where retry_of is not null;

-- Of an agent that works on one run and its parts alone (`outlast run`): that run. To all others it is as if it were not there.
alter table outlast_agent add column root_id integer;

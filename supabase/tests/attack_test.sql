-- A stranger with a login, who may insert rows and make temporary objects, gets no code run with rights that it has not: not
-- by types in pg_temp, not by a trigger on pg_net's queue, not by calling pg_net first. All of it is rolled back.
begin;
create extension if not exists pgtap with schema extensions;
-- pg_temp last, so that pgTAP itself is not deceived.
set local search_path = pg_catalog, public, extensions, pg_temp;
select plan(13);

-- Vault as an event needs it, so that the attack meets the whole of our code.
do $$
begin
  if not exists (select from vault.secrets where name = 'tripwire_webhook_secret') then
    perform vault.create_secret('whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=', 'tripwire_webhook_secret');
  end if;
  if not exists (select from vault.secrets where name = 'tripwire_webhook_url') then
    perform vault.create_secret('https://sync.example.org/webhooks/supabase', 'tripwire_webhook_url');
  end if;
end
$$;

create role tripwire_stranger nologin;
grant usage on schema public to tripwire_stranger;
grant insert (full_name, email) on public.tripwire_users to tripwire_stranger;
create policy tripwire_stranger on public.tripwire_users for insert to tripwire_stranger with check (true);
grant tripwire_stranger to current_user;
-- More than a stranger has: all that the service may call, of whatever migration.
do $$
declare
  callable regprocedure;
begin
  for callable in
    select oid from pg_proc where pronamespace = 'public'::regnamespace and proname ~ '^tripwire_sync_'
  loop
    execute format('grant execute on function %s to tripwire_stranger', callable);
  end loop;
end
$$;

-- Counts how often the stranger's code ran as a role that may do more: all but itself and the one without rights. A sequence, since no rollback takes its number back.
create temporary sequence hits minvalue 0 start 0;
do $$ begin perform nextval('hits'); end $$;
grant usage, select on sequence hits to public;

create function pg_temp.attack(statement text) returns bigint
language plpgsql
as $$
declare
  before bigint := (select last_value from hits);
begin
  -- An event that could not be sent keeps others of its transaction from being tried.
  perform set_config('tripwire_sync.gave_up', '', true);
  begin
    perform set_config('role', 'tripwire_stranger', true);
    execute statement;
    perform set_config('role', 'none', true);
  exception
    -- What is refused has not run either.
    when others then null;
  end;
  return (select last_value from hits) - before;
end
$$;

set local role tripwire_stranger;

create function pg_temp.spy(anyelement) returns boolean
language plpgsql
as $$
begin
  if current_user not in ('tripwire_stranger', 'tripwire_sync_sender') then
    perform nextval('pg_temp.hits');
  end if;
  return true;
end
$$;

create function pg_temp.spy_on_queue() returns trigger
language plpgsql
as $$
begin
  if current_user not in ('tripwire_stranger', 'tripwire_sync_sender') then
    perform nextval('pg_temp.hits');
  end if;
  return new;
end
$$;

-- Every type of our functions, and some more.
do $$
declare
  imitated text;
begin
  foreach imitated in array array['text', 'jsonb', 'bytea', 'uuid', 'int8', 'int4', 'bool', 'name', 'regclass', 'timestamptz',
                                  'interval', 'numeric', 'oid', '_text'] loop
    execute format('create domain pg_temp.%I as pg_catalog.%I check (pg_temp.spy(value))', imitated, imitated);
  end loop;
end
$$;

reset role;

-- A function keeps the types of its first call in a session, whatever they are called later.
select is(
  pg_temp.attack($$
    set local search_path = pg_temp, pg_catalog;
    select net.http_post('https://sync.example.org', '{}', '{}', '{"Content-Type": "application/json"}', 1000);
    set local search_path = pg_catalog, public, extensions, pg_temp$$),
  0::bigint, 'the stranger calls pg_net first, if pg_net lets it');
select is(pg_temp.attack(statement), 0::bigint, 'a stranger''s types do nothing to: ' || statement)
  from unnest(array[
    $$insert into public.tripwire_users (full_name, email) values ('a', 'stranger-1@example.org')$$,
    $$select public.tripwire_sync_lease('stranger', 60)$$,
    $$select public.tripwire_sync_doctor()$$,
    $$select public.tripwire_sync_test_event('0123456789abcdef0123456789abcdef')$$,
    $$select public.tripwire_sync_test_result(1)$$
  ]) as statement;

do $$
begin
  perform pg_temp.attack(format('alter domain pg_temp.%I rename to %I', name, 'renamed_' || name))
     from unnest(array['text', '_text', 'jsonb', 'int8']) as name;
end
$$;
select is(
  pg_temp.attack($$insert into public.tripwire_users (full_name, email) values ('b', 'stranger-2@example.org')$$),
  0::bigint, 'the stranger''s types that pg_net has kept do nothing');

-- Where pg_net lets a stranger do it.
select is(
  pg_temp.attack(format('create trigger %s on net.http_request_queue %s', name, action)), 0::bigint,
  'the stranger puts a trigger on the queue, if pg_net lets it: ' || name)
  from (values
    ('spy before insert', 'for each row execute function pg_temp.spy_on_queue()'),
    ('spy_of_a_condition before insert', 'for each row when (pg_temp.spy(new.id)) execute function suppress_redundant_updates_trigger()')
  ) as triggers (name, action);
select is(pg_temp.attack(statement), 0::bigint, 'a stranger''s trigger on the queue does nothing to: ' || statement)
  from unnest(array[
    $$insert into public.tripwire_users (full_name, email) values ('c', 'stranger-3@example.org')$$,
    $$select public.tripwire_sync_test_event('0123456789abcdef0123456789abcdef')$$
  ]) as statement;
select is(
  (select count(*) from public.tripwire_users where email ~ '^stranger-[123]@example.org$'), 3::bigint, 'the inserts themselves passed');

select is(
  array(select proname::text from pg_proc
         where (pronamespace = 'tripwire_sync'::regnamespace or proname ~ '^tripwire_sync_')
           and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)),
  '{}'::text[],
  'every function of ours looks in pg_catalog first and in pg_temp last');

select * from finish();
rollback;

-- tripwire-sync: tells the service about every new row of public.tripwire_users.
--
-- Run it with `supabase db push`, or paste the whole file into the SQL editor of the dashboard (role postgres).
-- It may be run again at any time. `supabase/down.sql` takes it all back.

-- Before anything is changed: is this the right project, and is what we build on there?
do $$
declare
  missing text;
  pgcrypto_schema text;
begin
  if to_regclass('public.tripwire_users') is null then
    raise exception 'public.tripwire_users does not exist'
      using hint = 'Is this the Supabase project of the Tripwire platform?';
  end if;

  -- Another project of the same school has a table of this name with other columns.
  select string_agg(needed, ', ')
    into missing
    from unnest(array['id', 'email', 'full_name', 'created_at']) as needed
   where not exists (
     select from pg_attribute
      where attrelid = 'public.tripwire_users'::regclass
        and attname = needed);
  if missing is not null then
    raise exception 'public.tripwire_users has no column %', missing
      using hint = 'Is this the Supabase project of the Tripwire platform?';
  end if;

  if exists (select from pg_available_extensions where name = 'pg_net') then
    create extension if not exists pg_net with schema extensions;
  else
    raise notice 'the extension pg_net is not available: no event is sent, the service finds new rows by its sweep';
  end if;

  select nspname
    into pgcrypto_schema
    from pg_extension
    join pg_namespace on pg_namespace.oid = extnamespace
   where extname = 'pgcrypto';
  if pgcrypto_schema is null then
    create extension pgcrypto with schema extensions;
  elsif pgcrypto_schema <> 'extensions' then
    raise exception 'the extension pgcrypto is in the schema %, not in extensions', pgcrypto_schema
      using hint = 'If nothing else relies on it: alter extension pgcrypto set schema extensions;';
  end if;
end
$$;

-- Not exposed by the Data API, and nobody but its owner may enter.
create schema if not exists tripwire_sync;
revoke all on schema tripwire_sync from public, anon, authenticated, service_role;

-- The lease: of all services that accept events, one works on amoCRM.

create table if not exists tripwire_sync.lease (
  only_row boolean primary key default true check (only_row),
  held_by text not null,
  held_until timestamptz not null
);
revoke all on tripwire_sync.lease from public, anon, authenticated, service_role;

create or replace function public.tripwire_sync_lease(holder text, seconds integer)
returns boolean
language plpgsql
security definer
set search_path = ''
as $$
begin
  if holder is null or length(holder) not between 1 and 200 then
    raise exception 'holder must have 1 to 200 characters' using errcode = '22023';
  end if;
  if seconds is null or seconds not between 0 and 3600 then
    raise exception 'seconds must be between 0 and 3600' using errcode = '22023';
  end if;

  if seconds = 0 then
    update tripwire_sync.lease set held_until = clock_timestamp() where held_by = holder;
    return found;
  end if;

  -- One statement: whoever waits here for another caller's commit sees that caller's row, and the time after the wait.
  insert into tripwire_sync.lease as current (held_by, held_until)
  values (holder, clock_timestamp() + make_interval(secs => seconds))
  on conflict (only_row) do update
     set held_by = excluded.held_by, held_until = excluded.held_until
   where current.held_by = excluded.held_by
      or current.held_until <= clock_timestamp();
  return found;
end
$$;

comment on function public.tripwire_sync_lease(text, integer) is
  'tripwire-sync: true when the lease is granted or renewed for so many seconds; with 0, true when it was given back';

revoke all on function public.tripwire_sync_lease(text, integer) from public, anon, authenticated;
grant execute on function public.tripwire_sync_lease(text, integer) to service_role;

-- The event: signed as Standard Webhooks asks, handed to pg_net, and never a reason for an insert to fail.

create or replace function tripwire_sync.notify_insert()
returns trigger
language plpgsql
security definer
set search_path = ''
set lock_timeout = '500ms'
as $$
declare
  endpoint text;
  secrets text;
  payload jsonb;
  message_id text;
  sent_at text;
  signatures text;
  trouble text;
begin
  -- One failure is enough for a transaction: 5,000 imported rows must not wait 5,000 times for a locked table.
  if current_setting('tripwire_sync.gave_up', true) = 'yes' then
    return null;
  end if;

  begin
    select btrim(max(decrypted_secret) filter (where name = 'tripwire_webhook_url'), e' \t\r\n'),
           max(decrypted_secret) filter (where name = 'tripwire_webhook_secret')
      into endpoint, secrets
      from vault.decrypted_secrets
     where name in ('tripwire_webhook_url', 'tripwire_webhook_secret');

    -- Ids only: every role of the database may read pg_net's queue. The service reads the row itself.
    payload := jsonb_build_object(
      'type', tg_op,
      'table', tg_table_name,
      'schema', tg_table_schema,
      'record', jsonb_build_object('id', new.id, 'created_at', new.created_at),
      'old_record', null);
    message_id := 'msg_' || gen_random_uuid();
    sent_at := floor(extract(epoch from clock_timestamp()))::bigint::text;

    -- pg_net sends payload::text, so that text is what is signed: once with each secret of 24 bytes or more.
    select string_agg(
             'v1,' || encode(
               extensions.hmac(
                 convert_to(message_id || '.' || sent_at || '.' || payload::text, 'UTF8'),
                 decode(substr(secret, length('whsec_') + 1), 'base64'),
                 'sha256'),
               'base64'),
             ' ' order by place)
      into signatures
      from regexp_split_to_table(secrets, '[[:space:],]+') with ordinality as parts (secret, place)
     where secret ~ '^whsec_([A-Za-z0-9+/]{4}){8,}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$';

    if signatures is null then
      trouble := 'Vault has no usable tripwire_webhook_secret';
    elsif endpoint is null or endpoint !~* '^https?://[^[:space:]/]+' or endpoint ~ '[[:space:]]' then
      trouble := 'Vault has no usable tripwire_webhook_url';
    else
      perform net.http_post(
        url := endpoint,
        body := payload,
        headers := jsonb_build_object(
          'Content-Type', 'application/json',
          'webhook-id', message_id,
          'webhook-timestamp', sent_at,
          'webhook-signature', signatures),
        timeout_milliseconds := 5000);
    end if;
  exception
    -- Not a cancelled statement: `others` leaves that to whoever cancelled it.
    when others then
      -- The code only: a message may quote what it failed on.
      trouble := 'SQLSTATE ' || sqlstate;
  end;

  if trouble is not null then
    perform set_config('tripwire_sync.gave_up', 'yes', true);
    raise warning 'tripwire-sync: no event for new rows of this transaction (%), the sweep will find them', trouble;
  end if;
  return null;
end
$$;

comment on function tripwire_sync.notify_insert() is
  'tripwire-sync: sends a signed event for a new row through pg_net; on any failure of its own it only warns';

-- Default privileges may have granted it; a trigger needs no grant to fire.
revoke all on function tripwire_sync.notify_insert() from public, anon, authenticated, service_role;

-- The table itself comes last: from here on its inserts wait for our commit.

do $$
declare
  wanted text;
begin
  -- Better to fail and be run again than to stand in somebody's way; ends with this transaction.
  perform set_config('lock_timeout', '2s', true);

  foreach wanted in array array['amocrm_deal_id', 'amocrm_contact_id'] loop
    if not exists (
      select from pg_attribute
       where attrelid = 'public.tripwire_users'::regclass
         and attname = wanted)
    then
      execute format('alter table public.tripwire_users add column %I text', wanted);
    end if;
  end loop;

  -- The sweep pages through rows without a deal in the order of their ids.
  if to_regclass('public.tripwire_users_without_deal_idx') is null then
    create index tripwire_users_without_deal_idx on public.tripwire_users (id) where amocrm_deal_id is null;
  end if;

  -- INSERT only: the deal's id that we write back is an UPDATE and must not call us again.
  create or replace trigger tripwire_sync_notify
    after insert on public.tripwire_users
    for each row
    execute function tripwire_sync.notify_insert();
end
$$;

notify pgrst, 'reload schema';

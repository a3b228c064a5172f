-- tripwire-sync: tells the service about every new row of public.tripwire_users.
--
-- Run it with `supabase db push`, or paste the SQL of `tripwire-sync setup-sql` into the SQL editor (role postgres).
-- It is whole: it sets up a new project, upgrades one that has an earlier migration, and may be run again at any time.
-- `supabase/down.sql` takes it all back.
--
-- Every function and block below sets `search_path = pg_catalog, pg_temp`. With an empty one pg_temp comes first for types,
-- and a login could make our functions, which run as postgres, call its own: it needs only a domain pg_temp.text. With this
-- one a name without a schema is one of Postgres itself, and nothing else.

-- Before anything is changed: is this the right project, and is what we build on there?
do $$
declare
  missing text;
  id_type text;
  pgcrypto_schema text;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

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
        and attname = needed
        and not attisdropped);
  if missing is not null then
    raise exception 'public.tripwire_users has no column %', missing
      using hint = 'Is this the Supabase project of the Tripwire platform?';
  end if;

  -- A domain counts as what it is made of.
  with recursive layers (type) as (
    select atttypid from pg_attribute where attrelid = 'public.tripwire_users'::regclass and attname = 'id'
    union all
    select typbasetype from pg_type join layers on oid = type where typbasetype <> 0
  )
  select format_type(max(type) filter (where typbasetype = 0), null)
    into id_type
    from layers
    join pg_type on oid = type;
  if id_type <> 'uuid' then
    raise exception 'public.tripwire_users.id is of the type %, and the service needs uuid', id_type
      using hint = 'Is this the Supabase project of the Tripwire platform? Nothing was changed.';
  end if;

  if exists (select from pg_available_extensions where name = 'pg_net') then
    create extension if not exists pg_net with schema extensions;
  else
    raise notice 'the extension pg_net is not available: no event is sent, the service finds new rows by its sweep';
  end if;

  if to_regclass('vault.decrypted_secrets') is null then
    begin
      create extension if not exists supabase_vault cascade;
    exception
      when others then
        raise notice 'Supabase Vault could not be switched on (SQLSTATE %): switch on Database, Extensions, supabase_vault, or no event is sent', sqlstate;
    end;
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

-- The role whose token the service carries, with rights to what it does and to nothing else. PostgREST takes it on, so it
-- neither logs in nor inherits.
do $$
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

  if not exists (select from pg_roles where rolname = 'tripwire_sync') then
    -- No further attributes: to name one of a superuser's, even to deny it, is a superuser's right.
    create role tripwire_sync nologin noinherit;
  end if;

  -- Up to Postgres 15 CREATEROLE is enough to grant it. From 16 on it takes ADMIN OPTION, which comes with creating the
  -- role; the question first lets an operator who did not create it run this again.
  if not pg_has_role('authenticator', 'tripwire_sync', 'member') then
    grant tripwire_sync to authenticator;
  end if;
end
$$;
grant usage on schema public to tripwire_sync;

-- The role that hands events to pg_net, and has no right of its own. pg_net runs with the rights of its caller, and every
-- login can make it run that login's code: by types in the session's temporary schema, which a function keeps from its first
-- call on, and by a trigger on its queue. That code finds nothing to do here.
do $$
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

  if not exists (select from pg_roles where rolname = 'tripwire_sync_sender') then
    create role tripwire_sync_sender nologin noinherit;
  end if;
end
$$;

-- Not exposed by the Data API, and closed to all but its owner.
create schema if not exists tripwire_sync;
revoke all on schema tripwire_sync from public, anon, authenticated, service_role, tripwire_sync, tripwire_sync_sender;

-- The lease: of all services that accept events, one works on amoCRM.

create table if not exists tripwire_sync.lease (
  only_row boolean primary key default true check (only_row),
  held_by text not null,
  held_until timestamptz not null
);
revoke all on tripwire_sync.lease from public, anon, authenticated, service_role, tripwire_sync;

create or replace function public.tripwire_sync_lease(holder text, seconds integer)
returns boolean
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
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

  -- One statement: a caller that waits here for another caller's commit sees that caller's row, and the time after the wait.
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
grant execute on function public.tripwire_sync_lease(text, integer) to tripwire_sync, service_role;

-- How Vault's two entries are read: in one place, for the trigger, the test event and the doctor.

-- The URL is null unless pg_net could make something of it.
create or replace function tripwire_sync.read_vault(out endpoint text, out secrets text)
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  select btrim(max(decrypted_secret) filter (where name = 'tripwire_webhook_url'), e' \t\r\n'),
         max(decrypted_secret) filter (where name = 'tripwire_webhook_secret')
    into endpoint, secrets
    from vault.decrypted_secrets
   where name in ('tripwire_webhook_url', 'tripwire_webhook_secret');

  if endpoint !~* '^https?://[^[:space:]/]+' or endpoint ~ '[[:space:]]' then
    endpoint := null;
  end if;
end
$$;

-- The content's HMAC with each secret that is whsec_ and the base64 of 24 bytes or more, in their order.
create or replace function tripwire_sync.macs(secrets text, content text)
returns bytea[]
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select extensions.hmac(
             convert_to(content, 'UTF8'),
             decode(substr(secret, length('whsec_') + 1), 'base64'),
             'sha256')
      from regexp_split_to_table(secrets, '[[:space:],]+') with ordinality as parts (secret, place)
     where secret ~ '^whsec_([A-Za-z0-9+/]{4}){8,}([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$'
     order by place);
end
$$;

-- The call of pg_net. Only its owner and the function below may execute it. To give it to another owner takes membership and
-- a right in the schema, for that moment.
grant tripwire_sync_sender to current_user;
grant usage, create on schema tripwire_sync to tripwire_sync_sender;

create or replace function tripwire_sync.queue_request(endpoint text, payload jsonb, headers jsonb)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- By name, each of them: versions differ in their defaults.
  return net.http_post(
    url := endpoint,
    body := payload,
    params := '{}',
    headers := queue_request.headers,
    timeout_milliseconds := 5000);
end
$$;

alter function tripwire_sync.queue_request(text, jsonb, jsonb) owner to tripwire_sync_sender;
revoke all on function tripwire_sync.queue_request(text, jsonb, jsonb)
  from public, anon, authenticated, service_role, tripwire_sync;
grant execute on function tripwire_sync.queue_request(text, jsonb, jsonb) to current_user;
revoke all on schema tripwire_sync from tripwire_sync_sender;
revoke tripwire_sync_sender from current_user;

-- The event: signed as Standard Webhooks asks, and handed to pg_net. Never fails: either `request_id` is pg_net's, or
-- `trouble` says why there is none, and `is_signed` whether Vault or pg_net is the part to look at.
create or replace function tripwire_sync.send_event(
  event_type text,
  record jsonb,
  out request_id bigint,
  out trouble text,
  out is_signed boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
  entries record;
  payload jsonb;
  message_id text;
  sent_at text;
  signatures text;
  headers jsonb;
begin
  is_signed := false;
  begin
    entries := tripwire_sync.read_vault();

    payload := jsonb_build_object(
      'type', event_type,
      'table', 'tripwire_users',
      'schema', 'public',
      'record', record,
      'old_record', null);
    message_id := 'msg_' || gen_random_uuid();
    sent_at := floor(extract(epoch from clock_timestamp()))::bigint::text;

    -- pg_net sends payload::text, so that text is what is signed: once with each secret, while one is being replaced.
    select string_agg('v1,' || encode(mac, 'base64'), ' ' order by place)
      into signatures
      from unnest(tripwire_sync.macs(entries.secrets, message_id || '.' || sent_at || '.' || payload::text))
           with ordinality as signed (mac, place);

    if signatures is null then
      trouble := 'Vault has no usable tripwire_webhook_secret';
    elsif entries.endpoint is null then
      trouble := 'Vault has no usable tripwire_webhook_url';
    else
      is_signed := true;
      headers := jsonb_build_object(
        'Content-Type', 'application/json',
        'webhook-id', message_id,
        'webhook-timestamp', sent_at,
        'webhook-signature', signatures);

      if not coalesce((
        select prosecdef from pg_proc
         where oid = to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)')), false)
      then
        request_id := tripwire_sync.queue_request(entries.endpoint, payload, headers);
      -- Up to pg_net 0.11 the platform has it run as its owner, a superuser, with pg_temp first for types.
      elsif exists (
        select from pg_type as temporary
          join pg_type as real using (typname)
         where temporary.typnamespace = pg_my_temp_schema()
           and real.typnamespace = 'pg_catalog'::regnamespace)
      then
        trouble := 'this session has temporary types with names of Postgres''s own';
      else
        request_id := net.http_post(
          url := entries.endpoint,
          body := payload,
          params := '{}',
          headers := headers,
          timeout_milliseconds := 5000);
      end if;
    end if;
  exception
    -- Not a cancelled statement: `others` leaves that to its caller.
    when others then
      -- The code only: a message may quote what it failed on.
      trouble := 'SQLSTATE ' || sqlstate;
  end;
end
$$;

-- The trigger: never a reason for an insert to fail.
create or replace function tripwire_sync.notify_insert()
returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
  sent record;
  trouble text;
begin
  -- One failure is enough for a transaction: 5,000 imported rows must not wait 5,000 times for a locked table.
  if current_setting('tripwire_sync.gave_up', true) = 'yes' then
    return null;
  end if;

  begin
    -- Ids only: every role of the database may read pg_net's queue. The service reads the row itself.
    sent := tripwire_sync.send_event('INSERT', jsonb_build_object('id', new.id, 'created_at', new.created_at));
    trouble := sent.trouble;
  exception
    -- The table has lost a column, or a function of ours was dropped.
    when others then
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

-- The test event: by the trigger's own way, so that `tripwire-sync check` sees each part of it work.

create table if not exists tripwire_sync.test_event (
  only_row boolean primary key default true check (only_row),
  sent_at timestamptz not null,
  request_id bigint
);
revoke all on tripwire_sync.test_event from public, anon, authenticated, service_role, tripwire_sync;

-- pg_net's id of the request. TW001: not signed. TW002: not queued. TW003: another was sent less than ten seconds ago.
create or replace function public.tripwire_sync_test_event(nonce text)
returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
  sent record;
begin
  if nonce is null or nonce !~ '^[0-9a-f]{32}$' then
    raise exception 'nonce must be 32 hex digits' using errcode = '22023';
  end if;

  -- A time to come is that of a clock that was put back.
  insert into tripwire_sync.test_event as last (sent_at)
  values (clock_timestamp())
  on conflict (only_row) do update
     set sent_at = excluded.sent_at, request_id = null
   where last.sent_at not between clock_timestamp() - interval '10 seconds' and clock_timestamp();
  if not found then
    raise exception 'another test event was sent less than ten seconds ago' using errcode = 'TW003';
  end if;

  sent := tripwire_sync.send_event('TEST', jsonb_build_object('nonce', nonce));
  if sent.trouble is not null then
    raise exception '%', sent.trouble using errcode = case when sent.is_signed then 'TW002' else 'TW001' end;
  end if;
  -- With a WHERE: the platform refuses an update without one.
  update tripwire_sync.test_event set request_id = sent.request_id where only_row;
  return sent.request_id;
end
$$;

comment on function public.tripwire_sync_test_event(text) is
  'tripwire-sync: sends an event of the type TEST as the trigger sends its own; one in ten seconds';

revoke all on function public.tripwire_sync_test_event(text) from public, anon, authenticated;
grant execute on function public.tripwire_sync_test_event(text) to tripwire_sync, service_role;

-- What has become of the last test event: `queued` behind so many, `answered`, or `unknown`. Of other requests it tells nothing.
create or replace function public.tripwire_sync_test_result(id bigint)
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
declare
  result jsonb;
begin
  if not exists (select from tripwire_sync.test_event as last where last.request_id = tripwire_sync_test_result.id) then
    return jsonb '{"state": "unknown"}';
  end if;

  -- The answer first: pg_net 0.2 keeps in its queue what it has sent.
  select jsonb_build_object(
           'state', 'answered',
           'status', response.status_code,
           'timed_out', coalesce(response.timed_out, false),
           'error', left(response.error_msg, 200),
           'content', left(response.content, 200))
    into result
    from net._http_response as response
   where response.id = tripwire_sync_test_result.id;
  if found then
    return result;
  end if;

  select jsonb_build_object(
           'state', 'queued',
           'ahead', (
             select count(*)
               from net.http_request_queue as earlier
              where earlier.id < request.id
                and not exists (select from net._http_response as response where response.id = earlier.id)))
    into result
    from net.http_request_queue as request
   where request.id = tripwire_sync_test_result.id;
  return coalesce(result, jsonb '{"state": "unknown"}');
end
$$;

comment on function public.tripwire_sync_test_result(bigint) is
  'tripwire-sync: what has become of the last test event';

revoke all on function public.tripwire_sync_test_result(bigint) from public, anon, authenticated;
grant execute on function public.tripwire_sync_test_result(bigint) to tripwire_sync, service_role;

-- Default privileges may have granted them; a trigger needs no grant to fire.
revoke all on function tripwire_sync.read_vault(), tripwire_sync.macs(text, text), tripwire_sync.send_event(text, jsonb),
  tripwire_sync.notify_insert()
  from public, anon, authenticated, service_role, tripwire_sync, tripwire_sync_sender;

-- The doctor: what `tripwire-sync check` has to know and the service's role cannot see. No secret, no row.

create or replace function public.tripwire_sync_doctor()
returns jsonb
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set lock_timeout = '500ms'
as $$
declare
  -- The role of the request, as PostgREST has set it: in here current_user is this function's owner.
  caller text := coalesce(nullif(current_setting('role', true), 'none'), session_user);
  students regclass := to_regclass('public.tripwire_users');
  endpoint text;
  secrets text;
  -- Each part below fills in its own and is guarded: one that cannot be looked at stays as it is here.
  findings jsonb := jsonb '{
    "version": 2,
    "columns": [],
    "id_type": null,
    "rls": false,
    "caller": {"name": null, "bypasses_rls": false, "may_select": [], "may_update": [],
               "select_policy": false, "update_policy": false},
    "role": {"exists": false, "granted_to_authenticator": false},
    "trigger": {"present": false, "enabled": false, "insert_only": false, "ours": false},
    "dashboard_webhooks": [],
    "pg_net": null,
    "queued": null,
    "sender": {"update_to": null, "preloaded": null, "other_database": null, "workers": null},
    "vault": {"url": null, "url_path": null, "fingerprints": [], "unusable": 0, "error": null},
    "lease": null
  }';
begin
  findings := findings || jsonb_build_object('now', statement_timestamp());

  begin
    findings := findings || (
      select jsonb_build_object(
               'columns', coalesce(jsonb_agg(attname order by attnum), '[]'),
               'rls', coalesce(bool_or(relrowsecurity), false))
        from pg_attribute
        join pg_class on pg_class.oid = attrelid
       where attrelid = students and attnum > 0 and not attisdropped);

    findings := findings || (
      with recursive layers (type) as (
        select atttypid from pg_attribute where attrelid = students and attname = 'id'
        union all
        select typbasetype from pg_type join layers on oid = type where typbasetype <> 0
      )
      select jsonb_build_object('id_type', format_type(max(type) filter (where typbasetype = 0), null))
        from layers
        join pg_type on oid = type);

    findings := findings || jsonb_build_object('caller', (
      select jsonb_build_object(
               'name', rolname,
               'bypasses_rls', rolbypassrls or rolsuper,
               'may_select', array(
                 select attname from pg_attribute
                  where attrelid = students and attnum > 0 and not attisdropped
                    and has_column_privilege(rolname, students, attnum, 'select')
                  order by attnum),
               'may_update', array(
                 select attname from pg_attribute
                  where attrelid = students and attnum > 0 and not attisdropped
                    and has_column_privilege(rolname, students, attnum, 'update')
                  order by attnum),
               'select_policy', coalesce('r' = any (commands) or '*' = any (commands), false),
               'update_policy', coalesce('w' = any (commands) or '*' = any (commands), false))
        from pg_roles,
             lateral (
               select array_agg(polcmd) as commands
                 from pg_policy
                where polrelid = students
                  and polpermissive
                  and exists (
                    select from unnest(polroles) as granted
                     where granted = 0 or pg_has_role(rolname, granted, 'usage'))) as policies
       where rolname = caller));

    findings := findings || jsonb_build_object('role', (
      select jsonb_build_object(
               'exists', count(*) > 0,
               'granted_to_authenticator', coalesce(bool_or(pg_has_role('authenticator', oid, 'member')), false))
        from pg_roles
       where rolname = 'tripwire_sync'));

    findings := findings || jsonb_build_object('trigger', (
      select jsonb_build_object(
               'present', count(*) > 0,
               'enabled', coalesce(bool_or(tgenabled in ('O', 'A')), false),
               -- The bits of INSERT, DELETE, UPDATE and TRUNCATE: only the first is set.
               'insert_only', coalesce(bool_or(tgtype & (4 | 8 | 16 | 32) = 4), false),
               'ours', coalesce(bool_or(tgfoid = to_regprocedure('tripwire_sync.notify_insert()')), false))
        from pg_trigger
       where tgrelid = students and tgname = 'tripwire_sync_notify'));

    findings := findings || (
      select jsonb_build_object('dashboard_webhooks', coalesce(jsonb_agg(tgname order by tgname), '[]'))
        from pg_trigger
        join pg_proc on pg_proc.oid = tgfoid
        join pg_namespace on pg_namespace.oid = pronamespace
       where tgrelid = students and nspname = 'supabase_functions' and proname = 'http_request');

    findings := findings || (
      select jsonb_build_object('pg_net', max(extversion)) from pg_extension where extname = 'pg_net');
  exception
    when others then null;
  end;

  begin
    select vault.endpoint, vault.secrets into endpoint, secrets from tripwire_sync.read_vault() as vault;
    findings := jsonb_set(findings, '{vault}', findings -> 'vault' || jsonb_build_object(
      -- Without what could be a secret in it: a name and password, a query.
      'url', regexp_replace(substring(endpoint from '^[^/]+//[^/?#]+'), '//.*@', '//'),
      'url_path', substring(endpoint from '^[^/]+//[^/?#]+([^?#]*)')));

    -- The service computes the same from its own secret, and the secret cannot be computed from it. It can never pass for a
    -- signature: what is signed has dots in it.
    findings := jsonb_set(findings, '{vault}', findings -> 'vault' || (
      select jsonb_build_object(
               'fingerprints', coalesce(jsonb_agg(left(encode(mac, 'hex'), 16) order by place), '[]'),
               'unusable', (
                 select count(*) from regexp_split_to_table(secrets, '[[:space:],]+') as secret
                  where secret <> '') - count(*))
        from unnest(tripwire_sync.macs(secrets, 'tripwire-sync doctor')) with ordinality as signed (mac, place)));
  exception
    when others then
      findings := jsonb_set(findings, '{vault,error}', to_jsonb('SQLSTATE ' || sqlstate));
  end;

  -- Requests that wait: pg_net 0.2 keeps in its queue what it has sent.
  begin
    if endpoint is not null then
      findings := findings || (
        select jsonb_build_object('queued', count(*))
          from net.http_request_queue as request
         where request.url = endpoint
           and not exists (select from net._http_response as response where response.id = request.id));
    end if;
  exception
    when others then null;
  end;

  -- Why pg_net may not send what it has queued. Each for itself: what one may not see the next may.
  begin
    findings := jsonb_set(findings, '{sender}', findings -> 'sender' || jsonb_build_object(
      'update_to', (
        select default_version from pg_available_extensions
         where name = 'pg_net' and installed_version <> default_version),
      'other_database', nullif(current_setting('pg_net.database_name', true), current_database())));
  exception
    when others then null;
  end;
  begin
    -- Called `pg_net worker`, and with its version in it since. Without the right to see other sessions their kinds are null.
    findings := jsonb_set(findings, '{sender}', findings -> 'sender' || jsonb_build_object(
      'workers', (
        select case when count(backend_type) = count(*) then count(*) filter (where backend_type like 'pg\_net %worker') end
          from pg_stat_activity)));
  exception
    when others then null;
  end;
  begin
    findings := jsonb_set(findings, '{sender}', findings -> 'sender' || jsonb_build_object(
      'preloaded', current_setting('shared_preload_libraries') ~ '\mpg_net\M'));
  exception
    when others then null;
  end;

  begin
    findings := findings || jsonb_build_object('lease', (
      select jsonb_build_object(
               'held_by', held_by,
               'seconds_left', round(extract(epoch from held_until - statement_timestamp()), 1))
        from tripwire_sync.lease
       where held_until > statement_timestamp()));
  exception
    when others then null;
  end;

  return findings;
end
$$;

comment on function public.tripwire_sync_doctor() is
  'tripwire-sync: what `tripwire-sync check` reports of this side; no secret and no row';

revoke all on function public.tripwire_sync_doctor() from public, anon, authenticated;
grant execute on function public.tripwire_sync_doctor() to tripwire_sync, service_role;

-- The table itself comes last: from here on every user of the table waits for our commit.

do $$
declare
  give_up_at timestamptz := clock_timestamp() + interval '30 seconds';
  wanted text;
  may_read_passwords boolean;
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

  -- Half a second at a time: while this waits, all others who want the table wait behind it. The strongest lock at once: a
  -- weaker one that has to grow may end in a deadlock.
  perform set_config('lock_timeout', '500ms', true);
  loop
    begin
      lock table public.tripwire_users in access exclusive mode;
      exit;
    exception
      when lock_not_available then
        if clock_timestamp() > give_up_at then
          raise exception 'public.tripwire_users was in use for 30 seconds without a break; nothing was changed'
            using errcode = 'lock_not_available',
                  hint = 'An import is running, or a transaction was left open. Run this again when it has ended.';
        end if;
        perform pg_sleep(0.5);
    end;
  end loop;

  foreach wanted in array array['amocrm_deal_id', 'amocrm_contact_id'] loop
    if not exists (
      select from pg_attribute
       where attrelid = 'public.tripwire_users'::regclass
         and attname = wanted
         and not attisdropped)
    then
      execute format('alter table public.tripwire_users add column %I text', wanted);
    end if;
  end loop;

  -- The sweep pages through rows without a deal in the order of their ids.
  if to_regclass('public.tripwire_users_without_deal_idx') is null then
    create index tripwire_users_without_deal_idx on public.tripwire_users (id) where amocrm_deal_id is null;
  end if;

  -- INSERT only: the deal's id that the service writes back is an UPDATE and must not call it again.
  create or replace trigger tripwire_sync_notify
    after insert on public.tripwire_users
    for each row
    execute function tripwire_sync.notify_insert();

  -- The role's columns. All other rights are taken back, except the one column that a person may grant by hand, for notes
  -- with the password in them: grant select (generated_password) on public.tripwire_users to tripwire_sync;
  select exists (
           select from pg_attribute, aclexplode(attacl) as granted
            where attrelid = 'public.tripwire_users'::regclass
              and attname = 'generated_password'
              and grantee = 'tripwire_sync'::regrole
              and privilege_type = 'SELECT')
    into may_read_passwords;
  revoke all on public.tripwire_users from tripwire_sync;
  for wanted in
    select attname
      from pg_attribute
     where attrelid = 'public.tripwire_users'::regclass
       and not attisdropped
       and (attname in ('id', 'email', 'full_name', 'phone', 'created_at', 'status', 'price', 'manager_name',
                        'amocrm_deal_id', 'amocrm_contact_id')
         or attname = 'generated_password' and may_read_passwords)
  loop
    execute format('grant select (%I) on public.tripwire_users to tripwire_sync', wanted);
  end loop;
  grant update (amocrm_deal_id, amocrm_contact_id) on public.tripwire_users to tripwire_sync;

  -- Its rows, for when RLS is on or will be. A deal id is written once: over nothing, or over the blank text that a form left
  -- there (the column may as well be a number).
  drop policy if exists tripwire_sync_select on public.tripwire_users;
  create policy tripwire_sync_select on public.tripwire_users
    for select to tripwire_sync
    using (true);
  drop policy if exists tripwire_sync_update on public.tripwire_users;
  create policy tripwire_sync_update on public.tripwire_users
    for update to tripwire_sync
    using (coalesce(amocrm_deal_id::text, '') !~ '[^[:space:]]')
    with check (true);
end
$$;

notify pgrst, 'reload schema';

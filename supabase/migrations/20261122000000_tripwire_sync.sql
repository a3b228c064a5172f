-- tripwire-sync: tells the service about every new row of public.tripwire_users.
--
-- Run it with `supabase db push`, or paste the whole file into the SQL editor of the dashboard (role postgres).
-- It may be run again at any time: rights that are no longer ours to have go then, too. `supabase/down.sql` takes it all back.

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

-- The role whose token the service carries, with rights to what it does and to nothing else. PostgREST takes it on, so it
-- neither logs in nor inherits.
do $$
begin
  if not exists (select from pg_roles where rolname = 'tripwire_sync') then
    -- No further attributes: to name one of a superuser's, even to deny it, is a superuser's right.
    create role tripwire_sync nologin noinherit;
  end if;

  -- Up to Postgres 15 CREATEROLE is enough to grant it. From 16 on it takes ADMIN OPTION, which comes with creating the role;
  -- asking first lets somebody who did not create it run this again.
  if not pg_has_role('authenticator', 'tripwire_sync', 'member') then
    grant tripwire_sync to authenticator;
  end if;
end
$$;
grant usage on schema public to tripwire_sync;

-- Not exposed by the Data API, and nobody but its owner may enter.
create schema if not exists tripwire_sync;
revoke all on schema tripwire_sync from public, anon, authenticated, service_role, tripwire_sync;

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
grant execute on function public.tripwire_sync_lease(text, integer) to tripwire_sync, service_role;

-- What the trigger does with Vault's two entries, and the doctor reports: in one place, so that they cannot disagree.

-- The URL is null unless pg_net could make something of it.
create or replace function tripwire_sync.read_vault(out endpoint text, out secrets text)
language plpgsql
stable
set search_path = ''
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
set search_path = ''
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
    select * into endpoint, secrets from tripwire_sync.read_vault();

    -- Ids only: every role of the database may read pg_net's queue. The service reads the row itself.
    payload := jsonb_build_object(
      'type', tg_op,
      'table', tg_table_name,
      'schema', tg_table_schema,
      'record', jsonb_build_object('id', new.id, 'created_at', new.created_at),
      'old_record', null);
    message_id := 'msg_' || gen_random_uuid();
    sent_at := floor(extract(epoch from clock_timestamp()))::bigint::text;

    -- pg_net sends payload::text, so that text is what is signed: once with each secret, while one is being replaced.
    select string_agg('v1,' || encode(mac, 'base64'), ' ' order by place)
      into signatures
      from unnest(tripwire_sync.macs(secrets, message_id || '.' || sent_at || '.' || payload::text))
           with ordinality as signed (mac, place);

    if signatures is null then
      trouble := 'Vault has no usable tripwire_webhook_secret';
    elsif endpoint is null then
      trouble := 'Vault has no usable tripwire_webhook_url';
    else
      -- By name, each of them: versions differ in their defaults.
      perform net.http_post(
        url := endpoint,
        body := payload,
        params := '{}',
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

-- Default privileges may have granted them; a trigger needs no grant to fire.
revoke all on all functions in schema tripwire_sync from public, anon, authenticated, service_role, tripwire_sync;

-- The doctor: what `tripwire-sync check` has to know and the service's role cannot see. No secret, no row.

create or replace function public.tripwire_sync_doctor()
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
set lock_timeout = '500ms'
as $$
declare
  -- Whose request it is, as PostgREST has set it: in here current_user is this function's owner.
  caller text := coalesce(nullif(current_setting('role', true), 'none'), session_user);
  students regclass := to_regclass('public.tripwire_users');
  endpoint text;
  secrets text;
  -- Each part below fills in its own and is guarded: one that cannot be looked at stays as it is here.
  findings jsonb := jsonb '{
    "columns": [],
    "rls": false,
    "caller": {"name": null, "bypasses_rls": false, "may_select": [], "may_update": [],
               "select_policy": false, "update_policy": false},
    "role": {"exists": false, "granted_to_authenticator": false},
    "trigger": {"present": false, "enabled": false, "insert_only": false, "ours": false},
    "dashboard_webhooks": [],
    "pg_net": null,
    "queued": null,
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
        from pg_catalog.pg_attribute
        join pg_catalog.pg_class on pg_class.oid = attrelid
       where attrelid = students and attnum > 0 and not attisdropped);

    findings := findings || jsonb_build_object('caller', (
      select jsonb_build_object(
               'name', rolname,
               'bypasses_rls', rolbypassrls or rolsuper,
               'may_select', array(
                 select attname from pg_catalog.pg_attribute
                  where attrelid = students and attnum > 0 and not attisdropped
                    and has_column_privilege(rolname, students, attnum, 'select')
                  order by attnum),
               'may_update', array(
                 select attname from pg_catalog.pg_attribute
                  where attrelid = students and attnum > 0 and not attisdropped
                    and has_column_privilege(rolname, students, attnum, 'update')
                  order by attnum),
               'select_policy', coalesce('r' = any (commands) or '*' = any (commands), false),
               'update_policy', coalesce('w' = any (commands) or '*' = any (commands), false))
        from pg_catalog.pg_roles,
             lateral (
               select array_agg(polcmd) as commands
                 from pg_catalog.pg_policy
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
        from pg_catalog.pg_roles
       where rolname = 'tripwire_sync'));

    findings := findings || jsonb_build_object('trigger', (
      select jsonb_build_object(
               'present', count(*) > 0,
               'enabled', coalesce(bool_or(tgenabled in ('O', 'A')), false),
               -- The bits of INSERT, DELETE, UPDATE and TRUNCATE: only the first is set.
               'insert_only', coalesce(bool_or(tgtype & (4 | 8 | 16 | 32) = 4), false),
               'ours', coalesce(bool_or(tgfoid = to_regprocedure('tripwire_sync.notify_insert()')), false))
        from pg_catalog.pg_trigger
       where tgrelid = students and tgname = 'tripwire_sync_notify'));

    findings := findings || (
      select jsonb_build_object('dashboard_webhooks', coalesce(jsonb_agg(tgname order by tgname), '[]'))
        from pg_catalog.pg_trigger
        join pg_catalog.pg_proc on pg_proc.oid = tgfoid
        join pg_catalog.pg_namespace on pg_namespace.oid = pronamespace
       where tgrelid = students and nspname = 'supabase_functions' and proname = 'http_request');

    findings := findings || (
      select jsonb_build_object('pg_net', max(extversion)) from pg_catalog.pg_extension where extname = 'pg_net');
  exception
    when others then null;
  end;

  begin
    select * into endpoint, secrets from tripwire_sync.read_vault();
    findings := jsonb_set(findings, '{vault}', findings -> 'vault' || jsonb_build_object(
      -- Without what could be a secret in it: a name and password, a query.
      'url', regexp_replace(substring(endpoint from '^[^/]+//[^/?#]+'), '//.*@', '//'),
      'url_path', substring(endpoint from '^[^/]+//[^/?#]+([^?#]*)')));

    -- The service reckons the same from its own secret, and nobody the secret from it. It can never pass for a signature: what
    -- is signed has dots in it.
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

  begin
    if endpoint is not null then
      findings := findings || (
        select jsonb_build_object('queued', count(*)) from net.http_request_queue where url = endpoint);
    end if;
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

-- The table itself comes last: from here on whoever uses it waits for our commit.

do $$
declare
  wanted text;
  may_read_passwords boolean;
begin
  -- Better to fail and be run again than to stand in somebody's way; ends with this transaction. The strongest lock at once:
  -- a weaker one that has to grow may end in a deadlock.
  perform set_config('lock_timeout', '2s', true);
  lock table public.tripwire_users in access exclusive mode;

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

  -- The role's columns. Whatever else it had is taken back, except the one column that a person may grant by hand, for notes
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
       and (attname in ('id', 'email', 'full_name', 'phone', 'created_at', 'status', 'price', 'manager_name',
                        'amocrm_deal_id', 'amocrm_contact_id')
         or attname = 'generated_password' and may_read_passwords)
  loop
    execute format('grant select (%I) on public.tripwire_users to tripwire_sync', wanted);
  end loop;
  grant update (amocrm_deal_id, amocrm_contact_id) on public.tripwire_users to tripwire_sync;

  -- Its rows, for when RLS is on or will be. A deal id is written once: over nothing, or over the empty text that a form left
  -- there (the column may as well be a number).
  drop policy if exists tripwire_sync_select on public.tripwire_users;
  create policy tripwire_sync_select on public.tripwire_users
    for select to tripwire_sync
    using (true);
  drop policy if exists tripwire_sync_update on public.tripwire_users;
  create policy tripwire_sync_update on public.tripwire_users
    for update to tripwire_sync
    using (coalesce(amocrm_deal_id::text, '') = '')
    with check (true);
end
$$;

notify pgrst, 'reload schema';

-- What a Supabase project has before we come: roles, schemas, grants, the manager's table, and stand-ins for the two
-- extensions that no Linux distribution packages. Run by the bootstrap superuser `supabase_admin`, as on the platform.
-- pg_net behaves as 0.20.4 was measured to, Vault as 0.3.1 (2026-11): what they store, refuse and grant; nothing is sent.

create role postgres login createrole createdb replication bypassrls;
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres;
grant pg_monitor to postgres;
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set search_path = "$user", public, extensions;
alter database postgres owner to postgres;

grant usage on schema public to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on functions to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on sequences to anon, authenticated, service_role;

create schema extensions;
grant usage on schema extensions to postgres, anon, authenticated, service_role;
create extension pgcrypto with schema extensions;

-- pg_net

create schema net;
grant usage on schema net to public;

create unlogged table net.http_request_queue (
  id bigserial,
  method text not null,
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds integer not null
);
create unlogged table net._http_response (
  id bigint,
  status_code integer,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  created timestamptz not null default now()
);
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;

create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds integer default 5000
) returns bigint
language plpgsql
as $$
declare
  content_type text;
  request_id bigint;
begin
  select value into content_type from jsonb_each_text(headers) where lower(key) = 'content-type';
  if content_type is null then
    headers := headers || '{"Content-Type": "application/json"}';
  elsif content_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;
  if url !~ '^[a-zA-Z][a-zA-Z0-9+.-]*://[^][[:space:]/]+' then
    raise exception 'the URL cannot be parsed' using errcode = 'XX000';
  end if;

  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values ('POST', http_post.url, http_post.headers, convert_to(http_post.body::text, 'UTF8'), http_post.timeout_milliseconds)
  returning id into request_id;
  return request_id;
end
$$;

-- Vault: hidden in hex here, encrypted there.

create schema vault;
create table vault.secrets (
  id uuid primary key default gen_random_uuid(),
  name text unique,
  description text not null default '',
  secret text not null,
  key_id uuid,
  nonce bytea,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create function vault._decrypt(secret text) returns text
language sql stable
as $$ select convert_from(decode(secret, 'hex'), 'UTF8') $$;

create view vault.decrypted_secrets as
  select id, name, description, secret, vault._decrypt(secret) as decrypted_secret, key_id, nonce, created_at, updated_at
    from vault.secrets;

create function vault.create_secret(
  new_secret text,
  new_name text default null,
  new_description text default '',
  new_key_id uuid default null
) returns uuid
language sql security definer
set search_path = ''
as $$
  insert into vault.secrets (secret, name, description)
  values (encode(convert_to(new_secret, 'UTF8'), 'hex'), new_name, new_description)
  returning id
$$;

create function vault.update_secret(
  secret_id uuid,
  new_secret text default null,
  new_name text default null,
  new_description text default null,
  new_key_id uuid default null
) returns void
language sql security definer
set search_path = ''
as $$
  update vault.secrets
     set secret = coalesce(encode(convert_to(new_secret, 'UTF8'), 'hex'), secret),
         name = coalesce(new_name, name),
         description = coalesce(new_description, description),
         updated_at = now()
   where id = secret_id
$$;

revoke all on all functions in schema vault from public;
grant usage on schema vault to postgres with grant option;
grant select, delete on vault.secrets, vault.decrypted_secrets to postgres with grant option;
grant execute on all functions in schema vault to postgres with grant option;
grant usage on schema vault to service_role;
grant select, delete on vault.secrets, vault.decrypted_secrets to service_role;
grant execute on all functions in schema vault to service_role;

create schema auth;
grant usage on schema auth to postgres, anon, authenticated, service_role;
create table auth.users (id uuid primary key);
grant select, references on auth.users to postgres;
create function auth.uid() returns uuid
language sql stable
as $$ select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;

-- The manager's table, in the shape last measured on the live project (25 columns), with its own triggers and policies.

set role postgres;

create table public.tripwire_users (
  id uuid primary key default gen_random_uuid(),
  user_id uuid references auth.users (id) on delete cascade,
  full_name text not null,
  email text not null unique,
  granted_by uuid,
  manager_name text,
  generated_password text,
  password_changed boolean default false,
  welcome_email_sent boolean default false,
  welcome_email_sent_at timestamptz,
  email_opened boolean default false,
  first_login_at timestamptz,
  last_active_at timestamptz,
  modules_completed integer default 0,
  status text default 'active' check (status in ('active', 'inactive', 'completed', 'blocked')),
  amocrm_deal_id text,
  amocrm_contact_id text,
  price integer default 5000,
  onboarding_completed boolean default false,
  onboarding_completed_at timestamptz,
  phone varchar(20),
  maintenance_notification_sent boolean default false,
  maintenance_notification_sent_at timestamptz,
  created_at timestamptz default now(),
  updated_at timestamptz default now()
);
create index idx_tripwire_users_created_at on public.tripwire_users (created_at);

create table public.tripwire_user_profile (
  tripwire_user_id uuid primary key references public.tripwire_users (id) on delete cascade
);

create function public.update_tripwire_users_updated_at() returns trigger
language plpgsql
as $$
begin
  new.updated_at := now();
  return new;
end
$$;
create trigger trigger_tripwire_users_updated
  before update on public.tripwire_users
  for each row
  execute function public.update_tripwire_users_updated_at();

create function public.create_tripwire_profile() returns trigger
language plpgsql security definer
as $$
begin
  insert into public.tripwire_user_profile (tripwire_user_id) values (new.id) on conflict do nothing;
  return new;
end
$$;
create trigger trigger_create_tripwire_profile
  after insert on public.tripwire_users
  for each row
  execute function public.create_tripwire_profile();

alter table public.tripwire_users enable row level security;
create policy authenticated_read_own on public.tripwire_users
  for select to authenticated using (user_id = auth.uid());
create policy authenticated_update_own on public.tripwire_users
  for update to authenticated using (user_id = auth.uid());
create policy service_role_full_access on public.tripwire_users
  for all to service_role using (true) with check (true);
create policy anon_no_access on public.tripwire_users
  for all to anon using (false);

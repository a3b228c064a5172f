-- Takes back the migrations in supabase/migrations. Paste it into the SQL editor; it may be run again.
--
-- It stays away from what others may use: the extensions, and the columns with the deals' ids in them. To drop those too:
--   alter table public.tripwire_users drop column amocrm_deal_id, drop column amocrm_contact_id;
-- If the migrations were applied with `supabase db push`, tell the CLI afterwards:
--   supabase migration repair --status reverted 20261122000000 20261128000000 20261129000000 20261130000000

do $$
declare
  give_up_at timestamptz := clock_timestamp() + interval '30 seconds';
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

  -- Half a second at a time: while this waits, all others who want the table wait behind it.
  perform set_config('lock_timeout', '500ms', true);
  while to_regclass('public.tripwire_users') is not null loop
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

  -- What a role owns is dropped by its members.
  if exists (select from pg_roles where rolname = 'tripwire_sync_sender') then
    grant tripwire_sync_sender to current_user;
  end if;

  if to_regclass('vault.secrets') is not null then
    delete from vault.secrets where name in ('tripwire_webhook_secret', 'tripwire_webhook_url');
  end if;

  drop function if exists public.tripwire_sync_doctor();
  drop function if exists public.tripwire_sync_test_event(text);
  drop function if exists public.tripwire_sync_test_result(bigint);
  drop function if exists public.tripwire_sync_lease(text, integer);
  drop function if exists public.tripwire_sync_pause(boolean);
  drop table if exists tripwire_sync.lease;
  drop table if exists tripwire_sync.pause;
  drop table if exists tripwire_sync.test_event;

  drop policy if exists tripwire_sync_select on public.tripwire_users;
  drop policy if exists tripwire_sync_update on public.tripwire_users;
  drop trigger if exists tripwire_sync_notify on public.tripwire_users;
  drop index if exists public.tripwire_users_without_deal_idx;
  drop index if exists public.tripwire_users_without_deal_by_time_idx;
  drop function if exists tripwire_sync.notify_insert();
  drop function if exists tripwire_sync.send_event(text, jsonb);
  drop function if exists tripwire_sync.queue_request(text, jsonb, jsonb);
  drop function if exists tripwire_sync.macs(text, text);
  drop function if exists tripwire_sync.read_vault();
  drop schema if exists tripwire_sync;

  if exists (select from pg_roles where rolname = 'tripwire_sync') then
    -- `drop owned` would take these along, and they were not made by us.
    if exists (
      select from pg_shdepend
       where refclassid = 'pg_authid'::regclass
         and refobjid = 'tripwire_sync'::regrole
         and deptype = 'o')
    then
      raise exception 'the role tripwire_sync owns something that is not ours'
        using hint = 'Look at it, then give it away and run this again: grant tripwire_sync to postgres; reassign owned by tripwire_sync to postgres;';
    end if;

    -- Its rights, also those that a person granted later: a role that has any cannot be dropped. Only a member may do it.
    grant tripwire_sync to current_user;
    drop owned by tripwire_sync;
    drop role tripwire_sync;
  end if;

  if exists (select from pg_roles where rolname = 'tripwire_sync_sender') then
    drop owned by tripwire_sync_sender;
    drop role tripwire_sync_sender;
  end if;
end
$$;

notify pgrst, 'reload schema';

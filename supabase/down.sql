-- Takes back supabase/migrations/20261122000000_tripwire_sync.sql. Paste it into the SQL editor; it may be run again.
--
-- It stays away from what others may use: the extensions, and the columns with the deals' ids in them. To drop those too:
--   alter table public.tripwire_users drop column amocrm_deal_id, drop column amocrm_contact_id;
-- If the migration was applied with `supabase db push`, tell the CLI afterwards:
--   supabase migration repair --status reverted 20261122000000

do $$
begin
  perform set_config('lock_timeout', '2s', true);
  if to_regclass('vault.secrets') is not null then
    delete from vault.secrets where name in ('tripwire_webhook_secret', 'tripwire_webhook_url');
  end if;

  drop function if exists public.tripwire_sync_doctor();
  drop function if exists public.tripwire_sync_lease(text, integer);
  drop table if exists tripwire_sync.lease;

  drop policy if exists tripwire_sync_select on public.tripwire_users;
  drop policy if exists tripwire_sync_update on public.tripwire_users;
  drop trigger if exists tripwire_sync_notify on public.tripwire_users;
  drop index if exists public.tripwire_users_without_deal_idx;
  drop function if exists tripwire_sync.notify_insert();
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
        using hint = 'Look at it, then give it away and run this again: reassign owned by tripwire_sync to postgres;';
    end if;

    -- Its rights, also those that somebody granted later: nobody can drop a role that has any. To do so one must be a member.
    grant tripwire_sync to current_user;
    drop owned by tripwire_sync;
    drop role tripwire_sync;
  end if;
end
$$;

notify pgrst, 'reload schema';

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

  drop function if exists public.tripwire_sync_lease(text, integer);
  drop table if exists tripwire_sync.lease;

  drop trigger if exists tripwire_sync_notify on public.tripwire_users;
  drop index if exists public.tripwire_users_without_deal_idx;
  drop function if exists tripwire_sync.notify_insert();
  drop schema if exists tripwire_sync;
end
$$;

notify pgrst, 'reload schema';

-- tripwire-sync: an index by which the service finds the newest rows without a deal, every 15 seconds.
--
-- Run it after 20261128000000_tripwire_sync.sql, as that one is run; it may be run again. The service works without it.
-- `supabase/down.sql` takes it back.

do $$
begin
  perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  -- While this waits, all others who want the table wait behind it.
  perform set_config('lock_timeout', '5s', true);
  if to_regclass('public.tripwire_users_without_deal_by_time_idx') is null then
    create index tripwire_users_without_deal_by_time_idx
      on public.tripwire_users (created_at, id)
      where amocrm_deal_id is null;
  end if;
end
$$;

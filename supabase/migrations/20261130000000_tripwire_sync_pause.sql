-- tripwire-sync: the last `pause` or `resume`, kept beside the lease, so that it holds for every service on this project.
--
-- Run it after 20261129000000_tripwire_sync_by_time.sql, as that one is run; it may be run again. Without it a pause holds
-- for one service only. `supabase/down.sql` takes it back.

create table if not exists tripwire_sync.pause (
  only_row boolean primary key default true check (only_row),
  is_paused boolean not null,
  changed_at timestamptz not null
);
revoke all on tripwire_sync.pause from public, anon, authenticated, service_role, tripwire_sync;

create or replace function public.tripwire_sync_pause(paused boolean default null)
returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if paused is not null then
    -- The time only grows, since a service carries out what is newer than the last thing it has carried out.
    insert into tripwire_sync.pause as current (is_paused, changed_at)
    values (paused, clock_timestamp())
    on conflict (only_row) do update
       set is_paused = excluded.is_paused,
           changed_at = greatest(clock_timestamp(), current.changed_at + interval '1 microsecond');
  end if;

  return jsonb_build_object(
    'last', (
      select jsonb_build_object(
               'is_paused', is_paused,
               'changed_at', changed_at,
               'seconds_ago', extract(epoch from clock_timestamp() - changed_at))
        from tripwire_sync.pause),
    'held_by', (select held_by from tripwire_sync.lease where held_until > clock_timestamp()));
end
$$;

comment on function public.tripwire_sync_pause(boolean) is
  'tripwire-sync: true pauses and false resumes all services, null changes nothing; tells the last of these and which service holds the lease';

revoke all on function public.tripwire_sync_pause(boolean) from public, anon, authenticated;
grant execute on function public.tripwire_sync_pause(boolean) to tripwire_sync, service_role;

notify pgrst, 'reload schema';

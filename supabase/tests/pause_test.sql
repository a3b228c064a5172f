-- The pause. The services are not disturbed: all of it is rolled back.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(16);

select has_table('tripwire_sync', 'pause', 'the pause has its table');
select table_owner_is('tripwire_sync', 'pause', 'postgres', 'postgres owns it');
select col_is_pk('tripwire_sync', 'pause', 'only_row', 'it has one row at most');
select has_check('tripwire_sync', 'pause', 'and no second one under another key');
select table_privs_are('tripwire_sync', 'pause', role, array[]::text[], role || ' may do nothing with the table')
  from unnest(array['anon', 'authenticated', 'service_role', 'tripwire_sync']) as role;

select function_returns('public', 'tripwire_sync_pause', array['boolean'], 'jsonb');
select function_owner_is('public', 'tripwire_sync_pause', array['boolean'], 'postgres');
select is_definer('public', 'tripwire_sync_pause', array['boolean']);
select volatility_is('public', 'tripwire_sync_pause', array['boolean'], 'volatile');
select function_privs_are('public', 'tripwire_sync_pause', array['boolean'], role, may)
  from (values ('tripwire_sync', array['EXECUTE']), ('service_role', array['EXECUTE']), ('anon', array[]::text[]),
               ('authenticated', array[]::text[])) as privileges (role, may);

select * from finish();
rollback;

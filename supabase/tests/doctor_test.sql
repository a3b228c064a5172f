-- The doctor: that it answers, and whom.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(14);

select function_returns('public', 'tripwire_sync_doctor', array[]::text[], 'jsonb');
select function_owner_is('public', 'tripwire_sync_doctor', array[]::text[], 'postgres');
select is_definer('public', 'tripwire_sync_doctor', array[]::text[]);
select volatility_is('public', 'tripwire_sync_doctor', array[]::text[], 'stable');
select ok('lock_timeout=500ms' = any (proconfig), 'a locked table does not hold it up')
  from pg_proc where oid = 'public.tripwire_sync_doctor()'::regprocedure;
select function_privs_are('public', 'tripwire_sync_doctor', array[]::text[], role, may)
  from (values ('tripwire_sync', array['EXECUTE']), ('service_role', array['EXECUTE']), ('anon', array[]::text[]),
               ('authenticated', array[]::text[])) as privileges (role, may);

select set_eq(
  'select jsonb_object_keys(public.tripwire_sync_doctor())',
  array['version', 'now', 'columns', 'id_type', 'rls', 'caller', 'role', 'trigger', 'dashboard_webhooks', 'pg_net', 'queued',
        'sender', 'vault', 'lease'],
  'it answers all that is agreed on');
select is(public.tripwire_sync_doctor() ->> 'id_type', 'uuid', 'it sees the type of the ids');
select is(
  public.tripwire_sync_doctor() -> 'role', '{"exists": true, "granted_to_authenticator": true}',
  'it sees the role');
select is(
  public.tripwire_sync_doctor() -> 'trigger', '{"present": true, "enabled": true, "insert_only": true, "ours": true}',
  'it sees the trigger');
select is(
  public.tripwire_sync_doctor() -> 'caller' ->> 'name', current_user::text,
  'it knows who asks');

select * from finish();
rollback;

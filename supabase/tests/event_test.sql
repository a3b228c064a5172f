-- The event: trigger, its function, and what they share with the doctor. Nothing is sent: all of it is rolled back.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(55);

select has_schema('tripwire_sync'::name);
select schema_owner_is('tripwire_sync'::name, 'postgres'::name);
select schema_privs_are('tripwire_sync', role, array[]::text[], role || ' may not enter the schema tripwire_sync')
  from unnest(array['anon', 'authenticated', 'service_role', 'tripwire_sync']) as role;

select has_column('public', 'tripwire_users', 'amocrm_deal_id', 'the deal''s id has its column');
select has_column('public', 'tripwire_users', 'amocrm_contact_id', 'the contact''s id has its column');
select has_index('public', 'tripwire_users', 'tripwire_users_without_deal_idx', 'id'::name);
select matches(
  pg_get_indexdef('public.tripwire_users_without_deal_idx'::regclass), 'WHERE \(amocrm_deal_id IS NULL\)$',
  'the index holds the rows without a deal only');
select has_index('public', 'tripwire_users', 'tripwire_users_without_deal_by_time_idx', array['created_at', 'id']);

select has_trigger('public', 'tripwire_users', 'tripwire_sync_notify', 'the trigger is there');
select trigger_is('public', 'tripwire_users', 'tripwire_sync_notify', 'tripwire_sync', 'notify_insert');
select is(tgenabled::text, 'O', 'the trigger is on')
  from pg_trigger where tgname = 'tripwire_sync_notify';
select is(tgtype::int, 1 | 4, 'the trigger is for each row, after it, and for INSERT only')
  from pg_trigger where tgname = 'tripwire_sync_notify';

select function_returns('tripwire_sync', 'notify_insert', array[]::text[], 'trigger');
select is_definer('tripwire_sync', 'notify_insert', array[]::text[]);
select isnt_definer('tripwire_sync', name, arguments)
  from (values ('read_vault', array[]::text[]), ('macs', array['text', 'text']), ('send_event', array['text', 'jsonb']))
       as function (name, arguments);
select is_definer('tripwire_sync', 'queue_request', array['text', 'jsonb', 'jsonb']);
select function_owner_is('tripwire_sync', 'queue_request', array['text', 'jsonb', 'jsonb'], 'tripwire_sync_sender');
select is_empty(
  $$ select roleid from pg_auth_members where 'tripwire_sync_sender'::regrole in (roleid, member) $$,
  'the role that hands events to pg_net belongs to no other, and no other to it');
select function_owner_is('tripwire_sync', name, arguments, 'postgres')
  from (values ('notify_insert', array[]::text[]), ('read_vault', array[]::text[]), ('macs', array['text', 'text']),
               ('send_event', array['text', 'jsonb']))
       as function (name, arguments);
select ok('lock_timeout=500ms' = any (proconfig), 'an insert waits half a second at most')
  from pg_proc where oid = 'tripwire_sync.notify_insert()'::regprocedure;
select is_empty(
  format(
    'select proname from pg_proc where pronamespace = ''tripwire_sync''::regnamespace
        and has_function_privilege(%L, oid, ''execute'')', role),
  role || ' may call no function in the schema tripwire_sync')
  from unnest(array['anon', 'authenticated', 'service_role', 'tripwire_sync']) as role;

select is(
  encode((tripwire_sync.macs(
    'whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE=',
    'msg_tw_0001.1795330000.{"type": "INSERT", "table": "tripwire_users", "record": {"id": "00000000-0000-4000-8000-000000000001", "email": "a@example.com", "amocrm_deal_id": null}, "schema": "public", "old_record": null}'))[1], 'base64'),
  'T+E7oiDikB+8o44RVXWfynigTopS4qZbRXMwbQ71aX8=',
  'a signature is that of the Standard Webhooks libraries');
select is(
  cardinality(tripwire_sync.macs('whsec_dHJpcHdpcmUtdGVzdC1rZXktMDAwMS0wMDAxLTAwMDE= whsec_c2hvcnQ=, nonsense', '')), 1,
  'a short or malformed secret signs nothing');
select is(tripwire_sync.macs(null, ''), array[]::bytea[], 'no secret signs nothing');

-- The test event.
select has_table('tripwire_sync', 'test_event', 'the last test event has its table');
select table_privs_are('tripwire_sync', 'test_event', role, array[]::text[], role || ' may do nothing with the table')
  from unnest(array['anon', 'authenticated', 'service_role', 'tripwire_sync']) as role;
select function_returns('public', 'tripwire_sync_test_event', array['text'], 'bigint');
select function_returns('public', 'tripwire_sync_test_result', array['bigint'], 'jsonb');
select is_definer('public', name, arguments)
  from (values ('tripwire_sync_test_event', array['text']), ('tripwire_sync_test_result', array['bigint']))
       as function (name, arguments);
select function_privs_are('public', name, arguments, role, may)
  from (values ('tripwire_sync_test_event', array['text']), ('tripwire_sync_test_result', array['bigint']))
       as function (name, arguments),
       (values ('tripwire_sync', array['EXECUTE']), ('service_role', array['EXECUTE']), ('anon', array[]::text[]),
               ('authenticated', array[]::text[])) as privileges (role, may);
select throws_ok(
  format('select public.tripwire_sync_test_event(%L)', nonce), '22023', 'nonce must be 32 hex digits',
  'a nonce has 32 hex digits: ' || coalesce(nonce, 'null'))
  from unnest(array[null, repeat('0', 31), repeat('A', 32)]) as nonce;

select * from finish();
rollback;

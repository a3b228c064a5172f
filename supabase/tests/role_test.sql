-- The role tripwire_sync: what it is, and what it may do with the table.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path = public, extensions;
select plan(18);

select has_role('tripwire_sync');
select isnt_superuser('tripwire_sync');
select is_member_of('tripwire_sync', 'authenticator');
select is(
  array[rolcanlogin, rolinherit, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication],
  array[false, false, false, false, false, false],
  'it cannot log in, inherits nothing and has no attribute of power')
  from pg_roles where rolname = 'tripwire_sync';
select is_empty(
  $$ select roleid::regrole from pg_auth_members where member = 'tripwire_sync'::regrole $$,
  'it is a member of no other role');
select schema_privs_are('public', 'tripwire_sync', array['USAGE']);

select table_privs_are('public', 'tripwire_users', 'tripwire_sync', array[]::text[], 'it has no right to the whole table');
select set_has(
  $$ select attname::text from pg_attribute
      where attrelid = 'public.tripwire_users'::regclass and attnum > 0 and not attisdropped
        and has_column_privilege('tripwire_sync', attrelid, attnum, 'select') $$,
  $$ values ('id'), ('email'), ('full_name'), ('created_at'), ('amocrm_deal_id'), ('amocrm_contact_id') $$,
  'it reads what no sync goes without');
select is_empty(
  $$ select attname from pg_attribute
      where attrelid = 'public.tripwire_users'::regclass and attnum > 0 and not attisdropped
        and has_column_privilege('tripwire_sync', attrelid, attnum, 'select')
        and attname <> all (array['id', 'email', 'full_name', 'phone', 'created_at', 'status', 'price', 'manager_name',
                                  'amocrm_deal_id', 'amocrm_contact_id', 'generated_password']) $$,
  'and no column that is none of its business (generated_password only where a person granted it)');
select set_eq(
  $$ select attname::text from pg_attribute
      where attrelid = 'public.tripwire_users'::regclass and attnum > 0 and not attisdropped
        and has_column_privilege('tripwire_sync', attrelid, attnum, 'update') $$,
  array['amocrm_deal_id', 'amocrm_contact_id'],
  'it writes the two ids');
select is_empty(
  $$ select attname from pg_attribute
      where attrelid = 'public.tripwire_users'::regclass and attnum > 0 and not attisdropped
        and has_column_privilege('tripwire_sync', attrelid, attnum, 'insert, references') $$,
  'and inserts nothing');

select policy_cmd_is('public', 'tripwire_users', 'tripwire_sync_select'::name, 'select');
select policy_roles_are('public', 'tripwire_users', 'tripwire_sync_select', array['tripwire_sync']);
select policy_cmd_is('public', 'tripwire_users', 'tripwire_sync_update'::name, 'update');
select policy_roles_are('public', 'tripwire_users', 'tripwire_sync_update', array['tripwire_sync']);
select is(
  array[permissive, qual, with_check], array['PERMISSIVE', 'true', null],
  'it sees every row')
  from pg_policies where policyname = 'tripwire_sync_select' and tablename = 'tripwire_users';
select matches(
  qual, '^\(COALESCE\(\(?amocrm_deal_id\)?(::text)?, ''''::text\) !~ ''\[\^\[:space:\]\]''::text\)$',
  'it writes where no deal id is yet')
  from pg_policies where policyname = 'tripwire_sync_update' and tablename = 'tripwire_users';
select is(
  array[permissive, with_check], array['PERMISSIVE', 'true'],
  'and whatever it writes is let through')
  from pg_policies where policyname = 'tripwire_sync_update' and tablename = 'tripwire_users';

select * from finish();
rollback;

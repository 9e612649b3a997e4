-- The application: accounts with a schema, quotas and settings each. No table has a key or a unique constraint: what is
-- done twice is there twice.
create table plans (plan text not null, name text not null, value text not null);
create table accounts (account text not null, plan text not null, state text not null, idempotency_key text not null);
create table quotas (account text not null, name text not null, value text not null);
create table settings (account text not null, name text not null, value text not null);
insert into plans values
  ('team', 'seats', '25'), ('team', 'region', 'eu'), ('team', 'audit', 'on'), ('team', 'support', 'mail');

-- One role for each step; a login of Vault's is a member of exactly one of them.
create role tenant_owner nologin;
create role app_create nologin;
create role app_room nologin;
create role app_defaults nologin;
create role app_activate nologin;
create role app_look nologin;
revoke all on database app from public;
grant connect on database app to app_create, app_room, app_defaults, app_activate, app_look;
grant insert on accounts to app_create;
grant create on database app to app_room;
grant tenant_owner to app_room;
grant select, insert on quotas to app_room;
grant select on plans to app_defaults;
grant select, insert on settings to app_defaults;
grant select (account), update (state) on accounts to app_activate;
grant select on accounts, quotas, settings, plans to app_look;

-- The database's own book, which no login of Vault's can read or write. Triggers and Vault's statements fill it, inside
-- the transaction that they are about.
create schema book;
create table book.writes (
  seq bigint generated always as identity, at timestamptz not null default clock_timestamp(),
  login text not null, what text not null, account text not null
);
create table book.logins (
  seq bigint generated always as identity, at timestamptz not null default clock_timestamp(),
  what text not null, login text not null, role text, others text[], sessions bigint
);
create function book.note_row() returns trigger language plpgsql security definer set search_path = pg_catalog as $$
begin
  insert into book.writes (login, what, account)
    values (session_user, lower(tg_op) || ' ' || tg_table_name, new.account);
  return null;
end $$;
create trigger noted after insert or update on accounts for each row execute function book.note_row();
create trigger noted after insert or update on quotas for each row execute function book.note_row();
create trigger noted after insert or update on settings for each row execute function book.note_row();
create function book.note_schema() returns event_trigger language plpgsql security definer
  set search_path = pg_catalog as $$
begin
  insert into book.writes (login, what, account)
    select session_user, 'create schema', object_identity from pg_event_trigger_ddl_commands();
end $$;
create event trigger schemas_noted on ddl_command_end when tag in ('CREATE SCHEMA')
  execute function book.note_schema();

-- Vault's own login: it makes and drops logins, ends their sessions, and writes down that it did.
create role vault_maker login createrole password :'maker_password';
grant connect on database app to vault_maker;
grant app_create, app_room, app_defaults, app_activate, app_look to vault_maker with admin option;
grant pg_signal_backend to vault_maker;
grant usage on schema book to vault_maker;
grant insert on book.logins to vault_maker;

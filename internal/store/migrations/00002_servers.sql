-- Several servers on one database: who is there, whose runner runs which attempt.

-- +goose Up
create table servers (
  id text primary key,
  address text not null,
  version text not null,
  worker integer not null,
  started_at bigint not null,
  heard_at bigint not null
);

create table runners (
  id text primary key,
  instance text not null,
  pools text not null,
  capacity integer not null,
  version text not null,
  fence bigint not null,
  lease_until bigint not null,
  heard_at bigint not null
);

create table duties (
  name text primary key,
  owner text not null,
  fence bigint not null,
  lease_until bigint not null
);

alter table attempts add column runner text not null default '';
create index attempts_running on attempts (runner) where state = 'running';

-- +goose Down
drop index attempts_running;
alter table attempts drop column runner;
drop table duties;
drop table runners;
drop table servers;

-- One text for SQLite and PostgreSQL. Times are integer microseconds since 1970
-- in UTC, 0 for none; JSON is text; flags are 0 or 1. Identifiers come from
-- `counters`, so that both databases number alike.

-- +goose Up
create table counters (name text primary key, value bigint not null);
create table meta (name text primary key, value text not null);

create table projects (
  name text primary key,
  url text not null,
  local integer not null,
  branches text not null,
  tags text not null,
  next_build bigint not null check (next_build >= 1),
  webhook_secret text not null,
  production_build bigint not null,
  production_commit text not null,
  branch_tip text not null,
  running_build bigint not null,
  running_commit text not null,
  hold text not null,
  incident text not null,
  pipeline text not null,
  last_fetch bigint not null,
  fetch_error text not null,
  created_at bigint not null
);

create table refs (
  project text not null references projects (name),
  ref text not null,
  object text not null,
  primary key (project, ref)
);

create table pushes (
  id bigint primary key,
  project text not null references projects (name),
  ref text not null,
  commit_id text not null,
  build_number bigint not null,
  refused text not null,
  at bigint not null
);
create index pushes_by_project on pushes (project, id);

create table deliveries (
  project text not null,
  id text not null,
  at bigint not null,
  primary key (project, id)
);

create table builds (
  id bigint primary key,
  project text not null references projects (name),
  number bigint not null,
  lane text not null check (lane in ('main', 'hotfix')),
  ref text not null,
  commit_id text not null,
  tree text not null,
  parent text not null,
  subject text not null,
  author_name text not null,
  author_email text not null,
  pipeline text not null,
  policy_digest text not null,
  production text not null,
  status text not null check (status in ('queued', 'running', 'waiting', 'stopped', 'succeeded', 'failed', 'rejected', 'expired', 'cancelled', 'superseded')),
  reason text not null,
  created_at bigint not null,
  started_at bigint not null,
  finished_at bigint not null,
  lease_owner text not null,
  lease_fence bigint not null,
  lease_until bigint not null,
  drive_after bigint not null,
  cancelled_by text not null,
  tag_object text not null,
  unique (project, number)
);
create index builds_open on builds (status, lane, id) where status in ('queued', 'running', 'waiting', 'stopped');
create index builds_by_commit on builds (project, commit_id);

create table nodes (
  build_id bigint not null references builds (id),
  name text not null,
  kind text not null,
  target text not null,
  needs text not null,
  position integer not null,
  state text not null check (state in ('pending', 'running', 'waiting', 'succeeded', 'failed', 'skipped', 'unreached', 'cancelled', 'unknown')),
  reason text not null,
  attempt integer not null,
  started_at bigint not null,
  finished_at bigint not null,
  primary key (build_id, name)
);

create table attempts (
  id text primary key,
  build_id bigint not null references builds (id),
  node text not null,
  attempt integer not null,
  fence bigint not null,
  state text not null check (state in ('running', 'succeeded', 'failed', 'timed_out', 'cancelled', 'lost')),
  exit_code integer not null,
  reason text not null,
  started_at bigint not null,
  finished_at bigint not null,
  unique (build_id, node, attempt)
);

create table artifacts (
  build_id bigint not null references builds (id),
  name text not null,
  file text not null,
  sha256 text not null check (length(sha256) = 64),
  size bigint not null,
  node text not null,
  primary key (build_id, name)
);

create table tests (
  build_id bigint not null references builds (id),
  node text not null,
  position integer not null,
  suite text not null,
  class text not null,
  name text not null,
  state text not null check (state in ('passed', 'failed', 'skipped', 'flaky')),
  millis bigint not null,
  message text not null,
  primary key (build_id, node, position)
);

create table effects (
  id bigint primary key,
  build_id bigint not null references builds (id),
  effect_key text not null unique,
  kind text not null,
  params text not null,
  state text not null check (state in ('intended', 'started', 'confirmed', 'failed', 'unknown', 'asked')),
  fence bigint not null,
  result text not null,
  error text not null,
  created_at bigint not null,
  started_at bigint not null,
  finished_at bigint not null
);
create index effects_by_build on effects (build_id, id);

create table gates (
  id text primary key,
  build_id bigint not null references builds (id),
  environment text not null,
  version bigint not null,
  state text not null check (state in ('open', 'promoted', 'rejected', 'expired', 'cancelled')),
  binding text not null,
  stale text not null,
  opened_at bigint not null,
  expires_at bigint not null,
  remind_at bigint not null,
  reminders integer not null,
  decided_by text not null,
  decided_at bigint not null,
  decided_from text not null,
  reason text not null,
  without bigint not null,
  check (state in ('open', 'expired', 'cancelled') or decided_by <> ''),
  unique (build_id, environment)
);
create index gates_open on gates (state, expires_at) where state = 'open';

create table instances (
  id text primary key,
  project text not null references projects (name),
  environment text not null,
  build_id bigint not null references builds (id),
  number bigint not null,
  state text not null check (state in ('creating', 'up', 'failed', 'destroying', 'down')),
  url text not null,
  outputs text not null,
  pinned integer not null,
  reason text not null,
  created_at bigint not null,
  expires_at bigint not null,
  down_at bigint not null,
  down_tries integer not null,
  next_try bigint not null
);
create index instances_alive on instances (project, created_at) where state <> 'down';

create table deployments (
  id text primary key,
  project text not null references projects (name),
  environment text not null,
  build_id bigint not null references builds (id),
  number bigint not null,
  commit_id text not null,
  lane text not null,
  kind text not null check (kind in ('promote', 'rollback', 'takeover')),
  fence bigint not null,
  state text not null check (state in ('running', 'succeeded', 'failed', 'unknown', 'given_up')),
  before_commit text not null,
  after_words text not null,
  by_user text not null,
  reason text not null,
  started_at bigint not null,
  finished_at bigint not null,
  unique (project, environment, fence)
);
-- The lock of an environment: at most one deployment is under way or unknown.
create unique index deployments_lock on deployments (project, environment) where state in ('running', 'unknown');
create index deployments_by_build on deployments (build_id);

create table back_merges (
  project text not null references projects (name),
  commit_id text not null,
  number bigint not null,
  owner text not null,
  opened_at bigint not null,
  closed_at bigint not null,
  closed_by text not null,
  conflicts text not null,
  checked_at bigint not null,
  primary key (project, commit_id)
);

create table audit (
  seq bigint primary key,
  at bigint not null,
  project text not null,
  number bigint not null,
  actor text not null,
  action text not null,
  detail text not null,
  hash text not null
);
create index audit_by_project on audit (project, seq);

create table outbox (
  id bigint primary key,
  project text not null,
  kind text not null,
  message text not null,
  state text not null check (state in ('waiting', 'sent', 'refused')),
  tries integer not null,
  next_at bigint not null,
  error text not null,
  created_at bigint not null,
  sent_at bigint not null
);
create index outbox_waiting on outbox (next_at) where state = 'waiting';

create table events (
  id bigint primary key,
  project text not null,
  number bigint not null,
  kind text not null,
  at bigint not null
);

create table users (
  name text primary key,
  email text not null,
  operator integer not null,
  created_at bigint not null
);

create table credentials (
  hash text primary key,
  kind text not null check (kind in ('once', 'session', 'token')),
  user_name text not null references users (name),
  name text not null,
  created_at bigint not null,
  expires_at bigint not null,
  used_at bigint not null
);

create table secrets (
  project text not null references projects (name),
  name text not null,
  sealed text not null,
  updated_at bigint not null,
  primary key (project, name)
);

-- +goose Down
drop table secrets;
drop table credentials;
drop table users;
drop table events;
drop table outbox;
drop table audit;
drop table back_merges;
drop table deployments;
drop table instances;
drop table gates;
drop table effects;
drop table tests;
drop table artifacts;
drop table attempts;
drop table nodes;
drop table builds;
drop table deliveries;
drop table pushes;
drop table refs;
drop table projects;
drop table meta;
drop table counters;

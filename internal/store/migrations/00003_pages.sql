-- Indexes for what pages of a large installation ask.

-- +goose Up
create index deployments_by_time on deployments (project, started_at);
create index deployments_succeeded on deployments (project, environment, fence) where state = 'succeeded';
create index instances_by_build on instances (build_id);
create index instances_by_project on instances (project, created_at);
create index back_merges_open on back_merges (project, opened_at) where closed_at = 0;
create index outbox_due on outbox (id) where state = 'waiting';
create index audit_turns on audit (project, seq) where action in ('hold', 'hold released', 'incident', 'incident cleared');

-- +goose Down
drop index audit_turns;
drop index outbox_due;
drop index back_merges_open;
drop index instances_by_project;
drop index instances_by_build;
drop index deployments_succeeded;
drop index deployments_by_time;

-- Planned holds of the main lane. No state is kept: the clock says where one stands.

-- +goose Up
create table freezes (
  id bigint primary key,
  project text not null references projects (name),
  begins bigint not null,
  ends bigint not null check (ends > begins),
  reason text not null,
  by_user text not null,
  created_at bigint not null,
  ended_by text not null,
  ended_at bigint not null,
  ended_why text not null,
  check ((ended_at = 0) = (ended_by = ''))
);
create index freezes_by_project on freezes (project, begins);
create index freezes_ahead on freezes (ends) where ended_at = 0;
create index freezes_ahead_of on freezes (project, ends) where ended_at = 0;

drop index audit_turns;
create index audit_turns on audit (project, seq) where action in ('hold', 'hold released', 'freeze planned', 'freeze ended', 'incident', 'incident cleared');

-- +goose Down
drop index audit_turns;
create index audit_turns on audit (project, seq) where action in ('hold', 'hold released', 'incident', 'incident cleared');
drop table freezes;

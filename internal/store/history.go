package store

import (
	"context"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Rows of what happened before, as git tells it: after a restore of an older
// database, and into an empty one.

// InsertPastBuild adds a build that has ended, with the times and the tag that it has.
func (t *Tx) InsertPastBuild(ctx context.Context, b delivery.Build, nodes []delivery.Node) (int64, error) {
	id, err := t.InsertBuild(ctx, b, nodes)
	if err != nil {
		return 0, err
	}
	return id, t.must(ctx, "cannot add the build", `update builds set created_at = $2, started_at = $2, finished_at = $2, tag_object = $3 where id = $1`, id, micros(b.CreatedAt), b.TagObject)
}

// InsertPastGate adds a decision that was taken.
func (t *Tx) InsertPastGate(ctx context.Context, g delivery.Gate) error {
	_, err := t.exec(ctx, `insert into gates (`+gateColumns+`) values ($1,$2,$3,1,'promoted',$4,'',$5,$5,0,0,$6,$5,$7,$8,$9)
		on conflict (build_id, environment) do update set state = 'promoted', decided_by = excluded.decided_by, decided_at = excluded.decided_at,
			decided_from = excluded.decided_from, reason = excluded.reason, without = excluded.without where gates.state <> 'promoted'`,
		g.ID, g.BuildID, g.Environment, toJSON(g.Binding), micros(g.DecidedAt), g.DecidedBy, g.DecidedFrom, g.Reason, g.Without)
	return err
}

// InsertPastDeployment adds a deployment that succeeded, with the next fence.
func (t *Tx) InsertPastDeployment(ctx context.Context, d delivery.Deployment) error {
	fence, err := t.nextFence(ctx, d.Project, d.Environment)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, `insert into deployments (`+deploymentColumns+`) values ($1,$2,$3,$4,$5,$6,$7,$8,$9,'succeeded',$10,'',$11,$12,$13,$13)`,
		d.ID, d.Project, d.Environment, d.BuildID, d.Number, d.Commit, d.Lane, d.Kind, fence, d.Before, d.By, d.Reason, micros(d.StartedAt))
	return err
}

// nextFence is higher than that of every deployment of an environment.
func (t *Tx) nextFence(ctx context.Context, project, environment string) (int64, error) {
	return one(ctx, t.db, scanInt, "", `select coalesce(max(fence), 0) + 1 from (
		select fence from deployments where project = $1 and environment = $2 union all select value as fence from counters where name = $3) fences`,
		project, environment, fenceCounter(project))
}

// PassFences makes the next deployment of a project have a fence that is higher
// than all known ones by some: deployments may have been made that no row tells.
func (t *Tx) PassFences(ctx context.Context, project string, by int64) error {
	highest, err := one(ctx, t.db, scanInt, "", `select coalesce(max(fence), 0) from deployments where project = $1`, project)
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, `insert into counters (name, value) values ($1, $2) on conflict (name) do update set value = counters.value + $3`, fenceCounter(project), highest+by, by)
	return err
}

func fenceCounter(project string) string { return "fence/" + project }

// PassNumbers makes the next build's number at least next.
func (t *Tx) PassNumbers(ctx context.Context, project string, next int64) error {
	_, err := t.exec(ctx, `update projects set next_build = $2 where name = $1 and next_build < $2`, project, next)
	return err
}

// Settle ends an open build whatever it was doing: its end is known from
// elsewhere. Its gate, attempts, deployments and environments end with it; live
// environments are left for the reaper to destroy.
func (t *Tx) Settle(ctx context.Context, b delivery.Build, status delivery.BuildStatus, reason string) error {
	node, deployment, effect := "cancelled", "given_up", "failed"
	if status == delivery.BuildSucceeded {
		node, deployment, effect = "succeeded", "succeeded", "confirmed"
	}
	for _, s := range []struct {
		query string
		args  []any
	}{
		{`update nodes set state = $2, reason = $3, finished_at = $4 where build_id = $1
			and (state in ('pending','running','waiting','unknown') or kind in ('deploy','rollback','release') and state <> 'succeeded')`, []any{node, reason, micros(t.now)}},
		{`update gates set state = 'cancelled', reason = $2 where build_id = $1 and state = 'open'`, []any{reason}},
		{`update attempts set state = 'lost', reason = $2, finished_at = $3 where build_id = $1 and state = 'running'`, []any{reason, micros(t.now)}},
		{`update deployments set state = $2, after_words = $3, finished_at = $4 where build_id = $1 and state in ('running','unknown')`, []any{deployment, reason, micros(t.now)}},
		{`update effects set state = $2, error = $3, finished_at = $4 where build_id = $1 and state in ('intended','started','unknown','asked')`, []any{effect, reason, micros(t.now)}},
		{`update instances set pinned = 0, expires_at = $2, state = case when state = 'creating' then 'failed' else state end where build_id = $1 and state in ('creating','up','failed')`, []any{micros(t.now)}},
		{`update builds set status = $2, reason = $3, finished_at = $4, lease_owner = '', lease_until = 0 where id = $1`, []any{status, reason, micros(t.now)}},
	} {
		if _, err := t.exec(ctx, s.query, append([]any{b.ID}, s.args...)...); err != nil {
			return err
		}
	}
	t.Event(b.Project, b.Number, "build")
	return nil
}

// LoseAttempt ends an attempt of which no runner knows any more.
func (t *Tx) LoseAttempt(ctx context.Context, build int64, node, reason string) error {
	_, err := t.exec(ctx, `update attempts set state = 'lost', reason = $3, finished_at = $4 where build_id = $1 and node = $2 and state = 'running'`, build, node, reason, micros(t.now))
	return err
}

// AbandonInstance leaves an environment that was being made for the reaper to destroy.
func (t *Tx) AbandonInstance(ctx context.Context, build int64, environment, reason string) error {
	_, err := t.exec(ctx, `update instances set state = 'failed', reason = $3, pinned = 0, expires_at = $4 where build_id = $1 and environment = $2 and state = 'creating'`, build, environment, reason, micros(t.now))
	return err
}

// DeleteMeta forgets a value of the installation.
func (t *Tx) DeleteMeta(ctx context.Context, name string) error {
	_, err := t.exec(ctx, `delete from meta where name = $1`, name)
	return err
}

// OwnedArtifact is an artifact and whose it is.
type OwnedArtifact struct {
	Project string
	Number  int64
	delivery.Artifact
}

// ArtifactDigests lists all artifacts, but for those that retention has removed.
func (q queries) ArtifactDigests(ctx context.Context) ([]OwnedArtifact, error) {
	return list(ctx, q.db, func(r scanner) (a OwnedArtifact, err error) {
		err = r.Scan(&a.Project, &a.Number, &a.BuildID, &a.Name, &a.SHA256)
		return a, err
	}, `select b.project, b.number, a.build_id, a.name, a.sha256 from artifacts a join builds b on b.id = a.build_id
		where not exists (select 1 from meta where meta.name = 'removed/' || a.sha256) order by b.project, b.number, a.name`)
}

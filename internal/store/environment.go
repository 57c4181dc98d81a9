package store

import (
	"context"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

const instanceColumns = `id, project, environment, build_id, number, state, url, outputs, pinned, reason, created_at, expires_at, down_at, down_tries`

func scanInstance(r scanner) (i delivery.Instance, err error) {
	err = r.Scan(&i.ID, &i.Project, &i.Environment, &i.BuildID, &i.Number, &i.State, &i.URL, jsonText{&i.Outputs}, &i.Pinned, &i.Reason, stamp{&i.CreatedAt}, stamp{&i.ExpiresAt}, stamp{&i.DownAt}, &i.DownTries)
	return i, err
}

// Instance returns an ephemeral environment by its label.
func (q queries) Instance(ctx context.Context, id string) (delivery.Instance, error) {
	return one(ctx, q.db, scanInstance, "there is no environment "+id, `select `+instanceColumns+` from instances where id = $1`, id)
}

// Instances lists a project's ephemeral environments that are alive or ended after a time, newest first.
func (q queries) Instances(ctx context.Context, project string, endedAfter time.Time) ([]delivery.Instance, error) {
	return list(ctx, q.db, scanInstance, `select `+instanceColumns+` from instances where project = $1 and (state <> 'down' or down_at > $2) order by created_at desc limit 200`, project, micros(endedAfter))
}

// InstancesOf lists a build's ephemeral environments.
func (q queries) InstancesOf(ctx context.Context, buildID int64) ([]delivery.Instance, error) {
	return list(ctx, q.db, scanInstance, `select `+instanceColumns+` from instances where build_id = $1 order by created_at`, buildID)
}

// DueInstances lists environments whose end has come: their time is over and
// nobody pinned them, or their destruction failed and is due again.
func (q queries) DueInstances(ctx context.Context, now time.Time) ([]delivery.Instance, error) {
	return list(ctx, q.db, scanInstance, `select `+instanceColumns+` from instances where state <> 'down' and
		((state in ('up','failed') and pinned = 0 and expires_at <= $1) or (state = 'destroying' and next_try <= $1 and next_try > 0)) order by created_at`, micros(now))
}

// InstancesUp lists the ephemeral environments of all projects that are recorded as up.
func (q queries) InstancesUp(ctx context.Context) ([]delivery.Instance, error) {
	return list(ctx, q.db, scanInstance, `select `+instanceColumns+` from instances where state <> 'down' and state = 'up' order by created_at`)
}

// SetHealth keeps why an environment that is up does not answer; "": it does.
func (t *Tx) SetHealth(ctx context.Context, id, reason string) error {
	_, err := t.exec(ctx, `update instances set reason = $2 where id = $1 and state = 'up'`, id, reason)
	return err
}

// InsertInstance writes an environment down before `up` creates it.
func (t *Tx) InsertInstance(ctx context.Context, i delivery.Instance) error {
	_, err := t.exec(ctx, `insert into instances (`+instanceColumns+`, next_try) values ($1,$2,$3,$4,$5,'creating','','{}',0,'',$6,$7,0,0,0)
		on conflict (id) do nothing`, i.ID, i.Project, i.Environment, i.BuildID, i.Number, micros(t.now), micros(i.ExpiresAt))
	return err
}

// SetInstance writes the environment's state, url, outputs and reason.
func (t *Tx) SetInstance(ctx context.Context, i delivery.Instance) error {
	if i.Outputs == nil {
		i.Outputs = map[string]string{}
	}
	return t.must(ctx, "cannot change environment "+i.ID, `update instances set state = $2, url = $3, outputs = $4, reason = $5, down_at = $6, down_tries = $7, next_try = $8 where id = $1 and state <> 'down'`,
		i.ID, i.State, i.URL, toJSON(i.Outputs), i.Reason, micros(i.DownAt), i.DownTries, 0)
}

// ClearInstanceClaims makes destructions due again that a dead process was busy
// with. Whoever is busy with one is joined, not disturbed.
func (t *Tx) ClearInstanceClaims(ctx context.Context) error {
	_, err := t.exec(ctx, `update instances set next_try = $1 where state = 'destroying'`, micros(t.now))
	return err
}

// RetryDown notes when a failed destruction is tried again.
func (t *Tx) RetryDown(ctx context.Context, id string, at time.Time) error {
	return t.must(ctx, "cannot change environment "+id, `update instances set next_try = $2 where id = $1 and state = 'destroying'`, id, micros(at))
}

// Keep sets when a living environment ends and whether it is pinned.
func (t *Tx) Keep(ctx context.Context, id string, expires time.Time, pinned bool) error {
	return t.must(ctx, "cannot keep environment "+id, `update instances set expires_at = $2, pinned = $3 where id = $1 and state in ('creating','up','failed')`, id, micros(expires), flag(pinned))
}

const deploymentColumns = `id, project, environment, build_id, number, commit_id, lane, kind, fence, state, before_commit, after_words, by_user, reason, started_at, finished_at`

func scanDeployment(r scanner) (d delivery.Deployment, err error) {
	err = r.Scan(&d.ID, &d.Project, &d.Environment, &d.BuildID, &d.Number, &d.Commit, &d.Lane, &d.Kind, &d.Fence, &d.State, &d.Before, &d.After, &d.By, &d.Reason, stamp{&d.StartedAt}, stamp{&d.FinishedAt})
	return d, err
}

// Deployment returns a deployment by its id.
func (q queries) Deployment(ctx context.Context, id string) (delivery.Deployment, error) {
	return one(ctx, q.db, scanDeployment, "there is no deployment "+id, `select `+deploymentColumns+` from deployments where id = $1`, id)
}

// Deployments lists the deployments of an environment by their fences, which no
// clock can put in another order, or those of all environments ("") by their time;
// newest first.
func (q queries) Deployments(ctx context.Context, project, environment string, limit int) ([]delivery.Deployment, error) {
	return list(ctx, q.db, scanDeployment, `select `+deploymentColumns+` from deployments where project = $1 and ($2 = '' or environment = $2) order by case when $2 = '' then started_at else 0 end desc, fence desc limit $3`, project, environment, limit)
}

// DeploymentsOf lists a build's deployments, oldest first.
func (q queries) DeploymentsOf(ctx context.Context, buildID int64) ([]delivery.Deployment, error) {
	return list(ctx, q.db, scanDeployment, `select `+deploymentColumns+` from deployments where build_id = $1 order by started_at, fence`, buildID)
}

// Lock tells which deployment holds an environment; ok is false when it is free.
func (q queries) Lock(ctx context.Context, project, environment string) (d delivery.Deployment, ok bool, err error) {
	d, err = one(ctx, q.db, scanDeployment, "free", `select `+deploymentColumns+` from deployments where project = $1 and environment = $2 and state in ('running','unknown')`, project, environment)
	if delivery.IsKind(err, delivery.KindNotFound) {
		return d, false, nil
	}
	return d, err == nil, err
}

// LockWaiter is a build whose deployment waits for an environment's lock, or is
// about to ask for it.
type LockWaiter struct {
	BuildID int64
	Lane    delivery.Lane
	Number  int64
}

// LockWaiters lists who waits for an environment: hotfixes first, then the oldest.
func (q queries) LockWaiters(ctx context.Context, project, environment string) ([]LockWaiter, error) {
	return list(ctx, q.db, func(r scanner) (w LockWaiter, err error) {
		err = r.Scan(&w.BuildID, &w.Lane, &w.Number)
		return w, err
	}, `select b.id, b.lane, b.number from nodes n join builds b on b.id = n.build_id
		where b.project = $1 and n.target = $2 and n.kind in ('deploy','rollback') and n.state in ('waiting','running') and b.status in ('queued', 'running', 'waiting', 'stopped') and b.status in ('waiting','running')
		order by case b.lane when 'hotfix' then 0 else 1 end, b.number`, project, environment)
}

// Awaited is an environment for which some build waits.
type Awaited struct{ Project, Environment string }

// WaitedFor lists the environments for which builds wait.
func (q queries) WaitedFor(ctx context.Context) ([]Awaited, error) {
	return list(ctx, q.db, func(r scanner) (a Awaited, err error) {
		err = r.Scan(&a.Project, &a.Environment)
		return a, err
	}, `select distinct b.project, n.target from builds b join nodes n on n.build_id = b.id
		where b.status in ('queued', 'running', 'waiting', 'stopped') and b.status in ('waiting','running') and n.kind in ('deploy','rollback') and n.state = 'waiting'`)
}

// ReleaseUnderWay tells whether a build of the project is pushing the production
// branch right now, so that what is seen on the remote may be ours.
func (q queries) ReleaseUnderWay(ctx context.Context, project string) (bool, error) {
	n, err := one(ctx, q.db, scanInt, "", `select count(*) from builds b join nodes n on n.build_id = b.id
		where b.project = $1 and b.status in ('queued', 'running', 'waiting', 'stopped') and b.status in ('queued','running') and n.kind = 'release' and n.state = 'running'`, project)
	return n > 0, err
}

// StartDeployment takes the environment's lock with the next fence. ok is false
// when another deployment holds it.
func (t *Tx) StartDeployment(ctx context.Context, d delivery.Deployment) (_ delivery.Deployment, ok bool, err error) {
	fence, err := t.nextFence(ctx, d.Project, d.Environment)
	if err != nil {
		return d, false, err
	}
	started, err := one(ctx, t.db, scanDeployment, "", `insert into deployments (`+deploymentColumns+`)
		values ($1,$2,$3,$4,$5,$6,$7,$8,$9,'running',$10,'',$11,$12,$13,0) on conflict do nothing returning `+deploymentColumns,
		d.ID, d.Project, d.Environment, d.BuildID, d.Number, d.Commit, d.Lane, d.Kind, fence, d.Before, d.By, d.Reason, micros(t.now))
	if delivery.IsKind(err, delivery.KindNotFound) {
		return d, false, nil // another holds the lock
	}
	return started, err == nil, err
}

// EndDeployment moves a deployment on; failed, succeeded and given_up free the lock.
func (t *Tx) EndDeployment(ctx context.Context, d delivery.Deployment, next delivery.DeploymentState, after string) error {
	return t.must(ctx, "cannot end deployment "+d.ID, `update deployments set state = $3, after_words = $4, finished_at = $5 where id = $1 and state = $2`,
		d.ID, d.State, next, after, micros(t.now))
}

// InsertTakeover records what ran before Shunt came, as a deployment that succeeded.
func (t *Tx) InsertTakeover(ctx context.Context, d delivery.Deployment) error {
	_, err := t.exec(ctx, `insert into deployments (`+deploymentColumns+`) values ($1,$2,$3,$4,$5,$6,$7,'takeover',1,'succeeded','','',$8,$9,$10,$10)`,
		d.ID, d.Project, d.Environment, d.BuildID, d.Number, d.Commit, d.Lane, d.By, d.Reason, micros(t.now))
	return err
}

func scanBackMerge(r scanner) (b delivery.BackMerge, err error) {
	err = r.Scan(&b.Project, &b.Commit, &b.Number, &b.Owner, stamp{&b.OpenedAt}, stamp{&b.ClosedAt}, &b.ClosedBy, jsonText{&b.Conflicts}, stamp{&b.CheckedAt})
	return b, err
}

// BackMerges lists a project's debts, open ones first, newest first.
func (q queries) BackMerges(ctx context.Context, project string, openOnly bool) ([]delivery.BackMerge, error) {
	return list(ctx, q.db, scanBackMerge, `select project, commit_id, number, owner, opened_at, closed_at, closed_by, conflicts, checked_at from back_merges
		where project = $1 and ($2 = 0 or closed_at = 0) order by case when closed_at = 0 then 0 else 1 end, opened_at desc limit 100`, project, flag(openOnly))
}

// OpenBackMerge notes a debt; a debt that is known stays as it is.
func (t *Tx) OpenBackMerge(ctx context.Context, b delivery.BackMerge) (fresh bool, err error) {
	n, err := t.exec(ctx, `insert into back_merges (project, commit_id, number, owner, opened_at, closed_at, closed_by, conflicts, checked_at) values ($1,$2,$3,$4,$5,0,'',$6,$5)
		on conflict (project, commit_id) do nothing`, b.Project, b.Commit, b.Number, b.Owner, micros(t.now), toJSON(nonNil(b.Conflicts)))
	return n == 1, err
}

// SetForecast keeps the last forecast of an open debt.
func (t *Tx) SetForecast(ctx context.Context, project, commit string, conflicts []string) error {
	_, err := t.exec(ctx, `update back_merges set conflicts = $3, checked_at = $4 where project = $1 and commit_id = $2 and closed_at = 0`, project, commit, toJSON(nonNil(conflicts)), micros(t.now))
	return err
}

// CloseBackMerge notes that the integration commit by contains the debt.
func (t *Tx) CloseBackMerge(ctx context.Context, project, commit, by string) error {
	_, err := t.exec(ctx, `update back_merges set closed_at = $4, closed_by = $3, conflicts = '[]' where project = $1 and commit_id = $2 and closed_at = 0`, project, commit, by, micros(t.now))
	return err
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

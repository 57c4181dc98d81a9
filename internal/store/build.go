package store

import (
	"context"
	"errors"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

const buildColumns = `id, project, number, lane, ref, commit_id, tree, parent, subject, author_name, author_email, pipeline, policy_digest,
	production, status, reason, created_at, started_at, finished_at, lease_owner, lease_fence, lease_until, cancelled_by, tag_object`

func scanBuild(r scanner) (b delivery.Build, err error) {
	err = r.Scan(&b.ID, &b.Project, &b.Number, &b.Lane, &b.Ref, &b.Commit, &b.Tree, &b.Parent, &b.Subject, &b.AuthorName, &b.AuthorEmail, &b.Pipeline, &b.PolicyDigest,
		&b.Production, &b.Status, &b.Reason, stamp{&b.CreatedAt}, stamp{&b.StartedAt}, stamp{&b.FinishedAt}, &b.LeaseOwner, &b.LeaseFence, stamp{&b.LeaseUntil}, &b.CancelledBy, &b.TagObject)
	return b, err
}

// Build returns a build by its id.
func (q queries) Build(ctx context.Context, id int64) (delivery.Build, error) {
	return one(ctx, q.db, scanBuild, "there is no such build", `select `+buildColumns+` from builds where id = $1`, id)
}

// BuildByNumber returns a build of a project.
func (q queries) BuildByNumber(ctx context.Context, project string, number int64) (delivery.Build, error) {
	return one(ctx, q.db, scanBuild, "there is no such build in project "+project, `select `+buildColumns+` from builds where project = $1 and number = $2`, project, number)
}

// BuildQuery narrows a list of builds.
type BuildQuery struct {
	Project string
	Lane    string // "": any
	Status  string // "": any; "open": queued, running, waiting or stopped
	Ref     string
	Commit  string
	Before  int64 // only numbers below; 0: from the newest
	Limit   int
}

// Builds lists builds, newest first.
func (q queries) Builds(ctx context.Context, f BuildQuery) ([]delivery.Build, error) {
	return list(ctx, q.db, scanBuild, `select `+buildColumns+` from builds where project = $1
		and ($2 = '' or lane = $2)
		and ($3 = '' or status = $3 or ($3 = 'open' and status in ('queued','running','waiting','stopped')))
		and ($4 = '' or ref = $4) and ($5 = '' or commit_id = $5) and ($6 = 0 or number < $6)
		order by number desc limit $7`, f.Project, f.Lane, f.Status, f.Ref, f.Commit, f.Before, f.Limit)
}

// InsertBuild adds a build under a number of TakeNumber, with its graph.
func (t *Tx) InsertBuild(ctx context.Context, b delivery.Build, nodes []delivery.Node) (int64, error) {
	id, err := t.next(ctx, "build")
	if err != nil {
		return 0, err
	}
	_, err = t.exec(ctx, `insert into builds (`+buildColumns+`, drive_after)
		values ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,0,$18,'',0,0,'','',0)`,
		id, b.Project, b.Number, b.Lane, b.Ref, b.Commit, b.Tree, b.Parent, b.Subject, b.AuthorName, b.AuthorEmail, string(b.Pipeline), b.PolicyDigest,
		b.Production, b.Status, b.Reason, micros(t.now), micros(b.FinishedAt))
	if err != nil {
		return 0, err
	}
	return id, t.InsertNodes(ctx, id, nodes)
}

// Supersede ends the queued builds of a ref that a newer push makes needless and
// tells their numbers. It never touches the hotfix lane.
func (t *Tx) Supersede(ctx context.Context, project, ref string, by int64, reason string) ([]int64, error) {
	return list(ctx, t.db, scanInt, `update builds set status = 'superseded', reason = $4, finished_at = $5
		where project = $1 and ref = $2 and lane = 'main' and status = 'queued' and number < $3 returning number`, project, ref, by, reason, micros(t.now))
}

// Runnable lists builds that somebody should drive now: queued or running,
// without a living lease. Hotfixes come first, then the oldest.
func (q queries) Runnable(ctx context.Context, now time.Time, lane delivery.Lane, limit int) ([]int64, error) {
	return list(ctx, q.db, scanInt, `select id from builds where status in ('queued', 'running', 'waiting', 'stopped') and status in ('queued','running') and lane = $1
		and lease_until < $2 and drive_after <= $2 order by id limit $3`, lane, micros(now), limit)
}

// Lease gives the build's lease to owner with a new fence, when it is free and
// the build can be driven. ok is false when somebody else holds it or there is
// nothing to drive.
func (t *Tx) Lease(ctx context.Context, id int64, owner string, ttl time.Duration) (b delivery.Build, ok bool, err error) {
	b, err = one(ctx, t.db, scanBuild, "no lease", `update builds set lease_owner = $2, lease_fence = lease_fence + 1, lease_until = $3,
		status = 'running', started_at = case when started_at = 0 then $4 else started_at end
		where id = $1 and status in ('queued','running') and lease_until < $4 and drive_after <= $4
		returning `+buildColumns, id, owner, micros(t.now.Add(ttl)), micros(t.now))
	if delivery.IsKind(err, delivery.KindNotFound) {
		return b, false, nil
	}
	return b, err == nil, err
}

// Guard renews the lease and proves that the fence is still the newest; every
// write of a driver begins with it. The error is delivery.ErrLeaseLost.
func (t *Tx) Guard(ctx context.Context, id, fence int64, ttl time.Duration) error {
	n, err := t.exec(ctx, `update builds set lease_until = $3 where id = $1 and lease_fence = $2 and lease_owner <> ''`, id, fence, micros(t.now.Add(ttl)))
	if err == nil && n == 0 {
		err = delivery.ErrLeaseLost
	}
	return err
}

// Unlease gives the lease back and leaves the build in a status; after delays
// the next drive of a running build.
func (t *Tx) Unlease(ctx context.Context, id, fence int64, status delivery.BuildStatus, reason string, after time.Duration) error {
	finished := int64(0)
	if status.Final() {
		finished = micros(t.now)
	}
	n, err := t.exec(ctx, `update builds set lease_owner = '', lease_until = 0, status = $3, reason = $4, finished_at = $5, drive_after = $6
		where id = $1 and lease_fence = $2 and lease_owner <> ''`, id, fence, status, reason, finished, micros(t.now.Add(after)))
	if err == nil && n == 0 {
		err = delivery.ErrLeaseLost
	}
	return err
}

// ClearLeases frees the leases that dead processes of an installation held; their
// owners are "<installation>/<process>". Only the one process that has locked
// the installation's data directory may call it.
func (t *Tx) ClearLeases(ctx context.Context, installation string) error {
	_, err := t.exec(ctx, `update builds set lease_owner = '', lease_until = 0 where substr(lease_owner, 1, length($1) + 1) = $1 || '/'`, installation)
	return err
}

// SetStatus moves a build that nobody drives from one status to another.
func (t *Tx) SetStatus(ctx context.Context, b delivery.Build, next delivery.BuildStatus, reason string) error {
	if !b.Status.CanBecome(next) {
		return errors.New("store: a build cannot go from " + string(b.Status) + " to " + string(next))
	}
	finished := int64(0)
	if next.Final() {
		finished = micros(t.now)
	}
	return t.must(ctx, "cannot change the build", `update builds set status = $3, reason = $4, finished_at = $5, drive_after = 0 where id = $1 and status = $2`,
		b.ID, b.Status, next, reason, finished)
}

// Hurry makes a build due that was to be driven later.
func (t *Tx) Hurry(ctx context.Context, id int64) error {
	_, err := t.exec(ctx, `update builds set drive_after = 0 where id = $1`, id)
	return err
}

// AskCancel notes that a person wants the build stopped; its driver obeys.
func (t *Tx) AskCancel(ctx context.Context, id int64, by string) error {
	_, err := t.exec(ctx, `update builds set cancelled_by = $2 where id = $1`, id, by)
	return err
}

// SetTagObject keeps the object id of the build's annotated tag.
func (t *Tx) SetTagObject(ctx context.Context, id int64, object string) error {
	return t.must(ctx, "cannot change the build", `update builds set tag_object = $2 where id = $1`, id, object)
}

// TagObjects maps build numbers to the object id of their tag.
func (q queries) TagObjects(ctx context.Context, project string) (map[int64]string, error) {
	type row struct {
		n int64
		o string
	}
	rows, err := list(ctx, q.db, func(r scanner) (x row, err error) {
		err = r.Scan(&x.n, &x.o)
		return x, err
	}, `select number, tag_object from builds where project = $1 and tag_object <> ''`, project)
	out := make(map[int64]string, len(rows))
	for _, r := range rows {
		out[r.n] = r.o
	}
	return out, err
}

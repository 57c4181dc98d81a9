package store

import (
	"context"
	"errors"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

const projectColumns = `name, url, local, branches, tags, next_build, webhook_secret, production_build, production_commit,
	branch_tip, running_build, running_commit, hold, incident, created_at`

func scanProject(r scanner) (p delivery.Project, err error) {
	err = r.Scan(&p.Name, &p.URL, &p.Local, jsonText{&p.Branches}, jsonText{&p.Tags}, &p.NextBuild, &p.WebhookSecret, &p.ProductionBuild, &p.ProductionCommit,
		&p.BranchTip, &p.RunningBuild, &p.RunningCommit, &p.Hold, &p.Incident, stamp{&p.CreatedAt})
	return p, err
}

// Project returns a project by name.
func (q queries) Project(ctx context.Context, name string) (delivery.Project, error) {
	return one(ctx, q.db, scanProject, "there is no project "+name, `select `+projectColumns+` from projects where name = $1`, name)
}

// Projects lists all projects by name.
func (q queries) Projects(ctx context.Context) ([]delivery.Project, error) {
	return list(ctx, q.db, scanProject, `select `+projectColumns+` from projects order by name`)
}

// ProjectPipeline returns the resolved pipeline (JSON) of the integration
// branch as last read; empty when none was readable yet.
func (q queries) ProjectPipeline(ctx context.Context, name string) (string, error) {
	return one(ctx, q.db, scanText, "there is no project "+name, `select pipeline from projects where name = $1`, name)
}

// FetchState is how the last look at a remote went.
type FetchState struct {
	At    time.Time
	Error string
}

// FetchState returns how the last look at the project's remote went.
func (q queries) FetchState(ctx context.Context, name string) (FetchState, error) {
	return one(ctx, q.db, func(r scanner) (f FetchState, err error) {
		err = r.Scan(stamp{&f.At}, &f.Error)
		return f, err
	}, "there is no project "+name, `select last_fetch, fetch_error from projects where name = $1`, name)
}

// InsertProject adds a project.
func (t *Tx) InsertProject(ctx context.Context, p delivery.Project) error {
	_, err := t.exec(ctx, `insert into projects (`+projectColumns+`, pipeline, last_fetch, fetch_error)
		values ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,'',0,'')`,
		p.Name, p.URL, flag(p.Local), toJSON(p.Branches), toJSON(p.Tags), p.NextBuild, p.WebhookSecret, p.ProductionBuild, p.ProductionCommit,
		p.BranchTip, p.RunningBuild, p.RunningCommit, p.Hold, p.Incident, micros(t.now))
	return err
}

// SetPolicy keeps what the integration branch's pipeline file says of the project.
func (t *Tx) SetPolicy(ctx context.Context, project string, b delivery.Branches, tags delivery.Tags, pipeline string) error {
	return t.must(ctx, "cannot change project "+project, `update projects set branches = $2, tags = $3, pipeline = $4 where name = $1`,
		project, toJSON(b), toJSON(tags), pipeline)
}

// SetFetchState keeps how a look at the remote went; fetchError "" is success.
func (t *Tx) SetFetchState(ctx context.Context, project, fetchError string) error {
	_, err := t.exec(ctx, `update projects set last_fetch = $2, fetch_error = $3 where name = $1`, project, micros(t.now), fetchError)
	return err
}

// SetProduction records the latest production tag's build and the branch's tip.
func (t *Tx) SetProduction(ctx context.Context, project string, number int64, commit, branchTip string) error {
	return t.must(ctx, "cannot change project "+project, `update projects set production_build = $2, production_commit = $3, branch_tip = $4 where name = $1`,
		project, number, commit, branchTip)
}

// SetRunning records what production runs.
func (t *Tx) SetRunning(ctx context.Context, project string, number int64, commit string) error {
	return t.must(ctx, "cannot change project "+project, `update projects set running_build = $2, running_commit = $3 where name = $1`, project, number, commit)
}

// SetBranchTip accepts the production branch as it is.
func (t *Tx) SetBranchTip(ctx context.Context, project, tip string) error {
	return t.must(ctx, "cannot change project "+project, `update projects set branch_tip = $2 where name = $1`, project, tip)
}

// SetHold sets or (with "") releases the hold on the main lane.
func (t *Tx) SetHold(ctx context.Context, project, why string) error {
	return t.must(ctx, "cannot change project "+project, `update projects set hold = $2 where name = $1`, project, why)
}

// SetIncident sets or (with "") clears the incident.
func (t *Tx) SetIncident(ctx context.Context, project, why string) error {
	return t.must(ctx, "cannot change project "+project, `update projects set incident = $2 where name = $1`, project, why)
}

// TakeNumber gives the next build number of a project, never twice.
func (t *Tx) TakeNumber(ctx context.Context, project string) (int64, error) {
	return one(ctx, t.db, scanInt, "there is no project "+project,
		`update projects set next_build = next_build + 1 where name = $1 returning next_build - 1`, project)
}

// Refs returns the remote's refs as last acted on.
func (q queries) Refs(ctx context.Context, project string) (map[string]string, error) {
	type ref struct{ name, object string }
	rows, err := list(ctx, q.db, func(r scanner) (x ref, err error) {
		err = r.Scan(&x.name, &x.object)
		return x, err
	}, `select ref, object from refs where project = $1`, project)
	out := make(map[string]string, len(rows))
	for _, r := range rows {
		out[r.name] = r.object
	}
	return out, err
}

// SetRef keeps a ref as acted on; an empty object forgets it.
func (t *Tx) SetRef(ctx context.Context, project, ref, object string) error {
	if object == "" {
		_, err := t.exec(ctx, `delete from refs where project = $1 and ref = $2`, project, ref)
		return err
	}
	_, err := t.exec(ctx, `insert into refs (project, ref, object) values ($1,$2,$3)
		on conflict (project, ref) do update set object = excluded.object`, project, ref, object)
	return err
}

// ErrOvertaken says that another server has acted on a ref meanwhile.
var ErrOvertaken = errors.New("another server has acted on this ref")

// MoveRef keeps a ref as acted on if it was known as was ("": not at all) until
// now; otherwise the error is ErrOvertaken. An empty object forgets it.
func (t *Tx) MoveRef(ctx context.Context, project, ref, was, object string) error {
	known, err := one(ctx, t.tx, scanText, "unknown ref", `select object from refs where project = $1 and ref = $2`, project, ref)
	if err != nil && !delivery.IsKind(err, delivery.KindNotFound) {
		return err
	}
	if known != was {
		return ErrOvertaken
	}
	return t.SetRef(ctx, project, ref, object)
}

// Push is a changed ref and what became of it.
type Push struct {
	ID      int64
	Project string
	Ref     string
	Commit  string
	Number  int64  // the build; 0: none
	Refused string // why there is none
	At      time.Time
}

func scanPush(r scanner) (p Push, err error) {
	err = r.Scan(&p.ID, &p.Project, &p.Ref, &p.Commit, &p.Number, &p.Refused, stamp{&p.At})
	return p, err
}

// Pushes lists the latest pushes, newest first.
func (q queries) Pushes(ctx context.Context, project string, limit int) ([]Push, error) {
	return list(ctx, q.db, scanPush, `select id, project, ref, commit_id, build_number, refused, at from pushes where project = $1 order by id desc limit $2`, project, limit)
}

// PushOf finds what became of a commit on a ref.
func (q queries) PushOf(ctx context.Context, project, ref, commit string) (Push, error) {
	return one(ctx, q.db, scanPush, "no such push", `select id, project, ref, commit_id, build_number, refused, at from pushes
		where project = $1 and ref = $2 and commit_id = $3 order by id desc limit 1`, project, ref, commit)
}

// AcceptedTips lists the commits of a branch for which builds were made.
func (q queries) AcceptedTips(ctx context.Context, project, ref string) ([]string, error) {
	return list(ctx, q.db, scanText, `select distinct commit_id from builds where project = $1 and ref = $2`, project, ref)
}

// InsertPush records what became of a push.
func (t *Tx) InsertPush(ctx context.Context, p Push) error {
	id, err := t.next(ctx, "push")
	if err != nil {
		return err
	}
	_, err = t.exec(ctx, `insert into pushes (id, project, ref, commit_id, build_number, refused, at) values ($1,$2,$3,$4,$5,$6,$7)`,
		id, p.Project, p.Ref, p.Commit, p.Number, p.Refused, micros(t.now))
	return err
}

// Delivery remembers a webhook's delivery id; first is false for a repeat.
func (t *Tx) Delivery(ctx context.Context, project, id string) (first bool, err error) {
	n, err := t.exec(ctx, `insert into deliveries (project, id, at) values ($1,$2,$3) on conflict (project, id) do nothing`, project, id, micros(t.now))
	return n == 1, err
}

// ForgetDeliveries removes delivery ids older than a time; refs are read again
// whatever comes, so that a forgotten id does no harm.
func (t *Tx) ForgetDeliveries(ctx context.Context, before time.Time) error {
	_, err := t.exec(ctx, `delete from deliveries where at < $1`, micros(before))
	return err
}

package store

import (
	"context"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// The reads in this file serve pages: each answers for all rows of a page at
// once, so that the number of queries does not grow with what is shown. Where
// the condition of a partial index is said besides a narrower one, it is for
// SQLite, which does not see that the one follows from the other.

// ofProject is a condition on a column, and its argument; a project "" is all of
// them. With one text for both, a database would read all for one.
func ofProject(column, project string) (condition string, args []any) {
	if project == "" {
		return "true", nil
	}
	return column + " = $1", []any{project}
}

// Release is a build that went into production.
type Release struct {
	Number int64
	Commit string
	At     time.Time
}

// Releases lists the latest builds that went into production, newest first:
// those whose production tag was pushed, and those that ran before Shunt came.
func (q queries) Releases(ctx context.Context, project string, limit int) ([]Release, error) {
	return list(ctx, q.db, func(r scanner) (x Release, err error) {
		err = r.Scan(&x.Number, &x.Commit, stamp{&x.At})
		return x, err
	}, `select d.number, d.commit_id, n.finished_at from deployments d join nodes n on n.build_id = d.build_id
			where d.project = $1 and d.kind = 'promote' and d.state = 'succeeded' and n.kind = 'release' and n.state = 'succeeded'
		union select number, commit_id, started_at from deployments where project = $1 and kind = 'takeover'
		order by 3 desc limit $2`, project, limit)
}

// BuildGate is a gate and the number of its build.
type BuildGate struct {
	Project string
	Number  int64
	ID      string
	State   delivery.GateState
}

func scanBuildGate(r scanner) (g BuildGate, err error) {
	err = r.Scan(&g.Project, &g.Number, &g.ID, &g.State)
	return g, err
}

// GatesFrom lists the gates of a project's builds from a number on, oldest first.
func (q queries) GatesFrom(ctx context.Context, project string, number int64) ([]BuildGate, error) {
	return list(ctx, q.db, scanBuildGate, `select b.project, b.number, g.id, g.state from gates g join builds b on b.id = g.build_id
		where b.project = $1 and b.number >= $2 order by g.opened_at, g.id`, project, number)
}

// WaitingGates lists the gates that wait in a project ("": in all).
func (q queries) WaitingGates(ctx context.Context, project string) ([]BuildGate, error) {
	only, args := ofProject("b.project", project)
	return list(ctx, q.db, scanBuildGate, `select b.project, b.number, g.id, g.state from gates g join builds b on b.id = g.build_id
		where g.state = 'open' and `+only+` order by g.opened_at, g.id`, args...)
}

// ProjectState is what the matrix shows of a project besides its row.
type ProjectState struct {
	Name string
	FetchState
	Pipeline string // JSON; empty when none was readable yet
}

// ProjectStates lists the state of a project ("": of all).
func (q queries) ProjectStates(ctx context.Context, project string) ([]ProjectState, error) {
	only, args := ofProject("name", project)
	return list(ctx, q.db, func(r scanner) (p ProjectState, err error) {
		err = r.Scan(&p.Name, stamp{&p.At}, &p.Error, &p.Pipeline)
		return p, err
	}, `select name, last_fetch, fetch_error, pipeline from projects where `+only, args...)
}

// rowColumns are the columns of a build but for its pipeline file, which no row
// shows and which is most of its bytes.
func rowColumns() string { return strings.Replace(buildColumns, "pipeline,", "'',", 1) }

// PausedBuilds lists the builds of a project ("": of all) that wait for a person
// or have stopped, newest first, without their pipeline files.
func (q queries) PausedBuilds(ctx context.Context, project string) ([]delivery.Build, error) {
	only, args := ofProject("project", project)
	return list(ctx, q.db, scanBuild, `select `+rowColumns()+` from builds where status in ('queued', 'running', 'waiting', 'stopped') and status in ('waiting', 'stopped')
		and `+only+` order by project, number desc`, args...)
}

// LatestBuilds lists the newest build of a project ("": of each), without its
// pipeline file.
func (q queries) LatestBuilds(ctx context.Context, project string) ([]delivery.Build, error) {
	only, args := ofProject("name", project)
	return list(ctx, q.db, scanBuild, `select `+rowColumns()+` from (select name from projects where `+only+`) as p
		join builds on id = (select b.id from builds b where b.project = name order by b.number desc limit 1)`, args...)
}

// CurrentDeployments lists, for each environment of a project ("": of all), the
// last deployment that succeeded and the attempts after it, newest first.
func (q queries) CurrentDeployments(ctx context.Context, project string) ([]delivery.Deployment, error) {
	only, args := ofProject("project", project)
	return list(ctx, q.db, scanDeployment, `select `+deploymentColumns+` from (select distinct project as p, environment as e from deployments where `+only+`) as places
		join deployments on project = p and environment = e and fence >= (select coalesce(max(s.fence), 0) from deployments s where s.project = p and s.environment = e and s.state = 'succeeded')
		order by started_at desc, fence desc`, args...)
}

// LivingInstances lists the ephemeral environments of a project ("": of all)
// that are not destroyed, newest first.
func (q queries) LivingInstances(ctx context.Context, project string) ([]delivery.Instance, error) {
	only, args := ofProject("project", project)
	return list(ctx, q.db, scanInstance, `select `+instanceColumns+` from instances where state <> 'down' and `+only+`
		order by created_at desc`, args...)
}

// OpenDebts lists the back-merges that a project ("": each) owes, newest first.
func (q queries) OpenDebts(ctx context.Context, project string) ([]delivery.BackMerge, error) {
	only, args := ofProject("project", project)
	return list(ctx, q.db, scanBackMerge, `select project, commit_id, number, owner, opened_at, closed_at, closed_by, conflicts, checked_at from back_merges
		where closed_at = 0 and `+only+` order by opened_at desc`, args...)
}

// DeploymentsBefore lists deployments that began before a time, newest first.
func (q queries) DeploymentsBefore(ctx context.Context, project string, before time.Time, limit int) ([]delivery.Deployment, error) {
	return list(ctx, q.db, scanDeployment, `select `+deploymentColumns+` from deployments where project = $1 and started_at < $2
		order by started_at desc, fence desc limit $3`, project, micros(before), limit)
}

// TurnsBefore lists the audit rows of a project that stopped its deliveries or
// let them go on, before a time, newest first.
func (q queries) TurnsBefore(ctx context.Context, project string, before time.Time, limit int) ([]AuditRow, error) {
	return list(ctx, q.db, scanAudit, `select seq, at, project, number, actor, action, detail, hash from audit where project = $1 and at < $2
		and action in ('hold', 'hold released', 'freeze planned', 'freeze ended', 'incident', 'incident cleared') order by seq desc limit $3`, project, micros(before), limit)
}

// BuildArtifact is an artifact with its build.
type BuildArtifact struct {
	delivery.Artifact
	Number    int64
	Lane      delivery.Lane
	Status    delivery.BuildStatus
	CreatedAt time.Time
}

// ArtifactsBelow lists the artifacts of builds below a number (0: all), newest first.
func (q queries) ArtifactsBelow(ctx context.Context, project string, before int64, limit int) ([]BuildArtifact, error) {
	return list(ctx, q.db, func(r scanner) (a BuildArtifact, err error) {
		err = r.Scan(&a.BuildID, &a.Name, &a.File, &a.SHA256, &a.Size, &a.Node, &a.Number, &a.Lane, &a.Status, stamp{&a.CreatedAt})
		return a, err
	}, `select a.build_id, a.name, a.file, a.sha256, a.size, a.node, b.number, b.lane, b.status, b.created_at from artifacts a join builds b on b.id = a.build_id
		where b.project = $1 and ($2 = 0 or b.number < $2) order by b.number desc, a.name limit $3`, project, before, limit)
}

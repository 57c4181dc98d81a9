package store

import (
	"context"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// The reads in this file serve pages: each answers for all rows of a page at
// once, so that the number of queries does not grow with what is shown.

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
	}, `select b.number, b.commit_id, n.finished_at from nodes n join builds b on b.id = n.build_id
			where b.project = $1 and n.kind = 'release' and n.state = 'succeeded'
		union all select number, commit_id, started_at from deployments where project = $1 and kind = 'takeover'
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
	return list(ctx, q.db, scanBuildGate, `select b.project, b.number, g.id, g.state from gates g join builds b on b.id = g.build_id
		where g.state = 'open' and ($1 = '' or b.project = $1) order by g.opened_at, g.id`, project)
}

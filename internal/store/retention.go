package store

import (
	"context"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Ends lists all builds of a project with no more than what retention asks: id,
// number, status and end.
func (q queries) Ends(ctx context.Context, project string) ([]delivery.Build, error) {
	return list(ctx, q.db, func(r scanner) (b delivery.Build, err error) {
		err = r.Scan(&b.ID, &b.Number, &b.Status, stamp{&b.FinishedAt})
		return b, err
	}, `select id, number, status, finished_at from builds where project = $1 order by number`, project)
}

// AllDeployments lists all deployments of a project.
func (q queries) AllDeployments(ctx context.Context, project string) ([]delivery.Deployment, error) {
	return list(ctx, q.db, scanDeployment, `select `+deploymentColumns+` from deployments where project = $1`, project)
}

// Alive lists the builds of a project that have a living ephemeral environment.
func (q queries) Alive(ctx context.Context, project string) ([]int64, error) {
	return list(ctx, q.db, scanInt, `select distinct build_id from instances where project = $1 and state <> 'down'`, project)
}

// OwnedBy is a thing of a build: the digest of an artifact, or the id of an attempt.
type OwnedBy struct {
	BuildID int64
	Name    string
}

func scanOwned(r scanner) (o OwnedBy, err error) {
	err = r.Scan(&o.BuildID, &o.Name)
	return o, err
}

// DigestsOf lists the digests of all artifacts, of all projects: two builds may
// have made the same bytes.
func (q queries) DigestsOf(ctx context.Context) ([]OwnedBy, error) {
	return list(ctx, q.db, scanOwned, `select build_id, sha256 from artifacts`)
}

// AttemptsOf lists the ids of a project's attempts.
func (q queries) AttemptsOf(ctx context.Context, project string) ([]OwnedBy, error) {
	return list(ctx, q.db, scanOwned, `select a.build_id, a.id from attempts a join builds b on b.id = a.build_id where b.project = $1`, project)
}

// NoteRemoved notes that the bytes of an artifact are about to be removed.
func (t *Tx) NoteRemoved(ctx context.Context, sha string) error {
	return t.SetMeta(ctx, removedMeta+sha, t.now.Format("2006-01-02"))
}

// removedMeta begins the names of notes about bytes that retention removed.
const removedMeta = "removed/"

package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/auth"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/store"
)

// Retention says how long after a build's end its logs and the bytes of its
// artifacts are kept; 0 is for ever. Rows, digests and tags are never removed,
// nor anything that flow.Expendable keeps.
type Retention struct{ Logs, Artifacts time.Duration }

// Swept is what was removed, or would be.
type Swept struct {
	Blobs int   `json:"artifacts"`
	Logs  int   `json:"logs"`
	Bytes int64 `json:"bytes"`
}

// young is how long bytes that were put last are kept, whatever the rows say: a
// job's artifacts are stored before their rows are written.
const young = 24 * time.Hour

// Collect removes what is old in a data directory; its server may run. dry only counts.
func (r Retention) Collect(ctx context.Context, dataDir string, dry bool) (out Swept, err error) {
	err = withData(ctx, dataDir, func(st *store.Store, _ *auth.Service) error {
		if waits, err := st.Meta(ctx, reconcileMeta); err != nil || waits != "" {
			return errors.Join(err, delivery.Errf(delivery.KindConflict, "nothing is removed", "this installation was restored and not yet reconciled"))
		}
		where, err := notedPlace(dataDir)
		if err != nil {
			return err
		}
		k, err := where.open(dataDir, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		out, err = r.sweep(ctx, st, k, dry)
		return err
	})
	return out, err
}

// sweep removes what is old.
func (r Retention) sweep(ctx context.Context, st *store.Store, k kept, dry bool) (out Swept, err error) {
	if r.Artifacts > 0 {
		if err := r.sweepArtifacts(ctx, st, k.blobs, dry, &out); err != nil {
			return out, err
		}
	}
	if r.Logs > 0 {
		err = r.sweepLogs(ctx, st, k.logs, dry, &out)
	}
	return out, err
}

// expendable are the ids of builds, of all projects, that ended before keep.
func expendable(ctx context.Context, q interface {
	Projects(ctx context.Context) ([]delivery.Project, error)
	Ends(ctx context.Context, project string) ([]delivery.Build, error)
	AllDeployments(ctx context.Context, project string) ([]delivery.Deployment, error)
	Alive(ctx context.Context, project string) ([]int64, error)
}, now time.Time, keep time.Duration,
) (map[int64]bool, error) {
	projects, err := q.Projects(ctx)
	if err != nil {
		return nil, err
	}
	out := map[int64]bool{}
	for _, p := range projects {
		f := flow.RetentionFacts{ProductionBuild: p.ProductionBuild, RunningBuild: p.RunningBuild, Alive: map[int64]bool{}, Now: now, Keep: keep}
		if f.Builds, err = q.Ends(ctx, p.Name); err != nil {
			return nil, err
		}
		if f.Deployments, err = q.AllDeployments(ctx, p.Name); err != nil {
			return nil, err
		}
		alive, err := q.Alive(ctx, p.Name)
		if err != nil {
			return nil, err
		}
		for _, id := range alive {
			f.Alive[id] = true
		}
		for _, id := range flow.Expendable(f) {
			out[id] = true
		}
	}
	return out, nil
}

// sweepArtifacts removes the bytes that only expendable builds have. That is
// noted first, in the transaction that has judged, so that a backup does not miss
// them.
func (r Retention) sweepArtifacts(ctx context.Context, st *store.Store, blobs *artifact.Store, dry bool, out *Swept) error {
	now := st.Now()
	all, err := blobs.All(ctx)
	if err != nil {
		return err
	}
	var old []string
	err = st.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		old = nil
		builds, err := expendable(ctx, tx, now, r.Artifacts)
		if err != nil {
			return err
		}
		owned, err := tx.DigestsOf(ctx)
		if err != nil {
			return err
		}
		needed := map[string]bool{}
		for _, o := range owned {
			needed[o.Name] = needed[o.Name] || !builds[o.BuildID]
		}
		for sha, need := range needed {
			blob, there := all[sha]
			if need || !there || !blob.Changed.Before(now.Add(-young)) {
				continue // removed before, or just made again
			}
			old = append(old, sha)
			if dry {
				out.Blobs, out.Bytes = out.Blobs+1, out.Bytes+blob.Size
				continue
			}
			if err := tx.NoteRemoved(ctx, sha); err != nil {
				return err
			}
		}
		if dry || len(old) == 0 {
			return nil
		}
		return tx.Audit(ctx, "", 0, "shunt", "artifacts removed", fmt.Sprintf("%d, of builds that ended more than %s ago", len(old), r.Artifacts))
	})
	if err != nil || dry {
		return err
	}
	for _, sha := range old {
		size, removed, err := blobs.Remove(ctx, sha, now.Add(-young))
		if err != nil {
			return err
		}
		if removed {
			out.Blobs, out.Bytes = out.Blobs+1, out.Bytes+size
		}
	}
	return nil
}

// sweepLogs removes the logs of expendable builds.
func (r Retention) sweepLogs(ctx context.Context, st *store.Store, logs *engine.Logs, dry bool, out *Swept) error {
	builds, err := expendable(ctx, st, st.Now(), r.Logs)
	if err != nil {
		return err
	}
	projects, err := st.Projects(ctx)
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, p := range projects {
		attempts, err := st.AttemptsOf(ctx, p.Name)
		if err != nil {
			return err
		}
		for _, a := range attempts {
			if builds[a.BuildID] && a.Name == filepath.Base(a.Name) {
				old[a.Name] = true
			}
		}
	}
	n, bytes, err := logs.Remove(ctx, old, dry)
	out.Logs, out.Bytes = out.Logs+n, out.Bytes+bytes
	return err
}

// ParseKeep reads how long something is kept: 90d, 12h, or "" for ever.
func ParseKeep(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	text, days := strings.CutSuffix(s, "d")
	unit := time.Duration(1)
	if days {
		text, unit = text+"h", 24
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > 100*365*24*time.Hour/unit {
		return 0, delivery.Errf(delivery.KindInvalid, fmt.Sprintf("%.40q is not how long something is kept", s), "write a number of days, such as 90d")
	}
	return d * unit, nil
}

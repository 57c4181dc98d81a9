package flow

import (
	"cmp"
	"slices"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// KeptReleases is how many builds an environment had before the one that it runs
// now, and that are kept whatever their age: those one may want to roll back to.
const KeptReleases = 5

// RetentionFacts is what Expendable asks of a project.
type RetentionFacts struct {
	Builds          []delivery.Build      // their ID, Number, Status and FinishedAt
	Deployments     []delivery.Deployment // into permanent environments, in any order
	Alive           map[int64]bool        // ids of builds that have an ephemeral environment
	ProductionBuild int64                 // of the latest production tag
	RunningBuild    int64                 // what production runs
	Now             time.Time
	Keep            time.Duration // how long after its end a build's things are kept
}

// Expendable lists the ids of builds whose things (artifacts, logs) may be
// removed: they ended long ago, nothing of them is alive, and no environment runs
// them or ran them as one of the last five before.
func Expendable(f RetentionFacts) (ids []int64) {
	kept := map[int64]bool{f.ProductionBuild: true, f.RunningBuild: true}
	history := slices.Clone(f.Deployments)
	slices.SortFunc(history, func(a, b delivery.Deployment) int {
		return cmp.Or(cmp.Compare(a.Environment, b.Environment), cmp.Compare(b.Fence, a.Fence))
	})
	ran := map[string][]int64{} // by environment: builds, newest first
	for _, d := range history {
		switch d.State {
		case delivery.DeploymentRunning, delivery.DeploymentUnknown:
			kept[d.Number] = true
		case delivery.DeploymentSucceeded:
			if e := ran[d.Environment]; len(e) <= KeptReleases && !slices.Contains(e, d.Number) {
				ran[d.Environment] = append(e, d.Number)
				kept[d.Number] = true
			}
		case delivery.DeploymentFailed, delivery.DeploymentGivenUp:
		}
	}
	for _, b := range f.Builds {
		ended := b.Status.Final() && !b.FinishedAt.IsZero() && f.Now.Sub(b.FinishedAt) > f.Keep
		if ended && !f.Alive[b.ID] && !kept[b.Number] {
			ids = append(ids, b.ID)
		}
	}
	return ids
}

package flow

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shuntcd/shunt/internal/delivery"
)

func TestRetention(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	f := RetentionFacts{Now: now, Keep: 90 * day, ProductionBuild: 10, RunningBuild: 9, Alive: map[int64]bool{105: true}}
	for n := int64(1); n <= 12; n++ {
		f.Builds = append(f.Builds, delivery.Build{ID: 100 + n, Number: n, Status: delivery.BuildSucceeded, FinishedAt: now.Add(-100 * day)})
		if n <= 10 {
			f.Deployments = append(f.Deployments, delivery.Deployment{Number: n, Environment: "production", Fence: n, State: delivery.DeploymentSucceeded})
		}
	}
	f.Builds[0].FinishedAt = now.Add(-89 * day)                                                                                                                                   // 1 is young
	f.Builds[1].Status, f.Builds[1].FinishedAt = delivery.BuildWaiting, time.Time{}                                                                                               // 2 is open
	f.Deployments = append(f.Deployments, delivery.Deployment{Number: 3, Environment: "staging", Fence: 1, State: delivery.DeploymentUnknown})                                    // 3 is unknown
	f.Deployments = append(f.Deployments, delivery.Deployment{Number: 9, Environment: "production", Fence: 11, State: delivery.DeploymentSucceeded})                              // rolled back to 9
	f.Deployments = append(f.Deployments, delivery.Deployment{Number: 12, Environment: "production", Fence: 12, State: delivery.DeploymentFailed, StartedAt: now.Add(-99 * day)}) // never ran
	// 9 runs; 10, 8, 7, 6 and 5 ran before it; 5 is alive too.
	if got := Expendable(f); !slices.Equal(got, []int64{104, 111, 112}) {
		t.Errorf("expendable are %v", got)
	}
}

func TestRetentionNeverTakesWhatIsNeeded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
		all := []delivery.BuildStatus{delivery.BuildQueued, delivery.BuildRunning, delivery.BuildWaiting, delivery.BuildStopped, delivery.BuildSucceeded, delivery.BuildFailed, delivery.BuildRejected, delivery.BuildCancelled}
		f := RetentionFacts{Now: now, Keep: time.Duration(rapid.IntRange(0, 100).Draw(t, "keep")) * time.Hour, Alive: map[int64]bool{}}
		builds := rapid.IntRange(0, 30).Draw(t, "builds")
		for n := range int64(builds) {
			b := delivery.Build{ID: 1000 + n, Number: n + 1, Status: rapid.SampledFrom(all).Draw(t, "status")}
			if b.Status.Final() {
				b.FinishedAt = now.Add(-time.Duration(rapid.IntRange(0, 200).Draw(t, "age")) * time.Hour)
			}
			f.Alive[b.ID] = rapid.IntRange(0, 9).Draw(t, "alive") == 0
			f.Builds = append(f.Builds, b)
		}
		number := rapid.Int64Range(1, int64(max(builds, 1)))
		fences := map[string]int64{}
		ran := map[string][]int64{} // oldest first
		states := []delivery.DeploymentState{delivery.DeploymentSucceeded, delivery.DeploymentSucceeded, delivery.DeploymentFailed, delivery.DeploymentUnknown, delivery.DeploymentGivenUp}
		for range rapid.IntRange(0, 40).Draw(t, "deployments") {
			d := delivery.Deployment{Environment: rapid.SampledFrom([]string{"production", "staging"}).Draw(t, "environment"), Number: number.Draw(t, "number"), State: rapid.SampledFrom(states).Draw(t, "state")}
			fences[d.Environment]++
			d.Fence = fences[d.Environment]
			f.Deployments = append(f.Deployments, d)
			if d.State == delivery.DeploymentSucceeded {
				ran[d.Environment] = append(slices.DeleteFunc(ran[d.Environment], func(n int64) bool { return n == d.Number }), d.Number)
				if d.Environment == "production" {
					f.RunningBuild = d.Number
				}
			}
		}
		f.Deployments = rapid.Permutation(f.Deployments).Draw(t, "order")
		f.ProductionBuild = number.Draw(t, "tagged")
		got := Expendable(f)
		for _, b := range f.Builds {
			needed := !b.Status.Final() || now.Sub(b.FinishedAt) <= f.Keep || f.Alive[b.ID] || b.Number == f.ProductionBuild || b.Number == f.RunningBuild
			for _, history := range ran {
				needed = needed || slices.Contains(history[max(0, len(history)-KeptReleases-1):], b.Number)
			}
			for _, d := range f.Deployments {
				needed = needed || d.Number == b.Number && d.State == delivery.DeploymentUnknown
			}
			if slices.Contains(got, b.ID) == needed {
				t.Fatalf("build %d (%s): needed %v, expendable %v", b.Number, b.Status, needed, got)
			}
		}
		// Keeping longer never takes more.
		longer := f
		longer.Keep += time.Hour
		for _, id := range Expendable(longer) {
			if !slices.Contains(got, id) {
				t.Fatalf("build %d is taken only when more is kept", id)
			}
		}
	})
}

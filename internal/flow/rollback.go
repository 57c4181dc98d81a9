package flow

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/shuntcd/shunt/internal/delivery"
)

// RollbackFacts is what is known when a person wants to go back.
type RollbackFacts struct {
	Project       string
	RunningNumber int64                 // the build that production runs; 0: none or unknown
	History       []delivery.Deployment // of production, newest first
	To            int64                 // the build wanted; 0: the last healthy one before what runs now
	// ArtifactsPresent says that the stored bytes of the target are there. To find
	// the target of To 0, ask with true; then look for its bytes and ask again.
	ArtifactsPresent bool
}

// RollbackTarget picks the build that a rollback deploys, or says why there is
// none. Only builds that ran in production healthy qualify. Without a wish it is
// the build before the one that runs, and a build that somebody already rolled
// back from is passed over. After a deployment that did not succeed nobody can be
// sure what runs, so the last healthy build itself is deployed again.
func RollbackTarget(f RollbackFacts) (number int64, r *Refusal) {
	refuse := func(why string, choices []int64) (int64, *Refusal) {
		r := &Refusal{What: "cannot roll back " + f.Project, Why: why}
		if f.To != 0 {
			r.What += fmt.Sprintf(" to build %d", f.To)
		}
		if len(choices) > 0 {
			words := make([]string, len(choices))
			for i, n := range choices {
				words[i] = strconv.FormatInt(n, 10)
			}
			r.Next = fmt.Sprintf("Builds that ran in production: %s. For example:", list(words))
			r.Mend = []string{rollbackCommand(f.Project, choices[0])}
		}
		return 0, r
	}
	if len(f.History) > 0 && f.History[0].State == delivery.DeploymentRunning {
		return refuse(fmt.Sprintf("a deployment of build %d is running", f.History[0].Number), nil)
	}
	inDoubt := len(f.History) > 0 && f.History[0].State != delivery.DeploymentSucceeded
	healthy := healthyBuilds(f.History)
	others := slices.DeleteFunc(slices.Clone(healthy), func(n int64) bool { return n == f.RunningNumber && !inDoubt })

	target := f.To
	switch {
	case target == 0 && inDoubt && len(healthy) > 0:
		target = healthy[0]
	case target == 0:
		target = previous(f)
		if target == 0 {
			return refuse("no build ran healthy in production before the one that runs now", others)
		}
	case target == f.RunningNumber && !inDoubt:
		return refuse("it is what production runs", others)
	case !slices.Contains(healthy, target):
		return refuse("it never ran healthy in production", others)
	}
	if !f.ArtifactsPresent {
		others = slices.DeleteFunc(others, func(n int64) bool { return n == target })
		return refuse(fmt.Sprintf("the artifacts of build %d are no longer stored", target), others)
	}
	return target, nil
}

// healthyBuilds lists each build that was deployed with success, last one first.
func healthyBuilds(history []delivery.Deployment) []int64 {
	var numbers []int64
	for _, d := range history {
		if d.State == delivery.DeploymentSucceeded && !slices.Contains(numbers, d.Number) {
			numbers = append(numbers, d.Number)
		}
	}
	return numbers
}

// previous finds what ran healthy before the running build first came. A rollback
// to that build is skipped on the way: between the two lies what was broken.
func previous(f RollbackFacts) int64 {
	from := slices.IndexFunc(f.History, func(d delivery.Deployment) bool {
		return d.Number == f.RunningNumber && d.Kind != "rollback"
	})
	for _, d := range f.History[from+1:] {
		if d.State == delivery.DeploymentSucceeded && d.Number != f.RunningNumber {
			return d.Number
		}
	}
	return 0
}

func rollbackCommand(project string, number int64) string {
	return fmt.Sprintf("shunt rollback %s %d -m \"reason\"", word(project), number)
}

// WhatRunsNow says what an environment runs after a deployment that ended in
// state: ready is its health check and verify its answer whether the candidate is
// live, nil where nobody asked or nobody answered. Before and candidate are words
// ("build 41"); before is empty if nothing ran. What cannot be told is unknown.
func WhatRunsNow(state delivery.DeploymentState, ready, verify *bool, before, candidate string) string {
	if before == "" {
		before = "nothing"
	}
	before, candidate = clean(before), clean(candidate)
	var words string
	switch {
	case verify != nil && *verify, verify == nil && state == delivery.DeploymentSucceeded:
		words = candidate
	case verify != nil:
		words = before + ", as before"
	default:
		words = fmt.Sprintf("unknown: %s or %s", before, candidate)
	}
	switch {
	case ready == nil:
	case *ready:
		words += "; it is healthy"
	default:
		words += "; it is not healthy"
	}
	return words
}

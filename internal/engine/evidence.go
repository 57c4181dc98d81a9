package engine

import (
	"context"
	"slices"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
)

// Change is what a build brings against what is in production now.
type Change struct {
	From     string            // commit in production; empty: nothing is
	Commits  []delivery.Commit // newest first
	Files    []delivery.FileChange
	Added    int // lines
	Deleted  int
	Forecast delivery.Forecast // of merging the build back into the integration branch
	Words    string            // the forecast in words
}

// Change gathers what a build would change in production, from the mirror.
func (e *Engine) Change(ctx context.Context, b delivery.Build) (c Change, err error) {
	p, err := e.Store.Project(ctx, b.Project)
	if err != nil {
		return c, err
	}
	repo := e.repo(p)
	c.From = p.ProductionCommit
	exclude := []string{}
	if c.From != "" {
		exclude = append(exclude, c.From)
	}
	if c.Commits, err = repo.Log(ctx, []string{b.Commit}, exclude, 200); err != nil {
		return c, err
	}
	if c.From != "" {
		if c.Files, err = repo.DiffStat(ctx, c.From, b.Commit); err != nil {
			return c, err
		}
	}
	for _, f := range c.Files {
		c.Added += max(0, f.Added)
		c.Deleted += max(0, f.Deleted)
	}
	refs, err := e.Store.Refs(ctx, b.Project)
	if err != nil {
		return c, err
	}
	if into := refs["refs/heads/"+p.Branches.Integration]; into != "" {
		if c.Forecast, err = forecast(ctx, repo, into, b.Commit); err != nil {
			return c, err
		}
		c.Words = flow.ForecastWords(c.Forecast, p.Branches.Integration)
	}
	return c, nil
}

// Diff is the unified diff of a build against what is in production.
func (e *Engine) Diff(ctx context.Context, b delivery.Build, maxBytes int) (diff string, cut bool, err error) {
	p, err := e.Store.Project(ctx, b.Project)
	if err != nil || p.ProductionCommit == "" {
		return "", false, err
	}
	return e.repo(p).Diff(ctx, p.ProductionCommit, b.Commit, maxBytes)
}

// Tests compares a build's test cases with those of the build in production.
type Tests struct {
	Passed, Failed, Skipped, Flaky int
	New, Gone                      int
	Failing                        []TestCase
	NewlyFailing, Fixed            []string
}

// TestCase is a failing test and the job that reported it.
type TestCase struct {
	Node string
	delivery.TestCase
}

// Tests counts a build's test cases, against those of what is in production.
func (e *Engine) Tests(ctx context.Context, b delivery.Build) (t Tests, err error) {
	cases, err := e.Store.Tests(ctx, b.ID)
	if err != nil {
		return t, err
	}
	p, err := e.Store.Project(ctx, b.Project)
	if err != nil {
		return t, err
	}
	before := map[string]delivery.TestState{}
	compare := p.ProductionBuild != 0 && p.ProductionBuild != b.Number
	if compare {
		if production, err := e.Store.BuildByNumber(ctx, b.Project, p.ProductionBuild); err == nil {
			old, err := e.Store.Tests(ctx, production.ID)
			if err != nil {
				return t, err
			}
			for _, c := range old {
				before[testName(c.TestCase)] = c.State
			}
		}
	}
	now := map[string]bool{}
	for _, c := range cases {
		name := testName(c.TestCase)
		now[name] = true
		was, known := before[name]
		if compare && !known {
			t.New++
		}
		switch c.State {
		case delivery.TestPassed, delivery.TestFlaky:
			t.Passed++
			if c.State == delivery.TestFlaky {
				t.Flaky++
			}
			if was == delivery.TestFailed {
				t.Fixed = append(t.Fixed, name)
			}
		case delivery.TestFailed:
			t.Failed++
			t.Failing = append(t.Failing, TestCase{c.Node, c.TestCase})
			if known && was != delivery.TestFailed {
				t.NewlyFailing = append(t.NewlyFailing, name)
			}
		case delivery.TestSkipped:
			t.Skipped++
		}
	}
	for name := range before {
		if !now[name] {
			t.Gone++
		}
	}
	return t, nil
}

func testName(c delivery.TestCase) string {
	if c.Class == "" {
		return c.Name
	}
	return c.Class + "." + c.Name
}

// Usual is the median duration of each node's last successes.
func (e *Engine) Usual(ctx context.Context, project string) (map[string]time.Duration, error) {
	all, err := e.Store.Durations(ctx, project)
	if err != nil {
		return nil, err
	}
	usual := map[string]time.Duration{}
	for name, d := range all {
		slices.Sort(d)
		usual[name] = d[len(d)/2]
	}
	return usual, nil
}

// Replaces is the deployment that put there what production runs, or, once build
// number is there itself, what it replaced; ok is false when there is none.
func (e *Engine) Replaces(ctx context.Context, p delivery.Project, number int64) (d delivery.Deployment, ok bool, err error) {
	all, err := e.Store.Deployments(ctx, p.Name, "", 100)
	if err != nil {
		return d, false, err
	}
	production := ""
	for _, d := range all {
		if production == "" && d.Number == p.RunningBuild && d.Commit == p.RunningCommit {
			production = d.Environment
		}
		if d.State == delivery.DeploymentSucceeded && d.Environment == production && d.Number != number {
			return d, true, nil
		}
	}
	return d, false, nil
}

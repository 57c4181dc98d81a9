package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// namesShown is how many test cases each list of a comparison names.
const namesShown = 100

// Compare implements web.Reader.
func (s *Server) Compare(ctx context.Context, project string, from, to int64) (api.Comparison, error) {
	v := api.Comparison{Project: project, Commits: []api.Commit{}, Missing: []api.Commit{}, Files: []delivery.FileChange{}, Artifacts: []api.ArtifactChange{}}
	p, err := s.store.Project(ctx, project)
	if err != nil {
		return v, err
	}
	if from == 0 {
		from = p.RunningBuild
	}
	if from == 0 {
		return v, delivery.Errf(delivery.KindNotFound, "nothing to compare with", "nothing is in production yet; name two builds")
	}
	a, err := s.store.BuildByNumber(ctx, project, from)
	if err != nil {
		return v, err
	}
	b, err := s.store.BuildByNumber(ctx, project, to)
	if err != nil {
		return v, err
	}
	v.From, v.To = s.build(a), s.build(b)
	if v.Tickets, err = s.tickets(ctx, project); err != nil {
		return v, err
	}
	repo := s.git.Repo(p.Name, p.URL, p.Local)
	for _, side := range []struct {
		out    *[]api.Commit
		in, ex string
	}{{&v.Commits, b.Commit, a.Commit}, {&v.Missing, a.Commit, b.Commit}} {
		commits, err := repo.Log(ctx, []string{side.in}, []string{side.ex}, 200)
		if err != nil {
			return v, err
		}
		for _, c := range commits {
			*side.out = append(*side.out, api.Commit{ID: c.ID, Subject: c.Subject, Author: c.AuthorName, At: c.AuthoredAt})
		}
	}
	v.CommitCount = len(v.Commits)
	files, err := repo.DiffStat(ctx, a.Commit, b.Commit)
	if err != nil {
		return v, err
	}
	for _, f := range files {
		v.Added += max(0, f.Added)
		v.Deleted += max(0, f.Deleted)
	}
	v.FileCount, v.Files = len(files), first(append(v.Files, files...), 500)
	if v.Diff, v.DiffCut, err = repo.Diff(ctx, a.Commit, b.Commit, 512<<10); err != nil {
		return v, err
	}
	was, err := s.store.Tests(ctx, a.ID)
	if err != nil {
		return v, err
	}
	is, err := s.store.Tests(ctx, b.ID)
	if err != nil {
		return v, err
	}
	v.Tests = testChanges(was, is)
	return v, s.artifactChanges(ctx, a, b, &v)
}

func (s *Server) artifactChanges(ctx context.Context, a, b delivery.Build, v *api.Comparison) error {
	at := map[string]int{}
	for i, build := range []delivery.Build{a, b} {
		artifacts, err := s.store.Artifacts(ctx, build.ID)
		if err != nil {
			return err
		}
		for _, x := range artifacts {
			view := &api.Artifact{Name: x.Name, File: x.File, SHA256: x.SHA256, Size: x.Size}
			n, known := at[x.Name]
			if !known {
				n = len(v.Artifacts)
				at[x.Name] = n
				v.Artifacts = append(v.Artifacts, api.ArtifactChange{Name: x.Name})
			}
			if i == 0 {
				v.Artifacts[n].From = view
			} else {
				v.Artifacts[n].To = view
			}
		}
	}
	return nil
}

// testChanges compares test cases by the name that a person knows them by. A
// name that is reported more than once counts once, as its last report.
func testChanges(was, is []store.NodeTest) api.TestChanges {
	byName := func(cases []store.NodeTest) map[string]delivery.TestCase {
		out := make(map[string]delivery.TestCase, len(cases))
		for _, c := range cases {
			name := c.Name
			if c.Class != "" {
				name = c.Class + "." + c.Name
			}
			out[name] = c.TestCase
		}
		return out
	}
	before, now := byName(was), byName(is)
	v := api.TestChanges{Failing: []string{}, Fixed: []string{}, New: []string{}, Gone: []string{}, Slower: []api.SlowerTest{}}
	for name, c := range now {
		old, known := before[name]
		if !known {
			v.New = append(v.New, name)
		}
		switch {
		case c.State == delivery.TestFailed && old.State != delivery.TestFailed:
			v.Failing = append(v.Failing, name)
		case known && old.State == delivery.TestFailed && (c.State == delivery.TestPassed || c.State == delivery.TestFlaky):
			v.Fixed = append(v.Fixed, name)
		}
		if known && c.Millis >= 2*old.Millis && c.Millis-old.Millis >= 500 {
			v.Slower = append(v.Slower, api.SlowerTest{Name: name, Was: time.Duration(old.Millis) * time.Millisecond, Is: time.Duration(c.Millis) * time.Millisecond})
		}
	}
	for name := range before {
		if _, known := now[name]; !known {
			v.Gone = append(v.Gone, name)
		}
	}
	for _, list := range []*[]string{&v.Failing, &v.Fixed, &v.New, &v.Gone} {
		slices.Sort(*list)
		if n := len(*list); n > namesShown {
			*list = append((*list)[:namesShown], fmt.Sprintf("and %d more", n-namesShown))
		}
	}
	slices.SortFunc(v.Slower, func(a, b api.SlowerTest) int {
		return cmp.Or(cmp.Compare(b.Is-b.Was, a.Is-a.Was), cmp.Compare(a.Name, b.Name))
	})
	v.Slower = first(v.Slower, namesShown)
	return v
}

// Timeline implements web.Reader.
func (s *Server) Timeline(ctx context.Context, project string, before time.Time) ([]api.Moment, error) {
	if _, err := s.store.Project(ctx, project); err != nil {
		return nil, err
	}
	if before.IsZero() {
		before = s.clock.Now().Add(time.Hour) // the database's clock may be ahead
	}
	deployments, err := s.store.DeploymentsBefore(ctx, project, before, 100)
	if err != nil {
		return nil, err
	}
	turns, err := s.store.TurnsBefore(ctx, project, before, 100)
	if err != nil {
		return nil, err
	}
	now := s.clock.Now()
	if before.Before(now) {
		now = before
	}
	freezes, err := s.store.FreezesBegun(ctx, project, now, 100)
	if err != nil {
		return nil, err
	}
	out := make([]api.Moment, 0, len(deployments)+len(turns)+len(freezes))
	for _, d := range deployments {
		m := api.Moment{At: d.StartedAt, Kind: d.Kind, Environment: d.Environment, Number: d.Number, Lane: d.Lane, State: d.State, By: d.By, Words: d.Reason}
		if !d.FinishedAt.IsZero() {
			m.Took = d.FinishedAt.Sub(d.StartedAt)
		}
		if d.State != delivery.DeploymentSucceeded && d.After != "" {
			m.Words = strings.TrimPrefix(d.Reason+". "+d.After, ". ")
		}
		out = append(out, m)
	}
	for _, t := range turns {
		out = append(out, api.Moment{At: t.At, Kind: t.Action, Number: t.Number, By: t.Actor, Words: t.Detail})
	}
	for _, f := range freezes {
		out = append(out, api.Moment{At: f.Begins, Kind: "freeze", Until: cmp.Or(f.EndedAt, f.Ends), By: f.By, Words: f.Reason})
	}
	slices.SortStableFunc(out, func(a, b api.Moment) int { return b.At.Compare(a.At) })
	return first(out, 100), nil
}

// Freezes implements web.Reader.
func (s *Server) Freezes(ctx context.Context, project string) ([]api.Freeze, error) {
	if _, err := s.store.Project(ctx, project); err != nil {
		return nil, err
	}
	freezes, err := s.store.Freezes(ctx, project, 100)
	out, now := make([]api.Freeze, 0, len(freezes)), s.clock.Now()
	for _, f := range freezes {
		out = append(out, freeze(f, now))
	}
	return out, err
}

func freeze(f delivery.Freeze, now time.Time) api.Freeze {
	return api.Freeze{ID: f.ID, Project: f.Project, State: f.State(now), From: f.Begins, Until: f.Ends, Reason: f.Reason, By: f.By, CreatedAt: f.CreatedAt, EndedBy: f.EndedBy, EndedAt: f.EndedAt, EndedWhy: f.EndedWhy}
}

// Artifacts implements web.Reader.
func (s *Server) Artifacts(ctx context.Context, project string, before int64) ([]api.BuildArtifact, error) {
	if _, err := s.store.Project(ctx, project); err != nil {
		return nil, err
	}
	artifacts, err := s.store.ArtifactsBelow(ctx, project, before, 100)
	out := make([]api.BuildArtifact, 0, len(artifacts))
	for _, a := range artifacts {
		out = append(out, api.BuildArtifact{Artifact: api.Artifact{Name: a.Name, File: a.File, SHA256: a.SHA256, Size: a.Size}, Number: a.Number, Lane: a.Lane, Status: a.Status, CreatedAt: a.CreatedAt})
	}
	return out, err
}

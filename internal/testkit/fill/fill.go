// Package fill fills a database with as many projects, builds and environments
// as a test of speed or of query counts wants, as rows through the store. What it
// writes is consistent: the rows fit a real repository, so that every page of a
// server on them has something to show.
package fill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// Size says how much there is.
type Size struct {
	Projects int
	Builds   int // of each project
	Open     int // builds of each project that wait at a gate, each with a back-merge owed; fewer than Builds
	Jobs     int // of each build, each with an attempt, an artifact and a publication
	Tests    int // cases of the builds that a person would look at: what is in production and what waits
	Stages   int // permanent environments with a gate before production
	Living   int // ephemeral environments that are up, in all; at most Projects*Open
	Rest     int // builds of each project but the first; 0: as many as that has
	Lines    int // of each log of the first project's newest build
}

// Project is the name of the i-th project.
func Project(i int) string { return fmt.Sprintf("shop-%03d", i) }

// Gate is the id of the request of a project's build before an environment.
func Gate(project string, number int64, environment string) string {
	return fmt.Sprintf("%s-%d-%s", project, number, environment)
}

// Pipeline is the pipeline file of all the projects.
func Pipeline(s Size) string {
	var b strings.Builder
	b.WriteString("version: 1\njobs:\n")
	for i := range s.Jobs {
		fmt.Fprintf(&b, "  job%d: { steps: [{ run: make job%[1]d }], artifacts: { app%[1]d: out%[1]d.txt } }\n", i)
	}
	b.WriteString("publish:\n")
	for i := range s.Jobs {
		fmt.Fprintf(&b, "  app%d: { files: true }\n", i)
	}
	b.WriteString("environments:\n  qa: { ephemeral: true, up: make up, down: make down }\n")
	for i := range s.Stages {
		fmt.Fprintf(&b, "  stage%d: { deploy: make deploy, approve: { timeout: 72h } }\n", i)
	}
	b.WriteString("  production: { deploy: make deploy, needs: [qa], url: https://shop.example.org, approve: { timeout: 72h } }\n")
	return b.String()
}

// clock is the time of the rows, which goes on as they are written.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// filling is one run of Database.
type filling struct {
	Size
	repo  Repo
	pl    *pipeline.Pipeline
	text  string
	now   time.Time
	clock *clock
	store *store.Store
	logs  string
	left  int // ephemeral environments that are still to come
}

// Database fills the SQLite file of a data directory that no server has used yet.
// The rows end a minute before now. It is the caller's to start a server there.
func Database(ctx context.Context, dataDir string, repo Repo, s Size, now time.Time) (err error) {
	pl, err := pipeline.Parse(pipeline.FileName, []byte(Pipeline(s)))
	if err != nil {
		return err
	}
	f := &filling{Size: s, repo: repo, pl: pl, text: Pipeline(s), now: now, clock: &clock{now}, logs: filepath.Join(dataDir, "logs"), left: s.Living}
	if err := os.MkdirAll(f.logs, 0o750); err != nil {
		return err
	}
	f.store, err = store.Open(ctx, store.Config{Database: filepath.Join(dataDir, "shunt.db"), Clock: f.clock, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.store.Close()) }()
	for i := range s.Projects {
		if i == 1 && s.Rest > 0 {
			f.Builds, f.Open = s.Rest, min(s.Open, s.Rest/2)
		}
		if err := f.project(ctx, Project(i)); err != nil {
			return fmt.Errorf("fill %s: %w", Project(i), err)
		}
	}
	return nil
}

func (f *filling) project(ctx context.Context, name string) error {
	live := int64(f.Builds - f.Open) // is in production
	policy, err := json.Marshal(f.pl)
	if err != nil {
		return err
	}
	f.clock.now = f.now.Add(-90 * 24 * time.Hour)
	step := 90 * 24 * time.Hour / time.Duration(f.Builds+1)
	err = f.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		err := tx.InsertProject(ctx, delivery.Project{
			Name: name, URL: f.repo.Dir, Local: true, Branches: f.pl.Branches, Tags: f.pl.Tags, NextBuild: 1, WebhookSecret: "secret",
			ProductionBuild: live, ProductionCommit: f.repo.Released, BranchTip: f.repo.Released, RunningBuild: live, RunningCommit: f.repo.Released,
		})
		return errors.Join(err, tx.SetPolicy(ctx, name, f.pl.Branches, f.pl.Tags, string(policy)),
			tx.SetRef(ctx, name, "refs/heads/develop", f.repo.Develop[commits-1]), tx.SetRef(ctx, name, "refs/heads/master", f.repo.Released), tx.SetRef(ctx, name, HotfixRef, f.repo.Hotfix[commits-1]))
	})
	for n := int64(1); n <= int64(f.Builds) && err == nil; n++ {
		f.clock.now = f.clock.now.Add(step)
		err = f.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return f.build(ctx, tx, name, live) })
	}
	return err
}

// build writes one build. All after the one in production wait, half
// of them hotfixes; of those before, some failed and some were released.
func (f *filling) build(ctx context.Context, tx *store.Tx, project string, live int64) error {
	n, err := tx.TakeNumber(ctx, project)
	if err != nil {
		return err
	}
	b := delivery.Build{
		Project: project, Number: n, Lane: delivery.LaneMain, Ref: "refs/heads/develop", Commit: f.repo.Develop[int(n)%(commits/3)], Subject: fmt.Sprintf("SHOP-%d Change page %d", n, n%20), AuthorName: "Ana Ruiz", AuthorEmail: "ana@example.org",
		Pipeline: []byte(f.text), PolicyDigest: f.pl.Digest(), Production: f.repo.Released, Status: delivery.BuildRejected, Reason: "not today", FinishedAt: tx.Now(),
	}
	age := int(int64(f.Builds) - n)
	switch {
	case n > live:
		b.Status, b.Reason, b.Commit, b.FinishedAt = delivery.BuildWaiting, "waits for a person", f.repo.Develop[commits-1-age%20], time.Time{}
		if age%2 == 0 {
			b.Lane, b.Ref, b.Commit = delivery.LaneHotfix, HotfixRef, f.repo.Hotfix[commits-1-age%20]
		}
	case n == live:
		b.Status, b.Reason, b.Commit = delivery.BuildSucceeded, "it is in production", f.repo.Released
	case n%5 == 0:
		b.Status, b.Reason = delivery.BuildFailed, "job0 failed"
	case n%5 == 1:
		b.Status, b.Reason = delivery.BuildSucceeded, "it was in production"
	}
	if b.ID, err = tx.InsertBuild(ctx, b, f.pl.Graph(b.Lane)); err != nil {
		return err
	}
	err = errors.Join(
		f.nodes(ctx, tx, b), f.deliveries(ctx, tx, b),
		tx.InsertPush(ctx, store.Push{Project: project, Ref: b.Ref, Commit: b.Commit, Number: n}),
		tx.Audit(ctx, project, n, "shunt", "build created", b.Ref+" "+b.Commit), tx.Audit(ctx, project, n, "shunt", "build ended", b.Reason),
	)
	if n%7 == 0 {
		err = errors.Join(err, tx.Audit(ctx, project, n, "ana", "hold", "freeze"), tx.Audit(ctx, project, n, "ana", "hold released", "thaw"))
		begins := f.now.Add(time.Duration(30-n) * time.Hour) // some are planned, some active, most are over
		_, freeze := tx.InsertFreeze(ctx, delivery.Freeze{Project: project, Begins: begins, Ends: begins.Add(100 * time.Hour), Reason: "thaw", By: "ana"})
		err = errors.Join(err, freeze, tx.Audit(ctx, project, n, "ana", "freeze planned", "thaw"))
	}
	if b.Status == delivery.BuildWaiting {
		_, debt := tx.OpenBackMerge(ctx, delivery.BackMerge{Project: project, Commit: f.repo.Hotfix[age%commits], Number: n, Owner: "ana", Conflicts: []string{"shop/cart.html"}})
		err = errors.Join(err, debt)
	}
	return err
}

// nodes writes how a build's nodes ended, and what its jobs left behind.
func (f *filling) nodes(ctx context.Context, tx *store.Tx, b delivery.Build) error {
	nodes, err := tx.Nodes(ctx, b.ID)
	if err != nil {
		return err
	}
	for i, node := range nodes {
		node.State, node.Attempt, node.StartedAt, node.FinishedAt = delivery.NodeSucceeded, 1, tx.Now(), tx.Now().Add(time.Duration(i+1)*time.Second)
		failed := b.Status == delivery.BuildFailed && node.Name == "job/job0"
		behind := node.Kind == delivery.NodeGate || node.Kind == delivery.NodeDeploy || node.Kind == delivery.NodeRelease || node.Kind == delivery.NodeDown
		switch {
		case failed:
			node.State, node.Reason = delivery.NodeFailed, "exit code 1"
		case b.Status == delivery.BuildWaiting && node.Kind == delivery.NodeGate:
			node.State, node.FinishedAt = delivery.NodeWaiting, time.Time{}
		case behind && b.Status == delivery.BuildWaiting:
			node.State, node.Attempt, node.StartedAt, node.FinishedAt = delivery.NodePending, 0, time.Time{}, time.Time{}
		case behind && b.Status != delivery.BuildSucceeded:
			node.State, node.Attempt, node.StartedAt, node.FinishedAt = delivery.NodeUnreached, 0, time.Time{}, time.Time{}
		}
		if err := tx.SetNode(ctx, node); err != nil {
			return err
		}
		if node.Kind == delivery.NodeJob {
			err = f.job(ctx, tx, b, node)
		}
		if node.Kind == delivery.NodePublish {
			err = f.publication(ctx, tx, b, node)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *filling) job(ctx context.Context, tx *store.Tx, b delivery.Build, node delivery.Node) error {
	a := delivery.Attempt{ID: fmt.Sprintf("%s-%d-%s-1", b.Project, b.Number, node.Target), BuildID: b.ID, Node: node.Name, Attempt: 1, Fence: 1}
	err := tx.InsertAttempt(ctx, a)
	if a.State = delivery.AttemptSucceeded; node.State == delivery.NodeFailed {
		a.State, a.ExitCode, a.Reason = delivery.AttemptFailed, 1, node.Reason
	}
	looked := b.Status == delivery.BuildWaiting || b.Commit == f.repo.Released
	app := strings.Replace(node.Target, "job", "app", 1)
	err = errors.Join(err, tx.EndAttempt(ctx, a), tx.SetArtifact(ctx, delivery.Artifact{BuildID: b.ID, Name: app, File: app + ".txt", SHA256: fmt.Sprintf("%064x", b.ID*1000+int64(node.Position)), Size: 1000 * b.ID, Node: node.Name}))
	if !looked {
		return err
	}
	var cases []delivery.TestCase
	for i := range f.Tests / f.Jobs {
		cases = append(cases, delivery.TestCase{Suite: "shop", Class: node.Target, Name: fmt.Sprintf("Test%d", i), State: delivery.TestPassed, Millis: int64(i)})
	}
	err = errors.Join(err, tx.SetTests(ctx, b.ID, node.Name, cases))
	if b.Project != Project(0) || b.Number != int64(f.Builds) {
		return err
	}
	var lines strings.Builder
	for i := range f.Lines {
		fmt.Fprintf(&lines, "%d |line %d of the log\n", tx.Now().UnixMicro(), i)
	}
	return errors.Join(err, os.WriteFile(filepath.Join(f.logs, a.ID+".log"), []byte(lines.String()), 0o600))
}

func (f *filling) publication(ctx context.Context, tx *store.Tx, b delivery.Build, node delivery.Node) error {
	e, _, err := tx.Intend(ctx, delivery.Effect{BuildID: b.ID, Key: fmt.Sprintf("%s/%d/%s", b.Project, b.Number, node.Name), Kind: "publish", Params: fmt.Sprintf(`{"artifact":%q}`, node.Target), Fence: 1})
	if err != nil {
		return err
	}
	return tx.SetEffect(ctx, e, delivery.EffectConfirmed, 1, "", "")
}

// deliveries writes a build's environments, gates and deployments.
func (f *filling) deliveries(ctx context.Context, tx *store.Tx, b delivery.Build) error {
	if b.Status == delivery.BuildFailed {
		return nil
	}
	binding := delivery.Binding{Commit: b.Commit, PolicyDigest: b.PolicyDigest, Production: f.repo.Released, Branch: f.repo.Released}
	artifacts, err := tx.Artifacts(ctx, b.ID)
	binding.Artifacts = map[string]string{}
	for _, a := range artifacts {
		binding.Artifacts[a.Name] = a.SHA256
	}
	for _, env := range f.pl.Environments {
		if env.Ephemeral {
			err = errors.Join(err, f.instance(ctx, tx, b, env))
			continue
		}
		if b.Status == delivery.BuildSucceeded {
			d, _, start := tx.StartDeployment(ctx, delivery.Deployment{ID: fmt.Sprintf("%s-%d-%s", b.Project, b.Number, env.Name), Project: b.Project, Environment: env.Name, BuildID: b.ID, Number: b.Number, Commit: b.Commit, Lane: b.Lane, Kind: "promote", By: "ana"})
			err = errors.Join(err, start, tx.EndDeployment(ctx, d, delivery.DeploymentSucceeded, ""))
		}
		g, open := tx.OpenGate(ctx, delivery.Gate{ID: Gate(b.Project, b.Number, env.Name), BuildID: b.ID, Environment: env.Name, Binding: binding, ExpiresAt: f.now.Add(72 * time.Hour)})
		err = errors.Join(err, open)
		switch b.Status {
		case delivery.BuildSucceeded:
			err = errors.Join(err, tx.Decide(ctx, g, delivery.GatePromoted, "ana", "page", "looks good", 0))
		case delivery.BuildRejected:
			err = errors.Join(err, tx.Decide(ctx, g, delivery.GateRejected, "ana", "page", "not today", 0))
		default: // nobody has decided
		}
	}
	return err
}

func (f *filling) instance(ctx context.Context, tx *store.Tx, b delivery.Build, env pipeline.Environment) error {
	i := delivery.Instance{ID: fmt.Sprintf("%s-%s-%d", b.Project, env.Name, b.Number), Project: b.Project, Environment: env.Name, BuildID: b.ID, Number: b.Number, ExpiresAt: f.now.Add(8 * time.Hour)}
	err := tx.InsertInstance(ctx, i)
	i.State, i.DownAt = delivery.InstanceDown, tx.Now()
	if b.Status == delivery.BuildWaiting && f.left > 0 {
		f.left--
		i.State, i.DownAt, i.URL = delivery.InstanceUp, time.Time{}, "https://qa.example.org"
	}
	return errors.Join(err, tx.SetInstance(ctx, i))
}

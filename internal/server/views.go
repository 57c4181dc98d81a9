package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// Pushes implements web.Reader.
func (s *Server) Pushes(ctx context.Context, project string) ([]api.Push, error) {
	if _, err := s.store.Project(ctx, project); err != nil {
		return nil, err
	}
	pushes, err := s.store.Pushes(ctx, project, 50)
	return s.pushes(pushes), err
}

func (s *Server) pushes(pushes []store.Push) []api.Push {
	out := make([]api.Push, 0, len(pushes))
	for _, p := range pushes {
		v := api.Push{Project: p.Project, Ref: p.Ref, Commit: p.Commit, At: p.At, Build: p.Number, Refused: p.Refused}
		if p.Number > 0 {
			v.URL = fmt.Sprintf("%s/%s/%d", s.url, p.Project, p.Number)
		}
		out = append(out, v)
	}
	return out
}

func (s *Server) build(b delivery.Build) api.Build {
	return api.Build{
		Project: b.Project, Number: b.Number, Lane: b.Lane, Branch: b.Branch(), Commit: b.Commit, Subject: b.Subject, Author: b.AuthorName, Status: b.Status, Reason: b.Reason,
		CreatedAt: b.CreatedAt, StartedAt: b.StartedAt, FinishedAt: b.FinishedAt, URL: fmt.Sprintf("%s/%s/%d", s.url, b.Project, b.Number),
	}
}

// Builds implements web.Reader.
func (s *Server) Builds(ctx context.Context, project string, f api.BuildFilter) ([]api.Build, error) {
	if _, err := s.store.Project(ctx, project); err != nil {
		return nil, err
	}
	q := store.BuildQuery{Project: project, Lane: f.Lane, Status: f.Status, Commit: f.Commit, Before: f.Before, Limit: cmp.Or(f.Limit, 30)}
	if f.Branch != "" {
		q.Ref = "refs/heads/" + f.Branch
	}
	builds, err := s.store.Builds(ctx, q)
	out := make([]api.Build, 0, len(builds))
	for _, b := range builds {
		out = append(out, s.build(b))
	}
	return out, errors.Join(err, s.gated(ctx, project, out))
}

// Build implements web.Reader.
func (s *Server) Build(ctx context.Context, project string, number int64) (api.BuildDetail, error) {
	b, err := s.store.BuildByNumber(ctx, project, number)
	if err != nil {
		return api.BuildDetail{}, err
	}
	p, err := s.store.Project(ctx, project)
	if err != nil {
		return api.BuildDetail{}, err
	}
	v := api.BuildDetail{Build: s.build(b), Tree: b.Tree, PolicyDigest: b.PolicyDigest, DrivenBy: b.LeaseOwner, Nodes: []api.Node{}, Artifacts: []api.Artifact{}, Gates: []api.Gate{}, Instances: []api.Instance{}, Deployments: []api.Deployment{}, Effects: []api.Effect{}, Actions: []api.Action{}}
	if b.TagObject != "" {
		v.BuildTag = delivery.ExpandTag(p.Tags.Build, b.Number)
	}
	nodes, err := s.store.Nodes(ctx, b.ID)
	if err != nil {
		return v, err
	}
	for _, n := range nodes {
		if n.Kind == delivery.NodeRelease && n.State == delivery.NodeSucceeded {
			v.ProductionTag = delivery.ExpandTag(p.Tags.Production, b.Number)
		}
	}
	if v.Tickets, err = s.tickets(ctx, project); err != nil {
		return v, err
	}
	if v.Nodes, err = s.nodes(ctx, b, nodes); err != nil {
		return v, err
	}
	if err := s.records(ctx, b, &v); err != nil {
		return v, err
	}
	t, err := s.engine.Tests(ctx, b)
	if err != nil {
		return v, err
	}
	v.Tests = tests(t)
	v.WhyFailed = s.whyFailed(ctx, b, nodes, v.Nodes)
	v.Actions = actions(b, nodes, v.Deployments)
	return v, nil
}

// tickets are those of the integration branch's pipeline file, for all builds alike.
func (s *Server) tickets(ctx context.Context, project string) (delivery.Tickets, error) {
	var pl struct {
		Tickets delivery.Tickets `json:"tickets"`
	}
	text, err := s.store.ProjectPipeline(ctx, project)
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &pl)
	}
	if err != nil {
		return pl.Tickets, fmt.Errorf("stored policy: %w", err)
	}
	return pl.Tickets, nil
}

// records adds artifacts, gates, environments, deployments and effects.
func (s *Server) records(ctx context.Context, b delivery.Build, v *api.BuildDetail) error {
	effects, err := s.store.Effects(ctx, b.ID)
	if err != nil {
		return err
	}
	published := map[string][]string{}
	for _, e := range effects {
		v.Effects = append(v.Effects, api.Effect{Key: e.Key, Kind: e.Kind, State: e.State, Error: e.Error, StartedAt: e.StartedAt, FinishedAt: e.FinishedAt})
		var params struct {
			Artifact string `json:"artifact"`
		}
		if e.Kind == "publish" && e.State == delivery.EffectConfirmed && json.Unmarshal([]byte(e.Params), &params) == nil {
			published[params.Artifact] = append(published[params.Artifact], cmp.Or(e.Result, "Shunt's own store"))
		}
	}
	artifacts, err := s.store.Artifacts(ctx, b.ID)
	if err != nil {
		return err
	}
	for _, a := range artifacts {
		v.Artifacts = append(v.Artifacts, api.Artifact{Name: a.Name, File: a.File, SHA256: a.SHA256, Size: a.Size, Published: published[a.Name]})
	}
	gates, err := s.store.Gates(ctx, b.ID)
	if err != nil {
		return err
	}
	for _, g := range gates {
		v.Gates = append(v.Gates, s.gate(b, g))
	}
	instances, err := s.store.InstancesOf(ctx, b.ID)
	if err != nil {
		return err
	}
	for _, i := range instances {
		v.Instances = append(v.Instances, instance(i))
	}
	deployments, err := s.store.DeploymentsOf(ctx, b.ID)
	for _, d := range deployments {
		v.Deployments = append(v.Deployments, api.Deployment{
			ID: d.ID, Environment: d.Environment, Number: d.Number, Commit: d.Commit, Kind: d.Kind, State: d.State, Before: d.Before, After: d.After, By: d.By, Reason: d.Reason, StartedAt: d.StartedAt, FinishedAt: d.FinishedAt,
		})
	}
	return err
}

func (s *Server) nodes(ctx context.Context, b delivery.Build, nodes []delivery.Node) ([]api.Node, error) {
	attempts, err := s.store.Attempts(ctx, b.ID)
	if err != nil {
		return nil, err
	}
	usual, err := s.engine.Usual(ctx, b.Project)
	if err != nil {
		return nil, err
	}
	out := make([]api.Node, 0, len(nodes))
	for _, n := range nodes {
		v := api.Node{Name: n.Name, Kind: n.Kind, Target: n.Target, Stage: stage(nodes, n), Needs: n.Needs, State: n.State, Reason: n.Reason, StartedAt: n.StartedAt, FinishedAt: n.FinishedAt, Usual: usual[n.Name]}
		for _, a := range attempts {
			if a.Node != n.Name {
				continue
			}
			av := api.Attempt{Attempt: a.Attempt, State: a.State, ExitCode: a.ExitCode, Reason: a.Reason, StartedAt: a.StartedAt, FinishedAt: a.FinishedAt}
			if info, err := os.Stat(s.engine.LogPath(a.ID)); err == nil {
				av.LogBytes = info.Size()
			}
			v.Attempts = append(v.Attempts, av)
		}
		out = append(out, v)
	}
	return out, nil
}

// stage is the column in which a node is shown.
func stage(nodes []delivery.Node, n delivery.Node) string {
	switch n.Kind {
	case delivery.NodeTag, delivery.NodePublish:
		return "publish"
	case delivery.NodeUp, delivery.NodeDown, delivery.NodeGate, delivery.NodeDeploy, delivery.NodeRelease, delivery.NodeRollback:
		return n.Target
	case delivery.NodeJob:
	}
	for _, need := range n.Needs {
		for _, m := range nodes {
			if m.Name == need && (m.Kind == delivery.NodeUp || m.Kind == delivery.NodeDeploy || m.Kind == delivery.NodeRelease) {
				return m.Target
			}
		}
	}
	return "ci"
}

func tests(t engine.Tests) api.TestSummary {
	v := api.TestSummary{Passed: t.Passed, Failed: t.Failed, Skipped: t.Skipped, Flaky: t.Flaky, New: t.New, Gone: t.Gone, NewlyFailing: first(t.NewlyFailing, 50), Fixed: first(t.Fixed, 50)}
	for _, c := range first(t.Failing, 50) {
		v.Failing = append(v.Failing, api.TestCase{Node: c.Node, Class: c.Class, Name: c.Name, Message: c.Message})
	}
	return v
}

func first[T any](s []T, n int) []T { return s[:min(len(s), n)] }

func (s *Server) whyFailed(ctx context.Context, b delivery.Build, nodes []delivery.Node, views []api.Node) *api.WhyFailed {
	if b.Status != delivery.BuildFailed && b.Status != delivery.BuildStopped {
		return nil
	}
	for i, n := range nodes {
		if n.State != delivery.NodeFailed && n.State != delivery.NodeUnknown {
			continue
		}
		v := &api.WhyFailed{Node: n.Name, Reason: n.Reason}
		if tries := views[i].Attempts; len(tries) > 0 {
			last := tries[len(tries)-1]
			v.Attempt, v.ExitCode = last.Attempt, last.ExitCode
			if attempts, err := s.store.Attempts(ctx, b.ID); err == nil {
				for _, a := range attempts {
					if a.Node == n.Name && a.Attempt == last.Attempt {
						v.Tail = s.tail(ctx, a.ID)
					}
				}
			}
		}
		return v
	}
	return &api.WhyFailed{Reason: b.Reason}
}

// tail is the end of a log. A page does not wait long for an object store.
func (s *Server) tail(ctx context.Context, attempt string) []string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := s.logs.Sync(ctx, attempt, false); err != nil {
		s.cfg.Log.Warn("cannot fetch a log", "job", attempt, "error", err)
	}
	return engine.Tail(s.logs.Path(attempt), 20)
}

// actions lists what a person may do to a build now.
func actions(b delivery.Build, nodes []delivery.Node, deployments []api.Deployment) (out []api.Action) {
	add := func(name, refused string) { out = append(out, api.Action{Name: name, Refused: refused}) }
	if !b.Status.Final() && b.Status != delivery.BuildStopped {
		why := ""
		for _, n := range nodes {
			if n.State == delivery.NodeRunning && (n.Kind == delivery.NodeDeploy || n.Kind == delivery.NodeRelease || n.Kind == delivery.NodeRollback) {
				why = "its deployment has started and is not cut in half"
			}
		}
		add("cancel", why)
	}
	if (b.Status == delivery.BuildFailed || b.Status == delivery.BuildCancelled) && len(nodes) > 0 {
		add("rerun", "")
	}
	if b.Status == delivery.BuildStopped {
		unknown := len(deployments) > 0 && deployments[len(deployments)-1].State == delivery.DeploymentUnknown
		if unknown {
			add("confirm-live", "")
			add("confirm-not-live", "")
			add("retry", "nobody knows yet whether its deployment is live: look, then say so")
		} else {
			add("retry", "")
		}
		add("give-up", "")
		add("rollback", "")
	}
	return out
}

func (s *Server) gate(b delivery.Build, g delivery.Gate) api.Gate {
	return api.Gate{
		ID: g.ID, Project: b.Project, Number: b.Number, Environment: g.Environment, Version: g.Version, State: g.State, Stale: g.Stale, Binding: g.Binding, OpenedAt: g.OpenedAt, ExpiresAt: g.ExpiresAt,
		DecidedBy: g.DecidedBy, DecidedAt: g.DecidedAt, DecidedFrom: g.DecidedFrom, Reason: g.Reason, Without: g.Without, URL: s.url + "/a/" + g.ID,
	}
}

func instance(i delivery.Instance) api.Instance {
	return api.Instance{ID: i.ID, Project: i.Project, Environment: i.Environment, Number: i.Number, State: i.State, URL: i.URL, Pinned: i.Pinned, Reason: i.Reason, CreatedAt: i.CreatedAt, ExpiresAt: i.ExpiresAt, DownAt: i.DownAt}
}

// Gate implements web.Reader.
func (s *Server) Gate(ctx context.Context, id string) (api.GateDetail, error) {
	g, err := s.store.Gate(ctx, id)
	if err != nil {
		return api.GateDetail{}, err
	}
	b, err := s.store.Build(ctx, g.BuildID)
	if err != nil {
		return api.GateDetail{}, err
	}
	v := api.GateDetail{Gate: s.gate(b, g), QA: []api.Instance{}, Commits: []api.Commit{}, Files: []delivery.FileChange{}, Skipped: []api.Node{}, Warnings: []string{}, Next: []string{}, CanDecide: g.State == delivery.GateOpen, Title: b.Branch()}
	if b.Lane == delivery.LaneHotfix {
		_, name, _ := strings.Cut(b.Branch(), "/")
		v.Title = "hotfix " + cmp.Or(name, b.Branch())
	}
	if v.Build, err = s.Build(ctx, b.Project, b.Number); err != nil {
		return v, err
	}
	for _, i := range v.Build.Instances {
		if i.State == delivery.InstanceUp {
			v.QA = append(v.QA, i)
		}
	}
	for _, n := range v.Build.Nodes {
		if n.Kind == delivery.NodeJob && n.State == delivery.NodeSkipped {
			v.Skipped = append(v.Skipped, n)
		}
	}
	project, err := s.Project(ctx, b.Project)
	if err != nil {
		return v, err
	}
	v.Replaces = project.Production
	if g.State != delivery.GateOpen {
		return v, nil // the record: what would be compared now says nothing of what was decided then
	}
	c, err := s.engine.Change(ctx, b)
	if err != nil {
		return v, err
	}
	v.CommitCount, v.Files, v.Added, v.Deleted = len(c.Commits), first(append([]delivery.FileChange{}, c.Files...), 500), c.Added, c.Deleted
	for _, commit := range c.Commits {
		v.Commits = append(v.Commits, api.Commit{ID: commit.ID, Subject: commit.Subject, Author: commit.AuthorName, At: commit.AuthoredAt})
	}
	if v.Diff, v.DiffCut, err = s.engine.Diff(ctx, b, 512<<10); err != nil {
		return v, err
	}
	v.Forecast = api.Forecast{Branch: project.Branches.Integration, Contained: c.Forecast.Contained, Conflicts: append([]string{}, c.Forecast.Conflicts...), Words: c.Words}
	return v, s.gateRules(ctx, b, g, project, &v)
}

// gateRules adds what the rules say of a waiting build, and what comes next.
func (s *Server) gateRules(ctx context.Context, b delivery.Build, g delivery.Gate, project api.Project, v *api.GateDetail) error {
	facts, err := s.engine.CandidateFacts(ctx, b, 0)
	if err != nil {
		return err
	}
	pl, err := pipeline.Parse(pipeline.FileName, b.Pipeline)
	if err != nil {
		return fmt.Errorf("the stored pipeline no longer parses: %w", err)
	}
	env := pl.Environment(g.Environment)
	production := env != nil && env.Production
	if r := flow.MayPromote(facts); r != nil && production {
		v.Refused, v.Mend, v.EqualPatch = r.Why, r.Mend, r.EqualPatch
	} else if g.Stale != "" {
		v.Refused = g.Stale
	}
	for _, f := range v.Files {
		if f.Path == pipeline.FileName {
			v.Warnings = append(v.Warnings, "the pipeline file differs from the one in production")
		}
		if strings.Contains(strings.ToLower(f.Path), "migration") {
			v.Warnings = append(v.Warnings, "it touches database migrations: "+f.Path)
		}
	}
	if project.Hold != "" && b.Lane == delivery.LaneHotfix {
		v.Warnings = append(v.Warnings, "the main lane is on hold: "+project.Hold)
	}
	if f := flow.Frozen(facts.Freezes, facts.Now); f != nil && b.Lane == delivery.LaneHotfix {
		v.Warnings = append(v.Warnings, "the main lane is "+flow.FreezeWords(*f))
	}
	for _, i := range v.QA {
		v.Next = append(v.Next, "the environment "+i.ID+" is destroyed")
	}
	v.Next = append(v.Next, "the artifact's bytes are verified again", "it is deployed to "+g.Environment+usually(v.Build.Nodes, "deploy/"+g.Environment))
	if production {
		tag := delivery.ExpandTag(project.Tags.Production, b.Number)
		how := "and " + project.Branches.Production + " moves to it in the same push"
		switch flow.ProductionMove(facts) {
		case flow.MergeCommit:
			how = "and " + project.Branches.Production + " gets a merge commit with exactly this tree"
		case flow.MergeNone:
			how = "and no branch moves"
		case flow.MergeFastForward:
		}
		v.Next = append(v.Next, "only when that has succeeded, the commit is tagged "+tag+" "+how)
	}
	v.WayBack = "shunt rollback " + b.Project + ` -m "why"  deploys the stored bytes of the build before. The database is not rolled back.`
	return nil
}

func usually(nodes []api.Node, name string) string {
	for _, n := range nodes {
		if n.Name == name && n.Usual >= time.Second {
			return ", usually in " + n.Usual.Round(time.Second).String()
		}
	}
	return ""
}

// Hotfix implements web.Reader.
func (s *Server) Hotfix(ctx context.Context, project string) (api.HotfixBase, error) {
	p, err := s.store.Project(ctx, project)
	if err != nil {
		return api.HotfixBase{}, err
	}
	v := api.HotfixBase{Project: project, Commit: p.ProductionCommit, Pattern: p.Branches.Hotfix, Open: []api.Build{}}
	if p.ProductionCommit != "" {
		v.Tag = delivery.ExpandTag(p.Tags.Production, p.ProductionBuild)
	}
	open, err := s.store.Builds(ctx, store.BuildQuery{Project: project, Lane: string(delivery.LaneHotfix), Status: "open", Limit: 100})
	for _, b := range open {
		v.Open = append(v.Open, s.build(b))
	}
	return v, errors.Join(err, s.gated(ctx, project, v.Open))
}

// BackMerges implements web.Reader.
func (s *Server) BackMerges(ctx context.Context, project string) ([]api.BackMerge, error) {
	p, err := s.store.Project(ctx, project)
	if err != nil {
		return nil, err
	}
	return s.debts(ctx, p)
}

func (s *Server) debts(ctx context.Context, p delivery.Project) ([]api.BackMerge, error) {
	debts, err := s.store.BackMerges(ctx, p.Name, false)
	out := make([]api.BackMerge, 0, len(debts))
	for _, d := range debts {
		out = append(out, debt(p, d))
	}
	return out, err
}

func debt(p delivery.Project, d delivery.BackMerge) api.BackMerge {
	v := api.BackMerge{Project: p.Name, Commit: d.Commit, Number: d.Number, Owner: d.Owner, OpenedAt: d.OpenedAt, ClosedAt: d.ClosedAt, ClosedBy: d.ClosedBy, Conflicts: append([]string{}, d.Conflicts...), Commands: []string{}}
	if d.ClosedAt.IsZero() {
		v.Commands = flow.BackMergeCommands(p.Branches, "origin", delivery.Forecast{Conflicts: d.Conflicts})
	}
	return v
}

// Instances implements web.Reader.
func (s *Server) Instances(ctx context.Context, project string) ([]api.Instance, error) {
	instances, err := s.store.Instances(ctx, project, s.clock.Now().Add(-24*time.Hour))
	out := make([]api.Instance, 0, len(instances))
	for _, i := range instances {
		out = append(out, instance(i))
	}
	return out, err
}

// Secrets implements web.Reader.
func (s *Server) Secrets(ctx context.Context, project string) ([]string, error) {
	if _, err := s.store.Project(ctx, project); err != nil {
		return nil, err
	}
	names, err := s.store.SecretNames(ctx, project)
	return append([]string{}, names...), err
}

// Audit implements web.Reader.
func (s *Server) Audit(ctx context.Context, project string, before int64) ([]api.AuditRow, error) {
	if _, err := s.store.Project(ctx, project); err != nil {
		return nil, err
	}
	rows, err := s.store.AuditRows(ctx, project, before, 100)
	return auditRows(rows), err
}

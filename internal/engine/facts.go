package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/store"
)

func (e *Engine) buildURL(b delivery.Build) string {
	return fmt.Sprintf("%s/%s/%d", e.URL, b.Project, b.Number)
}

func trunk(p delivery.Project) bool { return p.Branches.Integration == p.Branches.Production }

// title is what people call a build: "hotfix cart-500", or its branch.
func title(lane delivery.Lane, branch string) string {
	if lane == delivery.LaneHotfix {
		_, name, ok := strings.Cut(branch, "/")
		if !ok {
			name = branch
		}
		return "hotfix " + name
	}
	return branch
}

// productionTag is the tag of what is in production, or "" when the remote has none.
func productionTag(p delivery.Project, refs map[string]string) string {
	tag := delivery.ExpandTag(p.Tags.Production, p.ProductionBuild)
	if _, ok := refs["refs/tags/"+tag]; !ok {
		return ""
	}
	return tag
}

// binding is what a decision about a build is about, as things are now.
func binding(ctx context.Context, q interface {
	Project(ctx context.Context, name string) (delivery.Project, error)
	Artifacts(ctx context.Context, buildID int64) ([]delivery.Artifact, error)
}, b delivery.Build,
) (delivery.Binding, error) {
	p, err := q.Project(ctx, b.Project)
	if err != nil {
		return delivery.Binding{}, err
	}
	artifacts, err := q.Artifacts(ctx, b.ID)
	if err != nil {
		return delivery.Binding{}, err
	}
	out := delivery.Binding{Commit: b.Commit, Tree: b.Tree, PolicyDigest: b.PolicyDigest, Artifacts: map[string]string{}, Production: p.RunningCommit, Branch: p.BranchTip}
	for _, a := range artifacts {
		out.Artifacts[a.Name] = a.SHA256
	}
	return out, nil
}

// CandidateFacts gathers what flow.MayPromote asks, from the mirror and the refs
// as last read.
func (e *Engine) CandidateFacts(ctx context.Context, b delivery.Build, without int64) (f flow.CandidateFacts, err error) {
	p, err := e.Store.Project(ctx, b.Project)
	if err != nil {
		return f, err
	}
	refs, err := e.Store.Refs(ctx, b.Project)
	if err != nil {
		return f, err
	}
	now := e.Store.Now()
	freezes, err := e.Store.FreezesAhead(ctx, b.Project, now)
	if err != nil {
		return f, err
	}
	repo := e.repo(p)
	f = flow.CandidateFacts{
		Project: p.Name, Number: b.Number, Lane: b.Lane, Branch: b.Branch(), Commit: b.Commit, Branches: p.Branches,
		Production: p.ProductionCommit, ProductionNumber: p.ProductionBuild, ContainsProduction: true, Without: without,
		BranchTip: refs["refs/heads/"+p.Branches.Production], ExpectedTip: p.BranchTip, FastForward: true,
		Hold: p.Hold, Freezes: freezes, Now: now, Incident: p.Incident, Trunk: trunk(p),
	}
	tag := "refs/tags/" + delivery.ExpandTag(p.Tags.Production, b.Number)
	blocking, at := e.inTheWay(p.Name, tag)
	f.TagBlocked = blocking
	if at != "" && blocking == "" {
		if commit, err := repo.Resolve(ctx, at); err != nil || commit != b.Commit {
			f.TagBlocked = tag
		}
	}
	if p.ProductionCommit != "" {
		f.ProductionTag = productionTag(p, refs)
		if other, err := e.Store.BuildByNumber(ctx, p.Name, p.ProductionBuild); err == nil && other.Lane == delivery.LaneHotfix {
			f.ProductionTitle = title(other.Lane, other.Branch())
		}
		if f.ContainsProduction, err = repo.IsAncestor(ctx, p.ProductionCommit, b.Commit); err != nil {
			return f, err
		}
		if !f.ContainsProduction {
			if err := e.missing(ctx, repo, &f); err != nil {
				return f, err
			}
		}
	}
	if f.BranchTip != "" {
		f.FastForward, err = repo.IsAncestor(ctx, f.BranchTip, b.Commit)
	}
	return f, err
}

// missing tells what of production a candidate lacks, and whether it carries
// equal patches instead.
func (e *Engine) missing(ctx context.Context, repo *gitrepo.Repo, f *flow.CandidateFacts) (err error) {
	if f.Missing, err = repo.Log(ctx, []string{f.Production}, []string{f.Commit}, 50); err != nil {
		return err
	}
	lacks, err := repo.PatchIDs(ctx, []string{f.Production}, []string{f.Commit})
	if err != nil {
		return err
	}
	has, err := repo.PatchIDs(ctx, []string{f.Commit}, []string{f.Production})
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, id := range has {
		have[id] = true
	}
	f.EqualPatch = len(lacks) > 0
	for _, id := range lacks {
		f.EqualPatch = f.EqualPatch && have[id]
	}
	return nil
}

// hotfixFacts gathers what flow.HotfixPush asks of a pushed hotfix branch.
func (e *Engine) hotfixFacts(ctx context.Context, p delivery.Project, ref, tip string, refs map[string]string) (f flow.HotfixFacts, err error) {
	repo := e.repo(p)
	f = flow.HotfixFacts{Project: p.Name, Branch: strings.TrimPrefix(ref, "refs/heads/"), Branches: p.Branches, Production: p.ProductionCommit, Tip: tip}
	if p.ProductionCommit == "" {
		return f, nil
	}
	f.ProductionTag = productionTag(p, refs)
	if f.ContainsProduction, err = repo.IsAncestor(ctx, p.ProductionCommit, tip); err != nil {
		return f, err
	}
	if f.ForkPoint, err = repo.MergeBase(ctx, tip, p.ProductionCommit); err != nil {
		return f, err
	}
	accepted, err := e.Store.AcceptedTips(ctx, p.Name, ref)
	if err != nil {
		return f, err
	}
	all, err := repo.Log(ctx, []string{tip}, []string{p.ProductionCommit}, 0)
	if err != nil {
		return f, err
	}
	exclude := append([]string{p.ProductionCommit}, accepted...)
	if integration := refs["refs/heads/"+p.Branches.Integration]; integration != "" {
		exclude = append(exclude, integration)
	}
	own, err := repo.Log(ctx, []string{tip}, exclude, 0)
	if err != nil {
		return f, err
	}
	mine := map[string]bool{}
	for _, c := range own {
		mine[c.ID] = true
	}
	for _, a := range accepted { // accepted before it was merged anywhere: still its own
		older, err := repo.Log(ctx, []string{a}, []string{p.ProductionCommit}, 0)
		if err != nil {
			continue // an older push whose commits are gone
		}
		for _, c := range older {
			mine[c.ID] = true
		}
	}
	for _, c := range all {
		if mine[c.ID] {
			f.Own = append(f.Own, c)
		} else {
			f.Foreign = append(f.Foreign, c)
		}
	}
	if f.ContainsProduction {
		return f, nil
	}
	return f, e.startsAt(ctx, p, repo, refs, &f)
}

// startsAt finds the older production tag that a hotfix starts at, and the tags
// that it is behind.
func (e *Engine) startsAt(ctx context.Context, p delivery.Project, repo *gitrepo.Repo, refs map[string]string, f *flow.HotfixFacts) error {
	deployments, err := e.Store.Deployments(ctx, p.Name, "", 100)
	if err != nil {
		return err
	}
	for _, d := range deployments {
		tag := delivery.ExpandTag(p.Tags.Production, d.Number)
		if _, ok := refs["refs/tags/"+tag]; !ok || d.State != delivery.DeploymentSucceeded || slices.Contains(f.BehindTags, tag) {
			continue
		}
		contained, err := repo.IsAncestor(ctx, d.Commit, f.Tip)
		if err != nil {
			return err
		}
		if contained {
			if d.Commit == f.ForkPoint {
				f.StartsAt = tag
			}
			return nil
		}
		f.BehindTags = append(f.BehindTags, tag)
	}
	return nil
}

// RefreshGates tells every open gate of a project how things are now: what is in
// production may have moved, the branch may have been rebased. A gate whose
// binding changed is opened again under the next version, so that a click on a
// page that shows the old one is answered with what changed.
func (e *Engine) RefreshGates(ctx context.Context, project string) error {
	defer e.lock("gates/" + project)()
	gates, err := e.Store.OpenGates(ctx, project)
	if err != nil {
		return err
	}
	for _, g := range gates {
		if err := e.refreshGate(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) refreshGate(ctx context.Context, g delivery.Gate) error {
	b, err := e.Store.Build(ctx, g.BuildID)
	if err != nil {
		return err
	}
	stale, err := e.stale(ctx, b, g.Environment)
	if err != nil {
		return err
	}
	now, err := binding(ctx, e.Store, b)
	if err != nil || stale == g.Stale && len(flow.BindingChanged(g.Binding, now)) == 0 {
		return err
	}
	return e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		now, err := binding(ctx, tx, b)
		if err != nil {
			return err
		}
		current, err := tx.Gate(ctx, g.ID)
		if err != nil || current.State != delivery.GateOpen || current.Version != g.Version {
			return err
		}
		tx.Event(b.Project, b.Number, "gate")
		if len(flow.BindingChanged(g.Binding, now)) == 0 {
			return tx.SetStale(ctx, g.ID, stale)
		}
		current.Binding, current.Stale = now, stale
		_, err = tx.OpenGate(ctx, current)
		return err
	})
}

// stale says in words why a waiting build can never be promoted as it is; a hold,
// a freeze and an incident pass and are no such reason. Only production has such rules.
func (e *Engine) stale(ctx context.Context, b delivery.Build, environment string) (string, error) {
	pl, err := e.pipelineOf(ctx, e.Store, b)
	if err != nil {
		return "", err
	}
	if env := pl.Environment(environment); env == nil || !env.Production {
		return "", nil
	}
	f, err := e.CandidateFacts(ctx, b, 0)
	if err != nil {
		return "", err
	}
	f.Hold, f.Freezes, f.Incident = "", nil, ""
	if r := flow.MayPromote(f); r != nil {
		return r.Why, nil
	}
	return e.rewritten(ctx, b)
}

// mayShip asks whether a build may go to production as things are now; nil is yes.
// Freezes are left to the transaction that follows, which knows the database's time.
func (e *Engine) mayShip(ctx context.Context, b delivery.Build, without int64) (*delivery.Error, error) {
	facts, err := e.CandidateFacts(ctx, b, without)
	if err != nil {
		return nil, err
	}
	facts.Freezes = nil
	if r := flow.MayPromote(facts); r != nil {
		return r.Err(), nil
	}
	why, err := e.rewritten(ctx, b)
	if err != nil || why == "" {
		return nil, err
	}
	return &delivery.Error{Kind: delivery.KindRefused, What: fmt.Sprintf("cannot promote build %d", b.Number), Why: why, Next: "Its newest push has a build of its own."}, nil
}

// rewritten says in words that a hotfix branch no longer has the build's commit.
func (e *Engine) rewritten(ctx context.Context, b delivery.Build) (string, error) {
	refs, err := e.Store.Refs(ctx, b.Project)
	tip := refs[b.Ref]
	if err != nil || tip == "" || b.Lane != delivery.LaneHotfix {
		return "", err
	}
	p, err := e.Store.Project(ctx, b.Project)
	if err != nil {
		return "", err
	}
	still, err := e.repo(p).IsAncestor(ctx, b.Commit, tip)
	if err != nil || still {
		return "", err
	}
	return "its branch was rewritten after this build: the commit is no longer part of " + b.Branch(), nil
}

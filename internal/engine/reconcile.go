package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/store"
)

// After a restore the database is older than the world. It is not believed until
// it was compared with git, which holds what was tagged and released meanwhile.
// A Plan is that comparison and what follows from it; a person confirms it.

// passFences is how far the fences of deployments jump: more deployments may have
// been tried than git has tags of.
const passFences = 1000

// Plan says how a project's rows differ from git, and what adopting git changes.
type Plan struct {
	Project delivery.Project
	refs    map[string]string
	known   map[string]string // refs as recorded
	pasts   pasts
	fresh   []past // builds that the database does not know
	settle  []settled
	resume  []delivery.Build // open builds that go on
	shipped *past            // the newest release, when the database does not know it
	back    *pastRollback    // what production runs since, when it was rolled back
	unbuilt []string         // branches whose tip no build is known of
	debts   []delivery.BackMerge
}

// settled is a build that the database has open, though its end is known.
type settled struct {
	build  delivery.Build
	status delivery.BuildStatus
	reason string
	past   *past // what its tags say; nil: it was overtaken
}

// Plan compares a project's rows with its remote. It changes nothing but the mirror.
func (e *Engine) Plan(ctx context.Context, project string) (*Plan, error) {
	defer e.lock("project/" + project)()
	p, err := e.Store.Project(ctx, project)
	if err != nil {
		return nil, err
	}
	refs, err := e.repo(p).Fetch(ctx)
	if err != nil {
		return nil, err
	}
	known, err := e.Store.Refs(ctx, project)
	if err != nil {
		return nil, err
	}
	return e.plan(ctx, p, refs, known)
}

func (e *Engine) plan(ctx context.Context, p delivery.Project, refs, known map[string]string) (*Plan, error) {
	plan := &Plan{Project: p, refs: refs, known: known}
	var err error
	// A tag that was moved is no evidence: the next look at the remote raises an incident.
	if plan.pasts, err = e.readPasts(ctx, p, refs, func(ref string) bool { return known[ref] == "" }); err != nil {
		return nil, err
	}
	if err := e.planBuilds(ctx, plan); err != nil {
		return nil, err
	}
	if err := e.planOpen(ctx, plan); err != nil {
		return nil, err
	}
	after := time.Time{}
	if plan.shipped != nil {
		after = plan.shipped.build.CreatedAt
	} else if b, err := e.Store.BuildByNumber(ctx, p.Name, p.ProductionBuild); err == nil {
		after = b.CreatedAt
	}
	// Git keeps whole seconds. A release that came after the rollback may be of a
	// build from before it, and git does not tell: then the main lane is held for nothing.
	if n := len(plan.pasts.rollbacks); n > 0 && !plan.pasts.rollbacks[n-1].at.Before(after.Truncate(time.Second)) {
		plan.back = &plan.pasts.rollbacks[n-1]
	}
	if err := e.planBranches(ctx, plan); err != nil {
		return nil, err
	}
	return plan, e.planDebts(ctx, plan)
}

// planBuilds finds the builds that the database does not know, or knows as open.
func (e *Engine) planBuilds(ctx context.Context, plan *Plan) error {
	for i := range plan.pasts.builds {
		b := &plan.pasts.builds[i]
		row, err := e.Store.BuildByNumber(ctx, plan.Project.Name, b.build.Number)
		switch {
		case delivery.IsKind(err, delivery.KindNotFound):
			plan.fresh = append(plan.fresh, *b)
		case err != nil:
			return err
		case row.Commit != b.build.Commit:
			plan.pasts.strange = append(plan.pasts.strange, fmt.Sprintf("build %d: the database has it at %s, its tag is at %s", row.Number, delivery.ShortHash(row.Commit), delivery.ShortHash(b.build.Commit)))
			continue
		case b.released != nil && row.Status != delivery.BuildSucceeded:
			plan.settle = append(plan.settle, settled{row, delivery.BuildSucceeded, "git says that it was released", b})
		case b.released == nil && !row.Status.Final() && row.TagObject == "":
			plan.settle = append(plan.settle, settled{row, delivery.BuildExpired, "it went on after the backup; what became of it is not in git", b})
		}
		if b.released != nil && b.build.Number > plan.Project.ProductionBuild {
			plan.shipped = b
		}
	}
	return nil
}

// planOpen finds the open builds that production has overtaken, and those that go on.
func (e *Engine) planOpen(ctx context.Context, plan *Plan) error {
	open, err := e.Store.Builds(ctx, store.BuildQuery{Project: plan.Project.Name, Status: "open", Limit: 100_000})
	if err != nil {
		return err
	}
	for _, b := range open {
		if slices.ContainsFunc(plan.settle, func(s settled) bool { return s.build.ID == b.ID }) {
			continue
		}
		if s := plan.shipped; s != nil && b.Number < s.build.Number {
			contains, err := e.repo(plan.Project).IsAncestor(ctx, s.build.Commit, b.Commit)
			if err != nil {
				return err
			}
			if !contains {
				plan.settle = append(plan.settle, settled{b, delivery.BuildCancelled, fmt.Sprintf("overtaken: build %d went to production after the backup", s.build.Number), nil})
				continue
			}
		}
		plan.resume = append(plan.resume, b)
	}
	return nil
}

// planBranches finds the tips that were pushed meanwhile and never built.
func (e *Engine) planBranches(ctx context.Context, plan *Plan) error {
	for _, ref := range slices.Sorted(maps.Keys(plan.refs)) {
		_, starts := plan.Project.Branches.LaneOf(ref)
		if !starts || plan.known[ref] == plan.refs[ref] {
			continue
		}
		tip := plan.refs[ref]
		built := slices.ContainsFunc(plan.pasts.builds, func(b past) bool { return b.build.Commit == tip })
		rows, err := e.Store.Builds(ctx, store.BuildQuery{Project: plan.Project.Name, Commit: tip, Limit: 1})
		if err != nil {
			return err
		}
		if !built && len(rows) == 0 {
			plan.unbuilt = append(plan.unbuilt, ref)
		}
	}
	return nil
}

// planDebts finds what the integration branch owes of the releases.
func (e *Engine) planDebts(ctx context.Context, plan *Plan) error {
	p := plan.Project
	into := plan.refs["refs/heads/"+p.Branches.Integration]
	for _, b := range plan.releases() {
		if into == "" || b.released.takeover {
			continue
		}
		f, err := forecast(ctx, e.repo(p), into, b.build.Commit)
		if err != nil {
			return err
		}
		if flow.BackMergeOwed(f.Contained, trunk(p)) {
			plan.debts = append(plan.debts, delivery.BackMerge{Project: p.Name, Commit: b.build.Commit, Number: b.build.Number, Owner: b.released.by, Conflicts: f.Conflicts})
		}
	}
	return nil
}

// releases are the releases of which the database does not know, by number.
func (p *Plan) releases() (all []past) {
	for _, b := range p.fresh {
		if b.released != nil {
			all = append(all, b)
		}
	}
	for _, s := range p.settle {
		if s.past != nil && s.past.released != nil {
			all = append(all, *s.past)
		}
	}
	slices.SortFunc(all, func(a, b past) int { return cmp.Compare(a.build.Number, b.build.Number) })
	return all
}

// Server is the installation that made the newest tag; "" when git does not tell.
func (p *Plan) Server() string {
	if n := len(p.pasts.builds); n > 0 {
		return p.pasts.builds[n-1].server
	}
	return ""
}

// Builds is how many builds the database does not know.
func (p *Plan) Builds() int { return len(p.fresh) }

// next is the number of the next build.
func (p *Plan) next() int64 { return max(p.Project.NextBuild, p.pasts.highest+1) }

// Words says how the rows differ from git and what adopting git changes, a line each.
func (p *Plan) Words() (words []string) {
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	for _, b := range p.fresh {
		what := "tagged"
		if b.released != nil {
			what = "released" + by(b.released.by)
		}
		say("build %d (%s, %s) is not in the database: it was %s", b.build.Number, b.build.Branch(), delivery.ShortHash(b.build.Commit), what)
	}
	for _, s := range p.settle {
		say("build %d is %s in the database and becomes %s: %s", s.build.Number, s.build.Status, s.status, s.reason)
	}
	for _, b := range p.resume {
		say("build %d is %s and goes on from there", b.Number, b.Status)
	}
	if s := p.shipped; s != nil {
		say("production is build %d (%s), not %d", s.build.Number, delivery.ShortHash(s.build.Commit), p.Project.ProductionBuild)
	}
	if p.back != nil {
		say("production was rolled back to build %d%s: the main lane is held", p.back.number, by(p.back.by))
	}
	for _, ref := range slices.Sorted(maps.Keys(p.known)) {
		short := strings.TrimPrefix(strings.TrimPrefix(ref, "refs/heads/"), "refs/tags/")
		switch now := p.refs[ref]; {
		case now == p.known[ref]:
		case strings.HasPrefix(ref, "refs/tags/"):
			say("the tag %s was moved or deleted: it raises an incident", short)
		case now == "":
			say("the branch %s is gone", short)
		case !slices.Contains(p.unbuilt, ref):
			say("the branch %s is at %s, not %s", short, delivery.ShortHash(now), delivery.ShortHash(p.known[ref]))
		}
	}
	for _, ref := range p.unbuilt {
		say("the branch %s is at %s, of which no build is known: it is built", strings.TrimPrefix(ref, "refs/heads/"), delivery.ShortHash(p.refs[ref]))
	}
	for _, s := range p.pasts.strange {
		say("a tag is not believed: %s", s)
	}
	if p.next() != p.Project.NextBuild {
		say("the next build is %d, not %d", p.next(), p.Project.NextBuild)
	}
	return words
}

func by(name string) string {
	if name == "" {
		return ""
	}
	return " by " + name
}

// Adopt makes the rows of projects what their plans say, in one transaction with
// what else ends the mode.
func (e *Engine) Adopt(ctx context.Context, plans []*Plan, who, why string, also func(ctx context.Context, tx *store.Tx) error) error {
	return e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		for _, p := range plans {
			if err := e.adopt(ctx, tx, p); err != nil {
				return err
			}
			words := fmt.Sprintf("%s; %d builds, %d releases from git", why, len(p.fresh), len(p.releases()))
			if err := tx.Audit(ctx, p.Project.Name, 0, who, "reconciled", words); err != nil {
				return err
			}
			tx.Event(p.Project.Name, 0, "project")
		}
		return also(ctx, tx)
	})
}

func (e *Engine) adopt(ctx context.Context, tx *store.Tx, plan *Plan) error {
	name := plan.Project.Name
	for _, b := range plan.fresh {
		id, err := tx.InsertPastBuild(ctx, b.build, b.nodes())
		if err != nil {
			return err
		}
		if err := adoptArtifacts(ctx, tx, id, b.artifacts); err != nil {
			return err
		}
		if err := tx.Audit(ctx, name, b.build.Number, "git", "build read back", b.build.Commit); err != nil {
			return err
		}
	}
	for _, s := range plan.settle {
		if err := tx.Settle(ctx, s.build, s.status, s.reason); err != nil {
			return err
		}
		if s.past != nil {
			if err := errors.Join(adoptArtifacts(ctx, tx, s.build.ID, s.past.artifacts), setTagObject(ctx, tx, s)); err != nil {
				return err
			}
		}
		if err := tx.Audit(ctx, name, s.build.Number, "git", "build "+string(s.status), s.reason); err != nil {
			return err
		}
	}
	if err := errors.Join(tx.PassNumbers(ctx, name, plan.next()), tx.PassFences(ctx, name, passFences)); err != nil {
		return err
	}
	for _, b := range plan.resume {
		if err := e.reopen(ctx, tx, b); err != nil {
			return err
		}
	}
	if err := adoptReleases(ctx, tx, plan); err != nil {
		return err
	}
	return adoptRefs(ctx, tx, plan)
}

func adoptArtifacts(ctx context.Context, tx *store.Tx, id int64, artifacts []delivery.Artifact) error {
	for _, a := range artifacts {
		a.BuildID = id
		if err := tx.SetArtifact(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func setTagObject(ctx context.Context, tx *store.Tx, s settled) error {
	if s.past.build.TagObject == "" {
		return nil
	}
	return tx.SetTagObject(ctx, s.build.ID, s.past.build.TagObject)
}

// adoptReleases writes decisions, deployments, debts, and what production is.
func adoptReleases(ctx context.Context, tx *store.Tx, plan *Plan) error {
	p := plan.Project
	before := p.RunningCommit
	for _, b := range plan.releases() {
		row, err := tx.BuildByNumber(ctx, p.Name, b.build.Number)
		if err != nil {
			return err
		}
		d := delivery.Deployment{
			ID: fmt.Sprintf("%s-%d-git", p.Name, row.Number), Project: p.Name, Environment: b.environment(), BuildID: row.ID, Number: row.Number, Commit: row.Commit,
			Lane: row.Lane, Kind: "promote", Before: before, By: b.released.by, Reason: b.released.reason, StartedAt: row.CreatedAt,
		}
		before = row.Commit
		if b.released.takeover {
			d.Kind = "takeover"
		} else if err := tx.InsertPastGate(ctx, pastGate(row, b)); err != nil {
			return err
		}
		done, err := tx.DeploymentsOf(ctx, row.ID)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(done, func(d delivery.Deployment) bool { return d.State == delivery.DeploymentSucceeded }) {
			if err := tx.InsertPastDeployment(ctx, d); err != nil {
				return err
			}
		}
		if err := tx.Audit(ctx, p.Name, row.Number, cmp.Or(d.By, "git"), d.Kind+" read back", d.Reason); err != nil {
			return err
		}
	}
	for _, d := range plan.debts {
		if _, err := tx.OpenBackMerge(ctx, d); err != nil {
			return err
		}
	}
	tip := plan.refs["refs/heads/"+p.Branches.Production]
	number, commit := p.ProductionBuild, p.ProductionCommit
	if s := plan.shipped; s != nil {
		number, commit = s.build.Number, s.build.Commit
		if err := tx.SetRunning(ctx, p.Name, number, commit); err != nil {
			return err
		}
	}
	if err := tx.SetProduction(ctx, p.Name, number, commit, tip); err != nil {
		return err
	}
	return adoptRollbacks(ctx, tx, plan)
}

// pastGate is the decision that a production tag tells. Its time is that of the
// build, for the tag has no other.
func pastGate(row delivery.Build, b past) delivery.Gate {
	g := delivery.Gate{
		ID: gateID(), BuildID: row.ID, Environment: b.environment(), DecidedBy: cmp.Or(b.released.by, "unknown"), DecidedAt: row.CreatedAt, DecidedFrom: "git", Reason: b.released.reason, Without: b.released.without,
		Binding: delivery.Binding{Commit: row.Commit, Tree: row.Tree, PolicyDigest: row.PolicyDigest, Artifacts: map[string]string{}},
	}
	for _, a := range b.artifacts {
		g.Binding.Artifacts[a.Name] = a.SHA256
	}
	return g
}

func adoptRollbacks(ctx context.Context, tx *store.Tx, plan *Plan) error {
	p := plan.Project
	for _, r := range plan.pasts.rollbacks {
		row, err := tx.BuildByNumber(ctx, p.Name, r.number)
		if delivery.IsKind(err, delivery.KindNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		environment := "production"
		if all, err := tx.DeploymentsOf(ctx, row.ID); err == nil && len(all) > 0 {
			environment = all[0].Environment
		}
		d := delivery.Deployment{
			ID: fmt.Sprintf("%s-%d-git-%d", p.Name, row.Number, r.at.Unix()), Project: p.Name, Environment: environment, BuildID: row.ID, Number: row.Number, Commit: row.Commit,
			Lane: row.Lane, Kind: "rollback", By: r.by, Reason: r.reason, StartedAt: r.at,
		}
		if err := errors.Join(tx.InsertPastDeployment(ctx, d), tx.Audit(ctx, p.Name, row.Number, cmp.Or(r.by, "git"), "rollback read back", r.reason)); err != nil {
			return err
		}
		if plan.back != nil && r.tag == plan.back.tag {
			hold := fmt.Sprintf("rolled back to build %d%s: %s", row.Number, by(r.by), r.reason)
			if err := errors.Join(tx.SetRunning(ctx, p.Name, row.Number, row.Commit), tx.SetHold(ctx, p.Name, hold)); err != nil {
				return err
			}
		}
	}
	return nil
}

// adoptRefs records the remote's refs as acted on: branches, but for tips that
// no build is known of, and the tags that were believed. A tag that was moved or
// deleted stays as it was recorded, so that the next look raises an incident.
func adoptRefs(ctx context.Context, tx *store.Tx, plan *Plan) error {
	name := plan.Project.Name
	for ref, object := range plan.refs {
		head := strings.HasPrefix(ref, "refs/heads/") && !slices.Contains(plan.unbuilt, ref)
		if head || plan.believed(ref) {
			if err := tx.SetRef(ctx, name, ref, object); err != nil {
				return err
			}
		}
	}
	for ref := range plan.known {
		if _, there := plan.refs[ref]; !there && strings.HasPrefix(ref, "refs/heads/") {
			if err := tx.SetRef(ctx, name, ref, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

// believed tells whether a tag is one that was read as a build's or rollback's.
func (p *Plan) believed(ref string) bool {
	if p.known[ref] != "" {
		return false
	}
	for _, r := range p.pasts.rollbacks {
		if ref == "refs/tags/"+r.tag {
			return true
		}
	}
	number, ok := tagNumber(p.Project.Tags.Build, ref)
	production := false
	if !ok {
		number, production = tagNumber(p.Project.Tags.Production, ref)
	}
	for _, b := range p.pasts.builds {
		if b.build.Number == number && (ok && b.build.TagObject == p.refs[ref] || production && b.released != nil) {
			return true
		}
	}
	return false
}

// reopen lets an open build go on whose runner is gone with all that it did: jobs
// run again as new attempts, and a deployment that was under way is unknown.
func (e *Engine) reopen(ctx context.Context, tx *store.Tx, b delivery.Build) error {
	const words = "it was under way at the time of the backup"
	nodes, err := tx.Nodes(ctx, b.ID)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if n.State != delivery.NodeRunning {
			continue
		}
		switch n.Kind {
		case delivery.NodeUp:
			err = tx.AbandonInstance(ctx, b.ID, n.Target, words)
			n.State, n.Reason = delivery.NodePending, words
		case delivery.NodeJob:
			n.State, n.Reason = delivery.NodePending, words
		case delivery.NodeDeploy, delivery.NodeRollback:
			n.State, n.Reason = delivery.NodePending, words
			d, find := deploymentOf(ctx, tx, b, n)
			if err = find; err == nil && d != nil {
				n.State, n.Reason = delivery.NodeUnknown, words+"; nobody knows whether it is live: a person has to look"
				err = errors.Join(e.saveDeployment(ctx, tx, *d, delivery.DeploymentUnknown, "unknown", n.Reason), tx.SetStatus(ctx, b, delivery.BuildStopped, n.Reason))
			}
		case delivery.NodeTag, delivery.NodePublish, delivery.NodeRelease, delivery.NodeDown, delivery.NodeGate:
			continue // looked up before it is done
		}
		if err := errors.Join(err, tx.LoseAttempt(ctx, b.ID, n.Name, words), tx.SetNode(ctx, n)); err != nil {
			return err
		}
	}
	return nil
}

// Strange are the tags that are called as Shunt's are and were not believed, in words.
func (p *Plan) Strange() []string { return p.pasts.strange }

package engine

import (
	"context"
	"fmt"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/store"
)

// released is what a release push leaves on the remote.
type released struct {
	Object string `json:"object"` // of the production tag
	Tip    string `json:"tip"`    // of the production branch
}

// release pushes production/N and the production branch, together and with
// leases, after the deployment has succeeded. With one trunk there is only the tag.
func (p *performer) release(ctx context.Context) result {
	repo, b := p.repo(p.project), p.build
	artifacts, err := p.Store.Artifacts(ctx, b.ID)
	if err != nil {
		return result{err: err}
	}
	gate, err := p.gateBefore(ctx)
	if err != nil {
		return result{err: err}
	}
	trailers := [][2]string{{"Shunt-Promoted-By", gate.DecidedBy}}
	if gate.Reason != "" {
		trailers = append(trailers, [2]string{"Shunt-Reason", gate.Reason})
	}
	if gate.Without != 0 {
		trailers = append(trailers, [2]string{"Shunt-Without", fmt.Sprint(gate.Without)})
	}
	name := delivery.ExpandTag(p.pipeline.Tags.Production, b.Number)
	msg := p.message(b, fmt.Sprintf("Build %d of %s in production", b.Number, b.Project), artifacts, trailers...)
	object, err := repo.MakeTag(ctx, name, b.Commit, msg)
	if err != nil {
		return result{err: fmt.Errorf("make tag %s: %w", name, err)}
	}
	tag, branch := "refs/tags/"+name, "refs/heads/"+p.project.Branches.Production
	// What the push leaves is what is remembered: a tip that somebody else left
	// there meanwhile shows as theirs when the remote is looked at again.
	tip, err := p.releaseTip(ctx, repo)
	if err != nil {
		return result{err: err}
	}
	look := func(ctx context.Context) (string, bool, error) {
		object, there, err := p.tagOnRemote(ctx, tag, object)
		if err != nil || !there || trunk(p.project) {
			return text(released{Object: object}), there, err
		}
		refs, err := repo.Fetch(ctx)
		if err != nil {
			return "", false, err
		}
		if refs[branch] == "" {
			return "", false, nil
		}
		contained, err := repo.IsAncestor(ctx, b.Commit, refs[branch])
		return text(released{Object: object, Tip: tip}), contained, err
	}
	answer, err := p.perform(ctx, effect{
		key: p.effectKey(), kind: "release", params: text(map[string]string{"tag": name, "commit": b.Commit}),
		call: func(ctx context.Context) (string, error) {
			updates, done, err := p.releaseUpdates(ctx, repo, tag, branch, released{Object: object, Tip: tip})
			if err != nil || len(updates) == 0 {
				return text(done), err
			}
			return text(done), pushOutcome(repo.Push(ctx, updates))
		},
		probe: look,
	})
	if err != nil {
		return p.ended(ctx, err)
	}
	var done released
	if err := parse(answer, &done); err != nil {
		return result{err: err}
	}
	debt, err := p.debt(ctx, repo, gate.DecidedBy)
	if err != nil {
		return result{err: err}
	}
	mail := p.mailData(ctx, b)
	mail.Gate = gate
	return succeeded().with(func(ctx context.Context, tx *store.Tx) error {
		project, err := tx.Project(ctx, b.Project)
		if err != nil {
			return err
		}
		tip := done.Tip
		if err := tx.SetProduction(ctx, b.Project, project.ProductionBuild, project.ProductionCommit, tip); err != nil {
			return err
		}
		for ref, object := range map[string]string{tag: done.Object, branch: tip} {
			if object == "" { // one trunk: the branch did not move
				continue
			}
			if err := tx.SetRef(ctx, b.Project, ref, object); err != nil {
				return err
			}
		}
		if err := tx.Audit(ctx, b.Project, b.Number, "shunt", "released", fmt.Sprintf("%s and %s at %s", name, p.project.Branches.Production, tip)); err != nil {
			return err
		}
		tx.Event(b.Project, 0, "project")
		tx.AfterCommit(func() { p.refreshLater(b.Project) })
		if err := p.post(ctx, tx, p.pipeline, "promoted", mail); err != nil {
			return err
		}
		if debt == nil {
			return nil
		}
		fresh, err := tx.OpenBackMerge(ctx, *debt)
		if err != nil || !fresh {
			return err
		}
		mail.Debt = *debt
		return p.post(ctx, tx, p.pipeline, "back_merge", mail)
	})
}

// gateBefore is the decided gate of the release's environment.
func (p *performer) gateBefore(ctx context.Context) (delivery.Gate, error) {
	g, err := p.promotedGate(ctx)
	if err != nil || g == nil {
		return delivery.Gate{}, err
	}
	return *g, nil
}

// releaseTip is where the release leaves the production branch, seen from where
// Shunt left or accepted it last: it fast-forwards; where it cannot, a merge commit
// whose tree is the build's tree; where it contains the build already, it stays.
// With one trunk the branch is the developers', and a hotfix comes back to it as a
// back-merge.
func (p *performer) releaseTip(ctx context.Context, repo *gitrepo.Repo) (string, error) {
	project, err := p.Store.Project(ctx, p.build.Project)
	if err != nil || trunk(project) {
		return "", err
	}
	old, commit := project.BranchTip, p.build.Commit
	if old == "" {
		return commit, nil
	}
	if contains, err := repo.IsAncestor(ctx, commit, old); err != nil || contains {
		return old, err
	}
	if forward, err := repo.IsAncestor(ctx, old, commit); err != nil || forward {
		return commit, err
	}
	msg := p.message(p.build, fmt.Sprintf("Merge build %d into %s", p.build.Number, project.Branches.Production), nil)
	tip, err := repo.MergeCommit(ctx, p.build.Tree, []string{old, commit}, msg)
	if err != nil {
		return "", fmt.Errorf("make merge commit: %w", err)
	}
	return tip, nil
}

// releaseUpdates lists what has to be pushed so that the remote is as done says.
// A tag that somebody made at the same commit is adopted. A branch that was moved
// by hand stays as it is where it contains the build.
func (p *performer) releaseUpdates(ctx context.Context, repo *gitrepo.Repo, tag, branch string, done released) ([]gitrepo.RefUpdate, released, error) {
	refs, err := repo.Fetch(ctx)
	if err != nil {
		return nil, done, fmt.Errorf("%w: %w", errAway, err)
	}
	var updates []gitrepo.RefUpdate
	object, there, err := p.tagOnRemote(ctx, tag, done.Object)
	switch {
	case err != nil:
		return nil, done, err
	case there:
		done.Object = object
	default:
		updates = append(updates, gitrepo.RefUpdate{Ref: tag, New: done.Object})
	}
	old := refs[branch]
	if trunk(p.project) || old == done.Tip {
		return updates, done, nil
	}
	move := gitrepo.RefUpdate{Ref: branch, New: done.Tip, Old: old}
	if old == "" {
		return append(updates, move), done, nil
	}
	if contains, err := repo.IsAncestor(ctx, p.build.Commit, old); err != nil || contains {
		return updates, done, err
	}
	forward, err := repo.IsAncestor(ctx, old, done.Tip)
	if err != nil {
		return nil, done, err
	}
	if !forward {
		return nil, done, &outcome{incident: true, words: fmt.Sprintf("build %d is deployed, but %s was moved by hand to %s meanwhile and neither contains the other: the tag waits until a person has looked", p.build.Number, p.project.Branches.Production, delivery.ShortHash(old))}
	}
	return append(updates, move), done, nil
}

// debt is the back-merge that the release owes; nil: the integration branch has it.
func (p *performer) debt(ctx context.Context, repo *gitrepo.Repo, owner string) (*delivery.BackMerge, error) {
	refs, err := p.Store.Refs(ctx, p.build.Project)
	if err != nil {
		return nil, err
	}
	into := refs["refs/heads/"+p.project.Branches.Integration]
	if into == "" {
		return nil, nil //nolint:nilnil // no branch, no debt
	}
	f, err := forecast(ctx, repo, into, p.build.Commit)
	if err != nil || !flow.BackMergeOwed(f.Contained, trunk(p.project)) {
		return nil, err
	}
	return &delivery.BackMerge{Project: p.build.Project, Commit: p.build.Commit, Number: p.build.Number, Owner: owner, Conflicts: f.Conflicts}, nil
}

// forecast is a Forecast where branches that have no commit in common conflict.
func forecast(ctx context.Context, repo *gitrepo.Repo, into, commit string) (delivery.Forecast, error) {
	f, err := repo.Forecast(ctx, into, commit)
	if delivery.IsKind(err, delivery.KindConflict) {
		f, err = delivery.Forecast{Into: into, Commit: commit, Conflicts: []string{"(no commit in common)"}}, nil
	}
	return f, err
}

// incident stops everything of a project until a person has looked.
func (e *Engine) incident(ctx context.Context, tx *store.Tx, project, words string) error {
	p, err := tx.Project(ctx, project)
	if err != nil || p.Incident != "" {
		return err
	}
	if err := tx.SetIncident(ctx, project, words); err != nil {
		return err
	}
	tx.Event(project, 0, "project")
	if err := tx.Audit(ctx, project, 0, "shunt", "incident", words); err != nil {
		return err
	}
	return e.postProject(ctx, tx, p, "incident", mailData{Reason: words, Project: p})
}

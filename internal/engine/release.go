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
	look := func(ctx context.Context) (string, bool, error) {
		object, there, err := p.tagOnRemote(ctx, tag, object)
		if err != nil || !there || trunk(p.project) {
			return text(released{Object: object}), there, err
		}
		refs, err := repo.Fetch(ctx)
		if err != nil {
			return "", false, err
		}
		tip := refs[branch]
		if tip == "" {
			return "", false, nil
		}
		contained, err := repo.IsAncestor(ctx, b.Commit, tip)
		return text(released{Object: object, Tip: tip}), contained, err
	}
	answer, err := p.perform(ctx, effect{
		key: p.effectKey(), kind: "release", params: text(map[string]string{"tag": name, "object": object, "commit": b.Commit}),
		call: func(ctx context.Context) (string, error) {
			updates, tip, err := p.releaseUpdates(ctx, repo, tag, object, branch)
			if err != nil || len(updates) == 0 {
				return text(released{Object: object, Tip: tip}), err
			}
			err = pushOutcome(repo.Push(ctx, updates), func() (string, error) {
				_, _, err := p.tagOnRemote(ctx, tag, object)
				return "", err
			})
			return text(released{Object: object, Tip: tip}), err
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

// releaseUpdates decides how the production branch gets to the build's commit: it
// fast-forwards; where it cannot, by a merge commit whose tree is the build's
// tree; where it contains it already, not at all.
func (p *performer) releaseUpdates(ctx context.Context, repo *gitrepo.Repo, tag, object, branch string) (updates []gitrepo.RefUpdate, tip string, err error) {
	refs, err := repo.Fetch(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("%w: %w", errAway, err)
	}
	if refs[tag] != object {
		updates = append(updates, gitrepo.RefUpdate{Ref: tag, New: object})
	}
	old := refs[branch]
	if trunk(p.project) { // the branch is the developers'; a hotfix comes back to it as a back-merge
		return updates, "", nil
	}
	if old == "" {
		return append(updates, gitrepo.RefUpdate{Ref: branch, New: p.build.Commit}), p.build.Commit, nil
	}
	contains, err := repo.IsAncestor(ctx, p.build.Commit, old)
	if err != nil || contains {
		return updates, old, err
	}
	forward, err := repo.IsAncestor(ctx, old, p.build.Commit)
	if err != nil {
		return nil, "", err
	}
	project, err := p.Store.Project(ctx, p.build.Project)
	if err != nil {
		return nil, "", err
	}
	if !forward && old != project.BranchTip {
		return nil, "", &outcome{incident: true, words: fmt.Sprintf("build %d is deployed, but %s was moved by hand to %s meanwhile and neither contains the other: the tag waits until a person has looked", p.build.Number, project.Branches.Production, delivery.ShortHash(old))}
	}
	tip = p.build.Commit
	if !forward {
		msg := p.message(p.build, fmt.Sprintf("Merge build %d into %s", p.build.Number, project.Branches.Production), nil)
		if tip, err = repo.MergeCommit(ctx, p.build.Tree, []string{old, p.build.Commit}, msg); err != nil {
			return nil, "", fmt.Errorf("make merge commit: %w", err)
		}
	}
	return append(updates, gitrepo.RefUpdate{Ref: branch, New: tip, Old: old}), tip, nil
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
	f, err := repo.Forecast(ctx, into, p.build.Commit)
	if err != nil || !flow.BackMergeOwed(f.Contained, trunk(p.project)) {
		return nil, err
	}
	return &delivery.BackMerge{Project: p.build.Project, Commit: p.build.Commit, Number: p.build.Number, Owner: owner, Conflicts: f.Conflicts}, nil
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

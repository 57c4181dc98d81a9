package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// Rebuild adds a project with all that its remote's annotated tags tell: builds,
// digests of artifacts, decisions and deployments. Numbering goes on above the
// highest tag. also runs in the same transaction.
func (e *Engine) Rebuild(ctx context.Context, in NewProject, also func(ctx context.Context, tx *store.Tx, plan *Plan) error) (*Plan, error) {
	what := "cannot rebuild project " + in.Name
	if _, err := e.Store.Project(ctx, in.Name); err == nil {
		return nil, delivery.Errf(delivery.KindConflict, what, "the database has a project of that name")
	}
	p := delivery.Project{Name: in.Name, URL: in.URL, Local: in.Local, WebhookSecret: in.WebhookSecret, NextBuild: max(in.NextBuild, 1)}
	repo := e.repo(p)
	refs, err := repo.Fetch(ctx)
	if err != nil {
		return nil, err
	}
	pl, file, err := e.firstPipeline(ctx, repo, refs)
	if err != nil {
		return nil, err
	}
	p.Branches, p.Tags, p.BranchTip = pl.Branches, pl.Tags, refs["refs/heads/"+pl.Branches.Production]
	plan, err := e.plan(ctx, p, refs, nil)
	if err != nil {
		return nil, err
	}
	if len(plan.fresh) == 0 {
		why := "the remote has no annotated tag that Shunt made for it"
		if len(plan.pasts.strange) > 0 {
			why += "; " + plan.pasts.strange[0]
		}
		return nil, &delivery.Error{Kind: delivery.KindRefused, What: what, Why: why, Next: "A repository that Shunt has never delivered is taken over:  shunt project add " + in.URL}
	}
	return plan, e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.InsertProject(ctx, p); err != nil {
			return err
		}
		if file != nil {
			if err := tx.SetPolicy(ctx, p.Name, pl.Branches, pl.Tags, policyText(pl)); err != nil {
				return err
			}
		}
		words := fmt.Sprintf("from %s: %d builds, %d releases", in.URL, len(plan.fresh), len(plan.releases()))
		return errors.Join(e.adopt(ctx, tx, plan), tx.Audit(ctx, p.Name, 0, in.By, "project rebuilt", words), also(ctx, tx, plan))
	})
}

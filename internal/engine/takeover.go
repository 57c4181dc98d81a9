package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// NewProject is a repository to take over.
type NewProject struct {
	Name, URL     string
	Local         bool
	InProduction  string // tag, branch or commit that production runs now; "": nothing is in production
	NextBuild     int64  // 0: 1, or 2 when something is in production
	WebhookSecret string
	By            string
}

// AddProject takes a repository over. What runs now is recorded as a build of its
// own and tagged; numbering goes on from the old server's. Refs that are there
// already start nothing, but for the integration branch when production does not
// run it.
func (e *Engine) AddProject(ctx context.Context, in NewProject) error {
	what := "cannot add project " + in.Name
	if _, err := e.Store.Project(ctx, in.Name); err == nil {
		return delivery.Errf(delivery.KindConflict, what, "there is one of that name")
	}
	p := delivery.Project{Name: in.Name, URL: in.URL, Local: in.Local, WebhookSecret: in.WebhookSecret, NextBuild: in.NextBuild}
	repo := e.repo(p)
	refs, err := repo.Fetch(ctx)
	if err != nil {
		return err
	}
	pl, file, err := e.firstPipeline(ctx, repo, refs)
	if err != nil {
		return err
	}
	p.Branches, p.Tags = pl.Branches, pl.Tags
	var taken *delivery.Build
	if in.InProduction != "" {
		if taken, err = e.takeover(ctx, repo, refs, in, pl, file); err != nil {
			return err
		}
		if p.NextBuild == 0 {
			p.NextBuild = 2
		}
		if taken.Number = p.NextBuild - 1; taken.Number < 1 {
			return delivery.Errf(delivery.KindInvalid, what, "--next-build must be 2 or more, so that what runs now has a number below it")
		}
		p.ProductionBuild, p.ProductionCommit, p.RunningBuild, p.RunningCommit = taken.Number, taken.Commit, taken.Number, taken.Commit
	}
	p.NextBuild = max(p.NextBuild, 1)
	p.BranchTip = refs["refs/heads/"+p.Branches.Production]
	integration := "refs/heads/" + p.Branches.Integration
	return e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.InsertProject(ctx, p); err != nil {
			return err
		}
		if file != nil {
			if err := tx.SetPolicy(ctx, p.Name, pl.Branches, pl.Tags, policyText(pl)); err != nil {
				return err
			}
		}
		for ref, object := range refs {
			build := ref == integration && file != nil && (taken == nil || taken.Commit != object)
			if strings.HasPrefix(ref, "refs/heads/") && !build {
				if err := tx.SetRef(ctx, p.Name, ref, object); err != nil {
					return err
				}
			}
		}
		if err := tx.Audit(ctx, p.Name, 0, in.By, "project added", in.URL); err != nil {
			return err
		}
		tx.Event(p.Name, 0, "project")
		if taken == nil {
			return nil
		}
		taken.Project = p.Name
		return e.insertTakeover(ctx, tx, *taken, pl, in.By)
	})
}

// firstPipeline reads the pipeline file of the branch that is most likely the
// integration branch. A repository without one yet gets git-flow's names until
// the first file says otherwise.
func (e *Engine) firstPipeline(ctx context.Context, repo *gitrepo.Repo, refs map[string]string) (*pipeline.Pipeline, []byte, error) {
	for _, name := range []string{"develop", "main", "master", "trunk"} {
		tip := refs["refs/heads/"+name]
		if tip == "" {
			continue
		}
		pl, file, err := e.readPipeline(ctx, repo, tip)
		if err == nil {
			if tip := refs["refs/heads/"+pl.Branches.Integration]; tip != "" && pl.Branches.Integration != name {
				if of, text, err := e.readPipeline(ctx, repo, tip); err == nil {
					pl, file = of, text
				}
			}
			return pl, file, nil
		}
		if delivery.KindOf(err) == delivery.KindInternal {
			return nil, nil, err
		}
	}
	return &pipeline.Pipeline{Tags: delivery.Tags{Build: "build/$N", Production: "production/$N"}, Branches: delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"}}, nil, nil
}

// takeover finds what runs in production now.
func (e *Engine) takeover(ctx context.Context, repo *gitrepo.Repo, refs map[string]string, in NewProject, pl *pipeline.Pipeline, file []byte) (*delivery.Build, error) {
	var at string
	for _, ref := range []string{in.InProduction, "refs/tags/" + in.InProduction, "refs/heads/" + in.InProduction} {
		if object, ok := refs[ref]; ok {
			at = object
			break
		}
	}
	if at == "" {
		at = in.InProduction
	}
	id, err := repo.Resolve(ctx, at)
	if err != nil {
		return nil, &delivery.Error{Kind: delivery.KindInvalid, What: "cannot add project " + in.Name, Why: "the repository has no tag, branch or commit " + in.InProduction, Next: "Name a tag or branch as git shows it, or a full commit id.", Err: err}
	}
	c, err := repo.Commit(ctx, id)
	if err != nil {
		return nil, err
	}
	b := &delivery.Build{
		Lane: delivery.LaneMain, Ref: "refs/heads/" + pl.Branches.Production, Commit: c.ID, Tree: c.Tree, Subject: c.Subject, AuthorName: c.AuthorName, AuthorEmail: c.AuthorEmail,
		Pipeline: file, Status: delivery.BuildRunning,
	}
	if own, text, err := e.readPipeline(ctx, repo, c.ID); err == nil {
		b.Pipeline, b.PolicyDigest = text, own.Digest()
	}
	return b, nil
}

// insertTakeover records what ran before Shunt came: a build, a deployment, and
// the production tag that is pushed for it.
func (e *Engine) insertTakeover(ctx context.Context, tx *store.Tx, b delivery.Build, pl *pipeline.Pipeline, by string) error {
	node := delivery.Node{Name: "tag/takeover", Kind: delivery.NodeTag, Target: "takeover", State: delivery.NodePending}
	id, err := tx.InsertBuild(ctx, b, []delivery.Node{node})
	if err != nil {
		return err
	}
	environment := "production"
	if env := pl.Production(); env != nil {
		environment = env.Name
	}
	d := delivery.Deployment{ID: attemptID(b, "takeover", 1), Project: b.Project, Environment: environment, BuildID: id, Number: b.Number, Commit: b.Commit, Lane: b.Lane, By: by, Reason: "it ran when Shunt took over"}
	if err := errors.Join(tx.InsertTakeover(ctx, d), tx.Audit(ctx, b.Project, b.Number, by, "takeover", b.Commit)); err != nil {
		return err
	}
	return e.wake(ctx, tx, id, b.Lane, 0)
}

// takeoverTag pushes production/N for what ran when Shunt came. It moves no branch.
func (p *performer) takeoverTag(ctx context.Context) result {
	name := delivery.ExpandTag(p.project.Tags.Production, p.build.Number)
	msg := p.message(p.build, fmt.Sprintf("Build %d of %s in production", p.build.Number, p.build.Project), nil, [2]string{"Shunt-Takeover", "it ran when Shunt took over"})
	object, err := p.pushTag(ctx, name, msg)
	if err != nil {
		return p.ended(ctx, err)
	}
	return succeeded().with(func(ctx context.Context, tx *store.Tx) error {
		tx.AfterCommit(func() { p.SyncLater(p.build.Project) })
		return tx.SetRef(ctx, p.build.Project, "refs/tags/"+name, object)
	})
}

// SyncLater reads a remote's refs in the background.
func (e *Engine) SyncLater(project string) {
	e.afresh("sync/"+project, func(ctx context.Context) {
		_, err := e.Sync(ctx, project)
		e.complain(ctx, "look at the remote of "+project, err)
	})
}

// pipelineOf is the pipeline of a build. A build that was taken over may have
// none: then it is the project's names alone.
func (e *Engine) pipelineOf(ctx context.Context, q reader, b delivery.Build) (*pipeline.Pipeline, error) {
	if len(b.Pipeline) == 0 {
		p, err := q.Project(ctx, b.Project)
		return &pipeline.Pipeline{Branches: p.Branches, Tags: p.Tags}, err
	}
	pl, err := pipeline.Parse(pipeline.FileName, b.Pipeline)
	if err != nil {
		return nil, fmt.Errorf("the stored pipeline of build %d no longer parses: %w", b.Number, err)
	}
	return pl, nil
}

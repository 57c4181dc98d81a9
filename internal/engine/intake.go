package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// Sync reads the remote's refs and acts on what changed since they were last
// acted on. Webhooks, hooks and polling all end here, so that lost, doubled and
// reordered events make the same builds. It returns what became of each change.
func (e *Engine) Sync(ctx context.Context, project string) (pushes []store.Push, err error) {
	defer e.lock("project/" + project)()
	if e.paused() {
		return nil, nil // refs are read again afterwards: nothing is lost
	}
	p, err := e.Store.Project(ctx, project)
	if err != nil {
		return nil, err
	}
	known, err := e.Store.Refs(ctx, project) // before the remote is read: a tag that is pushed meanwhile is not missed
	if err != nil {
		return nil, err
	}
	if err := failpoint.Hit("sync", failpoint.BeforeCall); err != nil {
		return nil, err
	}
	refs, err := e.repo(p).Fetch(ctx)
	if err != nil {
		save := context.WithoutCancel(ctx)
		words := "the remote cannot be read"
		if d, ok := errors.AsType[*delivery.Error](err); ok {
			words = d.Why
		}
		return nil, errors.Join(err, e.Store.Write(save, func(ctx context.Context, tx *store.Tx) error { return tx.SetFetchState(ctx, project, words) }))
	}
	if e.see(project, refs) {
		e.refreshLater(project)
	}
	changed := changedRefs(known, refs)
	// Also when nothing changed: whoever acted on the last change may have died
	// before the debts were looked at. It costs no git while nothing is owed.
	defer func() {
		if err == nil {
			err = e.forecast(ctx, p, refs)
		}
	}()
	state, err := e.Store.FetchState(ctx, project)
	if err != nil {
		return nil, err
	}
	if len(changed) == 0 && state.Error == "" && e.Store.Now().Sub(state.At) < fetchNote {
		return nil, nil
	}
	if err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.SetFetchState(ctx, project, "") }); err != nil {
		return nil, err
	}
	if p, err = e.learn(ctx, p, refs); err != nil {
		return nil, err
	}
	if err := failpoint.Hit("sync", failpoint.BeforeRecord); err != nil {
		return nil, err
	}
	for _, ref := range changed {
		push, err := e.refChanged(ctx, p, ref, known[ref], refs[ref], refs)
		if errors.Is(err, store.ErrOvertaken) {
			continue // another server looked at the same time
		}
		if err != nil {
			return pushes, fmt.Errorf("act on %s: %w", ref, err)
		}
		if push.Ref != "" {
			pushes = append(pushes, push)
		}
	}
	if len(changed) > 0 {
		e.refreshLater(project)
	}
	return pushes, failpoint.Hit("sync", failpoint.AfterRecord)
}

// see remembers the remote's tags and tells whether they are others than before:
// one that is not ours may be in the way of ours.
func (e *Engine) see(project string, refs map[string]string) (changed bool) {
	tags := map[string]string{}
	for ref, object := range refs {
		if strings.HasPrefix(ref, "refs/tags/") {
			tags[ref] = object
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	changed = !maps.Equal(e.seen[project], tags)
	e.seen[project] = tags
	return changed
}

// inTheWay finds a tag on the remote that keeps ours from being made.
func (e *Engine) inTheWay(project, ref string) (blocking, at string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return gitrepo.BlockedBy(e.seen[project], ref), e.seen[project][ref]
}

// learn reads the names of a project's branches from the first pipeline file that
// appears in it; later ones come with the builds of the integration branch.
func (e *Engine) learn(ctx context.Context, p delivery.Project, refs map[string]string) (delivery.Project, error) {
	policy, err := e.Store.ProjectPipeline(ctx, p.Name)
	if err != nil || policy != "" {
		return p, err
	}
	pl, file, err := e.firstPipeline(ctx, e.repo(p), refs)
	if err != nil || file == nil {
		return p, err
	}
	p.Branches, p.Tags = pl.Branches, pl.Tags
	tip := refs["refs/heads/"+p.Branches.Production]
	return p, e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		return errors.Join(tx.SetPolicy(ctx, p.Name, pl.Branches, pl.Tags, policyText(pl)), tx.SetBranchTip(ctx, p.Name, tip))
	})
}

// changedRefs lists the refs that differ, the production branch and tags first:
// what is wrong there must be known before anything is built.
func changedRefs(known, now map[string]string) (changed []string) {
	for ref, object := range now {
		if known[ref] != object && (strings.HasPrefix(ref, "refs/heads/") || known[ref] != "") {
			changed = append(changed, ref)
		}
	}
	for ref := range known {
		if _, there := now[ref]; !there {
			changed = append(changed, ref)
		}
	}
	slices.SortFunc(changed, func(a, b string) int {
		return strings.Compare(strings.TrimPrefix(b, "refs/"), strings.TrimPrefix(a, "refs/")) // tags before heads
	})
	return changed
}

// refChanged acts on one ref. An empty Push says that it starts nothing.
func (e *Engine) refChanged(ctx context.Context, p delivery.Project, ref, was, is string, refs map[string]string) (store.Push, error) {
	branch, isBranch := strings.CutPrefix(ref, "refs/heads/")
	lane, starts := p.Branches.LaneOf(ref)
	switch {
	case !isBranch:
		return store.Push{}, e.tagMoved(ctx, p, ref, was, is)
	case branch == p.Branches.Production && !trunk(p):
		return store.Push{}, e.productionMoved(ctx, p, ref, was, is)
	case is == "", !starts:
		return store.Push{}, e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.MoveRef(ctx, p.Name, ref, was, is) })
	}
	if strings.ContainsRune(branch, '\ufffd') {
		return e.refusePush(ctx, p, ref, was, is, &flow.Refusal{What: "cannot build " + branch, Why: "its name is not UTF-8, so that it could be neither shown nor named in a decision", Next: "Push the commit under another name."})
	}
	if lane == delivery.LaneHotfix {
		facts, err := e.hotfixFacts(ctx, p, ref, is, refs)
		if err != nil {
			return store.Push{}, err
		}
		if refusal := flow.HotfixPush(facts); refusal != nil {
			return e.refusePush(ctx, p, ref, was, is, refusal)
		}
	}
	return e.createBuild(ctx, p, lane, ref, was, is)
}

func (e *Engine) refusePush(ctx context.Context, p delivery.Project, ref, was, commit string, refusal *flow.Refusal) (store.Push, error) {
	push := store.Push{Project: p.Name, Ref: ref, Commit: commit, Refused: refusal.Err().Error()}
	c, err := e.repo(p).Commit(ctx, commit)
	if err != nil {
		return push, err
	}
	return push, e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := errors.Join(tx.MoveRef(ctx, p.Name, ref, was, commit), tx.InsertPush(ctx, push), tx.Audit(ctx, p.Name, 0, "shunt", "push refused", ref+" "+commit+": "+push.Refused)); err != nil {
			return err
		}
		tx.Event(p.Name, 0, "project")
		return e.postProject(ctx, tx, p, "refused", mailData{Project: p, Reason: push.Refused, Refusal: refusal, Commit: c, Branch: strings.TrimPrefix(ref, "refs/heads/"), To: mailAddress(c.AuthorEmail)})
	})
}

// createBuild makes the numbered build of a push, with its graph, in the
// transaction that remembers the ref: a push is acted on once.
func (e *Engine) createBuild(ctx context.Context, p delivery.Project, lane delivery.Lane, ref, was, commit string) (store.Push, error) {
	repo := e.repo(p)
	push := store.Push{Project: p.Name, Ref: ref, Commit: commit}
	c, err := repo.Commit(ctx, commit)
	if err != nil {
		return push, err
	}
	b := delivery.Build{
		Project: p.Name, Lane: lane, Ref: ref, Commit: c.ID, Tree: c.Tree, Subject: c.Subject, AuthorName: c.AuthorName, AuthorEmail: c.AuthorEmail,
		Production: p.ProductionCommit, Status: delivery.BuildQueued,
	}
	if len(c.Parents) > 0 {
		b.Parent = c.Parents[0]
	}
	var nodes []delivery.Node
	pl, text, err := e.readPipeline(ctx, repo, commit)
	if err != nil {
		if delivery.KindOf(err) == delivery.KindInternal {
			return push, err
		}
		b.Status, b.Reason, b.FinishedAt = delivery.BuildFailed, err.Error(), e.Store.Now()
	} else {
		b.Pipeline, b.PolicyDigest, nodes = text, pl.Digest(), pl.Graph(lane)
	}
	return push, e.rows(ctx, "create_build", func(ctx context.Context, tx *store.Tx) error {
		if err := tx.MoveRef(ctx, p.Name, ref, was, commit); err != nil {
			return err
		}
		if b.Number, err = tx.TakeNumber(ctx, p.Name); err != nil {
			return err
		}
		if b.ID, err = tx.InsertBuild(ctx, b, nodes); err != nil {
			return err
		}
		push.Number = b.Number
		superseded, err := tx.Supersede(ctx, p.Name, ref, b.Number, fmt.Sprintf("build %d of the same branch came while it was queued", b.Number))
		if err != nil {
			return err
		}
		for _, n := range superseded {
			if err := tx.Audit(ctx, p.Name, n, "shunt", "build superseded", fmt.Sprintf("by build %d", b.Number)); err != nil {
				return err
			}
			tx.Event(p.Name, n, "build")
		}
		if err := errors.Join(tx.InsertPush(ctx, push), tx.Audit(ctx, p.Name, b.Number, "shunt", "build created", ref+" "+commit)); err != nil {
			return err
		}
		tx.Event(p.Name, b.Number, "build")
		if pl != nil && lane == delivery.LaneMain {
			if err := tx.SetPolicy(ctx, p.Name, pl.Branches, pl.Tags, policyText(pl)); err != nil {
				return err
			}
		}
		if b.Status != delivery.BuildQueued {
			return e.postProject(ctx, tx, p, "failed", mailData{Project: p, Build: b, Reason: b.Reason, To: mailAddress(b.AuthorEmail)})
		}
		return e.wake(ctx, tx, b.ID, lane, 0)
	})
}

func (e *Engine) readPipeline(ctx context.Context, repo *gitrepo.Repo, commit string) (*pipeline.Pipeline, []byte, error) {
	text, err := repo.ReadFile(ctx, commit, pipeline.FileName, pipeline.MaxBytes)
	if err != nil {
		return nil, nil, err
	}
	pl, err := pipeline.Parse(pipeline.FileName, text)
	if err != nil {
		return nil, nil, &delivery.Error{Kind: delivery.KindInvalid, What: "the pipeline file has errors", Why: err.Error(), Next: "Try it locally:  shunt lint", Err: err}
	}
	return pl, text, nil
}

// tagMoved raises an incident when a tag that Shunt made was moved or deleted.
func (e *Engine) tagMoved(ctx context.Context, p delivery.Project, ref, was, is string) error {
	words := fmt.Sprintf("the tag %s was deleted on the remote; it was %s", strings.TrimPrefix(ref, "refs/tags/"), delivery.ShortHash(was))
	if is != "" {
		words = fmt.Sprintf("the tag %s was moved on the remote from %s to %s; Shunt goes by what it recorded", strings.TrimPrefix(ref, "refs/tags/"), delivery.ShortHash(was), delivery.ShortHash(is))
	}
	return e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return e.incident(ctx, tx, p.Name, words) })
}

// productionMoved raises an incident when somebody pushed to the production
// branch by hand: nothing ships until a person has looked.
func (e *Engine) productionMoved(ctx context.Context, p delivery.Project, ref, was, is string) error {
	busy, err := e.Store.ReleaseUnderWay(ctx, p.Name)
	if err != nil || busy {
		return err // its own push may not be written down yet; the next look sees it
	}
	return e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		now, err := tx.Project(ctx, p.Name)
		if err != nil {
			return err
		}
		if err := tx.MoveRef(ctx, p.Name, ref, was, is); err != nil || now.BranchTip == is {
			return err
		}
		if now.BranchTip == "" && now.ProductionCommit == "" {
			return tx.SetBranchTip(ctx, p.Name, is) // nothing was released yet: it is how it is
		}
		return e.incident(ctx, tx, p.Name, fmt.Sprintf("somebody moved %s by hand from %s to %s", p.Branches.Production, delivery.ShortHash(now.BranchTip), delivery.ShortHash(is)))
	})
}

// forecast says again how each open debt would merge, and closes what is paid,
// whoever merged it.
func (e *Engine) forecast(ctx context.Context, p delivery.Project, refs map[string]string) error {
	into := refs["refs/heads/"+p.Branches.Integration]
	debts, err := e.Store.BackMerges(ctx, p.Name, true)
	if err != nil || into == "" {
		return err
	}
	for _, d := range debts {
		f, err := forecast(ctx, e.repo(p), into, d.Commit)
		if err != nil {
			return err
		}
		if !f.Contained {
			err = e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
				return tx.SetForecast(ctx, p.Name, d.Commit, f.Conflicts)
			})
			if err != nil {
				return err
			}
			continue
		}
		err = e.rows(ctx, "back_merge", func(ctx context.Context, tx *store.Tx) error {
			if err := tx.CloseBackMerge(ctx, p.Name, d.Commit, into); err != nil {
				return err
			}
			tx.Event(p.Name, 0, "project")
			return tx.Audit(ctx, p.Name, d.Number, "shunt", "back-merge paid", "by "+into)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

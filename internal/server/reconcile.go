package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/engine"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/web"
)

// A restored server is in reconcile mode: it shows what it knows, but drives
// nothing, sends no mail, makes no build of a push and takes no decision, until a
// person has confirmed what the comparison with git and the artifacts found.

// loadReconcile finds whether the server has to wait.
func (s *Server) loadReconcile(ctx context.Context) error {
	text, err := s.store.Meta(ctx, reconcileMeta)
	if err != nil {
		return err
	}
	s.waits.Store(text != "")
	if text != "" {
		s.cfg.Log.Warn("the database was restored: nothing is started until a person has compared it with git", "next", "shunt reconcile")
	}
	return nil
}

// watchReconcile leaves the mode when another server of the same database was told to.
func (s *Server) watchReconcile(ctx context.Context) {
	if !s.waits.Load() {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	every(ctx, time.Second, func() {
		if text, err := s.store.Meta(ctx, reconcileMeta); err == nil && text == "" {
			s.waits.Store(false)
		}
		if !s.waits.Load() {
			cancel()
		}
	})
}

// Reconcile implements web.Reconciler.
func (s *Server) Reconcile(ctx context.Context) (api.Reconcile, error) {
	out, _, err := s.compare(ctx)
	return out, err
}

// compare looks at every remote, artifact and secret. Plans are nil when there is
// nothing to compare, or when a remote cannot be read: then nothing is adopted.
func (s *Server) compare(ctx context.Context) (out api.Reconcile, plans []*engine.Plan, err error) {
	out.Differences = []api.Difference{}
	text, err := s.store.Meta(ctx, reconcileMeta)
	if err != nil || text == "" {
		return out, nil, err
	}
	var state reconcileState
	if err := json.Unmarshal([]byte(text), &state); err != nil {
		return out, nil, fmt.Errorf("read the mode: %w", err)
	}
	out.Active, out.Since, out.Why = true, state.Since, state.Why
	projects, err := s.store.Projects(ctx)
	if err != nil {
		return out, nil, err
	}
	say := func(project, kind, words string) {
		out.Differences = append(out.Differences, api.Difference{Project: project, Kind: kind, Words: words})
	}
	unread := false
	for _, p := range projects {
		plan, err := s.engine.Plan(ctx, p.Name)
		if err != nil {
			e, ok := errors.AsType[*delivery.Error](err)
			if !ok {
				return out, nil, err
			}
			unread = true
			say(p.Name, "remote", strings.TrimSpace(e.What+": "+e.Why))
			continue
		}
		plans = append(plans, plan)
		for _, w := range plan.Words() {
			say(p.Name, "git", w)
		}
	}
	if err := s.compareFiles(ctx, projects, say); err != nil {
		return out, nil, err
	}
	if unread {
		plans = nil
	}
	return out, plans, nil
}

// compareFiles looks whether artifacts are there and secrets can be opened.
func (s *Server) compareFiles(ctx context.Context, projects []delivery.Project, say func(project, kind, words string)) error {
	wanted, err := s.store.ArtifactDigests(ctx)
	if err != nil {
		return err
	}
	for _, a := range wanted {
		if err := s.blobs.Verify(ctx, a.SHA256); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if delivery.IsKind(err, delivery.KindUnavailable) {
				return err
			}
			say(a.Project, "artifact", fmt.Sprintf("artifact %s of build %d (sha256 %s) is not in the store as it was made: it cannot be deployed again", a.Name, a.Number, a.SHA256))
		}
	}
	for _, p := range projects {
		names, err := s.store.SecretNames(ctx, p.Name)
		if err != nil {
			return err
		}
		for _, name := range names {
			sealed, err := s.store.Secret(ctx, p.Name, name)
			if err != nil {
				return err
			}
			if _, err := s.secrets.open(sealed); err != nil {
				say(p.Name, "secret", "secret "+name+" cannot be read: put secret.key back where it was kept apart, and start again")
			}
		}
	}
	return nil
}

// ConfirmReconcile implements web.Reconciler.
func (s *Server) ConfirmReconcile(ctx context.Context, who web.Actor, reason string) (api.Reconcile, error) {
	s.confirming.Lock()
	defer s.confirming.Unlock()
	const what = "cannot leave reconcile mode"
	if strings.TrimSpace(reason) == "" {
		return api.Reconcile{}, delivery.Errf(delivery.KindInvalid, what, "it needs a reason: -m \"why\"")
	}
	found, plans, err := s.compare(ctx)
	if err != nil {
		return found, err
	}
	if !found.Active {
		return found, delivery.Errf(delivery.KindConflict, what, "the server is not in it")
	}
	for _, d := range found.Differences {
		if d.Kind == "remote" {
			return found, &delivery.Error{Kind: delivery.KindUnavailable, What: what, Why: "project " + d.Project + " could not be compared: " + d.Words, Next: "Try again when its remote answers:  shunt reconcile"}
		}
	}
	if err := failpoint.Hit("confirm", failpoint.BeforeIntent); err != nil {
		return found, err
	}
	err = s.engine.Adopt(ctx, plans, who.User, reason, func(ctx context.Context, tx *store.Tx) error {
		words := fmt.Sprintf("%s; %s; %d differences", found.Why, reason, len(found.Differences))
		return errors.Join(tx.DeleteMeta(ctx, reconcileMeta), tx.Audit(ctx, "", 0, who.User, "reconcile confirmed", words), failpoint.Hit("confirm", failpoint.BeforeCall))
	})
	if err != nil {
		return found, err
	}
	if err := failpoint.Hit("confirm", failpoint.AfterRecord); err != nil {
		return found, err
	}
	s.waits.Store(false)
	for _, p := range plans {
		s.engine.SyncLater(p.Project.Name)
	}
	found.Active = false
	return found, failpoint.Hit("confirm", failpoint.BeforeAnswer)
}

// waiting is the server as people and forges see it: in reconcile mode it takes
// nothing that would be decided on what may not be true any more. Looking, and
// what changes only this installation (secrets, tokens), goes on.
type waiting struct{ *Server }

func (w waiting) refuse() error {
	if !w.waits.Load() {
		return nil
	}
	return &delivery.Error{
		Kind: delivery.KindUnavailable, What: "this server was restored and does nothing yet", Why: "its database may be older than what was built and deployed",
		Next: "Compare, then let it work:  shunt reconcile   shunt reconcile --confirm -m \"why\"",
	}
}

// AddProject implements web.Writer.
func (w waiting) AddProject(ctx context.Context, who web.Actor, in api.AddProject) (api.AddedProject, error) {
	if err := w.refuse(); err != nil {
		return api.AddedProject{}, err
	}
	return w.Server.AddProject(ctx, who, in)
}

// Sync implements web.Writer.
func (w waiting) Sync(ctx context.Context, project string) ([]api.Push, error) {
	if err := w.refuse(); err != nil {
		return nil, err
	}
	return w.Server.Sync(ctx, project)
}

// Hook implements web.Writer. Refs are read again when the mode ends: no push is lost.
func (w waiting) Hook(ctx context.Context, project string, header http.Header, body []byte, wait bool) ([]api.Push, error) {
	if err := w.refuse(); err != nil {
		return nil, err
	}
	return w.Server.Hook(ctx, project, header, body, wait)
}

// Decide implements web.Writer.
func (w waiting) Decide(ctx context.Context, who web.Actor, project string, number int64, in api.Decide) (api.Gate, error) {
	if err := w.refuse(); err != nil {
		return api.Gate{}, err
	}
	return w.Server.Decide(ctx, who, project, number, in)
}

// Cancel implements web.Writer.
func (w waiting) Cancel(ctx context.Context, who web.Actor, project string, number int64, reason string) (api.Build, error) {
	if err := w.refuse(); err != nil {
		return api.Build{}, err
	}
	return w.Server.Cancel(ctx, who, project, number, reason)
}

// Rerun implements web.Writer.
func (w waiting) Rerun(ctx context.Context, who web.Actor, project string, number int64) (api.Build, error) {
	if err := w.refuse(); err != nil {
		return api.Build{}, err
	}
	return w.Server.Rerun(ctx, who, project, number)
}

// Resolve implements web.Writer.
func (w waiting) Resolve(ctx context.Context, who web.Actor, project string, number int64, in api.Resolve) (api.Build, error) {
	if err := w.refuse(); err != nil {
		return api.Build{}, err
	}
	return w.Server.Resolve(ctx, who, project, number, in)
}

// Rollback implements web.Writer.
func (w waiting) Rollback(ctx context.Context, who web.Actor, project string, in api.Rollback) (api.Build, error) {
	if err := w.refuse(); err != nil {
		return api.Build{}, err
	}
	return w.Server.Rollback(ctx, who, project, in)
}

// Hold implements web.Writer.
func (w waiting) Hold(ctx context.Context, who web.Actor, project, reason string) (api.Project, error) {
	if err := w.refuse(); err != nil {
		return api.Project{}, err
	}
	return w.Server.Hold(ctx, who, project, reason)
}

// ReleaseHold implements web.Writer.
func (w waiting) ReleaseHold(ctx context.Context, who web.Actor, project, reason string) (api.Project, error) {
	if err := w.refuse(); err != nil {
		return api.Project{}, err
	}
	return w.Server.ReleaseHold(ctx, who, project, reason)
}

// PlanFreeze implements web.Writer.
func (w waiting) PlanFreeze(ctx context.Context, who web.Actor, project string, in api.PlanFreeze) (api.Freeze, error) {
	if err := w.refuse(); err != nil {
		return api.Freeze{}, err
	}
	return w.Server.PlanFreeze(ctx, who, project, in)
}

// EndFreeze implements web.Writer.
func (w waiting) EndFreeze(ctx context.Context, who web.Actor, project string, id int64, reason string) (api.Freeze, error) {
	if err := w.refuse(); err != nil {
		return api.Freeze{}, err
	}
	return w.Server.EndFreeze(ctx, who, project, id, reason)
}

// ClearIncident implements web.Writer.
func (w waiting) ClearIncident(ctx context.Context, who web.Actor, project, reason string) (api.Project, error) {
	if err := w.refuse(); err != nil {
		return api.Project{}, err
	}
	return w.Server.ClearIncident(ctx, who, project, reason)
}

// Keep implements web.Writer.
func (w waiting) Keep(ctx context.Context, who web.Actor, project, id string, in api.Keep) (api.Instance, error) {
	if err := w.refuse(); err != nil {
		return api.Instance{}, err
	}
	return w.Server.Keep(ctx, who, project, id, in)
}

// Destroy implements web.Writer.
func (w waiting) Destroy(ctx context.Context, who web.Actor, project, id string) (api.Instance, error) {
	if err := w.refuse(); err != nil {
		return api.Instance{}, err
	}
	return w.Server.Destroy(ctx, who, project, id)
}

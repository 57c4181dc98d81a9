package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// fetchNote is how often an unchanged remote is noted as looked at.
const fetchNote = 30 * time.Second

func parse(s string, v any) error {
	if err := json.Unmarshal([]byte(s), v); err != nil {
		return fmt.Errorf("stored JSON: %w", err)
	}
	return nil
}

func policyText(pl *pipeline.Pipeline) string { return text(pl) }

func cannot(kind delivery.Kind, verb string, b delivery.Build, why, next string) error {
	return &delivery.Error{Kind: kind, What: fmt.Sprintf("cannot %s build %d", verb, b.Number), Why: why, Next: next}
}

// Cancel stops a build that has not ended. A deployment that may have started is
// not cut in half.
func (e *Engine) Cancel(ctx context.Context, project string, number int64, by, reason string) error {
	return e.rows(ctx, "cancel", func(ctx context.Context, tx *store.Tx) error {
		b, err := tx.BuildByNumber(ctx, project, number)
		if err != nil {
			return err
		}
		if b.Status.Final() {
			return cannot(delivery.KindConflict, "cancel", b, "it has ended: "+string(b.Status), "")
		}
		nodes, err := tx.Nodes(ctx, b.ID)
		if err != nil {
			return err
		}
		if n, ok := stopped(nodes); ok {
			return cannot(delivery.KindConflict, "cancel", b, "its "+string(n.Kind)+" is "+string(n.State)+" and a person has to choose", fmt.Sprintf("shunt resolve %s %d give-up -m \"why\"", project, number))
		}
		for _, n := range nodes {
			started := n.State == delivery.NodeRunning && n.Kind == delivery.NodeRelease
			if n.State == delivery.NodeRunning && (n.Kind == delivery.NodeDeploy || n.Kind == delivery.NodeRollback) {
				d, err := deploymentOf(ctx, tx, b, n)
				if err != nil {
					return err
				}
				started = d != nil
			}
			if started {
				return cannot(delivery.KindConflict, "cancel", b, "its deployment has started and is not cut in half", fmt.Sprintf("Wait for it:  shunt watch %s %d", project, number))
			}
		}
		if err := tx.Audit(ctx, project, number, by, "cancel", reason); err != nil {
			return err
		}
		tx.Event(project, number, "build")
		if b.Status == delivery.BuildQueued {
			return tx.SetStatus(ctx, b, delivery.BuildCancelled, "cancelled by "+by+": "+reason)
		}
		if err := tx.AskCancel(ctx, b.ID, by); err != nil {
			return err
		}
		tx.Event(project, number, "asked")
		gates, err := tx.Gates(ctx, b.ID)
		if err != nil {
			return err
		}
		for _, g := range gates {
			if g.State == delivery.GateOpen {
				if err := tx.Decide(ctx, g, delivery.GateCancelled, by, "", reason, 0); err != nil {
					return err
				}
			}
		}
		return e.goOn(ctx, tx, b.ID)
	})
}

// Rerun runs what did not succeed again, on the same commit and in the same build.
func (e *Engine) Rerun(ctx context.Context, project string, number int64, by string) error {
	return e.rows(ctx, "rerun", func(ctx context.Context, tx *store.Tx) error {
		b, err := tx.BuildByNumber(ctx, project, number)
		if err != nil {
			return err
		}
		nodes, err := tx.Nodes(ctx, b.ID)
		if err != nil {
			return err
		}
		switch {
		case b.Status != delivery.BuildFailed && b.Status != delivery.BuildCancelled:
			return cannot(delivery.KindConflict, "re-run", b, "it is "+string(b.Status), "Only a failed or cancelled build is run again.")
		case len(nodes) == 0:
			return cannot(delivery.KindConflict, "re-run", b, "its pipeline file has errors, and they are part of the commit", "Mend the file and push.")
		}
		if err := tx.AskCancel(ctx, b.ID, ""); err != nil {
			return err
		}
		for _, n := range againNodes(nodes) {
			n.State, n.Reason, n.StartedAt, n.FinishedAt = delivery.NodePending, "", time.Time{}, time.Time{}
			if err := tx.SetNode(ctx, n); err != nil {
				return err
			}
		}
		if err := tx.Audit(ctx, project, number, by, "re-run", ""); err != nil {
			return err
		}
		b.CancelledBy = ""
		return e.goOn(ctx, tx, b.ID)
	})
}

// againNodes lists the nodes that a re-run does again: all that did not succeed,
// and the environments, destroyed meanwhile, that those need.
func againNodes(nodes []delivery.Node) (again []delivery.Node) {
	redo := map[string]bool{}
	for _, n := range nodes {
		if !n.State.Satisfied() && n.Kind != delivery.NodeDown {
			redo[n.Name] = true
		}
	}
	for _, n := range nodes {
		if n.Kind != delivery.NodeUp {
			continue
		}
		for _, user := range nodes {
			if redo[user.Name] && reaches(nodes, user.Name, n.Name) {
				redo[n.Name], redo["down/"+n.Target] = true, true
			}
		}
	}
	for _, n := range nodes {
		if redo[n.Name] {
			again = append(again, n)
		}
	}
	return again
}

// reaches tells whether from needs to, directly or through others.
func reaches(nodes []delivery.Node, from, to string) bool {
	seen, todo := map[string]bool{}, []string{from}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if name == to {
			return true
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		for _, n := range nodes {
			if n.Name == name {
				todo = append(todo, n.Needs...)
			}
		}
	}
	return false
}

// stopped finds what a stopped build asks about.
func stopped(nodes []delivery.Node) (delivery.Node, bool) {
	for _, n := range nodes {
		acts := n.Kind == delivery.NodeDeploy || n.Kind == delivery.NodeRelease || n.Kind == delivery.NodeRollback
		if acts && (n.State == delivery.NodeFailed || n.State == delivery.NodeUnknown) {
			return n, true
		}
	}
	return delivery.Node{}, false
}

// Resolve answers what a stopped build asks: retry, give up, or, where nobody
// knew, whether the deployment is live.
func (e *Engine) Resolve(ctx context.Context, project string, number int64, action, by, reason string) error {
	return e.rows(ctx, "resolve", func(ctx context.Context, tx *store.Tx) error {
		b, err := tx.BuildByNumber(ctx, project, number)
		if err != nil {
			return err
		}
		nodes, err := tx.Nodes(ctx, b.ID)
		if err != nil {
			return err
		}
		n, ok := stopped(nodes)
		if b.Status != delivery.BuildStopped || !ok {
			return cannot(delivery.KindConflict, action, b, "it asks nothing: it is "+string(b.Status), "")
		}
		d, err := deploymentOf(ctx, tx, b, n)
		if err != nil {
			return err
		}
		unknown := d != nil && d.State == delivery.DeploymentUnknown
		if err := tx.Audit(ctx, project, number, by, action, reason); err != nil {
			return err
		}
		words := by + ": " + reason
		switch action {
		case "retry":
			if unknown {
				return cannot(delivery.KindConflict, action, b, "nobody knows yet whether its deployment is live", fmt.Sprintf("Look, then say:  shunt resolve %s %d confirm-live | confirm-not-live -m \"what you saw\"", project, number))
			}
			n.State, n.Reason = delivery.NodePending, ""
		case "give-up":
			if unknown {
				if err := e.saveDeployment(ctx, tx, *d, delivery.DeploymentGivenUp, "unknown", words); err != nil {
					return err
				}
			}
			return e.giveUp(ctx, tx, b, nodes, n, "given up by "+words)
		case "confirm-live", "confirm-not-live":
			if !unknown {
				return cannot(delivery.KindConflict, action, b, "how its deployment ended is known: "+n.Reason, "")
			}
			state := delivery.DeploymentSucceeded
			n.State, n.Reason = delivery.NodePending, "" // performed again, it finds the deployment ended
			if action == "confirm-not-live" {
				state = delivery.DeploymentFailed
			}
			if err := e.saveDeployment(ctx, tx, *d, state, "by the word of "+words, words); err != nil {
				return err
			}
			// The same attempt: begin counts it up, and its deployment must be found.
			n.Attempt--
		default:
			return delivery.Errf(delivery.KindInvalid, "unknown action "+action, "known are retry, give-up, confirm-live and confirm-not-live")
		}
		if err := tx.SetNode(ctx, n); err != nil {
			return err
		}
		for _, behind := range nodes { // what was not reached because of it gets its chance
			if behind.State == delivery.NodeUnreached && reaches(nodes, behind.Name, n.Name) {
				behind.State, behind.FinishedAt = delivery.NodePending, time.Time{}
				if err := tx.SetNode(ctx, behind); err != nil {
					return err
				}
			}
		}
		return e.goOn(ctx, tx, b.ID)
	})
}

// giveUp closes what a stopped build asks about. What is left to do, such as
// destroying an environment, is done by a drive; otherwise the build ends here.
func (e *Engine) giveUp(ctx context.Context, tx *store.Tx, b delivery.Build, nodes []delivery.Node, n delivery.Node, words string) error {
	n.State, n.Reason, n.FinishedAt = delivery.NodeCancelled, words, tx.Now()
	if err := tx.SetNode(ctx, n); err != nil {
		return err
	}
	for i := range nodes {
		if nodes[i].Name == n.Name {
			nodes[i] = n
		}
	}
	status, _ := flow.Outcome(nodes)
	if !status.Final() {
		return e.goOn(ctx, tx, b.ID)
	}
	tx.Event(b.Project, b.Number, "build")
	return tx.SetStatus(ctx, b, givenUp(status), words)
}

// givenUp is the status of a build some node of which was cancelled, though
// nobody cancelled the build: a person gave that node up. A build that reached
// production before keeps that.
func givenUp(s delivery.BuildStatus) delivery.BuildStatus {
	if s == delivery.BuildCancelled {
		return delivery.BuildFailed
	}
	return s
}

func deploymentOf(ctx context.Context, tx *store.Tx, b delivery.Build, n delivery.Node) (*delivery.Deployment, error) {
	d, err := tx.Deployment(ctx, attemptID(b, n.Name, n.Attempt))
	if delivery.IsKind(err, delivery.KindNotFound) {
		return nil, nil //nolint:nilnil // a release has none, nor a deployment that has not started
	}
	return &d, err
}

// Hold stops promotions of the main lane; with "" it releases them.
func (e *Engine) Hold(ctx context.Context, project, by, why string, release bool) error {
	action, words := "hold", why+" ("+by+")"
	if release {
		action, words = "hold released", ""
	}
	return e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		tx.Event(project, 0, "project")
		return errors.Join(tx.SetHold(ctx, project, words), tx.Audit(ctx, project, 0, by, action, why))
	})
}

// ClearIncident says that a person has looked: the production branch and the
// tags are accepted as they are on the remote now.
func (e *Engine) ClearIncident(ctx context.Context, project, by, why string) error {
	defer e.lock("project/" + project)()
	p, err := e.Store.Project(ctx, project)
	if err != nil {
		return err
	}
	if p.Incident == "" {
		return delivery.Errf(delivery.KindConflict, "there is nothing to clear", "project "+project+" has no incident")
	}
	refs, err := e.repo(p).Fetch(ctx)
	if err != nil {
		return err
	}
	known, err := e.Store.Refs(ctx, project)
	if err != nil {
		return err
	}
	err = e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		for ref := range known {
			if strings.HasPrefix(ref, "refs/tags/") && refs[ref] != known[ref] {
				if err := tx.SetRef(ctx, project, ref, refs[ref]); err != nil {
					return err
				}
			}
		}
		branch := "refs/heads/" + p.Branches.Production
		tx.Event(project, 0, "project")
		return errors.Join(tx.SetBranchTip(ctx, project, refs[branch]), tx.SetRef(ctx, project, branch, refs[branch]), tx.SetIncident(ctx, project, ""), tx.Audit(ctx, project, 0, by, "incident cleared", p.Incident+": "+why))
	})
	if err == nil {
		e.refreshLater(project)
	}
	return err
}

// KeepInstance changes how long an ephemeral environment lives.
func (e *Engine) KeepInstance(ctx context.Context, project, id, by string, extend time.Duration, pin *bool) (delivery.Instance, error) {
	var i delivery.Instance
	err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		if i, err = tx.Instance(ctx, id); err != nil {
			return err
		}
		if i.Project != project {
			return delivery.Errf(delivery.KindNotFound, "there is no environment "+id, "not in project "+project)
		}
		if pin != nil {
			i.Pinned = *pin
		}
		if extend > 0 {
			i.ExpiresAt = tx.Now().Add(extend)
		}
		tx.Event(project, i.Number, "environment")
		return errors.Join(tx.Keep(ctx, id, i.ExpiresAt, i.Pinned), tx.Audit(ctx, project, i.Number, by, "environment kept", fmt.Sprintf("%s until %s, pinned %v", id, i.ExpiresAt.Format(time.RFC3339), i.Pinned)))
	})
	return i, err
}

// DestroyInstance ends an ephemeral environment now, by a person's word.
func (e *Engine) DestroyInstance(ctx context.Context, project, id, by string) (delivery.Instance, error) {
	var i delivery.Instance
	err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		if i, err = tx.Instance(ctx, id); err != nil {
			return err
		}
		if i.Project != project {
			return delivery.Errf(delivery.KindNotFound, "there is no environment "+id, "not in project "+project)
		}
		if i.State != delivery.InstanceUp && i.State != delivery.InstanceFailed {
			return delivery.Errf(delivery.KindConflict, "cannot destroy "+id, "it is "+string(i.State))
		}
		tx.Event(project, i.Number, "environment")
		return errors.Join(tx.Keep(ctx, id, tx.Now(), false), tx.Audit(ctx, project, i.Number, by, "environment destroy", id))
	})
	if err == nil {
		e.complain(ctx, "look after environments", e.lookAfterInstances(ctx, e.Store.Now()))
	}
	return i, err
}

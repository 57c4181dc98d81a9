package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// Rollback asks for an earlier production build to be deployed again. It answers
// that build. The main lane's promotions wait until a person releases the hold.
func (e *Engine) Rollback(ctx context.Context, project string, to int64, by, reason string) (delivery.Build, error) {
	var b delivery.Build
	p, err := e.Store.Project(ctx, project)
	if err != nil {
		return b, err
	}
	if strings.TrimSpace(reason) == "" {
		return b, delivery.Errf(delivery.KindInvalid, "cannot roll back", "a rollback needs a reason: -m \"why\"")
	}
	production, err := e.productionOf(ctx, p)
	if err != nil {
		return b, err
	}
	history, err := e.Store.Deployments(ctx, project, production, 1000)
	if err != nil {
		return b, err
	}
	facts := flow.RollbackFacts{Project: project, RunningNumber: p.RunningBuild, History: history, To: to, ArtifactsPresent: true}
	number, refusal := flow.RollbackTarget(facts)
	if refusal != nil {
		return b, refusal.Err()
	}
	if b, err = e.Store.BuildByNumber(ctx, project, number); err != nil {
		return b, err
	}
	artifacts, err := e.Store.Artifacts(ctx, b.ID)
	if err != nil {
		return b, err
	}
	pl, err := e.pipelineOf(ctx, e.Store, b)
	if err == nil && pl.Environment(production) == nil {
		return b, cannot(delivery.KindRefused, "roll back to", b, "it ran before Shunt came and has no pipeline file, so nobody knows how to deploy it", "")
	}
	facts.ArtifactsPresent = err == nil && (len(artifacts) > 0 || !slices.ContainsFunc(pl.Jobs, func(j pipeline.Job) bool { return len(j.Artifacts) > 0 }))
	for _, a := range artifacts {
		err := e.Blobs.Verify(ctx, a.SHA256)
		if delivery.IsKind(err, delivery.KindUnavailable) {
			return b, err // nobody knows whether they are there
		}
		facts.ArtifactsPresent = facts.ArtifactsPresent && err == nil
	}
	facts.To = number
	if _, refusal := flow.RollbackTarget(facts); refusal != nil {
		return b, refusal.Err()
	}
	return b, e.rows(ctx, "rollback", func(ctx context.Context, tx *store.Tx) error {
		return e.askRollback(ctx, tx, p, b.ID, production, by, reason)
	})
}

// productionOf names the production environment, as the build that runs there has it.
func (e *Engine) productionOf(ctx context.Context, p delivery.Project) (string, error) {
	if p.RunningBuild == 0 {
		return "production", nil
	}
	b, err := e.Store.BuildByNumber(ctx, p.Name, p.RunningBuild)
	if err != nil {
		return "", err
	}
	pl, err := e.pipelineOf(ctx, e.Store, b)
	if err != nil || pl.Production() == nil {
		return "production", err
	}
	return pl.Production().Name, nil
}

func (e *Engine) askRollback(ctx context.Context, tx *store.Tx, p delivery.Project, id int64, environment, by, reason string) error {
	if holder, held, err := tx.Lock(ctx, p.Name, environment); err != nil {
		return err
	} else if held && holder.State == delivery.DeploymentUnknown { // the rollback is the answer to what was unknown
		if err := e.giveUpUnknown(ctx, tx, holder, by, reason); err != nil {
			return err
		}
	}
	b, err := tx.Build(ctx, id)
	if err != nil {
		return err
	}
	nodes, err := tx.Nodes(ctx, b.ID)
	if err != nil {
		return err
	}
	k, last := 1, 0
	for _, n := range nodes {
		last = max(last, n.Position)
		if n.Kind == delivery.NodeRollback {
			k++
		}
		if n.Kind == delivery.NodeRollback && !n.State.Final() {
			return cannot(delivery.KindConflict, "roll back to", b, "a rollback to it is under way", fmt.Sprintf("shunt watch %s %d", p.Name, b.Number))
		}
	}
	n := delivery.Node{Name: "rollback/" + environment + "-" + strconv.Itoa(k), Kind: delivery.NodeRollback, Target: environment, Position: last + 1, State: delivery.NodePending}
	tag := delivery.Node{Name: "tag/" + environment + "-" + strconv.Itoa(k), Kind: delivery.NodeTag, Target: environment, Needs: []string{n.Name}, Position: last + 2, State: delivery.NodePending}
	if err := tx.InsertNodes(ctx, b.ID, []delivery.Node{n, tag}); err != nil {
		return err
	}
	asked := rollbackAsked{By: by, Reason: reason, At: tx.Now(), Tag: "rollback/" + tx.Now().Format("20060102T150405.000000Z")}
	if _, _, err := tx.Intend(ctx, delivery.Effect{BuildID: b.ID, Key: fmt.Sprintf("%d/%s", b.ID, n.Name), Kind: "rollback", Params: text(asked)}); err != nil {
		return err
	}
	hold := fmt.Sprintf("rolled back to build %d by %s: %s", b.Number, by, reason)
	if err := errors.Join(tx.SetHold(ctx, p.Name, hold), tx.Audit(ctx, p.Name, b.Number, by, "rollback", reason)); err != nil {
		return err
	}
	tx.Event(p.Name, 0, "project")
	return e.goOn(ctx, tx, b.ID)
}

// giveUpUnknown ends an unknown deployment because a person decided what comes next.
func (e *Engine) giveUpUnknown(ctx context.Context, tx *store.Tx, d delivery.Deployment, by, reason string) error {
	b, err := tx.Build(ctx, d.BuildID)
	if err != nil {
		return err
	}
	nodes, err := tx.Nodes(ctx, b.ID)
	if err != nil {
		return err
	}
	words := "given up by " + by + ", who rolls back: " + reason
	if err := tx.EndDeployment(ctx, d, delivery.DeploymentGivenUp, "unknown"); err != nil {
		return err
	}
	for _, n := range nodes {
		if n.State == delivery.NodeUnknown && attemptID(b, n.Name, n.Attempt) == d.ID {
			return e.giveUp(ctx, tx, b, nodes, n, words)
		}
	}
	return nil
}

// rollback deploys the stored bytes of this earlier build again. It builds nothing
// and moves no branch; rollbackTag leaves the evidence.
func (p *performer) rollback(ctx context.Context) result {
	ask, err := p.Store.Effect(ctx, fmt.Sprintf("%d/%s", p.build.ID, p.node.Name))
	if err != nil {
		return result{err: err}
	}
	var asked rollbackAsked
	if err := parse(ask.Params, &asked); err != nil {
		return result{err: err}
	}
	return p.deployAs(ctx, "rollback", asked.By, asked.Reason)
}

// rollbackTag leaves the tag rollback/<time> on the commit that runs again.
func (p *performer) rollbackTag(ctx context.Context) result {
	ask, err := p.Store.Effect(ctx, fmt.Sprintf("%d/%s", p.build.ID, p.node.Needs[0]))
	if err != nil {
		return result{err: err}
	}
	var asked rollbackAsked
	if err := parse(ask.Params, &asked); err != nil {
		return result{err: err}
	}
	msg := p.message(p.build, fmt.Sprintf("Roll production back to build %d", p.build.Number), nil, [2]string{"Shunt-By", asked.By}, [2]string{"Shunt-Reason", asked.Reason})
	msg.At = asked.At.Truncate(time.Second)
	object, err := p.pushTag(ctx, asked.Tag, msg)
	if err != nil {
		return p.ended(ctx, err)
	}
	return succeeded().with(func(ctx context.Context, tx *store.Tx) error {
		if err := tx.SetEffect(ctx, ask, delivery.EffectConfirmed, p.build.LeaseFence, "", ""); err != nil {
			return err
		}
		return tx.SetRef(ctx, p.build.Project, "refs/tags/"+asked.Tag, object)
	})
}

// rollbackAsked is a person's decision to roll back.
type rollbackAsked struct {
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Tag    string    `json:"tag"`
	At     time.Time `json:"at"`
}

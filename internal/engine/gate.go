package engine

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// approve is the rule of an environment's gate for a lane.
func approve(pl *pipeline.Pipeline, environment string, lane delivery.Lane) pipeline.Approve {
	env := pl.Environment(environment)
	if env == nil || env.Approve == nil {
		return pipeline.Approve{Timeout: 72 * time.Hour}
	}
	return env.Approve.For(lane)
}

// gateID is a public name for a request: 40 random bits, easy to read aloud. It
// carries no authority.
func gateID() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return base32.NewEncoding("ABCDEFGHJKMNPQRSTVWXYZ0123456789").EncodeToString(b[:])
}

// gate opens a gate and asks the team.
func (p *performer) gate(ctx context.Context) result {
	stale, err := p.stale(ctx, p.build, p.node.Target)
	if err == nil {
		err = failpoint.Hit("gate", failpoint.BeforeIntent)
	}
	if err != nil {
		return result{err: err}
	}
	rule := approve(p.pipeline, p.node.Target, p.build.Lane)
	g := delivery.Gate{ID: gateID(), BuildID: p.build.ID, Environment: p.node.Target, Stale: stale}
	mail := p.mailData(ctx, p.build)
	r := result{state: delivery.NodeWaiting, reason: "for a decision"}
	return r.with(func(ctx context.Context, tx *store.Tx) (err error) {
		g.ExpiresAt = tx.Now().Add(rule.Timeout)
		if rule.Remind > 0 {
			g.RemindAt = tx.Now().Add(rule.Remind)
		}
		if g.Binding, err = binding(ctx, tx, p.build); err != nil {
			return err
		}
		if g, err = tx.OpenGate(ctx, g); err != nil {
			return err
		}
		tx.Event(p.build.Project, p.build.Number, "gate")
		if err := tx.Audit(ctx, p.build.Project, p.build.Number, "shunt", "gate opened", fmt.Sprintf("%s version %d before %s", g.ID, g.Version, g.Environment)); err != nil {
			return err
		}
		tx.AfterCommit(func() { // what it says of staleness may be old by now
			p.once("gate/"+g.ID, func(ctx context.Context) {
				defer p.lock("gates/" + p.build.Project)()
				p.complain(ctx, "refresh a gate", p.refreshGate(ctx, g))
			})
		})
		mail.Gate = g
		return errors.Join(p.post(ctx, tx, p.pipeline, "waiting", mail), failpoint.Hit("gate", failpoint.BeforeCall))
	})
}

// Decide is a person's click. The first one wins; the others are told who did.
func (e *Engine) Decide(ctx context.Context, project string, number int64, d delivery.Decision) (delivery.Gate, error) {
	b, err := e.Store.BuildByNumber(ctx, project, number)
	if err != nil {
		return delivery.Gate{}, err
	}
	g, err := e.gateOf(ctx, b)
	if err != nil {
		return g, err
	}
	d.GateID = g.ID
	g.Stale = "" // asked anew below
	if err := flow.MayDecide(g, d, e.Store.Now()); err != nil {
		return g, wordGate(err, b, d)
	}
	pl, err := e.pipelineOf(ctx, e.Store, b)
	if err != nil {
		return g, err
	}
	env := pl.Environment(g.Environment)
	production := env != nil && env.Production
	if d.Promote && production {
		why, err := e.mayShip(ctx, b, d.Without)
		if err != nil {
			return g, err
		}
		if why != nil {
			return g, why
		}
	}
	next, action, effect := delivery.GateRejected, "rejected", "reject"
	if d.Promote {
		next, action, effect = delivery.GatePromoted, "promoted", "promote"
	}
	err = e.rows(ctx, effect, func(ctx context.Context, tx *store.Tx) error {
		if g, err = tx.Gate(ctx, g.ID); err != nil {
			return err
		}
		g.Stale = ""
		if err := flow.MayDecide(g, d, tx.Now()); err != nil {
			return wordGate(err, b, d)
		}
		p, err := tx.Project(ctx, project)
		if err != nil {
			return err
		}
		if d.Promote && production {
			facts, err := holdFacts(ctx, tx, p, b)
			if err != nil {
				return err
			}
			if r := flow.MayPromote(facts); r != nil {
				return r.Err()
			}
		}
		now, err := binding(ctx, tx, b)
		if err != nil {
			return err
		}
		if changed := flow.BindingChanged(g.Binding, now); d.Promote && len(changed) > 0 {
			return &delivery.Error{Kind: delivery.KindConflict, What: fmt.Sprintf("cannot promote build %d", number), Why: strings.Join(changed, "; "), Next: "Look again, then decide."}
		}
		if err := tx.Decide(ctx, g, next, d.By, d.From, d.Reason, d.Without); err != nil {
			return err
		}
		if err := tx.Audit(ctx, project, number, d.By, action, fmt.Sprintf("%s version %d, %s from %s: %s", g.ID, g.Version, g.Environment, d.From, d.Reason)); err != nil {
			return err
		}
		tx.Event(project, number, "gate")
		if err := e.goOn(ctx, tx, b.ID); err != nil {
			return err
		}
		g, err = tx.Gate(ctx, g.ID)
		return err
	})
	return g, err
}

// holdFacts asks flow only about hold, freezes and incident, as they are in the
// transaction and by its time.
func holdFacts(ctx context.Context, tx *store.Tx, p delivery.Project, b delivery.Build) (flow.CandidateFacts, error) {
	freezes, err := tx.FreezesAhead(ctx, p.Name, tx.Now())
	return flow.CandidateFacts{Project: p.Name, Number: b.Number, Lane: b.Lane, Branches: p.Branches, Production: "-", ContainsProduction: true, FastForward: true, Hold: p.Hold, Freezes: freezes, Now: tx.Now(), Incident: p.Incident}, err
}

// goOn lets a build that waits for a person be driven again; a build that is
// driven right now is told to look.
func (e *Engine) goOn(ctx context.Context, tx *store.Tx, id int64) error {
	b, err := tx.Build(ctx, id)
	if err != nil {
		return err
	}
	if b.Status == delivery.BuildRunning {
		if err := tx.Hurry(ctx, id); err != nil {
			return err
		}
		return e.wake(ctx, tx, id, b.Lane, 0)
	}
	if err := tx.SetStatus(ctx, b, delivery.BuildRunning, ""); err != nil {
		return err
	}
	tx.Event(b.Project, b.Number, "build")
	return e.wake(ctx, tx, id, b.Lane, 0)
}

// gateOf finds the gate that a decision about a build means: the open one, or
// the last that was decided, so that the loser learns who won.
func (e *Engine) gateOf(ctx context.Context, b delivery.Build) (delivery.Gate, error) {
	gates, err := e.Store.Gates(ctx, b.ID)
	if err != nil {
		return delivery.Gate{}, err
	}
	for _, g := range gates {
		if g.State == delivery.GateOpen {
			return g, nil
		}
	}
	if len(gates) == 0 {
		return delivery.Gate{}, &delivery.Error{Kind: delivery.KindConflict, What: fmt.Sprintf("build %d does not wait for a decision", b.Number), Why: "it is " + string(b.Status), Next: fmt.Sprintf("shunt watch %s %d", b.Project, b.Number)}
	}
	return gates[len(gates)-1], nil
}

// wordGate says the build's number instead of the request's name.
func wordGate(err error, b delivery.Build, d delivery.Decision) error {
	e, ok := errors.AsType[*delivery.Error](err)
	if !ok {
		return err
	}
	verb := "reject"
	if d.Promote {
		verb = "promote"
	}
	out := *e
	out.What = fmt.Sprintf("cannot %s build %d", verb, b.Number)
	return &out
}

// lookAfterGates expires gates, writes reminders, and wakes builds whose
// environment has become free.
func (e *Engine) lookAfterGates(ctx context.Context, now time.Time) error {
	gates, err := e.Store.OpenGates(ctx, "")
	if err != nil {
		return err
	}
	for _, g := range gates {
		switch {
		case !g.ExpiresAt.After(now):
			err = errors.Join(err, e.expire(ctx, g))
		case !g.RemindAt.IsZero() && !g.RemindAt.After(now):
			err = errors.Join(err, e.remind(ctx, g))
		}
	}
	return errors.Join(err, e.wakeWaiters(ctx))
}

func (e *Engine) expire(ctx context.Context, g delivery.Gate) error {
	b, err := e.Store.Build(ctx, g.BuildID)
	if err != nil {
		return err
	}
	err = e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.Decide(ctx, g, delivery.GateExpired, "", "", "nobody decided in time", 0); err != nil {
			return err
		}
		if err := tx.Audit(ctx, b.Project, b.Number, "shunt", "gate expired", g.ID); err != nil {
			return err
		}
		tx.Event(b.Project, b.Number, "gate")
		return e.goOn(ctx, tx, b.ID)
	})
	if delivery.IsKind(err, delivery.KindConflict) {
		return nil // somebody decided in this moment
	}
	return err
}

// remind writes a reminder; from the second on it goes to the escalation list too.
func (e *Engine) remind(ctx context.Context, g delivery.Gate) error {
	p, err := e.performerOf(ctx, g.BuildID)
	if err != nil {
		return err
	}
	rule := approve(p.pipeline, g.Environment, p.build.Lane)
	mail := p.mailData(ctx, p.build)
	mail.Gate = g
	if g.Reminders > 0 {
		mail.To = rule.Escalate
	}
	next := time.Time{}
	if rule.Remind > 0 {
		next = e.Store.Now().Add(rule.Remind)
	}
	err = e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.SetReminder(ctx, g, next); err != nil {
			return err
		}
		return e.post(ctx, tx, p.pipeline, "reminder", mail)
	})
	if delivery.IsKind(err, delivery.KindConflict) {
		return nil
	}
	return err
}

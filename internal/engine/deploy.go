package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
)

// deploy puts the build into a permanent environment.
func (p *performer) deploy(ctx context.Context) result {
	return p.deployAs(ctx, "promote", "", "")
}

// deployAs starts a deployment, or takes over the one that an earlier driver
// started under this attempt of the node. It never starts one twice: the row is
// written before, and the runner knows the deployment's id.
func (p *performer) deployAs(ctx context.Context, kind, by, reason string) result {
	env := p.pipeline.Environment(p.node.Target)
	if env == nil {
		return failed("the pipeline file has no environment " + p.node.Target)
	}
	id := attemptID(p.build, p.node.Name, p.node.Attempt)
	d, err := p.Store.Deployment(ctx, id)
	if delivery.IsKind(err, delivery.KindNotFound) {
		var r *result
		if d, r = p.startDeployment(ctx, env, delivery.Deployment{
			ID: id, Project: p.build.Project, Environment: env.Name, BuildID: p.build.ID, Number: p.build.Number, Commit: p.build.Commit, Lane: p.build.Lane, Kind: kind, By: by, Reason: reason,
		}); r != nil {
			return *r
		}
	} else if err != nil {
		return result{err: err}
	}
	switch d.State {
	case delivery.DeploymentRunning:
		return p.runDeployment(ctx, env, d)
	case delivery.DeploymentSucceeded:
		return succeeded()
	case delivery.DeploymentFailed, delivery.DeploymentGivenUp:
		return failed(d.After)
	case delivery.DeploymentUnknown:
	}
	return result{state: delivery.NodeUnknown, reason: d.After}
}

// startDeployment checks everything again and takes the environment's lock. A
// result instead of a deployment says why it did not start.
func (p *performer) startDeployment(ctx context.Context, env *pipeline.Environment, d delivery.Deployment) (delivery.Deployment, *result) {
	if err := failpoint.Hit("deploy", failpoint.BeforeIntent); err != nil {
		return d, &result{err: err}
	}
	if _, err := p.Sync(ctx, p.build.Project); err != nil { // what is true on the remote, now
		r := p.later("the git remote cannot be read: " + err.Error())
		if ctx.Err() != nil {
			r = result{err: err}
		}
		return d, &r
	}
	gate, err := p.promotedGate(ctx)
	if err != nil {
		return d, &result{err: err}
	}
	promote := d.Kind == "promote"
	if gate != nil && promote {
		d.By, d.Reason = gate.DecidedBy, gate.Reason
	}
	if promote && env.Production {
		without := int64(0)
		if gate != nil {
			without = gate.Without
		}
		why, err := p.mayShip(ctx, p.build, without)
		if err != nil {
			return d, &result{err: err}
		}
		if why != nil {
			return d, p.void(gate, why.Why)
		}
	}
	artifacts, err := p.Store.Artifacts(ctx, p.build.ID)
	if err != nil {
		return d, &result{err: err}
	}
	for _, a := range artifacts {
		if err := p.Blobs.Verify(ctx, a.SHA256); delivery.IsKind(err, delivery.KindUnavailable) {
			r := p.later(err.Error())
			return d, &r
		} else if err != nil {
			r := failed(fmt.Sprintf("artifact %s is not what was approved: %v", a.Name, err))
			return d, &r
		}
	}
	if err := failpoint.Hit("permit", failpoint.BeforeIntent); err != nil {
		return d, &result{err: err}
	}
	var refused *result
	err = p.write(ctx, func(ctx context.Context, tx *store.Tx) error {
		refused = nil
		if b, err := tx.Build(ctx, p.build.ID); err != nil || b.CancelledBy != "" {
			refused = &result{state: delivery.NodeCancelled, reason: "cancelled by " + b.CancelledBy}
			return err
		}
		if refused, err = p.recheck(ctx, tx, env, gate, promote); refused != nil || err != nil {
			return err
		}
		waiters, err := tx.LockWaiters(ctx, p.build.Project, env.Name)
		if err != nil {
			return err
		}
		if promote && len(waiters) > 0 && waiters[0].BuildID != p.build.ID && waiters[0].Lane == delivery.LaneHotfix && p.build.Lane != delivery.LaneHotfix {
			refused = &result{state: delivery.NodeWaiting, reason: fmt.Sprintf("hotfix build %d goes first", waiters[0].Number)}
			return nil
		}
		project, err := tx.Project(ctx, p.build.Project)
		if err != nil {
			return err
		}
		d.Before = project.RunningCommit
		started, ok, err := tx.StartDeployment(ctx, d)
		if err != nil {
			return err
		}
		if !ok {
			holder, _, err := tx.Lock(ctx, p.build.Project, env.Name)
			refused = &result{state: delivery.NodeWaiting, reason: fmt.Sprintf("for the deployment of build %d to end", holder.Number)}
			return err
		}
		d = started
		if _, _, err := tx.Intend(ctx, delivery.Effect{BuildID: p.build.ID, Key: d.ID, Kind: "deploy", Fence: d.Fence, Params: text(map[string]any{"environment": d.Environment, "commit": d.Commit, "kind": d.Kind})}); err != nil {
			return err
		}
		if err := tx.InsertAttempt(ctx, delivery.Attempt{ID: d.ID, BuildID: p.build.ID, Node: p.node.Name, Attempt: p.node.Attempt, Fence: d.Fence}); err != nil {
			return err
		}
		tx.Event(p.build.Project, p.build.Number, "deployment")
		return errors.Join(tx.Audit(ctx, p.build.Project, p.build.Number, d.By, d.Kind+" started", fmt.Sprintf("%s to %s, fence %d: %s", d.ID, d.Environment, d.Fence, d.Reason)), failpoint.Hit("permit", failpoint.BeforeCall))
	})
	if err == nil && refused == nil {
		err = failpoint.Hit("permit", failpoint.AfterRecord)
	}
	if err != nil {
		return d, &result{err: err}
	}
	return d, refused
}

// promotedGate is the gate that let this deployment through; nil: the environment has none.
func (p *performer) promotedGate(ctx context.Context) (*delivery.Gate, error) {
	gates, err := p.Store.Gates(ctx, p.build.ID)
	if err != nil {
		return nil, err
	}
	for _, g := range gates {
		if g.Environment == p.node.Target {
			return &g, nil
		}
	}
	return nil, nil //nolint:nilnil // no gate is an answer
}

// recheck compares the decision with how things are, in the transaction that
// starts the deployment.
func (p *performer) recheck(ctx context.Context, tx *store.Tx, env *pipeline.Environment, gate *delivery.Gate, promote bool) (*result, error) {
	project, err := tx.Project(ctx, p.build.Project)
	if err != nil || !promote {
		return nil, err
	}
	facts, err := holdFacts(ctx, tx, project, p.build)
	if err != nil {
		return nil, err
	}
	if !env.Production {
		facts.Freezes = nil // they are planned for production: builds still go as far as the ones before it
	}
	if r := flow.MayPromote(facts); r != nil {
		return p.void(gate, r.Why), nil
	}
	if gate == nil {
		return nil, nil //nolint:nilnil // nothing speaks against it
	}
	now, err := binding(ctx, tx, p.build)
	if err != nil {
		return nil, err
	}
	if changed := flow.BindingChanged(gate.Binding, now); len(changed) > 0 {
		return p.void(gate, strings.Join(changed, "; ")), nil
	}
	return nil, nil //nolint:nilnil // nothing speaks against it
}

// void takes a decision back that no longer holds: the gate opens again.
func (p *performer) void(gate *delivery.Gate, why string) *result {
	if gate == nil {
		r := failed(why)
		return &r
	}
	r := result{state: delivery.NodePending, reason: "the approval is void: " + why}
	r = r.with(func(ctx context.Context, tx *store.Tx) error {
		if err := tx.Audit(ctx, p.build.Project, p.build.Number, "shunt", "approval void", fmt.Sprintf("%s version %d: %s", gate.ID, gate.Version, why)); err != nil {
			return err
		}
		return p.driver.move(ctx, tx, "gate/"+gate.Environment, delivery.NodePending, "the approval is void: "+why, nil)
	})
	return &r
}

// runDeployment runs the deploy script, watches `ready`, and looks up a lost answer.
func (p *performer) runDeployment(ctx context.Context, env *pipeline.Environment, d delivery.Deployment) result {
	vars := append(pairs(env.Env), "SHUNT_ENVIRONMENT="+env.Name, "SHUNT_DEPLOY_ID="+d.ID, "SHUNT_FENCE="+strconv.FormatInt(d.Fence, 10), "SHUNT_DEPLOY_KIND="+d.Kind)
	run := runSpec{
		id: d.ID, spec: runner.Spec{Steps: []runner.Step{{Name: "deploy", Run: env.Deploy}}, Timeout: env.Timeout, Daemons: true},
		env: vars, secrets: env.Secrets, branch: p.project.Branches.Production,
	}
	if p.build.TagObject != "" {
		run.tags = map[string]string{"refs/tags/" + delivery.ExpandTag(p.pipeline.Tags.Build, p.build.Number): p.build.TagObject}
	}
	a, res, err := p.run(ctx, run)
	if err != nil {
		r := p.unrun(err)
		if r.err != nil {
			return r
		}
		return p.endDeployment(r, d, delivery.DeploymentFailed, "unchanged: the deployment did not start")
	}
	var r result
	switch res.State {
	case delivery.AttemptSucceeded:
		r = p.deployed(ctx, env, d, vars)
	case delivery.AttemptLost:
		r = p.lookUp(ctx, env, d, vars, res.Reason)
	case delivery.AttemptFailed, delivery.AttemptTimedOut, delivery.AttemptCancelled, delivery.AttemptRunning:
		words := p.whatRuns(ctx, env, d, p.verify(ctx, env, d, vars))
		r = p.endDeployment(failed(res.Reason+"; production: "+words), d, delivery.DeploymentFailed, words)
	}
	if r.err != nil {
		return r
	}
	r.done = func() { p.forget(ctx, a.ID) }
	save := r.save
	r.save = func(ctx context.Context, tx *store.Tx) error {
		p.remember(a)
		if err := tx.EndAttempt(ctx, a); err != nil {
			return err
		}
		return save(ctx, tx)
	}
	return r
}

// deployed watches `ready` after the deploy script said that all is well.
func (p *performer) deployed(ctx context.Context, env *pipeline.Environment, d delivery.Deployment, vars []string) result {
	if err := p.ready(ctx, env.URL, env.Ready, env.Timeout); err != nil {
		if ctx.Err() != nil {
			return result{err: ctx.Err()}
		}
		words := p.whatRuns(ctx, env, d, p.verify(ctx, env, d, vars))
		return p.endDeployment(failed(err.Error()+"; production: "+words), d, delivery.DeploymentFailed, words)
	}
	return p.endDeployment(succeeded(), d, delivery.DeploymentSucceeded, "")
}

// lookUp asks `verify` whether a deployment whose answer was lost is live; where
// nobody can tell, a person is asked. It is never run again by itself.
func (p *performer) lookUp(ctx context.Context, env *pipeline.Environment, d delivery.Deployment, vars []string, why string) result {
	live := p.verify(ctx, env, d, vars)
	switch {
	case ctx.Err() != nil:
		return result{err: ctx.Err()}
	case live != nil && *live:
		return p.deployed(ctx, env, d, vars)
	case live != nil:
		words := p.whatRuns(ctx, env, d, live)
		return p.endDeployment(failed(why+"; it was looked up: not live"), d, delivery.DeploymentFailed, words)
	}
	return p.endDeployment(result{state: delivery.NodeUnknown, reason: why + "; nobody knows whether it is live: a person has to look"}, d, delivery.DeploymentUnknown, "unknown")
}

// verify runs the pipeline's `verify`: exit code 0 is live, 1 is not live,
// anything else, and no answer, is nil.
func (p *performer) verify(ctx context.Context, env *pipeline.Environment, d delivery.Deployment, vars []string) *bool {
	if env.Verify == "" {
		return nil
	}
	a, res, err := p.run(ctx, runSpec{
		effect: "verify",
		id:     d.ID + "-verify-" + strconv.FormatInt(p.build.LeaseFence, 10),
		spec:   runner.Spec{Steps: []runner.Step{{Name: "verify", Run: env.Verify}}, Timeout: min(env.Timeout, 2*time.Minute)}, env: vars, secrets: env.Secrets, branch: p.project.Branches.Production, beside: true,
	})
	if err != nil {
		p.Log.Warn("cannot look a deployment up", "deployment", d.ID, "error", err)
		return nil
	}
	p.forget(ctx, a.ID)
	live := res.State == delivery.AttemptSucceeded
	if live || res.State == delivery.AttemptFailed && res.ExitCode == 1 {
		return &live
	}
	return nil
}

// whatRuns says what the environment runs after a deployment that failed; live is
// the answer of `verify`.
func (p *performer) whatRuns(ctx context.Context, env *pipeline.Environment, d delivery.Deployment, live *bool) string {
	var ready *bool
	address := env.Ready
	if strings.HasPrefix(address, "/") {
		address = strings.TrimSuffix(env.URL, "/") + address
	}
	if absoluteHTTP(address) {
		ok := answers(ctx, address) == nil
		ready = &ok
	}
	before := ""
	if d.Before != "" {
		before = "commit " + delivery.ShortHash(d.Before)
		if p.project.RunningCommit == d.Before {
			before = fmt.Sprintf("build %d (%s)", p.project.RunningBuild, delivery.ShortHash(d.Before))
		}
	}
	return flow.WhatRunsNow(delivery.DeploymentFailed, ready, live, before, fmt.Sprintf("build %d (%s)", d.Number, delivery.ShortHash(d.Commit)))
}

// endDeployment adds to a result what is saved when a deployment has ended.
func (p *performer) endDeployment(r result, d delivery.Deployment, state delivery.DeploymentState, after string) result {
	return r.with(func(ctx context.Context, tx *store.Tx) error {
		return p.saveDeployment(ctx, tx, d, state, after, r.reason)
	})
}

// saveDeployment ends a deployment with all that follows from it, in one
// transaction: the effect, what production runs, the audit, the mails, and who
// waited for the lock.
func (e *Engine) saveDeployment(ctx context.Context, tx *store.Tx, d delivery.Deployment, state delivery.DeploymentState, after, reason string) error {
	if err := tx.EndDeployment(ctx, d, state, after); err != nil {
		return err
	}
	effect, err := tx.Effect(ctx, d.ID)
	if err != nil {
		return err
	}
	next := map[delivery.DeploymentState]delivery.EffectState{delivery.DeploymentSucceeded: delivery.EffectConfirmed, delivery.DeploymentFailed: delivery.EffectFailed, delivery.DeploymentGivenUp: delivery.EffectFailed, delivery.DeploymentUnknown: delivery.EffectUnknown}[state]
	if effect.State != next {
		if err := tx.SetEffect(ctx, effect, next, d.Fence, "", reason); err != nil {
			return err
		}
	}
	tx.Event(d.Project, d.Number, "deployment")
	if err := tx.Audit(ctx, d.Project, d.Number, "shunt", "deployment "+string(state), strings.TrimSpace(d.ID+" "+reason)); err != nil {
		return err
	}
	b, err := tx.Build(ctx, d.BuildID)
	if err != nil {
		return err
	}
	pl, err := e.pipelineOf(ctx, tx, b)
	if err != nil {
		return err
	}
	env := pl.Environment(d.Environment)
	if state == delivery.DeploymentSucceeded && env != nil && env.Production {
		p, err := tx.Project(ctx, d.Project)
		if err != nil {
			return err
		}
		if err := tx.SetRunning(ctx, d.Project, d.Number, d.Commit); err != nil {
			return err
		}
		if d.Kind == "promote" {
			if err := tx.SetProduction(ctx, d.Project, d.Number, d.Commit, p.BranchTip); err != nil {
				return err
			}
		}
		tx.Event(d.Project, 0, "project")
		tx.AfterCommit(func() { e.refreshLater(d.Project) })
	}
	if state == delivery.DeploymentFailed || state == delivery.DeploymentUnknown {
		if err := e.post(ctx, tx, pl, "deploy_failed", mailData{Build: b, Deployment: d, After: after, Reason: reason}); err != nil {
			return err
		}
	}
	if state == delivery.DeploymentUnknown {
		return nil // it still holds the lock
	}
	return e.wakeNext(ctx, tx, d.Project, d.Environment)
}

func (e *Engine) refreshLater(project string) {
	e.afresh("gates/"+project, func(ctx context.Context) { e.complain(ctx, "refresh the gates", e.RefreshGates(ctx, project)) })
}

// wakeNext drives the build that waits first for an environment.
func (e *Engine) wakeNext(ctx context.Context, tx *store.Tx, project, environment string) error {
	waiters, err := tx.LockWaiters(ctx, project, environment)
	if err != nil || len(waiters) == 0 {
		return err
	}
	return e.goOn(ctx, tx, waiters[0].BuildID)
}

// wakeWaiters drives builds that wait for an environment that is free: whoever
// freed it may have died before waking them.
func (e *Engine) wakeWaiters(ctx context.Context) error {
	locks, err := e.Store.WaitedFor(ctx)
	if err != nil {
		return err
	}
	for _, l := range locks {
		if _, held, err := e.Store.Lock(ctx, l.Project, l.Environment); held || err != nil {
			continue
		}
		err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return e.wakeNext(ctx, tx, l.Project, l.Environment) })
		if err != nil && !delivery.IsKind(err, delivery.KindConflict) {
			return err
		}
	}
	return nil
}

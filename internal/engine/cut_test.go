package engine

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// countdown is a context that ends when it is asked for the nth time: a database
// or a git that fails there.
type countdown struct {
	context.Context
	left   atomic.Int64
	cancel context.CancelFunc
}

func newCountdown(ctx context.Context, n int) *countdown {
	c := &countdown{}
	c.Context, c.cancel = context.WithCancel(ctx)
	c.left.Store(int64(n))
	return c
}

func (c *countdown) count() {
	if c.left.Add(-1) == 0 {
		c.cancel()
	}
}

func (c *countdown) Done() <-chan struct{} { c.count(); return c.Context.Done() }
func (c *countdown) Err() error            { c.count(); return c.Context.Err() }

// rows counts what an act leaves in the audit log.
func (w *world) rows() int {
	rows, err := w.store.AuditRows(w.ctx, project, 0, 1000)
	w.ok(err)
	return len(rows)
}

// cut does an act again and again, cut short a little later each time, until it
// succeeds. Before that nothing of it may have been done.
func (w *world) cut(what string, act func(ctx context.Context) error) {
	w.Helper()
	before := w.rows()
	for n := 1; n < 20000; n += 1 + n/12 {
		ctx := newCountdown(w.ctx, n)
		err := act(ctx)
		ctx.cancel()
		if err == nil {
			return
		}
		if ctx.left.Load() > 0 {
			w.Fatalf("%s failed though nothing was cut: %v", what, err)
		}
		if after := w.rows(); after != before {
			w.Fatalf("%s failed (%v), but left %d rows", what, err, after-before)
		}
	}
	w.Fatalf("%s never succeeds", what)
}

// cutSync looks at the remote, cut short a little later each time. What changed is
// acted on ref by ref, each once.
func (w *world) cutSync() {
	w.Helper()
	for n := 1; ; n += 1 + n/12 {
		ctx := newCountdown(w.ctx, n)
		_, err := w.engine.Sync(ctx, project)
		ctx.cancel()
		if err == nil {
			return
		}
		if ctx.left.Load() > 0 {
			w.Fatalf("it failed though nothing was cut: %v", err)
		}
	}
}

func TestAnActThatIsCutShortChangesNothing(t *testing.T) {
	w := newWorld(t, jobs+"environments:\n"+qa+slowDeploy+"    needs: [qa]\n"+team)
	w.engine.Stop()
	e := w.engine
	w.cut("adding the project", func(ctx context.Context) error {
		return e.AddProject(ctx, NewProject{Name: project, URL: w.in("remote.git"), Local: true, InProduction: "master", By: "ops"})
	})
	drive := func(number int64, status delivery.BuildStatus) {
		w.Helper()
		for n := 1; ; n += 1 + n/8 {
			ctx := newCountdown(w.ctx, n)
			_ = e.drive(ctx, w.build(number).ID)
			ctx.cancel()
			w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error { return tx.ClearLeases(ctx, "test") }))
			if w.build(number).Status == status {
				return
			}
			if n > 20000 {
				w.Fatalf("build %d never gets there\n%s", number, w.story())
			}
		}
	}
	drive(1, delivery.BuildSucceeded)
	w.commit("develop", "", "two")
	w.cutSync()
	drive(2, delivery.BuildWaiting)
	b := w.build(2)
	for what, read := range map[string]func(ctx context.Context) error{
		"reading the change":   func(ctx context.Context) error { _, err := e.Change(ctx, b); return err },
		"reading the diff":     func(ctx context.Context) error { _, _, err := e.Diff(ctx, b, 1000); return err },
		"reading the tests":    func(ctx context.Context) error { _, err := e.Tests(ctx, b); return err },
		"refreshing the gates": func(ctx context.Context) error { return e.RefreshGates(ctx, project) },
	} {
		w.cut(what, read)
	}
	w.cut("holding", func(ctx context.Context) error { return e.Hold(ctx, project, "eve", "x", false) })
	w.cut("releasing", func(ctx context.Context) error { return e.Hold(ctx, project, "eve", "x", true) })
	w.cut("freezing", func(ctx context.Context) error {
		_, err := e.AddFreeze(ctx, delivery.Freeze{Project: project, Ends: w.clock.Now().Add(time.Hour), Reason: "x", By: "eve"})
		return err
	})
	w.cut("thawing", func(ctx context.Context) error {
		_, err := e.EndFreeze(ctx, project, 1, "eve", "x")
		return err
	})
	w.cut("keeping", func(ctx context.Context) error {
		_, err := e.KeepInstance(ctx, project, "petstore-qa-2", "bob", time.Hour, nil)
		return err
	})
	w.cut("promoting", func(ctx context.Context) error {
		_, err := e.Decide(ctx, project, 2, delivery.Decision{Promote: true, By: "bob"})
		return err
	})
	w.write("broken", "")
	drive(2, delivery.BuildStopped)
	w.cut("retrying", func(ctx context.Context) error { return e.Resolve(ctx, project, 2, "retry", "bob", "x") })
	w.sh("rm broken")
	drive(2, delivery.BuildSucceeded)
	w.want("master", w.remote("master"), b.Commit)
	deploys := 0
	for _, d := range w.deployments(2) {
		if d.State == delivery.DeploymentSucceeded {
			deploys++
		}
	}
	w.want("deployments that succeeded", deploys, 1)
	w.want("deploys", len(w.lines("deploys")), 2)

	w.commit("develop", "", "three")
	w.cutSync()
	drive(3, delivery.BuildWaiting)
	w.cut("cancelling", func(ctx context.Context) error { return e.Cancel(ctx, project, 3, "bob", "x") })
	drive(3, delivery.BuildCancelled)
	w.cut("running again", func(ctx context.Context) error { return e.Rerun(ctx, project, 3, "bob") })
	drive(3, delivery.BuildWaiting)
	w.ok(w.decide(3, true, ""))
	drive(3, delivery.BuildSucceeded)
	w.cut("rolling back", func(ctx context.Context) error {
		_, err := e.Rollback(ctx, project, 2, "eve", "bug")
		return err
	})
	drive(2, delivery.BuildSucceeded)
	w.want("running", w.project().RunningBuild, 2)
	w.want("rollback tags", len(w.tags("rollback")), 1)
	builds, err := w.store.Builds(w.ctx, store.BuildQuery{Project: project, Limit: 10})
	w.ok(err)
	w.want("builds", len(builds), 3)
	w.git("push -q -f origin develop~2:refs/tags/build/3")
	w.cutSync()
	w.says(w.project().Incident, "build/3 was moved")
	w.cut("clearing it", func(ctx context.Context) error { return e.ClearIncident(ctx, project, "eve", "x") })
	w.git("checkout -q develop && git checkout -qb hotfix/x && git commit -q --allow-empty -m fix && git push -q origin HEAD")
	w.git("checkout -q develop && git commit -q --allow-empty -m ahead && git push -q origin HEAD")
	w.cutSync()
}

func TestExpiryThatIsCutShortChangesNothing(t *testing.T) {
	w := newWorld(t, full)
	w.add("master")
	w.push("develop", "", "two")
	w.reach(2, delivery.BuildWaiting)
	w.git("checkout -qb hotfix/late develop && git commit -q --allow-empty -m late && git push -q origin HEAD")
	w.cutSync() // refused: it carries work that is not in production
	w.says(w.pushed().Refused, "not in production")
	w.engine.Stop()
	g := w.gate(2)
	w.clock.step(g.ExpiresAt.Sub(w.clock.Now()) + time.Second)
	w.cut("expiring", func(ctx context.Context) error { return w.engine.expire(ctx, g) })
	w.want("gate", w.gate(2).State, delivery.GateExpired)
	w.cut("looking at environments", func(ctx context.Context) error { return w.engine.lookAfterInstances(ctx, w.clock.Now()) })
	w.cut("comparing environments", func(ctx context.Context) error {
		up, err := w.store.InstancesUp(ctx)
		if err != nil || len(up) != 1 {
			return err
		}
		w.sick.Store(true)
		return w.engine.compareInstance(ctx, up[0])
	})
}

package engine

import (
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// freeze plans a freeze that begins and ends so long from now.
func (w *world) freeze(begins, ends time.Duration, why string) delivery.Freeze {
	w.Helper()
	now := w.clock.Now()
	f, err := w.engine.AddFreeze(w.ctx, delivery.Freeze{Project: project, Begins: now.Add(begins), Ends: now.Add(ends), Reason: why, By: "eve"})
	w.ok(err)
	return f
}

// told waits until open pages of the project are told to look again.
func (w *world) told(events <-chan store.Event) {
	w.Helper()
	end := time.After(patience)
	for {
		select {
		case e := <-events:
			if e.Project == project && e.Number == 0 && e.Kind == "project" {
				return
			}
		case <-end:
			w.Fatalf("no page was told\n%s", w.story())
		}
	}
}

func TestAFreezeKeepsTheMainLaneFromProduction(t *testing.T) {
	w := newWorld(t, plain)
	w.add("master")
	w.push("develop", "", "two")
	f := w.freeze(time.Hour, 10*time.Hour, "black friday")
	w.audited(0, "eve", "freeze planned")
	w.ship(2) // until it begins all is as ever

	events, cancel := w.store.Subscribe()
	defer cancel()
	w.clock.step(time.Hour)
	w.told(events)
	w.push("develop", "", "three")
	w.reach(3, delivery.BuildWaiting)
	w.refused(w.decide(3, true, ""), delivery.KindRefused, "cannot promote build 3", "frozen until "+f.Ends.Format("2006-01-02 15:04 UTC")+": black friday (eve)", `shunt freeze end petstore 1 -m "why"`)
	w.want("gate", w.gate(3).State, delivery.GateOpen)
	w.want("stale", w.gate(3).Stale, "")
	w.ok(w.decide(3, false, "a person still says no"))
	w.reach(3, delivery.BuildRejected)

	fix := w.hotfix("cart", "fix")
	facts, err := w.engine.CandidateFacts(w.ctx, w.reach(fix, delivery.BuildWaiting), 0)
	w.ok(err)
	w.want("what the gate is told", facts.Freezes, []delivery.Freeze{f})
	w.ship(fix)

	w.git("checkout -q develop && git merge -q -s ours --no-edit hotfix/cart")
	w.push("develop", "", "four")
	w.reach(5, delivery.BuildWaiting)
	w.refused(w.decide(5, true, ""), delivery.KindRefused, "frozen until")
	events, cancel = w.store.Subscribe()
	defer cancel()
	w.clock.step(9 * time.Hour)
	w.told(events)
	w.ship(5)
	w.want("deploys", w.lines("deploys"), "[petstore-2-deploy-production-1 2 promote two petstore-4-deploy-production-1 3 promote fix petstore-5-deploy-production-1 4 promote four]")
	_, err = w.engine.EndFreeze(w.ctx, project, f.ID, "eve", "too late")
	w.refused(err, delivery.KindConflict, "cannot end freeze 1: it is over since")
}

// A promotion that was decided before the freeze and could not begin until then is
// taken back, and asked again: as with a hold.
func TestAFreezeTakesAPromotionBackThatHasNotBegun(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	f := w.freeze(time.Hour, 48*time.Hour, "audit")
	w.sh("mv remote.git away.git")
	w.promote(1)
	w.until("it waits for the remote", func() bool { return w.node(1, "deploy/production").Reason != "" })
	w.clock.step(time.Hour)
	w.sh("mv away.git remote.git")
	w.clock.step(time.Minute)
	w.until("it asks again", func() bool { g := w.gate(1); return g.State == delivery.GateOpen && g.Version > 1 })
	w.audited(1, "shunt", "approval void")
	w.want("deployments", len(w.deployments(1)), 0)

	w.reach(1, delivery.BuildWaiting)
	w.refused(w.decide(1, true, ""), delivery.KindRefused, "frozen until")
	f, err := w.engine.EndFreeze(w.ctx, project, f.ID, "ops", "the auditors have gone")
	w.ok(err)
	w.want("ended", []any{f.EndedBy, f.EndedWhy, f.EndedAt.IsZero()}, []any{"ops", "the auditors have gone", false})
	w.audited(0, "ops", "freeze ended")
	w.ship(1)
}

// A freeze is of production: builds still go to the environments before it.
func TestAFreezeIsOfProduction(t *testing.T) {
	staging := "  staging:\n    env: {DIR: '@DIR'}\n    deploy: 'echo staging >> $DIR/deploys'\n"
	w := newWorld(t, jobs+"environments:\n"+staging+production+"    needs: [staging]\n"+team)
	w.engine.Stop()
	w.add("")
	w.freeze(0, time.Hour, "audit")
	w.ok(w.store.Close())
	w.open()
	w.reach(1, delivery.BuildWaiting)
	w.want("deploys", w.lines("deploys"), "[staging]")
	w.refused(w.decide(1, true, ""), delivery.KindRefused, "frozen until")
}

func TestWhatCannotBeFrozen(t *testing.T) {
	w := newWorld(t, plain)
	now := w.clock.Now()
	plan := func(f delivery.Freeze) error { _, err := w.engine.AddFreeze(w.ctx, f); return err }
	w.refused(plan(delivery.Freeze{Project: "other", Ends: now.Add(time.Hour), Reason: "x", By: "eve"}), delivery.KindNotFound, "there is no project other")
	w.add("")
	w.refused(plan(delivery.Freeze{Project: project, Begins: now.Add(-2 * time.Hour), Ends: now.Add(-time.Hour), Reason: "x", By: "eve"}), delivery.KindInvalid, "has passed")
	w.refused(plan(delivery.Freeze{Project: project, Ends: now.Add(401 * 24 * time.Hour), Reason: "x", By: "eve"}), delivery.KindInvalid, "at most 400")
	for range 50 {
		if f := w.freeze(-time.Hour, time.Hour, "again and again"); f.Begins.Before(now.Truncate(time.Microsecond)) {
			w.Fatalf("it began at %s, before it was planned", f.Begins)
		}
	}
	w.refused(plan(delivery.Freeze{Project: project, Ends: now.Add(time.Hour), Reason: "x", By: "eve"}), delivery.KindRefused, "50 are planned already")
	end := func(of string, id int64) error {
		_, err := w.engine.EndFreeze(w.ctx, of, id, "ops", "enough")
		return err
	}
	w.ok(end(project, 7))
	w.refused(end(project, 7), delivery.KindConflict, "cannot end freeze 7: it was ended by ops: enough")
	w.refused(end(project, 99), delivery.KindNotFound, "there is no freeze 99")
	w.refused(end("other", 8), delivery.KindNotFound, "there is no freeze 8 in project other")
	same := delivery.Freeze{Project: project, Ends: now.Add(2 * time.Hour), Reason: "x", By: "eve"}
	w.ok(end(project, 1))
	w.ok(plan(same))
	w.ok(end(project, 2))
	w.refused(plan(same), delivery.KindConflict, "freeze 51 is for the same time")
}

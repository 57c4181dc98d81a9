package engine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

func TestARejectionDestroysTheQAAndThatIsAll(t *testing.T) {
	w := newWorld(t, full)
	w.add("")
	master := w.remote("master")
	w.reach(1, delivery.BuildWaiting)
	w.refused(w.decide(1, false, " "), delivery.KindInvalid, "needs a reason")
	w.ok(w.decide(1, false, "the cart is empty"))
	b := w.reach(1, delivery.BuildRejected)
	w.says(b.Reason, "rejected by bob: the cart is empty")
	w.want("QA", w.lines("envs"), "[up petstore-qa-1 down petstore-qa-1]")
	w.want("deploys", len(w.lines("deploys")), 0)
	w.want("master", w.remote("master"), master)
	w.want("production/1", w.remote("production/1"), "")
	w.want("reason", w.gate(1).Reason, "the cart is empty")
	w.mail("rejected", "bob", "the cart is empty")
	w.audited(1, "bob", "rejected")
	w.refused(w.decide(1, true, ""), delivery.KindConflict, "it was rejected by bob")
}

func TestNobodyDecidesInTime(t *testing.T) {
	w := newWorld(t, jobs+`environments:
`+qa+`  production:
    needs: [qa]
    approve: {timeout: 4h, remind: 1h, escalate: [boss@example.org]}
    deploy: 'false'
`+team)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.clock.step(61 * time.Minute)
	w.until("a reminder", func() bool { return len(w.mails()["reminder"]) == 1 })
	w.want("its recipients", w.mail("reminder").To, "[team@example.org]")
	w.clock.step(61 * time.Minute)
	w.until("an escalation", func() bool { return len(w.mails()["escalation"]) == 1 })
	w.want("its recipients", w.mail("escalation").To, "[boss@example.org team@example.org]")
	w.clock.step(2 * time.Hour)
	b := w.reach(1, delivery.BuildExpired)
	w.says(b.Reason, "nobody decided in time")
	w.want("QA", w.instance("petstore-qa-1").State, delivery.InstanceDown)
	w.audited(1, "shunt", "gate expired")
	w.refused(w.decide(1, true, ""), delivery.KindConflict, "expired")
}

func TestOneClickWins(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.engine.Stop() // nobody drives: only decisions are taken
	rounds := 60
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		start := make(chan struct{})
		for i := range errs {
			wg.Go(func() {
				<-start
				_, errs[i] = w.engine.Decide(w.ctx, project, 1, delivery.Decision{Promote: i%2 == 0, By: fmt.Sprint("p", i), Reason: "r"})
			})
		}
		close(start)
		wg.Wait()
		winner := ""
		for i, err := range errs {
			switch {
			case err == nil && winner == "":
				winner = fmt.Sprint("p", i)
			case err == nil:
				w.Fatalf("both %s and p%d won", winner, i)
			default:
				w.refused(err, delivery.KindConflict)
			}
		}
		g := w.gate(1)
		w.want("the winner", g.DecidedBy, winner)
		w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error {
			if _, err := tx.OpenGate(ctx, g); err != nil {
				return err
			}
			b, err := tx.Build(ctx, g.BuildID)
			if err != nil {
				return err
			}
			return tx.SetStatus(ctx, b, delivery.BuildWaiting, "")
		}))
	}
}

func TestAnOldPageDecidesNothing(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	g := w.gate(1)
	_, err := w.engine.Decide(w.ctx, project, 1, delivery.Decision{Promote: true, By: "bob", Version: g.Version + 1})
	w.refused(err, delivery.KindConflict, "cannot promote build 1", "you saw version 2")
	_, err = w.engine.Decide(w.ctx, project, 1, delivery.Decision{Promote: true, By: "bob", Commit: "0123456789"})
	w.refused(err, delivery.KindConflict, "the commit changed")
	_, err = w.engine.Decide(w.ctx, project, 9, delivery.Decision{Promote: true, By: "bob"})
	w.refused(err, delivery.KindNotFound)
	w.engine.Stop()
	w.push("develop", "", "two")
	w.refused(w.decide(2, true, ""), delivery.KindConflict, "does not wait for a decision", "queued")
}

func TestAHoldKeepsTheMainLaneFromProduction(t *testing.T) {
	w := newWorld(t, plain)
	w.add("master")
	w.push("develop", "", "two")
	w.hotfix("cart", "fix")
	w.ok(w.engine.Hold(w.ctx, project, "eve", "black friday", false))
	w.reach(2, delivery.BuildWaiting)
	w.refused(w.decide(2, true, ""), delivery.KindRefused, "on hold: black friday (eve)")
	w.ship(3)
	w.want("deploys", w.lines("deploys"), "[petstore-3-deploy-production-1 2 promote fix]")
	w.ok(w.engine.Hold(w.ctx, project, "eve", "it is over", true))
	w.want("hold", w.project().Hold, "")
	w.audited(0, "eve", "hold released")
}

func TestCancel(t *testing.T) {
	t.Parallel()
	slow := `version: 1
jobs:
  build:
    env: {DIR: '@DIR'}
    steps: [{run: 'cp app.txt out.txt; echo $$ > $DIR/pid; while [ -e $DIR/slow ]; do sleep 0.02; done'}]
    artifacts: {app: out.txt}
environments:
` + qa + production + "    needs: [qa]\n" + team
	t.Run("while queued", func(t *testing.T) {
		w := newWorld(t, slow)
		w.engine.Stop()
		w.add("")
		w.ok(w.engine.Cancel(w.ctx, project, 1, "bob", "wrong branch"))
		w.want("build", w.build(1).Status, delivery.BuildCancelled)
		w.refused(w.engine.Cancel(w.ctx, project, 1, "bob", ""), delivery.KindConflict, "it has ended: cancelled")
		w.ok(w.store.Close())
		w.open()
		w.ok(w.engine.Rerun(w.ctx, project, 1, "bob"))
		w.ship(1)
		w.audited(1, "bob", "re-run")
	})
	t.Run("while a job runs", func(t *testing.T) {
		w := newWorld(t, slow)
		w.write("slow", "")
		w.add("")
		w.until("the job runs", w.exists("pid"))
		w.ok(w.engine.Cancel(w.ctx, project, 1, "bob", "wrong branch"))
		b := w.reach(1, delivery.BuildCancelled)
		w.want("reason", b.Reason, "cancelled by bob")
		w.want("job", w.node(1, "job/build").State, delivery.NodeCancelled)
		w.want("its process", w.sh("kill -0 "+w.lines("pid")[0]+" 2>/dev/null || echo dead"), "dead")
		w.want("tag", w.remote("build/1"), "")
		w.sh("rm slow")
		w.ok(w.engine.Rerun(w.ctx, project, 1, "bob"))
		w.reach(1, delivery.BuildWaiting)
	})
	t.Run("while it waits", func(t *testing.T) {
		w := newWorld(t, slow)
		w.add("")
		w.reach(1, delivery.BuildWaiting)
		w.ok(w.engine.Cancel(w.ctx, project, 1, "bob", "no longer wanted"))
		w.reach(1, delivery.BuildCancelled)
		w.want("QA", w.instance("petstore-qa-1").State, delivery.InstanceDown)
		w.want("gate", w.gate(1).State, delivery.GateCancelled)
		w.refused(w.decide(1, true, ""), delivery.KindConflict, "it was cancelled by bob")
	})
}

func TestADeploymentIsNotCancelled(t *testing.T) {
	w := newWorld(t, jobs+"environments:\n"+slowDeploy+team)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.write("slow", "")
	w.promote(1)
	w.until("it deploys", w.exists("deploys"))
	w.refused(w.engine.Cancel(w.ctx, project, 1, "bob", ""), delivery.KindConflict, "is not cut in half")
	_, err := w.engine.Rollback(w.ctx, project, 0, "bob", "quick")
	w.refused(err, delivery.KindRefused, "a deployment of build 1 is running")
	w.write("broken", "")
	w.sh("rm slow")
	w.reach(1, delivery.BuildStopped)
	w.refused(w.engine.Cancel(w.ctx, project, 1, "bob", ""), delivery.KindConflict, "a person has to choose", "give-up")
}

// slowDeploy is a production whose script waits while there is a file `slow`, runs
// `meddle`, and fails when there is a file `broken`. VERIFY answers what the file
// `verdict` says.
const slowDeploy = production0 + `    verify: 'exit $(cat $DIR/verdict 2>/dev/null || echo 7)'
`

const production0 = `  production:
    approve: {timeout: 72h}
    env: {DIR: '@DIR'}
    deploy: |
      echo "$SHUNT_DEPLOY_ID $SHUNT_FENCE $SHUNT_DEPLOY_KIND $(cat $SHUNT_ARTIFACT_APP)" >> $DIR/deploys
      while [ -e $DIR/slow ]; do sleep 0.02; done
      if [ -e $DIR/meddle ]; then sh $DIR/meddle; fi
      test ! -e $DIR/broken -a ! -e $DIR/broken-$SHUNT_BUILD
`

// What was approved is not what is there now: the click is refused, whatever page
// it came from.
func TestAClickOnWhatHasChanged(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	id := w.reach(1, delivery.BuildWaiting).ID
	app, err := w.store.Artifacts(w.ctx, id)
	w.ok(err)
	seen := w.gate(1).Version // the gate may look again at any time, and is then another version
	other := app[0]
	other.SHA256 = strings.Repeat("0", 64)
	set := func(a delivery.Artifact) {
		w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error { return tx.SetArtifact(ctx, a) }))
	}
	set(other)
	_, err = w.engine.Decide(w.ctx, project, 1, delivery.Decision{Promote: true, By: "bob", From: "test", Version: seen})
	w.refused(err, delivery.KindConflict, "cannot promote build 1")
	w.want("gate", w.gate(1).State, delivery.GateOpen)
	set(app[0])
	w.ok(w.engine.RefreshGates(w.ctx, project))
	w.ship(1)
}

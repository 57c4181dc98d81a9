package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

func TestAnEnvironmentIsKeptAsLongAsPeopleWant(t *testing.T) {
	w := newWorld(t, full)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	const id = "petstore-qa-1"
	w.want("url", w.instance(id).URL, w.web.URL)
	yes, no := true, false
	_, err := w.engine.KeepInstance(w.ctx, "other", id, "bob", time.Hour, nil)
	w.refused(err, delivery.KindNotFound)
	i, err := w.engine.KeepInstance(w.ctx, project, id, "bob", 10*time.Hour, &yes)
	w.ok(err)
	w.want("pinned", i.Pinned, true)
	w.clock.step(11 * time.Hour)
	w.engine.lookAfter(w.ctx)
	w.want("QA", w.instance(id).State, delivery.InstanceUp)
	_, err = w.engine.KeepInstance(w.ctx, project, id, "bob", time.Hour, &no)
	w.ok(err)
	w.audited(1, "bob", "environment kept")
	w.clock.step(61 * time.Minute)
	w.until("its time is over", func() bool { return w.instance(id).State == delivery.InstanceDown })
	w.audited(1, "shunt", "environment destroyed")
	_, err = w.engine.KeepInstance(w.ctx, project, id, "bob", time.Hour, nil)
	w.refused(err, delivery.KindConflict)
	_, err = w.engine.DestroyInstance(w.ctx, project, id, "bob")
	w.refused(err, delivery.KindConflict, "it is down")
	w.want("gate", w.gate(1).State, delivery.GateOpen)
	w.ship(1)
	w.want("environments", w.lines("envs"), "[up petstore-qa-1 down petstore-qa-1]")
}

func TestAnEnvironmentThatDiedBehindOurBackSaysSo(t *testing.T) {
	w := newWorld(t, full)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.sick.Store(true)
	w.clock.step(healthEvery)
	w.until("its death is noticed", func() bool { return w.instance("petstore-qa-1").Reason != "" })
	w.says(w.instance("petstore-qa-1").Reason, "it has not answered since")
	w.want("QA", w.instance("petstore-qa-1").State, delivery.InstanceUp)
	w.sick.Store(false)
	w.clock.step(healthEvery)
	w.until("it is well again", func() bool { return w.instance("petstore-qa-1").Reason == "" })
}

func TestAPersonDestroysAnEnvironment(t *testing.T) {
	w := newWorld(t, full)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	_, err := w.engine.DestroyInstance(w.ctx, "other", "petstore-qa-1", "bob")
	w.refused(err, delivery.KindNotFound)
	_, err = w.engine.DestroyInstance(w.ctx, project, "nothing", "bob")
	w.refused(err, delivery.KindNotFound)
	_, err = w.engine.DestroyInstance(w.ctx, project, "petstore-qa-1", "bob")
	w.ok(err)
	w.until("it is gone", func() bool { return w.instance("petstore-qa-1").State == delivery.InstanceDown })
	w.audited(1, "bob", "environment destroy")
	w.ok(w.decide(1, false, "no"))
	w.reach(1, delivery.BuildRejected)
	w.want("environments", w.lines("envs"), "[up petstore-qa-1 down petstore-qa-1]")
}

func TestDestroyingIsTriedUntilItIsGone(t *testing.T) {
	w := newWorld(t, strings.Replace(full, `    down: 'echo`, `    down: 'test ! -e $DIR/stuck; echo`, 1))
	w.write("stuck", "")
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.ok(w.decide(1, false, "no"))
	w.reach(1, delivery.BuildRejected)
	w.says(w.node(1, "down/qa").Reason, "Shunt tries again until it is")
	w.clock.step(15 * time.Second)
	w.until("it was tried again", func() bool { return w.instance("petstore-qa-1").DownTries >= 2 })
	w.sh("rm stuck")
	w.until("it is gone", func() bool {
		w.clock.step(time.Minute)
		return w.instance("petstore-qa-1").State == delivery.InstanceDown
	})
	w.want("environments", w.lines("envs"), "[up petstore-qa-1 down petstore-qa-1]")
}

func TestAnEnvironmentThatDoesNotComeUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, was, is, words string }{
		{"its script fails", `    up: 'echo`, `    up: 'false; echo`, "up qa failed: step 1 exited with code 1"},
		{"it is never ready", `    keep: 8h`, `    timeout: 1s`, "did not become ready in 1s"},
		{"its address is no address", `url=@WEB`, `url=javascript:alert(1)`, "is no absolute http or https address"},
		{"it has no address", `url=@WEB`, `name=qa`, "the environment has no url"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, strings.Replace(full, c.was, c.is, 1))
			w.sick.Store(true)
			w.add("")
			b := w.reach(1, delivery.BuildFailed)
			w.says(b.Reason, c.words)
			w.want("QA", w.instance("petstore-qa-1").State, delivery.InstanceDown)
			if url := w.instance("petstore-qa-1").URL; url != "" && url != w.web.URL {
				w.Fatalf("the address %q was taken", url)
			}
		})
	}
}

func TestAnEnvironmentWhoseRunnerDiedIsDestroyedAndMadeAgain(t *testing.T) {
	w := newWorld(t, strings.Replace(full, `>> $SHUNT_OUTPUT'`, `>> $SHUNT_OUTPUT; while [ -e $DIR/slow ]; do sleep 0.02; done'`, 1))
	w.write("slow", "")
	w.add("")
	w.until("it comes up", func() bool { return len(w.lines("envs")) == 1 })
	w.killRunner()
	w.sh("rm slow")
	w.spawn()
	w.reach(1, delivery.BuildWaiting)
	w.until("the first is gone", func() bool { return w.instance("petstore-qa-1").State == delivery.InstanceDown })
	w.want("the second", w.instance("petstore-qa-1-2").State, delivery.InstanceUp)
	w.ship(1)
	w.want("the second", w.instance("petstore-qa-1-2").State, delivery.InstanceDown)
}

func TestSeveralEnvironments(t *testing.T) {
	staging := `  staging:
    needs: [qa]
    env: {DIR: '@DIR'}
    deploy: 'echo "staging $(cat $SHUNT_ARTIFACT_APP)" >> $DIR/deploys'
`
	w := newWorld(t, jobs+"environments:\n"+qa+staging+production+"    needs: [qa, staging]\n"+team)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.want("deploys", w.lines("deploys"), "[staging one]")
	w.want("running", w.project().RunningBuild, 0)
	b := w.ship(1)
	w.want("deploys", w.lines("deploys"), "[staging one petstore-1-deploy-production-1 1 promote one]")
	w.want("running", w.project().RunningBuild, 1)
	w.want("master", w.remote("master"), b.Commit)
	running, ok, err := w.engine.Replaces(w.ctx, w.project(), 0)
	w.ok(err)
	w.want("in production", []any{running.Environment, ok}, []any{"production", true})
}

func TestAGateBeforeStagingKnowsNothingOfProduction(t *testing.T) {
	staging := `  staging:
    approve: {timeout: 1h}
    env: {DIR: '@DIR'}
    deploy: 'echo staging >> $DIR/deploys; test ! -e $DIR/broken'
`
	w := newWorld(t, jobs+"environments:\n"+staging+production+"    needs: [staging]\n"+team)
	w.add("master")
	w.push("develop", "", "two")
	w.fresh(2)
	w.ship0(w.hotfix("cart", "fix"))
	w.fresh(2)
	w.want("stale", w.gate(2).Stale, "")
	w.write("broken", "")
	w.promote(2) // to staging
	w.reach(2, delivery.BuildStopped)
	w.sh("rm broken")
	w.ok(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", ""))
	w.until("production asks", func() bool {
		return w.gate(2).Environment == "production" && w.build(2).Status == delivery.BuildWaiting
	})
	w.until("and says it", func() bool { return w.gate(2).Stale != "" })
	w.refused(w.decide(2, true, ""), delivery.KindRefused, "does not contain hotfix cart")
}

// ship0 promotes twice: to staging and to production.
func (w *world) ship0(number int64) {
	w.Helper()
	w.fresh(number)
	w.promote(number)
	w.until("production asks", func() bool {
		return w.gate(number).Environment == "production" && w.gate(number).State == delivery.GateOpen
	})
	w.ship(number)
}

package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// tags lists the remote's tags below a name.
func (w *world) tags(below string) []string {
	return strings.Fields(w.sh("git -C remote.git for-each-ref --format='%(refname:strip=2)' refs/tags/" + below))
}

func TestRollback(t *testing.T) {
	w := newWorld(t, jobs+"environments:\n"+slowDeploy+team)
	w.add("")
	w.ship(1)
	_, err := w.engine.Rollback(w.ctx, project, 0, "eve", "because")
	w.refused(err, delivery.KindRefused, "no build ran healthy in production before")
	w.ship(w.push("develop", "", "two"))
	three := w.ship(w.push("develop", "", "three"))
	_, err = w.engine.Rollback(w.ctx, project, 0, "eve", " ")
	w.refused(err, delivery.KindInvalid, "needs a reason")
	_, err = w.engine.Rollback(w.ctx, project, 9, "eve", "x")
	w.refused(err, delivery.KindRefused, "it never ran healthy in production")
	_, err = w.engine.Rollback(w.ctx, project, 3, "eve", "x")
	w.refused(err, delivery.KindRefused, "it is what production runs")

	b, err := w.engine.Rollback(w.ctx, project, 0, "eve", "the cart is empty")
	w.ok(err)
	w.want("target", b.Number, 2)
	w.until("it runs again", func() bool { return w.project().RunningBuild == 2 })
	w.reach(2, delivery.BuildSucceeded)
	w.want("the last deploy", w.lines("deploys")[3], "petstore-2-rollback-production-1-1 4 rollback two")
	w.want("master", w.remote("master"), three.Commit)
	w.want("production", w.project().ProductionBuild, 3)
	tags := w.tags("rollback")
	w.want("tags", len(tags), 1)
	w.want("where it is", w.remote(tags[0]+"^{commit}"), w.build(2).Commit)
	w.says(w.sh("git -C remote.git cat-file -p "+tags[0]), "Roll production back to build 2", "Shunt-By: eve", "Shunt-Reason: the cart is empty")
	w.audited(2, "eve", "rollback")
	w.says(w.project().Hold, "rolled back to build 2 by eve: the cart is empty")

	// The main lane is on hold; a hotfix goes. It starts at what was released last.
	n := w.push("develop", "", "four")
	w.fresh(n)
	w.refused(w.decide(n, true, ""), delivery.KindRefused, "on hold")
	w.ship(w.hotfix("cart", "fix"))

	_, err = w.engine.Rollback(w.ctx, project, 1, "eve", "far back")
	w.ok(err)
	w.until("it runs again", func() bool { return w.project().RunningBuild == 1 })
	w.clock.step(time.Second)
	w.until("its tag is there", func() bool { return len(w.tags("rollback")) == 2 })
	w.want("incident", w.project().Incident, "")
	w.sync()
	w.want("incident", w.project().Incident, "")
	w.want("the word", w.lines("deploys")[5], "petstore-1-rollback-production-1-1 6 rollback one")
}

func TestARollbackThatFailsIsTriedAgain(t *testing.T) {
	w := newWorld(t, jobs+"environments:\n"+slowDeploy+team)
	w.add("")
	w.ship(1)
	w.ship(w.push("develop", "", "two"))
	w.write("broken-1", "")
	_, err := w.engine.Rollback(w.ctx, project, 0, "eve", "bug")
	w.ok(err)
	b := w.reach(1, delivery.BuildStopped)
	w.says(b.Reason, "rollback production failed")
	w.want("running", w.project().RunningBuild, 2)
	w.ok(w.engine.Resolve(w.ctx, project, 1, "give-up", "eve", "later"))
	w.reach(1, delivery.BuildSucceeded) // it was in production before
	w.sh("rm broken-1")
	_, err = w.engine.Rollback(w.ctx, project, 1, "eve", "again")
	w.ok(err)
	w.until("it runs again", func() bool { return w.project().RunningBuild == 1 })
	w.reach(1, delivery.BuildSucceeded)
}

func TestARollbackAnswersADeploymentOfWhichNobodyKnows(t *testing.T) {
	w := newWorld(t, jobs+"environments:\n"+slowDeploy+team)
	w.add("")
	w.ship(1)
	w.push("develop", "", "two")
	w.reach(2, delivery.BuildWaiting)
	w.write("slow", "")
	w.promote(2)
	w.until("it deploys", func() bool { return len(w.lines("deploys")) == 2 })
	w.killRunner()
	w.sh("rm slow")
	w.spawn()
	w.reach(2, delivery.BuildStopped)
	b, err := w.engine.Rollback(w.ctx, project, 0, "eve", "it is down")
	w.ok(err)
	w.want("target", b.Number, 1)
	w.says(w.reach(2, delivery.BuildFailed).Reason, "given up by eve, who rolls back")
	w.until("build 1 is deployed again", func() bool { return len(w.lines("deploys")) == 3 })
	w.reach(1, delivery.BuildSucceeded)
	w.want("deployment of build 2", w.deployments(2)[0].State, delivery.DeploymentGivenUp)
}

func TestTakeover(t *testing.T) {
	t.Parallel()
	t.Run("numbers go on", func(t *testing.T) {
		w := newWorld(t, plain)
		w.ok(w.engine.AddProject(w.ctx, NewProject{Name: project, URL: w.in("remote.git"), Local: true, InProduction: "master", NextBuild: 42, By: "ops"}))
		w.reach(41, delivery.BuildSucceeded)
		w.want("production/41", w.remote("production/41^{commit}"), w.remote("master"))
		w.says(w.sh("git -C remote.git cat-file -p production/41"), "Shunt-Takeover:")
		w.audited(41, "ops", "takeover")
		b := w.ship(w.push("develop", "", "two"))
		w.want("number", b.Number, 42)
		w.want("production/42", w.remote("production/42^{commit}"), b.Commit)
		_, err := w.engine.Rollback(w.ctx, project, 0, "eve", "bug")
		w.refused(err, delivery.KindRefused, "the artifacts of build 41 are no longer stored")
	})
	t.Run("what was in production without artifacts is rolled back to", func(t *testing.T) {
		w := newWorld(t, strings.Replace(strings.Replace(plain, "    artifacts: {app: out.txt}\n", "", 1), "$(cat $SHUNT_ARTIFACT_APP)", "$(cat app.txt)", 1))
		w.add("master")
		w.ship(w.push("develop", "", "two"))
		_, err := w.engine.Rollback(w.ctx, project, 0, "eve", "bug")
		w.ok(err)
		w.until("it runs again", func() bool { return w.project().RunningBuild == 1 })
		w.reach(1, delivery.BuildSucceeded)
		w.want("deploys", w.lines("deploys")[1], "petstore-1-rollback-production-1-1 3 rollback one")
	})
	t.Run("a commit without a pipeline file", func(t *testing.T) {
		w := newWorld(t, plain)
		w.sh("cd clone && git checkout -q --orphan old && git rm -q --cached .shunt.yml && rm .shunt.yml && git commit -qm old && git push -q origin old && git checkout -q -f develop")
		w.ok(w.engine.AddProject(w.ctx, NewProject{Name: project, URL: w.in("remote.git"), Local: true, InProduction: "old", By: "ops"}))
		w.reach(1, delivery.BuildSucceeded)
		p := w.project()
		w.want("production", p.ProductionCommit, w.remote("old"))
	})
	t.Run("what is not there", func(t *testing.T) {
		w := newWorld(t, plain)
		add := func(in NewProject) error {
			in.Name, in.URL, in.Local = project, w.in("remote.git"), true
			return w.engine.AddProject(w.ctx, in)
		}
		w.refused(add(NewProject{InProduction: "v9"}), delivery.KindInvalid, "no tag, branch or commit v9")
		w.refused(add(NewProject{InProduction: "master", NextBuild: 1}), delivery.KindInvalid, "--next-build must be 2 or more")
		w.ok(add(NewProject{}))
		w.refused(add(NewProject{}), delivery.KindConflict, "there is one of that name")
	})
	t.Run("a repository without a pipeline file learns from the first", func(t *testing.T) {
		w := newWorld(t, strings.Replace(plain, "version: 1\n", "version: 1\nbranches: {integration: next, production: live}\n", 1))
		file := w.read("clone/.shunt.yml")
		w.sh("cd clone && git checkout -q master && git rm -q .shunt.yml && git commit -qm none && git push -q origin master master:main && git push -q origin :develop")
		w.add("")
		w.want("branches", w.project().Branches.Integration, "develop")
		w.write("clone/.shunt.yml", file)
		w.git("checkout -q -B main && git add .shunt.yml && git commit -qm file && git push -q origin main main:next")
		w.sync()
		w.want("branches", w.project().Branches.Integration+w.project().Branches.Production, "nextlive")
		b := w.ship(1)
		w.want("live", w.remote("live"), b.Commit)
	})
}

func TestTrunk(t *testing.T) {
	w := newWorld(t, strings.Replace(plain, "version: 1\n", "version: 1\nbranches: {integration: main, production: main}\n", 1))
	w.git("push -q origin master:main && git push -q origin :develop :master && git checkout -q -B main origin/main 2>/dev/null || git checkout -q -b main")
	w.add("")
	w.ship(1)
	two := w.push("main", "", "two")
	h := w.hotfix("cart", "fix")
	b := w.ship(h)
	w.want("main", w.remote("main"), w.build(two).Commit)
	w.want("production/3", w.remote("production/3^{commit}"), b.Commit)
	w.want("debts", w.debts(), 1)
	w.until("the older build is stale", func() bool { return w.gate(two).Stale != "" })
	w.git("checkout -q main && git merge -q -X ours -m back hotfix/cart && git push -q origin main")
	n := w.pushed().Number
	w.ship(n)
	w.want("debts", w.debts(), 0)
	w.sync()
	w.want("incident", w.project().Incident, "")
}

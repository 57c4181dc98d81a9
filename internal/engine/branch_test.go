package engine

import (
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
)

// meddle is a push to master by hand.
const meddle = `cd "$(dirname "$0")/clone" && export GIT_AUTHOR_NAME=eve GIT_AUTHOR_EMAIL=eve@example.org GIT_COMMITTER_NAME=eve GIT_COMMITTER_EMAIL=eve@example.org
git fetch -q origin && git checkout -q --detach "${ON:-origin/master}" && git commit -q --allow-empty -m 'by hand' && git push -q origin HEAD:master
`

func TestProductionBranchMovedByHandBeforeTheDecision(t *testing.T) {
	w := newWorld(t, plain)
	w.add("master")
	w.push("develop", "", "two")
	h := w.hotfix("cart", "fix")
	w.reach(2, delivery.BuildWaiting)
	w.reach(h, delivery.BuildWaiting)
	w.write("meddle", meddle)
	w.sh("sh ./meddle")
	hand := w.remote("master")
	w.sync()
	w.says(w.project().Incident, "somebody moved master by hand", delivery.ShortHash(hand))
	w.mail("incident", "master", "by hand")
	w.audited(0, "shunt", "incident")
	for _, n := range []int64{2, h} {
		w.refused(w.decide(n, true, ""), delivery.KindRefused, "nothing of petstore ships until a person has looked")
	}
	w.sync()
	w.want("mails about it", len(w.mails()["incident"]), 1)
	w.ok(w.engine.ClearIncident(w.ctx, project, "eve", "I did it"))
	w.audited(0, "eve", "incident cleared")
	w.refused(w.engine.ClearIncident(w.ctx, project, "eve", ""), delivery.KindConflict, "nothing to clear")
	w.until("the gate is asked anew", func() bool { return w.gate(2).Version > 1 })
	b := w.ship(2)
	w.want("parents of master", w.sh("git -C remote.git log -1 --format=%P master"), hand+" "+b.Commit)
	w.want("tree of master", w.remote("master^{tree}"), b.Tree)
}

func TestProductionBranchMovedByHandBetweenApprovalAndDeployment(t *testing.T) {
	w := newWorld(t, strings.Replace(full, `    down: 'echo`, `    down: 'while [ -e $DIR/slow ]; do sleep 0.02; done; echo`, 1))
	w.add("master")
	w.push("develop", "", "two")
	w.reach(2, delivery.BuildWaiting)
	w.write("slow", "")
	w.promote(2)
	w.until("the QA is being destroyed", func() bool { return w.node(2, "down/qa").State == delivery.NodeRunning })
	w.write("meddle", meddle)
	w.sh("sh ./meddle && rm slow")
	w.reach(2, delivery.BuildWaiting)
	w.want("deployments", len(w.deployments(2)), 0)
	w.want("deploys", len(w.lines("deploys")), 0)
	w.says(w.project().Incident, "somebody moved master by hand")
	w.audited(2, "shunt", "approval void")
	w.want("gate", w.gate(2).State, delivery.GateOpen)
	w.ok(w.engine.ClearIncident(w.ctx, project, "eve", "I did it"))
	w.until("the gate is asked anew", func() bool { return w.gate(2).Binding.Branch == w.remote("master") })
	w.ship(2)
}

func TestProductionBranchMovedByHandBetweenDeploymentAndRelease(t *testing.T) {
	t.Parallel()
	file := jobs + "environments:\n" + slowDeploy + team
	t.Run("to where the build cannot follow", func(t *testing.T) {
		w := newWorld(t, file)
		w.add("master")
		w.push("develop", "", "two")
		w.write("meddle", meddle)
		w.reach(2, delivery.BuildWaiting)
		w.promote(2)
		b := w.reach(2, delivery.BuildStopped)
		w.says(b.Reason, "build 2 is deployed, but master was moved by hand")
		w.want("production/2", w.remote("production/2"), "")
		w.want("running", w.project().RunningBuild, 2)
		w.says(w.project().Incident, "moved by hand")
		hand := w.remote("master")
		w.ok(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", "too early"))
		w.until("it stops again", func() bool {
			n := w.node(2, "release/production")
			return n.Attempt == 2 && n.State == delivery.NodeFailed
		})
		w.reach(2, delivery.BuildStopped)
		w.ok(w.engine.ClearIncident(w.ctx, project, "eve", "I did it"))
		w.ok(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", "looked"))
		w.reach(2, delivery.BuildSucceeded)
		w.want("parents of master", w.sh("git -C remote.git log -1 --format=%P master"), hand+" "+b.Commit)
		w.want("production/2", w.remote("production/2^{commit}"), b.Commit)
		w.want("deploys", len(w.lines("deploys")), 1)
	})
	t.Run("beyond the build", func(t *testing.T) {
		w := newWorld(t, file)
		w.add("master")
		w.push("develop", "", "two")
		w.write("meddle", "ON=origin/develop\n"+meddle)
		b := w.ship(2)
		w.want("production/2", w.remote("production/2^{commit}"), b.Commit)
		w.want("the tip that Shunt left", w.project().BranchTip, b.Commit)
		w.sync()
		w.says(w.project().Incident, "somebody moved master by hand from "+delivery.ShortHash(b.Commit))
	})
}

func TestATagThatWasMovedOrDeletedIsAnIncident(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, push, words string }{
		{"moved", "push -q -f origin develop~1:refs/tags/build/2", "the tag build/2 was moved on the remote"},
		{"deleted", "push -q origin :refs/tags/build/2", "the tag build/2 was deleted on the remote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, plain)
			w.add("master")
			w.push("develop", "", "two")
			w.reach(2, delivery.BuildWaiting)
			w.git(c.push)
			w.sync()
			w.says(w.project().Incident, c.words)
			w.refused(w.decide(2, true, ""), delivery.KindRefused, c.words)
			w.ok(w.engine.ClearIncident(w.ctx, project, "eve", "I did it"))
			w.sync()
			w.want("incident", w.project().Incident, "")
			b := w.ship(2)
			w.want("what was deployed", w.remote("production/2^{commit}"), b.Commit)
		})
	}
}

func TestATagInTheWayOfProduction(t *testing.T) {
	t.Parallel()
	t.Run("blocks it", func(t *testing.T) {
		w := newWorld(t, plain)
		w.git("push -q origin master:refs/tags/production")
		w.add("")
		w.reach(1, delivery.BuildWaiting)
		w.says(w.gate(1).Stale, "the remote has refs/tags/production")
		w.refused(w.decide(1, true, ""), delivery.KindRefused, "refs/tags/production")
		w.git("push -q origin :refs/tags/production")
		w.sync()
		w.until("the way is free", func() bool { return w.gate(1).Stale == "" })
		w.ship(1)
	})
	t.Run("stands below it", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("")
		w.reach(1, delivery.BuildWaiting)
		w.git("push -q origin master:refs/tags/production/1/x")
		w.promote(1)
		w.until("the approval is void", func() bool { g := w.gate(1); return g.Version > 1 && g.State == delivery.GateOpen })
		w.want("deploys", len(w.lines("deploys")), 0)
		w.says(w.gate(1).Stale, "refs/tags/production/1/x")
	})
	t.Run("is at another commit", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("")
		w.ship(1)
		n := w.push("develop", "", "two")
		w.reach(n, delivery.BuildWaiting)
		w.git("push -q origin develop~1:refs/tags/production/2")
		w.sync()
		w.until("the gate says it", func() bool { return w.gate(n).Stale != "" })
		w.refused(w.decide(n, true, ""), delivery.KindRefused, "refs/tags/production/2")
	})
	t.Run("comes at another commit while it is deployed", func(t *testing.T) {
		w := newWorld(t, jobs+"environments:\n"+slowDeploy+team)
		w.add("master")
		w.push("develop", "", "two")
		w.write("meddle", "cd "+w.in("clone")+" && git push -q origin develop~1:refs/tags/production/2")
		w.reach(2, delivery.BuildWaiting)
		w.promote(2)
		b := w.reach(2, delivery.BuildStopped)
		w.says(b.Reason, "the tag production/2 is already on the remote at another commit")
		w.says(w.project().Incident, "Shunt moves no tag")
		w.want("master", w.remote("master"), w.remote("production/1^{commit}"))
	})
	t.Run("is at the same commit", func(t *testing.T) {
		w := newWorld(t, jobs+"environments:\n"+slowDeploy+team)
		w.add("master")
		w.push("develop", "", "two")
		w.write("meddle", "cd "+w.in("clone")+" && git push -q origin develop:refs/tags/production/2")
		b := w.ship(2)
		w.want("production/2", w.remote("production/2"), b.Commit)
		w.want("master", w.remote("master"), b.Commit)
		w.sync()
		w.want("incident", w.project().Incident, "")
	})
}

func TestABuildTagThatIsThere(t *testing.T) {
	t.Parallel()
	t.Run("at the same commit is adopted", func(t *testing.T) {
		w := newWorld(t, plain)
		w.git("push -q origin master:refs/tags/build/1")
		w.add("")
		b := w.reach(1, delivery.BuildWaiting)
		w.want("the tag", b.TagObject, b.Commit)
		w.ship(1)
	})
	t.Run("at another commit is an incident", func(t *testing.T) {
		w := newWorld(t, plain)
		w.git("push -q origin master:refs/tags/build/2")
		w.add("")
		w.push("develop", "", "two")
		b := w.reach(2, delivery.BuildFailed)
		w.says(b.Reason, "the tag build/2 is already on the remote at another commit")
		w.says(w.project().Incident, "build/2")
	})
}

func TestAPushThatTheRemoteRefuses(t *testing.T) {
	t.Parallel()
	t.Run("of the release: deployed, tag pending", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("master")
		master := w.remote("master")
		w.push("develop", "", "two")
		w.reach(2, delivery.BuildWaiting)
		w.hook("refs/tags/production/*")
		w.promote(2)
		b := w.reach(2, delivery.BuildStopped)
		w.says(b.Reason, "release production failed: the remote refused the push", "refused by a hook")
		w.want("master", w.remote("master"), master)
		w.want("running", w.project().RunningBuild, 2)
		w.unhook()
		w.ok(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", "the hook is gone"))
		w.reach(2, delivery.BuildSucceeded)
		w.want("production/2", w.remote("production/2^{commit}"), b.Commit)
		w.want("master", w.remote("master"), b.Commit)
		w.want("deploys", len(w.lines("deploys")), 1)
	})
	t.Run("of the build tag: run it again", func(t *testing.T) {
		w := newWorld(t, plain)
		w.hook("refs/tags/*")
		w.add("")
		b := w.reach(1, delivery.BuildFailed)
		w.says(b.Reason, "tag failed: the remote refused the push")
		w.unhook()
		w.ok(w.engine.Rerun(w.ctx, project, 1, "bob"))
		w.ship(1)
		w.want("attempts of the job", w.node(1, "job/build").Attempt, 1)
	})
}

func TestTheBuildTagIsPushedOnceTheRemoteIsBack(t *testing.T) {
	w := newWorld(t, strings.Replace(jobs, "cp app.txt out.txt", "cp app.txt out.txt; mv @DIR/remote.git @DIR/away.git", 1)+"environments:\n"+production+team)
	w.add("")
	w.until("the tag waits", func() bool { return strings.Contains(w.node(1, "tag").Reason, "cannot be reached") })
	w.want("build", w.build(1).Status, delivery.BuildRunning)
	w.sh("mv away.git remote.git")
	w.clock.step(patience)
	w.reach(1, delivery.BuildWaiting)
	w.want("the tag", w.remote("build/1^{commit}"), w.build(1).Commit)
}

package engine

import (
	"os"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

func TestAFailedDeployment(t *testing.T) {
	t.Parallel()
	file := jobs + "environments:\n" + slowDeploy + team
	t.Run("tags nothing, moves nothing, and is tried again", func(t *testing.T) {
		w := newWorld(t, file)
		w.add("master")
		master := w.remote("master")
		w.push("develop", "", "two")
		w.reach(2, delivery.BuildWaiting)
		w.write("broken", "")
		w.write("verdict", "1")
		w.promote(2)
		b := w.reach(2, delivery.BuildStopped)
		w.says(b.Reason, "deploy production failed: step 1 exited with code 1", "build 1", "as before")
		w.want("master", w.remote("master"), master)
		w.want("production/2", w.remote("production/2"), "")
		w.want("running", w.project().RunningBuild, 1)
		w.mail("deploy_failed", "build 1", "as before", "shunt resolve petstore 2 retry")
		w.refused(w.engine.Resolve(w.ctx, project, 2, "confirm-live", "bob", ""), delivery.KindConflict, "how its deployment ended is known")
		w.refused(w.engine.Resolve(w.ctx, project, 2, "dance", "bob", ""), delivery.KindInvalid, "unknown action dance")
		w.sh("rm broken")
		w.ok(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", "disk was full"))
		w.reach(2, delivery.BuildSucceeded)
		w.want("deploys", w.lines("deploys"), "[petstore-2-deploy-production-1 2 promote two petstore-2-deploy-production-2 3 promote two]")
		w.want("production/2", w.remote("production/2^{commit}"), b.Commit)
		w.refused(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", ""), delivery.KindConflict, "it asks nothing: it is succeeded")
	})
	t.Run("is given up", func(t *testing.T) {
		w := newWorld(t, file)
		w.add("master")
		w.push("develop", "", "two")
		w.reach(2, delivery.BuildWaiting)
		w.write("broken", "")
		w.promote(2)
		w.reach(2, delivery.BuildStopped)
		w.ok(w.engine.Resolve(w.ctx, project, 2, "give-up", "bob", "tomorrow"))
		b := w.reach(2, delivery.BuildFailed)
		w.says(b.Reason, "given up by bob: tomorrow")
		w.sh("rm broken")
		w.push("develop", "", "three")
		w.ship(3)
	})
	t.Run("was not ready", func(t *testing.T) {
		w := newWorld(t, jobs+"environments:\n"+production+"    timeout: 1s\n    url: '@WEB'\n    ready: /healthz\n"+team)
		w.add("")
		w.reach(1, delivery.BuildWaiting)
		w.sick.Store(true)
		w.promote(1)
		b := w.reach(1, delivery.BuildStopped)
		w.says(b.Reason, "did not become ready", "500", "it is not healthy")
		w.sick.Store(false)
		w.ok(w.engine.Resolve(w.ctx, project, 1, "retry", "bob", ""))
		w.reach(1, delivery.BuildSucceeded)
	})
}

func TestALostDeploymentIsLookedUpAndNeverRepeated(t *testing.T) {
	lose := func(t *testing.T, file, verdict string) *world {
		t.Helper()
		w := newWorld(t, file)
		w.add("master")
		w.push("develop", "", "two")
		w.reach(2, delivery.BuildWaiting)
		w.write("slow", "")
		if verdict != "" {
			w.write("verdict", verdict)
		}
		w.promote(2)
		w.until("it deploys", func() bool { return len(w.lines("deploys")) == 1 })
		w.killRunner()
		w.spawn()
		return w
	}
	verified := jobs + "environments:\n" + slowDeploy + team
	t.Run("it is live", func(t *testing.T) {
		w := lose(t, verified, "0")
		w.reach(2, delivery.BuildSucceeded)
		w.want("deploys", w.lines("deploys"), "[petstore-2-deploy-production-1 2 promote two]")
		w.want("production/2", w.remote("production/2^{commit}"), w.build(2).Commit)
	})
	t.Run("it is not live", func(t *testing.T) {
		w := lose(t, verified, "1")
		b := w.reach(2, delivery.BuildStopped)
		w.says(b.Reason, "it was looked up: not live")
		w.want("deployment", w.deployments(2)[0].State, delivery.DeploymentFailed)
		w.want("production/2", w.remote("production/2"), "")
		w.sh("rm slow")
		w.ok(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", ""))
		w.reach(2, delivery.BuildSucceeded)
	})
	t.Run("nobody knows", func(t *testing.T) {
		for _, file := range []string{verified, jobs + "environments:\n" + production0 + team} {
			t.Run("", func(t *testing.T) {
				w := lose(t, file, "")
				b := w.reach(2, delivery.BuildStopped)
				w.says(b.Reason, "a person has to look")
				w.want("deployment", w.deployments(2)[0].State, delivery.DeploymentUnknown)
				w.mail("deploy_failed", "nobody knows")
				w.refused(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", ""), delivery.KindConflict, "nobody knows yet", "confirm-live")
				w.ok(w.engine.Resolve(w.ctx, project, 2, "confirm-live", "bob", "I see it"))
				w.reach(2, delivery.BuildSucceeded)
				w.want("deploys", len(w.lines("deploys")), 1)
				w.want("production", w.project().RunningBuild, 2)
				w.audited(2, "bob", "confirm-live")
			})
		}
	})
	t.Run("a person says that it is not live", func(t *testing.T) {
		w := lose(t, verified, "")
		w.reach(2, delivery.BuildStopped)
		w.ok(w.engine.Resolve(w.ctx, project, 2, "confirm-not-live", "bob", "old page"))
		w.until("it is known", func() bool { return w.node(2, "deploy/production").State == delivery.NodeFailed })
		w.reach(2, delivery.BuildStopped)
		w.want("deployment", w.deployments(2)[0].State, delivery.DeploymentFailed)
		w.sh("rm slow")
		w.ok(w.engine.Resolve(w.ctx, project, 2, "retry", "bob", ""))
		w.reach(2, delivery.BuildSucceeded)
		w.want("deploys", len(w.lines("deploys")), 2)
	})
	t.Run("it is given up", func(t *testing.T) {
		w := lose(t, verified, "")
		w.reach(2, delivery.BuildStopped)
		w.ok(w.engine.Resolve(w.ctx, project, 2, "give-up", "bob", "enough"))
		b := w.reach(2, delivery.BuildFailed)
		w.says(b.Reason, "given up by bob: enough")
		w.want("release", w.node(2, "release/production").State, delivery.NodeUnreached)
		w.want("deployment", w.deployments(2)[0].State, delivery.DeploymentGivenUp)
		w.sh("rm slow")
		w.push("develop", "", "three")
		w.ship(3)
	})
}

func TestWhatWasApprovedIsWhatIsDeployed(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	artifacts, err := w.store.Artifacts(w.ctx, w.build(1).ID)
	w.ok(err)
	path, err := w.engine.Blobs.Path(artifacts[0].SHA256)
	w.ok(err)
	w.ok(os.Chmod(path, 0o600))
	w.ok(os.WriteFile(path, []byte("owned"), 0o600))
	w.promote(1)
	b := w.reach(1, delivery.BuildStopped)
	w.says(b.Reason, "artifact app is not what was approved")
	w.want("deploys", len(w.lines("deploys")), 0)
	w.ok(os.WriteFile(path, []byte("one"), 0o600))
	w.ok(w.engine.Resolve(w.ctx, project, 1, "retry", "bob", "restored"))
	w.reach(1, delivery.BuildSucceeded)
	w.want("deploys", w.lines("deploys"), "[petstore-1-deploy-production-2 1 promote one]")
}

func TestOneDeploymentAtATimeAndHotfixesFirst(t *testing.T) {
	w := newWorld(t, jobs+"environments:\n"+slowDeploy+team)
	w.add("master")
	w.push("develop", "", "two")
	w.push("develop", "", "three")
	for n := range int64(2) {
		w.reach(n+2, delivery.BuildWaiting)
	}
	w.write("slow", "")
	w.write("broken-2", "")
	w.promote(2)
	w.until("build 2 deploys", func() bool { return len(w.lines("deploys")) == 1 })
	w.promote(3)
	w.until("build 3 waits", func() bool { return w.node(3, "deploy/production").State == delivery.NodeWaiting })
	w.says(w.node(3, "deploy/production").Reason, "for the deployment of build 2 to end")
	n := w.hotfix("cart", "fix")
	w.reach(n, delivery.BuildWaiting)
	w.promote(n)
	w.until("the hotfix waits", func() bool { return w.node(n, "deploy/production").State == delivery.NodeWaiting })
	w.sh("rm slow")
	w.reach(2, delivery.BuildStopped)
	w.reach(n, delivery.BuildSucceeded)
	w.says(w.lines("deploys")[1], "petstore-4")
	// What was approved for another production is void.
	w.until("the approval of build 3 is void", func() bool { g := w.gate(3); return g.Version > 1 && g.State == delivery.GateOpen })
	w.audited(3, "shunt", "approval void")
	w.want("deployments of build 3", len(w.deployments(3)), 0)
}

func TestAnApprovalIsVoidOnceProductionMoved(t *testing.T) {
	w := newWorld(t, jobs+"environments:\n"+slowDeploy+team)
	w.add("master")
	w.push("develop", "", "two")
	w.push("develop", "", "three")
	w.reach(2, delivery.BuildWaiting)
	w.reach(3, delivery.BuildWaiting)
	w.write("slow", "")
	w.promote(2)
	w.until("build 2 deploys", func() bool { return len(w.lines("deploys")) == 1 })
	w.promote(3)
	w.until("build 3 waits", func() bool { return w.node(3, "deploy/production").State == delivery.NodeWaiting })
	w.sh("rm slow")
	w.reach(2, delivery.BuildSucceeded)
	w.until("build 3 asks again", func() bool { g := w.gate(3); return g.Version > 1 && g.State == delivery.GateOpen })
	w.want("deployments of build 3", len(w.deployments(3)), 0)
	w.ship(3)
	w.want("master", w.remote("master"), w.build(3).Commit)
}

func TestADeploymentWaitsForTheRemoteAndGoesOnByItself(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.sh("mv remote.git away.git")
	w.promote(1)
	w.until("it waits for the remote", func() bool { return w.node(1, "deploy/production").Reason != "" })
	w.says(w.node(1, "deploy/production").Reason, "the git remote cannot be read")
	w.want("deploys", len(w.lines("deploys")), 0)
	w.sh("mv away.git remote.git")
	w.clock.step(time.Minute)
	w.reach(1, delivery.BuildSucceeded)
}

func TestACancelledBuildThatWaitsForTheRemoteEnds(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.sh("mv remote.git away.git")
	w.promote(1)
	w.until("it waits for the remote", func() bool { return w.node(1, "deploy/production").Reason != "" })
	w.ok(w.engine.Cancel(w.ctx, project, 1, "bob", "another day"))
	w.reach(1, delivery.BuildCancelled)
	w.want("deployments", len(w.deployments(1)), 0)
}

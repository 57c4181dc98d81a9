package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// restore exchanges the database for an older copy, as a restore does, and lets the
// server wait. The runner is another one, which knows no job.
func (w *world) restore(copied string, paused func() bool) {
	w.Helper()
	w.close()
	w.sh("rm -rf shunt.db* logs work && cp " + copied + " shunt.db")
	w.killRunner()
	w.sh("rm -rf runner")
	w.spawn()
	w.paused = paused
	w.open()
}

func (w *world) backup(name string) string {
	w.Helper()
	w.ok(store.CopySQLite(w.ctx, w.in("shunt.db"), w.in(name)))
	return name
}

func (w *world) adopt() *Plan {
	w.Helper()
	plan, err := w.engine.Plan(w.ctx, project)
	w.ok(err)
	w.ok(w.engine.Adopt(w.ctx, []*Plan{plan}, "ops", "the disk died", func(context.Context, *store.Tx) error { return nil }))
	return plan
}

// refs is all that the remote holds.
func (w *world) refs() string { return w.sh("git -C remote.git for-each-ref") }

func TestAnOlderDatabaseLearnsFromGitAndRepeatsNothing(t *testing.T) {
	w := newWorld(t, full)
	w.add("")
	w.ship(1)
	w.reach(w.push("develop", "", "two"), delivery.BuildWaiting)
	copied := w.backup("copy.db")

	w.ship(2)
	w.reach(w.push("develop", "", "three"), delivery.BuildWaiting)
	w.ok(w.decide(3, false, "not this one"))
	w.reach(3, delivery.BuildRejected)
	fix := w.ship(w.hotfix("cart", "fixed"))
	w.reach(w.push("develop", "", "five"), delivery.BuildWaiting)
	before, deploys := w.refs(), w.lines("deploys")

	var waiting atomic.Bool
	waiting.Store(true)
	w.restore(copied, waiting.Load)
	w.want("pushes that are acted on meanwhile", w.sync(), "[]")
	w.commit("develop", "", "six, pushed while it waits")
	before = strings.ReplaceAll(before, w.git("rev-parse HEAD~1"), w.git("rev-parse HEAD"))
	plan, err := w.engine.Plan(w.ctx, project)
	w.ok(err)
	words := strings.Join(plan.Words(), "\n")
	w.says(words, "build 3 (develop, ", "build 4 (hotfix/cart, ", "released by bob", "build 2 is waiting in the database and becomes succeeded: git says that it was released",
		"production is build 4", "the next build is 6, not 3", "develop is at "+w.git("rev-parse --short=7 develop")+", of which no build is known: it is built")
	w.want("build 2 before a person confirms", w.build(2).Status, delivery.BuildWaiting)
	w.adopt()
	waiting.Store(false)

	w.want("build 2", w.build(2).Status, delivery.BuildSucceeded)
	w.want("build 3", w.build(3).Status, delivery.BuildExpired)
	w.want("build 4", w.build(4).Status, delivery.BuildSucceeded)
	w.want("lane of 4", w.build(4).Lane, delivery.LaneHotfix)
	p := w.project()
	w.want("production", fmt.Sprint(p.ProductionBuild, p.ProductionCommit, p.RunningBuild, p.BranchTip), fmt.Sprint(4, fix.Commit, 4, fix.Commit))
	w.want("decided by", w.gate(4).DecidedBy+w.gate(2).DecidedBy, "bobbob")
	w.audited(4, "bob", "promote read back")
	w.audited(0, "ops", "reconciled")
	debts, err := w.store.BackMerges(w.ctx, project, true)
	w.ok(err)
	w.want("debts", fmt.Sprint(len(debts), debts[0].Number, debts[0].Owner), "1 4bob")

	// The server works on: one new build, numbered above all tags; nothing is tagged
	// or deployed again.
	pushes := w.sync()
	w.want("pushes", fmt.Sprint(len(pushes), pushes[0].Number), "1 6")
	w.reach(6, delivery.BuildWaiting)
	w.until("the environment of build 2 is destroyed", func() bool { return w.instance("petstore-qa-2").State == delivery.InstanceDown })
	w.want("no incident", w.project().Incident, "")
	w.sh("git -C remote.git tag -d build/6")
	w.want("the remote", w.refs(), before)
	w.want("deploys", w.lines("deploys"), deploys)
}

func TestADeploymentThatTheBackupCutInHalfIsUnknown(t *testing.T) {
	w := newWorld(t, jobs+"environments:\n"+strings.Replace(production, "deploy: '", "deploy: 'touch $DIR/begun; while [ ! -e $DIR/go ]; do sleep 0.02; done; ", 1)+team)
	w.add("")
	w.reach(1, delivery.BuildWaiting)
	w.promote(1)
	w.until("it deploys", w.exists("begun"))
	copied := w.backup("copy.db")
	w.write("go", "")
	w.reach(1, delivery.BuildSucceeded)
	// The release got lost with the remote's tag: git tells nothing of it.
	w.sh("git -C remote.git tag -d production/1 && git -C remote.git update-ref refs/heads/master $(git -C clone rev-list --max-parents=0 HEAD)")
	w.restore(copied, func() bool { return true })
	plan := w.adopt()
	w.says(strings.Join(plan.Words(), "\n"), "build 1 is running and goes on from there")
	w.want("build", w.build(1).Status, delivery.BuildStopped)
	w.want("deployment", w.deployments(1)[0].State, delivery.DeploymentUnknown)
	w.want("node", w.node(1, "deploy/production").State, delivery.NodeUnknown)
	w.mail("deploy_failed", "nobody knows")
	w.paused = nil
	w.close()
	w.open()
	w.ok(w.engine.Resolve(w.ctx, project, 1, "confirm-live", "bob", "I looked"))
	w.reach(1, delivery.BuildSucceeded)
	w.want("deploys", len(w.lines("deploys")), 1)
	// A later deployment has a fence above all that may have been used.
	w.ship(w.push("develop", "", "two"))
	if f := w.deployments(2)[0].Fence; f <= passFences {
		t.Errorf("the fence of the next deployment is %d", f)
	}
}

func TestARollbackAfterTheBackupIsSeen(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.ship(1)
	copied := w.backup("copy.db")
	w.ship(w.push("develop", "", "two"))
	_, err := w.engine.Rollback(w.ctx, project, 0, "cy", "two is slow")
	w.ok(err)
	w.until("one runs again", func() bool { return w.project().RunningBuild == 1 && w.build(1).Status == delivery.BuildSucceeded })
	var waiting atomic.Bool
	waiting.Store(true)
	w.restore(copied, waiting.Load)
	w.says(strings.Join(w.adopt().Words(), "\n"), "production is build 2", "production was rolled back to build 1 by cy: the main lane is held")
	waiting.Store(false)
	p := w.project()
	w.want("production and what runs", fmt.Sprint(p.ProductionBuild, p.RunningBuild), "2 1")
	w.says(p.Hold, "cy", "two is slow")
	w.sync()
	w.want("incident", w.project().Incident, "")
}

func TestTagsThatAreNotShuntsAreNotBelieved(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.ship(1)
	w.git("fetch -q --tags && git tag build/70 && git tag -a -m 'Build 71 of petstore' build/71 && git tag build/99999999999999999999 && git push -q origin build/70 build/71 build/99999999999999999999")
	forged := strings.ReplaceAll(w.sh("git -C remote.git cat-file -p production/1"), "Shunt-Build: 1", "Shunt-Build: 72")
	w.write("forged", strings.ReplaceAll(strings.ReplaceAll(forged, "tag production/1", "tag production/73"), "\n\nB", "\n\nb"))
	w.sh("cd clone && git push -q origin $(git mktag <../forged):refs/tags/production/73")
	plan, err := w.engine.Plan(w.ctx, project)
	w.ok(err)
	words := strings.Join(plan.Words(), "\n")
	w.says(words, "not believed: build/70", "not believed: build/71", "not believed: production/73: it says that it is build 72", "the next build is 74, not 2")
	w.adopt()
	w.want("production", w.project().ProductionBuild, 1)
	builds, err := w.store.Builds(w.ctx, store.BuildQuery{Project: project, Limit: 10})
	w.ok(err)
	w.want("builds", len(builds), 1)
}

func TestRebuildFromGitAndAHotfix(t *testing.T) {
	w := newWorld(t, full)
	w.add("")
	w.ship(1)
	shipped := w.ship(w.push("develop", "", "two"))
	w.reach(w.push("develop", "", "three"), delivery.BuildWaiting)
	w.sh("cd clone && git push -q origin master:wip/other")
	before, artifact := w.refs(), w.artifact(2)
	w.close()
	w.sh("rm -rf shunt.db* logs work mirrors blobs")
	w.open()
	w.want("projects", len(w.projects()), 0)
	_, err := w.engine.Rebuild(w.ctx, NewProject{Name: "other", URL: w.in("remote.git"), Local: true, By: "ops"}, nothing)
	w.refused(err, delivery.KindRefused, "it is of project petstore")
	plan, err := w.engine.Rebuild(w.ctx, NewProject{Name: project, URL: w.in("remote.git"), Local: true, By: "ops"}, nothing)
	w.ok(err)
	w.want("server", plan.Server(), "srv")
	w.audited(0, "ops", "project rebuilt")
	_, err = w.engine.Rebuild(w.ctx, NewProject{Name: project, URL: w.in("remote.git"), Local: true, By: "ops"}, nothing)
	w.refused(err, delivery.KindConflict, "has a project of that name")

	b := w.build(2)
	w.want("build 2", fmt.Sprint(b.Commit, b.Tree, b.Lane, b.Ref, b.PolicyDigest, b.Status, b.TagObject), fmt.Sprint(shipped.Commit, shipped.Tree, shipped.Lane, shipped.Ref, shipped.PolicyDigest, "succeeded", shipped.TagObject))
	w.want("its artifact", fmt.Sprint(w.artifact(2).SHA256, w.artifact(2).Size, w.artifact(2).File), fmt.Sprint(artifact.SHA256, artifact.Size, artifact.File))
	w.want("decision", fmt.Sprint(w.gate(2).State, w.gate(2).DecidedBy, w.gate(2).Reason), "promotedboblooks good")
	d := w.deployments(2)[0]
	w.want("deployment", fmt.Sprint(d.State, d.By, d.Reason, d.Kind, d.Before), "succeededboblooks goodpromote"+w.build(1).Commit)
	w.want("build 3", w.build(3).Status, delivery.BuildExpired)
	p := w.project()
	w.want("production", fmt.Sprint(p.ProductionBuild, p.ProductionCommit, p.RunningBuild, p.NextBuild, p.BranchTip), fmt.Sprint(2, shipped.Commit, 2, 4, shipped.Commit))
	w.want("pushes to act on", len(w.sync()), 0)
	w.want("incident", w.project().Incident, "")
	w.want("the remote", w.refs(), before)

	n := w.hotfix("cart", "fixed")
	w.want("its number", n, 4)
	w.ship(n)
	w.want("production", w.project().ProductionBuild, 4)
	w.says(w.sh("git -C remote.git cat-file -p production/4"), "Shunt-Promoted-By: bob")
	if w.remote("master") != w.build(4).Commit {
		t.Error("master did not move to the hotfix")
	}
	// The bytes of older builds are gone with the disk, and a rollback says so.
	_, err = w.engine.Rollback(w.ctx, project, 2, "cy", "why not")
	if err == nil {
		t.Error("a build was deployed again whose bytes are gone")
	}
}

func nothing(context.Context, *store.Tx, *Plan) error { return nil }

func (w *world) projects() []delivery.Project {
	w.Helper()
	all, err := w.store.Projects(w.ctx)
	w.ok(err)
	return all
}

func (w *world) artifact(number int64) delivery.Artifact {
	w.Helper()
	all, err := w.store.Artifacts(w.ctx, w.build(number).ID)
	w.ok(err)
	if len(all) != 1 {
		w.Fatalf("build %d has artifacts %v", number, all)
	}
	return all[0]
}

func TestTagNumbers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		template, ref string
		number        int64
	}{
		{"build/$N", "refs/tags/build/7", 7},
		{"build/$N", "refs/tags/build/07", 0},
		{"build/$N", "refs/tags/build/-7", 0},
		{"build/$N", "refs/tags/build/+7", 0},
		{"build/$N", "refs/tags/build/7x", 0},
		{"build/$N", "refs/tags/build/0", 0},
		{"build/$N", "refs/tags/build/", 0},
		{"build/$N", "refs/heads/build/7", 0},
		{"build/$N", "refs/tags/build/9999999999999999", 0},
		{"v$N-ci", "refs/tags/v7-ci", 7},
		{"v$N-ci", "refs/tags/v7", 0},
		{"fixed", "refs/tags/fixed", 0},
	} {
		if n, ok := tagNumber(tt.template, tt.ref); n != tt.number && ok || ok != (tt.number > 0) {
			t.Errorf("%s by %s is %d, %v", tt.ref, tt.template, n, ok)
		}
	}
}

func FuzzTrailersArtifacts(f *testing.F) {
	f.Add("app sha256:" + strings.Repeat("a", 64) + " 3 out.txt")
	f.Add("../x sha256:" + strings.Repeat("a", 64) + " 3 out.txt")
	f.Fuzz(func(t *testing.T, line string) {
		for _, a := range (trailers{"Shunt-Artifact": {line}}).artifacts() {
			if len(a.SHA256) != 64 || a.Size < 0 || strings.ContainsAny(a.Name, "/.\x00 ") || !slices.Contains(strings.SplitN(line, " ", 4), a.File) {
				t.Errorf("%q gives %+v", line, a)
			}
		}
	})
}

// A database that dies, or a git that fails, in the middle of reconciling leaves
// nothing of it: the next attempt begins where the first did.
func TestReconcilingThatIsCutShortLeavesNothing(t *testing.T) {
	w := newWorld(t, full)
	w.add("")
	w.ship(1)
	w.reach(w.push("develop", "", "two"), delivery.BuildWaiting)
	copied := w.backup("copy.db")
	w.ship(2)
	fix := w.ship(w.hotfix("cart", "fixed"))
	_, err := w.engine.Rollback(w.ctx, project, 2, "eve", "it got worse")
	w.ok(err)
	w.until("the rollback has left its tag", func() bool { return w.sh("git -C remote.git tag --list 'rollback/*'") != "" })
	w.reach(2, delivery.BuildSucceeded)
	refs := w.refs()

	w.restore(copied, func() bool { return true })
	var plan *Plan
	w.cut("comparing with git", func(ctx context.Context) (err error) {
		plan, err = w.engine.Plan(ctx, project)
		return err
	})
	w.want("builds that git knows and the database does not", plan.Builds() >= 1, true)
	w.want("tags that nobody believes", len(plan.Strange()), 0)
	w.cut("adopting", func(ctx context.Context) error {
		return w.engine.Adopt(ctx, []*Plan{plan}, "ops", "the disk died", func(context.Context, *store.Tx) error { return nil })
	})
	w.want("the remote", w.refs(), refs)
	w.want("production", w.project().ProductionBuild, fix.Number)
	w.want("what runs", w.project().RunningBuild, int64(2))
}

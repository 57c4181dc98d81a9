package engine

import (
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// obey types the commands that a refusal told.
func (w *world) obey(words string) {
	w.Helper()
	var commands []string
	for line := range strings.Lines(words) {
		if before, _, ok := strings.Cut(line, "git "); ok && strings.TrimSpace(before) == "" {
			commands = append(commands, strings.TrimSpace(line))
		}
	}
	if len(commands) == 0 {
		w.Fatalf("no commands in %q", words)
	}
	w.sh("cd clone && " + strings.Join(commands, " && "))
}

// turnedAway pushes what must be refused and returns the words.
func (w *world) turnedAway(branch, start, text string) string {
	w.Helper()
	w.commit(branch, start, text)
	p := w.pushed()
	if p.Refused == "" {
		w.Fatalf("the push became build %d", p.Number)
	}
	w.audited(0, "shunt", "push refused")
	return p.Refused
}

func TestAHotfixReachesProductionAndIsOwedToDevelop(t *testing.T) {
	w := newWorld(t, full)
	w.add("master")
	w.commit("develop", "", "unfinished")
	w.sync()
	w.reach(2, delivery.BuildWaiting)
	n := w.hotfix("cart-500", "fix")
	b := w.ship(n)
	w.want("master", w.remote("master"), b.Commit)
	w.want("production/3", w.remote("production/3^{commit}"), b.Commit)
	w.want("develop", w.remote("develop"), w.build(2).Commit)
	w.want("QA", w.instance("petstore-qa-3").State, delivery.InstanceDown)
	debts, err := w.store.BackMerges(w.ctx, project, true)
	w.ok(err)
	w.want("debts", len(debts), 1)
	w.want("conflicts", debts[0].Conflicts, "[app.txt]")
	w.want("owner", debts[0].Owner, "bob")
	w.mail("back_merge", "app.txt", "git")
	w.until("the older gate is stale", func() bool { return strings.Contains(w.gate(2).Stale, "hotfix cart-500") })
	w.refused(w.decide(2, true, ""), delivery.KindRefused, "does not contain hotfix cart-500 (build 3")

	// Somebody merges by hand; Shunt notices.
	w.git("checkout -q develop && git merge -q -X ours -m 'Back' hotfix/cart-500 && git push -q origin develop")
	w.sync()
	debts, err = w.store.BackMerges(w.ctx, project, true)
	w.ok(err)
	w.want("open debts", len(debts), 0)
	w.audited(3, "shunt", "back-merge paid")
	b = w.ship(4)
	w.want("master", w.remote("master"), b.Commit)
}

func TestAHotfixMustStartAtProduction(t *testing.T) {
	t.Parallel()
	t.Run("not at develop", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("master")
		w.push("develop", "", "unfinished")
		w.git("checkout -q develop && git checkout -qb hotfix/cart")
		w.write("clone/fix.txt", "fix")
		w.git("add fix.txt")
		words := w.turnedAway("hotfix/cart", "", "unfinished too")
		w.says(words, "cannot build hotfix/cart", "it carries 1 commit of develop that is not in production")
		w.want("the recipient", w.mail("refused", "hotfix/cart", "git cherry-pick").To, "[ana@example.org]")
	})
	t.Run("and its own commits can be put there", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("master")
		w.push("develop", "", "unfinished")
		w.git("checkout -q develop && git checkout -qb hotfix/cart")
		w.write("clone/fix.txt", "fix")
		w.git("add fix.txt && git commit -qm fix && git push -q origin HEAD")
		w.obey(w.pushed().Refused)
		n := w.pushed().Number
		b := w.ship(n)
		w.want("files", w.sh("git -C remote.git ls-tree --name-only "+b.Commit), ".shunt.yml\napp.txt\nfix.txt")
		w.want("its parent", b.Parent, w.remote("production/1^{commit}"))
	})
	t.Run("nothing is in production", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("")
		w.says(w.turnedAway("hotfix/cart", "master", "fix"), "nothing of petstore is in production yet")
	})
	t.Run("not at an older release", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("master")
		w.ship(w.push("develop", "", "two"))
		w.git("fetch -q --tags && git checkout -qb hotfix/cart production/1")
		w.write("clone/fix.txt", "fix")
		w.git("add fix.txt && git commit -qm fix && git push -q origin HEAD")
		words := w.pushed().Refused
		w.says(words, "it started at production/1, and production/2 shipped since")
		w.obey(words)
		w.ship(w.pushed().Number)
		w.want("master", w.remote("master"), w.remote("hotfix/cart"))
	})
	t.Run("develop that was merged into it", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("master")
		n := w.hotfix("cart", "fix")
		w.reach(n, delivery.BuildWaiting)
		w.git("checkout -q develop && git commit -q --allow-empty -m unfinished && git push -q origin develop && git checkout -q hotfix/cart && git merge -q -m oops develop && git push -q origin HEAD")
		w.says(w.pushed().Refused, "it carries 1 commit of develop", "unfinished")
	})
}

func TestTheSecondHotfixIsBroughtUpToDate(t *testing.T) {
	w := newWorld(t, plain)
	w.add("master")
	a := w.hotfix("a", "fix a")
	w.git("checkout -q master && git checkout -qb hotfix/b")
	w.write("clone/b.txt", "fix b")
	w.git("add b.txt && git commit -qm 'fix b' && git push -q origin HEAD")
	b := w.pushed().Number
	w.reach(b, delivery.BuildWaiting)
	w.ship(a)
	w.until("b is stale", func() bool { return w.gate(b).Stale != "" })
	err := w.decide(b, true, "")
	w.refused(err, delivery.KindRefused, "it does not contain hotfix a (build 2")
	w.git("fetch -q --tags && git checkout -q hotfix/b && git merge -q -m 'Up to date' production/2 && git push -q origin HEAD")
	c := w.pushed().Number
	w.ship(c)
	w.want("master", w.remote("master"), w.build(c).Commit)
	w.want("the fix of a", w.sh("git -C remote.git show master:app.txt"), "fix a")
	w.want("back-merges", w.debts(), 2)
	w.ok(w.decide(b, false, "shipped as build 4"))
	w.reach(b, delivery.BuildRejected)
}

func (w *world) debts() int {
	w.Helper()
	debts, err := w.store.BackMerges(w.ctx, project, true)
	w.ok(err)
	return len(debts)
}

func TestAMainBuildThatHasTheFixAsAnotherCommit(t *testing.T) {
	w := newWorld(t, plain)
	w.add("master")
	w.git("checkout -q develop && git commit -q --allow-empty -m ahead && git push -q origin develop")
	w.sync()
	h := w.ship(w.hotfix("cart", "fix"))
	w.git("checkout -q develop && git cherry-pick " + h.Commit + " && git push -q origin develop")
	n := w.pushed().Number
	w.reach(n, delivery.BuildWaiting)
	err := w.decide(n, true, "")
	w.refused(err, delivery.KindRefused, "it does not contain hotfix cart (build 3")
	without := func(number int64, reason string) error {
		_, err := w.engine.Decide(w.ctx, project, n, delivery.Decision{Promote: true, By: "bob", Without: number, Reason: reason})
		return err
	}
	w.refused(without(3, ""), delivery.KindInvalid, "needs a reason")
	w.refused(without(1, "why not"), delivery.KindRefused, "build 1 was to be left out")
	w.ok(without(3, "the same patch"))
	b := w.reach(n, delivery.BuildSucceeded)
	w.want("parents of master", w.sh("git -C remote.git log -1 --format=%P master"), h.Commit+" "+b.Commit)
	w.want("tree of master", w.remote("master^{tree}"), b.Tree)
	w.want("production/4", w.remote("production/4^{commit}"), b.Commit)
	w.says(w.sh("git -C remote.git cat-file -p production/4"), "Shunt-Without: 3", "Shunt-Reason: the same patch")
	w.want("the tip", w.project().BranchTip, w.remote("master"))
	w.sync()
	w.want("incident", w.project().Incident, "")
}

func TestAHotfixBranchThatWasRewrittenIsNotDeployed(t *testing.T) {
	w := newWorld(t, full)
	w.add("master")
	n := w.hotfix("cart", "fix")
	w.reach(n, delivery.BuildWaiting)
	w.git("commit -q --amend -m 'better words' && git push -q -f origin HEAD")
	w.promote(n) // nobody has looked at the remote yet
	w.until("the approval is void", func() bool { g := w.gate(n); return g.Version > 1 && g.State == delivery.GateOpen })
	w.want("deployments", len(w.deployments(n)), 0)
	w.says(w.gate(n).Stale, "its branch was rewritten after this build")
	w.refused(w.decide(n, true, ""), delivery.KindRefused, "its branch was rewritten")
}

func TestQueuedMainBuildsAreSupersededAndHotfixesNever(t *testing.T) {
	w := newWorld(t, plain)
	w.add("master")
	w.engine.Stop()
	a, b := w.push("develop", "", "two"), w.push("develop", "", "three")
	h := w.hotfix("cart", "fix")
	w.git("commit -q --allow-empty -m more && git push -q origin HEAD")
	i := w.pushed().Number
	w.says(w.build(a).Reason, "build 3 of the same branch came while it was queued")
	w.want("build 2", w.build(a).Status, delivery.BuildSuperseded)
	w.audited(a, "shunt", "build superseded")
	w.ok(w.store.Close())
	w.open()
	for _, n := range []int64{b, h, i} {
		w.reach(n, delivery.BuildWaiting)
	}
	w.refused(w.engine.Rerun(w.ctx, project, a, "bob"), delivery.KindConflict, "it is superseded")
}

func TestTheSamePushIsActedOnOnce(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.want("a second look", len(w.sync()), 0)
	w.clock.step(fetchNote)
	w.want("a third look", len(w.sync()), 0)
	w.git("push -q origin develop:feature/x && git push -q origin :feature/x")
	w.want("another branch", len(w.sync()), 0)
	w.engine.SyncLater(project)
	builds, err := w.store.Builds(w.ctx, store.BuildQuery{Project: project, Limit: 10})
	w.ok(err)
	w.want("builds", len(builds), 1)
}

func TestARemoteThatIsAwayIsSaid(t *testing.T) {
	w := newWorld(t, plain)
	w.add("")
	w.sh("mv remote.git away.git")
	if _, err := w.engine.Sync(w.ctx, project); err == nil {
		w.Fatal("no error")
	}
	state, err := w.store.FetchState(w.ctx, project)
	w.ok(err)
	if state.Error == "" {
		w.Fatal("the project does not say it")
	}
	w.sh("mv away.git remote.git")
	w.sync()
	state, err = w.store.FetchState(w.ctx, project)
	w.ok(err)
	w.want("error", state.Error, "")
	_, err = w.engine.Sync(w.ctx, "nothing")
	w.refused(err, delivery.KindNotFound)
}

func TestABranchThatCannotBeNamedIsRefusedInWords(t *testing.T) {
	w := newWorld(t, plain)
	w.add("master")
	w.sh(`git -C remote.git update-ref "$(printf 'refs/heads/hotfix/x\377')" refs/heads/master`)
	w.sync()
	p, err := w.store.PushOf(w.ctx, project, "refs/heads/hotfix/x\ufffd", w.remote("master"))
	w.ok(err)
	w.want("build", p.Number, int64(0))
	w.says(p.Refused, "not UTF-8", "another name")
}

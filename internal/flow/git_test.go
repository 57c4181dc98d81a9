package flow_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
)

// ---- what happens to a push and at a gate, checked by the oracle

// pushHotfix judges the branch's tip; a refused push is mended if mend says so.
func (w *world) pushHotfix(branch string, mend bool) {
	w.t.Helper()
	tip, p := w.refs["heads/"+branch], w.production()
	f := w.hotfixFacts(branch)
	r := flow.HotfixPush(f)
	reach := w.ancestors(tip)
	inProduction, integrated, known := w.ancestors(p.commit), w.ancestors(w.refs["heads/develop"]), w.ancestors(w.accepted[branch]...)
	carries := 0
	for id := range reach {
		if integrated[id] && !inProduction[id] && !known[id] {
			carries++
		}
	}
	want := p.commit != "" && reach[p.commit] && carries == 0
	if want != (r == nil) {
		w.t.Fatalf("push of %s: oracle says accepted=%v (%d foreign), flow says %+v", branch, want, carries, r)
	}
	if r == nil {
		w.acceptHotfix(branch)
		return
	}
	if p.commit == "" || !mend {
		return
	}
	files := maps.Clone(w.commits[p.commit].files)
	for _, c := range f.Own {
		if added := w.commits[c.ID].added; added != "" {
			files[added] = true
		}
	}
	w.log = append(w.log, "mend "+branch)
	w.paste(branch, r.Mend)
	if again := flow.HotfixPush(w.hotfixFacts(branch)); again != nil {
		w.t.Fatalf("mended %s with\n%s\nand was refused again: %v", branch, strings.Join(r.Mend, "\n"), again.Err())
	}
	if got := w.commits[w.refs["heads/"+branch]].files; !maps.Equal(got, files) {
		w.t.Fatalf("mended %s with\n%s\nand has files %v, want production's and its own %v", branch, strings.Join(r.Mend, "\n"), got, files)
	}
	w.acceptHotfix(branch)
}

// acceptHotfix checks the rule itself: nothing made on develop that never shipped.
func (w *world) acceptHotfix(branch string) {
	w.t.Helper()
	tip := w.refs["heads/"+branch]
	ever := map[string]bool{}
	for _, p := range w.released {
		maps.Copy(ever, w.ancestors(p.commit))
	}
	for id := range w.ancestors(tip) {
		if w.commits[id].develop && !ever[id] {
			w.t.Fatalf("accepted %s carries %s of develop, which never shipped", branch, id)
		}
	}
	w.accepted[branch] = append(w.accepted[branch], tip)
	w.build(delivery.LaneHotfix, branch)
}

func (w *world) build(lane delivery.Lane, branch string) candidate {
	c := candidate{int64(len(w.builds) + 1), lane, branch, w.refs["heads/"+branch]}
	w.builds = append(w.builds, c)
	return c
}

// equalPatch is the oracle of f.EqualPatch; ok is false where empty commits make
// the question a matter of taste.
func (w *world) equalPatch(c candidate) (equal, ok bool) {
	reach, inProduction := w.ancestors(c.commit), w.ancestors(w.production().commit)
	patches := map[string]bool{}
	for id := range reach {
		if !inProduction[id] {
			patches[w.commits[id].added] = true
		}
	}
	equal = true
	for id := range inProduction {
		if commit := w.commits[id]; !reach[id] && len(commit.parents) < 2 {
			if commit.added == "" {
				return false, false
			}
			equal = equal && patches[commit.added]
		}
	}
	return equal, true
}

// promote asks for production, checks the answer and releases.
func (w *world) promote(c candidate, without, mend bool) {
	w.t.Helper()
	p, master := w.production(), w.refs["heads/master"]
	f := w.candidateFacts(c)
	if without {
		f.Without = p.number
	}
	r := flow.MayPromote(f)

	reach := w.ancestors(c.commit)
	equal, sure := w.equalPatch(c)
	if !sure {
		equal = f.EqualPatch
	}
	forward := p.commit == "" && c.lane == delivery.LaneMain || reach[p.commit]
	left := p.commit != "" && !reach[p.commit] && without && equal
	want := (forward || left) && (master == w.expected || reach[master])
	if want != (r == nil) {
		w.t.Fatalf("promote %+v without=%v: oracle says %v (forward %v, equal %v), flow says %+v", c, without, want, forward, equal, r)
	}
	if r != nil {
		if mend && p.commit != "" {
			w.mendCandidate(c, f, r)
		}
		return
	}
	switch flow.ProductionMove(f) {
	case flow.MergeFastForward:
		w.setRef("heads/master", c.commit)
	case flow.MergeCommit:
		w.setRef("heads/master", w.commitFiles(false, w.commits[c.commit].files, "", master, c.commit))
	case flow.MergeNone:
	}
	title := ""
	if c.lane == delivery.LaneHotfix {
		title = c.branch
	}
	w.released = append(w.released, shipped{c.number, c.commit, title})
	w.setRef("tags/"+w.production().tag(), c.commit)
	w.expected = w.refs["heads/master"]

	onMaster := w.ancestors(w.expected)
	for _, p := range w.released {
		if !onMaster[p.commit] {
			w.t.Fatalf("master lacks %s", p.tag())
		}
	}
	if !onMaster[master] {
		w.t.Fatalf("master was moved, not forwarded, by build %d", c.number)
	}
	if !maps.Equal(w.commits[w.expected].files, w.commits[c.commit].files) {
		w.t.Fatalf("master shows other files than build %d", c.number)
	}
}

// mendCandidate does what the refusal says and asks again.
func (w *world) mendCandidate(c candidate, f flow.CandidateFacts, r *flow.Refusal) {
	w.t.Helper()
	w.log = append(w.log, fmt.Sprintf("mend build %d", c.number))
	commands := r.Mend
	branch := c.branch
	if commands[0] == "shunt backmerge petstore" {
		// `shunt backmerge` prints these; merging master also heals a branch moved by hand.
		into := w.refs["heads/develop"]
		source := w.refs["heads/master"]
		commands = flow.BackMergeCommands(branches, "origin", delivery.Forecast{
			Into: into, Commit: f.Production, Contained: len(w.ask("rev-list", "-1", source, "^"+into)) == 0,
		})
	}
	older := strings.HasPrefix(r.Mend[0], "shunt rollback") // a newer build is the way
	if len(commands) > 0 && !older {
		w.paste(branch, commands)
	}
	if c.lane == delivery.LaneHotfix {
		if again := flow.HotfixPush(w.hotfixFacts(branch)); again != nil {
			return // the branch has moved on since that build, and carries more
		}
		w.acceptHotfix(branch)
		c = w.builds[len(w.builds)-1]
	} else {
		c = w.build(c.lane, branch)
	}
	g := w.candidateFacts(c)
	again := flow.MayPromote(g)
	if again != nil && !older && (f.ContainsProduction || c.lane == delivery.LaneMain) {
		w.t.Fatalf("mended build %d with %q and was refused again: %v", c.number, commands, again.Err())
	}
	if !g.ContainsProduction {
		w.t.Fatalf("mended build %d with %q and still lacks production", c.number, commands)
	}
}

// hotfixNames are what git takes and a shell must not.
var hotfixNames = []string{"hotfix/cart-500", "hotfix/it's", "hotfix/$(touch${IFS}marker)", "hotfix/a;id&\"b", "-x", "hotfix/\u202eevil\u009b1m"}

func (w *world) step(rt *rapid.T) {
	op := rapid.SampledFrom([]string{
		"commit", "commit", "feature", "start", "start", "start old", "start wrong", "fix", "fix", "merge develop", "back-merge",
		"pick to hotfix", "pick to develop", "early merge", "push", "push", "promote", "promote", "promote new", "promote new", "promote new", "hand push", "accept",
	}).Draw(rt, "op")
	branch := rapid.SampledFrom(hotfixNames).Draw(rt, "branch")
	pick := rapid.IntRange(0, 1<<20).Draw(rt, "pick")
	mend := rapid.IntRange(0, 3).Draw(rt, "mend") == 0
	without := rapid.Bool().Draw(rt, "without")
	w.log = append(w.log, op+" "+branch)

	develop, master, tip, p := w.refs["heads/develop"], w.refs["heads/master"], w.refs["heads/"+branch], w.production()
	hotfix := func(id string) {
		w.setRef("heads/"+branch, id)
		w.pushHotfix(branch, mend)
	}
	someFile := func(reach map[string]bool) string {
		var files []string
		for id := range reach {
			if added := w.commits[id].added; added != "" {
				files = append(files, added)
			}
		}
		slices.Sort(files)
		return files[pick%len(files)]
	}
	switch op {
	case "commit":
		w.setRef("heads/develop", w.commit(true, w.newFile(), develop))
	case "feature":
		feature := w.commit(true, w.newFile(), develop)
		w.setRef("heads/develop", w.commit(true, "", w.commit(true, w.newFile(), develop), feature))
	case "start":
		if p.commit != "" {
			hotfix(w.commit(false, w.newFile(), p.commit))
		}
	case "start old":
		if len(w.released) > 0 {
			hotfix(w.commit(false, w.newFile(), w.released[pick%len(w.released)].commit))
		}
	case "start wrong":
		hotfix(w.commit(false, w.newFile(), develop))
	case "fix":
		if tip != "" {
			hotfix(w.commit(false, w.newFile(), tip))
		}
	case "merge develop":
		if tip != "" {
			hotfix(w.commit(false, "", tip, develop))
		}
	case "early merge":
		if tip != "" {
			w.setRef("heads/develop", w.commit(true, "", develop, tip))
			w.pushHotfix(branch, false)
		}
	case "back-merge":
		if !w.ancestors(develop)[master] {
			w.setRef("heads/develop", w.commit(true, "", develop, master))
		}
	case "pick to hotfix":
		if tip != "" {
			if file := someFile(w.ancestors(develop)); !w.commits[tip].files[file] {
				hotfix(w.commit(false, file, tip))
			}
		}
	case "pick to develop":
		if file := someFile(w.ancestors(master, tip)); !w.commits[develop].files[file] {
			w.setRef("heads/develop", w.commit(true, file, develop))
		}
	case "push":
		w.build(delivery.LaneMain, "develop")
	case "promote":
		if len(w.builds) > 0 {
			w.promote(w.builds[pick%len(w.builds)], without, mend)
		}
	case "promote new":
		if len(w.builds) > 0 {
			w.promote(w.builds[len(w.builds)-1], without, mend)
		}
	case "hand push":
		w.setRef("heads/master", w.commit(false, w.newFile(), master))
	case "accept":
		w.expected = master
	}
}

// TestRandomHistories runs random teams against real git. Rapid would run a
// hundred; a few dozen are what a second or two allow.
func TestRandomHistories(t *testing.T) {
	t.Parallel()
	const histories = 12
	runs, failed := 0, false
	rapid.Check(t, func(rt *rapid.T) {
		if runs >= histories && !failed {
			return
		}
		runs++
		w := newWorld(rt, t.TempDir())
		done := false
		defer func() {
			if !done { // rapid now shrinks, and every run counts
				failed = true
				rt.Logf("%s", strings.Join(w.log, "\n"))
			}
		}()
		w.build(delivery.LaneMain, "develop")
		w.promote(w.builds[0], false, false)
		for range rapid.IntRange(10, 40).Draw(rt, "steps") {
			w.step(rt)
		}
		done = true
	})
}

// TestMendHostileNames pastes the printed commands for a branch that is behind and
// then for one that carries foreign work, under every hostile name.
func TestMendHostileNames(t *testing.T) {
	t.Parallel()
	for _, branch := range hotfixNames {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, t.TempDir())
			w.promote(w.build(delivery.LaneMain, "develop"), false, false)
			first := w.production().commit
			w.setRef("heads/hotfix/other", w.commit(false, "other", first))
			w.pushHotfix("hotfix/other", false)
			w.promote(w.builds[len(w.builds)-1], false, false)
			w.setRef("heads/develop", w.commit(true, "unfinished", w.refs["heads/develop"]))

			w.setRef("heads/"+branch, w.commit(false, "fix2", w.commit(false, "fix1", first)))
			w.pushHotfix(branch, true)
			if len(w.accepted[branch]) != 1 {
				t.Fatal("the branch that was behind was not mended")
			}
			w.setRef("heads/"+branch, w.commit(false, "fix3", w.commit(false, "", w.refs["heads/"+branch], w.refs["heads/develop"])))
			w.pushHotfix(branch, true)
			if len(w.accepted[branch]) != 2 {
				t.Fatal("the branch that carried develop was not mended")
			}
			w.promote(w.builds[len(w.builds)-1], false, false)
			if err := filepath.WalkDir(w.dir, func(path string, _ os.DirEntry, err error) error {
				if filepath.Base(path) == "marker" {
					t.Errorf("a branch name was obeyed: %s", path)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

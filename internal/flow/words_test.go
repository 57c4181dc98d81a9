package flow_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
)

const (
	idA = "3f9c1e2aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	idB = "b0b0b0b1bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	idC = "c0c0c0c2cccccccccccccccccccccccccccccccc"
	idD = "d0d0d0d3dddddddddddddddddddddddddddddddd"
)

func text(r *flow.Refusal) string {
	if r == nil {
		return ""
	}
	return r.Err().Error()
}

func lines(l ...string) string { return strings.Join(l, "\n") }

func equal(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func hotfix(change func(*flow.HotfixFacts)) flow.HotfixFacts {
	f := flow.HotfixFacts{
		Project: "petstore", Branch: "hotfix/cart-500", Branches: branches,
		ProductionTag: "production/41", Production: idA, Tip: idB, ContainsProduction: true, ForkPoint: idA,
		Own: []delivery.Commit{{ID: idB, Parents: []string{idA}, Subject: "Fix cart"}},
	}
	change(&f)
	return f
}

func TestHotfixPushWords(t *testing.T) {
	t.Parallel()
	many := make([]delivery.Commit, 8)
	for i := range many {
		many[i] = delivery.Commit{ID: strings.Repeat(string(rune('0'+i)), 40)}
	}
	for name, c := range map[string]struct {
		facts flow.HotfixFacts
		want  string
	}{
		"good":                 {hotfix(func(*flow.HotfixFacts) {}), ""},
		"at production itself": {hotfix(func(f *flow.HotfixFacts) { f.Tip, f.Own = idA, nil }), ""},
		"nothing in production": {
			hotfix(func(f *flow.HotfixFacts) { f.ProductionTag, f.Production = "", "" }),
			lines(
				"cannot build hotfix/cart-500: nothing of petstore is in production yet, so there is nothing that a hotfix could start at",
				"The first build reaches production from develop:  git push origin 'develop'"),
		},
		"foreign": {
			hotfix(func(f *flow.HotfixFacts) {
				f.Foreign = []delivery.Commit{{ID: idC, Subject: "Half \x1b[2Ja\nfeature \u202e"}}
				f.Own = []delivery.Commit{ // newest first, with the merge that brought it in
					{ID: idD, Parents: []string{"e"}}, {ID: "e", Parents: []string{idB, idC}}, {ID: idB, Parents: []string{idA}},
				}
			}),
			lines(
				`cannot build hotfix/cart-500: it carries 1 commit of develop that is not in production: c0c0c0c "Half ?[2Ja?feature ?"`,
				"Put its own work on production/41:",
				"  git fetch origin --tags",
				"  git checkout -B 'hotfix/cart-500' production/41",
				"  git cherry-pick --keep-redundant-commits "+idB+" "+idD,
				"  git push --force-with-lease origin 'hotfix/cart-500'"),
		},
		"many foreign, nothing own": {
			hotfix(func(f *flow.HotfixFacts) { f.Foreign, f.Own = many, nil }),
			lines(
				"cannot build hotfix/cart-500: it carries 8 commits of develop that are not in production: 0000000, 1111111, 2222222, 3333333, 4444444 and 3 more",
				"It has no commit of its own. Start it again at production/41, then commit the fix:",
				"  git fetch origin --tags",
				"  git checkout -B 'hotfix/cart-500' production/41",
				"  git push --force-with-lease origin 'hotfix/cart-500'"),
		},
		"behind": {
			hotfix(func(f *flow.HotfixFacts) {
				f.ProductionTag, f.ContainsProduction, f.StartsAt, f.BehindTags = "production/42", false, "production/41", []string{"production/42"}
			}),
			lines(
				"cannot build hotfix/cart-500: it started at production/41, and production/42 shipped since",
				"Rebase it (or, on the branch, git merge production/42 and push):",
				"  git fetch origin --tags",
				"  git rebase --onto production/42 production/41 'hotfix/cart-500'",
				"  git push --force-with-lease origin 'hotfix/cart-500'"),
		},
		"behind, start unknown, hostile names": {
			hotfix(func(f *flow.HotfixFacts) {
				f.Branch, f.ProductionTag, f.ContainsProduction, f.ForkPoint = "-it's", "v$N;id", false, idC
			}),
			lines(
				"cannot build -it's: it left production at c0c0c0c, and v$N;id shipped since",
				"Rebase it (or, on the branch, git merge 'v$N;id' and push):",
				"  git fetch origin --tags",
				"  git rebase --onto 'v$N;id' "+idC+` 'refs/heads/-it'\''s'`,
				`  git push --force-with-lease origin 'HEAD:refs/heads/-it'\''s'`),
		},
		"no common history, no tag": {
			hotfix(func(f *flow.HotfixFacts) {
				f.Branch, f.ProductionTag, f.ContainsProduction, f.ForkPoint = "-x", "", false, ""
			}),
			lines(
				"cannot build -x: it shares no history with "+idA+", which is in production",
				"Put its own work on "+idA+":",
				"  git fetch origin --tags",
				"  git checkout --detach "+idA,
				"  git cherry-pick --keep-redundant-commits "+idB,
				"  git push --force-with-lease origin 'HEAD:refs/heads/-x'"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			equal(t, text(flow.HotfixPush(c.facts)), c.want)
		})
	}
}

func main44(change func(*flow.CandidateFacts)) flow.CandidateFacts {
	f := flow.CandidateFacts{
		Project: "petstore", Number: 44, Lane: delivery.LaneMain, Branch: "develop", Commit: idB, Branches: branches,
		Production: idA, ProductionNumber: 43, ProductionTag: "production/43", ProductionTitle: "hotfix cart-500",
		ContainsProduction: true, BranchTip: idA, ExpectedTip: idA, FastForward: true,
	}
	change(&f)
	return f
}

func TestMayPromoteWords(t *testing.T) {
	t.Parallel()
	stale := func(f *flow.CandidateFacts) {
		f.ContainsProduction, f.FastForward, f.Missing = false, false, []delivery.Commit{{ID: idA, Subject: "Fix cart"}}
	}
	onHotfix := func(f *flow.CandidateFacts) { f.Lane, f.Branch = delivery.LaneHotfix, "hotfix/x" }
	freeze := delivery.Freeze{ID: 3, Project: "petstore", Begins: time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC), Ends: time.Date(2027, 1, 2, 8, 0, 0, 0, time.UTC), Reason: "Christmas", By: "ana"}
	frozen := func(after time.Duration) func(*flow.CandidateFacts) { // that long after its begin
		return func(f *flow.CandidateFacts) {
			f.Freezes, f.Now = []delivery.Freeze{freeze}, freeze.Begins.Add(after)
		}
	}
	const lacks = "cannot promote build 44: it does not contain hotfix cart-500 (build 43, 3f9c1e2), which is in production"
	for name, c := range map[string]struct {
		change []func(*flow.CandidateFacts)
		want   string
	}{
		"good": {},
		"first build": {change: []func(*flow.CandidateFacts){func(f *flow.CandidateFacts) {
			f.Production, f.ProductionNumber, f.ContainsProduction = "", 0, false
		}}},
		"first build, hotfix": {
			[]func(*flow.CandidateFacts){onHotfix, func(f *flow.CandidateFacts) { f.Production = "" }},
			lines("cannot promote build 44: nothing of petstore is in production yet, so there is nothing to fix", "The first build reaches production from develop."),
		},
		"lacks a hotfix": {[]func(*flow.CandidateFacts){stale}, lines(lacks, "Merge it:  shunt backmerge petstore")},
		"has an equal patch": {
			[]func(*flow.CandidateFacts){stale, func(f *flow.CandidateFacts) { f.EqualPatch = true }},
			lines(lacks, `Merge it:  shunt backmerge petstore   Override:  --without 43 -m "reason"`),
		},
		"equal patch accepted": {change: []func(*flow.CandidateFacts){stale, func(f *flow.CandidateFacts) { f.EqualPatch, f.Without = true, 43 }}},
		"accepted, but no equal patch": {
			[]func(*flow.CandidateFacts){stale, func(f *flow.CandidateFacts) { f.Without = 43 }},
			lines(lacks+`, and has no equal patch for each of its commits: 3f9c1e2 "Fix cart"`, "Merge it:  shunt backmerge petstore"),
		},
		"another build accepted": {
			[]func(*flow.CandidateFacts){stale, func(f *flow.CandidateFacts) { f.EqualPatch, f.Without = true, 42 }},
			lines("cannot promote build 44: build 42 was to be left out, but it does not contain hotfix cart-500 (build 43, 3f9c1e2), which is in production now",
				`Merge it:  shunt backmerge petstore   Override:  --without 43 -m "reason"`),
		},
		"hotfix went stale": {
			[]func(*flow.CandidateFacts){stale, onHotfix, func(f *flow.CandidateFacts) { f.EqualPatch = true }},
			lines(lacks, "Merge it:", "  git fetch origin --tags", "  git checkout 'hotfix/x'", "  git merge --ff-only 'origin/hotfix/x'",
				"  git merge --no-edit 'production/43'", "  git push origin 'hotfix/x'", `Override:  --without 43 -m "reason"`),
		},
		"older than production": {
			[]func(*flow.CandidateFacts){stale, func(f *flow.CandidateFacts) { f.ProductionNumber, f.ProductionTitle = 45, "" }},
			lines("cannot promote build 44: it does not contain build 45 (3f9c1e2), which is in production",
				`Production only moves forward: promote a newer build of develop. To go back:  shunt rollback petstore 44 -m "reason"`),
		},
		"incident": {
			[]func(*flow.CandidateFacts){func(f *flow.CandidateFacts) { f.Incident = "production/43 was moved" }},
			lines("cannot promote build 44: nothing of petstore ships until a person has looked: production/43 was moved", "See:  shunt status petstore"),
		},
		"hold": {
			[]func(*flow.CandidateFacts){func(f *flow.CandidateFacts) { f.Hold = "rolled back to 41 by ana" }},
			lines("cannot promote build 44: promotions of the main lane are on hold: rolled back to 41 by ana", "Release the hold on the page of the project. A hotfix ships all the same."),
		},
		"hold, hotfix": {change: []func(*flow.CandidateFacts){onHotfix, func(f *flow.CandidateFacts) { f.Hold = "rolled back" }}},
		"frozen": {
			[]func(*flow.CandidateFacts){frozen(0)},
			lines("cannot promote build 44: promotions of the main lane are frozen until 2027-01-02 08:00 UTC: Christmas (ana)",
				`It ends by itself, and a hotfix ships all the same. To end it now:  shunt freeze end petstore 3 -m "why"`),
		},
		"frozen, the last moment": {
			[]func(*flow.CandidateFacts){frozen(freeze.Ends.Sub(freeze.Begins) - 1)},
			lines("cannot promote build 44: promotions of the main lane are frozen until 2027-01-02 08:00 UTC: Christmas (ana)",
				`It ends by itself, and a hotfix ships all the same. To end it now:  shunt freeze end petstore 3 -m "why"`),
		},
		"frozen twice": {
			[]func(*flow.CandidateFacts){frozen(0), func(f *flow.CandidateFacts) {
				short, long := freeze, freeze
				short.ID, short.Ends = 4, freeze.Ends.Add(-time.Hour)
				long.ID, long.Ends, long.Reason = 5, freeze.Ends.Add(time.Hour), "x\x1b[31m"
				f.Freezes = append(f.Freezes, long, short)
			}},
			lines("cannot promote build 44: promotions of the main lane are frozen until 2027-01-02 09:00 UTC: x?[31m (ana)",
				`It ends by itself, and a hotfix ships all the same. To end it now:  shunt freeze end petstore 5 -m "why"`),
		},
		"frozen, and on hold": {
			[]func(*flow.CandidateFacts){frozen(0), func(f *flow.CandidateFacts) { f.Hold = "rolled back to 41 by ana" }},
			lines("cannot promote build 44: promotions of the main lane are on hold: rolled back to 41 by ana", "Release the hold on the page of the project. A hotfix ships all the same."),
		},
		"frozen, hotfix":      {change: []func(*flow.CandidateFacts){onHotfix, frozen(0)}},
		"frozen soon":         {change: []func(*flow.CandidateFacts){frozen(-1)}},
		"frozen until now":    {change: []func(*flow.CandidateFacts){frozen(freeze.Ends.Sub(freeze.Begins))}},
		"frozen, ended early": {change: []func(*flow.CandidateFacts){frozen(0), func(f *flow.CandidateFacts) { f.Freezes[0].EndedAt = f.Now.Add(-1) }}},
		"tag blocked": {
			[]func(*flow.CandidateFacts){func(f *flow.CandidateFacts) { f.TagBlocked = "refs/tags/production" }},
			lines("cannot promote build 44: the remote has refs/tags/production, which is in the way of the production tag of build 44",
				"Find out who made it and rename or delete it; Shunt deletes no tag. Look at it:  git ls-remote origin 'refs/tags/production'"),
		},
		"master moved by hand": {
			[]func(*flow.CandidateFacts){func(f *flow.CandidateFacts) { f.BranchTip, f.FastForward = idC, false }},
			lines("cannot promote build 44: master is at c0c0c0c, which build 44 does not contain; Shunt left it at 3f9c1e2", "Merge it, so that nothing is lost:",
				"  git fetch origin --tags", "  git checkout 'develop'", "  git merge --ff-only 'origin/develop'", "  git merge --no-edit 'origin/master'", "  git push origin 'develop'"),
		},
		"master never seen, hotfix of a dashed name": {
			[]func(*flow.CandidateFacts){onHotfix, func(f *flow.CandidateFacts) { f.Branch, f.ExpectedTip, f.FastForward = "-x", "", false }},
			lines("cannot promote build 44: master is at 3f9c1e2, which build 44 does not contain; Shunt has never seen it", "Merge it, so that nothing is lost:",
				"  git fetch origin --tags", "  git checkout --detach 'origin/-x'", "  git merge --no-edit 'origin/master'", "  git push origin 'HEAD:refs/heads/-x'"),
		},
		"master moved by hand, and contained": {change: []func(*flow.CandidateFacts){func(f *flow.CandidateFacts) { f.BranchTip = idC }}},
		"master moved, trunk":                 {change: []func(*flow.CandidateFacts){func(f *flow.CandidateFacts) { f.BranchTip, f.FastForward, f.Trunk = idC, false, true }}},
		"master deleted": {
			[]func(*flow.CandidateFacts){func(f *flow.CandidateFacts) { f.BranchTip = "" }},
			lines("cannot promote build 44: master was deleted on the remote; it was at 3f9c1e2", "Bring it back:  git push origin '"+idA+":refs/heads/master'"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			equal(t, text(flow.MayPromote(main44(func(f *flow.CandidateFacts) {
				for _, change := range c.change {
					change(f)
				}
			}))), c.want)
		})
	}
}

func TestMayFreeze(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	const again = "Say first when it begins, then when it ends."
	for name, c := range map[string]struct {
		begins, ends time.Duration
		reason       string
		ahead        int
		want         string
	}{
		"good":        {begins: time.Hour, ends: 2 * time.Hour},
		"has begun":   {begins: -time.Hour, ends: time.Hour},
		"longest":     {ends: 400 * 24 * time.Hour},
		"the last":    {ends: time.Hour, ahead: 49},
		"no reason":   {ends: time.Hour, reason: " ", want: lines("cannot plan the freeze: it needs a reason, which others will read", `Say why:  -m "reason"`)},
		"over":        {begins: -2 * time.Hour, ends: -time.Hour, want: lines("cannot plan the freeze: it would end at 2026-12-01 11:00 UTC, which has passed", "Say when promotions go on.")},
		"ends now":    {begins: -time.Hour, want: lines("cannot plan the freeze: it would end at 2026-12-01 12:00 UTC, which has passed", "Say when promotions go on.")},
		"wrong order": {begins: 2 * time.Hour, ends: time.Hour, want: lines("cannot plan the freeze: it would end at 2026-12-01 13:00 UTC, and not begin before 2026-12-01 14:00 UTC", again)},
		"no time":     {begins: time.Hour, ends: time.Hour, want: lines("cannot plan the freeze: it would end at 2026-12-01 13:00 UTC, and not begin before 2026-12-01 13:00 UTC", again)},
		"wrong year": {ends: 401 * 24 * time.Hour, want: lines("cannot plan the freeze: it would last 401 days, and at most 400 are possible",
			`A hold lasts until a person releases it:  shunt hold petstore -m "reason"`)},
		"another begin":      {begins: time.Hour, ends: 3 * time.Hour, ahead: 1},
		"twice, from now on": {ends: 3 * time.Hour, ahead: 1, want: lines("cannot plan the freeze: freeze 0 is for the same time", "See:  shunt freeze list petstore")},
		"too many":           {ends: time.Hour, ahead: 50, want: lines("cannot plan the freeze: 50 are planned already", "End one that is not needed:  shunt freeze list petstore")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ahead := make([]delivery.Freeze, c.ahead)
			for i := range ahead {
				ahead[i] = delivery.Freeze{ID: int64(i), Begins: now.Add(-3 * time.Hour), Ends: now.Add(3 * time.Hour)}
			}
			f, got := delivery.Freeze{Project: "petstore", Begins: now.Add(c.begins), Ends: now.Add(c.ends), Reason: "Christmas"}, ""
			if c.reason != "" {
				f.Reason = c.reason
			}
			if err := flow.MayFreeze(f, ahead, now); err != nil {
				got = err.Error()
			}
			equal(t, got, c.want)
		})
	}
}

func TestProductionMove(t *testing.T) {
	t.Parallel()
	for want, change := range map[flow.MergeKind][]func(*flow.CandidateFacts){
		flow.MergeNone:        {func(f *flow.CandidateFacts) { f.BranchTip = f.Commit }, func(f *flow.CandidateFacts) { f.Trunk = true }},
		flow.MergeFastForward: {func(*flow.CandidateFacts) {}, func(f *flow.CandidateFacts) { f.BranchTip, f.FastForward = "", false }},
		flow.MergeCommit:      {func(f *flow.CandidateFacts) { f.FastForward = false }},
	} {
		for _, c := range change {
			equal(t, flow.ProductionMove(main44(c)), want)
		}
	}
}

func TestRefusalIsAnErrorOfItsKind(t *testing.T) {
	t.Parallel()
	err := (&flow.Refusal{What: "w", Why: "y"}).Err()
	equal(t, err.Kind, delivery.KindRefused)
	equal(t, err.Error(), "w: y")
}

// TestQuote asks the real sh whether each hostile text comes back unchanged.
func TestQuote(t *testing.T) {
	t.Parallel()
	check := func(t tester, texts []string) {
		script := "printf '%s\\n.\\n'"
		for _, s := range texts {
			script += " " + flow.Quote(s)
			if q := flow.Quote(s); strings.ContainsAny(q, "\n\x1b\u009b\u202e") {
				t.Fatalf("Quote(%q) = %q shows what a terminal obeys", s, q)
			}
		}
		out, err := exec.Command("sh", "-c", script).Output()
		if want := strings.Join(texts, "\n.\n") + "\n.\n"; err != nil || string(out) != want {
			t.Fatalf("sh says %q, want %q (%v)", out, want, err)
		}
	}
	check(t, append([]string{"", "'", `\`, `a'b"c$(id)`, "`id`", "x\ny", "\x1b[2J", "\u009b1m\u202e", "%s%n", "\xff1", "!x", "a\\'"}, hotfixNames...))
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > 20 {
			return
		}
		check(rt, rapid.SliceOfN(rapid.StringMatching(`[^\x00]*[^\x00\n]`), 1, 50).Draw(rt, "texts"))
	})
}

func TestMayDecide(t *testing.T) {
	t.Parallel()
	now := time.Date(2025, 11, 28, 3, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		change func(*delivery.Gate, *delivery.Decision)
		kind   delivery.Kind
		want   string
	}{
		"promote":               {func(*delivery.Gate, *delivery.Decision) {}, "", ""},
		"promote what is open":  {func(_ *delivery.Gate, d *delivery.Decision) { d.GateID, d.Version, d.Commit = "", 0, "" }, "", ""},
		"never expires":         {func(g *delivery.Gate, _ *delivery.Decision) { g.ExpiresAt = time.Time{} }, "", ""},
		"reject a stale one":    {func(g *delivery.Gate, d *delivery.Decision) { g.Stale, d.Promote, d.Reason = "s", false, "no" }, "", ""},
		"promote a stale one":   {func(g *delivery.Gate, _ *delivery.Decision) { g.Stale = "it lacks 43" }, delivery.KindRefused, "cannot promote 7KQ2: it lacks 43"},
		"stale, knowingly":      {func(g *delivery.Gate, d *delivery.Decision) { g.Stale, d.Without, d.Reason = "s", 43, "same fix" }, "", ""},
		"knowingly, no reason":  {func(_ *delivery.Gate, d *delivery.Decision) { d.Without = 43 }, delivery.KindInvalid, "cannot promote 7KQ2: leaving out build 43 needs a reason\nSay why:  -m \"reason\""},
		"negative without":      {func(_ *delivery.Gate, d *delivery.Decision) { d.Without = -1 }, delivery.KindInvalid, "cannot promote 7KQ2: --without takes the number of a build"},
		"reject without":        {func(_ *delivery.Gate, d *delivery.Decision) { d.Promote, d.Without, d.Reason = false, 1, "x" }, delivery.KindInvalid, "cannot reject 7KQ2: --without goes only with promote"},
		"reject without reason": {func(_ *delivery.Gate, d *delivery.Decision) { d.Promote, d.Reason = false, " \n" }, delivery.KindInvalid, "cannot reject 7KQ2: a rejection needs a reason\nSay why:  -m \"reason\""},
		"nobody":                {func(_ *delivery.Gate, d *delivery.Decision) { d.By = "" }, delivery.KindInvalid, "cannot promote 7KQ2: a decision needs its author\nSign in."},
		"another gate":          {func(_ *delivery.Gate, d *delivery.Decision) { d.GateID = "XX" }, delivery.KindInvalid, "cannot promote 7KQ2: the decision names another request: XX\nLook again, then decide."},
		"expired on the minute": {func(g *delivery.Gate, _ *delivery.Decision) { g.ExpiresAt = now }, delivery.KindConflict, "cannot promote 7KQ2: the request expired at 2025-11-28 03:00 UTC\nPush again or re-run the build to ask anew."},
		"other version":         {func(g *delivery.Gate, _ *delivery.Decision) { g.Version = 3 }, delivery.KindConflict, "cannot promote 7KQ2: the request was opened again meanwhile: you saw version 2, it is version 3 now\nLook again, then decide."},
		"other commit":          {func(_ *delivery.Gate, d *delivery.Decision) { d.Commit = idC }, delivery.KindConflict, "cannot promote 7KQ2: the commit changed: you saw c0c0c0c, it is 3f9c1e2 now\nLook again, then decide."},
		"expired already":       {func(g *delivery.Gate, _ *delivery.Decision) { g.State = delivery.GateExpired }, delivery.KindConflict, "cannot promote 7KQ2: it expired\nThe first decision counts."},
		"in no known state":     {func(g *delivery.Gate, _ *delivery.Decision) { g.ID, g.State = "", "?" }, delivery.KindInvalid, "cannot promote: the decision names another request: 7KQ2\nLook again, then decide."},
		"in no state, any gate": {func(g *delivery.Gate, d *delivery.Decision) { d.GateID, g.State = "", "?" }, delivery.KindConflict, "cannot promote 7KQ2: it is not open\nThe first decision counts."},
		"cancelled by nobody":   {func(g *delivery.Gate, _ *delivery.Decision) { g.State = delivery.GateCancelled }, delivery.KindConflict, "cannot promote 7KQ2: it was cancelled\nThe first decision counts."},
		"second click, rejected": {func(g *delivery.Gate, _ *delivery.Decision) {
			g.State, g.DecidedBy, g.DecidedAt, g.Reason = delivery.GateRejected, "ben", now, "too big"
		}, delivery.KindConflict, "cannot promote 7KQ2: it was rejected by ben at 2025-11-28 03:00 UTC: too big\nThe first decision counts."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := delivery.Gate{ID: "7KQ2", Version: 2, State: delivery.GateOpen, ExpiresAt: now.Add(time.Minute), Binding: delivery.Binding{Commit: idA}}
			d := delivery.Decision{GateID: "7KQ2", Version: 2, Commit: idA, Promote: true, By: "ana"}
			c.change(&g, &d)
			err := flow.MayDecide(g, d, now)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil {
				t.Fatal("was allowed")
			}
			equal(t, err.Error(), c.want)
			equal(t, delivery.KindOf(err), c.kind)
		})
	}
}

func TestBindingChanged(t *testing.T) {
	t.Parallel()
	bound := delivery.Binding{Commit: idA, Tree: idB, PolicyDigest: "p1", Artifacts: map[string]string{"app": idA, "docs": idB, "old": idC}, Production: "", Branch: idD}
	equal(t, flow.BindingChanged(bound, bound), []string(nil))
	equal(t, flow.BindingChanged(delivery.Binding{Artifacts: map[string]string{}}, delivery.Binding{}), []string(nil))
	now := delivery.Binding{Commit: idB, Tree: idC, PolicyDigest: "p2", Artifacts: map[string]string{"app": idA, "docs": idD, "n\new": ""}, Production: idC, Branch: ""}
	equal(t, flow.BindingChanged(bound, now), []string{
		"the commit changed from 3f9c1e2 to b0b0b0b",
		"the tree changed from b0b0b0b to c0c0c0c",
		"the policy changed from p1 to p2",
		"artifact docs changed from b0b0b0b to d0d0d0d",
		"artifact old is gone",
		"artifact n?ew is new",
		"production changed from nothing to c0c0c0c",
		"the production branch changed from d0d0d0d to nothing",
	})
}

func TestBackMerge(t *testing.T) {
	t.Parallel()
	equal(t, flow.BackMergeOwed(true, false), false)
	equal(t, flow.BackMergeOwed(false, false), true)
	equal(t, flow.BackMergeOwed(true, true), false)
	equal(t, flow.BackMergeOwed(false, true), true)

	equal(t, flow.ForecastWords(delivery.Forecast{Contained: true}, "develop"), "already in develop")
	equal(t, flow.ForecastWords(delivery.Forecast{}, "develop"), "clean into develop")
	equal(t, flow.ForecastWords(delivery.Forecast{Conflicts: []string{"a\nb"}}, "develop"), "conflicts with develop in 1 file: a?b")
	equal(t, flow.ForecastWords(delivery.Forecast{Conflicts: strings.Split("abcdefg", "")}, "develop"), "conflicts with develop in 7 files: a, b, c, d, e and 2 more")

	equal(t, flow.BackMergeCommands(branches, "origin", delivery.Forecast{Contained: true}), []string(nil))
	equal(t, flow.BackMergeCommands(branches, "up stream", delivery.Forecast{Conflicts: []string{"x"}}), []string{
		"git fetch 'up stream' --tags", "git checkout 'develop'", "git merge --ff-only 'up stream/develop'", "git merge --no-edit 'up stream/master'",
		"git mergetool", "git commit --no-edit", "git push 'up stream' 'develop'",
	})
	trunk := delivery.Branches{Integration: "main", Production: "main"}
	equal(t, flow.BackMergeCommands(trunk, "origin", delivery.Forecast{Commit: idA})[3], "git merge --no-edit '"+idA+"'")
}

func TestRollbackTarget(t *testing.T) {
	t.Parallel()
	const ok, bad, unknown = delivery.DeploymentSucceeded, delivery.DeploymentFailed, delivery.DeploymentUnknown
	p := func(n int64, s delivery.DeploymentState) delivery.Deployment {
		return delivery.Deployment{Number: n, State: s, Kind: "promote"}
	}
	back := func(n int64) delivery.Deployment {
		return delivery.Deployment{Number: n, State: ok, Kind: "rollback"}
	}
	type h = []delivery.Deployment
	for name, c := range map[string]struct {
		running int64
		history h
		to      int64
		gone    bool
		want    int64
		words   string
	}{
		"the one before":                 {running: 43, history: h{p(43, ok), p(41, ok), p(40, ok)}, want: 41},
		"failed ones do not count":       {running: 43, history: h{p(43, ok), p(42, bad), p(41, ok)}, want: 41},
		"back again, not to the bad one": {running: 41, history: h{back(41), p(43, ok), p(41, ok), p(40, ok)}, want: 40},
		"forward again after a rollback": {running: 44, history: h{p(44, ok), back(41), p(43, ok), p(41, ok)}, want: 41},
		"the last deploy failed":         {running: 43, history: h{p(44, bad), p(43, ok), p(41, ok)}, want: 43},
		"the last deploy is unknown":     {running: 44, history: h{p(44, unknown), p(43, ok), p(41, ok)}, want: 43},
		"nobody knows the running one":   {history: h{p(43, ok)}, want: 43},
		"chosen":                         {running: 43, history: h{p(43, ok), p(41, ok), p(40, ok)}, to: 40, want: 40},
		"chosen, again after a failure":  {running: 43, history: h{p(44, bad), p(43, ok)}, to: 43, want: 43},
		"chosen, is what runs":           {running: 43, history: h{p(43, ok), p(41, ok)}, to: 43, words: lines("cannot roll back petstore to build 43: it is what production runs", `Builds that ran in production: 41. For example:  shunt rollback petstore 41 -m "reason"`)},
		"chosen, never ran":              {running: 43, history: h{p(43, ok), p(42, bad), p(41, ok)}, to: 42, words: lines("cannot roll back petstore to build 42: it never ran healthy in production", `Builds that ran in production: 41. For example:  shunt rollback petstore 41 -m "reason"`)},
		"first build":                    {running: 1, history: h{p(1, ok)}, words: "cannot roll back petstore: no build ran healthy in production before the one that runs now"},
		"only a failure":                 {history: h{p(1, bad)}, words: "cannot roll back petstore: no build ran healthy in production before the one that runs now"},
		"nothing ever ran":               {words: "cannot roll back petstore: no build ran healthy in production before the one that runs now"},
		"one is running":                 {running: 43, history: h{p(44, delivery.DeploymentRunning), p(43, ok)}, words: "cannot roll back petstore: a deployment of build 44 is running"},
		"bytes are gone":                 {running: 43, history: h{p(43, ok), p(41, ok), p(40, ok)}, gone: true, words: lines("cannot roll back petstore: the artifacts of build 41 are no longer stored", `Builds that ran in production: 40. For example:  shunt rollback petstore 40 -m "reason"`)},
		"bytes of the only one are gone": {running: 43, history: h{p(43, ok), p(41, ok)}, gone: true, words: "cannot roll back petstore: the artifacts of build 41 are no longer stored"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, r := flow.RollbackTarget(flow.RollbackFacts{Project: "petstore", RunningNumber: c.running, History: c.history, To: c.to, ArtifactsPresent: !c.gone})
			equal(t, n, c.want)
			equal(t, text(r), c.words)
		})
	}
}

func TestWhatRunsNow(t *testing.T) {
	t.Parallel()
	yes, no := new(true), new(false)
	for _, c := range []struct {
		state         delivery.DeploymentState
		ready, verify *bool
		before, want  string
	}{
		{delivery.DeploymentSucceeded, nil, nil, "build 41", "build 43"},
		{delivery.DeploymentSucceeded, no, nil, "build 41", "build 43; it is not healthy"},
		{delivery.DeploymentFailed, nil, nil, "build 41", "unknown: build 41 or build 43"},
		{delivery.DeploymentFailed, yes, nil, "build 41", "unknown: build 41 or build 43; it is healthy"},
		{delivery.DeploymentUnknown, yes, yes, "build 41", "build 43; it is healthy"},
		{delivery.DeploymentFailed, yes, no, "build 41", "build 41, as before; it is healthy"},
		{delivery.DeploymentUnknown, no, no, "", "nothing, as before; it is not healthy"},
	} {
		equal(t, flow.WhatRunsNow(c.state, c.ready, c.verify, c.before, "build 43"), c.want)
	}
}

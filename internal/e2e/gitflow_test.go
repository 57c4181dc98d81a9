package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Debian's git-flow makes the branch, Shunt ships it, a person merges it back.
func TestGitFlowsOwnClient(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git-flow"); err != nil && os.Getenv("CI") == "" {
		t.Skip("git-flow is not installed: apt-get install git-flow")
	}
	w := newWorld(t, shop(nil))
	w.add(api.AddProject{InstallHook: true})
	release := w.push("develop")
	w.promote(release.Number)
	w.write(map[string]string{"unfinished": "work\n"})
	unfinished := w.commit("Unfinished work")
	w.push("develop")

	w.git("fetch", "--quiet", "--tags", "origin")
	w.git("branch", "--force", "master", "origin/master")
	w.git("flow", "init", "-d")
	w.git("flow", "hotfix", "start", "cart-500")
	w.write(map[string]string{"text": "fixed\n"})
	fix := w.commit("Cart answers 500")
	w.git("flow", "hotfix", "publish", "cart-500")
	b := w.buildOf(fix, "")
	if b.Lane != delivery.LaneHotfix || b.Branch != "hotfix/cart-500" {
		t.Fatalf("build %d is of %s on the %s lane", b.Number, b.Branch, b.Lane)
	}
	w.promote(b.Number)
	w.shipped(b.Number, 2)
	if _, code := w.command(w.bare, "", "git", "merge-base", "--is-ancestor", unfinished, "master"); code != 1 {
		t.Error("unfinished work is in production")
	}

	debts, err := w.api.BackMerges(t.Context(), w.project)
	w.must(err)
	if len(debts) != 1 || !debts[0].ClosedAt.IsZero() || len(debts[0].Conflicts) > 0 {
		t.Fatalf("debts are %+v, want an open one that merges clean", debts)
	}
	w.git("fetch", "--quiet", "origin")
	w.git("switch", "--quiet", "develop")
	w.git("merge", "--quiet", "--no-edit", "origin/master")
	w.push("develop")
	w.until("the debt is paid", func() bool {
		debts, err := w.api.BackMerges(t.Context(), w.project)
		return err == nil && len(debts) == 1 && !debts[0].ClosedAt.IsZero()
	})
}

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// This project's own repository goes through a release and a hotfix, by its own
// pipeline file and with real compilers.
func TestShuntShipsShunt(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiles the program several times")
	}
	w := emptyWorld(t, "shunt")
	w.clone = sources(t)
	w.run(w.dir, "git", "init", "--quiet", "--bare", "--initial-branch=main", w.bare)
	w.git("remote", "add", "origin", w.bare)
	w.write(map[string]string{"ci/local.env": localEnv(t) + "QA_DIR='" + w.at("qa") + "'\nINSTALL_DIR='" + w.at("installed") + "'\n"})
	w.git("add", "--force", "ci/local.env")
	w.commit("What this machine is like")
	w.begin()
	w.add(api.AddProject{InstallHook: true})

	release := w.push("main")
	w.promote(release.Number)
	w.live(release)
	w.commit("Unfinished work")
	unfinished := w.git("rev-parse", "HEAD")

	w.shunt("hotfix", "start", "exit-code")
	w.write(map[string]string{"cmd/shunt/fix.go": "package main\n\n// It was one too many.\nconst fixed = true\n\nvar _ = fixed\n"})
	w.commit("Exit with the right code")
	hotfix := w.push("HEAD")
	if hotfix.Lane != delivery.LaneHotfix {
		t.Errorf("build %d is on the %s lane", hotfix.Number, hotfix.Lane)
	}
	w.promote(hotfix.Number)
	w.live(hotfix)
	if got := w.remote("rev-parse", "production^"); got != release.Commit {
		t.Errorf("the hotfix stands on %s, want %s", got, release.Commit)
	}
	if out, code := w.command(w.bare, "", "git", "merge-base", "--is-ancestor", unfinished, "production"); code == 0 {
		t.Errorf("unfinished work was shipped\n%s", out)
	}
	w.git("fetch", "--quiet", "--tags", "origin")
	w.shunt("verify", itoa(hotfix.Number))
	if left, err := os.ReadDir(w.at("qa")); err != nil || len(left) > 0 {
		t.Errorf("left in QA: %v %v", left, err)
	}
	if left := processes(w.at("qa")); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
}

// live checks that the installed program is the build: its version names the commit.
func (w *world) live(b api.Build) {
	w.Helper()
	version := w.run(w.dir, w.at("installed", "shunt"), "version")
	if !strings.Contains(version, b.Commit[:12]) || strings.Contains(version, "dirty") {
		w.Errorf("installed is %s, want the commit %s", version, b.Commit)
	}
	for _, ref := range []string{"refs/tags/build/" + itoa(b.Number), "refs/tags/production/" + itoa(b.Number), "refs/heads/production"} {
		if got := w.remote("rev-parse", ref+"^{commit}"); got != b.Commit {
			w.Errorf("%s is at %s, want %s", ref, got, b.Commit)
		}
	}
}

// localEnv says where this machine's Go and its caches are.
func localEnv(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT", "GOCACHE", "GOMODCACHE").Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 3 {
		t.Fatalf("go env: %v\n%s", err, out)
	}
	return "PATH='" + lines[0] + "/bin':$PATH\nexport GOCACHE='" + lines[1] + "' GOMODCACHE='" + lines[2] + "' GOPROXY=off GOTOOLCHAIN=local\n"
}

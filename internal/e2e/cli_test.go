package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

const canary = "correct-horse-battery-staple"

// The command line against a real server: a living project is taken over, and
// everything that a person does to it is done once.
func TestTheCommandLine(t *testing.T) {
	t.Parallel()
	files := shop(map[string]string{"ci/build.sh": shop(nil)["ci/build.sh"] + "echo \"the key is $API_KEY\"\n[ ! -e slow ] || sleep 1000\n"})
	files[".shunt.yml"] = strings.Replace(files[".shunt.yml"], "    artifacts:", "    secrets: [API_KEY]\n    artifacts:", 1)
	w := newWorld(t, files)
	w.git("tag", "v1.9") // what the old server put into production
	w.git("push", "--quiet", "origin", "develop", "v1.9")
	out := w.shunt("project", "add", w.bare, "--name", w.project, "--in-production", "v1.9", "--next-build", "100", "--install-hook")
	if !strings.Contains(out, "taken over as build 99") {
		t.Errorf("project add says\n%s", out)
	}
	w.until("what was taken over is tagged", func() bool { return w.remote("tag", "--list", "production/99") != "" })
	if out, code := w.command(w.clone, canary+"\n", w.exe, "secret", "set", "API_KEY"); code != 0 {
		t.Fatal(out)
	}
	if got := w.shunt("secret", "list"); got != "API_KEY" {
		t.Errorf("secrets are %q", got)
	}

	// A hotfix: in production in the end.
	w.shunt("hotfix", "start", "first")
	w.write(map[string]string{"text": "second\n"})
	w.commit("Fix the first thing")
	if said := w.git("push"); !strings.Contains(said, "shunt: build 100 of hotfix/first") {
		t.Errorf("git push says\n%s", said)
	}
	w.shuntCode(4, "watch", "--no-wait")
	w.shunt("env", "keep", "100", "--for", "3h")
	w.shunt("env", "pin", "100")
	if list := instances(t, w.shunt("env", "list", "--json")); len(list) != 1 || !list[0].Pinned || list[0].State != delivery.InstanceUp {
		t.Errorf("environments are %+v", list)
	}
	w.shunt("promote", "100", "-m", "it works")
	w.shunt("watch", w.project, "100")
	if list := instances(t, w.shunt("env", "list", "--json")); len(list) != 1 || list[0].State != delivery.InstanceDown {
		t.Errorf("environments are %+v", list)
	}
	if log := w.log(100, "job/build"); strings.Contains(log, canary) || !strings.Contains(log, "the key is ") {
		t.Errorf("the log says\n%s", log)
	}
	w.git("fetch", "--quiet", "--tags", "origin")
	w.shunt("verify", "production/100")
	w.shunt("artifacts", "100")
	w.shunt("artifacts", "download", "100", "app", "-o", w.at("app.txt"))
	if b, err := os.ReadFile(w.at("app.txt")); err != nil || !strings.HasSuffix(string(b), "\nsecond\n") {
		t.Errorf("the artifact is %q, %v", b, err)
	}

	// A second one, so that there is a build to go back to.
	w.shunt("hotfix", "start", "second")
	w.write(map[string]string{"text": "third\n"})
	w.commit("Fix the second thing")
	w.git("push")
	w.shuntCode(4, "watch", "--no-wait")
	w.shunt("promote", "101")
	w.status(func(p api.Project) bool { return p.Production.Build == 101 && len(p.BackMerges) > 0 })
	w.shuntCode(2, "rollback") // without a reason
	w.shunt("rollback", "-m", "the third is worse")
	w.until("build 100 runs again", func() bool {
		var p api.Project
		w.must(json.Unmarshal([]byte(w.shunt("status", "--json")), &p))
		return p.Production.Build == 100 && p.Production.RolledBack && p.Hold != ""
	})
	if ran := w.journal("deploys"); len(ran) != 3 || strings.Fields(ran[2])[1] != "100" || strings.Fields(ran[2])[2] != strings.Fields(ran[0])[2] {
		t.Errorf("deployed were %q", ran)
	}
	w.until("the way back is tagged", func() bool { return w.remote("tag", "--list", "rollback/*") != "" })

	// The main lane is on hold since then.
	w.git("switch", "--quiet", "develop")
	w.git("merge", "--quiet", "--no-edit", "origin/master")
	w.git("fetch", "--quiet", "origin")
	w.git("merge", "--quiet", "--no-edit", "origin/master")
	w.git("push", "--quiet", "origin", "develop")
	w.shuntCode(4, "watch", "--no-wait")
	out = w.shuntCode(1, "promote", "102")
	if !strings.Contains(out, "hold") {
		t.Errorf("a promotion on hold is answered\n%s", out)
	}
	w.shunt("release-hold", "-m", "the cause is found")
	w.shunt("hold", "-m", "freeze")
	w.shunt("release-hold", "-m", "thaw")

	// A freeze is a hold that was planned.
	w.shuntCode(2, "freeze", "plan", "-m", "without an end")
	w.shunt("freeze", "plan", "--until", time.Now().Add(time.Hour).Format(time.RFC3339), "-m", "the tills are counted")
	if out = w.shuntCode(1, "promote", "102"); !strings.Contains(out, "frozen until") || !strings.Contains(out, "the tills are counted") {
		t.Errorf("a promotion in a freeze is answered\n%s", out)
	}
	w.status(func(p api.Project) bool { return p.Frozen() != nil && p.Frozen().ID == 1 && p.Hold == "" })
	w.shunt("freeze", "end", w.project, "1", "-m", "they are")
	if out = w.shunt("freeze", "list"); !strings.Contains(out, "ended") || !strings.Contains(out, "the tills are counted") {
		t.Errorf("the freezes are\n%s", out)
	}
	w.status(func(p api.Project) bool { return p.Freeze == nil })
	moments, err := w.api.Timeline(w.Context(), w.project, time.Time{})
	w.must(err)
	kinds := []string{}
	for _, m := range moments[:3] {
		kinds = append(kinds, m.Kind)
	}
	if got := strings.Join(kinds, ", "); got != "freeze ended, freeze planned, freeze" || moments[2].Until.IsZero() {
		t.Errorf("the timeline begins with %s", got)
	}
	w.shuntCode(2, "reject", "102")
	w.shunt("reject", "102", "-m", "not this one")
	w.shuntCode(3, "watch", w.project, "102")

	// One that a person stops.
	w.write(map[string]string{"slow": ""})
	w.commit("Slow")
	w.git("push", "--quiet", "origin", "develop")
	w.until("its job runs", func() bool { return len(w.jobProcesses()) > 0 })
	w.shunt("cancel", "103", "-m", "too slow")
	w.shuntCode(5, "watch", w.project, "103")
	w.until("nothing of its job is left", func() bool { return len(w.jobProcesses()) == 0 })

	w.shuntCode(1, "watch", w.project, "999")
	w.shuntCode(2, "promote", "many")
	w.shuntCode(2, "no-such-command")
	w.shunt("doctor")
	w.shunt("backmerge")
	w.shunt("builds", "--lane", "hotfix")
	w.shunt("log", "100", "job/build")
}

func instances(t *testing.T, lines string) (out []api.Instance) {
	t.Helper()
	for line := range strings.Lines(lines) {
		var i api.Instance
		if err := json.Unmarshal([]byte(line), &i); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, i)
	}
	return out
}

// status checks what `shunt status` says.
func (w *world) status(ok func(api.Project) bool) {
	w.Helper()
	var p api.Project
	text := w.shunt("status", "--json")
	w.must(json.Unmarshal([]byte(text), &p))
	if !ok(p) {
		w.Errorf("status says\n%s", text)
	}
}

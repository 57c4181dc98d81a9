package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func TestTwoServersOnOneDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(nil))
	other := freeAddress(t)
	out, code := w.command(w.dir, "", w.exe, "serve", "--data", w.data, "--listen", other)
	if code == 0 || !strings.Contains(out, "another Shunt server uses this data directory") || !strings.Contains(out, "--data DIR") {
		t.Errorf("the second server ended with %d and says\n%s", code, out)
	}
	if resp, err := http.Get("http://" + other + "/livez"); err == nil {
		_ = resp.Body.Close()
		t.Error("the second server answers")
	}
	w.shunt("project", "list") // and the first one still does
}

// A graceful stop hands a running deployment over: the script goes on in the
// runner, and the next server takes it up.
func TestSIGTERMDuringADeploy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(map[string]string{"ci/deploy.sh": shop(nil)["ci/deploy.sh"] + waits("deploy")}))
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.reach(b.Number, delivery.BuildWaiting)
	_, err := w.api.Decide(t.Context(), w.project, b.Number, api.Decide{Promote: true})
	w.must(err)
	w.await("deploy-begun")
	if state := w.kill(syscall.SIGTERM); state.ExitCode() != 0 {
		t.Errorf("the server ended with %s", state)
	}
	if len(w.jobProcesses()) == 0 {
		t.Error("the deployment was stopped with the server")
	}
	w.start()
	running, err := w.api.Build(t.Context(), w.project, b.Number)
	w.must(err)
	if running.Status != delivery.BuildRunning && running.Status != delivery.BuildQueued {
		t.Error(story(running))
	}
	w.allow("deploy-go")
	w.reach(b.Number, delivery.BuildSucceeded)
	w.shipped(b.Number, 1)
}

// A new version of the server adopts what the old one's runner does; that runner
// finishes its job and is then replaced by one of the new version.
func TestUpgradeOfTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(map[string]string{"ci/build.sh": shop(nil)["ci/build.sh"] + waits("build")}))
	next := filepath.Join(w.dir, "shunt-next")
	w.must(build(sources(t), next, "-buildvcs=true")) // the commit becomes part of its version
	was, is := w.shunt("version"), w.run(w.dir, next, "version")
	if was == is {
		t.Fatalf("both versions are %s", is)
	}
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.await("build-begun")
	old := w.runnerPID()
	w.kill(syscall.SIGTERM)
	w.exe = next
	w.start()
	if now := w.runnerPID(); now != old {
		t.Errorf("the runner %d was replaced by %d while its job ran", old, now)
	}
	w.allow("build-go")
	w.reach(b.Number, delivery.BuildWaiting)
	w.until("the runner is one of the new version", func() bool {
		pid := w.runnerPID()
		exe, err := os.Readlink("/proc/" + itoa(int64(pid)) + "/exe")
		return pid != old && err == nil && exe == next
	})
	w.promote(b.Number)
	w.shipped(b.Number, 1)
	if runs := w.journal("builds"); len(runs) != 1 {
		t.Errorf("the job ran %d times: %q", len(runs), runs)
	}
}

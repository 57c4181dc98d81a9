package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// killRunner kills the runner and waits until another one has taken its place.
func (w *world) killRunner() {
	w.Helper()
	old := w.runnerPID()
	w.must(syscall.Kill(old, syscall.SIGKILL))
	w.until("another runner is there", func() bool { return w.runnerPID() != old })
}

// noOrphan waits until no process of the given job is left; jobs named in
// others may run.
func (w *world) noOrphan(job string) {
	w.Helper()
	w.until("no process of "+job+" is left", func() bool {
		return len(processes("SHUNT_JOB="+job+" ", "SHUNT_RUNNER="+w.data)) == 0
	})
}

func TestAKilledRunnerLeavesNoOrphan(t *testing.T) {
	t.Parallel()
	t.Run("build", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, shop(map[string]string{
			"ci/build.sh": "#!/bin/sh\nset -eu\nsetsid sleep 1000 &\nsleep 1000 &\n" + waits("build") + "mkdir -p out\necho $SHUNT_COMMIT >out/app.txt\n",
		}))
		w.add(api.AddProject{InstallHook: true})
		b := w.push("develop")
		w.await("build-begun")
		first := w.journal("build-begun")[0]
		w.killRunner()
		w.noOrphan(first)
		w.until("the job runs again", func() bool { return len(w.journal("build-begun")) == 2 })
		again := w.journal("build-begun")[1]
		if again == first {
			t.Errorf("it runs again under the same id %s", first)
		}
		w.allow("build-go")
		detail := w.reach(b.Number, delivery.BuildWaiting)
		i := slices.IndexFunc(detail.Nodes, func(n api.Node) bool { return n.Target == "build" && n.Kind == delivery.NodeJob })
		if i < 0 || len(detail.Nodes[i].Attempts) != 2 || detail.Nodes[i].Attempts[0].State != delivery.AttemptLost {
			t.Errorf("want a lost attempt and another one\n%s", story(detail))
		}
		w.until("nothing of its jobs is left", func() bool { return len(w.jobProcesses()) == 0 })
	})
	t.Run("deployment with verify", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, shop(map[string]string{
			"ci/deploy.sh": "#!/bin/sh\nset -eu\necho \"$SHUNT_DEPLOY_ID\" >>@DIR@/deploys\necho \"$SHUNT_DEPLOY_ID\" >@DIR@/live\n" + waits("deploy"),
		}))
		number := w.killInDeployment()
		w.reach(number, delivery.BuildSucceeded)
		w.shipped(number, 1)
	})
	t.Run("deployment without verify", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, shop(map[string]string{
			".shunt.yml":   strings.ReplaceAll(shop(nil)[".shunt.yml"], "    verify: ./ci/verify.sh\n", ""),
			"ci/deploy.sh": "#!/bin/sh\nset -eu\necho \"$SHUNT_DEPLOY_ID\" >>@DIR@/deploys\n" + waits("deploy"),
		}))
		number := w.killInDeployment()
		stopped := w.reach(number, delivery.BuildStopped)
		if d := stopped.Deployments[len(stopped.Deployments)-1]; d.State != delivery.DeploymentUnknown {
			t.Errorf("its deployment is %s, want unknown", d.State)
		}
		if tags := w.remote("tag", "--list", "production/*"); tags != "" {
			t.Errorf("a deployment that nobody knows of is tagged: %s", tags)
		}
		w.shuntCode(1, "resolve", itoa(number), "retry", "-m", "once more")
		w.shunt("resolve", itoa(number), "confirm-live", "-m", "I see it")
		w.reach(number, delivery.BuildSucceeded)
		w.shipped(number, 1)
	})
}

// killInDeployment takes a build into production and kills the runner while the
// deploy script runs.
func (w *world) killInDeployment() int64 {
	w.Helper()
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.reach(b.Number, delivery.BuildWaiting)
	_, err := w.api.Decide(w.Context(), w.project, b.Number, api.Decide{Promote: true})
	w.must(err)
	w.await("deploy-begun")
	w.killRunner()
	w.noOrphan(w.journal("deploy-begun")[0])
	return b.Number
}

// shipped checks a build in production from outside: tags, branch, one run of
// the deploy script, and nothing left running.
func (w *world) shipped(number int64, deploys int) {
	w.Helper()
	if got := len(w.journal("deploys")); got != deploys {
		w.Errorf("the deploy script ran %d times, want %d: %q", got, deploys, w.journal("deploys"))
	}
	commit := w.remote("rev-parse", "refs/tags/build/"+itoa(number)+"^{commit}")
	for _, ref := range []string{"refs/tags/production/" + itoa(number) + "^{commit}", "refs/heads/master"} {
		if got := w.remote("rev-parse", ref); got != commit {
			w.Errorf("%s is at %s, want %s", ref, got, commit)
		}
	}
	w.until("nothing of its jobs is left", func() bool { return len(w.jobProcesses()) == 0 })
}

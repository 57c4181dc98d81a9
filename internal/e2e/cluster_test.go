package e2e

import (
	"bufio"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

// database starts a PostgreSQL of the test's own.
func database(t *testing.T) string {
	t.Helper()
	server := pg.ForTest(t)
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// newCluster is a world whose server can share its database. The first flag says
// where files are: without any, in a directory.
func newCluster(t *testing.T, files map[string]string, flags ...string) *world {
	t.Helper()
	if len(flags) == 0 {
		flags = []string{"--shared", t.TempDir()}
	}
	return newWorld(t, files, append([]string{"--database", database(t), flags[0], flags[1], "--cluster", freeAddress(t)}, flags[2:]...)...)
}

// join starts another server or worker on the same database, with the same
// secret.key, and a data directory and a runner of its own.
func (w *world) join(verb, name string, flags ...string) *world {
	w.Helper()
	o := *w
	o.verb, o.name, o.data, o.listen = verb, name, w.at("data-"+name), freeAddress(w.T)
	o.url = "http://" + o.listen
	o.flags = append([]string{w.flags[0], w.flags[1], w.flags[2], w.flags[3], "--cluster", freeAddress(w.T)}, flags...)
	o.must(os.MkdirAll(o.data, 0o700))
	key, err := os.ReadFile(filepath.Join(w.data, "secret.key"))
	o.must(err)
	o.must(os.WriteFile(filepath.Join(o.data, "secret.key"), key, 0o600))
	o.start()
	o.api = api.NewClient(o.url, w.token, &http.Client{Timeout: time.Minute})
	o.hears(w)
	w.hears(&o)
	return &o
}

// id is the name of a server, and of its runner, among the others.
func (w *world) id() string {
	w.Helper()
	b, err := os.ReadFile(filepath.Join(w.data, "instance"))
	w.must(err)
	return strings.TrimSpace(string(b))
}

// hears waits until the runner of another server is linked to this one.
func (w *world) hears(o *world) {
	w.Helper()
	w.until(w.name+" hears the runner of "+o.name, func() bool {
		log, err := os.ReadFile(w.at(w.name + ".log"))
		return err == nil && strings.Contains(string(log), "a runner is linked\" runner="+o.id())
	})
}

// The server that drives a build dies in the middle of a job. Its runner lives
// and the job runs on; another server drives the build on and adopts the job.
func TestAnotherServerDrivesOnAndAdoptsTheJob(t *testing.T) {
	t.Parallel()
	a := newCluster(t, shop(map[string]string{
		"ci/build.sh":  "#!/bin/sh\nset -eu\n" + waits("build") + "mkdir -p out\n{ echo $SHUNT_COMMIT; cat text; } >out/app.txt\n",
		"ci/deploy.sh": "#!/bin/sh\nset -eu\necho \"$SHUNT_DEPLOY_ID $SHUNT_BUILD $(sha256sum <\"$SHUNT_ARTIFACT_APP\")\" >>@DIR@/deploys\n" + waits("deploy") + "echo \"$SHUNT_DEPLOY_ID\" >@DIR@/live\n",
	}))
	a.add(api.AddProject{InstallHook: true})
	build := a.push("develop")
	a.await("build-begun")
	b := a.join("serve", "b")
	first := b.driver(build.Number, "")
	died := time.Now()
	a.kill(syscall.SIGKILL)
	b.driver(build.Number, first)
	t.Logf("driven on by another server %.1f s after the death of the first", time.Since(died).Seconds())
	a.allow("build-go")
	b.reach(build.Number, delivery.BuildWaiting)
	if n := len(a.journal("build-begun")); n != 1 {
		t.Errorf("the job ran %d times, want once: it was to be adopted", n)
	}
	if log := b.log(build.Number, "job/build"); !strings.Contains(log, "step 1") {
		t.Errorf("the other server does not have the job's log: %q", log)
	}
	a.start()
	a.hears(b)

	// The same in a deployment: it is neither cut in half nor started again.
	b.must(decide(b, build.Number))
	b.await("deploy-begun")
	first = b.driver(build.Number, "")
	b.kill(syscall.SIGKILL)
	a.driver(build.Number, first)
	a.allow("deploy-go")
	a.reach(build.Number, delivery.BuildSucceeded)
	a.shipped(build.Number, 1)
}

// driver waits until somebody drives a build who is not the one before, and tells who.
func (w *world) driver(number int64, before string) (now string) {
	w.Helper()
	w.until("another server drives the build", func() bool {
		d, err := w.api.Build(w.Context(), w.project, number)
		now = d.DrivenBy
		return err == nil && now != "" && now != before
	})
	return now
}

// A machine dies: server and runner at once. Another server runs the job again,
// after the runner's lease has ended; a deployment that may have started is
// looked up and not repeated.
func TestAMachineDies(t *testing.T) {
	t.Parallel()
	a := newCluster(t, shop(map[string]string{
		"ci/build.sh":  "#!/bin/sh\nset -eu\n" + waits("build") + "mkdir -p out\n{ echo $SHUNT_COMMIT; cat text; } >out/app.txt\n",
		"ci/deploy.sh": "#!/bin/sh\nset -eu\necho \"$SHUNT_DEPLOY_ID\" >>@DIR@/deploys\necho \"$SHUNT_DEPLOY_ID\" >@DIR@/live\n" + waits("deploy"),
	}))
	a.add(api.AddProject{InstallHook: true})
	b := a.join("serve", "b")
	build := a.push("develop")
	a.await("build-begun")
	first := a.driver(build.Number, "")
	died := time.Now()
	pid := a.runnerPID()
	a.kill(syscall.SIGKILL)
	a.must(syscall.Kill(pid, syscall.SIGKILL))
	b.driver(build.Number, first)
	b.until("the job runs again", func() bool { return len(b.journal("build-begun")) == 2 })
	t.Logf("the job runs again %.1f s after the death of its machine", time.Since(died).Seconds())
	b.allow("build-go")
	detail := b.reach(build.Number, delivery.BuildWaiting)
	if n := detail.Nodes[0]; len(n.Attempts) != 2 || n.Attempts[0].State != delivery.AttemptLost {
		t.Error(story(detail))
	}
	a.start()
	a.hears(b)

	b.must(decide(b, build.Number))
	b.await("deploy-begun")
	pid = b.runnerPID()
	b.kill(syscall.SIGKILL)
	b.must(syscall.Kill(pid, syscall.SIGKILL))
	a.reach(build.Number, delivery.BuildSucceeded) // verify found it live
	a.shipped(build.Number, 1)
}

func second[T any](_ T, err error) error { return err }

func decide(w *world, number int64) error {
	w.Helper()
	return second(w.api.Decide(w.Context(), w.project, number, api.Decide{Promote: true}))
}

// A server and its runner hang for longer than all leases. The steps are killed
// before the runner's lease ends; another server runs the job again; the one
// that wakes up does nothing twice.
func TestAMachineHangs(t *testing.T) {
	t.Parallel()
	a := newCluster(t, shop(map[string]string{"ci/build.sh": "#!/bin/sh\nset -eu\n" + waits("build") + "mkdir -p out\n{ echo $SHUNT_COMMIT; cat text; } >out/app.txt\n"}))
	a.add(api.AddProject{InstallHook: true})
	b := a.join("serve", "b")
	build := a.push("develop")
	a.await("build-begun")
	job := a.journal("build-begun")[0]
	first := a.driver(build.Number, "")
	pid := a.runnerPID()
	a.must(a.server.Process.Signal(syscall.SIGSTOP))
	a.must(syscall.Kill(pid, syscall.SIGSTOP))
	b.until("the job runs again", func() bool {
		if len(b.journal("build-begun")) < 2 {
			return false
		}
		// The steps, whose shim is the one process of a job that was not stopped here.
		if left := processes("build.sh", "SHUNT_JOB="+job+" "); len(left) > 0 {
			t.Errorf("the job runs twice at the same time: %v", left)
		}
		return true
	})
	b.driver(build.Number, first)
	a.must(a.server.Process.Signal(syscall.SIGCONT))
	a.must(syscall.Kill(pid, syscall.SIGCONT))
	a.until("the first one answers again", func() bool { _, err := a.api.Me(t.Context()); return err == nil })
	b.allow("build-go")
	b.reach(build.Number, delivery.BuildWaiting)
	a.promote(build.Number)
	a.shipped(build.Number, 1)
	if n := len(a.journal("build-begun")); n != 2 {
		t.Errorf("the job began %d times, want 2", n)
	}
}

// A job names a pool. It waits until a worker of that pool is there, runs on its
// machine with files that were sent, and its artifact comes back.
func TestAJobRunsInItsPool(t *testing.T) {
	t.Parallel()
	a := newCluster(t, shop(map[string]string{
		".shunt.yml":  strings.Replace(shop(nil)[".shunt.yml"], "    steps: [{ run: ./ci/build.sh }]\n", "    runs_on: big\n    steps: [{ run: ./ci/build.sh }]\n", 1),
		"ci/build.sh": "#!/bin/sh\nset -eu\necho \"$SHUNT_RUNNER\" >>@DIR@/where\ngit describe --always >>@DIR@/where\nmkdir -p out\n{ echo $SHUNT_COMMIT; cat text; } >out/app.txt\n",
	}))
	a.add(api.AddProject{InstallHook: true})
	build := a.push("develop")
	a.until("the build says what it waits for", func() bool {
		d, err := a.api.Build(t.Context(), a.project, build.Number)
		return err == nil && len(d.Nodes) > 0 && strings.Contains(d.Nodes[0].Reason, "no runner of pool big")
	})
	w := a.join("worker", "w", "--pools", "small,big")
	a.reach(build.Number, delivery.BuildWaiting)
	if where := a.journal("where"); len(where) != 2 || where[0] != filepath.Join(w.data, "runner") {
		t.Errorf("the job ran on %q", where)
	}
	a.promote(build.Number)
	a.shipped(build.Number, 1)
	if left, err := filepath.Glob(filepath.Join(w.data, "runner", "work", "*")); err != nil || len(left) > 0 {
		t.Errorf("files of ended jobs are left on the worker: %v %v", left, err)
	}
}

// What one server is asked for reaches the one that drives, and what happens on
// one is seen live on the other.
func TestServersTellEachOther(t *testing.T) {
	t.Parallel()
	a := newCluster(t, shop(map[string]string{"ci/build.sh": "#!/bin/sh\nset -eu\n" + waits("build")}))
	a.add(api.AddProject{InstallHook: true})
	b := a.join("serve", "b")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+"/events?project="+b.project, nil)
	b.must(err)
	req.Header.Set("Authorization", "Bearer "+b.token)
	resp, err := http.DefaultClient.Do(req)
	b.must(err)
	defer resp.Body.Close()
	seen := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() && !strings.Contains(lines.Text(), "\"kind\":\"node\"") {
		}
		close(seen)
	}()
	build := a.push("develop")
	a.await("build-begun")
	select {
	case <-seen:
	case <-time.After(patience):
		t.Error("the other server's page saw nothing")
	}
	b.must(second(b.api.Cancel(t.Context(), b.project, build.Number, "a mistake")))
	b.reach(build.Number, delivery.BuildCancelled)

	// A server that shares nothing is refused, and so is one with another key.
	out, code := a.command(a.dir, "", a.exe, "serve", "--data", a.at("alone"), "--listen", freeAddress(t), a.flags[0], a.flags[1], a.flags[2], a.flags[3])
	if code == 0 || !strings.Contains(out, "--cluster") {
		t.Errorf("a server without --cluster: %d %s", code, out)
	}
	out, code = a.command(a.dir, "", a.exe, "serve", "--data", a.at("alone"), "--listen", freeAddress(t), a.flags[0], a.flags[1], a.flags[2], a.flags[3], "--cluster", freeAddress(t))
	if code == 0 || !strings.Contains(out, "secret.key") {
		t.Errorf("a server with another secret.key: %d %s", code, out)
	}
}

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

var (
	clusterBuilds = flag.Int("cluster.builds", 24, "builds of the cluster of three servers and two workers")
	clusterSeed   = flag.Uint64("cluster.seed", uint64(time.Now().UnixNano())%1e6, "what happens to it, and when")
)

// network is a bridge with network namespaces on it, one for each machine.
type network struct {
	t      *testing.T
	prefix string // of names and of addresses: 10.77.9.
	id     int
	n      int
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	_, missing := exec.LookPath("ip")
	if os.Getuid() != 0 || missing != nil {
		t.Skip("needs root and iproute2, for network namespaces")
	}
	id := 1 + rand.IntN(250)
	n := &network{t: t, id: id, prefix: fmt.Sprintf("10.77.%d.", id), n: 1}
	if out, err := exec.Command("ip", "link", "add", n.bridge(), "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("this machine makes no bridge: %v %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", n.bridge()).Run() })
	n.ip("addr", "add", n.prefix+"1/24", "dev", n.bridge())
	n.ip("link", "set", n.bridge(), "up")
	return n
}

func (n *network) bridge() string { return fmt.Sprintf("shbr%d", n.id) }

func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Errorf("ip %q: %v\n%s", args, err, out)
	}
}

// machine makes a namespace and returns its name and address.
func (n *network) machine() (name, address string) {
	n.t.Helper()
	n.n++
	name, address = fmt.Sprintf("shunt%d-%d", n.id, n.n), fmt.Sprintf("%s%d", n.prefix, n.n)
	n.ip("netns", "add", name)
	n.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	out, in := n.cable(name), fmt.Sprintf("sh%din%d", n.id, n.n)
	n.ip("link", "add", out, "type", "veth", "peer", "name", in)
	n.ip("link", "set", in, "netns", name)
	n.ip("link", "set", out, "master", n.bridge())
	n.ip("link", "set", out, "up")
	n.ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
	n.ip("netns", "exec", name, "ip", "addr", "add", address+"/24", "dev", in)
	n.ip("netns", "exec", name, "ip", "link", "set", in, "up")
	return name, address
}

func (n *network) cable(name string) string {
	return fmt.Sprintf("sh%dout%s", n.id, name[strings.LastIndexByte(name, '-')+1:])
}

// cut cuts a machine off both ways, and mends it when the returned function is called.
func (n *network) cut(name string) (mend func()) {
	n.ip("link", "set", n.cable(name), "down")
	return func() { n.ip("link", "set", n.cable(name), "up") }
}

// mute keeps what a machine sends to an address from getting there; the other way is open.
func (n *network) mute(name, address string) (mend func()) {
	n.ip("netns", "exec", name, "ip", "route", "add", "blackhole", address+"/32")
	return func() { n.ip("netns", "exec", name, "ip", "route", "del", "blackhole", address+"/32") }
}

// Three servers and two workers in network namespaces of their own share one
// PostgreSQL and build for many projects, while machines die, hang and are cut
// off. Whatever was acknowledged is there at the end, and nothing was done twice.
func TestAClusterInANetworkThatFails(t *testing.T) {
	net := newNetwork(t) // not parallel: it wants the machine for itself
	db := pg.ForTest(t)
	db.Kill()
	db.Listen = net.prefix + "1"
	if err := db.Run(); err != nil {
		t.Fatal(err)
	}
	local, err := db.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(local)
	if err != nil {
		t.Fatal(err)
	}
	u.Host, u.RawQuery, u.User = db.Listen, "sslmode=disable", url.User("shunt")
	c := &fleet{T: t, net: net, rnd: rand.New(rand.NewPCG(*clusterSeed, 0))}
	first := emptyWorld(t, "shop")
	first.must(os.MkdirAll(first.at("shared"), 0o700))
	for i, verb := range []string{"serve", "serve", "serve", "worker", "worker"} {
		w := *first
		w.verb, w.name, w.data = verb, fmt.Sprintf("%s%d", verb, i), w.at(fmt.Sprintf("data%d", i))
		var address string
		w.inside, address = net.machine()
		w.listen, w.url = address+":8080", "http://"+address+":8080"
		w.flags = []string{"--database", u.String(), "--cluster", address + ":7443", "--shared", w.at("shared"), "--poll", "2s", "--workers", "3"}
		w.must(os.MkdirAll(w.data, 0o700))
		if i > 0 {
			w.must(os.WriteFile(filepath.Join(w.data, "secret.key"), c.key, 0o600))
		}
		if verb == "worker" {
			w.flags = append(w.flags, "--pools", "big")
		}
		w.start()
		if i == 0 {
			c.key, err = os.ReadFile(filepath.Join(w.data, "secret.key"))
			w.must(err)
			w.token = w.run(w.dir, w.exe, "token", "create", "test", "--data", w.data)
		}
		first.token = w.token
		w.api = api.NewClient(w.url, w.token, &http.Client{Timeout: 5 * time.Second})
		c.worlds = append(c.worlds, &w)
	}
	t.Logf("3 servers, 2 workers, %d builds, seed %d", *clusterBuilds, *clusterSeed)
	c.play(*clusterBuilds)
}

// fleet is the servers and workers of one database, and what was acknowledged.
type fleet struct {
	*testing.T
	net    *network
	rnd    *rand.Rand
	key    []byte
	worlds []*world

	mu       sync.Mutex
	pushed   map[string][]string // commits by project
	promoted map[string][]int64  // numbers by project, whose click was answered with success
	faults   map[string]int
}

// ask asks any server until one answers; a refusal is an answer.
func (c *fleet) ask(what string, call func(a *api.Client) error) error {
	for end := time.Now().Add(patience); ; {
		err := call(c.worlds[rand.IntN(3)].api)
		refused, isRefusal := errors.AsType[*delivery.Error](err)
		if err == nil || isRefusal && refused.Kind != delivery.KindUnavailable && refused.Kind != delivery.KindInternal {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: nobody answers: %w", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *fleet) play(builds int) {
	c.pushed, c.promoted, c.faults = map[string][]string{}, map[string][]int64{}, map[string]int{}
	const projects = 8
	begun := time.Now()
	working, stop := context.WithCancel(c.Context())
	var trouble, people sync.WaitGroup
	trouble.Go(func() { c.trouble(working) })
	var left atomic.Int64
	left.Store(int64(builds))
	for i := range projects {
		people.Go(func() {
			if err := c.person(fmt.Sprintf("shop%d", i), &left); err != nil {
				c.Error(err)
			}
		})
	}
	people.Wait()
	stop()
	trouble.Wait()
	c.check()
	c.Logf("cluster: %d builds in %s, %d promotions, faults %v, violations: %d", builds, time.Since(begun).Round(time.Second), c.promotions(), c.faults, c.violations())
}

func (c *fleet) promotions() (n int) {
	for _, p := range c.promoted {
		n += len(p)
	}
	return n
}

func (c *fleet) violations() int {
	if c.Failed() {
		return 1
	}
	return 0
}

// person works on a project: pushes, waits until the build has come to its gate,
// and promotes every third.
func (c *fleet) person(project string, left *atomic.Int64) error {
	w := *c.worlds[0]
	w.project, w.bare, w.clone = project, w.at(project+".git"), w.at(project)
	files := shop(map[string]string{
		".shunt.yml": `version: 1
name: ` + project + `
jobs:
  build:
    steps: [{ run: ./ci/build.sh }]
    artifacts: { app: out/app.txt }
  check:
    needs: [build]
    runs_on: big
    steps: [{ run: ./ci/check.sh }]
environments:
  qa:
    ephemeral: true
    up: ./ci/up.sh
    down: ./ci/down.sh
    keep: 8h
  production:
    needs: [qa]
    deploy: ./ci/deploy.sh
    verify: ./ci/verify.sh
`,
		"ci/check.sh": "#!/bin/sh\nset -eu\necho \"$SHUNT_JOB $SHUNT_COMMIT\" >>@DIR@/builds\ngit describe --always >/dev/null\n",
	})
	w.run(w.dir, "git", "init", "--quiet", "--bare", "--initial-branch=master", w.bare)
	w.run(w.dir, "git", "init", "--quiet", "--initial-branch=master", w.clone)
	w.git("remote", "add", "origin", w.bare)
	w.git("config", "user.name", "Ana Ruiz")
	w.git("config", "user.email", "ana@example.org")
	w.git("commit", "--quiet", "--allow-empty", "--message", "An empty shop")
	w.git("push", "--quiet", "origin", "master")
	w.git("switch", "--quiet", "--create", "develop")
	for name, text := range files { // a journal of the project's own
		files[name] = strings.ReplaceAll(text, "@DIR@", w.at("journal", project))
	}
	w.must(os.MkdirAll(w.at("journal", project), 0o750))
	w.write(files)
	w.commit("A shop")
	if err := c.ask("add "+project, func(a *api.Client) error {
		_, err := a.AddProject(c.Context(), api.AddProject{Name: project, URL: w.bare, Local: true})
		if delivery.IsKind(err, delivery.KindConflict) {
			return nil // the answer to an earlier one was lost
		}
		return err
	}); err != nil {
		return err
	}
	for n := 0; left.Add(-1) >= 0; n++ {
		w.write(map[string]string{"text": fmt.Sprint("change ", n, "\n")})
		commit := w.commit(fmt.Sprint("Change ", n))
		w.git("push", "--quiet", "origin", "develop")
		c.mu.Lock()
		c.pushed[project] = append(c.pushed[project], commit)
		c.mu.Unlock()
		_ = c.worlds[rand.IntN(3)].syncOnce(project)
		b, err := c.settled(project, commit)
		if err != nil {
			return err
		}
		if n%3 != 2 {
			continue
		}
		err = c.ask("promote", func(a *api.Client) error {
			_, err := a.Decide(c.Context(), project, b.Number, api.Decide{Promote: true})
			return err
		})
		if err != nil && !delivery.IsKind(err, delivery.KindConflict) { // decided before, by a click whose answer was lost
			return fmt.Errorf("promote build %d of %s: %w", b.Number, project, err)
		}
		c.mu.Lock()
		c.promoted[project] = append(c.promoted[project], b.Number)
		c.mu.Unlock()
		if _, err := c.shipped(project, commit); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) syncOnce(project string) error {
	ctx, cancel := context.WithTimeout(w.Context(), 2*time.Second)
	defer cancel()
	return second(w.api.Sync(ctx, project))
}

// settled waits until the build of a commit stands at its gate.
func (c *fleet) settled(project, commit string) (api.Build, error) {
	return c.await(project, commit, delivery.BuildWaiting)
}

// shipped waits until what was promoted is in production. Where a deployment's
// machine died and it was looked up as not live, a person decides to try again.
func (c *fleet) shipped(project, commit string) (b api.Build, err error) {
	for range 10 {
		b, err = c.await(project, commit, delivery.BuildSucceeded)
		if b.Status != delivery.BuildStopped {
			return b, err
		}
		again := c.ask("retry", func(a *api.Client) error {
			return second(a.Resolve(c.Context(), project, b.Number, api.Resolve{Action: "retry", Reason: "it was looked up: not live"}))
		})
		if again != nil && !delivery.IsKind(again, delivery.KindConflict) { // the answer to an earlier one was lost
			return b, errors.Join(err, again)
		}
		c.mu.Lock()
		c.faults["retried by a person"]++
		c.mu.Unlock()
	}
	return b, err
}

func (c *fleet) await(project, commit string, status delivery.BuildStatus) (b api.Build, err error) {
	for end := time.Now().Add(3 * patience); ; time.Sleep(100 * time.Millisecond) {
		err := c.ask("builds", func(a *api.Client) error {
			list, err := a.Builds(c.Context(), project, api.BuildFilter{Commit: commit})
			if err == nil && len(list) > 1 {
				return delivery.Errf(delivery.KindConflict, "there are two builds of "+commit, "")
			}
			if err == nil && len(list) == 1 {
				b = list[0]
			}
			return err
		})
		switch {
		case err != nil:
			return b, err
		case b.Status == status:
			return b, nil
		case b.Number > 0 && (b.Status.Final() || b.Status == delivery.BuildStopped) || time.Now().After(end):
			var d api.BuildDetail
			_ = c.ask("build", func(a *api.Client) (err error) {
				d, err = a.Build(c.Context(), project, b.Number)
				return err
			})
			return b, fmt.Errorf("build of %s in %s is %q, want %s\n%s", commit, project, b.Status, status, story(d))
		}
	}
}

// trouble does something to a machine every few seconds, one at a time, and
// leaves the others time to notice.
func (c *fleet) trouble(ctx context.Context) {
	pause := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	pause(2 * time.Second)
	for ctx.Err() == nil {
		w := c.worlds[c.rnd.IntN(len(c.worlds))]
		other := c.worlds[c.rnd.IntN(len(c.worlds))]
		kind := []string{"cut off", "mute to the database", "mute to another", "kill", "kill with runner", "hang", "restart"}[c.rnd.IntN(7)]
		c.mu.Lock()
		c.faults[kind]++
		c.mu.Unlock()
		switch kind {
		case "cut off":
			mend := c.net.cut(w.inside)
			pause(12 * time.Second)
			mend()
		case "mute to the database":
			mend := c.net.mute(w.inside, c.net.prefix+"1")
			pause(12 * time.Second)
			mend()
		case "mute to another":
			host, _, _ := strings.Cut(other.listen, ":")
			if other == w {
				continue
			}
			mend := c.net.mute(w.inside, host)
			pause(12 * time.Second)
			mend()
		case "kill":
			w.kill(syscall.SIGKILL)
			pause(7 * time.Second)
			w.start()
		case "kill with runner":
			pid := w.runnerPID()
			w.kill(syscall.SIGKILL)
			_ = syscall.Kill(pid, syscall.SIGKILL)
			pause(10 * time.Second)
			w.start()
		case "hang":
			pid := w.runnerPID()
			_ = w.server.Process.Signal(syscall.SIGSTOP)
			_ = syscall.Kill(pid, syscall.SIGSTOP)
			pause(18 * time.Second)
			_ = w.server.Process.Signal(syscall.SIGCONT)
			_ = syscall.Kill(pid, syscall.SIGCONT)
		case "restart":
			w.kill(syscall.SIGTERM)
			w.start()
		}
		select {
		case <-w.ended:
			w.start()
		default:
		}
		pause(3 * time.Second)
	}
}

// check looks from outside: at the journals of the scripts and at git.
func (c *fleet) check() {
	w := *c.worlds[0]
	for project, commits := range c.pushed {
		w.project, w.bare, w.clone = project, w.at(project+".git"), w.at(project)
		journal := func(name string) []string { return w.journal(filepath.Join(project, name)) }
		seen := map[string]bool{}
		for _, line := range journal("builds") {
			id, _, _ := strings.Cut(line, " ")
			if seen[id] {
				c.Errorf("job %s ran twice", id)
			}
			seen[id] = true
		}
		deployed := map[string]bool{}
		for _, line := range journal("deploys") {
			id, _, _ := strings.Cut(line, " ")
			if deployed[id] {
				c.Errorf("deployment %s was started twice", id)
			}
			deployed[id] = true
		}
		if len(deployed) < len(c.promoted[project]) {
			c.Errorf("%s: %d deployments of %d promotions", project, len(deployed), len(c.promoted[project]))
		}
		for _, number := range c.promoted[project] {
			var d api.BuildDetail
			if err := c.ask("build", func(a *api.Client) (err error) {
				d, err = a.Build(c.Context(), project, number)
				return err
			}); err != nil {
				c.Error(err)
				continue
			}
			if at := w.remote("rev-parse", "--verify", "--end-of-options", fmt.Sprintf("refs/tags/production/%d^{commit}", number)); at != d.Commit {
				c.Errorf("production/%d of %s is %s, deployed was %s", number, project, at, d.Commit)
			}
			w.remote("merge-base", "--is-ancestor", d.Commit, "refs/heads/master")
		}
		for _, commit := range commits {
			list := []api.Build(nil)
			if err := c.ask("builds", func(a *api.Client) (err error) {
				list, err = a.Builds(c.Context(), project, api.BuildFilter{Commit: commit})
				return err
			}); err != nil || len(list) != 1 {
				c.Errorf("%s: %d builds of a pushed commit: %v", project, len(list), err)
				continue
			}
			for _, other := range c.worlds[:3] { // its log is read on every server
				if log := other.logOf(project, list[0].Number, "job/build"); !strings.Contains(log, "step 1") {
					c.Errorf("%s has no log of build %d of %s: %q", other.name, list[0].Number, project, log)
				}
			}
		}
		// A destruction whose machine died is tried again until it is done.
		for _, number := range c.promoted[project] {
			qa := fmt.Sprintf("%s-qa-%d", project, number)
			for _, id := range journal("ups") {
				if id == qa || strings.HasPrefix(id, qa+"-") {
					w.until("environment "+id+" is destroyed", func() bool { return slices.Contains(journal("downs"), id) })
				}
			}
		}
	}
}

func (w *world) logOf(project string, number int64, node string) string {
	o := *w
	o.project = project
	return o.log(number, node)
}

package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/notify"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/testkit/s3"
)

// TestMain lets the test binary be the runner and its shim, as the program is.
func TestMain(m *testing.M) {
	s3.Setenv()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case runner.ShimCommand:
			os.Exit(runner.Shim())
		case runner.Command:
			log := slog.New(slog.NewTextHandler(os.Stderr, nil))
			if err := runner.Main(context.Background(), runner.Options{Dir: os.Args[3], Version: "test", Log: log}); err != nil {
				log.Error("runner", "err", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() && os.Getenv("TMPDIR") == "" {
		_ = os.Setenv("TMPDIR", "/dev/shm") // thousands of fsyncs; a disk that loses power is tested elsewhere
	}
	goleak.VerifyTestMain(m)
}

const patience = 40 * time.Second

// clock is the machine's clock, plus what a test stepped it on, which is time that
// passes, and what it was set forth or back, which is not.
type clock struct{ ahead, off atomic.Int64 }

func (c *clock) Now() time.Time {
	return delivery.SystemClock{}.Now().Add(time.Duration(c.ahead.Load() + c.off.Load()))
}

func (c *clock) elapsed() time.Duration {
	return delivery.SystemClock{}.Now().Sub(time.Unix(1_700_000_000, 0)) + time.Duration(c.ahead.Load())
}

func (c *clock) step(d time.Duration) { c.ahead.Add(int64(d)) }

// world is an installation with one project, petstore, and its people.
type world struct {
	*testing.T
	ctx    context.Context
	dir    string
	clock  *clock
	runner *runner.Client
	pid    int
	store  *store.Store
	engine *Engine
	queue  bool // deliver by River too
	web    *httptest.Server
	sick   atomic.Bool // the web server answers 500
	paused func() bool // see Config.Paused
}

const project = "petstore"

// The parts of a pipeline file. Scripts write what they do into files of the
// world, which stand for the machines outside.
const (
	jobs = `version: 1
jobs:
  build:
    steps: [{run: 'cp app.txt out.txt'}]
    artifacts: {app: out.txt}
`
	production = `  production:
    approve: {by: [ops], timeout: 72h}
    env: {DIR: '@DIR'}
    deploy: 'echo "$SHUNT_DEPLOY_ID $SHUNT_FENCE $SHUNT_DEPLOY_KIND $(cat $SHUNT_ARTIFACT_APP)" >> $DIR/deploys'
`
	qa = `  qa:
    ephemeral: true
    env: {DIR: '@DIR'}
    up: 'echo "up $SHUNT_ENVIRONMENT_ID" >> $DIR/envs; echo "url=@WEB" >> $SHUNT_OUTPUT'
    down: 'echo "down $SHUNT_ENVIRONMENT_ID" >> $DIR/envs'
    ready: /healthz
    keep: 8h
`
	team = `notify:
  - email: [team@example.org]
    on: [waiting, failed, promoted, rejected, back_merge, deploy_failed]
`
	plain = jobs + "environments:\n" + production + team
	full  = jobs + "environments:\n" + qa + production + "    needs: [qa]\n" + team
)

// newWorld makes a repository whose first commit, on master and develop, has the
// pipeline file.
func newWorld(t *testing.T, file string) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, ctx: context.WithoutCancel(t.Context()), dir: t.TempDir(), clock: &clock{}}
	w.web = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if w.sick.Load() {
			rw.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(w.web.Close)
	w.runner = runner.NewClient(w.in("runner"))
	w.spawn()
	t.Cleanup(func() {
		w.killRunner()
		w.runner.Close()
		http.DefaultClient.CloseIdleConnections()
		_ = runner.RemoveAll(w.in("runner"))
	})
	w.sh("git init -q --bare remote.git && git init -q -b master clone && cd clone && git remote add origin ../remote.git")
	w.write("clone/.shunt.yml", w.expand(file))
	w.write("clone/app.txt", "one")
	w.sh("cd clone && git add . && git commit -qm 'The first shop' && git push -q origin master master:develop && git checkout -qb develop")
	w.ok(os.WriteFile(w.in("shunt.db"), emptyDatabase(), 0o600))
	w.open()
	t.Cleanup(func() { w.close() })
	return w
}

// emptyDatabase is a database with all migrations: they are run once.
var emptyDatabase = sync.OnceValue(func() []byte {
	dir, err := os.MkdirTemp("", "engine")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	s, err := store.Open(context.Background(), store.Config{Database: filepath.Join(dir, "db"), Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err == nil {
		err = s.Close()
	}
	b, read := os.ReadFile(filepath.Join(dir, "db"))
	if err = errors.Join(err, read); err != nil {
		panic(err)
	}
	return b
})

func (w *world) in(name string) string { return filepath.Join(w.dir, name) }

func (w *world) expand(text string) string {
	return strings.NewReplacer("@DIR", w.dir, "@WEB", w.web.URL).Replace(text)
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) write(name, text string) {
	w.Helper()
	w.ok(os.MkdirAll(filepath.Dir(w.in(name)), 0o755))
	w.ok(os.WriteFile(w.in(name), []byte(text), 0o644))
}

func (w *world) read(name string) string {
	w.Helper()
	b, err := os.ReadFile(w.in(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Fatal(err)
	}
	return string(b)
}

// lines of a file that scripts write to.
func (w *world) lines(name string) []string {
	return strings.FieldsFunc(w.read(name), func(r rune) bool { return r == '\n' })
}

// sh is what people type.
func (w *world) sh(script string) string {
	w.Helper()
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = w.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=Ana", "GIT_AUTHOR_EMAIL=ana@example.org", "GIT_COMMITTER_NAME=Ana", "GIT_COMMITTER_EMAIL=ana@example.org", "GIT_TERMINAL_PROMPT=0"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (w *world) git(args string) string { w.Helper(); return w.sh("cd clone && git " + args) }

// remote asks the remote for an object; "" when there is none.
func (w *world) remote(rev string) string {
	w.Helper()
	return w.sh("git -C remote.git rev-parse -q --verify '" + rev + "' || true")
}

// open starts a server on the data directory.
func (w *world) open() {
	w.Helper()
	log := slog.New(slog.NewTextHandler(testLog{w.T}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	var err error
	w.store, err = store.Open(w.ctx, store.Config{Database: w.in("shunt.db"), Clock: w.clock, Log: log, Fatal: func(err error) { panic(err) }})
	w.ok(err)
	git, err := gitrepo.New(gitrepo.Config{Dir: w.in("mirrors"), Home: w.in("home"), Log: log, Timeout: 30 * time.Second})
	w.ok(err)
	blobs, err := artifact.NewStore(w.in("blobs"))
	w.ok(err)
	w.engine = New(Config{
		Store: w.store, Git: git, Runner: w.runner, Blobs: blobs, Files: &artifact.Files{Dir: w.in("published"), Store: blobs}, Dir: w.dir, Clock: w.clock, Log: log,
		ServerID: "srv", Owner: "test/1", URL: "https://shunt.example.org", MailFrom: "shunt@example.org",
		Open:    func(s string) (string, error) { return strings.TrimPrefix(s, "sealed:"), nil },
		Workers: map[delivery.Lane]int{delivery.LaneMain: 2, delivery.LaneHotfix: 2}, Paused: w.paused, Elapsed: w.clock.elapsed,
	})
	w.engine.every = 100 * time.Millisecond
	if w.queue {
		w.ok(w.store.StartQueue(w.ctx, store.QueueConfig{Main: 2, Hotfix: 2, ID: "test"}, w.engine))
	}
	w.ok(w.engine.Start(w.ctx))
}

// close stops the server as SIGTERM does.
func (w *world) close() {
	w.engine.Stop()
	if w.queue {
		_ = w.store.StopQueue(w.ctx)
	}
	_ = w.store.Close()
}

// crash ends the server as kill -9 does: nothing is written any more.
func (w *world) crash() {
	_ = w.store.Close()
	w.engine.Stop()
}

func (w *world) spawn() {
	w.Helper()
	exe, err := os.Executable()
	w.ok(err)
	info, err := runner.Spawn(w.ctx, exe, w.in("runner"), nil)
	w.ok(err)
	w.pid = info.PID
}

// killRunner is kill -9.
func (w *world) killRunner() {
	_ = unix.Kill(w.pid, unix.SIGKILL)
	for end := time.Now().Add(patience); time.Now().Before(end) && unix.Kill(w.pid, 0) == nil; {
		time.Sleep(2 * time.Millisecond)
	}
}

// add takes the repository over and looks at it.
func (w *world) add(inProduction string) {
	w.Helper()
	w.ok(w.engine.AddProject(w.ctx, NewProject{Name: project, URL: w.in("remote.git"), Local: true, InProduction: inProduction, By: "ops"}))
	w.sync()
	if inProduction != "" {
		w.reach(1, delivery.BuildSucceeded)
	}
}

func (w *world) sync() []store.Push {
	w.Helper()
	pushes, err := w.engine.Sync(w.ctx, project)
	w.ok(err)
	return pushes
}

// commit changes the shop on a branch and pushes it. The branch is made at start
// when there is none.
func (w *world) commit(branch, start, text string) (commit string) {
	w.Helper()
	w.git("checkout -q " + branch + " 2>/dev/null || git checkout -qb " + branch + " " + start)
	w.write("clone/app.txt", text)
	w.git("commit -qam '" + text + "' && git push -q -u origin HEAD")
	return w.git("rev-parse HEAD")
}

// push commits, and returns the number of the build that it makes.
func (w *world) push(branch, start, text string) int64 {
	w.Helper()
	w.commit(branch, start, text)
	p := w.pushed()
	if p.Number == 0 {
		w.Fatalf("the push was refused: %s", p.Refused)
	}
	return p.Number
}

// pushed looks at the remote and tells what became of the last push, whoever saw it first.
func (w *world) pushed() store.Push {
	w.Helper()
	w.sync()
	p, err := w.store.PushOf(w.ctx, project, w.git("symbolic-ref HEAD"), w.git("rev-parse HEAD"))
	w.ok(err)
	return p
}

// hotfix pushes a fix that starts at what is in production.
func (w *world) hotfix(name, text string) int64 {
	w.Helper()
	w.git("fetch -q --tags origin")
	return w.push("hotfix/"+name, w.project().ProductionCommit, text)
}

func (w *world) project() delivery.Project {
	w.Helper()
	p, err := w.store.Project(w.ctx, project)
	w.ok(err)
	return p
}

func (w *world) build(number int64) delivery.Build {
	w.Helper()
	b, err := w.store.BuildByNumber(w.ctx, project, number)
	w.ok(err)
	return b
}

func (w *world) node(number int64, name string) delivery.Node {
	w.Helper()
	nodes, err := w.store.Nodes(w.ctx, w.build(number).ID)
	w.ok(err)
	for _, n := range nodes {
		if n.Name == name {
			return n
		}
	}
	w.Fatalf("build %d has no node %s", number, name)
	return delivery.Node{}
}

// until waits for a condition, looking again when something happens.
func (w *world) until(what string, cond func() bool) {
	w.Helper()
	events, cancel := w.store.Subscribe()
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !cond() {
		select {
		case <-events:
		case <-tick.C:
		case <-end:
			w.Fatalf("waited in vain for: %s\n%s", what, w.story())
		}
	}
}

// story is what happened, for a test that failed.
func (w *world) story() string {
	var out strings.Builder
	builds, _ := w.store.Builds(w.ctx, store.BuildQuery{Project: project, Limit: 20})
	for _, b := range builds {
		fmt.Fprintf(&out, "build %d %s %s: %s (lease %q)\n", b.Number, b.Lane, b.Status, b.Reason, b.LeaseOwner)
		nodes, _ := w.store.Nodes(w.ctx, b.ID)
		for _, n := range nodes {
			fmt.Fprintf(&out, "  %s %s #%d: %s\n", n.Name, n.State, n.Attempt, n.Reason)
		}
	}
	rows, _ := w.store.AuditRows(w.ctx, project, 0, 50)
	for _, r := range rows {
		fmt.Fprintf(&out, "%d %d %s: %s %s\n", r.Seq, r.Number, r.Actor, r.Action, r.Detail)
	}
	return out.String()
}

// reach waits until a build has a status.
func (w *world) reach(number int64, status delivery.BuildStatus) delivery.Build {
	w.Helper()
	w.until(fmt.Sprintf("build %d is %s", number, status), func() bool { return w.build(number).Status == status })
	return w.build(number)
}

func (w *world) exists(name string) func() bool {
	return func() bool { _, err := os.Stat(w.in(name)); return err == nil }
}

// decide clicks.
func (w *world) decide(number int64, promote bool, reason string) error {
	_, err := w.engine.Decide(w.ctx, project, number, delivery.Decision{Promote: promote, By: "bob", From: "test", Reason: reason})
	return err
}

func (w *world) promote(number int64) {
	w.Helper()
	w.ok(w.decide(number, true, "looks good"))
}

// ship takes a waiting build to production.
func (w *world) ship(number int64) delivery.Build {
	w.Helper()
	w.fresh(number)
	w.promote(number)
	return w.reach(number, delivery.BuildSucceeded)
}

// fresh waits until a build's gate asks about things as they are now.
func (w *world) fresh(number int64) {
	w.Helper()
	b := w.reach(number, delivery.BuildWaiting)
	w.until(fmt.Sprintf("the gate of build %d is up to date", number), func() bool {
		now, err := binding(w.ctx, w.store, b)
		w.ok(err)
		return len(flow.BindingChanged(w.gate(number).Binding, now)) == 0
	})
}

// refused checks that an act was refused with these words.
func (w *world) refused(err error, kind delivery.Kind, words ...string) {
	w.Helper()
	if !delivery.IsKind(err, kind) {
		w.Fatalf("error is %v, want a %s", err, kind)
	}
	w.says(err.Error(), words...)
}

func (w *world) says(text string, words ...string) {
	w.Helper()
	for _, s := range words {
		if !strings.Contains(text, s) {
			w.Fatalf("%q does not say %q", text, s)
		}
	}
}

func (w *world) want(what string, got, want any) {
	w.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.Fatalf("%s is %v, want %v\n%s", what, got, want, w.story())
	}
}

// mails are the messages in the outbox, by kind.
func (w *world) mails() map[string][]notify.Message {
	w.Helper()
	due, err := w.store.DueMails(w.ctx, w.clock.Now().Add(1000*time.Hour), 1000)
	w.ok(err)
	out := map[string][]notify.Message{}
	for _, m := range due {
		var msg notify.Message
		w.ok(json.Unmarshal([]byte(m.Message), &msg))
		out[m.Kind] = append(out[m.Kind], msg)
	}
	return out
}

func (w *world) mail(kind string, words ...string) notify.Message {
	w.Helper()
	list := w.mails()[kind]
	if len(list) == 0 {
		w.Fatalf("there is no mail %q\n%s", kind, w.story())
	}
	last := list[len(list)-1]
	w.says(last.Subject+"\n"+last.Text, words...)
	return last
}

// audited tells whether the audit log has such a row, and that its chain holds.
func (w *world) audited(number int64, actor, action string) {
	w.Helper()
	rows, err := w.store.AuditRows(w.ctx, project, 0, 1000)
	w.ok(err)
	found := false
	for _, r := range rows {
		found = found || r.Number == number && r.Actor == actor && r.Action == action
	}
	if _, broken, err := w.store.VerifyAudit(w.ctx); broken != 0 || err != nil || !found {
		w.Fatalf("audit of %q by %s on build %d: found %v, chain broken at %d, %v\n%s", action, actor, number, found, broken, err, w.story())
	}
}

func (w *world) deployments(number int64) []delivery.Deployment {
	w.Helper()
	all, err := w.store.Deployments(w.ctx, project, "", 100)
	w.ok(err)
	var out []delivery.Deployment
	for _, d := range all {
		if d.Number == number {
			out = append(out, d)
		}
	}
	return out
}

func (w *world) gate(number int64) delivery.Gate {
	w.Helper()
	gates, err := w.store.Gates(w.ctx, w.build(number).ID)
	w.ok(err)
	if len(gates) == 0 {
		w.Fatalf("build %d has no gate", number)
	}
	return gates[len(gates)-1]
}

func (w *world) instance(id string) delivery.Instance {
	w.Helper()
	i, err := w.store.Instance(w.ctx, id)
	w.ok(err)
	return i
}

// log is what a job printed.
func (w *world) log(attempt string) string {
	return strings.Join(Tail(w.engine.LogPath(attempt), 1000), "\n")
}

// hook makes the remote refuse pushes of refs that match a shell pattern.
func (w *world) hook(pattern string) {
	w.Helper()
	w.write("remote.git/hooks/pre-receive", "#!/bin/sh\nwhile read old new ref; do case $ref in "+pattern+") echo not today; exit 1;; esac; done\n")
	w.ok(os.Chmod(w.in("remote.git/hooks/pre-receive"), 0o755))
}

func (w *world) unhook() { w.ok(os.Remove(w.in("remote.git/hooks/pre-receive"))) }

// testLog writes the server's log into the test's.
type testLog struct{ *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	l.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

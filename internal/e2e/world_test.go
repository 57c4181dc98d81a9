package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/s3"
)

// patience is how long a test waits for what must come. It is generous: a slow
// machine is no failure.
const patience = 2 * time.Minute

// long is set by `make faults`.
var long = flag.Bool("long", false, "also the fault rows that take minutes")

func takesLong(t *testing.T) {
	t.Helper()
	if !*long {
		t.Skip("takes long: -long")
	}
}

// program is the binary under test; TestMain sets it.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	if program = os.Getenv("SHUNT_E2E_BINARY"); program != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "shunt-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "shunt")
	if err := build(".", program, "-buildvcs=false"); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes the binary from the sources around dir. Its flags are those of
// every other build of the project's checks, so that the compiler's cache serves all.
func build(dir, to string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-ldflags=-s -w", "-o", to}, flags...)
	cmd := exec.Command("go", append(args, "github.com/shuntcd/shunt/cmd/shunt")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// world is one installation.
type world struct {
	*testing.T
	exe     string // the server's binary
	dir     string
	project string
	data    string
	bare    string
	clone   string
	listen  string
	url     string
	verb    string   // serve or worker
	name    string   // of this server among several
	inside  string   // network namespace that it runs in
	flags   []string // further ones of serve
	environ []string // further variables
	token   string
	secret  string // of the webhook
	api     *api.Client
	server  *exec.Cmd
	ended   chan struct{} // closed when the server process has ended
}

// emptyWorld makes the directory of a world without repositories and server.
func emptyWorld(t *testing.T, project string, flags ...string) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{T: t, exe: program, verb: "serve", name: "server", dir: dir, project: project, data: filepath.Join(dir, "data"), bare: filepath.Join(dir, project+".git"), clone: filepath.Join(dir, project), flags: flags}
	w.must(os.MkdirAll(w.at("home"), 0o750))
	w.must(os.MkdirAll(w.at("journal"), 0o750))
	t.Cleanup(w.sweep)
	w.listen = freeAddress(t)
	w.url = "http://" + w.listen
	return w
}

// newWorld makes a world with files on develop, and starts the server. The
// project is not added yet.
func newWorld(t *testing.T, files map[string]string, flags ...string) *world {
	t.Helper()
	w := emptyWorld(t, "shop", flags...)
	w.environ = s3.Environ() // only servers with --objects look at them
	w.run(w.dir, "git", "init", "--quiet", "--bare", "--initial-branch=master", w.bare)
	w.run(w.dir, "git", "init", "--quiet", "--initial-branch=master", w.clone)
	w.git("remote", "add", "origin", w.bare)
	w.git("config", "user.name", "Ana Ruiz")
	w.git("config", "user.email", "ana@example.org")
	w.git("commit", "--quiet", "--allow-empty", "--message", "An empty shop")
	w.git("push", "--quiet", "--set-upstream", "origin", "master")
	w.git("switch", "--quiet", "--create", "develop")
	w.write(files)
	w.commit("A shop")
	w.begin()
	return w
}

// begin starts the server for the first time and gets a token.
func (w *world) begin() {
	w.Helper()
	w.start()
	w.token = w.shunt("token", "create", "test", "--data", w.data)
	w.api = api.NewClient(w.url, w.token, &http.Client{Timeout: time.Minute})
}

// freeAddress is a port of a loopback address that nobody else uses: worlds can
// restart on it without anybody taking it meanwhile.
func freeAddress(t *testing.T) string {
	t.Helper()
	ip := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (w *world) at(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// env is the environment of people's commands: nothing of the machine's user.
func (w *world) env() []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + w.at("home"), "LANG=C.UTF-8", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_MERGE_AUTOEDIT=no",
		"GIT_EDITOR=true", "SHUNT_SERVER=" + w.url, "SHUNT_TOKEN=" + w.token, "SHUNT_PROJECT=" + w.project,
	}, w.environ...)
}

// command runs a program as a person in a directory would; the exit code is no error.
func (w *world) command(dir, stdin string, args ...string) (out string, code int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = dir, w.env(), strings.NewReader(stdin)
	b, err := cmd.CombinedOutput()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && (!ended || ctx.Err() != nil) {
		w.Fatalf("%q: %v\n%s", args, err, b)
	}
	return strings.TrimSpace(string(b)), cmd.ProcessState.ExitCode()
}

func (w *world) run(dir string, args ...string) string {
	w.Helper()
	out, code := w.command(dir, "", args...)
	if code != 0 {
		w.Fatalf("%q ended with %d\n%s", args, code, out)
	}
	return out
}

func (w *world) git(args ...string) string {
	w.Helper()
	return w.run(w.clone, append([]string{"git"}, args...)...)
}

// remote runs git in the bare repository.
func (w *world) remote(args ...string) string {
	w.Helper()
	return w.run(w.bare, append([]string{"git"}, args...)...)
}

// shunt runs a command of the command line in the clone; it must succeed.
func (w *world) shunt(args ...string) string {
	w.Helper()
	return w.run(w.clone, append([]string{w.exe}, args...)...)
}

// shuntCode runs a command that says something with its exit code.
func (w *world) shuntCode(want int, args ...string) string {
	w.Helper()
	out, code := w.command(w.clone, "", append([]string{w.exe}, args...)...)
	if code != want {
		w.Errorf("shunt %q ended with %d, want %d\n%s", args, code, want, out)
	}
	return out
}

// write writes files into the clone; @DIR@ becomes the journal's directory.
func (w *world) write(files map[string]string) {
	w.Helper()
	for name, text := range files {
		file := filepath.Join(w.clone, name)
		w.must(os.MkdirAll(filepath.Dir(file), 0o750))
		w.must(os.WriteFile(file, []byte(strings.ReplaceAll(text, "@DIR@", w.at("journal"))), 0o755))
	}
}

func (w *world) commit(message string) string {
	w.Helper()
	w.git("add", "--all")
	w.git("commit", "--quiet", "--allow-empty", "--message", message)
	return w.git("rev-parse", "HEAD")
}

// start starts the server and returns when it answers.
func (w *world) start() {
	w.Helper()
	log, err := os.OpenFile(w.at(w.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.must(err)
	defer log.Close()
	args := append([]string{w.verb, "--data", w.data, "--listen", w.listen, "--mail-dir", w.at("mail")}, w.flags...)
	cmd := exec.Command(w.exe, args...)
	if w.inside != "" {
		cmd = exec.Command("ip", append([]string{"netns", "exec", w.inside, w.exe}, args...)...)
	}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, w.env(), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	w.server, w.ended = cmd, make(chan struct{})
	ended := w.ended
	go func() {
		// The parent-death signal comes when the thread that forked ends: this
		// goroutine keeps it.
		runtime.LockOSThread()
		started <- cmd.Start()
		_ = cmd.Wait()
		close(ended)
	}()
	w.must(<-started)
	w.until("the server answers", func() bool {
		select {
		case <-ended:
			w.Fatalf("the server ended: %v", cmd.ProcessState)
		default:
		}
		resp, err := http.Get(w.url + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// kill ends the server with a signal and waits until it is gone.
func (w *world) kill(sig syscall.Signal) *os.ProcessState {
	w.Helper()
	w.must(w.server.Process.Signal(sig))
	select {
	case <-w.ended:
	case <-time.After(patience):
		w.Fatalf("the server does not end after %s", sig)
	}
	return w.server.ProcessState
}

// add takes the repository over, with its post-receive hook.
func (w *world) add(in api.AddProject) api.AddedProject {
	w.Helper()
	in.Name, in.URL, in.Local = w.project, w.bare, true
	p, err := w.api.AddProject(w.Context(), in)
	w.must(err)
	w.secret = p.WebhookSecret
	return p
}

// until waits for something.
func (w *world) until(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(patience); ; {
		if ok() {
			return
		}
		if time.Now().After(end) {
			w.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// push pushes a ref and returns the build that was made of it.
func (w *world) push(ref string) api.Build {
	w.Helper()
	out := w.git("push", "origin", ref)
	return w.buildOf(w.git("rev-parse", strings.SplitN(strings.TrimPrefix(ref, "+"), ":", 2)[0]), out)
}

// buildOf waits for the build of a commit.
func (w *world) buildOf(commit, said string) (b api.Build) {
	w.Helper()
	w.until("there is a build of "+commit+"\n"+said, func() bool {
		list, err := w.api.Builds(w.Context(), w.project, api.BuildFilter{Commit: commit, Limit: 1})
		if err == nil && len(list) > 0 {
			b = list[0]
		}
		return b.Number > 0
	})
	return b
}

// reach waits until a build has a status. A server that is away is waited for.
func (w *world) reach(number int64, status delivery.BuildStatus) (b api.BuildDetail) {
	w.Helper()
	w.until(fmt.Sprintf("build %d is %s", number, status), func() bool {
		now, err := w.api.Build(w.Context(), w.project, number)
		if err != nil {
			return false
		}
		b = now
		if b.Status != status && (b.Status.Final() || b.Status == delivery.BuildStopped) {
			w.Fatal(story(b))
		}
		return b.Status == status
	})
	return b
}

// story is all that is known of a build, for a test that fails.
func story(b api.BuildDetail) string {
	var s strings.Builder
	fmt.Fprintf(&s, "build %d is %s: %s", b.Number, b.Status, b.Reason)
	for _, n := range b.Nodes {
		fmt.Fprintf(&s, "\n  %-18s %-10s %d attempts  %s", n.Name, n.State, len(n.Attempts), n.Reason)
	}
	if y := b.WhyFailed; y != nil {
		fmt.Fprintf(&s, "\n  %s: %s\n    %s", y.Node, y.Reason, strings.Join(y.Tail, "\n    "))
	}
	return s.String()
}

// promote promotes a build and waits until it is in production.
func (w *world) promote(number int64) api.BuildDetail {
	w.Helper()
	w.reach(number, delivery.BuildWaiting)
	_, err := w.api.Decide(w.Context(), w.project, number, api.Decide{Promote: true})
	w.must(err)
	return w.reach(number, delivery.BuildSucceeded)
}

// journal reads a file that the scripts wrote, in lines.
func (w *world) journal(name string) []string {
	w.Helper()
	b, err := os.ReadFile(w.at("journal", name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	w.must(err)
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

// allow makes a file that a script waits for.
func (w *world) allow(name string) {
	w.Helper()
	w.must(os.WriteFile(w.at("journal", name), nil, 0o600))
}

func (w *world) await(name string) {
	w.Helper()
	w.until("a script wrote "+name, func() bool { return len(w.journal(name)) > 0 })
}

// log is a node's log as text.
func (w *world) log(number int64, node string) string {
	w.Helper()
	r, err := w.api.Log(w.Context(), w.project, number, node, 0, 0, false, "text")
	w.must(err)
	defer r.Close()
	b, err := io.ReadAll(r)
	w.must(err)
	return string(b)
}

// processes lists the processes whose command line or environment has all of
// these words.
func processes(words ...string) map[int]string {
	out := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
next:
	for _, dir := range dirs {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(line) == 0 {
			continue // it has ended
		}
		env, _ := os.ReadFile(filepath.Join(dir, "environ"))
		text := string(bytes.ReplaceAll(append(append(line, 0), env...), []byte{0}, []byte{' '}))
		for _, w := range words {
			if !strings.Contains(text, w) {
				continue next
			}
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && pid != os.Getpid() {
			out[pid] = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
	return out
}

// jobProcesses are those that carry the cookie of a job of this world.
func (w *world) jobProcesses() map[int]string {
	return processes("SHUNT_JOB=", "SHUNT_RUNNER="+w.data)
}

// runnerPID is the process of the world's runner.
func (w *world) runnerPID() (pid int) {
	w.Helper()
	w.until("there is a runner", func() bool {
		for id := range processes(" runner --dir " + filepath.Join(w.data, "runner") + " ") {
			pid = id
		}
		return pid != 0
	})
	return pid
}

// sweep ends what the world started, whatever became of the test. Everything of
// a world has its directory in its command line or environment.
func (w *world) sweep() {
	if w.Failed() {
		logs, _ := filepath.Glob(w.at("*.log"))
		for _, log := range logs {
			if b, err := os.ReadFile(log); err == nil {
				w.Logf("%s:\n%s", filepath.Base(log), b[max(0, len(b)-6000):])
			}
		}
	}
	for gone := 0; gone < 3; gone++ { // one that is about to begin has no command line for a moment
		left := processes(w.dir)
		if len(left) > 0 {
			gone = 0
		}
		for pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// world is the demo as a person gets it with --serve: build 1 is in production,
// develop is ahead, the server runs. Its data is where the test wants it.
type world struct {
	t      *testing.T
	dir    string // the demo's folder
	data   string
	client *api.Client
	url    string
	token  string
	out    *lines
}

// lines is what a process prints, as far as it has.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T, bin, data string) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "demo"), data: data, out: &lines{}}
	cmd := exec.Command(bin, "demo", "--serve", "--port", "0", "--dir", w.dir, "--data", data)
	cmd.Stdout, cmd.Stderr = w.out, w.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			t.Errorf("the demo does not end:\n%s", w.out)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(w.dir, "server.log"))
			t.Logf("server.log:\n%s", log[max(0, len(log)-6000):])
		}
	})
	w.until("the demo serves", func() bool {
		select {
		case <-ended:
			t.Fatalf("the demo ended:\n%s", w.out)
		default:
		}
		return strings.Contains(w.out.String(), "Ctrl-C stops everything")
	})
	w.url, w.token = w.git("config", "shunt.server"), w.git("config", "shunt.token")
	w.client = api.NewClient(w.url, w.token, &http.Client{Timeout: 30 * time.Second})
	return w
}

// until waits for something that must come.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.After(2 * time.Minute); !ok(); {
		select {
		case <-end:
			w.t.Fatalf("waited in vain until %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (w *world) git(args ...string) string {
	w.t.Helper()
	out, err := w.try("git", args...)
	if err != nil {
		w.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

// try runs a program in the clone.
func (w *world) try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = filepath.Join(w.dir, "petstore")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// shunt runs a command of the command line in the clone.
func (w *world) shunt(args ...string) (string, error) {
	return w.try(filepath.Join(w.dir, "bin", "shunt"), args...)
}

// commit makes a hotfix with a commit of its own and pushes it.
func (w *world) commit(name string) (commit, said string) {
	w.t.Helper()
	w.git("fetch", "--quiet", "--tags", "origin")
	w.git("switch", "--quiet", "--force-create", "hotfix/"+name, "production/1")
	if err := os.WriteFile(filepath.Join(w.dir, "petstore", name+".txt"), []byte(name), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.git("add", ".")
	w.git("commit", "--quiet", "--message", name)
	return w.git("rev-parse", "HEAD"), w.git("push", "origin", "HEAD")
}

// build is the build of a commit; none: number 0.
func (w *world) build(commit string) api.BuildDetail {
	list, err := w.client.Builds(w.t.Context(), "petstore", api.BuildFilter{Commit: commit, Limit: 1})
	if err != nil || len(list) == 0 {
		return api.BuildDetail{}
	}
	b, err := w.client.Build(w.t.Context(), "petstore", list[0].Number)
	if err != nil {
		return api.BuildDetail{}
	}
	return b
}

// becomes waits until the build of a commit has a status.
func (w *world) becomes(commit string, status delivery.BuildStatus) api.BuildDetail {
	w.t.Helper()
	var b api.BuildDetail
	w.until(fmt.Sprintf("the build of %.7s is %s", commit, status), func() bool {
		b = w.build(commit)
		if b.Status != status && b.Status.Final() {
			w.t.Fatalf("build %d is %s, want %s: %s", b.Number, b.Status, status, b.Reason)
		}
		return b.Status == status
	})
	return b
}

// page reads a page as the token's owner and returns its status.
func (w *world) page(path string) (int, string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(resp.Body)
	return resp.StatusCode, b.String()
}

// deploys are the lines that the deploy script itself wrote.
func (w *world) deploys() []string {
	b, _ := os.ReadFile(filepath.Join(w.dir, "production", "deploys.log"))
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// server is the process id of the server.
func (w *world) server() int {
	w.t.Helper()
	found := 0
	w.until("a server runs", func() bool {
		entries, _ := filepath.Glob("/proc/[0-9]*")
		for _, e := range entries {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(e), "%d", &pid); err != nil {
				continue
			}
			if p := readProcess(pid); p.role() == "server" && p.state != 'Z' && strings.Contains(strings.Join(p.args, " "), w.data) {
				found = pid
			}
		}
		return found != 0
	})
	return found
}

// isWords tells whether an error is one that a person can act on.
func isWords(err error, kind delivery.Kind) bool {
	e, ok := errors.AsType[*delivery.Error](err)
	return ok && e.Kind == kind && e.Why != ""
}

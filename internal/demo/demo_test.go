package demo

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binDir holds the real program, which the first test that needs it builds.
var binDir string

var program = sync.OnceValues(func() (string, error) {
	exe := filepath.Join(binDir, "shunt")
	cmd := exec.Command("go", "build", "-o", exe, "github.com/shuntcd/shunt/cmd/shunt")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return exe, nil
})

func TestMain(m *testing.M) {
	var err error
	if binDir, err = os.MkdirTemp("", "shunt-demo-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	_ = os.RemoveAll(binDir)
	os.Exit(code)
}

// play runs `shunt demo` and returns what it printed and its exit code.
func play(t *testing.T, ctx context.Context, args ...string) (string, int) {
	t.Helper()
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe, append([]string{"demo"}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// processes are the command lines of processes that have words in them, by id.
func processes(t *testing.T, words ...string) map[int]string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	out := map[int]string{}
next:
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		line := string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			out[pid] = line
		}
	}
	return out
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", append([]string{"--git-dir", dir}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// mustHold looks at what the demo left, from outside.
func mustHold(t *testing.T, dir string) {
	t.Helper()
	bare := filepath.Join(dir, "petstore.git")
	tags := strings.Fields(git(t, bare, "for-each-ref", "--format=%(objecttype):%(refname:short)", "refs/tags/production"))
	if len(tags) != 2 {
		t.Fatalf("production tags are %v, want 2", tags)
	}
	for _, tag := range tags {
		name, ok := strings.CutPrefix(tag, "tag:")
		if !ok {
			t.Errorf("%s is not annotated", tag)
		}
		build := strings.Replace(name, "production/", "build/", 1)
		if a, b := git(t, bare, "rev-parse", name+"^{commit}"), git(t, bare, "rev-parse", build+"^{commit}"); a != b {
			t.Errorf("%s is on %s and %s on %s", name, a, build, b)
		}
	}
	if parent, first := git(t, bare, "rev-parse", "master^"), git(t, bare, "rev-parse", "production/1^{commit}"); parent != first {
		t.Errorf("the hotfix's parent is %s, want %s", parent, first)
	}
	if log := git(t, bare, "log", "--format=%s", "master"); strings.Contains(log, "unfinished") {
		t.Errorf("unfinished work is on master:\n%s", log)
	}
	log, err := os.ReadFile(filepath.Join(dir, "production", "deploys.log"))
	if err != nil || strings.Count(string(log), "\n") != 2 {
		t.Errorf("deploys.log: %v\n%s", err, log)
	}
	if mails, err := filepath.Glob(filepath.Join(dir, "mail", "*.eml")); err != nil || len(mails) < 4 {
		t.Errorf("mails: %v, %v", mails, err)
	}
	if left := processes(t, dir); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
}

func TestAuto(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("plays the whole story")
	}
	dir := filepath.Join(t.TempDir(), "the demo's folder")
	out, code := play(t, t.Context(), "--auto", "--dir", dir, "--port", "0")
	if code != 0 || strings.Contains(out, "FAIL") {
		t.Fatalf("ended with %d\n%s", code, out)
	}
	t.Log("\n" + out)
	mustHold(t, dir)
}

// The server may die at any moment: the story ends the same way.
func TestAutoWithKills(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("plays the whole story")
	}
	dir := filepath.Join(t.TempDir(), "demo")
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, seed))
	ctx, cancel := context.WithCancel(t.Context())
	var killer sync.WaitGroup
	killed := 0
	killer.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(200+random.IntN(1500)) * time.Millisecond):
				for pid := range processes(t, " serve --data "+dir) {
					if syscall.Kill(pid, syscall.SIGKILL) == nil {
						killed++
					}
				}
			}
		}
	})
	out, code := play(t, t.Context(), "--auto", "--dir", dir, "--port", "0")
	cancel()
	killer.Wait()
	if code != 0 {
		log, _ := os.ReadFile(filepath.Join(dir, "server.log"))
		t.Fatalf("seed %d: after %d kills it ended with %d\n%s\n%s", seed, killed, code, out, log)
	}
	t.Logf("seed %d, %d kills\n%s", seed, killed, out)
	mustHold(t, dir)
}

func TestRefusesForeignFolder(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the program")
	}
	dir := t.TempDir()
	precious := filepath.Join(dir, "data")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code := play(t, t.Context(), "--auto", "--dir", dir)
	if code != 2 || !strings.Contains(out, "no demo made it") || !strings.Contains(out, "--dir DIR") {
		t.Errorf("ended with %d\n%s", code, out)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}

package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// seed chooses the moments of TestTheDemoSurvivesKillAtAnyMoment; 0 takes new
// ones each time. The seed is printed, so that a failure can be played again.
var seed = flag.Uint64("seed", 0, "of the random moments; 0: another one each time")

// moments is how many times the server is killed in all demos together.
const moments = 40

// The demo's own story checks all its claims and ends with 0 only if they hold.
// Here its server is killed at random moments, and what ran is counted outside of it.
func TestTheDemoSurvivesKillAtAnyMoment(t *testing.T) {
	t.Parallel()
	from := *seed
	if from == 0 {
		from = uint64(time.Now().UnixNano())
	}
	want := int64(moments)
	if testing.Short() {
		want = 6
	}
	// Two demos that start at the same time would both find the same port of
	// production free. This takes it, so that each gets one of its own.
	if l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "localhost:9001"); err == nil {
		t.Cleanup(func() { _ = l.Close() })
	}
	var killed atomic.Int64
	var demos sync.WaitGroup
	for side := range 2 {
		demos.Go(func() {
			for run := side; killed.Load() < want && !t.Failed(); run += 2 {
				n := playKilled(t, from, uint64(run))
				t.Logf("seed %d, run %d: %d kills", from, run, n)
				killed.Add(int64(n))
			}
		})
	}
	demos.Wait()
	t.Logf("seed %d: killed at %d moments", from, killed.Load())
}

// playKilled plays one demo, kills its server up to 5 times and returns how
// often that was.
func playKilled(t *testing.T, seed, run uint64) (kills int) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("demo%d", run))
	random := rand.New(rand.NewPCG(seed, run))
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "demo", "--auto", "--dir", dir, "--port", "0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return 0
	}
	defer (&world{T: t, dir: dir}).sweep()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	var when []string
	begin := time.Now()
	for playing := true; playing; {
		next := time.Duration(random.IntN(1500)) * time.Millisecond
		if kills == 5 {
			next = time.Hour
		}
		select {
		case err = <-ended:
			playing = false
		case <-time.After(next):
			for pid := range processes(" serve --data " + filepath.Join(dir, "data")) {
				if syscall.Kill(pid, syscall.SIGKILL) == nil {
					kills++
					when = append(when, time.Since(begin).Round(time.Millisecond).String())
				}
			}
		}
	}
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "server.log"))
		t.Errorf("seed %d, run %d: killed at %v, it ended with %v\n%s\n%s", seed, run, when, err, out.Bytes(), log)
		return kills
	}
	for _, wrong := range ranTwice(dir) {
		t.Errorf("seed %d, run %d: killed at %v: %s", seed, run, when, wrong)
	}
	return kills
}

// ranTwice looks for what ran more than once: deployments in what the deploy
// script wrote down, and jobs in the logs of their attempts. The runner was never
// killed, so each job has one attempt that began once.
func ranTwice(dir string) (wrong []string) {
	deploys, err := os.ReadFile(filepath.Join(dir, "production", "deploys.log"))
	if err != nil {
		return []string{err.Error()}
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(deploys)) {
		id, _, _ := strings.Cut(line, " ")
		if seen[id] {
			wrong = append(wrong, "deployed twice: "+line)
		}
		seen[id] = true
	}
	if len(seen) != 2 {
		wrong = append(wrong, fmt.Sprintf("deployed were\n%s", deploys))
	}
	logs, err := filepath.Glob(filepath.Join(dir, "data", "logs", "*.log"))
	if err != nil || len(logs) < 12 {
		wrong = append(wrong, fmt.Sprintf("there are %d logs: %v", len(logs), err))
	}
	for _, name := range logs {
		text, err := os.ReadFile(name)
		n := bytes.Count(text, []byte(" #step 1 ")) - bytes.Count(text, []byte(" #step 1 ended "))
		if err != nil || n != 1 || !strings.HasSuffix(name, "-1.log") {
			wrong = append(wrong, fmt.Sprintf("%s began %d times: %v\n%s", filepath.Base(name), n, err, text))
		}
	}
	return wrong
}

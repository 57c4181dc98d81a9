package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shuntcd/shunt/internal/delivery"
)

// pidIn reads a process number that a job has written.
func (b *bench) pidIn(name string) (pid int) {
	b.Helper()
	b.eventually(name+" holds a process number", func() bool {
		data, _ := os.ReadFile(filepath.Join(b.work, name))
		_, err := fmt.Sscan(string(data), &pid)
		return err == nil && strings.HasSuffix(string(data), "\n")
	})
	return pid
}

func alive(pid int) bool { _, ok := readProcess(pid); return ok }

func TestTimeout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spec("j", "echo begin; sleep 100; echo end")
	s.Timeout = 100 * time.Millisecond
	r := b.run(s)
	b.want(r, delivery.AttemptTimedOut)
	if r.ExitCode != 143 || r.Reason != "it took longer than 100ms" || b.output("j") != "begin\n" {
		t.Errorf("%+v %q", r, b.output("j"))
	}
}

func TestStopInterruptsThenKills(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(b.spec("polite", "trap 'echo cleaned up; exit 0' TERM; echo ready; while :; do sleep 0.01; done"))
	b.start(b.spec("stubborn", "trap '' TERM; echo ready; (trap '' TERM; echo $$ > pid; sleep 1000) & while :; do sleep 0.01; done"))
	for _, id := range []string{"polite", "stubborn"} {
		b.printed(id, "ready")
		for range 2 {
			if err := b.Stop(t.Context(), id, "cancelled by ana"); err != nil {
				t.Fatal(err)
			}
		}
		r := b.result(id)
		b.want(r, delivery.AttemptCancelled)
		if r.Reason != "cancelled by ana" {
			t.Errorf("%+v", r)
		}
	}
	if !strings.Contains(b.output("polite"), "cleaned up") {
		t.Error(b.output("polite"))
	}
	if err := b.Stop(t.Context(), "polite", "again"); err != nil {
		t.Error(err)
	}
	isErr(t, b.Stop(t.Context(), "nobody", ""), ErrUnknownJob)
	if left := b.left(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOrdinaryJobLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.want(b.run(b.spec("j", `
		sleep 1000 &
		(setsid sh -c 'trap "" TERM; echo $$ > escaped; sleep 1000' &) &
		env -i setsid sleep 1000 >/dev/null 2>&1 &
		echo $! > bare
		while [ ! -s escaped ]; do sleep 0.01; done`)), delivery.AttemptSucceeded)
	if left := b.left(); len(left) != 0 || alive(b.pidIn("escaped")) || alive(b.pidIn("bare")) {
		t.Errorf("left: %v", left)
	}
}

func TestDaemonOutlivesItsJob(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spec("up", `
		sleep 1000 & echo $! > plain
		setsid sh -c 'echo $$ > daemon; exec sleep 1000' >/dev/null 2>&1 &
		setsid sh -c 'echo $$ > loud; while :; do sleep 0.01; echo loud; done' &`)
	s.Daemons = true
	b.want(b.run(s), delivery.AttemptSucceeded)
	daemon, loud := b.pidIn("daemon"), b.pidIn("loud")
	defer func() { _, _ = unix.Kill(-daemon, unix.SIGKILL), unix.Kill(-loud, unix.SIGKILL) }()
	if !alive(daemon) || !alive(loud) || alive(b.pidIn("plain")) {
		t.Errorf("daemon %v, loud %v, plain child %v", alive(daemon), alive(loud), alive(b.pidIn("plain")))
	}
	if m := b.markers("up"); !strings.Contains(m, fmt.Sprintf("process %d lives on and still prints here", loud)) || strings.Contains(m, fmt.Sprintf("process %d lives", daemon)) {
		t.Error(m)
	}
	b.killRunner(unix.SIGKILL)
	b.spawn() // a new runner knows the result and spares the daemon
	b.want(b.result("up"), delivery.AttemptSucceeded)
	if !alive(daemon) {
		t.Error("the new runner killed the daemon")
	}
}

func TestDeadRunnerTakesItsJobsAlong(t *testing.T) { // F09
	t.Parallel()
	b := newBench(t)
	s := b.spec("j", "echo $$ > sh; (setsid sh -c 'echo $$ > escaped; sleep 1000' &) & printf 'half a li'; while :; do sleep 0.01; done")
	s.Timeout = 10 * patience // or that would end it
	b.start(s)
	s = b.spec("env", "setsid sh -c 'echo $$ > daemon; exec sleep 1000' >/dev/null 2>&1 & echo $$ > dsh; sleep 1000")
	s.Daemons, s.Timeout = true, 10*patience
	b.start(s)
	b.want(b.run(b.spec("done", "true")), delivery.AttemptSucceeded)
	pids := []int{b.pidIn("sh"), b.pidIn("escaped"), b.pidIn("dsh")}
	daemon := b.pidIn("daemon")
	defer func() { _ = unix.Kill(daemon, unix.SIGKILL) }()
	b.printed("j", "half")

	b.killRunner(unix.SIGKILL)
	_, err := b.Info(t.Context())
	isErr(t, err, ErrGone)
	b.eventually("the jobs are dead before any new runner", func() bool {
		return !alive(pids[0]) && !alive(pids[1]) && !alive(pids[2])
	})
	b.spawn()
	r := b.result("j")
	b.want(r, delivery.AttemptLost)
	if !strings.Contains(b.markers("j"), "lost: its runner died") || !strings.Contains(b.output("j"), "half a li") || r.LogSize == 0 {
		t.Errorf("%+v %s", r, b.markers("j"))
	}
	b.want(b.result("env"), delivery.AttemptLost)
	if !alive(daemon) {
		t.Error("the daemon did not live on")
	}
	b.want(b.result("done"), delivery.AttemptSucceeded)
	status, err := b.Start(t.Context(), b.spec("j", "echo again"))
	if err != nil || status.Result == nil || status.Result.State != delivery.AttemptLost {
		t.Errorf("a lost job starts again: %+v %v", status, err)
	}
}

func TestNewRunnerKillsWhatTheShimCould(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(b.spec("j", "(setsid sh -c 'echo $$ > escaped; sleep 1000' &) & echo $$ > sh; sleep 1000"))
	escaped, sh := b.pidIn("escaped"), b.pidIn("sh")
	p, _ := readProcess(sh)
	// Both at once, as a machine out of memory may do: nothing is left that could clean up.
	_ = unix.Kill(b.pid, unix.SIGSTOP)
	_ = unix.Kill(p.parent, unix.SIGKILL)
	b.killRunner(unix.SIGKILL)
	b.spawn()
	b.want(b.result("j"), delivery.AttemptLost)
	if alive(escaped) || alive(sh) {
		t.Errorf("escaped %v, sh %v", alive(escaped), alive(sh))
	}
}

func TestKilledShimIsNoticed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(b.spec("j", "setsid sleep 1000 & echo before; kill -9 $PPID; sleep 1000"))
	r := b.result("j")
	b.want(r, delivery.AttemptLost)
	if !strings.Contains(r.Reason, "signal: killed") || len(b.left()) != 0 {
		t.Errorf("%+v %v", r, b.left())
	}
	b.want(b.run(b.spec("next", "true")), delivery.AttemptSucceeded)
}

func TestJobOutlivesItsServer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.spec("j", "mkfifo go; echo ready; read x < go; echo $x")
	b.start(s)
	b.printed("j", "ready")
	b.Close() // the server is gone; a new one comes with a newer fence
	b.Client = NewClient(b.dir)
	s.Fence = 2
	status, err := b.Start(t.Context(), s)
	if err != nil || !status.Running || status.Fence != 2 {
		t.Fatalf("%+v %v", status, err)
	}
	if info, err := b.Info(t.Context()); err != nil || len(info.Jobs) != 1 || info.Protocol != 1 || info.Version != "test" || info.PID != b.pid {
		t.Errorf("%+v %v", info, err)
	}
	if err := b.Release(t.Context(), "j"); !delivery.IsKind(err, delivery.KindConflict) {
		t.Errorf("a running job is released: %v", err)
	}
	if err := os.WriteFile(filepath.Join(b.work, "go"), []byte("adopted\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.want(b.result("j"), delivery.AttemptSucceeded)
	if b.output("j") != "ready\nadopted\n" {
		t.Errorf("%q", b.output("j"))
	}
}

func TestTermLetsJobsEnd(t *testing.T) { // F23
	t.Parallel()
	b := newBench(t)
	b.start(b.spec("j", "mkfifo go; echo ready; read x < go; echo $x"))
	b.printed("j", "ready")
	_ = unix.Kill(b.pid, unix.SIGTERM)
	b.eventually("the runner drains", func() bool { info, err := b.Info(context.Background()); return err == nil && info.Draining })
	if _, err := b.Start(t.Context(), b.spec("k", "true")); !delivery.IsKind(err, delivery.KindUnavailable) || errors.Is(err, ErrGone) {
		t.Errorf("a draining runner takes a job: %v", err)
	}
	if err := os.WriteFile(filepath.Join(b.work, "go"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.eventually("the runner ends", func() bool { return !alive(b.pid) })
	b.spawn()
	b.want(b.result("j"), delivery.AttemptSucceeded)
}

func TestOneRunnerPerDirectory(t *testing.T) { // T77
	t.Parallel()
	b := newBench(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), exe, Command, "--dir", b.dir).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another runner works in") {
		t.Errorf("%v %s", err, out)
	}
	if info, err := b.Info(t.Context()); err != nil || info.PID != b.pid {
		t.Errorf("the first runner is disturbed: %+v %v", info, err)
	}
}

func TestLongSocketPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	b := &bench{TB: t, dir: dir, work: t.TempDir(), Client: NewClient(dir)}
	b.spawn()
	defer b.killRunner(unix.SIGTERM)
	defer b.Close()
	b.want(b.run(b.spec("j", "true")), delivery.AttemptSucceeded)
}

func TestSpawnSaysWhyItFailed(t *testing.T) {
	t.Parallel()
	_, err := Spawn(t.Context(), "/bin/false", t.TempDir(), nil)
	if err == nil || !strings.Contains(err.Error(), "it ended at once") {
		t.Error(err)
	}
}

package runner

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Command is the subcommand for which a program must call Main, with --dir DIR.
const Command = "runner"

// spawnTime bounds how long a new runner may take to answer. Killing what a
// dead runner left behind is part of that.
const spawnTime = 10 * time.Second

// Spawn starts a runner, `exe runner --dir dir`, which outlives this process:
// in a session of its own, with its own log DIR/runner.log. env is its whole
// environment, by default only PATH and LANG; what is in it, jobs may read. It
// returns when the runner answers, or after 10 seconds.
func Spawn(ctx context.Context, exe, dir string, env []string) (Info, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Info{}, fmt.Errorf("starting the runner: %w", err)
	}
	logPath := filepath.Join(dir, "runner.log")
	log, err := os.OpenFile(logPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return Info{}, fmt.Errorf("starting the runner: %w", err)
	}
	defer closeFile(log)
	if env == nil {
		env = []string{"PATH=" + defaultPath, "LANG=C.UTF-8"}
	}
	cmd := exec.Command(exe, Command, "--dir", dir) //nolint:noctx // it outlives ctx; our own program
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	before, _ := log.Seek(0, 2)
	if err := cmd.Start(); err != nil {
		return Info{}, fmt.Errorf("starting the runner: %w", err)
	}
	ended := make(chan struct{})
	go func() { // so that it does not stay a zombie when it ends before this process
		defer close(ended)
		_ = cmd.Wait()
	}()

	ctx, cancel := context.WithTimeout(ctx, spawnTime)
	defer cancel()
	client := NewClient(dir)
	defer client.Close()
	for {
		info, err := client.Info(ctx)
		if err == nil {
			return info, nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ended:
			return Info{}, notStarted("it ended at once: "+lastWords(logPath, before), err)
		case <-ctx.Done():
			return Info{}, notStarted(fmt.Sprintf("it did not answer within %s", spawnTime), err)
		}
	}
}

func notStarted(why string, err error) error {
	return &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot start the runner", Why: why, Err: err}
}

// lastWords is the end of what was written to the log since offset.
func lastWords(path string, offset int64) string {
	data, err := os.ReadFile(path)
	if err != nil || int64(len(data)) <= offset {
		return "it said nothing"
	}
	data = data[max(offset, int64(len(data))-1000):]
	return strings.TrimSpace(strings.ToValidUTF8(string(data), "\uFFFD"))
}

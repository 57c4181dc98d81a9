package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/runner"
)

// runnerCommands are the hidden commands that the server and `shunt run` start.
func (a *app) runnerCommands() []*cobra.Command {
	var o runner.Options
	run := command(runner.Command, "Run jobs for a server", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		o.Log = slog.New(slog.NewTextHandler(a.err, nil))
		o.Version = version()
		return runner.Main(ctx, o)
	})
	run.Flags().StringVar(&o.Dir, "dir", "", "directory of the runner")
	run.Hidden = true
	// cmd/shunt answers this one before it looks at anything else.
	shim := command(runner.ShimCommand, "Supervise one job for a runner", cobra.NoArgs, func(context.Context, []string) error {
		if code := runner.Shim(); code != 0 {
			return exitError(code)
		}
		return nil
	})
	shim.Hidden = true
	return []*cobra.Command{run, shim}
}

// runnerEnd is how long the end of a runner is waited for.
const runnerEnd = 20 * time.Second

// endRunner ends the runner of a directory, with the jobs that it still runs,
// and returns when it is gone. None is running: done.
func endRunner(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, runnerEnd)
	defer cancel()
	c := runner.NewClient(dir)
	defer c.Close()
	info, err := c.Info(ctx)
	if errors.Is(err, runner.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, id := range info.Jobs {
		_ = c.Stop(ctx, id, "the runner is ended") // it may have ended by itself
	}
	p, err := os.FindProcess(info.PID)
	if err == nil {
		err = p.Signal(syscall.SIGTERM)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end the runner: %w", err)
	}
	for {
		if now, err := c.Info(ctx); errors.Is(err, runner.ErrGone) || err == nil && now.Instance != info.Instance {
			return nil
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return fmt.Errorf("the runner (process %d) does not end: %w", info.PID, err)
		}
	}
}

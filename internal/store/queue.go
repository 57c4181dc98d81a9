package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/shuntcd/shunt/internal/delivery"
)

// The queue is River on the same database and in the same transactions. It only
// delivers: which build is driven by whom is decided by the lease, so that a
// delivery too many does nothing.

// drive is the queue entry: one build up to its next gate.
type drive struct {
	BuildID int64 `json:"build_id"`
}

// Kind names the entry in River's table.
func (drive) Kind() string { return "drive" }

// Driver drives a build as far as it goes and returns.
type Driver interface {
	Drive(ctx context.Context, buildID int64) error
}

type worker struct {
	river.WorkerDefaults[drive]
	driver Driver
}

// Work implements river.Worker.
func (w *worker) Work(ctx context.Context, job *river.Job[drive]) error {
	return w.driver.Drive(ctx, job.Args.BuildID)
}

// Timeout is none: a build takes as long as its jobs' own timeouts allow.
func (w *worker) Timeout(*river.Job[drive]) time.Duration { return -1 }

type queue struct{ client *river.Client[*sql.Tx] }

func (s *Store) migrateQueue(ctx context.Context) error {
	m, err := rivermigrate.New(s.dialect.queue(s.writer), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("prepare queue migrations: %w", err)
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrate queue: %w", err)
	}
	return nil
}

// QueueConfig sizes the queue: hotfixes have workers of their own.
type QueueConfig struct {
	Main, Hotfix int // workers
	ID           string
}

// StartQueue begins to deliver queue entries to driver.
func (s *Store) StartQueue(ctx context.Context, cfg QueueConfig, driver Driver) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{driver: driver})
	client, err := river.NewClient(s.dialect.queue(s.writer), &river.Config{
		ID:                cfg.ID,
		Queues:            map[string]river.QueueConfig{string(delivery.LaneMain): {MaxWorkers: cfg.Main}, string(delivery.LaneHotfix): {MaxWorkers: cfg.Hotfix}},
		Workers:           workers,
		FetchCooldown:     20 * time.Millisecond,
		FetchPollInterval: 500 * time.Millisecond, // the server that commits an entry drives at once; this is for the others
		PollOnly:          true,
		Logger:            slog.New(levelAbove{s.cfg.Log.Handler()}),
	})
	if err != nil {
		return fmt.Errorf("make queue: %w", err)
	}
	s.queue = &queue{client: client}
	if err := client.Start(ctx); err != nil {
		return fmt.Errorf("start queue: %w", err)
	}
	return nil
}

// StopQueue takes no more entries and waits for the drives under way.
func (s *Store) StopQueue(ctx context.Context) error {
	if s.queue == nil {
		return nil
	}
	if err := s.queue.client.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("stop queue: %w", err)
	}
	return nil
}

// Enqueue asks for a drive of the build, in this transaction.
func (t *Tx) Enqueue(ctx context.Context, buildID int64, lane delivery.Lane, after time.Duration) error {
	if t.queue == nil {
		return nil // a server that only reads and writes rows, such as a command on the data directory
	}
	opts := &river.InsertOpts{Queue: string(lane), MaxAttempts: 3}
	if after > 0 {
		opts.ScheduledAt = t.now.Add(after)
	}
	if _, err := t.queue.client.InsertTx(ctx, t.tx, drive{BuildID: buildID}, opts); err != nil {
		return fmt.Errorf("enqueue build: %w", err)
	}
	return nil
}

// levelAbove lets only warnings and errors through: River is chatty.
type levelAbove struct{ slog.Handler }

// Enabled implements slog.Handler.
func (l levelAbove) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && l.Handler.Enabled(ctx, level)
}

// WithAttrs implements slog.Handler.
func (l levelAbove) WithAttrs(a []slog.Attr) slog.Handler { return levelAbove{l.Handler.WithAttrs(a)} }

// WithGroup implements slog.Handler.
func (l levelAbove) WithGroup(n string) slog.Handler { return levelAbove{l.Handler.WithGroup(n)} }

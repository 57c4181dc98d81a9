// Package engine drives builds from a push to production.
//
// A build is a graph of nodes (see package delivery). A *drive* takes a build as
// far as it goes: it holds the build's lease, one goroutine owns the build's
// state, and independent nodes are performed in parallel by goroutines that only
// send messages to it. A state is saved before it is believed; a save that
// fails ends the drive. A waiting build has no drive: no worker, no goroutine, no
// memory. A decision is one compare-and-set row plus a queue entry, and the next
// drive goes on from what the database says.
//
// Nothing is kept only in memory. A drive that begins finds nodes that are
// `running` because their driver died, and performs them again; every performer
// therefore looks first at what was written down: a job that the runner still
// runs is adopted, an effect whose answer was lost is looked up (see effect.go).
//
// Rules are asked of package flow. Facts for them are gathered here with git.
package engine

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
)

// Lease times. A driver that has not renewed for leaseTTL is taken for dead.
const (
	leaseTTL  = 6 * time.Second
	heartbeat = 2 * time.Second
)

// Config is what the engine works with.
type Config struct {
	Store    *store.Store
	Git      *gitrepo.Git
	Runner   *runner.Client
	Blobs    *artifact.Store
	Files    *artifact.Files
	Logs     *Logs  // nil: in Dir
	Dir      string // absolute; holds work/
	Clock    delivery.Clock
	Log      *slog.Logger
	ServerID string // of the installation; part of tags
	Owner    string // "<installation>/<process>" of this process; holds leases
	URL      string // public, without a slash at the end
	MailFrom string
	// Open unseals a secret's value.
	Open    func(sealed string) (string, error)
	Workers map[delivery.Lane]int
	// Cluster is set where several servers share the database.
	Cluster *Cluster
	// Paused tells that nothing may be started and no push acted on: the database
	// may be older than the world (see reconcile.go). nil: never.
	Paused func() bool
	// Elapsed tells how long the machine has run, whatever its wall clock says: who
	// compares both sees that the clock was set (see clock.go). nil: it never is.
	Elapsed func() time.Duration
}

func (e *Engine) paused() bool { return e.Paused != nil && e.Paused() }

// Engine drives builds.
type Engine struct {
	Config
	slots map[delivery.Lane]chan struct{}

	mu       sync.Mutex
	drives   map[int64]chan struct{}      // signals of the drives under way
	running  map[string]bool              // what goes on in the background, by name; true: once more
	held     map[string]*sync.Mutex       // locks by name: a project's intake, an instance's destruction
	every    time.Duration                // how often to look after what nobody does; a second
	seen     map[string]map[string]string // tags of the remote by project, as last read: also those that are not ours
	avoided  map[int64]time.Time          // builds that are left to other servers until then
	ctx      context.Context              //nolint:containedctx // of the engine's own goroutines, between Start and Stop
	stop     context.CancelFunc
	wg       sync.WaitGroup
	closed   bool
	looked   moment    // when builds were last looked after
	compared time.Time // when environments were last asked whether they answer
	frozen   time.Time // up to when pages were told of freezes
}

// New makes an engine. Start starts it.
func New(cfg Config) *Engine {
	e := &Engine{Config: cfg, every: time.Second, slots: map[delivery.Lane]chan struct{}{}, drives: map[int64]chan struct{}{}, held: map[string]*sync.Mutex{}, seen: map[string]map[string]string{}, running: map[string]bool{}, avoided: map[int64]time.Time{}}
	if e.Logs == nil {
		e.Logs = NewLogs(filepath.Join(e.Dir, "logs"), nil, e.Log)
	}
	for lane, n := range cfg.Workers {
		e.slots[lane] = make(chan struct{}, n)
	}
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e
}

// Start frees what a dead predecessor held and begins to look after builds,
// gates, environments and mails once a second.
func (e *Engine) Start(ctx context.Context) error {
	err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		return errors.Join(tx.ClearLeases(ctx, strings.SplitN(e.Owner, "/", 2)[0]), tx.ClearInstanceClaims(ctx))
	})
	if err != nil {
		return err
	}
	e.background(func(ctx context.Context) {
		tick := time.NewTicker(e.every)
		defer tick.Stop()
		for {
			e.lookAfter(ctx)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return nil
}

// Stop takes no more work, hands over what runs (jobs go on in the runner) and
// returns when all drives have ended. It may be called twice.
func (e *Engine) Stop() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.stop()
	e.wg.Wait()
}

// background runs f until Stop; after Stop it does nothing.
func (e *Engine) background(f func(context.Context)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	e.wg.Go(func() { f(e.ctx) })
}

// lookAfter finds what nobody does at the moment and does it.
func (e *Engine) lookAfter(ctx context.Context) {
	if e.paused() {
		return
	}
	if err := e.followClock(ctx); err != nil {
		e.complain(ctx, "follow the clock", err)
		return // nothing may expire before
	}
	now := e.Store.Now()
	for lane := range e.slots {
		ids, err := e.Store.Runnable(ctx, now, lane, cap(e.slots[lane]))
		if err != nil {
			e.complain(ctx, "look for builds", err)
			continue
		}
		for _, id := range ids {
			e.kick(id, lane)
		}
	}
	if !e.leads() {
		return
	}
	e.complain(ctx, "look after gates", e.lookAfterGates(ctx, now))
	e.complain(ctx, "look at freezes", e.lookAtFreezes(ctx, now))
	e.complain(ctx, "look after environments", e.lookAfterInstances(ctx, now))
	e.complain(ctx, "compare environments", e.compareInstances(ctx, now))
}

func (e *Engine) complain(ctx context.Context, what string, err error) {
	if err != nil && ctx.Err() == nil {
		e.Log.Error("cannot "+what, "error", err)
	}
}

// kick drives a build in this process if one of its lane's slots is free;
// otherwise the queue delivers it when one is.
func (e *Engine) kick(id int64, lane delivery.Lane) {
	e.mu.Lock()
	_, driving := e.drives[id]
	e.mu.Unlock()
	if driving {
		e.signal(id)
		return
	}
	if e.avoids(id) {
		return
	}
	select {
	case e.slots[lane] <- struct{}{}:
	default:
		return
	}
	e.background(func(ctx context.Context) { e.driveInSlot(ctx, id, lane) })
}

// driveInSlot drives a build, then whatever else its slot finds to do.
func (e *Engine) driveInSlot(ctx context.Context, id int64, lane delivery.Lane) {
	defer func() { <-e.slots[lane] }()
	for {
		e.complain(ctx, "drive a build", e.drive(ctx, id))
		if ctx.Err() != nil {
			return
		}
		next, err := e.Store.Runnable(ctx, e.Store.Now(), lane, 1)
		if err != nil || len(next) == 0 {
			return
		}
		if next[0] == id {
			return // it came back at once: let the queue or the next look decide when
		}
		id = next[0]
	}
}

// Drive implements store.Driver: the queue delivers a build. It returns when the
// build has gone as far as it goes, or at once when somebody drives it.
func (e *Engine) Drive(ctx context.Context, id int64) error {
	b, err := e.Store.Build(ctx, id)
	if err != nil || b.Status != delivery.BuildQueued && b.Status != delivery.BuildRunning || e.avoids(id) {
		return err
	}
	select {
	case e.slots[b.Lane] <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-e.slots[b.Lane] }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)() //nolint:contextcheck // Stop ends what the queue's context does not
	return e.drive(ctx, id)
}

// signal tells a drive of this process that somebody changed its build.
func (e *Engine) signal(id int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if ch, ok := e.drives[id]; ok {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// lock takes a lock of this process by name.
func (e *Engine) lock(name string) (unlock func()) {
	e.mu.Lock()
	m, ok := e.held[name]
	if !ok {
		m = &sync.Mutex{}
		e.held[name] = m
	}
	e.mu.Unlock()
	m.Lock()
	return m.Unlock
}

// repo is a project's mirror.
func (e *Engine) repo(p delivery.Project) *gitrepo.Repo { return e.Git.Repo(p.Name, p.URL, p.Local) }

// wake drives a build after the transaction, by the queue and at once.
func (e *Engine) wake(ctx context.Context, tx *store.Tx, id int64, lane delivery.Lane, after time.Duration) error {
	if after == 0 {
		tx.AfterCommit(func() { e.kick(id, lane) })
	}
	return tx.Enqueue(ctx, id, lane, after)
}

func (e *Engine) workDir(id string) string { return filepath.Join(e.Dir, "work", id) }

// LogPath is where the log of an attempt is kept.
func (e *Engine) LogPath(attemptID string) string {
	return e.Logs.Path(attemptID)
}

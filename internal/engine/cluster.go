package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
)

// Cluster is what the engine needs where several servers share a database. Each
// has a runner; an attempt is given to one runner before that is asked to start
// it, so that whoever drives the build later asks the same one. A runner whose
// lease has ended has killed its jobs before (see package runner).
type Cluster struct {
	ID  string // of this server and of its runner
	Hub *runner.Hub
	// Leads tells whether this server does what one server at a time does: it
	// destroys environments, expires gates and asks whether environments answer.
	Leads func() bool
}

func (e *Engine) leads() bool { return e.Cluster == nil || e.Cluster.Leads() }

var (
	// errLost says that a runner's lease has ended.
	errLost = errors.New("its runner has not renewed its lease")
	// errDeaf says that a runner lives and this server cannot hear it: another may.
	errDeaf = errors.New("the runner of a job lives, but this server has no link to it")
	// errNoRunner says that no runner can take a job now.
	errNoRunner = errors.New("no runner")
)

const (
	deafFor   = 5 * time.Second  // how long a link may be away before the build is handed over
	deafAvoid = 15 * time.Second // how long this server then leaves the build to others
)

// client reaches a runner: this server's own over its socket, another one's over
// its link.
func (e *Engine) client(id string) (*runner.Client, bool) {
	if e.Cluster == nil || id == "" || id == e.Cluster.ID {
		return e.Runner, true
	}
	return e.Cluster.Hub.Client(id)
}

// ask calls a runner, and goes on asking while it does not answer: its server
// starts it again, or its lease ends.
func (e *Engine) ask(ctx context.Context, id string, call func(c *runner.Client) error) error {
	var deaf time.Duration
	for {
		c, linked := e.client(id)
		if linked {
			if err := call(c); err == nil || !errors.Is(err, runner.ErrGone) && !errors.Is(err, runner.ErrNoLease) {
				return err
			}
		}
		const pause = 100 * time.Millisecond
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if e.Cluster == nil {
			continue
		}
		if deaf += pause; deaf%(5*pause) != 0 {
			continue
		}
		who, alive := cmp.Or(id, e.Cluster.ID), false
		err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
			alive, err = tx.RunnerAlive(ctx, who)
			return err
		})
		switch {
		case err != nil:
			return err
		case !alive:
			return errLost
		case deaf >= deafFor && who != e.Cluster.ID:
			return errDeaf
		}
	}
}

// give tells which runner runs an attempt; one that nobody has yet is given to a
// runner now.
func (p *performer) give(ctx context.Context, s runSpec) (id string, err error) {
	if s.beside {
		return "", nil
	}
	if id, err = p.Store.AttemptRunner(ctx, s.id); err != nil || id != "" {
		own, _, _ := strings.Cut(p.Owner, "/")
		if err == nil && p.Cluster == nil && id != own {
			err = errLost // there were other servers once
		}
		return id, err
	}
	if p.Cluster == nil {
		return "", nil
	}
	write := p.write
	if p.driver == nil {
		write = p.Store.Write
	}
	err = write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if id, err = tx.AttemptRunner(ctx, s.id); err != nil || id != "" {
			return err
		}
		if id, err = p.pick(ctx, tx, s); err != nil {
			return err
		}
		return tx.GiveAttempt(ctx, s.id, id)
	})
	return id, err
}

// pick chooses a runner. Without a pool it is this server's own, or the one that
// has run what this is the end of; of a pool, the one with the least to do. The
// hotfix lane does not wait for room.
func (p *performer) pick(ctx context.Context, tx *store.Tx, s runSpec) (string, error) {
	if s.near != "" {
		near, err := tx.AttemptRunner(ctx, s.near)
		if err != nil {
			return "", err
		}
		if alive, err := tx.RunnerAlive(ctx, near); err != nil || alive {
			return near, err
		}
	}
	if s.pool == "" {
		alive, err := tx.RunnerAlive(ctx, p.Cluster.ID)
		if err == nil && !alive {
			err = fmt.Errorf("%w: the one of this server has not renewed its lease", errNoRunner)
		}
		return p.Cluster.ID, err
	}
	loads, err := tx.Loads(ctx, tx.Now())
	if err != nil {
		return "", err
	}
	var best *store.Load
	full := false
	for i, l := range loads {
		if _, linked := p.client(l.ID); !linked || !slices.Contains(l.Pools, s.pool) {
			continue
		}
		if l.Jobs >= int64(l.Capacity) && p.build.Lane != delivery.LaneHotfix {
			full = true
			continue
		}
		if best == nil || l.Jobs < best.Jobs {
			best = &loads[i]
		}
	}
	switch {
	case best != nil:
		return best.ID, nil
	case full:
		return "", fmt.Errorf("%w: all of pool %s are busy", errNoRunner, s.pool)
	}
	return "", fmt.Errorf("%w of pool %s is connected; start one:  shunt worker --pools %s", errNoRunner, s.pool, s.pool)
}

// still proves that this server still drives the build, and gives the runner the
// time of that: a start that comes much later is refused, for this process may
// have been stopped meanwhile and another have taken over.
func (p *performer) still(ctx context.Context, c *runner.Client) (time.Duration, error) {
	if p.Cluster == nil || p.driver == nil {
		return 0, nil
	}
	info, err := c.Info(ctx)
	if err != nil {
		return 0, err
	}
	return info.Now, p.write(ctx, func(context.Context, *store.Tx) error { return nil })
}

// keep stores a collected file of a job.
func (p *performer) keep(ctx context.Context, where, id string, f runner.File) (size int64, err error) {
	c, linked := p.client(where)
	if !linked {
		return 0, errDeaf
	}
	if !c.Remote() {
		return p.Blobs.PutFile(ctx, f.Path, f.SHA256)
	}
	in, err := c.Open(ctx, id, f.Path)
	if err != nil {
		return 0, err
	}
	defer in.Close() //nolint:errcheck // only read from
	sha, size, err := p.Blobs.Put(ctx, in)
	if err == nil && sha != f.SHA256 {
		err = fmt.Errorf("artifact %s came over damaged", f.Name)
	}
	return size, err
}

// open opens a report of a job.
func (p *performer) open(ctx context.Context, where, id, path string) (io.ReadCloser, error) {
	c, linked := p.client(where)
	if !linked {
		return nil, errDeaf
	}
	return c.Open(ctx, id, path)
}

// avoid leaves a build to other servers for a while.
func (e *Engine) avoid(id int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.avoided[id] = e.Store.Now().Add(deafAvoid)
}

func (e *Engine) avoids(id int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	until, ok := e.avoided[id]
	if ok && !e.Store.Now().Before(until) {
		delete(e.avoided, id)
		ok = false
	}
	return ok
}

// Follow keeps this server true to what others do, until ctx ends: it fetches
// mirrors that others have fetched, and tells drives of what was asked elsewhere.
func (e *Engine) Follow(ctx context.Context) {
	for ctx.Err() == nil {
		events, cancel := e.Store.Subscribe()
		for open := true; open; {
			var ev store.Event
			select {
			case <-ctx.Done():
				open = false
			case ev, open = <-events:
			}
			switch {
			case !open:
			case ev.Kind == "asked":
				e.signalByNumber(ev.Project, ev.Number)
			case ev.Kind == "project" && ev.Project != "":
				e.afresh("mirror/"+ev.Project, func(ctx context.Context) { e.complain(ctx, "fetch "+ev.Project, e.mirror(ctx, ev.Project)) })
			}
		}
		cancel()
	}
}

// mirror fetches a project's mirror and remembers the remote's tags.
func (e *Engine) mirror(ctx context.Context, project string) error {
	p, err := e.Store.Project(ctx, project)
	if err != nil {
		return ignoreMissing(err)
	}
	defer e.lock("project/" + project)()
	refs, err := e.repo(p).Fetch(ctx)
	if err == nil && e.see(project, refs) {
		e.refreshLater(project)
	}
	return err
}

// signalByNumber tells a drive of this process that somebody asked for something.
func (e *Engine) signalByNumber(project string, number int64) {
	b, err := e.Store.BuildByNumber(e.ctx, project, number)
	if err == nil {
		e.signal(b.ID)
	}
}

package engine

import (
	"context"
	"time"

	"github.com/shuntcd/shunt/internal/store"
)

// moment is a time on both clocks.
type moment struct {
	wall time.Time
	ran  time.Duration
}

// clockStep is how far a wall clock may go wrong between two looks without being
// taken for set: leap seconds and slewing stay below.
const clockStep = time.Minute

// followClock moves every deadline along when the machine's clock was set forth or
// back: an hour for a decision is an hour, whatever the clock says meanwhile. What
// happened keeps its time. On PostgreSQL nothing is done: there the time is the
// database's, and no server can tell whether it was set.
func (e *Engine) followClock(ctx context.Context) error {
	if e.Elapsed == nil {
		return nil
	}
	was, now := e.looked, moment{ran: e.Elapsed()}
	for now.wall = e.Store.Now(); e.Elapsed()-now.ran > clockStep/2; now.wall = e.Store.Now() { // the machine slept between the two
		now.ran = e.Elapsed()
	}
	by := now.wall.Sub(was.wall) - (now.ran - was.ran)
	if !was.wall.IsZero() && by.Abs() > clockStep {
		e.Log.Warn("the clock was set; deadlines move with it", "by", by)
		if err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.MoveDeadlines(ctx, by) }); err != nil {
			return err
		}
		e.mu.Lock()
		e.compared = time.Time{}
		e.mu.Unlock()
	}
	e.looked = now
	return nil
}

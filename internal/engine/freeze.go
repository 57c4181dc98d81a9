package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/store"
)

// AddFreeze plans a freeze of the main lane. One that should have begun already
// begins now: nothing was kept from production before.
func (e *Engine) AddFreeze(ctx context.Context, f delivery.Freeze) (delivery.Freeze, error) {
	err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, missing := tx.Project(ctx, f.Project)
		ahead, err := tx.FreezesAhead(ctx, f.Project, tx.Now())
		if err = errors.Join(missing, err); err != nil {
			return err
		}
		if f.Begins.Before(tx.Now()) {
			f.Begins = tx.Now()
		}
		if err := flow.MayFreeze(f, ahead, tx.Now()); err != nil {
			return err
		}
		if f, err = tx.InsertFreeze(ctx, f); err != nil {
			return err
		}
		tx.Event(f.Project, 0, "project")
		return tx.Audit(ctx, f.Project, 0, f.By, "freeze planned", freezeDetail(f, f.Reason))
	})
	return f, err
}

// EndFreeze ends a freeze before its time, or takes it back before it has begun.
func (e *Engine) EndFreeze(ctx context.Context, project string, id int64, by, why string) (f delivery.Freeze, err error) {
	err = e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if f, err = tx.Freeze(ctx, project, id); err != nil {
			return err
		}
		over := func(words string) error {
			return delivery.Errf(delivery.KindConflict, fmt.Sprintf("cannot end freeze %d", id), words)
		}
		switch f.State(tx.Now()) {
		case delivery.FreezeEnded:
			return over("it was ended by " + f.EndedBy + ": " + f.EndedWhy)
		case delivery.FreezeOver:
			return over("it is over since " + f.Ends.Format(time.RFC3339))
		case delivery.FreezePlanned, delivery.FreezeActive:
		}
		tx.Event(project, 0, "project")
		if err := errors.Join(tx.EndFreeze(ctx, id, by, why), tx.Audit(ctx, project, 0, by, "freeze ended", freezeDetail(f, why))); err != nil {
			return err
		}
		f, err = tx.Freeze(ctx, project, id)
		return err
	})
	return f, err
}

func freezeDetail(f delivery.Freeze, why string) string {
	return fmt.Sprintf("freeze %d, from %s until %s: %s", f.ID, f.Begins.Format(time.RFC3339), f.Ends.Format(time.RFC3339), why)
}

// lookAtFreezes tells pages that a freeze began or ended by the clock. Nothing is
// kept of it: a server that begins to lead looks back as far as another may have
// been silent, and a page that is told twice only reads twice.
func (e *Engine) lookAtFreezes(ctx context.Context, now time.Time) error {
	if e.frozen.IsZero() {
		e.frozen = now.Add(-time.Minute)
	}
	projects, err := e.Store.FreezesTurned(ctx, e.frozen, now)
	if err == nil && len(projects) > 0 {
		err = e.Store.Write(ctx, func(_ context.Context, tx *store.Tx) error {
			for _, p := range projects {
				tx.Event(p, 0, "project")
			}
			return nil
		})
	}
	if err == nil {
		e.frozen = now
	}
	return err
}

package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// deadlines: when the clock is set, what waits has as long as it had, what has
// ended stays as it was, and "never" stays never.
func deadlines(t *testing.T, s *store.Store) {
	b := build(t, s, delivery.LaneMain, "refs/heads/develop")
	var due time.Time
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		due = tx.Now().Add(time.Hour).Truncate(time.Microsecond)
		_, open := tx.OpenGate(ctx, delivery.Gate{ID: "open", BuildID: b.ID, Environment: "production", ExpiresAt: due})
		decided, closed := tx.OpenGate(ctx, delivery.Gate{ID: "decided", BuildID: b.ID, Environment: "staging", ExpiresAt: due, RemindAt: due})
		up := delivery.Instance{ID: "up", Project: "petstore", Environment: "qa", BuildID: b.ID, Number: b.Number, ExpiresAt: due}
		down := delivery.Instance{ID: "down", Project: "petstore", Environment: "qa2", BuildID: b.ID, Number: b.Number, ExpiresAt: due}
		err := errors.Join(open, closed, tx.Decide(ctx, decided, delivery.GateRejected, "ana", "page", "no", 0), tx.InsertInstance(ctx, up), tx.InsertInstance(ctx, down))
		down.State, down.DownAt = delivery.InstanceDown, tx.Now()
		return errors.Join(err, tx.SetInstance(ctx, down))
	})
	const by = 10 * 365 * 24 * time.Hour
	write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.MoveDeadlines(ctx, by) })
	for id, want := range map[string]time.Time{"open": due.Add(by), "decided": due} {
		g, err := s.Gate(t.Context(), id)
		must(t, err)
		if !g.ExpiresAt.Equal(want) {
			t.Errorf("the gate %s expires at %s, want %s", id, g.ExpiresAt, want)
		}
		if id == "open" && !g.RemindAt.IsZero() {
			t.Errorf("a gate that reminds nobody does so at %s", g.RemindAt)
		}
	}
	for id, want := range map[string]time.Time{"up": due.Add(by), "down": due} {
		i, err := s.Instance(t.Context(), id)
		must(t, err)
		if !i.ExpiresAt.Equal(want) {
			t.Errorf("the environment %s expires at %s, want %s", id, i.ExpiresAt, want)
		}
	}
}

package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// cluster: what several servers agree on.
func cluster(t *testing.T, s *store.Store) {
	b := build(t, s, delivery.LaneMain, "refs/heads/develop")
	hold := func(owner string, ttl time.Duration) (held bool) {
		write(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
			held, err = tx.Hold(ctx, "duty", owner, ttl)
			return err
		})
		return held
	}
	if !hold("a", time.Hour) || hold("b", time.Hour) || !hold("a", time.Hour) {
		t.Error("a duty that is held was taken, or could not be renewed")
	}
	if !hold("a", -time.Second) || !hold("b", time.Hour) || hold("a", time.Hour) {
		t.Error("a duty whose lease has ended was not taken, or was taken back")
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.Leave(ctx, "b") })
	if !hold("a", time.Hour) {
		t.Error("a duty was not free after its owner left")
	}

	for _, p := range []store.Peer{{ID: "a", Address: "10.0.0.1:7443", Version: "1"}, {ID: "b", Worker: true}, {ID: "a", Address: "10.0.0.9:7443", Version: "2"}} {
		write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.Heartbeat(ctx, p) })
	}
	peers, err := s.Peers(t.Context(), s.Now().Add(-time.Minute))
	if err != nil || len(peers) != 2 || peers[0].Address != "10.0.0.9:7443" || !peers[1].Worker {
		t.Errorf("%+v %v", peers, err)
	}

	renew := func(r store.Runner, ttl time.Duration) (got store.Runner) {
		write(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
			got, err = tx.RenewRunner(ctx, r, ttl)
			return err
		})
		return got
	}
	r := store.Runner{ID: "r", Instance: "i1", Pools: []string{"big"}, Capacity: 2}
	for _, step := range []struct {
		instance string
		ttl      time.Duration
		fence    int64
	}{{"i1", time.Hour, 1}, {"i1", time.Hour, 1}, {"i2", time.Hour, 2}, {"i2", -time.Second, 2}, {"i2", time.Hour, 3}} {
		r.Instance = step.instance
		if got := renew(r, step.ttl); got.Fence != step.fence || got.Pools[0] != "big" {
			t.Errorf("%+v: %+v", step, got)
		}
	}
	give := func(attempt, runner string) error {
		return s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.GiveAttempt(ctx, attempt, runner) })
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertAttempt(ctx, delivery.Attempt{ID: "given", BuildID: b.ID, Node: "job/a", Attempt: 1})
	})
	must(t, give("given", "r"))
	if err := give("given", "other"); !delivery.IsKind(err, delivery.KindConflict) {
		t.Errorf("an attempt was given twice: %v", err)
	}
	if id, err := s.AttemptRunner(t.Context(), "given"); id != "r" || err != nil {
		t.Error(id, err)
	}
	loads, err := s.Loads(t.Context(), s.Now())
	if err != nil || len(loads) != 1 || loads[0].Jobs != 1 {
		t.Errorf("%+v %v", loads, err)
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		alive, err := tx.RunnerAlive(ctx, "r")
		if unknown, err := tx.RunnerAlive(ctx, "nobody"); !alive || unknown || err != nil {
			t.Error(alive, unknown, err)
		}
		return err
	})

	move := func(was, is string) error {
		return s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			return tx.MoveRef(ctx, b.Project, "refs/heads/x", was, is)
		})
	}
	must(t, move("", "c1"))
	if err := move("", "c2"); !errors.Is(err, store.ErrOvertaken) {
		t.Errorf("a ref that another server acted on was acted on again: %v", err)
	}
	must(t, move("c1", "c2"))
	must(t, move("c2", ""))
}

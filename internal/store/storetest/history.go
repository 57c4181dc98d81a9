package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// history writes what git tells of the past, and settles what is open.
func history(t *testing.T, s *store.Store) {
	t.Helper()
	open := build(t, s, delivery.LaneMain, "refs/heads/develop")
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		_, ok, err := tx.StartDeployment(ctx, delivery.Deployment{ID: "d1", Project: open.Project, Environment: "production", BuildID: open.ID, Number: open.Number, Lane: open.Lane, Kind: "promote"})
		if !ok {
			t.Error("the lock is not free")
		}
		if _, err := tx.OpenGate(ctx, delivery.Gate{ID: "AAAA", BuildID: open.ID, Environment: "production"}); err != nil {
			return err
		}
		return errors.Join(err, tx.PassFences(ctx, open.Project, 1000), tx.PassNumbers(ctx, open.Project, 40), tx.PassNumbers(ctx, open.Project, 3))
	})
	past := delivery.Build{Project: open.Project, Number: 39, Lane: delivery.LaneHotfix, Ref: "refs/heads/hotfix/x", Commit: "c", CreatedAt: when, Status: delivery.BuildSucceeded, TagObject: "t"}
	write(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
		if past.ID, err = tx.InsertPastBuild(ctx, past, nil); err != nil {
			return err
		}
		gate := delivery.Gate{ID: "BBBB", BuildID: past.ID, Environment: "production", DecidedBy: "bob", DecidedAt: when, Reason: "because", Without: 7}
		settled := delivery.Gate{ID: "CCCC", BuildID: open.ID, Environment: "production", DecidedBy: "cy", DecidedAt: when}
		deployment := delivery.Deployment{ID: "d2", Project: past.Project, Environment: "production", BuildID: past.ID, Number: past.Number, Lane: past.Lane, Kind: "promote", By: "bob", StartedAt: when}
		return errors.Join(tx.InsertPastGate(ctx, gate), tx.Settle(ctx, open, delivery.BuildSucceeded, "git says so"), tx.InsertPastGate(ctx, settled), tx.InsertPastDeployment(ctx, deployment),
			tx.LoseAttempt(ctx, open.ID, "job/a", "why"), tx.AbandonInstance(ctx, open.ID, "qa", "why"))
	})
	ctx := t.Context()
	got, err := s.BuildByNumber(ctx, open.Project, 39)
	must(t, err)
	if !got.CreatedAt.Equal(when) || !got.FinishedAt.Equal(when) || got.TagObject != "t" || got.Status != delivery.BuildSucceeded {
		t.Errorf("the past build is %+v", got)
	}
	g, err := s.Gate(ctx, "BBBB")
	must(t, err)
	if g.State != delivery.GatePromoted || g.DecidedBy != "bob" || !g.DecidedAt.Equal(when) || g.Reason != "because" || g.Without != 7 {
		t.Errorf("its gate is %+v", g)
	}
	if g, err = s.Gate(ctx, "AAAA"); err != nil || g.State != delivery.GatePromoted || g.DecidedBy != "cy" {
		t.Errorf("the settled build's gate is %+v, %v", g, err)
	}
	if _, held, err := s.Lock(ctx, open.Project, "production"); held || err != nil {
		t.Errorf("the settled deployment holds the lock: %v, %v", held, err)
	}
	d, err := s.Deployment(ctx, "d2")
	must(t, err)
	if d.Fence != 1002 || !d.StartedAt.Equal(when) || d.State != delivery.DeploymentSucceeded {
		t.Errorf("the past deployment is %+v", d)
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.TakeNumber(ctx, open.Project)
		if n != 40 {
			t.Errorf("the next number is %d", n)
		}
		next, ok, start := tx.StartDeployment(ctx, delivery.Deployment{ID: "d3", Project: open.Project, Environment: "qa", BuildID: past.ID, Number: past.Number, Lane: past.Lane, Kind: "promote"})
		if !ok || next.Fence != 1002 {
			t.Errorf("another environment's next fence is %d, %v", next.Fence, ok)
		}
		return errors.Join(err, start)
	})
	retention(t, s, past)
}

// retention lists what it asks, and forgets a removal when the bytes are made again.
func retention(t *testing.T, s *store.Store, b delivery.Build) {
	t.Helper()
	ctx := t.Context()
	a := delivery.Artifact{BuildID: b.ID, Name: "app", SHA256: "00000000000000000000000000000000000000000000000000000000000000aa"}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		return errors.Join(tx.SetArtifact(ctx, a), tx.NoteRemoved(ctx, a.SHA256))
	})
	known := func(want int) {
		t.Helper()
		all, err := s.ArtifactDigests(ctx)
		if err != nil || len(all) != want {
			t.Errorf("known artifacts: %v, %v", all, err)
		}
	}
	known(0)
	write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.SetArtifact(ctx, a) })
	known(1)
	ends, err := s.Ends(ctx, b.Project)
	if err != nil || len(ends) != 2 || ends[1].Number != 39 || ends[1].FinishedAt.IsZero() {
		t.Errorf("ends: %v, %v", ends, err)
	}
	all, err := s.AllDeployments(ctx, b.Project)
	if err != nil || len(all) != 3 {
		t.Errorf("deployments: %v, %v", all, err)
	}
	owned, err := s.DigestsOf(ctx)
	if err != nil || len(owned) != 1 || owned[0].BuildID != b.ID {
		t.Errorf("digests: %v, %v", owned, err)
	}
	alive, err := s.Alive(ctx, b.Project)
	attempts, err2 := s.AttemptsOf(ctx, b.Project)
	if err := errors.Join(err, err2); err != nil || len(alive)+len(attempts) != 0 {
		t.Errorf("alive %v, attempts %v, %v", alive, attempts, err)
	}
}

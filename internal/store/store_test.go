package store

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

func open1(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "shunt.db"), Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func project(name string) delivery.Project {
	return delivery.Project{Name: name, URL: "https://git.example.org/" + name, NextBuild: 1, WebhookSecret: "s", Branches: delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"}, Tags: delivery.Tags{Build: "build/$N", Production: "production/$N"}}
}

func TestABuildIsNumberedLeasedAndFenced(t *testing.T) {
	t.Parallel()
	s, ctx := open1(t), t.Context()
	var id int64
	must(t, s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if err := tx.InsertProject(ctx, project("petstore")); err != nil {
			return err
		}
		n, err := tx.TakeNumber(ctx, "petstore")
		if err != nil || n != 1 {
			t.Errorf("first number is %d, %v", n, err)
		}
		id, err = tx.InsertBuild(ctx, delivery.Build{Project: "petstore", Number: n, Lane: delivery.LaneMain, Ref: "refs/heads/develop", Commit: "c", Status: delivery.BuildQueued},
			[]delivery.Node{{Name: "tag", Kind: delivery.NodeTag, State: delivery.NodePending}})
		tx.Event("petstore", n, "build")
		return err
	}))
	var first delivery.Build
	must(t, s.Write(ctx, func(ctx context.Context, tx *Tx) (err error) {
		var ok bool
		first, ok, err = tx.Lease(ctx, id, "one", time.Minute)
		if !ok {
			t.Error("a queued build gives no lease")
		}
		return err
	}))
	must(t, s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if _, ok, err := tx.Lease(ctx, id, "two", time.Minute); ok || err != nil {
			t.Errorf("a second owner got the lease: %v %v", ok, err)
		}
		return tx.ClearLeases(ctx)
	}))
	must(t, s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		second, ok, err := tx.Lease(ctx, id, "two", time.Minute)
		if !ok || second.LeaseFence <= first.LeaseFence {
			t.Errorf("fence did not grow: %d after %d", second.LeaseFence, first.LeaseFence)
		}
		if err := tx.Guard(ctx, id, first.LeaseFence, time.Minute); err != delivery.ErrLeaseLost { //nolint:errorlint // exact
			t.Errorf("the old fence may still write: %v", err)
		}
		return err
	}))
}

func TestOneDeploymentHoldsAnEnvironment(t *testing.T) {
	t.Parallel()
	s, ctx := open1(t), t.Context()
	must(t, s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		if err := tx.InsertProject(ctx, project("petstore")); err != nil {
			return err
		}
		id, err := tx.InsertBuild(ctx, delivery.Build{Project: "petstore", Number: 1, Lane: delivery.LaneMain, Status: delivery.BuildQueued}, nil)
		if err != nil {
			return err
		}
		d := delivery.Deployment{ID: "a", Project: "petstore", Environment: "production", BuildID: id, Number: 1, Lane: delivery.LaneMain, Kind: "promote"}
		got, ok, err := tx.StartDeployment(ctx, d)
		if err != nil || !ok || got.Fence != 1 {
			t.Errorf("first: %+v %v %v", got, ok, err)
		}
		d.ID = "b"
		if _, ok, err := tx.StartDeployment(ctx, d); ok || err != nil {
			t.Errorf("the lock was given twice: %v %v", ok, err)
		}
		if err := tx.EndDeployment(ctx, got, delivery.DeploymentFailed, ""); err != nil {
			return err
		}
		got, ok, err = tx.StartDeployment(ctx, d)
		if err != nil || !ok || got.Fence != 2 {
			t.Errorf("second: %+v %v %v", got, ok, err)
		}
		return nil
	}))
}

func TestTheAuditChainShowsAChangedRow(t *testing.T) {
	t.Parallel()
	s, ctx := open1(t), t.Context()
	for _, a := range []string{"one", "two", "three"} {
		must(t, s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.Audit(ctx, "p", 1, "ana", a, "detail") }))
	}
	if rows, broken, err := s.VerifyAudit(ctx); rows != 3 || broken != 0 || err != nil {
		t.Fatal(rows, broken, err)
	}
	must(t, s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		_, err := tx.exec(ctx, `update audit set actor = 'eve' where seq = 2`)
		return err
	}))
	if _, broken, err := s.VerifyAudit(ctx); broken != 2 || err != nil {
		t.Fatal(broken, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Package storetest is one conformance suite that every database must pass.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// Run runs the suite. open gives an empty database's store and the database's
// name; each call another.
func Run(t *testing.T, open func(t *testing.T) (*store.Store, string)) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*testing.T, *store.Store)
	}{
		{"a build is numbered, leased and fenced", leases},
		{"two owners never hold one lease", racingLeases},
		{"one deployment holds an environment", locks},
		{"a gate is decided once", decisions},
		{"an effect is written down once", effects},
		{"a queued build is superseded, a hotfix never", supersede},
		{"numbers are never given twice", numbers},
		{"a transaction that fails leaves nothing", rollback},
		{"events come in order, once", events},
		{"the outbox waits and gives up", outbox},
		{"an environment lives, is kept and ends", instances},
		{"people and what they hold", people},
		{"the queue delivers a build", queue},
		{"a record comes back as it was written", roundTrip},
		{"what git tells is written as the past", history},
		{"a page reads all its rows at once", pages},
		{"the audit log tells what happened since", since},
		{"a freeze is planned, comes and goes", freezes},
		{"deadlines move with the clock", deadlines},
		{"servers agree on duties, runners and refs", cluster},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, _ := open(t)
			test.run(t, s)
		})
	}
	t.Run("the audit chain shows a changed row", func(t *testing.T) {
		t.Parallel()
		s, database := open(t)
		audit(t, s, database)
	})
}

// Damage runs a statement on a database past all rules of the store.
func Damage(t *testing.T, database, statement string) {
	t.Helper()
	driver := "sqlite"
	if store.IsPostgres(database) {
		driver = "pgx"
	}
	db, err := sql.Open(driver, database)
	must(t, err)
	defer db.Close() //nolint:errcheck // a test's own connection
	_, err = db.ExecContext(t.Context(), statement)
	must(t, err)
}

func project(name string) delivery.Project {
	return delivery.Project{
		Name: name, URL: "https://git.example.org/" + name, Local: true, NextBuild: 1, WebhookSecret: "s",
		Branches: delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"}, Tags: delivery.Tags{Build: "build/$N", Production: "production/$N"},
	}
}

// build makes a project (once) and a queued build in it.
func build(t *testing.T, s *store.Store, lane delivery.Lane, ref string) (b delivery.Build) {
	t.Helper()
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.Project(ctx, "petstore"); delivery.IsKind(err, delivery.KindNotFound) {
			if err := tx.InsertProject(ctx, project("petstore")); err != nil {
				return err
			}
		}
		n, err := tx.TakeNumber(ctx, "petstore")
		if err != nil {
			return err
		}
		id, err := tx.InsertBuild(ctx, delivery.Build{Project: "petstore", Number: n, Lane: lane, Ref: ref, Commit: fmt.Sprintf("c%d", n), Status: delivery.BuildQueued},
			[]delivery.Node{{Name: "job/a", Kind: delivery.NodeJob, Target: "a", State: delivery.NodePending}, {Name: "tag", Kind: delivery.NodeTag, Needs: []string{"job/a"}, Position: 1, State: delivery.NodePending}})
		if err != nil {
			return err
		}
		b, err = tx.Build(ctx, id)
		return err
	})
	return b
}

func write(t *testing.T, s *store.Store, f func(context.Context, *store.Tx) error) {
	t.Helper()
	must(t, s.Write(t.Context(), f))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func leases(t *testing.T, s *store.Store) {
	b := build(t, s, delivery.LaneMain, "refs/heads/develop")
	if ids, err := s.Runnable(t.Context(), s.Now().Add(time.Second), delivery.LaneMain, 5); err != nil || len(ids) != 1 || ids[0] != b.ID {
		t.Fatalf("runnable: %v %v", ids, err)
	}
	var first, second delivery.Build
	write(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
		var ok bool
		if first, ok, err = tx.Lease(ctx, b.ID, "one/1", time.Minute); !ok {
			t.Error("a queued build gives no lease")
		}
		return err
	})
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		if _, ok, err := tx.Lease(ctx, b.ID, "two", time.Minute); ok || err != nil {
			t.Errorf("a second owner got the lease: %v %v", ok, err)
		}
		if err := tx.Guard(ctx, b.ID, first.LeaseFence, time.Minute); err != nil {
			t.Errorf("the owner may not write: %v", err)
		}
		if err := tx.ClearLeases(ctx, "on"); err != nil { // another installation
			return err
		}
		if err := tx.Guard(ctx, b.ID, first.LeaseFence, time.Minute); err != nil {
			t.Errorf("another installation took the lease away: %v", err)
		}
		return tx.ClearLeases(ctx, "one")
	})
	write(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
		var ok bool
		second, ok, err = tx.Lease(ctx, b.ID, "two", time.Minute)
		if !ok || second.LeaseFence <= first.LeaseFence {
			t.Errorf("the fence did not grow: %d after %d", second.LeaseFence, first.LeaseFence)
		}
		return err
	})
	for name, act := range map[string]func(context.Context, *store.Tx) error{
		"guard": func(ctx context.Context, tx *store.Tx) error {
			return tx.Guard(ctx, b.ID, first.LeaseFence, time.Minute)
		},
		"unlease": func(ctx context.Context, tx *store.Tx) error {
			return tx.Unlease(ctx, b.ID, first.LeaseFence, delivery.BuildFailed, "", 0)
		},
	} {
		if err := s.Write(t.Context(), act); !errors.Is(err, delivery.ErrLeaseLost) {
			t.Errorf("%s with an old fence: %v", name, err)
		}
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		return tx.Unlease(ctx, b.ID, second.LeaseFence, delivery.BuildSucceeded, "", 0)
	})
	if got, err := s.Build(t.Context(), b.ID); err != nil || got.Status != delivery.BuildSucceeded || got.FinishedAt.IsZero() || got.LeaseOwner != "" {
		t.Errorf("%+v %v", got, err)
	}
}

func racingLeases(t *testing.T, s *store.Store) {
	b := build(t, s, delivery.LaneMain, "refs/heads/develop")
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			err := s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				_, ok, err := tx.Lease(ctx, b.ID, fmt.Sprint("owner", i), time.Minute)
				if ok {
					won.Add(1)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d owners hold one lease", won.Load())
	}
}

func locks(t *testing.T, s *store.Store) {
	b := build(t, s, delivery.LaneMain, "refs/heads/develop")
	d := delivery.Deployment{ID: "a", Project: "petstore", Environment: "production", BuildID: b.ID, Number: 1, Lane: delivery.LaneMain, Kind: "promote"}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		got, ok, err := tx.StartDeployment(ctx, d)
		if err != nil || !ok || got.Fence != 1 {
			t.Errorf("first: %+v %v %v", got, ok, err)
		}
		other := d
		other.ID = "b"
		if _, ok, err := tx.StartDeployment(ctx, other); ok || err != nil {
			t.Errorf("the lock was given twice: %v %v", ok, err)
		}
		if holder, held, err := tx.Lock(ctx, "petstore", "production"); !held || holder.ID != "a" || err != nil {
			t.Errorf("holder %+v %v %v", holder, held, err)
		}
		if err := tx.EndDeployment(ctx, got, delivery.DeploymentFailed, "unchanged"); err != nil {
			return err
		}
		got, ok, err = tx.StartDeployment(ctx, other)
		if err != nil || !ok || got.Fence != 2 {
			t.Errorf("second: %+v %v %v", got, ok, err)
		}
		return nil
	})
	if ds, err := s.Deployments(t.Context(), "petstore", "", 10); err != nil || len(ds) != 2 || ds[0].ID != "b" || ds[1].After != "unchanged" {
		t.Errorf("%+v %v", ds, err)
	}
}

func decisions(t *testing.T, s *store.Store) {
	b := build(t, s, delivery.LaneHotfix, "refs/heads/hotfix/x")
	var g delivery.Gate
	write(t, s, func(ctx context.Context, tx *store.Tx) (err error) {
		g, err = tx.OpenGate(ctx, delivery.Gate{ID: "G", BuildID: b.ID, Environment: "production", Binding: delivery.Binding{Commit: "c", Artifacts: map[string]string{"app": "s"}}, ExpiresAt: tx.Now().Add(time.Hour)})
		return err
	})
	if g.Version != 1 || g.State != delivery.GateOpen || g.Binding.Artifacts["app"] != "s" {
		t.Errorf("%+v", g)
	}
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			next := []delivery.GateState{delivery.GatePromoted, delivery.GateRejected}[i%2]
			err := s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				return tx.Decide(ctx, g, next, fmt.Sprint("user", i), "here", "why", 0)
			})
			switch {
			case err == nil:
				won.Add(1)
			case delivery.IsKind(err, delivery.KindConflict):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 7 {
		t.Errorf("%d won, %d lost", won.Load(), lost.Load())
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		again, err := tx.OpenGate(ctx, g)
		if again.Version != 2 || again.DecidedBy != "" {
			t.Errorf("%+v", again)
		}
		return err
	})
}

func effects(t *testing.T, s *store.Store) {
	b := build(t, s, delivery.LaneMain, "refs/heads/develop")
	e := delivery.Effect{BuildID: b.ID, Key: "1/tag/1", Kind: "tag", Params: "{}", Fence: 7}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		got, fresh, err := tx.Intend(ctx, e)
		if !fresh || got.State != delivery.EffectStarted {
			t.Errorf("%+v %v", got, fresh)
		}
		return err
	})
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		got, fresh, err := tx.Intend(ctx, e)
		if fresh || got.Fence != 7 {
			t.Errorf("%+v %v", got, fresh)
		}
		if err != nil {
			return err
		}
		return tx.SetEffect(ctx, got, delivery.EffectConfirmed, 8, "done", "")
	})
	other := e
	other.Params = `{"x":1}`
	if err := s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		_, _, err := tx.Intend(ctx, other)
		return err
	}); err == nil {
		t.Error("the same key with other parameters was taken")
	}
}

func supersede(t *testing.T, s *store.Store) {
	old := build(t, s, delivery.LaneMain, "refs/heads/develop")
	fix := build(t, s, delivery.LaneHotfix, "refs/heads/hotfix/x")
	other := build(t, s, delivery.LaneMain, "refs/heads/other")
	newest := build(t, s, delivery.LaneMain, "refs/heads/develop")
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		gone, err := tx.Supersede(ctx, "petstore", "refs/heads/develop", newest.Number, "newer")
		if len(gone) != 1 || gone[0] != old.Number {
			t.Errorf("superseded %v", gone)
		}
		if more, err := tx.Supersede(ctx, "petstore", "refs/heads/hotfix/x", 99, "newer"); len(more) != 0 || err != nil {
			t.Errorf("superseded a hotfix: %v %v", more, err)
		}
		return err
	})
	for id, want := range map[int64]delivery.BuildStatus{old.ID: delivery.BuildSuperseded, fix.ID: delivery.BuildQueued, other.ID: delivery.BuildQueued, newest.ID: delivery.BuildQueued} {
		if got, err := s.Build(t.Context(), id); err != nil || got.Status != want {
			t.Errorf("build %d is %s, want %s: %v", got.Number, got.Status, want, err)
		}
	}
}

func audit(t *testing.T, s *store.Store, database string) {
	for _, a := range []string{"one", "two", "three"} {
		write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.Audit(ctx, "p", 1, "ana", a, "détail 💥") })
	}
	if rows, broken, err := s.VerifyAudit(t.Context()); rows != 3 || broken != 0 || err != nil {
		t.Fatal(rows, broken, err)
	}
	rows, err := s.AuditRows(t.Context(), "p", 3, 10)
	if err != nil || len(rows) != 2 || rows[0].Action != "two" {
		t.Errorf("%+v %v", rows, err)
	}
	Damage(t, database, `update audit set actor = 'eve' where seq = 2`)
	if _, broken, err := s.VerifyAudit(t.Context()); broken != 2 || err != nil {
		t.Fatal(broken, err)
	}
}

func numbers(t *testing.T, s *store.Store) {
	build(t, s, delivery.LaneMain, "refs/heads/develop")
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int64]bool{}
	for range 20 {
		wg.Go(func() {
			var n int64
			err := s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) (err error) {
				n, err = tx.TakeNumber(ctx, "petstore")
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[n] {
				t.Errorf("number %d: %v", n, err)
			}
			seen[n] = true
		})
	}
	wg.Wait()
}

func rollback(t *testing.T, s *store.Store) {
	boom := errors.New("boom")
	err := s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		if err := tx.InsertProject(ctx, project("gone")); err != nil {
			return err
		}
		tx.Event("gone", 0, "project")
		tx.AfterCommit(func() { t.Error("something happened after a transaction that failed") })
		return boom
	})
	if !errors.Is(err, boom) {
		t.Error(err)
	}
	if _, err := s.Project(t.Context(), "gone"); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		cancel()
		return tx.InsertProject(ctx, project("gone"))
	}); err == nil {
		t.Error("a cancelled transaction was committed")
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.InsertProject(ctx, project("next")) })
}

func events(t *testing.T, s *store.Store) {
	live, cancel := s.Subscribe()
	defer cancel()
	for i := range 3 {
		write(t, s, func(_ context.Context, tx *store.Tx) error {
			tx.Event("p", int64(i), "build")
			tx.Event("p", int64(i), "build") // once is enough
			return nil
		})
	}
	for want := range 3 {
		e := <-live
		if e.Number != int64(want) || e.ID != int64(want+1) {
			t.Errorf("%+v", e)
		}
	}
	if missed, err := s.EventsAfter(t.Context(), 1, 10); err != nil || len(missed) != 2 || missed[0].ID != 2 {
		t.Errorf("%+v %v", missed, err)
	}
}

func outbox(t *testing.T, s *store.Store) {
	write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.Post(ctx, "p", "waiting", `{"a":1}`) })
	now := s.Now().Add(time.Second)
	due, err := s.DueMails(t.Context(), now, 10)
	if err != nil || len(due) != 1 || due[0].Message != `{"a":1}` {
		t.Fatalf("%+v %v", due, err)
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		return tx.MailFailed(ctx, due[0].ID, `{"b":2}`, "450", now.Add(time.Hour))
	})
	if due, err := s.DueMails(t.Context(), now, 10); err != nil || len(due) != 0 {
		t.Errorf("%+v %v", due, err)
	}
	due, err = s.DueMails(t.Context(), now.Add(2*time.Hour), 10)
	if err != nil || len(due) != 1 || due[0].Tries != 1 || due[0].Message != `{"b":2}` {
		t.Fatalf("%+v %v", due, err)
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.MailSent(ctx, due[0].ID) })
	if due, err := s.DueMails(t.Context(), now.Add(9*time.Hour), 10); err != nil || len(due) != 0 {
		t.Errorf("%+v %v", due, err)
	}
}

func instances(t *testing.T, s *store.Store) {
	b := build(t, s, delivery.LaneMain, "refs/heads/develop")
	now := s.Now()
	i := delivery.Instance{ID: "petstore-qa-1", Project: "petstore", Environment: "qa", BuildID: b.ID, Number: 1, ExpiresAt: now.Add(time.Hour)}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.InsertInstance(ctx, i); err != nil {
			return err
		}
		i.State, i.URL, i.Outputs = delivery.InstanceUp, "http://x", map[string]string{"url": "http://x"}
		return tx.SetInstance(ctx, i)
	})
	due := func(at time.Time) int {
		t.Helper()
		list, err := s.DueInstances(t.Context(), at)
		must(t, err)
		return len(list)
	}
	if due(now.Add(time.Minute)) != 0 || due(now.Add(2*time.Hour)) != 1 {
		t.Error("an environment's end does not come when it should")
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.Keep(ctx, i.ID, now.Add(time.Hour), true) })
	if due(now.Add(2*time.Hour)) != 0 {
		t.Error("a pinned environment ends")
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		i.State = delivery.InstanceDestroying
		if err := tx.SetInstance(ctx, i); err != nil {
			return err
		}
		return tx.RetryDown(ctx, i.ID, now.Add(time.Minute))
	})
	if due(now) != 0 || due(now.Add(time.Hour)) != 1 {
		t.Error("a failed destruction is not tried again when it is due")
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		i.State, i.DownAt = delivery.InstanceDown, tx.Now()
		return tx.SetInstance(ctx, i)
	})
	if err := s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.SetInstance(ctx, i) }); !delivery.IsKind(err, delivery.KindConflict) {
		t.Errorf("an environment that is gone changed: %v", err)
	}
}

func people(t *testing.T, s *store.Store) {
	ctx := t.Context()
	must(t, s.InsertUser(ctx, delivery.User{Name: "ana", Operator: true}))
	if u, err := s.User(ctx, "ana"); err != nil || !u.Operator || u.CreatedAt.IsZero() {
		t.Errorf("%+v %v", u, err)
	}
	must(t, s.InsertCredential(ctx, delivery.Credential{Hash: "h", Kind: delivery.CredentialOnce, User: "ana", CreatedAt: s.Now()}))
	var first atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			won, err := s.UseCredential(ctx, "h", s.Now())
			if err != nil {
				t.Error(err)
			}
			if won {
				first.Add(1)
			}
		})
	}
	wg.Wait()
	if first.Load() != 1 {
		t.Errorf("a link was used %d times", first.Load())
	}
	must(t, s.DeleteCredential(ctx, "h"))
	if _, err := s.Credential(ctx, "h"); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
}

type driver chan int64

func (d driver) Drive(_ context.Context, id int64) error {
	d <- id
	return nil
}

func queue(t *testing.T, s *store.Store) {
	d := make(driver, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	must(t, s.StartQueue(ctx, store.QueueConfig{Main: 1, Hotfix: 1, ID: "test"}, d))
	a, b := build(t, s, delivery.LaneMain, "refs/heads/develop"), build(t, s, delivery.LaneHotfix, "refs/heads/hotfix/x")
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		return errors.Join(tx.Enqueue(ctx, a.ID, a.Lane, 0), tx.Enqueue(ctx, b.ID, b.Lane, 0))
	})
	got := map[int64]bool{<-d: true, <-d: true}
	if !got[a.ID] || !got[b.ID] {
		t.Errorf("delivered %v", got)
	}
	must(t, s.StopQueue(t.Context()))
}

func roundTrip(t *testing.T, s *store.Store) {
	ctx := t.Context()
	b := build(t, s, delivery.LaneMain, "refs/heads/develop")
	p, err := s.Project(ctx, "petstore")
	must(t, err)
	if !p.Local || p.Branches.Hotfix != "hotfix/*" || p.Tags.Build != "build/$N" || p.NextBuild != 2 {
		t.Errorf("%+v", p)
	}
	write(t, s, func(ctx context.Context, tx *store.Tx) error {
		return errors.Join(
			tx.SetArtifact(ctx, delivery.Artifact{BuildID: b.ID, Name: "app", File: "a.tgz", SHA256: fmt.Sprintf("%064d", 1), Size: 3, Node: "job/a"}),
			tx.SetArtifact(ctx, delivery.Artifact{BuildID: b.ID, Name: "app", File: "b.tgz", SHA256: fmt.Sprintf("%064d", 2), Size: 4, Node: "job/a"}),
			tx.SetTests(ctx, b.ID, "job/a", []delivery.TestCase{{Name: "one", State: delivery.TestPassed}, {Name: "two", State: delivery.TestFailed, Message: "\u2713"}}),
			tx.InsertAttempt(ctx, delivery.Attempt{ID: "x", BuildID: b.ID, Node: "job/a", Attempt: 1}),
			tx.EndAttempt(ctx, delivery.Attempt{ID: "x", State: delivery.AttemptFailed, ExitCode: 3}),
			tx.SetSecret(ctx, "petstore", "TOKEN", "sealed"), tx.SetMeta(ctx, "k", "1"), tx.SetMeta(ctx, "k", "2"),
			tx.SetRef(ctx, "petstore", "refs/heads/develop", "c1"), tx.SetRef(ctx, "petstore", "refs/heads/develop", "c2"),
			tx.InsertPush(ctx, store.Push{Project: "petstore", Ref: "refs/heads/develop", Commit: "c2", Number: 1}),
			tx.SetNode(ctx, delivery.Node{BuildID: b.ID, Name: "job/a", State: delivery.NodeSucceeded, Attempt: 1, StartedAt: tx.Now(), FinishedAt: tx.Now().Add(time.Second)}),
		)
	})
	if err := s.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		return tx.EndAttempt(ctx, delivery.Attempt{ID: "x", State: delivery.AttemptSucceeded})
	}); !delivery.IsKind(err, delivery.KindConflict) {
		t.Errorf("an attempt ended twice: %v", err)
	}
	artifacts, err := s.Artifacts(ctx, b.ID)
	must(t, err)
	if len(artifacts) != 1 || artifacts[0].File != "b.tgz" {
		t.Errorf("%+v", artifacts)
	}
	tests, err := s.Tests(ctx, b.ID)
	must(t, err)
	if len(tests) != 2 || tests[1].Message != "\u2713" {
		t.Errorf("%+v", tests)
	}
	refs, err := s.Refs(ctx, "petstore")
	must(t, err)
	if len(refs) != 1 || refs["refs/heads/develop"] != "c2" {
		t.Errorf("%v", refs)
	}
	if v, err := s.Meta(ctx, "k"); err != nil || v != "2" {
		t.Errorf("%q %v", v, err)
	}
	if d, err := s.Durations(ctx, "petstore"); err != nil || len(d["job/a"]) != 1 || d["job/a"][0] != time.Second {
		t.Errorf("%v %v", d, err)
	}
	nodes, err := s.Nodes(ctx, b.ID)
	must(t, err)
	if len(nodes) != 2 || nodes[1].Needs[0] != "job/a" || nodes[0].State != delivery.NodeSucceeded {
		t.Errorf("%+v", nodes)
	}
	builds, err := s.Builds(ctx, store.BuildQuery{Project: "petstore", Status: "open", Lane: "main", Limit: 5})
	must(t, err)
	if len(builds) != 1 || builds[0].Commit != "c1" {
		t.Errorf("%+v", builds)
	}
}

package store_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

// fill writes something into most tables.
func fill(t *testing.T, s *store.Store) {
	t.Helper()
	err := s.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		p := delivery.Project{Name: "petstore", URL: "https://git.example.org/ä\"'.git", NextBuild: 1, WebhookSecret: "s", Tags: delivery.Tags{Build: "build/$N"}}
		if err := tx.InsertProject(ctx, p); err != nil {
			return err
		}
		for range 30 {
			n, err := tx.TakeNumber(ctx, "petstore")
			if err != nil {
				return err
			}
			b := delivery.Build{Project: "petstore", Number: n, Lane: delivery.LaneHotfix, Ref: "refs/heads/hotfix/x", Commit: fmt.Sprintf("%040d", n), Subject: "Ünïcode \u202e and\ttabs\nlines", Pipeline: []byte("version: 1\n"), Status: delivery.BuildQueued}
			id, err := tx.InsertBuild(ctx, b, []delivery.Node{{Name: "job/a", Kind: delivery.NodeJob, State: delivery.NodePending, Needs: []string{"x"}}})
			if err != nil {
				return err
			}
			g, err := tx.OpenGate(ctx, delivery.Gate{ID: fmt.Sprint("G", n), BuildID: id, Environment: "production"})
			if err != nil {
				return err
			}
			if err := tx.Decide(ctx, g, delivery.GatePromoted, "bob", "here", "", 0); err != nil {
				return err
			}
			if err := tx.Audit(ctx, "petstore", n, "bob", "promoted", "why not"); err != nil {
				return err
			}
			if err := tx.Post(ctx, "petstore", "waiting", `{"to":["a"]}`); err != nil {
				return err
			}
		}
		if _, err := tx.InsertFreeze(ctx, delivery.Freeze{Project: "petstore", Begins: tx.Now(), Ends: tx.Now().Add(time.Hour), Reason: "Christmas", By: "ana"}); err != nil {
			return err
		}
		return tx.SetMeta(ctx, "server_id", "0123456789abcdef")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.InsertUser(t.Context(), delivery.User{Name: "operator", Operator: true}); err != nil {
		t.Fatal(err)
	}
}

func TestRowsMoveToPostgresAndBack(t *testing.T) {
	t.Parallel()
	server := pg.ForTest(t)
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	lite, post, other := openAt(t, filepath.Join(dir, "a.db")), openAt(t, url), openAt(t, filepath.Join(dir, "b.db"))
	fill(t, lite)
	patience := post.SetPatience(time.Nanosecond) // a large installation takes longer than any transaction of a server may
	there, err := lite.Move(t.Context(), post)
	if err != nil {
		t.Fatal(err)
	}
	post.SetPatience(patience)
	rows := map[string]int{}
	for _, m := range there {
		rows[m.Table] = m.Rows
	}
	for name, want := range map[string]int{"projects": 1, "builds": 30, "nodes": 30, "gates": 30, "audit": 30, "outbox": 30, "freezes": 1, "users": 1, "meta": 1, "events": 1} {
		if rows[name] < want {
			t.Errorf("of table %s %d rows were moved", name, rows[name])
		}
	}
	if all, broken, err := post.VerifyAudit(t.Context()); all != 30 || broken != 0 || err != nil {
		t.Errorf("the audit chain: %d rows, broken at %d, %v", all, broken, err)
	}
	if where, err := lite.MovedTo(t.Context()); where != "PostgreSQL" || err != nil {
		t.Errorf("the source is marked %q, %v", where, err)
	}
	for what, move := range map[string]func() ([]store.Moved, error){
		"a moved database":     func() ([]store.Moved, error) { return lite.Move(t.Context(), openEmpty(t, server)) },
		"into a used database": func() ([]store.Moved, error) { fill(t, other); return other.Move(t.Context(), post) },
	} {
		if _, err := move(); !delivery.IsKind(err, delivery.KindConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := lite.Move(t.Context(), other); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Errorf("two of a kind: %v", err)
	}
	again := openAt(t, filepath.Join(dir, "c.db"))
	back, err := post.Move(t.Context(), again)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(there, back) {
		t.Errorf("there %v\nback %v", there, back)
	}
	// Identifiers go on where they were.
	fillMore := again.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.TakeNumber(ctx, "petstore")
		if n != 31 {
			t.Errorf("the next number is %d", n)
		}
		return err
	})
	if fillMore != nil {
		t.Fatal(fillMore)
	}
}

func openEmpty(t *testing.T, server *pg.Server) *store.Store {
	t.Helper()
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return openAt(t, url)
}

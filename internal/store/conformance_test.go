package store_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/store/storetest"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

func openAt(t *testing.T, database string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{Database: database, Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
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

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) (*store.Store, string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "shunt.db")
		return openAt(t, path), path
	})
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	server := pg.ForTest(t)
	storetest.Run(t, func(t *testing.T) (*store.Store, string) {
		t.Helper()
		url, err := server.Database(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return openAt(t, url), url
	})
}

func TestANewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shunt.db")
	openAt(t, path)
	storetest.Damage(t, path, `insert into goose_db_version (version_id, is_applied) values (9999, 1)`)
	_, err := store.Open(t.Context(), store.Config{Database: path, Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if !delivery.IsKind(err, delivery.KindInvalid) {
		t.Errorf("a newer schema was opened: %v", err)
	}
}

// A server that is paused in the middle of a transaction, with the writers' turn,
// keeps the others from writing only for a while, and what it then writes is refused.
func TestAPausedWriterLosesItsTurn(t *testing.T) {
	t.Parallel()
	server := pg.ForTest(t)
	url, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	paused, other := openAt(t, url), openAt(t, url)
	inside, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		ended <- paused.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			close(inside)
			<-goOn
			return tx.SetMeta(ctx, "who", "paused")
		})
	}()
	<-inside
	for end := time.Now().Add(time.Minute); ; {
		err := other.Write(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.SetMeta(ctx, "who", "other") })
		if err == nil {
			break
		}
		if !delivery.IsKind(err, delivery.KindUnavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	close(goOn)
	if err := <-ended; !delivery.IsKind(err, delivery.KindUnavailable) {
		t.Errorf("the paused writer is told %v", err)
	}
	if who, err := other.Meta(t.Context(), "who"); who != "other" || err != nil {
		t.Errorf("written was %q %v", who, err)
	}
}

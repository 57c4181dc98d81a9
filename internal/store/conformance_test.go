package store_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

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
	if pg.Available() == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("CI has no PostgreSQL: see ci/needs.sh")
		}
		t.Skip("PostgreSQL is not installed: apt-get install postgresql")
	}
	server, err := pg.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
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

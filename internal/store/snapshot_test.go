package store

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/shuntcd/shunt/internal/delivery"
)

func openForCopy(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Database: path, Clock: delivery.SystemClock{}, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func setMeta(t *testing.T, s *Store, name, value string) {
	t.Helper()
	if err := s.Write(t.Context(), func(ctx context.Context, tx *Tx) error { return tx.SetMeta(ctx, name, value) }); err != nil {
		t.Fatal(err)
	}
}

func meta(t *testing.T, s *Store, name string) string {
	t.Helper()
	v, err := s.Meta(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// with is the migrations of today and further ones.
func with(t *testing.T, more ...string) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	entries, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := fs.ReadFile(migrations, "migrations/"+e.Name())
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = &fstest.MapFile{Data: text}
	}
	for i, sql := range more {
		files[fmt.Sprintf("%05d_more.sql", 90001+i)] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql + "\n")}
	}
	return files
}

func copies(t *testing.T, path string) (names []string) {
	t.Helper()
	found, err := filepath.Glob(path + ".before-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		names = append(names, filepath.Base(f))
	}
	return names
}

func TestTheDatabaseIsCopiedBeforeAMigration(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shunt.db")
	s := openForCopy(t, path)
	if got := copies(t, path); got != nil {
		t.Errorf("a new database was copied: %v", got)
	}
	setMeta(t, s, "who", "the old version")
	// The second of two migrations fails: the copy is from before the first, and the
	// old version starts on it.
	if err := s.migrate(t.Context(), with(t, "create table more (a text);", "this is no SQL;")); err == nil {
		t.Fatal("a broken migration was taken")
	}
	if got := copies(t, path); !slices.Equal(got, []string{"shunt.db.before-90001"}) {
		t.Fatalf("copies: %v", got)
	}
	old := openForCopy(t, path+".before-90001")
	if got := meta(t, old, "who"); got != "the old version" {
		t.Errorf("the copy says %q", got)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	setMeta(t, s, "who", "half way")
	next := []string{"create table more (a text);", "create table more2 (a text);", "create table more3 (a text);", "create table more4 (a text);"}
	for i := range next {
		if err := s.migrate(t.Context(), with(t, next[:i+1]...)); err != nil {
			t.Fatal(err)
		}
	}
	if got := copies(t, path); !slices.Equal(got, []string{"shunt.db.before-90002", "shunt.db.before-90003", "shunt.db.before-90004"}) {
		t.Errorf("kept are %v, not the last three", got)
	}
	for _, name := range copies(t, path) {
		if info, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := s.migrate(t.Context(), with(t, next...)); err != nil || len(copies(t, path)) != 3 {
		t.Errorf("nothing was pending: %v, %v", copies(t, path), err)
	}
}

func TestACopyIsTakenWhileTheServerWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openForCopy(t, filepath.Join(dir, "a shop.db"))
	err := s.Write(t.Context(), func(ctx context.Context, tx *Tx) error {
		if err := tx.SetMeta(ctx, "half", "done"); err != nil {
			return err
		}
		return CopySQLite(ctx, filepath.Join(dir, "a shop.db"), filepath.Join(dir, "copy.db"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := meta(t, openForCopy(t, filepath.Join(dir, "copy.db")), "half"); got != "" {
		t.Errorf("the copy has what was not committed: %q", got)
	}
	if err := CopySQLite(t.Context(), filepath.Join(dir, "a shop.db"), filepath.Join(dir, "copy.db")); err == nil {
		t.Error("a copy was overwritten")
	}
	if err := CopySQLite(t.Context(), filepath.Join(dir, "none.db"), filepath.Join(dir, "copy2.db")); err == nil {
		t.Error("a database that does not exist was copied")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*2.db")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

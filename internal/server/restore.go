package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/store"
)

// reconcileMeta names the row that keeps a server from doing anything outside its
// database until a person has compared that with git. It is written by restore.
const reconcileMeta = "reconcile"

// reconcileState is that row.
type reconcileState struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// Restore lays a backup out as a data directory, which must be empty or missing.
// The server that is started on it waits in reconcile mode. database names the
// PostgreSQL database, restored before, of a backup without rows.
func Restore(ctx context.Context, file, dir, database string, clock delivery.Clock) (about About, err error) {
	what := "cannot restore to " + dir
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		return about, &delivery.Error{Kind: delivery.KindConflict, What: what, Why: "the directory is not empty", Next: "Name a new one:  --data DIR"}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return about, &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: err.Error(), Err: err}
	}
	if about, err = readArchive(ctx, file, nil); err != nil {
		return about, err
	}
	if rows := about.Database == "postgres"; rows != (database != "") {
		e := &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: "the backup holds its own database", Next: "Leave --database out; move the rows afterwards:  shunt migrate-data"}
		if rows {
			e.Why, e.Next = "the rows of this backup are in PostgreSQL", "First pg_restore them, then name the database:  --database postgres://..."
		}
		return about, e
	}
	// Half a restored directory must never look like a whole one.
	half, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), "."+filepath.Base(dir)+".restore-*")
	if err != nil {
		return about, fmt.Errorf("restore: %w", err)
	}
	defer os.RemoveAll(half) //nolint:errcheck // gone after a success
	if err := failpoint.Hit("restore", failpoint.BeforeCall); err != nil {
		return about, err
	}
	if err := extract(ctx, file, half); err != nil {
		return about, err
	}
	if err := os.WriteFile(filepath.Join(half, "database"), []byte(database), 0o600); err != nil {
		return about, fmt.Errorf("restore: %w", err)
	}
	if err := beginReconcile(ctx, half, database, about, clock); err != nil {
		return about, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return about, &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: err.Error(), Next: "Name a directory that does not exist, below it:  --data DIR", Err: err}
	}
	if err := failpoint.Hit("restore", failpoint.BeforeRecord); err != nil {
		return about, err
	}
	if err := os.Rename(half, dir); err != nil {
		return about, fmt.Errorf("restore: %w", err)
	}
	return about, errors.Join(syncDir(filepath.Dir(filepath.Clean(dir))), failpoint.Hit("restore", failpoint.BeforeAnswer))
}

// extract lays the files of an archive out and makes them durable.
func extract(ctx context.Context, file, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer root.Close() //nolint:errcheck // nothing is written through it any more
	dirs := map[string]bool{dir: true}
	_, err = readArchive(ctx, file, func(name string, r io.Reader) error {
		if err := root.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
			dirs[filepath.Join(dir, d)] = true
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		_, err = io.Copy(f, r)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("restore %s: %w", name, err)
		}
		return nil
	})
	for d := range dirs {
		err = errors.Join(err, syncDir(d))
	}
	return err
}

// beginReconcile writes the row that makes the server wait.
func beginReconcile(ctx context.Context, dir, database string, about About, clock delivery.Clock) error {
	st, err := openStore(ctx, database, dir, slog.New(slog.DiscardHandler), clock)
	if err != nil {
		return err
	}
	state, err := json.Marshal(reconcileState{Since: clock.Now(), Why: "restored from the backup of " + about.MadeAt.Format("2006-01-02 15:04:05 MST")})
	if err == nil {
		err = st.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
			return errors.Join(tx.SetMeta(ctx, reconcileMeta, string(state)), tx.Audit(ctx, "", 0, "shunt", "restored", string(state)))
		})
	}
	return errors.Join(err, st.Close())
}

package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
)

// keptCopies is how many copies from before a migration are kept.
const keptCopies = 3

// CopySQLite writes a consistent copy of a SQLite file to another name, which
// must not exist, and returns when the copy is durable. Servers may write to the
// file meanwhile: they neither wait nor are they waited for.
func CopySQLite(ctx context.Context, from, to string) (err error) {
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("copy database: %s exists", to)
	}
	q := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(10000)"}} // rw, for VACUUM counts as a write; never made when missing
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: from}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return fmt.Errorf("copy database: %w", err)
	}
	_, err = db.ExecContext(ctx, `vacuum into $1`, to)
	if err = errors.Join(err, db.Close()); err != nil {
		_ = os.Remove(to) // half a copy is none
		return fmt.Errorf("copy database: %w", err)
	}
	return errors.Join(os.Chmod(to, 0o600), syncFile(to), syncFile(filepath.Dir(to)))
}

// syncFile makes a file, or the names in a directory, durable.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", name, err)
	}
	return nil
}

// copyBefore copies a SQLite database that has pending migrations to
// <name>.before-<first pending version>, so that the old version can start again
// on the copy when the new one cannot go on. A copy of that name is an earlier
// try's, of the same schema, and is replaced. The last three are kept.
func (s *Store) copyBefore(ctx context.Context, p *goose.Provider, current int64) error {
	var pending int64
	for _, source := range p.ListSources() {
		if source.Version > current && (pending == 0 || source.Version < pending) {
			pending = source.Version
		}
	}
	if s.dialect.goose != goose.DialectSQLite3 || current == 0 || pending == 0 {
		return nil
	}
	to := fmt.Sprintf("%s.before-%d", s.cfg.Database, pending)
	half := to + ".half"
	if err := os.Remove(half); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove half a copy: %w", err)
	}
	if err := CopySQLite(ctx, s.cfg.Database, half); err != nil {
		return err
	}
	if err := os.Rename(half, to); err != nil {
		return fmt.Errorf("keep the copy: %w", err)
	}
	s.cfg.Log.Info("the database was copied before its migration", "copy", to)
	return errors.Join(syncFile(filepath.Dir(to)), pruneCopies(s.cfg.Database))
}

// pruneCopies removes all copies but the newest three by version.
func pruneCopies(database string) error {
	entries, err := os.ReadDir(filepath.Dir(database))
	if err != nil {
		return fmt.Errorf("list copies: %w", err)
	}
	type copied struct {
		name    string
		version int64
	}
	var copies []copied
	for _, e := range entries {
		version, ok := strings.CutPrefix(e.Name(), filepath.Base(database)+".before-")
		if n, err := strconv.ParseInt(version, 10, 64); ok && err == nil {
			copies = append(copies, copied{e.Name(), n})
		}
	}
	slices.SortFunc(copies, func(a, b copied) int { return cmp.Compare(b.version, a.version) })
	for _, c := range copies[min(keptCopies, len(copies)):] {
		err = errors.Join(err, os.Remove(filepath.Join(filepath.Dir(database), c.name)))
	}
	return err
}

// CheckCopy checks that a copy is whole and lists the digests of the artifacts
// that its builds have, but for those that retention has removed.
func CheckCopy(ctx context.Context, file string) (digests []string, err error) {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath()+"?mode=ro")
	if err != nil {
		return nil, fmt.Errorf("check copy: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	words, err := list(ctx, db, scanText, `pragma quick_check`)
	if err != nil || !slices.Equal(words, []string{"ok"}) {
		return nil, fmt.Errorf("the copy of the database is damaged: %v: %w", words, cmp.Or(err, errDamaged))
	}
	return list(ctx, db, scanText, `select distinct sha256 from artifacts
		where not exists (select 1 from meta where meta.name = 'removed/' || artifacts.sha256) order by sha256`)
}

var errDamaged = errors.New("quick_check found it")

package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/store"
)

// Backup says what to back up, and where to.
type Backup struct {
	Data      string // data directory
	To        string // a file that does not exist, or a directory, in which the file is named by the time
	FilesOnly bool   // leave the rows out: PostgreSQL's own tools keep them
	Version   string // of this program
}

// BackedUp is a backup that was made and verified.
type BackedUp struct {
	File  string
	Files int
	Bytes int64
	// Missing are artifacts that the database knows and the store does not hold,
	// or holds damaged. They were lost before the backup.
	Missing []string
	// Elsewhere names where artifacts and logs are when they are not in it.
	Elsewhere string
}

// Make backs a data directory up while its server runs. The database is copied
// first and then what it names: blobs are never changed, so that all are there.
func (b Backup) Make(ctx context.Context, clock delivery.Clock) (out BackedUp, err error) {
	what := "cannot back up " + b.Data
	database, err := os.ReadFile(filepath.Join(b.Data, "database"))
	if err != nil {
		return out, noData(b.Data, err)
	}
	about := About{Format: 1, Version: b.Version, MadeAt: clock.Now(), Database: "sqlite"}
	if store.IsPostgres(string(database)) {
		about.Database = "postgres"
		if !b.FilesOnly {
			return out, &delivery.Error{
				Kind: delivery.KindRefused, What: what, Why: "its rows are in PostgreSQL, whose own tools back them up",
				Next: "First the rows:     pg_dump --format=custom --file=shunt.pgdump \"$DATABASE_URL\"\nthen the files:     shunt backup --files-only",
			}
		}
	} else if b.FilesOnly {
		return out, delivery.Errf(delivery.KindInvalid, what, "--files-only is for PostgreSQL; here the database is one of the files")
	}
	where, err := notedPlace(b.Data)
	if err != nil {
		return out, err
	}
	k, err := where.open(b.Data, slog.New(slog.DiscardHandler))
	if err != nil {
		return out, err
	}
	if !k.isLocal() {
		about.Files = k.String()
	}
	if out.File, err = b.file(about); err != nil {
		return out, err
	}
	if err := failpoint.Hit("backup", failpoint.BeforeIntent); err != nil {
		return out, err
	}
	temp, err := os.MkdirTemp(filepath.Dir(out.File), ".shunt-backup-*")
	if err != nil {
		return out, fmt.Errorf("write backup: %w", err)
	}
	defer os.RemoveAll(temp) //nolint:errcheck // a temporary directory
	var wanted []string
	snapshot := ""
	if about.Database == "sqlite" {
		snapshot = filepath.Join(temp, databaseName)
		if err := store.CopySQLite(ctx, filepath.Join(b.Data, databaseName), snapshot); err != nil {
			return out, err
		}
		if wanted, err = store.CheckCopy(ctx, snapshot); err != nil {
			return out, err
		}
	}
	if err := failpoint.Hit("backup", failpoint.BeforeCall); err != nil {
		return out, err
	}
	a, err := writeArchive(ctx, out.File, about, func(a *archiver) error {
		if snapshot != "" {
			if _, _, err := a.addFile(databaseName, snapshot); err != nil {
				return err
			}
		}
		if !k.isLocal() {
			if out.Missing, err = a.addElsewhere(k, wanted); err != nil {
				return err
			}
			return a.addTree(b.Data, "hooks")
		}
		for _, dir := range archivedTrees() {
			if dir == "blobs" {
				out.Missing, err = a.addBlobs(b.Data, wanted)
			} else {
				err = a.addTree(b.Data, dir)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	out.Files, out.Bytes, out.Elsewhere = a.files, a.bytes, about.Files
	return out, failpoint.Hit("backup", failpoint.BeforeAnswer)
}

func noData(dir string, err error) error {
	return &delivery.Error{Kind: delivery.KindNotFound, What: "there is no Shunt in " + dir, Why: "no server has ever used this directory", Next: "Name its data directory:  --data DIR", Err: err}
}

// file names the backup's file.
func (b Backup) file(about About) (string, error) {
	info, err := os.Stat(b.To)
	switch {
	case err == nil && info.IsDir():
		return filepath.Join(b.To, "shunt-"+about.MadeAt.Format("20060102T150405Z")+".tar"), nil
	case err == nil:
		return "", &delivery.Error{Kind: delivery.KindConflict, What: "cannot write " + b.To, Why: "it exists, and a backup is never overwritten", Next: "Name another file, or a directory:  --to DIR"}
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("write backup: %w", err)
	}
	return b.To, nil
}

// addBlobs adds all artifacts, and tells which of the wanted are not there as
// their digest says.
func (a *archiver) addBlobs(data string, wanted []string) (missing []string, err error) {
	whole := map[string]bool{}
	dirs, err := filepath.Glob(filepath.Join(data, "blobs", "sha256", "??"))
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", err)
		}
		for _, e := range entries {
			if len(e.Name()) != 64 || !strings.HasPrefix(e.Name(), filepath.Base(dir)) {
				continue
			}
			digest, ok, err := a.addFile("blobs/sha256/"+filepath.Base(dir)+"/"+e.Name(), filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			whole[e.Name()] = ok && digest == e.Name()
		}
	}
	for _, sha := range wanted {
		if !whole[sha] {
			missing = append(missing, sha)
		}
	}
	return missing, nil
}

// addElsewhere lists what is kept outside the data directory, whose owner backs
// it up, and tells which of the wanted artifacts are not there. Their bytes are
// not read.
func (a *archiver) addElsewhere(k kept, wanted []string) (missing []string, err error) {
	all, err := k.list(a.ctx)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	there := map[string]bool{}
	for _, o := range all {
		there[path.Base(o.Key)] = there[path.Base(o.Key)] || strings.HasPrefix(o.Key, "blobs/")
		fmt.Fprintf(&text, "%d  %q\n", o.Size, o.Key)
	}
	for _, sha := range wanted {
		if !there[sha] {
			missing = append(missing, sha)
		}
	}
	_, err = a.add(elsewhereName, &text, int64(text.Len()))
	return missing, err
}

// list lists what a place holds.
func (k kept) list(ctx context.Context) (all []artifact.Object, err error) {
	if k.objects != nil {
		return k.objects.List(ctx, "")
	}
	for _, dir := range []string{"blobs", "published", "logs"} {
		err = errors.Join(err, filepath.WalkDir(filepath.Join(k.Shared, dir), func(file string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // none yet, or removed meanwhile
			}
			if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				return err
			}
			name, err := filepath.Rel(k.Shared, file)
			info, gone := e.Info()
			if err == nil && gone == nil {
				all = append(all, artifact.Object{Key: filepath.ToSlash(name), Size: info.Size(), Changed: info.ModTime()})
			}
			return err
		}))
	}
	return all, err
}

// VerifyBackup reads a backup from end to end, compares every digest, and tells
// what it says of itself.
func VerifyBackup(ctx context.Context, file string) (About, error) {
	return readArchive(ctx, file, func(string, io.Reader) error { return nil })
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// Move says between which databases to move all rows. One is a SQLite file, the
// other a postgres:// URL.
type Move struct {
	Data     string // data directory of the server that must not run; empty: that of the SQLite file
	From, To string
}

// Make moves the rows, compares them, and marks the source, so that no server
// starts on it again.
func (m Move) Make(ctx context.Context, clock delivery.Clock) (moved []store.Moved, err error) {
	const what = "cannot move the rows"
	if store.IsPostgres(m.From) == store.IsPostgres(m.To) {
		return nil, &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: "one side must be a SQLite file and the other a postgres:// URL", Next: "shunt migrate-data --from shunt-data/shunt.db --to postgres://..."}
	}
	file := m.From
	if store.IsPostgres(m.From) {
		file = m.To
	} else if _, err := os.Stat(file); err != nil {
		return nil, &delivery.Error{Kind: delivery.KindNotFound, What: what, Why: err.Error(), Err: err}
	}
	for _, dir := range m.directories(file) {
		unlock, err := lockDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			err = &delivery.Error{Kind: delivery.KindNotFound, What: what, Why: "there is no directory " + dir, Err: err}
		}
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	quiet := slog.New(slog.DiscardHandler)
	from, err := openStore(ctx, m.From, "", quiet, clock)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := openStore(ctx, m.To, "", quiet, clock)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if moved, err = from.Move(ctx, to); err != nil {
		return nil, err
	}
	return moved, nil
}

// directories are those whose server must not run.
func (m Move) directories(file string) []string {
	dirs := []string{filepath.Dir(file)}
	if m.Data != "" && filepath.Clean(m.Data) != filepath.Clean(dirs[0]) {
		dirs = append(dirs, m.Data)
	}
	return dirs
}

// refuseMoved keeps a server from starting on rows that went on elsewhere.
func (s *Server) refuseMoved(ctx context.Context) error {
	where, err := s.store.MovedTo(ctx)
	if err != nil || where == "" {
		return err
	}
	next := "Start the server on it:  shunt serve --database postgres://..."
	if store.IsPostgres(s.cfg.Database) {
		next = "Start the server without --database, with the file as shunt.db in its data directory."
	}
	return &delivery.Error{Kind: delivery.KindConflict, What: "cannot start on this database", Why: fmt.Sprintf("its rows were moved to %s and may have gone on there", where), Next: next}
}

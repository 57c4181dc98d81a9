package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/shuntcd/shunt/internal/delivery"
)

// dialect is all in which the two databases differ.
type dialect struct {
	goose goose.Dialect
	queue func(*sql.DB) riverdriver.Driver[*sql.Tx]
	// begin is run first in every write transaction and tells the database's time
	// (nil: the clock of the process). PostgreSQL takes a lock that makes writers
	// take turns, as SQLite's do: rows that a transaction has read stay as they are
	// until it ends, on both databases alike. Another server's clock is never asked.
	begin func(ctx context.Context, tx *sql.Tx) (time.Time, error)
}

// IsPostgres tells whether a database is named by a PostgreSQL URL.
func IsPostgres(database string) bool {
	return strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://")
}

// openDatabase opens a writer and a pool of readers on a SQLite file or a
// PostgreSQL URL. fatal is told of an error of the writer's disk.
func openDatabase(database string, fatal func(error)) (d dialect, writer, readers *sql.DB, err error) {
	if IsPostgres(database) {
		d = dialect{
			goose: goose.DialectPostgres,
			queue: func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riverdatabasesql.New(db) },
			begin: takeTurn,
		}
		if writer, err = sql.Open("pgx", database); err != nil {
			return d, nil, nil, fmt.Errorf("open database: %w", err)
		}
		writer.SetMaxOpenConns(10)
		writer.SetMaxIdleConns(4)
		writer.SetConnMaxIdleTime(time.Minute)
		readers, err = sql.Open("pgx", database)
		if err != nil {
			return d, nil, nil, errors.Join(fmt.Errorf("open database: %w", err), writer.Close())
		}
		readers.SetMaxOpenConns(8)
		readers.SetMaxIdleConns(4)
		return d, writer, readers, nil
	}
	d = dialect{goose: goose.DialectSQLite3, queue: func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riversqlite.New(db) }}
	if writer, err = openSQLite(database, false); err != nil {
		return d, nil, nil, err
	}
	writer = sql.OpenDB(watched{driver: writer.Driver(), dsn: sqliteName(database, false), fatal: fatal})
	writer.SetMaxOpenConns(1)
	if readers, err = openSQLite(database, true); err != nil {
		return d, nil, nil, errors.Join(err, writer.Close())
	}
	readers.SetMaxOpenConns(8)
	return d, writer, readers, nil
}

func openSQLite(path string, readOnly bool) (*sql.DB, error) {
	db, err := sql.Open("sqlite", sqliteName(path, readOnly))
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	return db, nil
}

// sqliteName is the driver's name of a database with its settings.
func sqliteName(path string, readOnly bool) string {
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)", "foreign_keys(1)"}, "_txlock": {"immediate"}}
	if readOnly {
		q.Set("_txlock", "deferred")
		q.Add("_pragma", "query_only(1)")
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// writersTurn names the lock of writers among the database's advisory locks.
const writersTurn = 0x5348554e54 // "SHUNT"

func takeTurn(ctx context.Context, tx *sql.Tx) (now time.Time, err error) {
	var micros int64
	if _, err := tx.ExecContext(ctx, `select pg_advisory_xact_lock($1)`, int64(writersTurn)); err != nil {
		return now, fmt.Errorf("wait for other writers: %w", err)
	}
	err = tx.QueryRowContext(ctx, `select cast(extract(epoch from clock_timestamp()) * 1000000 as bigint)`).Scan(&micros)
	if err != nil {
		return now, fmt.Errorf("ask the database's clock: %w", err)
	}
	return time.UnixMicro(micros).UTC(), nil
}

// judge ends the process on an error of SQLite's disk, and words what a person
// can mend. An error of the connection leaves it open whether a commit
// happened; whoever asked looks it up by its key or asks again.
func (s *Store) judge(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			s.cfg.Fatal(fmt.Errorf("the database's disk failed: %w", err))
		case sqlite3.SQLITE_FULL:
			return &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot save", Why: "the disk is full", Next: "Make room; nothing was changed.", Err: err}
		}
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && (strings.HasPrefix(e.Code, "53") || strings.HasPrefix(e.Code, "57P")) {
		return away(err)
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return away(err)
	}
	return err
}

func away(err error) error {
	return &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot save", Why: "the database is away", Next: "Try again in a moment.", Err: err}
}

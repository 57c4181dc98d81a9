package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"golang.org/x/sys/unix"
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
	// patience is how long one statement may take; 0: for ever. A server that is
	// there and says nothing counts as away.
	patience time.Duration
	listen   *listener // for the events of other servers; nil: there are none
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
			begin: takeTurn, patience: writeTime,
		}
		cfg, err := postgres(database)
		if err != nil {
			return d, nil, nil, err
		}
		d.listen = &listener{cfg}
		writer, readers = stdlib.OpenDB(*cfg), stdlib.OpenDB(*cfg)
		writer.SetMaxOpenConns(10)
		writer.SetMaxIdleConns(4)
		writer.SetConnMaxIdleTime(time.Minute)
		readers.SetMaxOpenConns(8)
		readers.SetMaxIdleConns(4)
		return d, writer, readers, nil
	}
	d = dialect{goose: goose.DialectSQLite3, queue: func(db *sql.DB) riverdriver.Driver[*sql.Tx] { return riversqlite.New(db) }}
	if writer, err = openSQLite(database, false); err != nil {
		return d, nil, nil, err
	}
	watched := watchedDisk{driver: writer.Driver(), dsn: sqliteName(database, false), fatal: fatal}
	if err := writer.Close(); err != nil { // it has no connection yet
		return d, nil, nil, fmt.Errorf("open database: %w", err)
	}
	writer = sql.OpenDB(watched)
	writer.SetMaxOpenConns(1)
	if readers, err = openSQLite(database, true); err != nil {
		return d, nil, nil, errors.Join(err, writer.Close())
	}
	readers.SetMaxOpenConns(8)
	return d, writer, readers, nil
}

// postgres reads a URL. It bounds how long a server that hangs, or is cut off,
// keeps the others from writing: PostgreSQL ends a session that is idle in a
// transaction, which holds the writers' turn, or whose client does not answer;
// and this side finds out as quickly. What the URL says itself stays.
func postgres(database string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(database)
	if err != nil { // which may hold a password
		return nil, delivery.Errf(delivery.KindInvalid, "cannot open the database", "its URL cannot be read")
	}
	for name, value := range map[string]string{
		"idle_in_transaction_session_timeout": "3000", "tcp_user_timeout": "4000", "tcp_keepalives_idle": "2", "tcp_keepalives_interval": "1", "tcp_keepalives_count": "3",
	} {
		if _, set := cfg.RuntimeParams[name]; !set {
			cfg.RuntimeParams[name] = value
		}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 3}, Control: func(network, _ string, c syscall.RawConn) (err error) {
		if strings.HasPrefix(network, "tcp") {
			ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 5000) })
			err = errors.Join(err, ctl)
		}
		return err
	}}
	cfg.DialFunc = dialer.DialContext
	return cfg, nil
}

// writeTime bounds a statement of a write transaction on PostgreSQL. By then
// whoever writes has lost its leases.
const writeTime = 10 * time.Second

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
// can mend.
func (s *Store) judge(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			s.cfg.Fatal(fmt.Errorf("the database's disk failed: %w", err))
		case sqlite3.SQLITE_FULL:
			return &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot save", Why: "the disk is full", Next: "Make room; nothing was changed.", Err: err}
		}
	}
	return reword("cannot save", "Try again in a moment.", err)
}

// reword says in words that the database is away; any other error stays as it is.
func reword(what, next string, err error) error {
	if _, worded := errors.AsType[*delivery.Error](err); worded || !away(err) {
		return err
	}
	return &delivery.Error{Kind: delivery.KindUnavailable, What: what, Why: "the database is away", Next: next, Err: err}
}

// away tells whether an error says that PostgreSQL cannot be reached, is ending or
// beginning, or takes no more connections.
func away(err error) bool {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return strings.HasPrefix(e.Code, "53") || strings.HasPrefix(e.Code, "57P") || strings.HasPrefix(e.Code, "08") || e.Code == "25P03"
	}
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return connect || network && !errors.Is(err, context.DeadlineExceeded) || pgconn.SafeToRetry(err) || errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

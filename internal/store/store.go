// Package store holds all SQL. One text serves SQLite and PostgreSQL: $N
// placeholders, integer microseconds, JSON as text. Reads may use the pool of
// readers; every write happens in a transaction that the caller's function
// holds, so that a state change, its audit row, its events, its mails and its
// queue entry are one commit.
//
// State is guarded twice: by CHECKs and unique indexes in the schema, and by
// compare-and-set in the updates. What drives a build writes under its lease's
// fence; a fence that is no longer the newest gets delivery.ErrLeaseLost.
package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Config says where the database is.
type Config struct {
	Database string // path of the SQLite file, or a postgres:// URL
	Clock    delivery.Clock
	Log      *slog.Logger
	// Fatal is called when the disk can no longer be trusted (a failed fsync or
	// write): after it the next fsync would report success, so the process must
	// end. It must not return.
	Fatal func(error)
	// Watch is told of every statement that reads, before it is sent; nil: nobody is.
	Watch func(query string)
}

// Store is the database.
type Store struct {
	queries
	cfg     Config
	dialect dialect
	writer  *sql.DB // SQLite: one connection
	readers *sql.DB

	mu          sync.Mutex
	subscribers map[int]chan Event
	nextSub     int
	feed        *feed // of all servers' events; nil: this is the only server

	queue *queue
}

// Open opens (and creates and migrates) the database.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	d, writer, readers, err := openDatabase(cfg.Database, cfg.Fatal)
	if err != nil {
		return nil, err
	}
	s := &Store{queries: queries{db: patient{cfg.watched(readers), d.patience}}, cfg: cfg, dialect: d, writer: writer, readers: readers, subscribers: map[int]chan Event{}}
	files, err := fs.Sub(migrations, "migrations")
	if err == nil {
		err = s.migrate(ctx, files)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context, files fs.FS) error {
	p, err := goose.NewProvider(s.dialect.goose, s.writer, files)
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > target {
		return &delivery.Error{
			Kind: delivery.KindInvalid, What: "cannot open the database",
			Why: fmt.Sprintf("its schema has version %d and this shunt knows up to %d: a newer shunt has used it", current, target), Next: "Start the newer shunt again.",
		}
	}
	if current == target {
		return s.migrateQueue(ctx)
	}
	if err := failpoint.Hit("migrate", failpoint.BeforeIntent); err != nil {
		return err
	}
	if err := s.copyBefore(ctx, p, current); err != nil {
		return err
	}
	for { // each migration is a transaction, with the row that says that it was done
		if err := failpoint.Hit("migrate", failpoint.BeforeCall); err != nil {
			return err
		}
		if _, err := p.UpByOne(ctx); errors.Is(err, goose.ErrNoNextVersion) {
			break
		} else if err != nil {
			return fmt.Errorf("migrate database: %w", err)
		}
		if err := failpoint.Hit("migrate", failpoint.AfterRecord); err != nil {
			return err
		}
	}
	return s.migrateQueue(ctx)
}

// Close closes the database.
func (s *Store) Close() error {
	return errors.Join(s.readers.Close(), s.writer.Close())
}

// Check reads the whole SQLite file and tells whether it fits together. It says
// nothing of PostgreSQL, which looks after itself.
func (s *Store) Check(ctx context.Context) error {
	if IsPostgres(s.cfg.Database) {
		return nil
	}
	found, err := list(ctx, s.readers, scanText, `pragma quick_check(3)`)
	if err == nil && strings.Join(found, "") != "ok" {
		err = errors.New(strings.Join(found, "; "))
	}
	if err != nil {
		return &delivery.Error{
			Kind: delivery.KindInternal, What: "the database is damaged", Why: err.Error(),
			Next: "Keep the file aside and restore the last backup:  shunt restore", Err: err,
		}
	}
	return nil
}

// Now is this process's time. Leases are judged by the time of the transaction,
// which PostgreSQL tells to all servers alike.
func (s *Store) Now() time.Time { return s.cfg.Clock.Now() }

// Tx is a write transaction.
type Tx struct {
	queries
	tx     *sql.Tx
	now    time.Time
	queue  *queue
	notify bool // other servers may wait for its events
	events []Event
	after  []func()
}

// Now is the time of the transaction; every row that it writes carries it.
func (t *Tx) Now() time.Time { return t.now }

// AfterCommit registers what happens once the transaction is durable.
func (t *Tx) AfterCommit(f func()) { t.after = append(t.after, f) }

// Write runs f in a write transaction and commits it when f returns nil. An
// error of f comes back as it is. When the commit's answer is an error of the
// disk the process ends, for nobody can know what is durable. When it is lost with
// the connection, the error says that nobody knows: whoever asked looks it up by
// its key, or looks again before they repeat it.
func (s *Store) Write(ctx context.Context, f func(ctx context.Context, tx *Tx) error) error {
	if s.dialect.patience == 0 {
		return s.write(ctx, nil, f)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(s.dialect.patience, func() { cancel(errSilent) })
	defer silence.Stop()
	err := s.write(ctx, silence, f)
	if err != nil && errors.Is(context.Cause(ctx), errSilent) {
		err = &delivery.Error{Kind: delivery.KindUnavailable, What: "nobody knows whether this was saved", Why: "the database does not answer", Next: "Look again before you repeat it.", Err: err}
	}
	return err
}

var errSilent = errors.New("store: no answer in time")

// timed is a transaction each statement of which has its time anew.
type timed struct {
	querier
	silence *time.Timer
	most    time.Duration
}

// ExecContext implements querier.
func (w timed) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	w.silence.Reset(w.most)
	return w.querier.ExecContext(ctx, query, args...)
}

// QueryContext implements querier.
func (w timed) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	w.silence.Reset(w.most)
	return w.querier.QueryContext(ctx, query, args...)
}

// QueryRowContext implements querier.
func (w timed) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	w.silence.Reset(w.most)
	return w.querier.QueryRowContext(ctx, query, args...)
}

func (s *Store) write(ctx context.Context, silence *time.Timer, f func(ctx context.Context, tx *Tx) error) error {
	sqlTx, err := s.writer.BeginTx(ctx, nil)
	for try := 0; err != nil && stale(ctx, try, err); try++ {
		sqlTx, err = s.writer.BeginTx(ctx, nil)
	}
	if err != nil {
		return s.judge(fmt.Errorf("begin: %w", err))
	}
	tx := &Tx{queries: queries{db: s.cfg.watched(sqlTx)}, tx: sqlTx, now: s.Now(), queue: s.queue, notify: s.dialect.listen != nil}
	if silence != nil {
		tx.db = timed{tx.db, silence, s.dialect.patience}
	}
	if s.dialect.begin != nil {
		tx.now, err = s.dialect.begin(ctx, sqlTx)
	}
	if err == nil {
		err = f(ctx, tx)
	}
	if err == nil {
		err = tx.saveEvents(ctx)
	}
	if err != nil {
		if rb := sqlTx.Rollback(); rb != nil && !errors.Is(rb, sql.ErrTxDone) {
			err = errors.Join(err, fmt.Errorf("roll back: %w", rb))
		}
		return s.judge(err)
	}
	if err := sqlTx.Commit(); err != nil {
		return s.judge(reword("nobody knows whether this was saved", "Look again before you repeat it.", fmt.Errorf("commit: %w", err)))
	}
	for _, done := range tx.after {
		done()
	}
	if s.feed == nil || !s.feed.poke() {
		s.publish(tx.events)
	}
	return nil
}

type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// patient is a pool whose reads may take only so long (0: for ever).
type patient struct {
	querier
	most time.Duration
}

// bounded gives a read on a patient pool its time.
func bounded(ctx context.Context, db querier) (context.Context, context.CancelFunc) {
	if p, ok := db.(patient); ok && p.most > 0 {
		return context.WithTimeout(ctx, p.most)
	}
	return ctx, func() {}
}

// stale tells whether something that changes nothing is tried again: connections
// that wait in the pool may have died with a database that is back since.
func stale(ctx context.Context, try int, err error) bool {
	const pooled = 5 // more than wait in a pool
	return try < pooled && ctx.Err() == nil && away(err)
}

// queries are the reads; they run on the readers' pool and inside a transaction alike.
type queries struct{ db querier }

// watched is db, of whose reads Watch is told.
func (cfg Config) watched(db querier) querier {
	if cfg.Watch == nil {
		return db
	}
	return watching{db, cfg.Watch}
}

type watching struct {
	querier
	saw func(query string)
}

// QueryContext implements querier.
func (w watching) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	w.saw(query)
	return w.querier.QueryContext(ctx, query, args...)
}

// QueryRowContext implements querier.
func (w watching) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	w.saw(query)
	return w.querier.QueryRowContext(ctx, query, args...)
}

type scanner interface{ Scan(dest ...any) error }

// list runs a query and scans each row.
func list[T any](ctx context.Context, db querier, scan func(scanner) (T, error), query string, args ...any) (out []T, err error) {
	_, pool := db.(patient)
	out, err = listOnce(ctx, db, scan, query, args...)
	for try := 0; err != nil && pool && stale(ctx, try, err); try++ {
		out, err = listOnce(ctx, db, scan, query, args...)
	}
	return out, err
}

func listOnce[T any](ctx context.Context, db querier, scan func(scanner) (T, error), query string, args ...any) (out []T, err error) {
	ctx, cancel := bounded(ctx, db)
	defer cancel()
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, reword("cannot look", "Try again in a moment.", fmt.Errorf("query: %w", err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("scan: %w", err)
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, reword("cannot look", "Try again in a moment.", fmt.Errorf("read rows: %w", err))
	}
	return out, nil
}

// one runs a query that finds one row; none is KindNotFound with the given words.
func one[T any](ctx context.Context, db querier, scan func(scanner) (T, error), missing, query string, args ...any) (T, error) {
	ctx, cancel := bounded(ctx, db)
	defer cancel()
	_, pool := db.(patient)
	v, err := scan(db.QueryRowContext(ctx, query, args...))
	for try := 0; err != nil && pool && stale(ctx, try, err); try++ {
		v, err = scan(db.QueryRowContext(ctx, query, args...))
	}
	if errors.Is(err, sql.ErrNoRows) {
		return v, &delivery.Error{Kind: delivery.KindNotFound, What: missing, Err: err}
	}
	if err != nil {
		return v, reword("cannot look", "Try again in a moment.", fmt.Errorf("query: %w", err))
	}
	return v, nil
}

// exec runs a statement and tells how many rows it touched.
func (t *Tx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := t.db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, fmt.Errorf("exec: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("rows affected: %w", err)
	}
	return n, nil
}

// must runs a statement that has to touch exactly one row; otherwise somebody
// else was first and the caller gets a conflict in the given words.
func (t *Tx) must(ctx context.Context, conflict, query string, args ...any) error {
	n, err := t.exec(ctx, query, args...)
	if err == nil && n != 1 {
		err = delivery.Errf(delivery.KindConflict, conflict, "it changed meanwhile")
	}
	return err
}

// next counts a counter up.
func (t *Tx) next(ctx context.Context, name string) (int64, error) {
	var v int64
	err := t.tx.QueryRowContext(ctx, `insert into counters (name, value) values ($1, 1)
		on conflict (name) do update set value = counters.value + 1 returning value`, name).Scan(&v)
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", name, err)
	}
	return v, nil
}

func scanInt(r scanner) (n int64, err error) { err = r.Scan(&n); return n, err }

func scanText(r scanner) (s string, err error) { err = r.Scan(&s); return s, err }

// micros is a time as the database keeps it.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// stamp scans microseconds into a time.
type stamp struct{ t *time.Time }

// Scan implements sql.Scanner.
func (s stamp) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("time is a %T, not an integer", v)
	}
	*s.t = time.Time{}
	if n != 0 {
		*s.t = time.UnixMicro(n).UTC()
	}
	return nil
}

// jsonText scans JSON text into v.
type jsonText struct{ v any }

// Scan implements sql.Scanner.
func (j jsonText) Scan(v any) error {
	switch b := v.(type) {
	case string:
		return json.Unmarshal([]byte(b), j.v)
	case []byte:
		return json.Unmarshal(b, j.v)
	default:
		return fmt.Errorf("JSON is a %T, not text", v)
	}
}

// toJSON writes a value that always marshals: strings, maps and slices of our own types.
func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("store: %T does not marshal: %v", v, err))
	}
	return string(b)
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

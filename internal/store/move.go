package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Moved is a table that was copied.
type Moved struct {
	Table  string `json:"table"`
	Rows   int    `json:"rows"`
	Digest string `json:"digest"` // SHA-256 over the sorted digests of its rows
}

// movedMeta marks a database whose rows were moved to another: no server works on it.
const movedMeta = "moved"

// MovedTo tells where the rows of this database were moved; "" when they were not.
func (s *Store) MovedTo(ctx context.Context) (string, error) { return s.Meta(ctx, movedMeta) }

// Move copies all rows to an empty database of the other kind, in one
// transaction there, reads them back, and compares counts and digests. Then it
// marks this one as moved. Nobody may write to either meanwhile. The queue's own
// entries stay behind: whoever looks after builds finds them without.
func (s *Store) Move(ctx context.Context, to *Store) ([]Moved, error) {
	lite := s
	if s.dialect.goose == to.dialect.goose {
		return nil, delivery.Errf(delivery.KindInvalid, "cannot move the rows", "one side must be a SQLite file and the other PostgreSQL; for the same kind use shunt backup, or pg_dump")
	}
	if s.dialect.goose != goose.DialectSQLite3 {
		lite = to
	}
	tables, err := lite.tables(ctx)
	if err != nil {
		return nil, err
	}
	if where, err := s.MovedTo(ctx); err != nil || where != "" {
		return nil, errors.Join(err, delivery.Errf(delivery.KindConflict, "cannot move the rows", "they were moved already: "+where))
	}
	opts := &sql.TxOptions{ReadOnly: true}
	if s.dialect.goose != goose.DialectSQLite3 {
		opts.Isolation = sql.LevelRepeatableRead // SQLite has nothing less
	}
	from, err := s.readers.BeginTx(ctx, opts)
	if err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	defer from.Rollback() //nolint:errcheck // it only reads
	var moved []Moved
	err = to.write(ctx, nil, func(ctx context.Context, tx *Tx) error { // as long as it takes: nothing waits for it
		for _, db := range []struct {
			*Store
			tx querier
		}{{s, from}, {to, tx.tx}} {
			if db.dialect.goose == goose.DialectPostgres {
				if _, err := db.tx.ExecContext(ctx, `set local idle_in_transaction_session_timeout = 0`); err != nil { // it idles while the other side is busy
					return fmt.Errorf("let the database wait: %w", err)
				}
			}
		}
		for _, t := range tables {
			n, err := one(ctx, tx.tx, scanInt, "", `select count(*) from `+t.name)
			if err != nil {
				return err
			}
			if n > 0 {
				return &delivery.Error{Kind: delivery.KindConflict, What: "cannot move the rows", Why: fmt.Sprintf("the target is not empty: table %s has %d rows", t.name, n), Next: "Name an empty database, or a file that does not exist."}
			}
		}
		for _, t := range tables {
			m, err := t.copy(ctx, from, tx.tx)
			if err != nil {
				return err
			}
			moved = append(moved, m)
		}
		for i, t := range tables {
			there, err := t.read(ctx, tx.tx, func([]any) error { return nil })
			if err != nil {
				return err
			}
			if there != moved[i] {
				return fmt.Errorf("table %s has %d rows with digest %s here and %d with %s there", t.name, moved[i].Rows, moved[i].Digest, there.Rows, there.Digest)
			}
		}
		if lite == s {
			if _, err := tx.tx.ExecContext(ctx, `analyze`); err != nil { // otherwise it plans as for empty tables until it does so by itself
				return fmt.Errorf("analyze the tables: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := from.Rollback(); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	where := "a SQLite file"
	if lite == s {
		where = "PostgreSQL"
	}
	return moved, s.Write(ctx, func(ctx context.Context, tx *Tx) error { return tx.SetMeta(ctx, movedMeta, where) })
}

// table is one of the schema's.
type table struct {
	name    string
	columns []string
	refers  []string // tables whose rows its rows name
}

// tables lists the schema's tables, each behind those that it refers to. SQLite's
// catalogue is asked; both databases have the same migrations.
func (s *Store) tables(ctx context.Context) (sorted []table, err error) {
	names, err := list(ctx, s.readers, scanText, `select name from sqlite_master where type = 'table'
		and name not like 'sqlite\_%' escape '\' and name not like 'river\_%' escape '\' and name <> 'goose_db_version' order by name`)
	if err != nil {
		return nil, err
	}
	var left []table
	for _, name := range names {
		t := table{name: name}
		if t.columns, err = list(ctx, s.readers, scanText, `select name from pragma_table_info($1) order by cid`, name); err != nil {
			return nil, err
		}
		if t.refers, err = list(ctx, s.readers, scanText, `select distinct "table" from pragma_foreign_key_list($1) where "table" <> $1`, name); err != nil {
			return nil, err
		}
		left = append(left, t)
	}
	for len(left) > 0 {
		i := slices.IndexFunc(left, func(t table) bool {
			return !slices.ContainsFunc(t.refers, func(name string) bool {
				return slices.ContainsFunc(left, func(o table) bool { return o.name == name })
			})
		})
		if i < 0 {
			return nil, fmt.Errorf("tables refer to each other in a circle: %v", left)
		}
		sorted = append(sorted, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return sorted, nil
}

func (t table) list() string { return `"` + strings.Join(t.columns, `","`) + `"` }

// read reads every row and digests it.
func (t table) read(ctx context.Context, db querier, each func([]any) error) (m Moved, err error) {
	m.Table = t.name
	rows, err := db.QueryContext(ctx, `select `+t.list()+` from `+t.name)
	if err != nil {
		return m, fmt.Errorf("read table %s: %w", t.name, err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var digests [][]byte
	for rows.Next() {
		values, to := make([]any, len(t.columns)), make([]any, len(t.columns))
		for i := range values {
			to[i] = &values[i]
		}
		if err := rows.Scan(to...); err != nil {
			return m, fmt.Errorf("read table %s: %w", t.name, err)
		}
		h := sha256.New()
		for i, v := range values {
			switch v := v.(type) {
			case int64, string:
				text := fmt.Sprint(v)
				fmt.Fprintf(h, "%T%d:%s,", v, len(text), text)
			default:
				return m, fmt.Errorf("read table %s: column %s holds a %T", t.name, t.columns[i], v)
			}
		}
		digests = append(digests, h.Sum(nil))
		if err := each(values); err != nil {
			return m, err
		}
	}
	if err := rows.Err(); err != nil {
		return m, fmt.Errorf("read table %s: %w", t.name, err)
	}
	slices.SortFunc(digests, bytes.Compare) // databases sort text differently
	all := sha256.Sum256(bytes.Join(digests, nil))
	m.Rows, m.Digest = len(digests), hex.EncodeToString(all[:])
	return m, nil
}

// copy copies every row.
func (t table) copy(ctx context.Context, from querier, to *sql.Tx) (m Moved, err error) {
	marks := make([]string, len(t.columns))
	for i := range marks {
		marks[i] = fmt.Sprintf("$%d", i+1)
	}
	query := fmt.Sprintf(`insert into %s (%s) values (%s)`, t.name, t.list(), strings.Join(marks, ",")) //nolint:gosec // names of our own schema
	insert, err := to.PrepareContext(ctx, query)
	if err != nil {
		return m, fmt.Errorf("write table %s: %w", t.name, err)
	}
	defer func() { err = errors.Join(err, insert.Close()) }()
	return t.read(ctx, from, func(values []any) error {
		if _, err := insert.ExecContext(ctx, values...); err != nil {
			return fmt.Errorf("write table %s: %w", t.name, err)
		}
		return nil
	})
}

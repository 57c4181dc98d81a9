package store

import (
	"context"
	"database/sql/driver"
	"errors"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// An I/O error of the writer's connection ends the process, whoever asked: the
// queue writes through it as well, and after a failed fsync the next one, of
// whomever, would report success. So the connection itself watches; errors that
// only a caller sees would be found too late.

// diskFailed tells an error of SQLite's disk.
func diskFailed(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_IOERR
}

// watchedDisk opens connections that watch.
type watchedDisk struct {
	driver driver.Driver
	dsn    string
	fatal  func(error)
}

// Connect implements driver.Connector.
func (w watchedDisk) Connect(context.Context) (driver.Conn, error) {
	c, err := w.driver.Open(w.dsn)
	if err != nil {
		return nil, w.judge(err)
	}
	full, ok := c.(fullConn)
	if !ok {
		return nil, errors.Join(errors.New("the SQLite driver has changed"), c.Close())
	}
	return &watchedConn{full, w}, nil
}

// Driver implements driver.Connector.
func (w watchedDisk) Driver() driver.Driver { return w.driver }

func (w watchedDisk) judge(err error) error {
	if diskFailed(err) {
		w.fatal(err)
	}
	return err
}

// fullConn is what the SQLite driver's connection can do and database/sql uses.
type fullConn interface {
	driver.Conn
	driver.Pinger
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

type watchedConn struct {
	fullConn
	w watchedDisk
}

// BeginTx implements driver.ConnBeginTx.
func (c *watchedConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	tx, err := c.fullConn.BeginTx(ctx, o)
	if err != nil {
		return nil, c.w.judge(err)
	}
	return watchedTx{tx, c.w}, nil
}

// ExecContext implements driver.ExecerContext.
func (c *watchedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	r, err := c.fullConn.ExecContext(ctx, query, args)
	return r, c.w.judge(err)
}

// QueryContext implements driver.QueryerContext.
func (c *watchedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	r, err := c.fullConn.QueryContext(ctx, query, args)
	if err != nil {
		return nil, c.w.judge(err)
	}
	return watchedRows{r, c.w}, nil
}

type watchedTx struct {
	driver.Tx
	w watchedDisk
}

// Commit implements driver.Tx.
func (t watchedTx) Commit() error { return t.w.judge(t.Tx.Commit()) }

// watchedRows watch because `returning` outside a transaction commits with its last row.
type watchedRows struct {
	driver.Rows
	w watchedDisk
}

// Next implements driver.Rows.
func (r watchedRows) Next(dest []driver.Value) error { return r.w.judge(r.Rows.Next(dest)) }

// Close implements driver.Rows.
func (r watchedRows) Close() error { return r.w.judge(r.Rows.Close()) }

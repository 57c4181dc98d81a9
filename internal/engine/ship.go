package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// logWriter copies one attempt's log for its driver, and ships it.
type logWriter struct {
	logs    *Logs
	id      string
	file    *os.File
	size    atomic.Int64 // bytes in the file
	indexed int64        // bytes when the index was last extended
	shipped int64        // the object store has all before this; -1: it was not asked yet
	stop    context.CancelFunc
	shipper sync.WaitGroup
}

// write takes up the log of an attempt where the file, or the object store, ends.
// Close ends it.
func (l *Logs) write(ctx context.Context, id string) (*logWriter, error) {
	k := l.know(id, 1)
	w := &logWriter{logs: l, id: id, shipped: -1, stop: func() {}}
	err := os.MkdirAll(l.dir, 0o750)
	if err == nil && l.remote != nil && !l.whole(id) {
		if err := l.sync(ctx, k, id, true); err != nil { // an object store that is away holds up nothing here
			l.log.Warn("cannot look for the beginning of a log", "job", id, "error", err)
		}
	}
	if err == nil {
		w.file, err = os.OpenFile(l.Path(id), os.O_CREATE|os.O_RDWR, 0o640) //nolint:gosec // ids are made of checked names
	}
	var end int64
	if err == nil {
		end, err = w.file.Seek(0, io.SeekEnd)
	}
	if err != nil {
		l.know(id, -1)
		return nil, fmt.Errorf("open log: %w", err)
	}
	w.size.Store(end)
	if l.remote != nil {
		ctx, w.stop = context.WithCancel(ctx)
		w.shipper.Go(func() { w.shipOn(ctx) })
	}
	return w, nil
}

// Write implements io.Writer.
func (w *logWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.size.Add(int64(n))
	return n, err //nolint:wrapcheck // an io.Writer
}

// index has the index follow the log, so that nobody who opens a long one waits
// for it. It is only a help: without it the log is as good.
func (w *logWriter) index(ctx context.Context, every int64) {
	size := w.size.Load()
	if size-w.indexed < every {
		return
	}
	w.indexed = size
	if _, err := w.logs.Index(ctx, w.file); err != nil {
		w.logs.log.Warn("cannot index a log", "job", w.id, "error", err)
	}
}

// shipOn ships what is new, once a second, until ctx ends. While the object store
// is away the log only waits in its file.
func (w *logWriter) shipOn(ctx context.Context) {
	tick := time.NewTicker(shipEvery)
	defer tick.Stop()
	var said bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := w.ship(ctx)
		if err != nil && !said && ctx.Err() == nil {
			w.logs.log.Warn("cannot ship a log now; it waits in its file", "job", w.id, "error", err)
		}
		said = err != nil
	}
}

// ship ships all that the file holds now, in chunks.
func (w *logWriter) ship(ctx context.Context) error {
	if w.shipped < 0 {
		chunks, err := w.logs.chunks(ctx, w.id)
		if err != nil {
			return err
		}
		w.shipped = 0
		for _, c := range chunks {
			if c.from <= w.shipped {
				w.shipped = max(w.shipped, c.from+c.size)
			}
		}
	}
	for size := w.size.Load(); w.shipped < size; {
		n := min(shipBytes, size-w.shipped)
		if err := w.logs.remote.Put(ctx, chunkKey(w.id, w.shipped), io.NewSectionReader(w.file, w.shipped, n), n, false); err != nil {
			return err
		}
		w.shipped += n
	}
	return nil
}

// finish makes the log durable, in the object store too, and returns when that
// has it all: only then may the attempt's result be saved. It waits for an object
// store that is away.
func (w *logWriter) finish(ctx context.Context) error {
	if err := errors.Join(w.file.Sync(), syncDir(w.logs.dir)); err != nil { // its bytes and its name
		return fmt.Errorf("keep log: %w", err)
	}
	w.index(ctx, 1)
	if w.logs.remote == nil || w.logs.whole(w.id) {
		return nil
	}
	w.stop()
	w.shipper.Wait()
	for wait := shipEvery; ; wait = min(2*wait, 15*time.Second) {
		err := w.seal(ctx)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		w.logs.log.Warn("a result waits until the log can be stored", "job", w.id, "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// seal writes the log as one object and removes the chunks.
func (w *logWriter) seal(ctx context.Context) error {
	size, remote := w.size.Load(), w.logs.remote
	have, err := remote.Stat(ctx, logKey(w.id))
	if errors.Is(err, fs.ErrNotExist) || err == nil && have.Size < size {
		err = remote.Put(ctx, logKey(w.id), io.NewSectionReader(w.file, 0, size), size, false)
	}
	if err != nil {
		return err
	}
	if have.Size <= size { // otherwise another driver has seen more of it
		if err := w.logs.markWhole(w.id, w.file); err != nil {
			return err
		}
	}
	chunks, err := w.logs.chunks(ctx, w.id)
	keys := make([]string, 0, len(chunks))
	for _, c := range chunks {
		keys = append(keys, chunkKey(w.id, c.from))
	}
	if err == nil && len(keys) > 0 {
		err = remote.Delete(ctx, keys...)
	}
	if err != nil { // they do no harm, and go with the log
		w.logs.log.Warn("cannot remove the chunks of a log", "job", w.id, "error", err)
	}
	return nil
}

// Close ends the writing; what is not shipped stays in the file.
func (w *logWriter) Close() error {
	w.stop()
	w.shipper.Wait()
	w.logs.know(w.id, -1)
	return w.file.Close() //nolint:wrapcheck // says what it is
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

// Logs keeps the logs of attempts. Whoever drives a build copies the runner's log
// to a file, at growing offsets; what an attempt's log holds at an offset is the
// same whoever copies it, so that two who copy do no harm.
//
// With an object store the file is a copy of this server. While the attempt runs,
// its driver ships chunks (logs/<attempt>/<offset, 16 digits>); before the result
// is saved all of it becomes one object, logs/<attempt>.log, and the chunks go.
// Another server extends its own file by what is there (Sync). A file that is the
// whole log has an empty file <attempt>.log.whole beside it and is never asked about again.
type Logs struct {
	dir    string
	remote *artifact.Objects // nil: the directory is all there is
	log    *slog.Logger

	mu    sync.Mutex
	known map[string]*knownLog
}

// knownLog is what this process does with a log.
type knownLog struct {
	writers int        // of this process; guarded by Logs.mu
	mu      sync.Mutex // held while the file is extended from the object store
	asked   time.Time  // when the object store was last asked
}

const (
	shipEvery  = time.Second
	shipBytes  = 1 << 20                // of a chunk, at most
	askEvery   = 500 * time.Millisecond // how often the object store is asked about one log, at most
	indexEvery = 64 << 20               // bytes that a log grows by before its index follows
	maxKnown   = 10_000                 // logs that are remembered while nobody writes them
)

// NewLogs keeps logs in a directory, and in an object store unless that is nil.
func NewLogs(dir string, remote *artifact.Objects, log *slog.Logger) *Logs {
	return &Logs{dir: dir, remote: remote, log: log, known: map[string]*knownLog{}}
}

// Path is the file of an attempt's log, whether it is there or not.
func (l *Logs) Path(id string) string { return filepath.Join(l.dir, id+".log") }

func (l *Logs) whole(id string) bool {
	_, err := os.Stat(l.Path(id) + ".whole")
	return err == nil
}

func logKey(id string) string               { return "logs/" + id + ".log" }
func chunkKey(id string, from int64) string { return fmt.Sprintf("logs/%s/%016d", id, from) }

func (l *Logs) know(id string, writers int) *knownLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.known[id]
	if k == nil {
		if len(l.known) > maxKnown {
			for other, k := range l.known {
				if k.writers == 0 {
					delete(l.known, other)
				}
			}
		}
		k = &knownLog{}
		l.known[id] = k
	}
	k.writers += writers
	return k
}

// Open opens a log for reading; one that has not begun is empty.
func (l *Logs) Open(id string) (*os.File, error) {
	if err := os.MkdirAll(l.dir, 0o750); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	f, err := os.OpenFile(l.Path(id), os.O_RDONLY|os.O_CREATE, 0o640) //nolint:gosec // ids are made of checked names
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// Index tells where the lines of an open log begin. It is kept beside the log; a
// lost or old one is made again from the log itself.
func (l *Logs) Index(ctx context.Context, log *os.File) (*runlog.Index, error) {
	info, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	file := log.Name() + ".index"
	kept, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the index of the log: %w", err)
	}
	x := runlog.DecodeIndex(kept, info.Size())
	grown, err := x.Extend(ctx, log, info.Size())
	if err != nil || !grown {
		return x, err //nolint:wrapcheck // says what it is
	}
	f, err := os.CreateTemp(l.dir, ".new-*")
	if err != nil {
		return nil, fmt.Errorf("keep the index of the log: %w", err)
	}
	_, err = f.Write(x.Encode())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the index of the log: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return x, nil
}

// Sync extends the file of a log by what the object store has more. It asks at
// most every half second; with now it asks in any case, unless this process
// writes the log itself or has the whole. An error of KindUnavailable says that
// the file may lack something.
func (l *Logs) Sync(ctx context.Context, id string, now bool) error {
	if l.remote == nil || l.whole(id) {
		return nil
	}
	k := l.know(id, 0)
	l.mu.Lock()
	writers := k.writers
	l.mu.Unlock()
	if writers > 0 {
		return nil
	}
	return l.sync(ctx, k, id, now)
}

func (l *Logs) sync(ctx context.Context, k *knownLog, id string, now bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	clock := delivery.SystemClock{} // paces requests; no rule depends on it
	if !now && clock.Now().Sub(k.asked) < askEvery {
		return nil
	}
	if err := os.MkdirAll(l.dir, 0o750); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	f, err := os.OpenFile(l.Path(id), os.O_WRONLY|os.O_CREATE, 0o640) //nolint:gosec // ids are made of checked names
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	whole, err := l.pull(ctx, id, f)
	if errors.Is(err, fs.ErrNotExist) { // chunks became one object meanwhile
		whole, err = l.pull(ctx, id, f)
	}
	if whole && err == nil {
		err = l.markWhole(id, f)
	}
	k.asked = clock.Now()
	return errors.Join(err, f.Close())
}

// pull appends what the object store has behind the end of f; whole tells that
// nothing comes after it.
func (l *Logs) pull(ctx context.Context, id string, f *os.File) (whole bool, err error) {
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, fmt.Errorf("extend log: %w", err)
	}
	if _, err = l.get(ctx, logKey(id), at, f); !errors.Is(err, fs.ErrNotExist) {
		return err == nil, err
	}
	chunks, err := l.chunks(ctx, id)
	if err != nil {
		return false, err
	}
	for _, c := range chunks {
		if c.from > at {
			break // written by somebody who has shipped what lies between; it comes
		}
		if c.from+c.size <= at {
			continue
		}
		n, err := l.get(ctx, chunkKey(id, c.from), at-c.from, f)
		if at += n; err != nil {
			return false, err
		}
	}
	return false, nil
}

func (l *Logs) get(ctx context.Context, key string, offset int64, to io.Writer) (int64, error) {
	body, err := l.remote.Get(ctx, key, offset)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(to, body)
	if err := errors.Join(err, body.Close()); err != nil {
		return n, fmt.Errorf("extend log: %w", err)
	}
	return n, nil
}

type chunk struct{ from, size int64 }

// chunks lists the chunks of a log, by offset.
func (l *Logs) chunks(ctx context.Context, id string) (out []chunk, err error) {
	objects, err := l.remote.List(ctx, "logs/"+id+"/")
	for _, o := range objects {
		if from, err := strconv.ParseInt(path.Base(o.Key), 10, 64); err == nil && o.Key == chunkKey(id, from) {
			out = append(out, chunk{from, o.Size})
		}
	}
	return out, err
}

// markWhole notes that f is the whole log, durably.
func (l *Logs) markWhole(id string, f *os.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("keep log: %w", err)
	}
	if err := os.WriteFile(l.Path(id)+".whole", nil, 0o640); err != nil { //nolint:gosec // as the log
		return fmt.Errorf("keep log: %w", err)
	}
	return nil
}

// Remove removes the logs of attempts, here and in the object store, and tells
// how many and how many bytes. dry only counts.
func (l *Logs) Remove(ctx context.Context, ids map[string]bool, dry bool) (n int, bytes int64, err error) {
	sizes, keys := map[string]int64{}, []string{}
	if l.remote != nil {
		objects, err := l.remote.List(ctx, "logs/")
		if err != nil {
			return 0, 0, err
		}
		for _, o := range objects {
			id, _, _ := strings.Cut(strings.TrimPrefix(o.Key, "logs/"), "/")
			if id = strings.TrimSuffix(id, ".log"); ids[id] {
				sizes[id] += o.Size
				keys = append(keys, o.Key)
			}
		}
	}
	for id := range ids {
		file := l.Path(id)
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if _, remote := sizes[id]; err == nil && !remote {
			sizes[id] = info.Size()
		}
		// The log goes last: what lies beside it is found by it.
		for _, f := range []string{file + ".index", file + ".whole", file} {
			if err == nil && !dry {
				err = os.Remove(f)
			}
			if errors.Is(err, fs.ErrNotExist) { // another server may remove the same
				err = nil
			}
		}
		if err != nil {
			return 0, 0, fmt.Errorf("remove log: %w", err)
		}
	}
	for _, size := range sizes {
		n, bytes = n+1, bytes+size
	}
	if dry || len(keys) == 0 {
		return n, bytes, nil
	}
	return n, bytes, l.remote.Delete(ctx, keys...)
}

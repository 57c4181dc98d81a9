package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// In an object store a blob is the object blobs/<sha256>. Removing one races with
// putting the same bytes again, as in a directory (see remove.go), but an object
// store has no rename. So who removes first writes a mark, removing/<sha256>, and
// only then looks how old the blob is; who puts looks, after the blob is written,
// first for the mark and then for the blob. A mark that comes after the look finds
// a fresh blob and keeps it; one that came and went before it has removed either
// an older blob or ours, which the second look tells.

const (
	// staleMark is when a mark is taken for the left-over of a remover that died.
	staleMark = 15 * time.Minute
	// removal is how long a remover may take; it is well below staleMark.
	removal     = 2 * time.Minute
	markWait    = 200 * time.Millisecond
	putTries    = 50
	removeTries = 5
)

func blobKey(sha string) string { return "blobs/" + sha }
func markKey(sha string) string { return "removing/" + sha }

// push writes a blob to the object store. It always writes, even when the object
// is there: that mends a spoiled one and makes an old one fresh, and costs less
// than to read it back.
func (s *Store) push(ctx context.Context, file, sha string, size int64) error {
	if s.Remote == nil {
		return nil
	}
	for range putTries {
		if err := s.pushOnce(ctx, file, sha, size); err != nil {
			return err
		}
		mark, err := s.Remote.Stat(ctx, markKey(sha))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case s.now().Sub(mark.Changed) < staleMark: // somebody removes it now
			if !pause(ctx) {
				return ctx.Err()
			}
			continue
		}
		blob, err := s.Remote.Stat(ctx, blobKey(sha))
		if err == nil && blob.Size == size {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return &delivery.Error{Kind: delivery.KindUnavailable, What: "cannot store artifact " + short(sha), Why: "the object store keeps losing it: somebody removes it"}
}

func (s *Store) pushOnce(ctx context.Context, file, sha string, size int64) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read from
	return s.Remote.Put(ctx, blobKey(sha), f, size, false)
}

// Has tells whether the store of record holds a blob, without reading it.
func (s *Store) Has(ctx context.Context, sha string) (bool, error) {
	path, err := s.Path(sha)
	if err == nil && s.Remote != nil {
		_, err = s.Remote.Stat(ctx, blobKey(sha))
	} else if err == nil {
		_, err = os.Stat(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// refetch tells whether what the cache says is worth asking the object store.
func (s *Store) refetch(err error) bool {
	return s.Remote != nil && (delivery.IsKind(err, delivery.KindNotFound) || errors.Is(err, ErrMismatch))
}

// fetch copies a blob from the object store into the directory, where it replaces
// one that the disk has spoiled. Bytes with another digest are ErrMismatch and
// never get there.
func (s *Store) fetch(ctx context.Context, sha string) error {
	object, err := s.Remote.Stat(ctx, blobKey(sha))
	if errors.Is(err, fs.ErrNotExist) {
		return missing(sha, err)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, transferTimeout(object.Size))
	defer cancel()
	body, err := s.Remote.Get(ctx, blobKey(sha), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return missing(sha, err)
	}
	if err != nil {
		return err
	}
	defer body.Close() //nolint:errcheck // only read from
	temp, err := os.CreateTemp(s.temp, "get-*")
	if err != nil {
		return fmt.Errorf("fetch artifact %s: %w", sha, err)
	}
	defer func() {
		_ = temp.Close()
		_ = os.Remove(temp.Name()) // after a rename there is nothing under this name
	}()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(onDisk{temp}, h), body)
	if disk, ok := errors.AsType[*diskError](err); ok {
		return fmt.Errorf("fetch artifact %s: %w", sha, disk.error)
	}
	if err != nil || n < object.Size {
		return s.Remote.explain("read "+blobKey(sha), errors.Join(err, io.ErrUnexpectedEOF))
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sha {
		return mismatch("cannot use artifact "+short(sha)+" of the object store", sha, got)
	}
	if err := errors.Join(temp.Chmod(0o440), temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("fetch artifact %s: %w", sha, err)
	}
	if err := s.place(ctx, temp.Name(), sha); err != nil {
		return fmt.Errorf("fetch artifact %s: %w", sha, err)
	}
	return nil
}

// onDisk tells a disk's error from that of the reader that is copied from.
type onDisk struct{ f *os.File }

type diskError struct{ error }

// Write implements io.Writer.
func (d onDisk) Write(p []byte) (int, error) {
	n, err := d.f.Write(p)
	if err != nil {
		err = &diskError{err}
	}
	return n, err
}

// removeRemote removes a blob of the object store that nobody has put since a
// time. removed is false when somebody has, or when it was not there.
func (s *Store) removeRemote(ctx context.Context, sha string, since time.Time) (size int64, removed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, removal)
	defer cancel()
	if err := s.Remote.Put(ctx, markKey(sha), http.NoBody, 0, false); err != nil {
		return 0, false, err
	}
	for range removeTries { // an answer may be lost, and some stores stumble over a put at the same time
		var object Object
		if object, err = s.Remote.Stat(ctx, blobKey(sha)); err == nil && object.Changed.Before(since) {
			size, err = object.Size, s.Remote.Delete(ctx, blobKey(sha))
			removed = err == nil
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			// A remover that does not know how it ended leaves its mark until that is stale.
			if err = s.Remote.Delete(ctx, markKey(sha)); err == nil {
				return size, removed, nil
			}
		}
		if !pause(ctx) {
			break
		}
	}
	return size, removed, err
}

func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(markWait):
		return true
	}
}

func (s *Store) now() time.Time { return delivery.SystemClock{}.Now() }

func seekStart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return err
}

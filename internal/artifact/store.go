package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// ErrMismatch says that bytes are not the ones that their digest promises.
var ErrMismatch = errors.New("artifact: the bytes do not match their SHA-256")

// staleTemp is the age at which a temporary file is taken for the left-over of
// a killed process. It is long because other servers may share the directory.
const staleTemp = 24 * time.Hour

// Store keeps blobs in a directory: dir/sha256/ab/abcdef... A blob is written
// under a temporary name, synced and renamed, so a name that exists is whole.
// Many processes may use one directory.
//
// With Remote, the blobs are in an object store and the directory is a cache of
// this server: what is put is acknowledged when the object store has it, what is
// missing is fetched and its digest compared. See remote.go.
type Store struct {
	Remote      *Objects // nil: the directory is all there is
	blobs, temp string
}

// NewStore opens the blob store in dir and makes the directory if need be.
func NewStore(dir string) (*Store, error) {
	s := &Store{blobs: filepath.Join(dir, "sha256"), temp: filepath.Join(dir, "tmp")}
	for _, d := range []string{s.blobs, s.temp} {
		if err := os.MkdirAll(d, 0o750); err != nil {
			return nil, fmt.Errorf("open artifact store: %w", err)
		}
	}
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(filepath.Clean(dir)))); err != nil {
		return nil, fmt.Errorf("open artifact store: %w", err)
	}
	if err := s.returnTaken(); err != nil {
		return nil, err
	}
	s.sweep(delivery.SystemClock{}.Now().Add(-staleTemp))
	return s, nil
}

// sweep removes temporary files last written before a time. It is tidying: what
// it cannot remove today stays for the next start.
func (s *Store) sweep(before time.Time) {
	entries, err := os.ReadDir(s.temp)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
			_ = os.Remove(filepath.Join(s.temp, e.Name()))
		}
	}
}

// Put stores what r holds and returns its SHA-256 (64 lower-case hex digits)
// and its size in bytes. It returns when the blob would survive a power loss.
func (s *Store) Put(ctx context.Context, r io.Reader) (sha string, size int64, err error) {
	return s.put(ctx, r, "")
}

// PutFile stores the regular file at path, which must have the digest wantSHA;
// otherwise the error is ErrMismatch and nothing is stored. A symbolic link in
// the last element of path is refused: a job must not make the server read
// another file. It returns the size in bytes.
func (s *Store) PutFile(ctx context.Context, path, wantSHA string) (size int64, err error) {
	if !validSHA(wantSHA) {
		return 0, invalidSHA(wantSHA)
	}
	// O_NONBLOCK keeps a named pipe from holding us for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, fmt.Errorf("store artifact: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("store artifact: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, delivery.Errf(delivery.KindInvalid, "cannot store artifact "+clean(filepath.Base(path), 100), "it is not a regular file")
	}
	_, size, err = s.put(ctx, f, wantSHA)
	return size, err
}

// put stores r under its digest, which must be want unless want is empty.
func (s *Store) put(ctx context.Context, r io.Reader, want string) (sha string, size int64, err error) {
	temp, err := os.CreateTemp(s.temp, "put-*")
	if err != nil {
		return "", 0, fmt.Errorf("store artifact: %w", err)
	}
	defer func() {
		_ = temp.Close()
		_ = os.Remove(temp.Name()) // after a rename there is nothing under this name
	}()
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(temp, h), ctxReader{ctx, r})
	if err != nil {
		return "", 0, fmt.Errorf("store artifact: %w", err)
	}
	sha = hex.EncodeToString(h.Sum(nil))
	if want != "" && sha != want {
		return "", 0, mismatch("cannot store artifact", want, sha)
	}
	if err := errors.Join(temp.Chmod(0o440), temp.Sync(), temp.Close()); err != nil {
		return "", 0, fmt.Errorf("store artifact %s: %w", sha, err)
	}
	if err := s.push(ctx, temp.Name(), sha, size); err != nil {
		return "", 0, fmt.Errorf("store artifact %s: %w", sha, err)
	}
	if err := s.place(ctx, temp.Name(), sha); err != nil {
		return "", 0, fmt.Errorf("store artifact %s: %w", sha, err)
	}
	return sha, size, nil
}

// place moves a synced temporary file to its blob's name. A blob that is there
// and whole is kept; one that the disk has spoiled is replaced.
func (s *Store) place(ctx context.Context, temp, sha string) error {
	dir := filepath.Join(s.blobs, sha[:2])
	switch err := os.Mkdir(dir, 0o750); {
	case err == nil:
		if err := syncDir(s.blobs); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrExist):
		return err
	}
	blob := filepath.Join(dir, sha)
	if err := touch(blob, delivery.SystemClock{}.Now()); err != nil { // see Remove
		return err
	}
	if err := s.copyLocal(ctx, sha, io.Discard); err != nil {
		if err := os.Rename(temp, blob); err != nil {
			return err
		}
	}
	// Also for a blob that was there: the one who renamed it may not have
	// synced yet. If the sync fails the name may vanish, and a second sync would
	// lie, so the blob goes.
	if err := syncDir(dir); err != nil {
		return errors.Join(err, os.Remove(blob))
	}
	return nil
}

// Path is the file name of a blob, whether it is there or not.
func (s *Store) Path(sha string) (string, error) {
	if !validSHA(sha) {
		return "", invalidSHA(sha)
	}
	return filepath.Join(s.blobs, sha[:2], sha), nil
}

// Open opens a blob for reading and returns its size in bytes. It does not
// check the bytes; Verify and Materialize do. A missing blob is KindNotFound.
// With Remote, it is KindUnavailable when the object store cannot be asked.
func (s *Store) Open(ctx context.Context, sha string) (*os.File, int64, error) {
	f, size, err := s.openLocal(sha)
	if s.Remote != nil && delivery.IsKind(err, delivery.KindNotFound) {
		if err := s.fetch(ctx, sha); err != nil {
			return nil, 0, err
		}
		return s.openLocal(sha)
	}
	return f, size, err
}

func (s *Store) openLocal(sha string) (*os.File, int64, error) {
	path, err := s.Path(sha)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, missing(sha, err)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open artifact %s: %w", sha, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open artifact %s: %w", sha, err), f.Close())
	}
	return f, info.Size(), nil
}

// Verify reads a blob again and compares its digest. A missing blob is
// KindNotFound, a changed one is ErrMismatch; both are *delivery.Error.
func (s *Store) Verify(ctx context.Context, sha string) error {
	err := s.copyLocal(ctx, sha, io.Discard)
	if s.refetch(err) {
		return s.fetch(ctx, sha) // which compares
	}
	return err
}

// copyLocal copies a blob of the directory and compares its digest.
func (s *Store) copyLocal(ctx context.Context, sha string, w io.Writer) error {
	f, _, err := s.openLocal(sha)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read from
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, h), ctxReader{ctx, f}); err != nil {
		return fmt.Errorf("read artifact %s: %w", sha, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sha {
		return mismatch("cannot use artifact "+short(sha), sha, got)
	}
	return nil
}

// Materialize copies a blob to the file dest and verifies it on the way. It is
// never a link, because a job may write to the file. Bytes that fail the check
// never appear under the name dest, and a link at dest is replaced, not followed.
func (s *Store) Materialize(ctx context.Context, sha, dest string) error {
	temp, err := os.CreateTemp(filepath.Dir(dest), ".shunt-artifact-*")
	if err != nil {
		return fmt.Errorf("materialize artifact: %w", err)
	}
	defer func() {
		_ = temp.Close()
		_ = os.Remove(temp.Name())
	}()
	err = s.copyLocal(ctx, sha, temp)
	if s.refetch(err) {
		if err := s.fetch(ctx, sha); err != nil {
			return err
		}
		if err := errors.Join(temp.Truncate(0), seekStart(temp)); err != nil {
			return fmt.Errorf("materialize artifact %s: %w", sha, err)
		}
		err = s.copyLocal(ctx, sha, temp)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(temp.Chmod(0o644), temp.Close()); err != nil {
		return fmt.Errorf("materialize artifact %s: %w", sha, err)
	}
	if err := os.Rename(temp.Name(), dest); err != nil {
		return fmt.Errorf("materialize artifact %s: %w", sha, err)
	}
	return nil
}

func validSHA(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func invalidSHA(s string) error {
	return delivery.Errf(delivery.KindInvalid, "cannot use artifact", fmt.Sprintf("%q is not a SHA-256 of 64 lower-case hex digits", clean(s, 80)))
}

func missing(sha string, err error) error {
	return &delivery.Error{Kind: delivery.KindNotFound, What: "cannot open artifact " + short(sha), Why: "the store does not hold it", Err: err}
}

func mismatch(what, want, got string) error {
	return &delivery.Error{
		Kind: delivery.KindConflict, What: what,
		Why: "its bytes have SHA-256 " + short(got) + ", not the recorded " + short(want),
		Err: ErrMismatch,
	}
}

// short is a digest as people read it: 9b1f2a...c044.
func short(sha string) string {
	if len(sha) != 64 {
		return sha
	}
	return sha[:6] + "..." + sha[60:]
}

// syncDir makes renames in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ctxReader stops a long copy when its context ends.
type ctxReader struct {
	ctx context.Context //nolint:containedctx // lives for one io.Copy
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

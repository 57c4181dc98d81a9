package artifact_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
)

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func newStore(t *testing.T) (*artifact.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := artifact.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

func put(t *testing.T, s *artifact.Store, content string) string {
	t.Helper()
	sha, size, err := s.Put(t.Context(), strings.NewReader(content))
	if err != nil || sha != digest(content) || size != int64(len(content)) {
		t.Fatalf("Put: %s, %d, %v", sha, size, err)
	}
	return sha
}

// left counts temporary files.
func left(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestStoreKeepsBlobs(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	sha := put(t, s, "bytes")
	put(t, s, "bytes") // a second time is the same blob
	put(t, s, "")
	f, size, err := s.Open(t.Context(), sha)
	if err != nil || size != 5 {
		t.Fatalf("Open: %d, %v", size, err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || string(got) != "bytes" {
		t.Errorf("read %q, %v", got, err)
	}
	if path, err := s.Path(sha); err != nil || path != filepath.Join(dir, "sha256", sha[:2], sha) {
		t.Errorf("Path: %s, %v", path, err)
	}
	if err := s.Verify(t.Context(), sha); err != nil {
		t.Error(err)
	}
	if n := left(t, dir); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestStoreRefusesWhatIsNoDigest(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	for _, bad := range []string{"", "abc", "../../etc/passwd", strings.Repeat("A", 64), strings.Repeat("g", 64), strings.Repeat("a", 65), strings.Repeat("a", 63) + "\x00", strings.Repeat("/", 64)} {
		_, err := s.Path(bad)
		_, _, open := s.Open(t.Context(), bad)
		_, file := s.PutFile(t.Context(), os.DevNull, bad)
		for _, err := range []error{err, open, file, s.Verify(t.Context(), bad), s.Materialize(t.Context(), bad, filepath.Join(t.TempDir(), "x"))} {
			if !delivery.IsKind(err, delivery.KindInvalid) {
				t.Errorf("%q: %v", bad, err)
			}
		}
	}
}

func TestStoreMissingBlob(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	if err := s.Verify(t.Context(), digest("nothing")); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Errorf("got %v", err)
	}
}

// T65: bytes that changed in the store are found before they are used.
func TestT65ChangedBlobIsNotUsed(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	sha := put(t, s, "bytes")
	path, _ := s.Path(sha)
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("bytez"), 0o600); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), "app")
	for _, err := range []error{s.Verify(t.Context(), sha), s.Materialize(t.Context(), sha, dest)} {
		if e, ok := errors.AsType[*delivery.Error](err); !ok || e.Kind != delivery.KindConflict || !errors.Is(err, artifact.ErrMismatch) {
			t.Errorf("got %v", err)
		}
	}
	if entries, err := os.ReadDir(filepath.Dir(dest)); err != nil || len(entries) != 0 {
		t.Errorf("spoiled bytes got out: %v, %v", entries, err)
	}
	put(t, s, "bytes") // good bytes mend it
	if err := s.Verify(t.Context(), sha); err != nil {
		t.Error(err)
	}
	if n := left(t, dir); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestPutFile(t *testing.T) {
	t.Parallel()
	s, store := newStore(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "app.tar.gz")
	if err := os.WriteFile(file, []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if size, err := s.PutFile(t.Context(), file, digest("bytes")); err != nil || size != 5 {
		t.Errorf("got %d, %v", size, err)
	}
	if _, err := s.PutFile(t.Context(), file, digest("other")); !errors.Is(err, artifact.ErrMismatch) {
		t.Errorf("got %v, want ErrMismatch", err)
	}
	if err := s.Verify(t.Context(), digest("other")); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Errorf("a mismatch was stored: %v", err)
	}
	// T63: only regular files; not what a link points to, and no waiting for a pipe.
	link, pipe := filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.Symlink(file, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, pipe, dir, os.DevNull, filepath.Join(dir, "missing")} {
		if _, err := s.PutFile(t.Context(), path, digest("bytes")); err == nil {
			t.Errorf("%s was stored", path)
		}
	}
	if n := left(t, store); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestPutThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	broken := io.MultiReader(strings.NewReader("by"), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, _, err := s.Put(t.Context(), broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := s.Put(ctx, strings.NewReader("bytes")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := left(t, dir); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

func TestMaterializeIsACopy(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	sha := put(t, s, "bytes")
	dir := t.TempDir()
	secret, dest := filepath.Join(dir, "secret"), filepath.Join(dir, "app")
	if err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o600), os.Symlink(secret, dest)); err != nil {
		t.Fatal(err)
	}
	if err := s.Materialize(t.Context(), sha, dest); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dest, []byte("a job wrote"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), sha); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		t.Errorf("a link at the destination was followed: %q, %v", got, err)
	}
}

func TestManyPutAtOnce(t *testing.T) {
	t.Parallel()
	s, dir := newStore(t)
	other, err := artifact.NewStore(dir) // as another server would
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			one := []*artifact.Store{s, other}[i%2]
			if _, _, err := one.Put(t.Context(), strings.NewReader("bytes")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := s.Verify(t.Context(), digest("bytes")); err != nil {
		t.Error(err)
	}
}

func TestOldTemporaryFilesAreSwept(t *testing.T) {
	t.Parallel()
	_, dir := newStore(t)
	stale, young := filepath.Join(dir, "tmp", "put-1"), filepath.Join(dir, "tmp", "put-2")
	then := time.Now().Add(-48 * time.Hour)
	if err := errors.Join(os.WriteFile(stale, nil, 0o600), os.WriteFile(young, nil, 0o600), os.Chtimes(stale, then, then)); err != nil {
		t.Fatal(err)
	}
	if _, err := artifact.NewStore(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the stale file: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("the young file: %v", err)
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"SHUNT_BUILD": "43", "SHUNT_VERSION": "1.0", "X": "$SHUNT_BUILD", "UP": "..", "CR": "a\r\nb"}
	for in, want := range map[string]string{
		"org.example:petstore:1.0.$SHUNT_BUILD:tar.gz": "org.example:petstore:1.0.43:tar.gz",
		"${SHUNT_BUILD}0/$SHUNT_VERSION":               "430/1.0", "": "", "plain": "plain", "$X": "$SHUNT_BUILD", "a..b": "a..b",
	} {
		if got, err := artifact.Expand(in, vars); err != nil || got != want {
			t.Errorf("%q: got %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"$NOPE", "${SHUNT_BUILD", "$", "a$ b", "$$SHUNT_BUILD", "$(id)", "${}", "../x", "a/$UP/b", `a\..\b`, "$CR", "a\x00b", "\xff", "$SHUNT_BUILDX"} {
		if got, err := artifact.Expand(bad, vars); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%q: got %q, %v", bad, got, err)
		}
	}
}

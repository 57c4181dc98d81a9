package artifact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/s3"
)

// remoteStore is a server's store: a directory of its own, one bucket for all.
func remoteStore(t *testing.T, server *s3.Server) *Store {
	t.Helper()
	s, err := NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s.Remote = openObjects(t, server, "p")
	return s
}

func mustPut(t *testing.T, s *Store, text string) string {
	t.Helper()
	sha, _, err := s.Put(t.Context(), strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return sha
}

func readBlob(s *Store, sha string) (string, error) {
	f, _, err := s.Open(context.Background(), sha)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

// What one server puts, another reads; what the bucket or a cache has spoiled is
// never served; what one removes is gone for all.
func TestTwoStoresShareABucket(t *testing.T) {
	t.Parallel()
	server := s3.Start(t)
	a, b, ctx := remoteStore(t, server), remoteStore(t, server), t.Context()
	sha := mustPut(t, a, "the shop")
	if got, err := readBlob(b, sha); got != "the shop" {
		t.Fatalf("another server reads %q %v", got, err)
	}
	if _, err := readBlob(b, strings.Repeat("0", 64)); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Errorf("nobody has put it: %v", err)
	}
	cached, _ := b.Path(sha)
	spoil(t, cached, "the disc")
	dest := filepath.Join(t.TempDir(), "x")
	if err := b.Materialize(ctx, sha, dest); err != nil {
		t.Error(err)
	} else if got, _ := os.ReadFile(dest); string(got) != "the shop" {
		t.Errorf("materialized %q", got)
	}
	spoil(t, cached, "the disc")
	if err := b.Verify(ctx, sha); err != nil {
		t.Errorf("a spoiled cache is mended: %v", err)
	}

	// Wrong bytes in the bucket.
	object := filepath.Join(server.Dir, "p", "blobs", sha)
	spoil(t, object, "the chop")
	c := remoteStore(t, server)
	if _, err := readBlob(c, sha); !errors.Is(err, ErrMismatch) {
		t.Errorf("wrong bytes: %v", err)
	}
	if err := errors.Join(c.Verify(ctx, sha)); !errors.Is(err, ErrMismatch) {
		t.Errorf("wrong bytes: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Join(c.blobs, sha[:2])); len(entries) > 0 {
		t.Error("wrong bytes are in the cache")
	}
	mustPut(t, a, "the shop") // mends the bucket, though a's own copy was whole
	if got, err := readBlob(c, sha); got != "the shop" {
		t.Errorf("put again, it reads %q %v", got, err)
	}
	if err := os.Remove(object); err != nil {
		t.Fatal(err)
	}
	mustPut(t, a, "the shop") // a local copy proves nothing
	if _, err := os.Stat(object); err != nil {
		t.Error(err)
	}

	if _, removed, err := b.Remove(ctx, sha, time.Now().Add(-time.Hour)); removed || err != nil {
		t.Errorf("a fresh blob is removed: %v %v", removed, err)
	}
	if size, removed, err := b.Remove(ctx, sha, time.Now().Add(time.Hour)); !removed || size != 8 || err != nil {
		t.Errorf("removed: %v %d %v", removed, size, err)
	}
	if has, err := a.Has(ctx, sha); has || err != nil {
		t.Errorf("it is still there: %v %v", has, err)
	}
	all, err := a.All(ctx)
	if err != nil || len(all) != 1 || all[sha].Size != 8 { // a's cache
		t.Errorf("%v %v", all, err)
	}
	if left, err := a.Remote.List(ctx, ""); err != nil || len(left) != 0 {
		t.Errorf("left in the bucket: %v %v", left, err)
	}
}

func spoil(t *testing.T, file, text string) {
	t.Helper()
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// A blob that was acknowledged is there, however many put and remove it at once.
func TestRemovingRacesWithPutting(t *testing.T) {
	t.Parallel()
	server := s3.Start(t)
	stores := []*Store{remoteStore(t, server), remoteStore(t, server), remoteStore(t, server)}
	ctx := t.Context()
	sha := mustPut(t, stores[0], "again and again")
	for range 8 {
		// An old one, which removers may take; whatever is put from now on is younger.
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(server.Dir, "p", "blobs", sha), old, old); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, _, err := stores[0].Remove(ctx, sha, time.Now().Add(-time.Minute)); err != nil {
				t.Error(err)
			}
		})
		for _, s := range stores {
			wg.Go(func() {
				_, _, err := s.Put(ctx, strings.NewReader("again and again"))
				if has, look := s.Has(ctx, sha); err != nil || look != nil || !has {
					t.Errorf("put %v, and then it is there: %v %v", err, has, look)
				}
			})
		}
		wg.Wait()
	}
}

// A store that is down is said so, and loses nothing.
func TestObjectStoreDown(t *testing.T) {
	t.Parallel()
	server := s3.Start(t)
	a, b, ctx := remoteStore(t, server), remoteStore(t, server), t.Context()
	held := mustPut(t, a, "held")
	server.Kill()
	_, _, err := a.Put(ctx, strings.NewReader("new"))
	if !delivery.IsKind(err, delivery.KindUnavailable) {
		t.Errorf("put: %v", err)
	}
	if got, err := readBlob(a, held); got != "held" { // the cache serves
		t.Errorf("%q %v", got, err)
	}
	if err := a.Verify(ctx, held); err != nil {
		t.Error(err)
	}
	for _, err := range []error{b.Verify(ctx, held), b.Materialize(ctx, held, filepath.Join(t.TempDir(), "x"))} {
		if !delivery.IsKind(err, delivery.KindUnavailable) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("read: %v", err)
		}
	}
	server.Run()
	if got, err := readBlob(b, mustPut(t, a, "new")); got != "new" {
		t.Errorf("%q %v", got, err)
	}
}

// The built-in repository is one for all servers, and write-once.
func TestFilesInAnObjectStore(t *testing.T) {
	t.Parallel()
	server := s3.Start(t)
	ctx := t.Context()
	publisher := func() (Publisher, *Files) {
		files := &Files{Dir: t.TempDir(), Store: remoteStore(t, server)}
		p, err := NewPublisher(Target{Kind: KindFiles, Directory: "shop/43"}, nil, files)
		if err != nil {
			t.Fatal(err)
		}
		return p, files
	}
	item := func(s *Store, text string) Item {
		sha := mustPut(t, s, text)
		return Item{Name: "app", File: "app.tar.gz", SHA256: sha, Size: int64(len(text)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte(text))), nil }}
	}
	p, files := publisher()
	q, others := publisher()
	if err := p.Preflight(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(ctx, item(files.Store, "one")); err != nil {
		t.Fatal(err)
	}
	if r, found, err := q.Probe(ctx, item(others.Store, "one")); err != nil || !found {
		t.Errorf("another server sees %v %v %v", r, found, err)
	}
	if _, err := q.Publish(ctx, item(others.Store, "one")); err != nil {
		t.Errorf("the same bytes: %v", err)
	}
	_, err := q.Publish(ctx, item(others.Store, "two"))
	if e, ok := errors.AsType[*PublishError](err); !ok || e.Outcome != OutcomeRefused || e.Temporary {
		t.Errorf("other bytes: %v", err)
	}
	list, err := others.List(ctx, "shop/43")
	if err != nil || len(list) != 1 || list[0].Name != "app" || list[0].Size != 3 {
		t.Errorf("%+v %v", list, err)
	}
	if got, err := others.Get(ctx, "shop/43", "app"); err != nil || got != list[0] {
		t.Errorf("%+v %v", got, err)
	}
	if _, err := others.Get(ctx, "shop/43", "none"); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Errorf("%v", err)
	}
	one := item(files.Store, "one")
	server.Kill()
	if e, ok := errors.AsType[*PublishError](p.Preflight(ctx)); !ok || !e.Temporary {
		t.Errorf("preflight of a store that is down: %v", e)
	}
	if e, ok := errors.AsType[*PublishError](func() error { _, err := p.Publish(ctx, one); return err }()); !ok || e.Outcome != OutcomeUnknown {
		t.Errorf("publish to a store that is down: %v", e)
	}
}

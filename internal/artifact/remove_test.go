package artifact

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestRemove(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	sha, _, err := s.Put(t.Context(), strings.NewReader("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	path, err := s.Path(sha)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	remove := func(want bool) {
		t.Helper()
		if _, removed, err := s.Remove(t.Context(), sha, old.Add(time.Minute)); removed != want || err != nil {
			t.Fatalf("removed %v, %v; want %v", removed, err, want)
		}
	}
	remove(false) // it is young
	if err := s.Verify(t.Context(), sha); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Put(t.Context(), strings.NewReader("bytes")); err != nil {
		t.Fatal(err)
	}
	remove(false) // it was put again
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	remove(true)
	remove(false) // it is gone
	// What a process that died had taken comes back.
	if err := os.WriteFile(filepath.Join(dir, "tmp", takenPrefix+sha), []byte("bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = NewStore(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), sha); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Remove(t.Context(), "../../etc/passwd", old); err == nil {
		t.Error("a path was taken for a digest")
	}
}

// Whatever the order, bytes that were put after the last look are there.
func TestRemoveRacesWithPut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	for range 200 {
		sha, _, err := s.Put(t.Context(), strings.NewReader("same"))
		if err != nil {
			t.Fatal(err)
		}
		path, _ := s.Path(sha)
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() {
			if _, _, err := s.Remove(t.Context(), sha, old.Add(time.Minute)); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			if _, _, err := s.Put(t.Context(), strings.NewReader("same")); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		if err := s.Verify(t.Context(), sha); err != nil {
			t.Fatal(err)
		}
	}
}

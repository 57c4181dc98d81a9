package artifact_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/artifact"
	"github.com/shuntcd/shunt/internal/delivery"
)

// shelf is a plain HTTP server that takes PUT.
type shelf struct {
	mu      sync.Mutex
	files   map[string]string
	obeys   bool // If-None-Match
	after   int  // status after storing; 0: 201
	noReads bool
	puts    int
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if u, p, _ := r.BasicAuth(); u != "ci" || p != secret {
		http.Error(w, "who are you, "+u+" "+p+" "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	content, exists := s.files[r.URL.Path]
	switch {
	case r.Method == http.MethodPut:
		s.puts++
		if s.obeys && exists && r.Header.Get("If-None-Match") == "*" {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || r.ContentLength < 0 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.files[r.URL.Path] = string(body)
		w.WriteHeader(max(s.after, http.StatusCreated))
	case s.noReads:
		w.WriteHeader(http.StatusForbidden)
	case !exists:
		w.WriteHeader(http.StatusNotFound)
	default:
		_, _ = io.WriteString(w, content)
	}
}

func newShelf(t *testing.T, s *shelf) artifact.Target {
	t.Helper()
	s.files = map[string]string{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return artifact.Target{Kind: artifact.KindRaw, URL: server.URL + "/drop/", User: "ci", Password: secret}
}

func TestRawPut(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	target := newShelf(t, s)
	target.Directory = "petstore/43"
	p := publisher(t, target)
	if err := p.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := artifact.Receipt{URL: target.URL + "petstore/43/petstore.tar.gz", SHA256: digest("bytes")}
	for range 2 { // the second finds it
		if got, err := p.Publish(t.Context(), item("bytes")); err != nil || got != want {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	if diff := cmp.Diff(map[string]string{"/drop/petstore/43/petstore.tar.gz": "bytes"}, s.files); diff != "" || s.puts != 1 {
		t.Errorf("%d puts, %s", s.puts, diff)
	}
	if _, err := p.Publish(t.Context(), item("other")); outcome(t, err) != artifact.OutcomeRefused || s.files["/drop/petstore/43/petstore.tar.gz"] != "bytes" {
		t.Errorf("overwritten: %v", err)
	}
	target.URL, target.Directory = strings.TrimSuffix(target.URL, "/drop/")+"/one.bin", ""
	if _, err := publisher(t, target).Publish(t.Context(), item("")); err != nil || s.files["/one.bin"] != "" {
		t.Errorf("a full address and an empty file: %v, %v", err, s.files)
	}
}

func TestRawWriteOnlyAndPrecondition(t *testing.T) {
	t.Parallel()
	s := &shelf{obeys: true, noReads: true}
	p := publisher(t, newShelf(t, s))
	if _, err := p.Publish(t.Context(), item("bytes")); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), item("bytes")); outcome(t, err) != artifact.OutcomeUnknown {
		t.Errorf("412 that cannot be looked up: %v", err)
	}
	if s.files["/drop/petstore.tar.gz"] != "bytes" {
		t.Error("overwritten")
	}
}

func TestRawServerErrorIsUnknown(t *testing.T) {
	t.Parallel()
	for _, status := range []int{500, 502, 503, 504} {
		s := &shelf{after: status}
		p := publisher(t, newShelf(t, s))
		_, err := p.Publish(t.Context(), item("bytes"))
		if outcome(t, err) != artifact.OutcomeUnknown {
			t.Errorf("%d: %v", status, err)
		}
		if _, found, err := p.Probe(t.Context(), item("bytes")); !found || err != nil {
			t.Errorf("%d: %v, %v", status, found, err)
		}
	}
}

func TestRawPasswordIsNotTold(t *testing.T) {
	t.Parallel()
	target := newShelf(t, &shelf{})
	target.User = "somebody"
	p := publisher(t, target)
	_, err := p.Publish(t.Context(), item("bytes")) // the server's answer repeats it
	if outcome(t, err) != artifact.OutcomeRefused || !strings.Contains(err.Error(), "who are you, somebody ***") || strings.Contains(err.Error(), "Basic c29") {
		t.Errorf("got %v", err)
	}
	if err := p.Preflight(t.Context()); outcome(t, err) != artifact.OutcomeRefused {
		t.Errorf("got %v", err)
	}
}

// T72: an upload follows no redirect. T73: an answer that never ends is cut.
func TestRawHostileServer(t *testing.T) {
	t.Parallel()
	var inside atomic.Int64
	private := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	defer private.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/redirect/"):
			http.Redirect(w, r, private.URL, http.StatusTemporaryRedirect)
		case r.Method == http.MethodPut:
			w.WriteHeader(http.StatusBadRequest)
			for line := strings.Repeat("endless ", 1000); ; {
				if _, err := io.WriteString(w, line); err != nil {
					return
				}
			}
		case strings.HasPrefix(r.URL.Path, "/long/"): // reading back more than we gave
			for line := strings.Repeat("endless ", 1000); ; {
				if _, err := io.WriteString(w, line); err != nil {
					return
				}
			}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, c := range []struct{ path, words string }{
		{"/redirect/", "redirect"}, {"/endless/", "endless endless"}, {"/long/", "holds other bytes"},
	} {
		_, err := publisher(t, artifact.Target{Kind: "raw", URL: server.URL + c.path}).Publish(ctx, item("bytes"))
		if outcome(t, err) != artifact.OutcomeRefused || !strings.Contains(err.Error(), c.words) || len(err.Error()) > 1000 {
			t.Errorf("%s: %.2000v", c.path, err)
		}
	}
	if inside.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

func TestFilesPublisher(t *testing.T) {
	t.Parallel()
	store, dir := newStore(t)
	files := &artifact.Files{Dir: filepath.Join(dir, "published"), Store: store}
	p, err := artifact.NewPublisher(artifact.Target{Kind: artifact.KindFiles, URL: "https://shunt.example.org/files", Directory: "petstore/43"}, nil, files)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, found, err := p.Probe(t.Context(), item("bytes")); found || err != nil {
		t.Fatalf("Probe before: %v, %v", found, err)
	}
	want := artifact.Receipt{URL: "https://shunt.example.org/files/petstore/43/app", SHA256: digest("bytes")}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got, err := p.Publish(t.Context(), item("bytes")); err != nil || got != want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if got, found, err := p.Probe(t.Context(), item("bytes")); err != nil || !found || got != want {
		t.Errorf("Probe: %+v, %v, %v", got, found, err)
	}
	if _, err := p.Publish(t.Context(), item("other")); outcome(t, err) != artifact.OutcomeRefused {
		t.Errorf("overwritten: %v", err)
	}
	record := artifact.Published{Name: "app", File: "petstore.tar.gz", SHA256: digest("bytes"), Size: 5}
	if got, err := files.Get(t.Context(), "petstore/43", "app"); err != nil || got != record {
		t.Errorf("Get: %+v, %v", got, err)
	}
	if got, err := files.List(t.Context(), "petstore/43"); err != nil || cmp.Diff([]artifact.Published{record}, got) != "" {
		t.Errorf("List: %+v, %v", got, err)
	}
	if got, err := files.List(t.Context(), "petstore/44"); err != nil || len(got) != 0 {
		t.Errorf("List of nothing: %+v, %v", got, err)
	}
	if _, err := files.Get(t.Context(), "petstore/43", "nope"); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Errorf("Get of nothing: %v", err)
	}
	for _, bad := range []string{"../x", "/etc/..", "a//b", "a/./b"} {
		if _, err := files.Get(t.Context(), bad, "app"); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := store.Verify(t.Context(), record.SHA256); err != nil {
		t.Error(err)
	}
	i := item("good bytes")
	i.Name, i.Open = "bad", item("bad bytes").Open
	if _, err := p.Publish(t.Context(), i); outcome(t, err) != artifact.OutcomeRefused {
		t.Errorf("bytes that do not match: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(files.Dir, "petstore", "43"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left over: %v, %v", entries, err)
	}
	// The preflight notices a directory that cannot be written.
	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err = artifact.NewPublisher(artifact.Target{Kind: artifact.KindFiles, Directory: "petstore/43"}, nil, &artifact.Files{Dir: blocked, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Preflight(t.Context()); outcome(t, err) != artifact.OutcomeRefused {
		t.Errorf("Preflight: %v", fmt.Sprint(err))
	}
}

// Package nexus is a test double of Nexus Repository 3 that answers over HTTP as
// the real one does, as far as Shunt talks to it: the components API (POST
// multipart), the search and repository APIs, the writable status, and reading
// assets with their .sha1 and .sha256. Faults can be scripted: an upload may fail
// before or after it was stored, hang, or lose its connection.
package nexus

import (
	"crypto/sha1" // what Maven repositories serve
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Repository is one hosted repository of the double.
type Repository struct {
	Name     string
	Format   string // maven2 or raw
	Type     string // hosted when empty; group and proxy take no uploads
	Redeploy bool   // may overwrite; false is write-once, as releases are
	Snapshot bool   // a maven2 repository for snapshots, which refuses uploads over the API
}

// User may read; with Write also upload. NoBrowse hides the configuration of
// repositories (403), NoRead the assets and the search.
type User struct {
	Name, Password          string
	Write, NoBrowse, NoRead bool
}

// Options shape the double. Without users everybody may do everything; without
// repositories there are releases (maven2), snapshots (maven2) and raw.
type Options struct {
	Users        []User
	Repositories []Repository
	SearchLags   bool          // the search index finds nothing yet
	SlowBy       time.Duration // how long FaultSlow takes
}

// Fault is what happens to one upload.
type Fault string

// The faults.
const (
	FaultNone          Fault = ""
	Fault500Before     Fault = "500 before storing"
	Fault500After      Fault = "500 after storing"
	FaultHangBefore    Fault = "hang before storing"
	FaultHangAfter     Fault = "hang after storing" // until the client gives up
	FaultResetBefore   Fault = "reset before storing"
	FaultResetAfter    Fault = "reset after storing"
	FaultSlow          Fault = "slow"
	FaultUnprocessable Fault = "422"
)

// Server is the double. It is an http.Handler; use it with httptest.NewServer.
type Server struct {
	options Options
	mux     *http.ServeMux
	closed  chan struct{}
	once    sync.Once

	mu       sync.Mutex
	readOnly bool
	script   []Fault
	posts    int
	assets   map[string][]byte // "repository/path" -> content
	journal  []string
}

// New makes a double.
func New(o Options) *Server {
	if o.Repositories == nil {
		o.Repositories = []Repository{
			{Name: "releases", Format: "maven2"},
			{Name: "snapshots", Format: "maven2", Redeploy: true, Snapshot: true},
			{Name: "raw", Format: "raw"},
		}
	}
	s := &Server{options: o, mux: http.NewServeMux(), closed: make(chan struct{}), assets: map[string][]byte{}}
	s.mux.HandleFunc("GET /service/rest/v1/status/writable", s.status)
	s.mux.HandleFunc("GET /service/rest/v1/repositories/{name}", s.repository)
	s.mux.HandleFunc("GET /service/rest/v1/search/assets", s.search)
	s.mux.HandleFunc("POST /service/rest/v1/components", s.upload)
	s.mux.HandleFunc("GET /repository/{name}/{path...}", s.asset)
	return s
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close lets hanging uploads go. It may be called more than once.
func (s *Server) Close() { s.once.Do(func() { close(s.closed) }) }

// Script says what happens to the next uploads, in order; later ones work.
func (s *Server) Script(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = append(s.script, faults...)
}

// SetReadOnly freezes the double: the writable status is 503, uploads fail.
func (s *Server) SetReadOnly(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readOnly = on
}

// Posts counts the uploads that reached the double, whatever became of them.
func (s *Server) Posts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts
}

// Journal lists what was stored, in order: "releases/org/... sha256".
func (s *Server) Journal() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal)
}

// Put stores content as if somebody had uploaded it.
func (s *Server) Put(repository, path string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(repository, path, content)
}

func (s *Server) put(repository, path string, content []byte) {
	key := repository + "/" + path
	s.assets[key] = slices.Clone(content)
	s.journal = append(s.journal, key+" "+sum256(content))
}

// Get returns a stored asset.
func (s *Server) Get(repository, path string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	content, ok := s.assets[repository+"/"+path]
	return slices.Clone(content), ok
}

// allow checks the credentials and a right; without it the answer is written.
func (s *Server) allow(w http.ResponseWriter, r *http.Request, right func(User) bool) bool {
	if len(s.options.Users) == 0 {
		return true
	}
	name, password, _ := r.BasicAuth()
	i := slices.IndexFunc(s.options.Users, func(u User) bool { return u.Name == name && u.Password == password })
	switch {
	case i < 0:
		w.Header().Set("WWW-Authenticate", `BASIC realm="Sonatype Nexus Repository Manager"`)
		w.WriteHeader(http.StatusUnauthorized)
	case !right(s.options.Users[i]):
		w.WriteHeader(http.StatusForbidden)
	default:
		return true
	}
	return false
}

func (s *Server) find(name string) (Repository, bool) {
	i := slices.IndexFunc(s.options.Repositories, func(r Repository) bool { return r.Name == name })
	if i < 0 {
		return Repository{}, false
	}
	r := s.options.Repositories[i]
	if r.Type == "" {
		r.Type = "hosted"
	}
	return r, true
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	if !s.allow(w, r, func(User) bool { return true }) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readOnly {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (s *Server) repository(w http.ResponseWriter, r *http.Request) {
	if !s.allow(w, r, func(u User) bool { return !u.NoBrowse }) {
		return
	}
	repo, ok := s.find(r.PathValue("name"))
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"name": repo.Name, "format": repo.Format, "type": repo.Type,
		"url": "http://" + r.Host + "/repository/" + repo.Name, "attributes": map[string]any{},
	})
}

func (s *Server) asset(w http.ResponseWriter, r *http.Request) {
	if !s.allow(w, r, func(u User) bool { return !u.NoRead }) {
		return
	}
	repo, path := r.PathValue("name"), r.PathValue("path")
	content, ok := s.Get(repo, path)
	if !ok {
		for ext, sum := range map[string]func([]byte) string{".sha1": sum1, ".sha256": sum256} {
			if base, cut := strings.CutSuffix(path, ext); cut {
				if of, found := s.Get(repo, base); found {
					content, ok = []byte(sum(of)), true
				}
			}
		}
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"{SHA1{`+sum1(content)+`}}"`)
	_, _ = w.Write(content)
}

// search answers repository, name and the digests, which is what clients ask for.
func (s *Server) search(w http.ResponseWriter, r *http.Request) {
	if !s.allow(w, r, func(u User) bool { return !u.NoRead }) {
		return
	}
	q := r.URL.Query()
	items := []map[string]any{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, content := range s.assets {
		repo, path, _ := strings.Cut(key, "/")
		known, _ := s.find(repo)
		if s.options.SearchLags || !matches(q.Get("repository"), repo) || !matches(q.Get("name"), path) ||
			!matches(q.Get("sha256"), sum256(content)) || !matches(q.Get("sha1"), sum1(content)) {
			continue
		}
		items = append(items, map[string]any{
			"id": hex.EncodeToString([]byte(key)), "path": path, "repository": repo, "format": known.Format,
			"downloadUrl": "http://" + r.Host + "/repository/" + key,
			"checksum":    map[string]string{"sha1": sum1(content), "sha256": sum256(content)},
		})
	}
	writeJSON(w, http.StatusOK, map[string]any{"items": items, "continuationToken": nil})
}

func matches(want, got string) bool { return want == "" || want == got }

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// refuse answers 400 in the shape of Nexus.
func refuse(w http.ResponseWriter, id, message string) {
	writeJSON(w, http.StatusBadRequest, []map[string]string{{"id": id, "message": message}})
}

func sum256(b []byte) string { h := sha256.Sum256(b); return hex.EncodeToString(h[:]) }
func sum1(b []byte) string   { h := sha1.Sum(b); return hex.EncodeToString(h[:]) }

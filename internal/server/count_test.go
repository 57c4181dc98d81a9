package server

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/auth"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/testkit/fill"
)

// counted is a server whose queries are counted. It answers pages and drives
// nothing.
type counted struct {
	handler http.Handler
	cookie  string
	mu      sync.Mutex
	queries []string
}

func countedServer(t *testing.T, size fill.Size) *counted {
	t.Helper()
	ctx, dir := context.WithoutCancel(t.Context()), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	repo, err := fill.MakeRepo(ctx, filepath.Join(dir, "shop.git"), fill.Pipeline(size))
	must(err)
	data := filepath.Join(dir, "data")
	must(fill.Database(ctx, data, repo, size, delivery.SystemClock{}.Now()))
	c := &counted{}
	s, err := open(ctx, Config{DataDir: data, Listen: "localhost:0", Log: slog.New(slog.DiscardHandler)})
	must(err)
	must(s.store.Close())
	s.store, err = store.Open(ctx, store.Config{
		Database: filepath.Join(data, "shunt.db"), Clock: s.clock, Log: s.cfg.Log, Fatal: func(err error) { panic(err) },
		Watch: func(query string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.queries = append(c.queries, query)
		},
	})
	must(err)
	t.Cleanup(func() { must(s.store.Close()) })
	s.auth, s.url = auth.New(s.store, s.clock), "http://localhost"
	c.handler, err = s.wire("server", "instance")
	must(err)
	_, err = s.engine.Sync(ctx, fill.Project(0)) // so that the mirror is there
	must(err)
	must(ensureOperator(ctx, s.store))
	once, err := s.auth.Once(ctx, Operator, time.Hour)
	must(err)
	c.cookie, err = s.auth.RedeemOnce(ctx, once)
	must(err)
	return c
}

// ask fetches a page and tells how often each query was sent for it.
func (c *counted) ask(t *testing.T, path string) map[string]int {
	t.Helper()
	c.mu.Lock()
	c.queries = nil
	c.mu.Unlock()
	r := httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil)
	r.AddCookie(&http.Cookie{Name: "shunt_session", Value: c.cookie})
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	if body, _ := io.ReadAll(w.Body); w.Code != http.StatusOK {
		t.Fatalf("%s: %d %.2000s", path, w.Code, body)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	times := map[string]int{}
	for _, q := range c.queries {
		times[q]++
	}
	return times
}

// No page asks the database more often when there is more to show: 3 or 60 of
// everything a page lists.
func TestQueriesDoNotGrowWithRows(t *testing.T) {
	t.Parallel()
	few := fill.Size{Projects: 3, Builds: 6, Open: 3, Jobs: 3, Tests: 9, Stages: 2, Living: 6, Lines: 20}
	many := fill.Size{Projects: 60, Builds: 80, Open: 60, Jobs: 20, Tests: 200, Stages: 6, Living: 70, Rest: 4, Lines: 2000}
	a, b := countedServer(t, few), countedServer(t, many)
	pages := many.Pages()
	worst := 0
	for i, page := range few.Pages() {
		was, is := a.ask(t, page.Path), b.ask(t, pages[i].Path)
		total := 0
		for query, n := range is {
			total += n
			if n > max(1, was[query]) { // once is for what only many rows have
				t.Errorf("%s sends this %d times with few rows and %d times with many:\n%s", page.Name, was[query], n, query)
			}
		}
		if total == 0 {
			t.Errorf("%s asks nothing: the queries are not counted", page.Name)
		}
		worst = max(worst, total)
	}
	t.Logf("%d pages, at most %d queries each", len(pages), worst)
}

package server

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/auth"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/testkit/fill"
	"github.com/shuntcd/shunt/internal/web"
)

// counted is a server whose queries are counted. It answers pages and drives
// nothing.
type counted struct {
	s       *Server
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
	c.s = s
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

// page fetches a page.
func (c *counted) page(t *testing.T, path string) string {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://localhost"+path, nil)
	r.AddCookie(&http.Cookie{Name: "shunt_session", Value: c.cookie})
	w := httptest.NewRecorder()
	c.handler.ServeHTTP(w, r)
	body, _ := io.ReadAll(w.Body)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %.2000s", path, w.Code, body)
	}
	return string(body)
}

// ask fetches a page and tells how often each query was sent for it.
func (c *counted) ask(t *testing.T, path string) map[string]int {
	t.Helper()
	c.mu.Lock()
	c.queries = nil
	c.mu.Unlock()
	c.page(t, path)
	c.mu.Lock()
	defer c.mu.Unlock()
	times := map[string]int{}
	for _, q := range c.queries {
		times[q]++
	}
	return times
}

// rowTables are the tables that grow with what is built.
var rowTables = regexp.MustCompile(`SCAN (builds|b|nodes|n|attempts|artifacts|a|tests|effects|gates|g|instances|deployments|d|back_merges|freezes|audit|pushes|events|outbox)( USING (COVERING )?INDEX (\S+))?$`)

// scans fails when a query reads all rows of a table that grows, but for the few
// that a partial index holds. What asks for all projects may read an index.
func (c *counted) scans(t *testing.T, db *sql.DB, page string, queries map[string]int) {
	t.Helper()
	for query := range queries {
		var args []any
		for i := 1; strings.Contains(query, fmt.Sprint("$", i)); i++ {
			args = append(args, "1")
		}
		rows, err := db.QueryContext(t.Context(), "explain query plan "+query, args...)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var id, parent, unused int
			var step string
			if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
				t.Fatal(err)
			}
			found := rowTables.FindStringSubmatch(step)
			if found != nil && !slices.Contains([]string{"instances_alive", "gates_open", "builds_open", "back_merges_open"}, found[4]) && (found[3] == "" || !strings.Contains(query, "where true")) {
				t.Errorf("%s: %s\n%s", page, step, query)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
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
	db, err := sql.Open("sqlite", filepath.Join(b.s.cfg.DataDir, "shunt.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for i, page := range few.Pages() {
		was, is := a.ask(t, page.Path), b.ask(t, pages[i].Path)
		b.scans(t, db, page.Name, is)
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
	b.mu.Lock()
	b.queries = nil
	b.mu.Unlock()
	for _, of := range []web.Subject{{Concern: web.OfProject}, {Concern: web.OfBuild, Number: 5}, {Concern: web.OfSecret, Name: "KEY"}} {
		if _, err := b.s.Since(t.Context(), fill.Project(0), of, 1); err != nil {
			t.Fatal(err)
		}
	}
	asked := map[string]int{}
	for _, query := range b.queries {
		asked[query]++
	}
	b.scans(t, db, "a form", asked)
	t.Logf("%d pages, at most %d queries each", len(pages), worst)
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/shuntcd/shunt/internal/store"
	"github.com/shuntcd/shunt/internal/testkit/fill"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

// installed is how much a large installation has: 200 projects with 50 builds
// each, of which two wait, and 100 environments that are up.
func installed() fill.Size {
	return fill.Size{Projects: 200, Builds: 50, Open: 2, Jobs: 4, Tests: 400, Stages: 1, Living: 100, Lines: 100_000}
}

// goal is what 95 of 100 requests for any page should take at most.
const goal = 50 * time.Millisecond

// pages measures the pages of a large installation on both databases.
func (b *bench) pages(ctx context.Context) error {
	size, data := installed(), filepath.Join(b.dir, "pages")
	repo, err := fill.MakeRepo(ctx, filepath.Join(b.dir, "pages.git"), fill.Pipeline(size))
	if err != nil {
		return err
	}
	begin := b.clock.Now()
	if err := fill.Database(ctx, data, repo, size, b.clock.Now()); err != nil {
		return err
	}
	b.say("filled a database with %d projects, %d builds and %d environments in %s", size.Projects, size.Projects*size.Builds, size.Living, b.since(begin).Round(time.Second))
	moved := data + "-postgres"
	if err := os.CopyFS(moved, os.DirFS(data)); err != nil {
		return err
	}
	lite, err := b.measure(ctx, "SQLite", data, size)
	if err != nil {
		return fmt.Errorf("on SQLite: %w", err)
	}
	var other []time.Duration
	if pg.Available() == "" {
		b.say("PostgreSQL is not installed: apt-get install postgresql")
	} else if other, err = b.postgres(ctx, moved, size); err != nil {
		return fmt.Errorf("on PostgreSQL: %w", err)
	}
	for _, p95 := range slices.Concat(lite, other) {
		if p95 > goal {
			b.say("not every page is within its goal, p95 of %s", ms(goal))
			return nil
		}
	}
	b.say("every page is within its goal, p95 of %s", ms(goal))
	return nil
}

// postgres moves the rows of a data directory to a PostgreSQL and measures there.
func (b *bench) postgres(ctx context.Context, data string, size fill.Size) ([]time.Duration, error) {
	server, err := pg.Start()
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	url, err := server.Database(ctx)
	if err != nil {
		return nil, err
	}
	open := func(database string) (*store.Store, error) {
		return store.Open(ctx, store.Config{Database: database, Clock: b.clock, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	}
	from, err := open(filepath.Join(data, "shunt.db"))
	if err != nil {
		return nil, err
	}
	to, err := open(url)
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	_, err = from.Move(ctx, to)
	if err = errors.Join(err, from.Close(), to.Close()); err != nil {
		return nil, err
	}
	return b.measure(ctx, "PostgreSQL", data, size, "--database", url)
}

// measure starts a server on a filled data directory and measures its pages: how
// long they take, and the processor time of the server and its git, which says
// the same on a busy machine.
func (b *bench) measure(ctx context.Context, name, data string, size fill.Size, flags ...string) (all []time.Duration, err error) {
	in := &installation{bench: b, data: data}
	if err := in.serve(ctx, append(flags, "--poll", "10m")...); err != nil {
		return nil, err
	}
	defer in.end()
	if err := in.settled(ctx); err != nil {
		return nil, err
	}
	b.say("%-44s %10s %10s %10s", fmt.Sprintf("pages, %d projects, %d builds, on %s", size.Projects, size.Projects*size.Builds, name), "p50", "p95", "processor")
	for _, page := range size.Pages() {
		var took []time.Duration
		var before time.Duration
		for i := range warm + measured {
			if i == warm {
				own, children := cpu(in.server.Process.Pid)
				before = own + children
			}
			begin := b.clock.Now()
			if err := in.fetch(ctx, page.Path); err != nil {
				return nil, err
			}
			took = append(took, b.since(begin))
		}
		took = took[warm:]
		own, children := cpu(in.server.Process.Pid)
		p50, p95 := percentile(took, 50), percentile(took, 95)
		all = append(all, p95)
		b.say("    %-40s %10s %10s %10s", page.Name, tenths(p50), tenths(p95), tenths((own+children-before)/measured))
	}
	if err := in.open(ctx, size); err != nil || len(flags) > 0 {
		return all, err
	}
	return all, in.longLog(ctx, size)
}

// longLog measures a log of twelve million lines: at its end, and at any line.
// Who writes a log indexes it; here nobody did, and the first page has to.
func (in *installation) longLog(ctx context.Context, size fill.Size) error {
	const lines = 12_000_000
	file := filepath.Join(in.data, "logs", fmt.Sprintf("%s-%d-job0-1.log", fill.Project(0), size.Builds))
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	w, now := bufio.NewWriterSize(f, 1<<20), in.clock.Now().UnixMicro()
	for i := size.Lines; i < lines; i++ {
		fmt.Fprintf(w, "%d |line %d of the log\n", now, i)
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return err
	}
	page := fmt.Sprintf("/%s/%d/log/job/job0", fill.Project(0), size.Builds)
	for _, at := range []struct {
		name  string
		times int
		path  func(i int) string
	}{
		{"log of 12 million lines, without an index", 1, func(int) string { return page }},
		{"its end", measured, func(int) string { return page }},
		{"any line", measured, func(i int) string { return fmt.Sprintf("%s?line=%d", page, (i+1)*lines/measured) }},
	} {
		var took []time.Duration
		for i := range at.times {
			begin := in.clock.Now()
			if err := in.fetch(ctx, at.path(i)); err != nil {
				return err
			}
			took = append(took, in.since(begin))
		}
		in.say("    %-40s %10s %10s", at.name, tenths(percentile(took, 50)), tenths(percentile(took, 95)))
	}
	return nil
}

// How often each page is fetched before and while it is measured.
const (
	warm     = 5
	measured = 40
)

// fetch gets a page, to its last byte.
func (in *installation) fetch(ctx context.Context, path string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, in.url+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+in.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s is answered %s", path, resp.Status)
	}
	return err
}

// settled waits until every remote was looked at and the server has nothing to
// do any more.
func (in *installation) settled(ctx context.Context) error {
	for {
		projects, err := in.client.Projects(ctx)
		if err != nil {
			return err
		}
		left := 0
		for _, p := range projects {
			if p.FetchError != "" || p.Incident != "" {
				return fmt.Errorf("%s: %s%s", p.Name, p.FetchError, p.Incident)
			}
			if p.LastFetch.IsZero() {
				left++
			}
		}
		if left == 0 {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	for busy := time.Hour; busy > 600*time.Millisecond; {
		own, children := cpu(in.server.Process.Pid)
		time.Sleep(2 * time.Second) // what it does every second is little beside it
		ownNow, childrenNow := cpu(in.server.Process.Pid)
		busy = ownNow + childrenNow - own - children
	}
	return nil
}

func percentile(list []time.Duration, p int) time.Duration {
	slices.Sort(list)
	return list[min(len(list)-1, len(list)*p/100)]
}

func tenths(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// hold holds or releases the main lane of a project: something that every page
// of it shows.
func (in *installation) hold(ctx context.Context, project, reason string) error {
	if reason == "" {
		_, err := in.client.ReleaseHold(ctx, project, "measured")
		return err
	}
	_, err := in.client.Hold(ctx, project, reason)
	return err
}

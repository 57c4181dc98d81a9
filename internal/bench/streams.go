package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shuntcd/shunt/internal/testkit/fill"
)

// stream is the stream of events of one open page.
type stream struct {
	seen chan time.Time // when each event came
}

// listen opens the stream of a project's page and returns once it stands. The
// page's own connection is closed when ctx ends.
func (in *installation) listen(ctx context.Context, project string) (*stream, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, in.url+"/events?project="+project, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+in.token)
	r.Header.Set("Accept", "text/event-stream")
	c := &http.Client{Transport: &http.Transport{}} // a connection of its own, as a browser has
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != "retry: 1000" {
		resp.Body.Close()
		return nil, fmt.Errorf("the stream of events begins with %q", lines.Text())
	}
	s := &stream{seen: make(chan time.Time, 64)}
	go func() {
		defer resp.Body.Close()
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data:") {
				s.seen <- in.clock.Now()
			}
		}
		close(s.seen)
	}()
	return s, nil
}

// open measures how soon an open page hears of a change and has it, alone and
// among many.
func (in *installation) open(ctx context.Context, size fill.Size) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	project := fill.Project(0)
	alone, err := in.listen(ctx, project)
	if err != nil {
		return err
	}
	heard, had, err := in.hear(ctx, project, []*stream{alone})
	if err != nil {
		return err
	}
	in.say("    %-40s %10s %10s", "change to event", tenths(percentile(heard, 50)), tenths(percentile(heard, 95)))
	in.say("    %-40s %10s %10s", "change to new page fetched", tenths(percentile(had, 50)), tenths(percentile(had, 95)))
	if in.streams == 0 {
		return nil
	}
	before := memory(in.server.Process.Pid)
	streams := []*stream{alone}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(50)
	for range in.streams {
		g.Go(func() error {
			s, err := in.listen(ctx, project)
			mu.Lock()
			defer mu.Unlock()
			streams = append(streams, s)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	heard, had, err = in.hear(ctx, project, streams)
	if err != nil {
		return err
	}
	more := memory(in.server.Process.Pid) - before
	in.say("    %-40s %10s %10s %7d MB", fmt.Sprintf("change to event, %d pages, memory more", len(streams)-1), tenths(percentile(heard, 50)), tenths(percentile(heard, 95)), more>>20)
	in.say("    %-40s %10s %10s", "change to new page fetched by one", tenths(percentile(had, 50)), tenths(percentile(had, 95)))
	return in.herd(ctx, project, streams)
}

// hear makes changes and measures when each stream has told of it, and when a
// page that was fetched then is there.
func (in *installation) hear(ctx context.Context, project string, streams []*stream) (heard, had []time.Duration, err error) {
	for i := range 10 {
		reason := ""
		if i%2 == 0 {
			reason = "measuring"
		}
		begin := in.clock.Now()
		if err := in.hold(ctx, project, reason); err != nil {
			return nil, nil, err
		}
		for k, s := range streams {
			at, ok := <-s.seen
			if !ok {
				return nil, nil, fmt.Errorf("a stream of events ended")
			}
			heard = append(heard, at.Sub(begin))
			if k == 0 {
				if err := in.fetch(ctx, "/"+project); err != nil {
					return nil, nil, err
				}
				had = append(had, in.since(begin))
			}
		}
	}
	return heard, had, nil
}

// herd has every open page fetch itself at once, as all do that show what has
// changed.
func (in *installation) herd(ctx context.Context, project string, streams []*stream) error {
	begin := in.clock.Now()
	if err := in.hold(ctx, project, "measuring"); err != nil {
		return err
	}
	var mu sync.Mutex
	var took []time.Duration
	var g errgroup.Group
	g.SetLimit(200) // sockets
	for _, s := range streams {
		g.Go(func() error {
			<-s.seen
			err := in.fetch(ctx, "/"+project)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, in.since(begin))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	in.say("    %-40s %10s %10s %7d MB at the peak", "change to new page fetched by all", tenths(percentile(took, 50)), tenths(percentile(took, 95)), peak(in.server.Process.Pid)>>20)
	return in.hold(ctx, project, "")
}

// memory is the resident memory of a process, in bytes; peak is the most that it
// ever had.
func memory(pid int) int64 { return status(pid, "VmRSS") }

func peak(pid int) int64 { return status(pid, "VmHWM") }

func status(pid int, name string) (bytes int64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), "\n"+name+":")
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
}

// Command bench measures a real server in a temporary directory, each number
// beside its floor: what git, fork and a synced write alone take on the same
// machine in the same run.
//
//	go run ./internal/bench [-n 10] [-queue 200] [-files 10] [-steps] [-shunt BINARY] [-only pages]
//
// A push is measured from the start of `git push` (with Shunt's post-receive
// hook) until the build has finished its CI part: jobs run, tag build/N pushed,
// gate open.
//
// Then come the pages, of a server with 200 projects, 10,000 builds and 100
// environments on SQLite and on PostgreSQL: how long each takes, from the request
// to the last byte, and what a thousand open pages cost. It asserts nothing; it
// prints.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

func main() {
	b := bench{out: os.Stdout, clock: delivery.SystemClock{}}
	flag.IntVar(&b.runs, "n", 10, "pushes of which the median is taken")
	flag.IntVar(&b.queue, "queue", 200, "builds in the queue that is drained")
	flag.IntVar(&b.files, "files", 10, "files of the repository; each is written once for each job")
	flag.StringVar(&b.exe, "shunt", "", "binary to measure; by default the one of these sources")
	flag.BoolVar(&b.steps, "steps", false, "say where the time of the median push went")
	flag.StringVar(&b.only, "only", "", "measure \"pushes\" or \"pages\" only")
	flag.IntVar(&b.streams, "streams", 1000, "pages that are held open")
	flag.Parse()
	if err := b.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	out         io.Writer
	clock       delivery.Clock
	runs, queue int
	files       int
	streams     int
	exe, dir    string
	only        string
	steps       bool
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "shunt-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.exe == "" {
		b.exe = filepath.Join(b.dir, "shunt")
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", b.exe, "github.com/shuntcd/shunt/cmd/shunt")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	if b.only != "pages" {
		if err := b.overhead(ctx); err != nil {
			return err
		}
	}
	if b.only != "pushes" {
		return b.pages(ctx)
	}
	return nil
}

// overhead measures pushes and a queue beside their floors.
func (b *bench) overhead(ctx context.Context) error {
	b.say("%-44s %10s %10s %7s", "", "shunt", "floor", "ratio")
	for _, jobs := range []int{1, 5} {
		if err := b.pushes(ctx, jobs); err != nil {
			return fmt.Errorf("%d jobs: %w", jobs, err)
		}
	}
	if b.queue == 0 {
		return nil
	}
	return b.drain(ctx)
}

func (b *bench) say(format string, args ...any) { _, _ = fmt.Fprintf(b.out, format+"\n", args...) }

func (b *bench) since(t time.Time) time.Duration { return b.clock.Now().Sub(t) }

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1000) }

// pushes measures pushes one after the other.
func (b *bench) pushes(ctx context.Context, jobs int) error {
	in, err := b.install(ctx, fmt.Sprintf("push%d", jobs), jobs)
	if err != nil {
		return err
	}
	defer in.end()
	if err := in.add(ctx, ""); err != nil {
		return err
	}
	var took []time.Duration
	var last []string
	for i := range b.runs + 1 {
		d, steps, err := in.push(ctx, i)
		if err != nil {
			return err
		}
		if i > 0 { // the first one warms up
			took, last = append(took, d), steps
		}
	}
	f, err := b.floorOfPush(ctx, jobs)
	if err != nil {
		return err
	}
	m := median(took)
	b.say("%-44s %10s %10s %6.1fx", fmt.Sprintf("push to finished, %d no-op jobs, median of %d", jobs, b.runs), ms(m), ms(f.sum), float64(m)/float64(f.sum))
	b.say("    floor: push %s, fetch %s, %d checkouts %s, %d sh %s, push of the tag %s, 4 synced writes %s", ms(f.push), ms(f.fetch), jobs, ms(f.checkout), jobs, ms(f.fork), ms(f.tag), ms(f.sync))
	if b.steps {
		for _, s := range last {
			b.say("    %s", s)
		}
	}
	return nil
}

// drain measures how fast a queue is worked off: many hotfix branches that come
// with one push, because those are never superseded.
func (b *bench) drain(ctx context.Context) error {
	in, err := b.install(ctx, "queue", 1)
	if err != nil {
		return err
	}
	defer in.end()
	if err := in.add(ctx, "develop"); err != nil {
		return err
	}
	took, queued, err := in.drain(ctx, b.queue)
	if err != nil {
		return err
	}
	own, git := cpu(in.server.Process.Pid)
	jobs, children := in.runnerCPU(ctx)
	floor, err := b.floorOfQueue(ctx, b.queue)
	if err != nil {
		return err
	}
	perMinute := func(d time.Duration) string { return fmt.Sprintf("%.0f/min", float64(b.queue)/d.Minutes()) }
	b.say("%-44s %10s %10s %6.1fx", fmt.Sprintf("%d queued builds drained", b.queue), perMinute(took), perMinute(floor), took.Seconds()/floor.Seconds())
	b.say("    shunt %.1f s, of which until all were queued %.1f s; floor %.1f s: as many checkouts, sh, pushes of a tag and 4 synced writes, %d at once", took.Seconds(), queued.Seconds(), floor.Seconds(), workers)
	b.say("    processor: server %.1f s, its git %.1f s, runner %.1f s, its jobs %.1f s", own.Seconds(), git.Seconds(), jobs.Seconds(), children.Seconds())
	return nil
}

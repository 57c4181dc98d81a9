package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runner"
)

// workers is how many builds a lane drives at once here.
const workers = 4

// project is the name of the measured project.
const project = "shop"

// installation is a running server with one repository.
type installation struct {
	*bench
	data, bare, clone string
	server            *exec.Cmd
	url, token        string
	client            *api.Client
}

// install makes a repository whose pipeline has that many no-op jobs, and starts
// a server.
func (b *bench) install(ctx context.Context, name string, jobs int) (*installation, error) {
	var pipeline strings.Builder
	pipeline.WriteString("version: 1\nname: shop\njobs:\n")
	for i := range jobs {
		fmt.Fprintf(&pipeline, "  job%d: { steps: [{ run: ':' }] }\n", i)
	}
	pipeline.WriteString("environments:\n  production: { deploy: ':' }\n")
	dir := filepath.Join(b.dir, name)
	in := &installation{bench: b, data: filepath.Join(dir, "data")}
	var err error
	if in.bare, in.clone, err = b.makeRepo(ctx, dir, pipeline.String()); err != nil {
		return nil, err
	}
	return in, in.serve(ctx)
}

// serve starts the server on the data directory, with a token for its API.
func (in *installation) serve(ctx context.Context, flags ...string) error {
	log, err := os.Create(in.data + ".log")
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"serve", "--data", in.data, "--listen", "localhost:0", "--workers", strconv.Itoa(workers), "--hotfix-workers", strconv.Itoa(workers)}
	in.server = exec.Command(in.exe, append(args, flags...)...)
	in.server.Stderr = log
	out, err := in.server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := in.server.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	go io.Copy(io.Discard, out)
	found := regexp.MustCompile(` serves (http://\S+) from `).FindStringSubmatch(line)
	if found == nil {
		in.end()
		return fmt.Errorf("the server says %q: %w", line, err)
	}
	token, err := exec.CommandContext(ctx, in.exe, "token", "create", "bench", "--data", in.data).Output()
	if err != nil {
		in.end()
		return fmt.Errorf("make a token: %w", err)
	}
	in.url, in.token = found[1], strings.TrimSpace(string(token))
	in.client = api.NewClient(in.url, in.token, http.DefaultClient)
	return nil
}

// end ends the server and the runner that would outlive it.
func (in *installation) end() {
	_ = in.server.Process.Signal(syscall.SIGTERM)
	_ = in.server.Wait()
	c := runner.NewClient(filepath.Join(in.data, "runner"))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	info, err := c.Info(ctx)
	if err != nil {
		return
	}
	_ = syscall.Kill(info.PID, syscall.SIGTERM)
	for !errors.Is(err, runner.ErrGone) && ctx.Err() == nil {
		_, err = c.Info(ctx)
	}
}

// runnerCPU is the processor time of the runner and of what it ran.
func (in *installation) runnerCPU(ctx context.Context) (own, children time.Duration) {
	c := runner.NewClient(filepath.Join(in.data, "runner"))
	defer c.Close()
	info, err := c.Info(ctx)
	if err != nil {
		return 0, 0
	}
	return cpu(info.PID)
}

// add takes the repository over, with its hook.
func (in *installation) add(ctx context.Context, production string) error {
	if production != "" {
		if _, err := git(ctx, in.clone, "push", "--quiet", "origin", production); err != nil {
			return err
		}
	}
	_, err := in.client.AddProject(ctx, api.AddProject{Name: project, URL: in.bare, Local: true, InProduction: production, InstallHook: true})
	return err
}

var hookSays = regexp.MustCompile(`shunt: build (\d+) of`)

// push pushes one commit and measures until its gate opens. steps says when what
// happened.
func (in *installation) push(ctx context.Context, i int) (took time.Duration, steps []string, err error) {
	if _, err := git(ctx, in.clone, "commit", "--quiet", "--allow-empty", "--message", fmt.Sprint("Push ", i)); err != nil {
		return 0, nil, err
	}
	begin := in.clock.Now()
	said, err := git(ctx, in.clone, "push", "origin", "develop")
	if err != nil {
		return 0, nil, err
	}
	pushed := in.clock.Now()
	found := hookSays.FindStringSubmatch(said)
	if found == nil {
		return 0, nil, fmt.Errorf("git push says\n%s", said)
	}
	number, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		return 0, nil, err
	}
	build, err := in.reach(ctx, number, delivery.BuildWaiting)
	if err != nil {
		return 0, nil, err
	}
	opened := build.Gates[0].OpenedAt
	after := func(t time.Time) string { return fmt.Sprintf("%6.1f ms", float64(t.Sub(begin).Microseconds())/1000) }
	steps = append(steps, after(build.CreatedAt)+"  build created", after(build.StartedAt)+"  drive began", after(pushed)+"  git push returned")
	for _, n := range build.Nodes {
		if n.Kind != delivery.NodeJob && n.Kind != delivery.NodeTag {
			continue
		}
		steps = append(steps, after(n.StartedAt)+"  "+n.Name+" began")
		for _, a := range n.Attempts {
			steps = append(steps, after(a.StartedAt)+"  "+n.Name+" started in the runner", after(a.FinishedAt)+"  "+n.Name+" result saved")
		}
		steps = append(steps, after(n.FinishedAt)+"  "+n.Name+" ended")
	}
	steps = append(steps, after(opened)+"  gate open")
	slices.Sort(steps)
	// The decision clears the table for the next one.
	if _, err := in.client.Decide(ctx, project, number, api.Decide{Reason: "measured"}); err != nil {
		return 0, nil, err
	}
	_, err = in.reach(ctx, number, delivery.BuildRejected)
	return opened.Sub(begin), steps, err
}

func (in *installation) reach(ctx context.Context, number int64, status delivery.BuildStatus) (api.BuildDetail, error) {
	for {
		b, err := in.client.Build(ctx, project, number)
		if err != nil || b.Status == status {
			return b, err
		}
		if b.Status.Final() || b.Status == delivery.BuildStopped {
			return b, fmt.Errorf("build %d is %s: %s", number, b.Status, b.Reason)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// drain pushes n hotfix branches at once and measures until the last gate is
// open, and until the last build was queued.
func (in *installation) drain(ctx context.Context, n int) (took, queued time.Duration, err error) {
	refs := []string{"push", "--quiet", "origin"}
	for i := range n {
		branch := fmt.Sprint("hotfix/", i)
		if err := gits(ctx, in.clone, []string{"switch", "--quiet", "--create", branch, "develop"}, []string{"commit", "--quiet", "--allow-empty", "--message", branch}); err != nil {
			return 0, 0, err
		}
		refs = append(refs, branch)
	}
	begin := in.clock.Now()
	pushed := make(chan error, 1)
	go func() { pushed <- gits(ctx, in.clone, refs) }()
	for {
		time.Sleep(250 * time.Millisecond)
		waiting, created := 0, begin
		for before := int64(0); ; {
			list, err := in.client.Builds(ctx, project, api.BuildFilter{Lane: string(delivery.LaneHotfix), Limit: 200, Before: before})
			if err != nil {
				return 0, 0, err
			}
			for _, b := range list {
				if b.Status == delivery.BuildWaiting {
					waiting++
				}
				if b.CreatedAt.After(created) {
					created = b.CreatedAt
				}
				if b.Status.Final() || b.Status == delivery.BuildStopped {
					return 0, 0, fmt.Errorf("build %d is %s: %s", b.Number, b.Status, b.Reason)
				}
			}
			if len(list) < 200 {
				break
			}
			before = list[len(list)-1].Number
		}
		now := in.clock.Now()
		if waiting == n {
			return now.Sub(begin), created.Sub(begin), <-pushed
		}
	}
}

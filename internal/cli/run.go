package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/runlog"
	"github.com/shuntcd/shunt/internal/runner"
)

func (a *app) runCommand() *cobra.Command {
	cmd := command("run [job...]", "Run the jobs of "+pipeline.FileName+" here, on the work tree as it is", cobra.ArbitraryArgs, a.run)
	cmd.Long = "Run takes the jobs that need no environment, in the order of the graph, or the named jobs and what they need,\nand runs them in this work tree with the same runner as the server. It ends with 1 when one fails."
	return cmd
}

func (a *app) run(ctx context.Context, args []string) (err error) {
	root, err := a.git(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		if root, err = os.Getwd(); err != nil {
			return err
		}
	}
	p, err := readPipeline(filepath.Join(root, pipeline.FileName))
	if err != nil {
		if problems, ok := errors.AsType[pipeline.Problems](err); ok {
			a.complain(problems.Error())
			return exitError(1)
		}
		return err
	}
	jobs, err := localJobs(p, args)
	if err != nil {
		return err
	}
	l := &local{a: a, root: root, pipeline: p, artifacts: map[string]runner.File{}, failed: map[string]bool{}}
	if err := l.start(ctx); err != nil {
		return err
	}
	defer l.stop(context.WithoutCancel(ctx))
	begin := a.clock.Now()
	for _, j := range jobs {
		if err := l.job(ctx, j); err != nil {
			return err
		}
	}
	words := count(len(jobs), "job") + ", " + took(a.clock.Now().Sub(begin))
	if len(l.failed) > 0 {
		a.printf("%s  %d of %s\n", a.paint(red, "failed"), len(l.failed), words)
		return exitError(1)
	}
	a.printf("%s  %s\n", a.paint(green, "ok"), words)
	return nil
}

// localJobs are the jobs that can run here, those that are needed first. Named
// ones bring along what they need.
func localJobs(p *pipeline.Pipeline, names []string) ([]pipeline.Job, error) {
	var order []pipeline.Job
	seen := map[string]bool{}
	var add func(j *pipeline.Job) bool
	add = func(j *pipeline.Job) bool {
		if done, ok := seen[j.Name]; ok {
			return done
		}
		seen[j.Name] = false
		for _, n := range j.Needs {
			need := p.Job(n)
			if need == nil || !add(need) {
				return false // it needs an environment, itself or further up
			}
		}
		seen[j.Name] = true
		order = append(order, *j)
		return true
	}
	if len(names) == 0 {
		for i := range p.Jobs {
			add(&p.Jobs[i])
		}
	}
	for _, name := range names {
		j := p.Job(name)
		if j == nil {
			return nil, usage("there is no job "+clean(name), "Jobs:  "+strings.Join(jobNames(p), "  "))
		}
		if !add(j) {
			return nil, usage("job "+name+" cannot run here", "It needs an environment. Push, and the server runs it there.")
		}
	}
	if len(order) == 0 {
		return nil, usage("no job can run here", "All of them need an environment. Push, and the server runs them there.")
	}
	return order, nil
}

func jobNames(p *pipeline.Pipeline) []string {
	names := make([]string, len(p.Jobs))
	for i, j := range p.Jobs {
		names[i] = j.Name
	}
	return names
}

// local runs jobs in the work tree, through a runner of its own in a directory
// that goes away with it.
type local struct {
	a         *app
	root      string
	pipeline  *pipeline.Pipeline
	dir       string
	client    *runner.Client
	artifacts map[string]runner.File
	failed    map[string]bool
}

func (l *local) start(ctx context.Context) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if l.dir, err = os.MkdirTemp("", "shunt-run-"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	l.client = runner.NewClient(l.dir)
	if _, err = runner.Spawn(ctx, exe, l.dir, l.a.env); err != nil {
		_ = os.RemoveAll(l.dir)
	}
	return err
}

// stop ends what still runs, and the runner.
func (l *local) stop(ctx context.Context) {
	l.client.Close()
	if err := endRunner(ctx, l.dir); err != nil {
		l.a.note("shunt: %v", err)
	}
	_ = runner.RemoveAll(l.dir)
}

func (l *local) job(ctx context.Context, j pipeline.Job) error {
	a := l.a
	name := pad(j.Name, l.width())
	if i := slices.IndexFunc(j.Needs, func(n string) bool { return l.failed[n] }); i >= 0 {
		l.failed[j.Name] = true
		a.printf("%s | %s\n", name, a.paint(faint, "not run: "+j.Needs[i]+" failed"))
		return nil
	}
	for _, secret := range j.Secrets {
		if a.getenv(secret) == "" {
			a.printf("%s | %s\n", name, a.paint(yellow, "the secret "+secret+" is not in your environment"))
		}
	}
	spec := runner.Spec{ID: j.Name, Fence: 1, Dir: l.root, Env: l.jobEnv(ctx, j), Timeout: j.Timeout, Reports: j.JUnit}
	for _, s := range j.Steps {
		spec.Steps = append(spec.Steps, runner.Step{Name: s.Name, Run: s.Run})
	}
	for _, s := range j.Secrets {
		spec.Secrets = append(spec.Secrets, a.getenv(s))
	}
	for _, g := range j.Artifacts {
		spec.Artifacts = append(spec.Artifacts, runner.Glob{Name: g.Name, Pattern: g.Path})
	}
	status, err := l.client.Start(ctx, spec)
	if err != nil {
		return err
	}
	out := &prefixer{prefix: name + " | ", w: a.logWriter()}
	var offset int64
	for {
		n, err := l.client.Log(ctx, j.Name, offset, out)
		if err != nil {
			return err
		}
		offset += n
		if status.Result != nil && offset >= status.Result.LogSize {
			break
		}
		if status, err = l.client.Wait(ctx, j.Name, offset, time.Minute); err != nil {
			return err
		}
	}
	r := status.Result
	if r.State != delivery.AttemptSucceeded {
		l.failed[j.Name] = true
		a.printf("%s | %s\n", name, a.paint(red, "failed: "+clean(r.Reason)))
		return nil
	}
	for _, f := range r.Artifacts {
		l.artifacts[f.Name] = f
	}
	a.printf("%s | %s\n", name, a.paint(green, "ok  "+took(r.FinishedAt.Sub(r.StartedAt))))
	return nil
}

func (l *local) width() int {
	w := 0
	for _, j := range l.pipeline.Jobs {
		w = max(w, len(j.Name))
	}
	return w
}

// jobEnv is what a job sees: as on the server, with build number 0.
func (l *local) jobEnv(ctx context.Context, j pipeline.Job) []string {
	a := l.a
	commit, _ := a.head(ctx)
	branch := a.branch(ctx)
	lane, ok := l.pipeline.Branches.LaneOf("refs/heads/" + branch)
	if !ok {
		lane = delivery.LaneMain
	}
	env := []string{
		"PATH=" + a.getenv("PATH"), "CI=true", "SHUNT_PROJECT=" + l.pipeline.Name, "SHUNT_BUILD=0", "SHUNT_COMMIT=" + commit,
		"SHUNT_BRANCH=" + branch, "SHUNT_LANE=" + string(lane), "BUILD_NUMBER=0", "BUILD_TAG=shunt-" + l.pipeline.Name + "-0",
		"GIT_COMMIT=" + commit, "GIT_BRANCH=" + branch, "JOB_NAME=" + j.Name, "WORKSPACE=" + l.root,
	}
	for name, f := range l.artifacts {
		key := "SHUNT_ARTIFACT_" + envName(name)
		env = append(env, key+"="+f.Path, key+"_SHA256="+f.SHA256)
	}
	for k, v := range j.Env {
		env = append(env, k+"="+v)
	}
	for _, s := range j.Secrets {
		env = append(env, s+"="+a.getenv(s))
	}
	return env
}

// envName is a name as it stands in an environment variable.
func envName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(s))
}

// prefixer turns a stored log into lines with a job's name before them.
type prefixer struct {
	prefix string
	w      io.Writer
	rest   []byte
	inside bool // the last stored line was a part, so that the next one continues it
}

func (p *prefixer) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		i := bytes.IndexByte(p.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		line, err := runlog.ParseLine(p.rest[:i])
		p.rest = p.rest[i+1:]
		if err != nil {
			return len(b), err
		}
		text := line.Text
		if !p.inside {
			text = p.prefix + text
		}
		if p.inside = line.Flag == runlog.FlagPart; !p.inside {
			text += "\n"
		}
		if _, err := io.WriteString(p.w, text); err != nil {
			return len(b), err
		}
	}
}

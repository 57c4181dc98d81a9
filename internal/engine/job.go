package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/gitrepo"
	"github.com/shuntcd/shunt/internal/junit"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
)

// job runs a job of the pipeline file.
func (p *performer) job(ctx context.Context) result {
	job := p.pipeline.Job(p.node.Target)
	if job == nil {
		return failed("the pipeline file has no job " + p.node.Target)
	}
	spec := runner.Spec{Timeout: job.Timeout, Reports: job.JUnit}
	for _, s := range job.Steps {
		spec.Steps = append(spec.Steps, runner.Step{Name: s.Name, Run: s.Run})
	}
	for _, a := range job.Artifacts {
		spec.Artifacts = append(spec.Artifacts, runner.Glob{Name: a.Name, Pattern: a.Path})
	}
	urls, err := p.environmentURLs(ctx)
	if err != nil {
		return result{err: err}
	}
	a, res, err := p.run(ctx, runSpec{id: attemptID(p.build, p.node.Name, p.node.Attempt), spec: spec, env: append(pairs(job.Env), urls...), secrets: job.Secrets, pool: job.RunsOn})
	if err != nil {
		return p.unrun(err)
	}
	var artifacts []delivery.Artifact
	for _, f := range res.Artifacts {
		err := failpoint.Hit("artifact", failpoint.BeforeCall)
		var size int64
		if err == nil {
			size, err = p.keep(ctx, res.Runner, a.ID, f)
		}
		if err == nil {
			err = failpoint.Hit("artifact", failpoint.BeforeRecord)
		}
		if errors.Is(err, fs.ErrNotExist) || delivery.IsKind(err, delivery.KindNotFound) {
			// Its result outlived the machine's death and its file did not.
			res.State, res.Reason, artifacts = delivery.AttemptLost, "artifact "+f.Name+" is gone from its runner's disk", nil
			a.State, a.Reason = res.State, res.Reason
			break
		}
		if delivery.IsKind(err, delivery.KindUnavailable) {
			return p.later(err.Error()) // the object store is away, and the runner keeps the file
		}
		if err != nil {
			return result{err: fmt.Errorf("store artifact: %w", err)}
		}
		artifacts = append(artifacts, delivery.Artifact{BuildID: p.build.ID, Name: f.Name, File: f.Base, SHA256: f.SHA256, Size: size, Node: p.node.Name})
	}
	cases, note := p.readReports(ctx, res.Runner, a.ID, res.Reports)
	r := result{state: delivery.NodeSucceeded}
	if res.State != delivery.AttemptSucceeded {
		r.state, r.reason = delivery.NodeFailed, res.Reason
		if res.State == delivery.AttemptCancelled {
			r.state = delivery.NodeCancelled
		}
		if flow.JobAgain(p.node.Attempt, job.Retry, res.State, p.lost) {
			r.state = delivery.NodePending // the next attempt
		}
	} else if note != "" {
		r.reason = note
	}
	r.save = func(ctx context.Context, tx *store.Tx) error {
		if err := tx.EndAttempt(ctx, a); err != nil {
			return err
		}
		p.remember(a)
		for _, x := range artifacts {
			if err := tx.SetArtifact(ctx, x); err != nil {
				return err
			}
		}
		if len(cases) == 0 {
			return nil
		}
		return tx.SetTests(ctx, p.build.ID, p.node.Name, cases)
	}
	r.done = func() { p.forget(ctx, a.ID) }
	return r
}

// remember keeps how an attempt ended in the owner's copy; it runs in the
// owner's goroutine.
func (p *performer) remember(a delivery.Attempt) {
	list := p.driver.attempts[a.Node]
	for i := range list {
		if list[i].ID == a.ID {
			list[i] = a
		}
	}
}

// unrun words an error that kept a job from running: what a person can mend
// fails the node, the end of the drive ends it, anything else is a bug.
func (p *performer) unrun(err error) result {
	if errors.Is(err, errNoRunner) {
		return p.later(err.Error())
	}
	if delivery.IsKind(err, delivery.KindInvalid) || delivery.IsKind(err, delivery.KindNotFound) || delivery.IsKind(err, delivery.KindRefused) {
		e, _ := errors.AsType[*delivery.Error](err)
		r := failed(strings.TrimSpace(e.What + ": " + e.Why))
		id := attemptID(p.build, p.node.Name, p.node.Attempt)
		r.save = func(ctx context.Context, tx *store.Tx) error {
			a, err := tx.Attempt(ctx, id)
			if err != nil || a.State != delivery.AttemptRunning {
				return ignoreMissing(err)
			}
			a.State, a.Reason = delivery.AttemptFailed, r.reason
			p.remember(a)
			return tx.EndAttempt(ctx, a)
		}
		return r
	}
	return result{err: err}
}

func ignoreMissing(err error) error {
	if delivery.IsKind(err, delivery.KindNotFound) {
		return nil
	}
	return err
}

// runSpec is one run of shell steps for this build.
type runSpec struct {
	id      string
	spec    runner.Spec
	env     []string
	secrets []string
	effect  string            // in the list of failpoints; "": the node's
	branch  string            // the branch that the work tree stands on; "": the pushed one
	tags    map[string]string // full tag refs to make visible
	pool    string            // of runners; "": this server's own
	near    string            // an attempt whose runner runs this too, if it lives
	beside  bool              // it has no attempt of its own, and any runner may run it
}

// ran is how steps ended, and on which runner.
type ran struct {
	runner.Result
	Runner string
}

// run starts shell steps in the runner, or adopts them when they were started
// before, follows their log and returns how they ended. It never starts the
// same id twice: the runner knows it.
func (p *performer) run(ctx context.Context, s runSpec) (delivery.Attempt, ran, error) {
	a := delivery.Attempt{ID: s.id, BuildID: p.build.ID, Node: p.node.Name, Attempt: p.node.Attempt, Fence: p.build.LeaseFence}
	if s.effect == "" {
		s.effect = pointOf(p.node.Kind)
	}
	where, err := p.give(ctx, s)
	if err == nil {
		err = p.ask(ctx, where, func(c *runner.Client) error {
			_, err := c.Wait(ctx, s.id, -1, 0)
			return err
		})
	}
	if errors.Is(err, runner.ErrUnknownJob) {
		if err = failpoint.Hit(s.effect, failpoint.AfterIntent); err == nil {
			err = p.start(ctx, where, s)
		}
	}
	res := ran{Runner: where}
	if err == nil {
		res.Result, err = p.follow(ctx, where, s.id)
	}
	if errors.Is(err, errLost) {
		res.Result, err = runner.Result{State: delivery.AttemptLost, ExitCode: -1, Reason: err.Error()}, nil
	}
	if err == nil {
		err = failpoint.Hit(s.effect, failpoint.BeforeRecord)
	}
	if err != nil {
		return a, res, err
	}
	a.State, a.ExitCode, a.Reason, a.StartedAt = res.State, res.ExitCode, res.Reason, res.StartedAt
	return a, res, nil
}

// start makes the work tree and hands the steps to the runner.
func (p *performer) start(ctx context.Context, where string, s runSpec) error {
	dir := p.workDir(s.id)
	src := filepath.Join(dir, "src")
	there, remote := dir, false // where the runner sees it
	err := p.ask(ctx, where, func(c *runner.Client) error {
		if remote = c.Remote(); !remote {
			return nil
		}
		info, err := c.Info(ctx)
		there = filepath.Join(info.Work, s.id)
		return err
	})
	if err != nil {
		return err
	}
	if err := runner.RemoveAll(dir); err != nil { // half made by a server that died
		return fmt.Errorf("clear work directory: %w", err)
	}
	if err := os.MkdirAll(src, 0o755); err != nil { //nolint:gosec // jobs of other users may read it
		return fmt.Errorf("make work directory: %w", err)
	}
	branch := s.branch
	if branch == "" {
		branch = p.build.Branch()
	}
	if err := p.repo(p.project).Checkout(ctx, gitrepo.CheckoutSpec{Dir: src, Commit: p.build.Commit, Branch: branch, Tags: s.tags, Whole: remote}); err != nil {
		return fmt.Errorf("make work tree: %w", err)
	}
	env, err := p.artifactEnv(ctx, dir, there)
	if err != nil {
		return err
	}
	spec := s.spec
	spec.ID, spec.Fence, spec.Dir = s.id, p.build.LeaseFence, filepath.Join(there, "src")
	spec.Env = append(append(p.baseEnv(spec.Dir), env...), s.env...)
	for _, name := range s.secrets {
		sealed, err := p.Store.Secret(ctx, p.build.Project, name)
		if err != nil {
			if delivery.IsKind(err, delivery.KindNotFound) {
				return &delivery.Error{Kind: delivery.KindNotFound, What: "secret " + name + " is not set", Why: "the pipeline file asks for it", Next: "shunt secret set " + p.build.Project + " " + name}
			}
			return err
		}
		value, err := p.Open(sealed)
		if err != nil {
			return fmt.Errorf("open secret %s: %w", name, err)
		}
		spec.Env = append(spec.Env, name+"="+value)
		spec.Secrets = append(spec.Secrets, value)
	}
	if err := failpoint.Hit(s.effect, failpoint.BeforeCall); err != nil {
		return err
	}
	err = p.ask(ctx, where, func(c *runner.Client) (err error) {
		if remote {
			if err := c.Send(ctx, s.id, dir); err != nil {
				return err
			}
		}
		if spec.Asked, err = p.still(ctx, c); err != nil {
			return err
		}
		_, err = c.Start(ctx, spec)
		return err
	})
	if remote {
		err = errors.Join(err, runner.RemoveAll(dir))
	}
	return err
}

// follow copies the log of a running job until it has ended and all is copied.
func (p *performer) follow(ctx context.Context, where, id string) (res runner.Result, err error) {
	log, err := p.Logs.write(ctx, id)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	offset := log.size.Load()
	for {
		var st runner.Status
		err := p.ask(ctx, where, func(c *runner.Client) (err error) {
			st, err = c.Wait(ctx, id, offset, 5*time.Second)
			return err
		})
		if errors.Is(err, runner.ErrUnknownJob) { // its runner forgot it: nobody knows how it ended
			return runner.Result{State: delivery.AttemptLost, Reason: "the runner no longer knows this job"}, log.finish(ctx)
		}
		if err != nil {
			return res, err
		}
		for offset < st.LogSize {
			if err := failpoint.Hit("log", failpoint.BeforeCall); err != nil {
				return res, err
			}
			var n int64
			err := p.ask(ctx, where, func(c *runner.Client) (err error) {
				n, err = c.Log(ctx, id, offset, log)
				offset += n
				return err
			})
			if err != nil {
				return res, fmt.Errorf("copy log: %w", err)
			}
			log.index(ctx, indexEvery)
			if n == 0 {
				break
			}
		}
		if st.Result != nil && offset >= st.LogSize {
			if err := failpoint.Hit("log", failpoint.BeforeRecord); err != nil {
				return res, err
			}
			return *st.Result, errors.Join(log.finish(ctx), failpoint.Hit("log", failpoint.AfterRecord))
		}
	}
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("save a directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// forget frees what a finished attempt holds, after its result is saved.
func (p *performer) forget(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	where, err := p.Store.AttemptRunner(ctx, id)
	if c, linked := p.client(where); err == nil && linked {
		err = c.Release(ctx, id)
	}
	if err != nil && !errors.Is(err, runner.ErrUnknownJob) {
		p.Log.Warn("cannot release a job", "job", id, "error", err)
		return // its work directory stays, by which the next sweep finds it
	}
	if err := runner.RemoveAll(p.workDir(id)); err != nil {
		p.Log.Warn("cannot remove a work directory", "job", id, "error", err)
	}
}

// baseEnv is what every script of the build gets, and nothing else of the server.
func (p *performer) baseEnv(workspace string) []string {
	b := p.build
	number := strconv.FormatInt(b.Number, 10)
	return []string{
		"CI=true", "SHUNT_PROJECT=" + b.Project, "SHUNT_BUILD=" + number, "SHUNT_COMMIT=" + b.Commit, "SHUNT_BRANCH=" + b.Branch(), "SHUNT_LANE=" + string(b.Lane),
		"SHUNT_URL=" + p.buildURL(b),
		"BUILD_NUMBER=" + number, "BUILD_TAG=shunt-" + b.Project + "-" + number, "BUILD_URL=" + p.buildURL(b), "GIT_COMMIT=" + b.Commit, "GIT_BRANCH=" + b.Branch(), "JOB_NAME=" + b.Project, "WORKSPACE=" + workspace,
	}
}

// artifactEnv lays verified copies of the build's artifacts beside the work tree,
// in a directory that the runner sees as there.
func (p *performer) artifactEnv(ctx context.Context, dir, there string) ([]string, error) {
	artifacts, err := p.Store.Artifacts(ctx, p.build.ID)
	if err != nil {
		return nil, err
	}
	var env []string
	for _, a := range artifacts {
		dest := filepath.Join(dir, "artifacts", a.Name)
		if err := os.MkdirAll(dest, 0o755); err != nil { //nolint:gosec // jobs of other users may read it
			return nil, fmt.Errorf("make artifact directory: %w", err)
		}
		file := filepath.Join(dest, filepath.Base(a.File))
		if err := p.Blobs.Materialize(ctx, a.SHA256, file); err != nil {
			return nil, err
		}
		name := "SHUNT_ARTIFACT_" + envName(a.Name)
		env = append(env, name+"="+filepath.Join(there, "artifacts", a.Name, filepath.Base(a.File)), name+"_SHA256="+a.SHA256)
	}
	return env, nil
}

// envName turns a name of the pipeline file into a part of a variable's name.
func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

func pairs(m map[string]string) (env []string) {
	for k, v := range m {
		env = append(env, k+"="+v)
	}
	return env
}

// environmentURLs tells a job where the build's environments are.
func (p *performer) environmentURLs(ctx context.Context) ([]string, error) {
	instances, err := p.Store.InstancesOf(ctx, p.build.ID)
	if err != nil {
		return nil, err
	}
	var env []string
	for _, i := range instances {
		if i.State == delivery.InstanceUp {
			env = append(env, "SHUNT_"+envName(i.Environment)+"_URL="+i.URL)
		}
	}
	return env, nil
}

// readReports parses JUnit files. A report that cannot be read is said so and
// fails nothing: the job's exit code decides.
func (p *performer) readReports(ctx context.Context, where, id string, paths []string) (cases []delivery.TestCase, note string) {
	for _, path := range paths {
		f, err := p.open(ctx, where, id, path)
		if err == nil {
			var got []delivery.TestCase
			got, err = junit.Parse(f)
			err = errors.Join(err, f.Close())
			cases = append(cases, got...)
		}
		if err != nil {
			note = fmt.Sprintf("a test report cannot be read: %v", err)
		}
	}
	return cases, note
}

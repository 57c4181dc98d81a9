package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
)

// instanceID is the label of an ephemeral environment: project, environment and
// build. A second one of the same build has a number of its own.
func instanceID(b delivery.Build, environment string, attempt int) string {
	id := fmt.Sprintf("%s-%s-%d", b.Project, environment, b.Number)
	if attempt > 1 {
		id += "-" + strconv.Itoa(attempt)
	}
	return pathID(id)
}

func (d *driver) instance(n delivery.Node, attempt int, now time.Time) delivery.Instance {
	keep := 8 * time.Hour
	if env := d.pipeline.Environment(n.Target); env != nil {
		keep = env.Keep
	}
	return delivery.Instance{ID: instanceID(d.build, n.Target, attempt), Project: d.build.Project, Environment: n.Target, BuildID: d.build.ID, Number: d.build.Number, ExpiresAt: now.Add(keep)}
}

// instanceEnv is what the scripts of an environment get beside the build's.
func instanceEnv(i delivery.Instance, fence int64) []string {
	env := []string{"SHUNT_ENVIRONMENT=" + i.Environment, "SHUNT_ENVIRONMENT_ID=" + i.ID, "SHUNT_FENCE=" + strconv.FormatInt(fence, 10), "SHUNT_ENVIRONMENT_URL=" + i.URL}
	for k, v := range i.Outputs {
		env = append(env, "SHUNT_OUTPUT_"+envName(k)+"="+v)
	}
	return env
}

// up creates an ephemeral environment and waits until it is ready. Its row was
// written before, so that `down` always finds it.
func (p *performer) up(ctx context.Context) result {
	env := p.pipeline.Environment(p.node.Target)
	if env == nil {
		return failed("the pipeline file has no environment " + p.node.Target)
	}
	i, err := p.Store.Instance(ctx, instanceID(p.build, p.node.Target, p.node.Attempt))
	if err != nil {
		return result{err: err}
	}
	a, res, err := p.run(ctx, runSpec{
		id:   attemptID(p.build, p.node.Name, p.node.Attempt),
		spec: runner.Spec{Steps: []runner.Step{{Name: "up", Run: env.Up}}, Timeout: env.Timeout, Daemons: true},
		env:  append(pairs(env.Env), instanceEnv(i, p.build.LeaseFence)...), secrets: env.Secrets,
	})
	if err != nil {
		r := p.unrun(err)
		i.State, i.Reason = delivery.InstanceFailed, r.reason
		return r.with(func(ctx context.Context, tx *store.Tx) error { return tx.SetInstance(ctx, i) })
	}
	i.Outputs, i.State = res.Outputs, delivery.InstanceUp
	r := succeeded()
	switch {
	case res.State == delivery.AttemptLost && flow.JobAgain(p.node.Attempt, 0, res.State, p.lost):
		// Nobody knows how far it came: destroy this one and make another.
		r.state, i.State, i.Reason = delivery.NodePending, delivery.InstanceDestroying, res.Reason
	case res.State != delivery.AttemptSucceeded:
		r, i.State, i.Reason = failed(res.Reason), delivery.InstanceFailed, res.Reason
		if res.State == delivery.AttemptCancelled {
			r.state = delivery.NodeCancelled
		}
	default:
		i.URL = res.Outputs["url"]
		if i.URL != "" && !absoluteHTTP(i.URL) {
			r, i.URL = failed("the url that `up` wrote to $SHUNT_OUTPUT is no absolute http or https address"), ""
		} else if err := p.ready(ctx, i.URL, env.Ready, env.Timeout); err != nil {
			if ctx.Err() != nil {
				return result{err: ctx.Err()}
			}
			r = failed(err.Error())
		}
		if r.state == delivery.NodeFailed {
			i.State, i.Reason = delivery.InstanceFailed, r.reason
		}
	}
	r.done = func() { p.forget(ctx, a.ID) }
	return r.with(func(ctx context.Context, tx *store.Tx) error {
		p.remember(a)
		if err := tx.EndAttempt(ctx, a); err != nil {
			return err
		}
		if err := tx.SetInstance(ctx, i); err != nil {
			return err
		}
		if i.State == delivery.InstanceDestroying {
			if err := tx.RetryDown(ctx, i.ID, tx.Now()); err != nil {
				return err
			}
		}
		tx.Event(p.build.Project, p.build.Number, "environment")
		return tx.Audit(ctx, p.build.Project, p.build.Number, "shunt", "environment "+string(i.State), strings.TrimSpace(i.ID+" "+i.URL+" "+i.Reason))
	})
}

// with adds to what is saved with a result.
func (r result) with(save func(ctx context.Context, tx *store.Tx) error) result {
	first := r.save
	r.save = func(ctx context.Context, tx *store.Tx) error {
		if first != nil {
			if err := first(ctx, tx); err != nil {
				return err
			}
		}
		return save(ctx, tx)
	}
	return r
}

func absoluteHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// ready polls until the address answers 2xx or 3xx; without one there is nothing to ask.
func (p *performer) ready(ctx context.Context, base, ready string, patience time.Duration) error {
	if ready == "" {
		return nil
	}
	if strings.HasPrefix(ready, "/") {
		if base == "" {
			return fmt.Errorf("ready is %s but the environment has no url: write url=... to $SHUNT_OUTPUT, or give an absolute address", ready)
		}
		ready = strings.TrimSuffix(base, "/") + ready
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	wait := 50 * time.Millisecond
	for {
		err := answers(ctx, ready)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not become ready in %s: %w", ready, patience, err)
		case <-time.After(wait):
		}
		wait = min(2*wait, 2*time.Second)
	}
}

// answers asks once.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	_ = resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

// down destroys the environment of a build. When its script fails, the build
// goes on and the environment is tried again until it is gone.
func (p *performer) down(ctx context.Context) result {
	if err := p.destroy(ctx, instanceID(p.build, p.node.Target, p.upAttempt)); err != nil {
		if ctx.Err() != nil {
			return result{err: ctx.Err()}
		}
		if !errors.Is(err, errNotGone) {
			return result{err: err} // nothing is claimed yet: the next driver tries again
		}
		return failed(err.Error())
	}
	return succeeded()
}

// downClaim is how long others leave a destruction to whoever began it.
const downClaim = 30 * time.Second

// upOf is the attempt that created an instance: what it left behind on its
// runner's machine is ended there.
func (p *performer) upOf(i delivery.Instance) string {
	n := max(1, p.upAttempt)
	for try := 2; p.upAttempt == 0 && try < 100; try++ {
		if instanceID(p.build, i.Environment, try) == i.ID {
			n = try
		}
	}
	return attemptID(p.build, "up/"+i.Environment, n)
}

// errNotGone says that an environment's `down` script failed; it is due again.
var errNotGone = errors.New("the environment is not gone")

// destroy runs an environment's `down` script once, or takes over the run that
// an earlier server began. It touches only what Shunt has a row for.
func (p *performer) destroy(ctx context.Context, id string) error {
	defer p.lock("instance/" + id)()
	i, err := p.Store.Instance(ctx, id)
	if err != nil || i.State == delivery.InstanceDown {
		return err
	}
	env := p.pipeline.Environment(i.Environment)
	if env == nil {
		return fmt.Errorf("the pipeline file has no environment %s", i.Environment)
	}
	node := "down/" + i.Environment
	p.node = delivery.Node{BuildID: i.BuildID, Name: node, Kind: delivery.NodeDown, Target: i.Environment}
	var a delivery.Attempt
	err = p.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		a = delivery.Attempt{}
		attempts, err := tx.Attempts(ctx, i.BuildID)
		if err != nil {
			return err
		}
		for _, x := range attempts { // of all instances of this environment: a lost one may end at the same time
			switch {
			case x.Node != node:
			case x.State == delivery.AttemptRunning && strings.HasPrefix(x.ID, id+"-down-"):
				a = x
				return nil
			default:
				a.Attempt = max(a.Attempt, x.Attempt)
			}
		}
		if err := failpoint.Hit("down", failpoint.BeforeIntent); err != nil {
			return err
		}
		a = delivery.Attempt{ID: fmt.Sprintf("%s-down-%d", id, a.Attempt+1), BuildID: i.BuildID, Node: node, Attempt: a.Attempt + 1, Fence: p.build.LeaseFence}
		i.State, i.DownTries = delivery.InstanceDestroying, i.DownTries+1
		if err := tx.SetInstance(ctx, i); err != nil {
			return err
		}
		// Whoever finds it destroying after that joins in, for this server may have died.
		if err := tx.RetryDown(ctx, id, tx.Now().Add(downClaim)); err != nil {
			return err
		}
		tx.Event(i.Project, i.Number, "environment")
		return tx.InsertAttempt(ctx, a)
	})
	if err != nil {
		return err
	}
	got, res, err := p.run(ctx, runSpec{
		id: a.ID, spec: runner.Spec{Steps: []runner.Step{{Name: "down", Run: env.Down}}, Timeout: env.Timeout},
		env: append(pairs(env.Env), instanceEnv(i, p.build.LeaseFence)...), secrets: env.Secrets, near: p.upOf(i),
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, errDeaf) {
		return err // it may run; whoever looks after environments asks again
	}
	if err != nil {
		got, res.Result = a, runner.Result{State: delivery.AttemptFailed, Reason: p.unrun(err).reason}
		if res.Reason == "" {
			res.Reason = err.Error()
		}
		got.State, got.Reason = res.State, res.Reason
	}
	err = p.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.EndAttempt(ctx, got); err != nil {
			return err
		}
		tx.Event(i.Project, i.Number, "environment")
		if res.State == delivery.AttemptSucceeded {
			i.State, i.DownAt, i.Reason = delivery.InstanceDown, tx.Now(), ""
			if err := tx.SetInstance(ctx, i); err != nil {
				return err
			}
			return tx.Audit(ctx, i.Project, i.Number, "shunt", "environment destroyed", i.ID)
		}
		i.Reason = "destroying it failed: " + res.Reason
		if err := tx.SetInstance(ctx, i); err != nil {
			return err
		}
		return tx.RetryDown(ctx, i.ID, tx.Now().Add(min(10*time.Minute, time.Duration(1<<min(i.DownTries, 10))*5*time.Second)))
	})
	if err != nil {
		return err
	}
	if err := failpoint.Hit("down", failpoint.AfterRecord); err != nil {
		return err
	}
	p.forget(ctx, a.ID)
	if res.State != delivery.AttemptSucceeded {
		return fmt.Errorf("%w: destroying %s failed: %s; Shunt tries again until it is", errNotGone, i.ID, res.Reason)
	}
	return nil
}

// lookAfterInstances destroys what has lived long enough, and what could not be
// destroyed before.
func (e *Engine) lookAfterInstances(ctx context.Context, now time.Time) error {
	due, err := e.Store.DueInstances(ctx, now)
	if err != nil {
		return err
	}
	for _, i := range due {
		e.once("destroy/"+i.ID, func(ctx context.Context) {
			p, err := e.performerOf(ctx, i.BuildID)
			if err == nil {
				err = p.destroy(ctx, i.ID)
			}
			if err != nil && ctx.Err() == nil {
				e.Log.Warn("an environment is not gone yet", "environment", i.ID, "error", err)
			}
		})
	}
	return nil
}

// healthEvery is how often environments that are up are asked whether they answer.
const healthEvery = 30 * time.Second

// compareInstances compares what is recorded as up with what answers: an
// environment that died or was taken away behind Shunt's back says so on its
// page and at the gate. It stays recorded until `down` has run.
func (e *Engine) compareInstances(ctx context.Context, now time.Time) error {
	e.mu.Lock()
	due := now.Sub(e.compared) >= healthEvery
	if due {
		e.compared = now
	}
	e.mu.Unlock()
	if !due {
		return nil
	}
	up, err := e.Store.InstancesUp(ctx)
	if err != nil {
		return err
	}
	for _, i := range up {
		e.once("compare/"+i.ID, func(ctx context.Context) { e.complain(ctx, "ask "+i.ID, e.compareInstance(ctx, i)) })
	}
	return nil
}

func (e *Engine) compareInstance(ctx context.Context, i delivery.Instance) error {
	p, err := e.performerOf(ctx, i.BuildID)
	if err != nil {
		return err
	}
	env := p.pipeline.Environment(i.Environment)
	if env == nil || !strings.HasPrefix(env.Ready, "/") || i.URL == "" {
		return nil
	}
	silence := answers(ctx, strings.TrimSuffix(i.URL, "/")+env.Ready)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	alive := silence == nil
	if alive == (i.Reason == "") {
		return nil // known already
	}
	return e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		reason := ""
		if !alive {
			reason = "it has not answered since " + tx.Now().Format("15:04 UTC")
		}
		tx.Event(i.Project, i.Number, "environment")
		return tx.SetHealth(ctx, i.ID, reason)
	})
}

// performerOf makes a performer for what is done beside a drive.
func (e *Engine) performerOf(ctx context.Context, buildID int64) (*performer, error) {
	b, err := e.Store.Build(ctx, buildID)
	if err != nil {
		return nil, err
	}
	project, err := e.Store.Project(ctx, b.Project)
	if err != nil {
		return nil, err
	}
	pl, err := e.pipelineOf(ctx, e.Store, b)
	return &performer{Engine: e, build: b, project: project, pipeline: pl}, err
}

// once runs f in the background unless it already runs under that name.
func (e *Engine) once(name string, f func(context.Context)) {
	e.inBackground(name, f, false)
}

// afresh runs f in the background. Where it already runs under that name, it runs
// once more after that: what it looked at may have changed since.
func (e *Engine) afresh(name string, f func(context.Context)) {
	e.inBackground(name, f, true)
}

func (e *Engine) inBackground(name string, f func(context.Context), again bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, running := e.running[name]; running {
		e.running[name] = e.running[name] || again
		return
	}
	if e.closed {
		return
	}
	e.running[name] = false
	e.wg.Go(func() {
		for again := true; again; {
			f(e.ctx)
			e.mu.Lock()
			if again = e.running[name] && e.ctx.Err() == nil; again {
				e.running[name] = false
			} else {
				delete(e.running, name)
			}
			e.mu.Unlock()
		}
	})
}

package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/runner"
	"github.com/shuntcd/shunt/internal/store"
)

// driver owns one build's state for the time of a drive. Only the goroutine of
// run touches its fields; performers get copies and answer with a result.
type driver struct {
	*Engine
	build    delivery.Build
	project  delivery.Project
	pipeline *pipeline.Pipeline
	nodes    []delivery.Node
	attempts map[string][]delivery.Attempt // by node, oldest first
	active   map[string]bool
	results  chan result
	retry    map[string]time.Time // nodes to perform again, and when
}

// result is what a performer found. save runs in the transaction that moves the
// node, so that both are one commit; done runs after it.
type result struct {
	node   string
	state  delivery.NodeState
	reason string
	save   func(ctx context.Context, tx *store.Tx) error
	done   func()
	again  time.Duration // not final: the far side is away, perform again after this
	err    error         // a bug, a failed save, or the end of the drive: nothing is known of the node
}

// drive takes the lease and drives the build as far as it goes.
func (e *Engine) drive(ctx context.Context, id int64) error {
	if e.paused() {
		return nil // whoever looks after builds finds it again
	}
	signal := make(chan struct{}, 1)
	e.mu.Lock()
	if _, ok := e.drives[id]; ok {
		e.mu.Unlock()
		return nil
	}
	e.drives[id] = signal
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		delete(e.drives, id)
		e.mu.Unlock()
	}()

	d := &driver{Engine: e, active: map[string]bool{}, retry: map[string]time.Time{}, results: make(chan result)}
	var ok bool
	err := e.rows(ctx, "lease", func(ctx context.Context, tx *store.Tx) (err error) {
		if d.build, ok, err = tx.Lease(ctx, id, e.Owner, leaseTTL); !ok || err != nil {
			return err
		}
		tx.Event(d.build.Project, d.build.Number, "build")
		return d.load(ctx, tx)
	})
	if err != nil || !ok {
		return err
	}
	return d.run(ctx, signal)
}

type reader interface {
	Project(ctx context.Context, name string) (delivery.Project, error)
	Nodes(ctx context.Context, buildID int64) ([]delivery.Node, error)
	Attempts(ctx context.Context, buildID int64) ([]delivery.Attempt, error)
}

func (d *driver) load(ctx context.Context, r reader) (err error) {
	if d.project, err = r.Project(ctx, d.build.Project); err != nil {
		return err
	}
	if d.nodes, err = r.Nodes(ctx, d.build.ID); err != nil {
		return err
	}
	attempts, err := r.Attempts(ctx, d.build.ID)
	if err != nil {
		return err
	}
	d.attempts = map[string][]delivery.Attempt{}
	for _, a := range attempts {
		d.attempts[a.Node] = append(d.attempts[a.Node], a)
	}
	d.pipeline, err = d.pipelineOf(ctx, r, d.build)
	return err
}

// run is the loop of the one goroutine that owns the build.
func (d *driver) run(ctx context.Context, signal <-chan struct{}) error {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	// A failed save, or the end of the server, ends the performers before the drive.
	fail := func(err error) error {
		cancel()
		for len(d.active) > 0 {
			r := <-d.results
			delete(d.active, r.node)
		}
		giveBack := func(after time.Duration) error {
			save, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer stop()
			return d.write(save, func(ctx context.Context, tx *store.Tx) error {
				return tx.Unlease(ctx, d.build.ID, d.build.LeaseFence, delivery.BuildRunning, "", after)
			})
		}
		switch {
		case ctx.Err() != nil: // a graceful stop: somebody drives on
			return giveBack(0)
		case errors.Is(err, errDeaf): // another server may hear the runner
			d.avoid(d.build.ID)
			return errors.Join(err, giveBack(0))
		case delivery.IsKind(err, delivery.KindUnavailable): // the database may be back already; else the lease runs out
			return errors.Join(err, giveBack(time.Second))
		}
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	if err := d.preflight(ctx, work, beat.C); err != nil {
		return fail(err)
	}
	for _, n := range d.nodes {
		if n.State == delivery.NodeRunning { // left behind by a driver that died
			d.perform(work, n)
		}
	}
	d.askLocks()
	for {
		ended, err := d.step(ctx, work)
		if ended || err != nil {
			if err != nil {
				return fail(err)
			}
			return nil
		}
		select {
		case r := <-d.results:
			err = d.take(ctx, r)
		case <-signal:
			d.askLocks()
			err = d.refresh(ctx)
		case <-beat.C:
			err = d.refresh(ctx)
			for name, at := range d.retry {
				if !d.Store.Now().Before(at) {
					delete(d.retry, name)
					d.perform(work, *d.node(name))
				}
			}
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			return fail(err)
		}
	}
}

// askLocks lets the nodes that wait for an environment's lock ask again.
func (d *driver) askLocks() {
	for i, n := range d.nodes {
		if n.State == delivery.NodeWaiting && n.Kind != delivery.NodeGate {
			d.nodes[i].State = delivery.NodePending
		}
	}
}

// write saves under the drive's lease.
func (d *driver) write(ctx context.Context, f func(ctx context.Context, tx *store.Tx) error) error {
	return d.underLease(ctx, d.build, f)
}

// underLease saves for whoever has the build's lease, and renews it; every write of
// a driver and of its performers goes through it.
func (e *Engine) underLease(ctx context.Context, b delivery.Build, f func(ctx context.Context, tx *store.Tx) error) error {
	return e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.Guard(ctx, b.ID, b.LeaseFence, leaseTTL); err != nil {
			return err
		}
		return f(ctx, tx)
	})
}

// step starts what can start, or ends the drive when nothing can.
func (d *driver) step(ctx, work context.Context) (ended bool, err error) {
	var begun []delivery.Node
	err = d.write(ctx, func(ctx context.Context, tx *store.Tx) error {
		begun = nil
		if err := d.absorb(ctx, tx); err != nil {
			return err
		}
		for {
			start, unreached := flow.NextNodes(d.nodes)
			for _, name := range unreached {
				if err := d.move(ctx, tx, name, delivery.NodeUnreached, "", nil); err != nil {
					return err
				}
			}
			if len(start) == 0 && len(unreached) == 0 {
				break
			}
			for _, name := range start {
				n, err := d.begin(ctx, tx, name)
				if err != nil {
					return err
				}
				if n.State == delivery.NodeRunning {
					begun = append(begun, n)
				}
			}
		}
		if len(d.active)+len(begun) > 0 {
			return nil
		}
		ended = true
		if err := failpoint.Hit("end", failpoint.BeforeIntent); err != nil {
			return err
		}
		return errors.Join(d.end(ctx, tx), failpoint.Hit("end", failpoint.BeforeCall))
	})
	if err != nil {
		return false, err
	}
	if ended {
		return true, failpoint.Hit("end", failpoint.AfterRecord)
	}
	for _, n := range begun {
		d.perform(work, n)
	}
	return ended, nil
}

// absorb takes over what people decided: gates and a request to cancel.
func (d *driver) absorb(ctx context.Context, tx *store.Tx) error {
	b, err := tx.Build(ctx, d.build.ID)
	if err != nil {
		return err
	}
	d.build.CancelledBy = b.CancelledBy
	if d.project, err = tx.Project(ctx, d.build.Project); err != nil {
		return err
	}
	gates, err := tx.Gates(ctx, d.build.ID)
	if err != nil {
		return err
	}
	for _, g := range gates {
		n := d.node("gate/" + g.Environment)
		if n == nil || n.State != delivery.NodeWaiting {
			continue
		}
		switch g.State {
		case delivery.GatePromoted:
			err = d.move(ctx, tx, n.Name, delivery.NodeSucceeded, "promoted by "+g.DecidedBy, nil)
		case delivery.GateRejected:
			err = d.move(ctx, tx, n.Name, delivery.NodeFailed, "rejected by "+g.DecidedBy+": "+g.Reason, nil)
		case delivery.GateExpired:
			err = d.move(ctx, tx, n.Name, delivery.NodeFailed, "expired: nobody decided in time", nil)
		case delivery.GateCancelled:
			err = d.move(ctx, tx, n.Name, delivery.NodeCancelled, "cancelled by "+g.DecidedBy, nil)
		case delivery.GateOpen:
		}
		if err != nil {
			return err
		}
	}
	if d.build.CancelledBy == "" {
		return nil
	}
	for _, n := range d.nodes {
		_, away := d.retry[n.Name]
		stoppable := n.State == delivery.NodePending || n.State == delivery.NodeWaiting || away
		if stoppable && n.Kind != delivery.NodeDown && n.Kind != delivery.NodeRelease {
			delete(d.retry, n.Name)
			if err := d.move(ctx, tx, n.Name, delivery.NodeCancelled, "cancelled by "+d.build.CancelledBy, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// end gives the lease back with the build's outcome.
func (d *driver) end(ctx context.Context, tx *store.Tx) error {
	status, reason := flow.Outcome(d.nodes)
	var again time.Duration
	for _, at := range d.retry { // something could not be reached: drive again then, whatever else waits
		after := max(at.Sub(tx.Now()), time.Second)
		if again == 0 || after < again {
			again = after
		}
		status, reason = delivery.BuildRunning, ""
	}
	switch {
	case status == delivery.BuildRunning && again == 0:
		return fmt.Errorf("build %d of %s can neither go on nor end", d.build.Number, d.build.Project)
	case status == delivery.BuildCancelled && d.build.CancelledBy != "":
		reason = "cancelled by " + d.build.CancelledBy
	default:
		status = givenUp(status)
	}
	before := d.build.Status
	if err := tx.Unlease(ctx, d.build.ID, d.build.LeaseFence, status, reason, again); err != nil {
		return err
	}
	if again > 0 {
		return d.wake(ctx, tx, d.build.ID, d.build.Lane, again)
	}
	d.build.Status, d.build.Reason = status, reason
	tx.Event(d.build.Project, d.build.Number, "build")
	if before == status || !status.Final() {
		return nil
	}
	if err := tx.Audit(ctx, d.build.Project, d.build.Number, "shunt", "build "+string(status), reason); err != nil {
		return err
	}
	return d.mailEnd(ctx, tx)
}

// node finds a node of the owner's copy.
func (d *driver) node(name string) *delivery.Node {
	for i := range d.nodes {
		if d.nodes[i].Name == name {
			return &d.nodes[i]
		}
	}
	return nil
}

// move saves a node's state, then believes it: the owner's copy changes in the
// transaction, and a transaction that fails ends the drive.
func (d *driver) move(ctx context.Context, tx *store.Tx, name string, state delivery.NodeState, reason string, change func(*delivery.Node)) error {
	n := d.node(name)
	if n == nil {
		return fmt.Errorf("build %d has no node %s", d.build.Number, name)
	}
	n.State, n.Reason = state, reason
	switch {
	case state == delivery.NodeRunning:
		n.StartedAt, n.FinishedAt = tx.Now(), time.Time{}
	case state.Final():
		n.FinishedAt = tx.Now()
	}
	if change != nil {
		change(n)
	}
	tx.Event(d.build.Project, d.build.Number, "node")
	return tx.SetNode(ctx, *n)
}

// begin starts a node: its state, and the rows that its performer relies on, in
// one transaction.
func (d *driver) begin(ctx context.Context, tx *store.Tx, name string) (delivery.Node, error) {
	n := d.node(name)
	if n == nil {
		return delivery.Node{}, fmt.Errorf("build %d has no node %s", d.build.Number, name)
	}
	switch n.Kind {
	case delivery.NodeDown:
		up := d.node("up/" + n.Target)
		if up == nil || up.Attempt == 0 {
			return *n, d.move(ctx, tx, name, delivery.NodeSkipped, "it was never created", nil)
		}
	case delivery.NodeUp:
		if err := tx.InsertInstance(ctx, d.instance(*n, n.Attempt+1, tx.Now())); err != nil {
			return *n, err
		}
	case delivery.NodeJob, delivery.NodeTag, delivery.NodePublish, delivery.NodeGate, delivery.NodeDeploy, delivery.NodeRelease, delivery.NodeRollback:
	}
	if n.Kind == delivery.NodeJob || n.Kind == delivery.NodeUp {
		if err := failpoint.Hit(string(n.Kind), failpoint.BeforeIntent); err != nil {
			return *n, err
		}
	}
	err := d.move(ctx, tx, name, delivery.NodeRunning, "", func(n *delivery.Node) { n.Attempt++ })
	if err != nil {
		return *n, err
	}
	if n.Kind == delivery.NodeJob || n.Kind == delivery.NodeUp {
		err = d.insertAttempt(ctx, tx, *n)
	}
	return *n, err
}

// attemptID names an attempt for the runner; it is unique for ever and safe in a path.
func attemptID(b delivery.Build, node string, attempt int) string {
	return pathID(fmt.Sprintf("%s-%d-%s-%d", b.Project, b.Number, strings.ReplaceAll(node, "/", "-"), attempt))
}

// pathID cuts an id to what a runner and a file system take, with room for a
// suffix; a digest keeps it unique.
func pathID(id string) string {
	const most = 100
	if len(id) <= most {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return id[:most-13] + "-" + hex.EncodeToString(sum[:6])
}

func (d *driver) insertAttempt(ctx context.Context, tx *store.Tx, n delivery.Node) error {
	a := delivery.Attempt{ID: attemptID(d.build, n.Name, n.Attempt), BuildID: d.build.ID, Node: n.Name, Attempt: n.Attempt, Fence: d.build.LeaseFence, State: delivery.AttemptRunning, StartedAt: tx.Now()}
	d.attempts[n.Name] = append(d.attempts[n.Name], a)
	return tx.InsertAttempt(ctx, a)
}

// perform does a node in a goroutine of its own. d is not touched by it but for
// what does not change in a drive: build, pipeline and configuration.
func (d *driver) perform(ctx context.Context, n delivery.Node) {
	d.active[n.Name] = true
	p := performer{Engine: d.Engine, build: d.build, project: d.project, pipeline: d.pipeline, node: n, lost: d.lostBefore(n.Name), driver: d}
	if n.Kind == delivery.NodeDown {
		p.upAttempt = d.node("up/" + n.Target).Attempt
	}
	go func() {
		r := p.do(ctx)
		r.node = n.Name
		d.results <- r
	}()
}

func (d *driver) lostBefore(node string) (lost int) {
	for _, a := range d.attempts[node] {
		if a.State == delivery.AttemptLost {
			lost++
		}
	}
	return lost
}

// take saves what a performer found.
func (d *driver) take(ctx context.Context, r result) error {
	delete(d.active, r.node)
	if r.err != nil {
		return r.err
	}
	if r.again > 0 {
		d.retry[r.node] = d.Store.Now().Add(r.again)
		return d.write(ctx, func(ctx context.Context, tx *store.Tx) error {
			n := d.node(r.node)
			n.Reason = r.reason
			tx.Event(d.build.Project, d.build.Number, "node")
			return tx.SetNode(ctx, *n)
		})
	}
	err := d.write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if r.save != nil {
			if err := r.save(ctx, tx); err != nil {
				return err
			}
		}
		return d.move(ctx, tx, r.node, r.state, r.reason, nil)
	})
	if err != nil {
		return err
	}
	n := d.node(r.node)
	switch n.Kind {
	case delivery.NodeJob, delivery.NodeUp, delivery.NodeDeploy, delivery.NodeRollback, delivery.NodeGate:
		if err := failpoint.Hit(pointOf(n.Kind), failpoint.AfterRecord); err != nil {
			return err
		}
	case delivery.NodeTag, delivery.NodePublish, delivery.NodeDown, delivery.NodeRelease: // theirs is where they record
	}
	if r.done != nil {
		r.done()
	}
	return failpoint.Hit(pointOf(n.Kind), failpoint.BeforeAnswer)
}

// refresh renews the lease and obeys a request to cancel.
func (d *driver) refresh(ctx context.Context) error {
	var cancelled bool
	err := d.write(ctx, func(ctx context.Context, tx *store.Tx) error {
		b, err := tx.Build(ctx, d.build.ID)
		cancelled = b.CancelledBy != ""
		return err
	})
	if err != nil || !cancelled {
		return err
	}
	for name := range d.active {
		n := d.node(name)
		if n.Kind == delivery.NodeJob || n.Kind == delivery.NodeUp {
			if err := d.stop(ctx, attemptID(d.build, n.Name, n.Attempt)); err != nil && !errors.Is(err, runner.ErrUnknownJob) {
				d.Log.Warn("cannot stop a job", "node", name, "error", err)
			}
		}
	}
	return nil
}

func (d *driver) stop(ctx context.Context, id string) error {
	where, err := d.Store.AttemptRunner(ctx, id)
	if err != nil {
		return err
	}
	c, linked := d.client(where)
	if !linked {
		return errDeaf // asked again with the next beat
	}
	return c.Stop(ctx, id, "cancelled")
}

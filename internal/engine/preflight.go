package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// preflightTime bounds how long artifact repositories are asked.
const preflightTime = 30 * time.Second

// preflight asks every artifact repository of a build whether it would take a
// push, before the first job runs: minutes of building are not spent on what
// cannot be kept. A refusal fails the build at once, with the repository's words.
func (d *driver) preflight(ctx, work context.Context, beat <-chan time.Time) error {
	pending := func(kind delivery.NodeKind) bool {
		return slices.ContainsFunc(d.nodes, func(n delivery.Node) bool { return n.Kind == kind && n.State == delivery.NodePending })
	}
	under := slices.ContainsFunc(d.nodes, func(n delivery.Node) bool { return n.State == delivery.NodeRunning })
	if under || !pending(delivery.NodeJob) || !pending(delivery.NodePublish) || d.build.CancelledBy != "" {
		return nil
	}
	work, cancel := context.WithTimeout(work, preflightTime)
	defer cancel()
	type answer struct {
		node string
		err  error
	}
	answers := make(chan answer, 1)
	p := performer{Engine: d.Engine, build: d.build, project: d.project, pipeline: d.pipeline}
	nodes := slices.Clone(d.nodes)
	go func() {
		for _, n := range nodes {
			if n.Kind != delivery.NodePublish || n.State != delivery.NodePending {
				continue
			}
			if err := p.asked(work, n); err != nil {
				answers <- answer{n.Name, err}
				return
			}
		}
		answers <- answer{}
	}()
	for {
		select {
		case a := <-answers:
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case a.err == nil:
				return nil
			}
			if o, ok := errors.AsType[*outcome](a.err); ok {
				return d.refuseAll(ctx, a.node, o.words)
			}
			return a.err
		case <-beat:
			if err := d.refresh(ctx); err != nil {
				cancel()
				<-answers
				return err
			}
		}
	}
}

// asked asks one repository. The file's name is not known before it is built.
func (p *performer) asked(ctx context.Context, n delivery.Node) error {
	d := p.pipeline.Publication(n.Name)
	if d == nil {
		return &outcome{words: "the pipeline file has no " + n.Name}
	}
	pub, err := p.target(ctx, *d, delivery.Artifact{Name: d.Artifact, File: d.Artifact})
	if err != nil {
		return err
	}
	if err := pub.Preflight(ctx); err != nil { // also what may pass: nothing was built yet
		return &outcome{words: err.Error(), err: err}
	}
	return nil
}

// refuseAll fails a build before anything of it has run.
func (d *driver) refuseAll(ctx context.Context, node, words string) error {
	return d.write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := d.move(ctx, tx, node, delivery.NodeFailed, "asked before the build began: "+words, nil); err != nil {
			return err
		}
		for _, n := range d.nodes {
			if n.State != delivery.NodePending || n.Kind == delivery.NodeDown {
				continue
			}
			if err := d.move(ctx, tx, n.Name, delivery.NodeUnreached, "", nil); err != nil {
				return err
			}
		}
		return nil
	})
}

package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/store"
)

// performer does one node.
type performer struct {
	*Engine
	build     delivery.Build
	project   delivery.Project
	pipeline  *pipeline.Pipeline
	node      delivery.Node
	lost      int // earlier attempts that their runner lost
	upAttempt int // of a down node: which instance it ends
	driver    *driver
}

func (p *performer) do(ctx context.Context) (r result) {
	defer func() {
		if v := recover(); v != nil { // a bug in one performer must not end the server
			r = result{err: fmt.Errorf("performing %s of build %d: panic: %v", p.node.Name, p.build.Number, v)}
		}
	}()
	switch p.node.Kind {
	case delivery.NodeJob:
		return p.job(ctx)
	case delivery.NodeTag:
		return p.tag(ctx)
	case delivery.NodePublish:
		return p.publish(ctx)
	case delivery.NodeUp:
		return p.up(ctx)
	case delivery.NodeDown:
		return p.down(ctx)
	case delivery.NodeDeploy:
		return p.deploy(ctx)
	case delivery.NodeRollback:
		return p.rollback(ctx)
	case delivery.NodeRelease:
		return p.release(ctx)
	case delivery.NodeGate:
		return p.gate(ctx)
	}
	return result{err: fmt.Errorf("node %s has no performer", p.node.Name)}
}

// write saves under the drive's lease, from a performer.
func (p *performer) write(ctx context.Context, f func(ctx context.Context, tx *store.Tx) error) error {
	return p.underLease(ctx, p.build, f)
}

// rows commits an effect that is rows and nothing else: its call is the commit.
func (e *Engine) rows(ctx context.Context, effect string, f func(ctx context.Context, tx *store.Tx) error) error {
	if err := failpoint.Hit(effect, failpoint.BeforeIntent); err != nil {
		return err
	}
	err := e.Store.Write(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := f(ctx, tx); err != nil {
			return err
		}
		return failpoint.Hit(effect, failpoint.BeforeCall)
	})
	if err != nil {
		return err
	}
	return failpoint.Hit(effect, failpoint.AfterRecord)
}

// pointOf is the effect of a kind of node in the list of failpoints.
func pointOf(kind delivery.NodeKind) string {
	if kind == delivery.NodeRollback {
		return string(delivery.NodeDeploy)
	}
	return string(kind)
}

func failed(reason string) result { return result{state: delivery.NodeFailed, reason: reason} }

func succeeded() result { return result{state: delivery.NodeSucceeded} }

// later is a result that is none yet: the far side is away.
func (p *performer) later(reason string) result {
	waited := p.Store.Now().Sub(p.node.StartedAt)
	return result{again: max(2*time.Second, min(time.Minute, waited/5)), reason: reason}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("engine: %T does not marshal: %v", v, err))
	}
	return string(b)
}

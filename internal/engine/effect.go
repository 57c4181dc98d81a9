package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/failpoint"
	"github.com/shuntcd/shunt/internal/store"
)

// effect is an act outside the database that may be repeated once it is known
// that it has not happened: a tag, an upload, the release push.
type effect struct {
	key    string
	kind   string
	params string // JSON; the same key never has others
	// call does it. An error that is *outcome says whether it is known not to
	// have happened; any other error leaves it unknown.
	call func(ctx context.Context) (answer string, err error)
	// probe looks it up: done, or known not to be. An error leaves it unknown.
	probe func(ctx context.Context) (answer string, done bool, err error)
}

// outcome is an error of an effect that is known not to have happened.
type outcome struct {
	words string
	err   error
	// incident says that somebody else has done another thing under our name:
	// nothing ships until a person has looked.
	incident bool
}

func (o *outcome) Error() string { return o.words }
func (o *outcome) Unwrap() error { return o.err }

// errAway says that the far side cannot be reached: the effect stays unknown, or
// is not done yet, and is taken up again later.
var errAway = errors.New("the far side cannot be reached")

// effectKey is the idempotency key of a node's effect: a new decision to try
// again (a re-run, a retry) is a new attempt of the node, thus a new effect.
func (p *performer) effectKey() string {
	return fmt.Sprintf("%d/%s/%d", p.build.ID, p.node.Name, p.node.Attempt)
}

// resultIncident marks a failed effect that was an incident, for a driver that
// finds it before that was saved with the node.
const resultIncident = "incident"

// perform writes the effect down, does it and confirms it. An effect that an
// earlier driver wrote down is looked up first.
func (p *performer) perform(ctx context.Context, e effect) (answer string, err error) {
	if err := failpoint.Hit(e.kind, failpoint.BeforeIntent); err != nil {
		return "", err
	}
	var known delivery.Effect
	var fresh bool
	err = p.write(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		known, fresh, err = tx.Intend(ctx, delivery.Effect{BuildID: p.build.ID, Key: e.key, Kind: e.kind, Params: e.params, Fence: p.build.LeaseFence})
		return err
	})
	if err != nil {
		return "", err
	}
	if err := failpoint.Hit(e.kind, failpoint.AfterIntent); err != nil {
		return "", err
	}
	set := func(answer, words string, states ...delivery.EffectState) error {
		was := known
		return p.write(ctx, func(ctx context.Context, tx *store.Tx) error {
			known = was
			for _, next := range states {
				if err := tx.SetEffect(ctx, known, next, p.build.LeaseFence, answer, words); err != nil {
					return err
				}
				known.State = next
			}
			return nil
		})
	}
	// It is known not to have happened, and why; result remembers an incident.
	refused := func(o *outcome) error {
		result := ""
		if o.incident {
			result = resultIncident
		}
		return errors.Join(set(result, o.words, delivery.EffectFailed), o)
	}
	switch known.State {
	case delivery.EffectConfirmed:
		return known.Result, nil
	case delivery.EffectFailed:
		return "", &outcome{words: known.Error, incident: known.Result == resultIncident}
	case delivery.EffectIntended, delivery.EffectStarted, delivery.EffectUnknown, delivery.EffectAsked:
	}
	for try := 0; ; try++ {
		if !fresh || try > 0 {
			// A lost answer is looked up, never guessed and never repeated blindly.
			if known.State == delivery.EffectStarted {
				if err := set("", "the answer was lost", delivery.EffectUnknown); err != nil {
					return "", err
				}
			}
			if err := failpoint.Hit("probe", failpoint.BeforeCall); err != nil {
				return "", err
			}
			answer, done, err := e.probe(ctx)
			if err == nil {
				if err := failpoint.Hit("probe", failpoint.BeforeRecord); err != nil {
					return "", err
				}
			}
			var o *outcome
			switch {
			case errors.As(err, &o):
				return "", refused(o)
			case err != nil:
				return "", fmt.Errorf("%w: %w", errAway, err)
			case done:
				return answer, set(answer, "", delivery.EffectConfirmed)
			case try >= 3:
				return "", fmt.Errorf("%w: tried %d times", errAway, try)
			}
			// Known not to have happened: it may be done now.
			if err := set("", "", delivery.EffectFailed, delivery.EffectStarted); err != nil {
				return "", err
			}
		}
		if err := failpoint.Hit(e.kind, failpoint.BeforeCall); err != nil {
			return "", err
		}
		answer, err := e.call(ctx)
		var o *outcome
		switch {
		case err == nil:
			if err := failpoint.Hit(e.kind, failpoint.BeforeRecord); err != nil {
				return "", err
			}
			return answer, errors.Join(set(answer, "", delivery.EffectConfirmed), failpoint.Hit(e.kind, failpoint.AfterRecord))
		case errors.As(err, &o):
			return "", refused(o)
		case ctx.Err() != nil:
			return "", err // the next driver looks it up
		}
		p.Log.Warn("an effect's answer was lost; looking it up", "effect", e.key, "error", err)
	}
}

// ended turns an effect's error into the node's result.
func (p *performer) ended(ctx context.Context, err error) result {
	var o *outcome
	switch {
	case errors.As(err, &o):
		r := failed(o.words)
		if o.incident {
			r.save = func(ctx context.Context, tx *store.Tx) error { return p.incident(ctx, tx, p.build.Project, o.words) }
		}
		return r
	case errors.Is(err, errAway) && ctx.Err() == nil:
		return p.later(err.Error())
	}
	return result{err: err}
}

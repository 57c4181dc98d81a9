package store

import (
	"context"

	"github.com/shuntcd/shunt/internal/delivery"
)

const effectColumns = `id, build_id, effect_key, kind, params, state, fence, result, error, created_at, started_at, finished_at`

func scanEffect(r scanner) (e delivery.Effect, err error) {
	err = r.Scan(&e.ID, &e.BuildID, &e.Key, &e.Kind, &e.Params, &e.State, &e.Fence, &e.Result, &e.Error, stamp{&e.CreatedAt}, stamp{&e.StartedAt}, stamp{&e.FinishedAt})
	return e, err
}

// Effect returns an effect by its idempotency key.
func (q queries) Effect(ctx context.Context, key string) (delivery.Effect, error) {
	return one(ctx, q.db, scanEffect, "there is no such effect", `select `+effectColumns+` from effects where effect_key = $1`, key)
}

// Effects lists a build's effects, oldest first.
func (q queries) Effects(ctx context.Context, buildID int64) ([]delivery.Effect, error) {
	return list(ctx, q.db, scanEffect, `select `+effectColumns+` from effects where build_id = $1 order by id`, buildID)
}

// Intend writes an effect down as started under a fence, or returns the one that
// already has its key. The same key with other parameters is a bug or an
// attack, and an error.
func (t *Tx) Intend(ctx context.Context, e delivery.Effect) (known delivery.Effect, fresh bool, err error) {
	known, err = t.Effect(ctx, e.Key)
	if err == nil {
		if known.Params != e.Params {
			return known, false, delivery.Errf(delivery.KindInternal, "effect "+e.Key+" was written down with other parameters", known.Params+" is not "+e.Params)
		}
		return known, false, nil
	}
	if !delivery.IsKind(err, delivery.KindNotFound) {
		return known, false, err
	}
	if e.ID, err = t.next(ctx, "effect"); err != nil {
		return e, false, err
	}
	e.State, e.CreatedAt, e.StartedAt = delivery.EffectStarted, t.now, t.now
	_, err = t.exec(ctx, `insert into effects (`+effectColumns+`) values ($1,$2,$3,$4,$5,$6,$7,'','',$8,$8,0)`,
		e.ID, e.BuildID, e.Key, e.Kind, e.Params, e.State, e.Fence, micros(t.now))
	return e, true, err
}

// SetEffect moves an effect from the state in which the caller saw it.
func (t *Tx) SetEffect(ctx context.Context, e delivery.Effect, next delivery.EffectState, fence int64, result, errText string) error {
	if !e.State.CanBecome(next) {
		return delivery.Errf(delivery.KindInternal, "effect "+e.Key+" cannot go from "+string(e.State)+" to "+string(next), "")
	}
	started, finished := micros(e.StartedAt), micros(t.now)
	if next == delivery.EffectStarted {
		started, finished = micros(t.now), 0
	}
	return t.must(ctx, "cannot change effect "+e.Key, `update effects set state = $3, fence = $4, result = $5, error = $6, started_at = $7, finished_at = $8 where id = $1 and state = $2`,
		e.ID, e.State, next, fence, result, errText, started, finished)
}

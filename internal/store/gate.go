package store

import (
	"context"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

const gateColumns = `id, build_id, environment, version, state, binding, stale, opened_at, expires_at, remind_at, reminders, decided_by, decided_at, decided_from, reason, without`

func scanGate(r scanner) (g delivery.Gate, err error) {
	err = r.Scan(&g.ID, &g.BuildID, &g.Environment, &g.Version, &g.State, jsonText{&g.Binding}, &g.Stale, stamp{&g.OpenedAt}, stamp{&g.ExpiresAt}, stamp{&g.RemindAt}, &g.Reminders,
		&g.DecidedBy, stamp{&g.DecidedAt}, &g.DecidedFrom, &g.Reason, &g.Without)
	return g, err
}

// Gate returns a gate by its public name.
func (q queries) Gate(ctx context.Context, id string) (delivery.Gate, error) {
	return one(ctx, q.db, scanGate, "there is no such request", `select `+gateColumns+` from gates where id = $1`, id)
}

// Gates lists a build's gates.
func (q queries) Gates(ctx context.Context, buildID int64) ([]delivery.Gate, error) {
	return list(ctx, q.db, scanGate, `select `+gateColumns+` from gates where build_id = $1 order by opened_at`, buildID)
}

// OpenGates lists the gates of a project ("": of all) that wait for a person.
func (q queries) OpenGates(ctx context.Context, project string) ([]delivery.Gate, error) {
	return list(ctx, q.db, scanGate, `select `+gateColumns+` from gates where state = 'open'
		and ($1 = '' or build_id in (select id from builds where project = $1)) order by opened_at`, project)
}

// OpenGate opens a build's gate before an environment, or opens it again under
// the next version when its decision was voided.
func (t *Tx) OpenGate(ctx context.Context, g delivery.Gate) (delivery.Gate, error) {
	g.State, g.OpenedAt = delivery.GateOpen, t.now
	return one(ctx, t.db, scanGate, "cannot open the gate", `insert into gates (`+gateColumns+`)
		values ($1,$2,$3,1,'open',$4,$5,$6,$7,$8,0,'',0,'','',0)
		on conflict (build_id, environment) do update set version = gates.version + 1, state = 'open', binding = excluded.binding, stale = excluded.stale,
			opened_at = excluded.opened_at, expires_at = excluded.expires_at, remind_at = excluded.remind_at, reminders = 0,
			decided_by = '', decided_at = 0, decided_from = '', reason = '', without = 0
		returning `+gateColumns,
		g.ID, g.BuildID, g.Environment, toJSON(g.Binding), g.Stale, micros(t.now), micros(g.ExpiresAt), micros(g.RemindAt))
}

// Decide is the compare-and-set that ends a gate: one winner, the others get a
// conflict.
func (t *Tx) Decide(ctx context.Context, g delivery.Gate, next delivery.GateState, by, from, reason string, without int64) error {
	return t.must(ctx, "the decision was not taken", `update gates set state = $3, decided_by = $4, decided_at = $5, decided_from = $6, reason = $7, without = $8
		where id = $1 and version = $2 and state = 'open'`, g.ID, g.Version, next, by, micros(t.now), from, reason, without)
}

// SetStale marks an open gate as no longer promotable, in words ("": it is again).
func (t *Tx) SetStale(ctx context.Context, id, why string) error {
	_, err := t.exec(ctx, `update gates set stale = $2 where id = $1 and state = 'open'`, id, why)
	return err
}

// SetReminder notes that a reminder was written and when the next is due (zero: none).
func (t *Tx) SetReminder(ctx context.Context, g delivery.Gate, next time.Time) error {
	return t.must(ctx, "the reminder was not noted", `update gates set reminders = reminders + 1, remind_at = $3 where id = $1 and reminders = $2 and state = 'open'`,
		g.ID, g.Reminders, micros(next))
}

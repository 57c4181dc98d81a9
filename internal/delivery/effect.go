package delivery

import "time"

// EffectState is the state of an effect: anything done outside the database.
//
//	intended -> started(fence) -> confirmed | failed | unknown
//	unknown  -> (probe)        -> confirmed | failed | asked
type EffectState string

// The states of an effect.
const (
	EffectIntended  EffectState = "intended"
	EffectStarted   EffectState = "started"
	EffectConfirmed EffectState = "confirmed"
	EffectFailed    EffectState = "failed" // known not to have happened
	EffectUnknown   EffectState = "unknown"
	EffectAsked     EffectState = "asked" // no probe can tell; a person is asked
)

// CanBecome tells whether an effect may go from s to next.
func (s EffectState) CanBecome(next EffectState) bool {
	switch s {
	case EffectIntended:
		return next == EffectStarted || next == EffectFailed
	case EffectStarted:
		return next == EffectConfirmed || next == EffectFailed || next == EffectUnknown
	case EffectUnknown, EffectAsked:
		return next == EffectConfirmed || next == EffectFailed || next == EffectAsked || next == EffectUnknown
	case EffectFailed:
		return next == EffectStarted // a new decision to try again
	case EffectConfirmed:
	}
	return false
}

// Effect is one act outside the database. Key is its idempotency key: the same
// key is the same act, and the same key with other Params is an error.
type Effect struct {
	ID         int64
	BuildID    int64
	Key        string // "<build id>/<node>/<generation>"
	Kind       string // "tag", "publish", "up", "down", "deploy", "release", ...
	Params     string // JSON; what exactly is done
	State      EffectState
	Fence      int64
	Result     string // JSON; what came back
	Error      string
	CreatedAt  time.Time
	StartedAt  time.Time
	FinishedAt time.Time
}

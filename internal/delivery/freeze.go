package delivery

import "time"

// Freeze is a planned hold: from a moment to a moment promotions of the main lane
// wait. Hotfixes still ship. It is planned by the calendar, so its times do not
// move when a clock is set.
type Freeze struct {
	ID        int64
	Project   string
	Begins    time.Time
	Ends      time.Time // by itself; the first moment at which promotions go on
	Reason    string
	By        string
	CreatedAt time.Time
	EndedBy   string // who ended it early, or took it back before it began; empty: nobody
	EndedAt   time.Time
	EndedWhy  string
}

// FreezeState is where a freeze stands at a moment.
type FreezeState string

// The states of a freeze.
const (
	FreezePlanned FreezeState = "planned"
	FreezeActive  FreezeState = "active"
	FreezeOver    FreezeState = "over"  // its time has passed
	FreezeEnded   FreezeState = "ended" // by a person, before its time had passed
)

// State tells where the freeze stands.
func (f Freeze) State(now time.Time) FreezeState {
	switch {
	case !f.EndedAt.IsZero():
		return FreezeEnded
	case now.Before(f.Begins):
		return FreezePlanned
	case now.Before(f.Ends):
		return FreezeActive
	}
	return FreezeOver
}

package delivery

import "time"

// Clock tells the time. It is injected everywhere so that tests can step it.
type Clock interface {
	Now() time.Time
}

// SystemClock is the machine's clock in UTC, cut to microseconds, which is the
// resolution of the store.
type SystemClock struct{}

// Now returns the current UTC time in whole microseconds.
func (SystemClock) Now() time.Time {
	return time.Now().UTC().Truncate(time.Microsecond) //nolint:forbidigo // the one place that owns the wall clock
}

package store

import (
	"context"
	"time"
)

// MoveDeadlines moves all that is due at some time by as much as the clock was set:
// open gates and their reminders, environments, leases, what is to be driven, tried
// or sent later. Zero (never, or at once) stays zero. A freeze is planned by the
// calendar and stays where it is.
func (t *Tx) MoveDeadlines(ctx context.Context, by time.Duration) error {
	for _, update := range []string{
		`update gates set expires_at = expires_at + $1, remind_at = case when remind_at = 0 then 0 else remind_at + $1 end where state = 'open'`,
		`update instances set expires_at = case when expires_at = 0 then 0 else expires_at + $1 end, next_try = case when next_try = 0 then 0 else next_try + $1 end where state <> 'down'`,
		`update builds set lease_until = case when lease_until = 0 then 0 else lease_until + $1 end, drive_after = case when drive_after = 0 then 0 else drive_after + $1 end where status in ('queued', 'running')`,
		`update outbox set next_at = case when next_at = 0 then 0 else next_at + $1 end where state = 'waiting'`,
	} {
		if _, err := t.exec(ctx, update, by.Microseconds()); err != nil {
			return err
		}
	}
	return nil
}

package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// With several servers on one PostgreSQL, what one of them commits shows on the
// pages of all: each listens for notifications and reads the events that it has
// not seen. A notification that is lost is made up for within a second.

const (
	feedChannel = "shunt_events"
	feedLook    = time.Second
)

type feed struct{ wake chan struct{} }

func (f *feed) poke() bool {
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return true
}

// Feed delivers the events of all servers to this one's subscribers until ctx
// ends. It must be called before the first Subscribe; on SQLite there is one
// server and nothing to do.
func (s *Store) Feed(ctx context.Context) error {
	if s.dialect.listen == nil {
		return nil
	}
	last, err := one(ctx, s.db, scanInt, "", `select coalesce(max(id), 0) from events`)
	if err != nil {
		return err
	}
	s.feed = &feed{wake: make(chan struct{}, 1)}
	go s.dialect.listen.keep(ctx, s.feed)
	go func() {
		tick := time.NewTicker(feedLook)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-s.feed.wake:
			case <-tick.C:
			}
			for {
				events, err := s.EventsAfter(ctx, last, 1000)
				if err != nil || len(events) == 0 {
					break // the database says so itself
				}
				last = events[len(events)-1].ID
				s.publish(events)
			}
		}
	}()
	return nil
}

// listener listens on a PostgreSQL connection of its own.
type listener struct{ cfg *pgx.ConnConfig }

func (l *listener) keep(ctx context.Context, f *feed) {
	for ctx.Err() == nil {
		if err := l.listen(ctx, f); err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(feedLook):
			}
		}
	}
}

func (l *listener) listen(ctx context.Context, f *feed) error {
	conn, err := pgx.ConnectConfig(ctx, l.cfg)
	if err != nil {
		return fmt.Errorf("listen for events: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is lost with it
	if _, err := conn.Exec(ctx, "listen "+feedChannel); err != nil {
		return fmt.Errorf("listen for events: %w", err)
	}
	for {
		f.poke()
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("listen for events: %w", err)
		}
	}
}

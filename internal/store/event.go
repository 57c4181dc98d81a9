package store

import (
	"context"
	"time"
)

// Event says that something changed; pages read again what it names.
type Event struct {
	ID      int64
	Project string
	Number  int64
	Kind    string
	At      time.Time
}

// keptEvents is how many events a page that was away can catch up with.
const keptEvents = 10000

// Event notes a change, for everybody who watches, once the transaction is durable.
func (t *Tx) Event(project string, number int64, kind string) {
	for _, e := range t.events {
		if e.Project == project && e.Number == number && e.Kind == kind {
			return
		}
	}
	t.events = append(t.events, Event{Project: project, Number: number, Kind: kind, At: t.now})
}

// saveEvents writes the transaction's events; it is the last thing in it.
func (t *Tx) saveEvents(ctx context.Context) error {
	for i := range t.events {
		e := &t.events[i]
		id, err := t.next(ctx, "event")
		if err != nil {
			return err
		}
		e.ID = id
		if _, err := t.exec(ctx, `insert into events (id, project, number, kind, at) values ($1,$2,$3,$4,$5)`, e.ID, e.Project, e.Number, e.Kind, micros(e.At)); err != nil {
			return err
		}
		if id%1000 == 0 {
			if _, err := t.exec(ctx, `delete from events where id <= $1`, id-keptEvents); err != nil {
				return err
			}
		}
	}
	if t.notify && len(t.events) > 0 {
		_, err := t.exec(ctx, `select pg_notify($1, '')`, feedChannel)
		return err
	}
	return nil
}

// EventsAfter lists events newer than an id, oldest first.
func (q queries) EventsAfter(ctx context.Context, after int64, limit int) ([]Event, error) {
	return list(ctx, q.db, func(r scanner) (e Event, err error) {
		err = r.Scan(&e.ID, &e.Project, &e.Number, &e.Kind, stamp{&e.At})
		return e, err
	}, `select id, project, number, kind, at from events where id > $1 order by id limit $2`, after, limit)
}

// Subscribe delivers every later event. A subscriber that falls 256 events
// behind loses its channel: it is closed.
func (s *Store) Subscribe() (<-chan Event, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.nextSub
	s.nextSub++
	ch := make(chan Event, 256)
	s.subscribers[id] = ch
	return ch, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, ok := s.subscribers[id]; ok {
			delete(s.subscribers, id)
			close(ch)
		}
	}
}

func (s *Store) publish(events []Event) {
	if len(events) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		for id, ch := range s.subscribers {
			select {
			case ch <- e:
			default:
				delete(s.subscribers, id)
				close(ch)
			}
		}
	}
}

package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
)

// When something changes, every page that shows it is fetched again, and a
// thousand open pages ask the same at once. Those who ask the same get one answer:
// while one is being made, all who come wait together for the next. No answer was
// begun before it was asked for, so none is older than one of their own would be.

// making is the answers that are being made, by who asks what.
type making struct {
	mu      sync.Mutex
	answers map[string]*queue
}

// queue is the answers of one address: at most one is being made, and at most one
// waits for its turn.
type queue struct{ now, next *response }

type response struct {
	done   chan struct{} // closed when it is made
	header http.Header
	status int
	body   bytes.Buffer
	err    error
}

// Header implements http.ResponseWriter.
func (a *response) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *response) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *response) Write(b []byte) (int, error) { return a.body.Write(b) } //nolint:wrapcheck // it has none

// shared makes one answer for all who ask a page with the same address and the
// same rights at the same time. h must not look at anything else of the request.
func (s *server) shared(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		c := callerOf(r.Context())
		c.addr = ""
		a, err := s.making.get(r.Context(), fmt.Sprintf("%+v %s %s", c, r.Method, r.URL.RequestURI()), func(a *response) error {
			return h(a, r.WithContext(context.WithoutCancel(r.Context()))) // others may wait for it
		})
		if err != nil {
			return err
		}
		maps.Copy(w.Header(), a.header)
		w.WriteHeader(a.status)
		if _, err := w.Write(a.body.Bytes()); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		return nil
	}
}

// get returns an answer that was begun after get was called.
func (m *making) get(ctx context.Context, key string, write func(*response) error) (*response, error) {
	m.mu.Lock()
	q := m.answers[key]
	if q == nil {
		q = &queue{}
		m.answers[key] = q
	}
	a, before := q.next, q.now
	if a != nil {
		m.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err() //nolint:wrapcheck // the reader has gone
		case <-a.done:
			return a, a.err
		}
	}
	a = &response{done: make(chan struct{}), header: http.Header{}, status: http.StatusOK, err: errors.New("the page was not made: see the log")}
	q.next = a
	m.mu.Unlock()
	if before != nil {
		<-before.done
	}
	m.mu.Lock()
	q.now, q.next = a, nil
	m.mu.Unlock()
	defer func() { // also when it panics
		m.mu.Lock()
		if q.now == a && q.next == nil {
			delete(m.answers, key)
		}
		m.mu.Unlock()
		close(a.done)
	}()
	a.err = write(a)
	return a, a.err
}

package web

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// A thousand who ask while an answer is made wait for one more, which begins
// after all of them have asked.
func TestManyShareAnAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := making{answers: map[string]*queue{}}
		var truth, made atomic.Int64
		write := func(a *response) error {
			made.Add(1)
			read := byte(truth.Load())
			time.Sleep(time.Second)
			_, err := a.Write([]byte{read})
			return err
		}
		var all sync.WaitGroup
		ask := func(want byte) {
			all.Go(func() {
				a, err := m.get(t.Context(), "page", write)
				if err != nil || a.body.Bytes()[0] != want {
					t.Errorf("asked at %d: %v %v", want, a, err)
				}
			})
		}
		ask(0)
		synctest.Wait()
		truth.Store(1) // after the first was read
		for range 1000 {
			ask(1)
		}
		all.Wait()
		if made.Load() != 2 || len(m.answers) != 0 {
			t.Errorf("%d answers were made, %d are kept", made.Load(), len(m.answers))
		}
	})
}

// An answer that fails, or panics, fails for all who wait for it, and for nobody
// else. Who has gone waits no longer.
func TestSharedFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := making{answers: map[string]*queue{}}
		slow := func(*response) error { time.Sleep(time.Second); return nil }
		var all sync.WaitGroup
		all.Go(func() { _, _ = m.get(t.Context(), "page", slow) })
		synctest.Wait()
		all.Go(func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is lost")
				}
			}()
			_, _ = m.get(t.Context(), "page", func(*response) error { panic("ill") })
		})
		synctest.Wait()
		all.Go(func() {
			if _, err := m.get(t.Context(), "page", slow); err == nil {
				t.Error("who waited for a panic has an answer")
			}
		})
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := m.get(ctx, "page", slow); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("who has gone: %v", err)
			}
		})
		all.Go(func() {
			if _, err := m.get(t.Context(), "other", slow); err != nil {
				t.Errorf("another page: %v", err)
			}
		})
		all.Wait()
		if _, err := m.get(t.Context(), "page", slow); err != nil || len(m.answers) != 0 {
			t.Errorf("afterwards: %v, %d are kept", err, len(m.answers))
		}
	})
}

// What one person is shown is not shared with another.
func TestAnswersAreNotSharedAcrossPeople(t *testing.T) {
	t.Parallel()
	s := &server{making: making{answers: map[string]*queue{}}}
	var mu sync.Mutex
	begun := map[string]int{}
	release := make(chan struct{})
	h := s.shared(func(w http.ResponseWriter, r *http.Request) error {
		mu.Lock()
		begun[callerOf(r.Context()).user.Name+r.URL.RequestURI()]++
		mu.Unlock()
		<-release
		return nil
	})
	var all sync.WaitGroup
	for _, who := range []string{"ana", "ben"} {
		for _, path := range []string{"/a", "/a?b"} {
			all.Go(func() {
				ctx := context.WithValue(t.Context(), callerKey{}, caller{user: delivery.User{Name: who}, addr: path})
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
				if err == nil {
					err = h(discard{http.Header{}}, r)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	for {
		mu.Lock()
		n := len(begun)
		mu.Unlock()
		if n == 4 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	all.Wait()
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header       { return d.h }
func (discard) WriteHeader(int)             {}
func (discard) Write(b []byte) (int, error) { return len(b), nil }

package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// beat is how often a silent stream says that it is alive, so that a proxy does
// not close it.
const beat = 15 * time.Second

// events streams what happens as server-sent events. The event's name is
// "change" (pages fetch themselves again) or "log" (a log has grown). ?project=
// and ?number= narrow it. A reader that comes back with Last-Event-ID misses
// nothing that the backend still has.
func (s *server) events(w http.ResponseWriter, r *http.Request) error {
	if origin := r.Header.Get("Origin"); origin != "" { // T37
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			return &delivery.Error{Kind: delivery.KindForbidden, What: "this request came from another site"}
		}
	}
	q := r.URL.Query()
	last := r.Header.Get("Last-Event-ID")
	var after int64
	if last != "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			return &delivery.Error{Kind: delivery.KindInvalid, What: "Last-Event-ID is not a number"}
		}
		after = n
	}
	var number int64
	if q.Get("number") != "" {
		n, err := strconv.ParseInt(q.Get("number"), 10, 64)
		if err != nil {
			return &delivery.Error{Kind: delivery.KindInvalid, What: "number is not a number"}
		}
		number = n
	}
	wanted := func(e api.Event) bool {
		return (q.Get("project") == "" || e.Project == q.Get("project")) && (number == 0 || e.Number == 0 || e.Number == number)
	}
	events, cancel, err := s.Backend.Subscribe(r.Context(), after)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Time{}) // open until the reader goes
	if r.Method == http.MethodHead {
		return nil
	}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	text := "retry: 1000\n\n"
	for {
		if _, err := w.Write([]byte(text)); err != nil {
			return nil // the reader has gone
		}
		if err := rc.Flush(); err != nil {
			return nil // the reader has gone
		}
		select {
		case <-r.Context().Done():
			return nil
		case <-tick.C:
			text = ": alive\n\n"
		case e, ok := <-events:
			if !ok {
				return nil // too slow, or the server stops; the reader comes back
			}
			text = ""
			if wanted(e) {
				if text, err = eventText(e); err != nil {
					return err
				}
			}
		}
	}
}

func eventText(e api.Event) (string, error) {
	b, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("encode event: %w", err)
	}
	name := "change"
	if e.Kind == "log" {
		name = "log"
	}
	return fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", e.ID, name, b), nil
}

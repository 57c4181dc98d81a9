package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Hub is the servers' end of the links: it answers renewals and knows the
// runners that are linked to this server. A runner is who its certificate says.
type Hub struct {
	renew func(ctx context.Context, id string, r Renewal) (Renewed, error)
	log   *slog.Logger

	mu    sync.Mutex
	links map[string]*Client
}

// NewHub makes a hub. renew writes a renewal down and must not answer before it
// is durable.
func NewHub(renew func(ctx context.Context, id string, r Renewal) (Renewed, error), log *slog.Logger) *Hub {
	return &Hub{renew: renew, log: log, links: map[string]*Client{}}
}

// Client returns the client of a runner that is linked to this server.
func (h *Hub) Client(id string) (*Client, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c, ok := h.links[id]
	return c, ok
}

// CommonName is how a runner's certificate names it.
func CommonName(id string) string { return "runner/" + id }

// Handler answers runners; it must be served over TLS with verified client
// certificates, and HTTP/1.1.
func (h *Hub) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/renew", func(w http.ResponseWriter, r *http.Request) {
		id, ok := identity(r)
		if !ok {
			http.Error(w, "this certificate is no runner's", http.StatusForbidden)
			return
		}
		var in Renewal
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&in); err != nil {
			http.Error(w, "the renewal is damaged", http.StatusBadRequest)
			return
		}
		out, err := h.renew(r.Context(), id, in)
		if err != nil {
			h.log.Warn("a runner's lease cannot be renewed", "runner", id, "error", err)
			http.Error(w, "the lease cannot be saved", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(out); err != nil {
			h.log.Debug("an answer was not taken", "err", err)
		}
	})
	mux.HandleFunc("POST "+linkRoute, h.accept)
	return mux
}

func identity(r *http.Request) (id string, ok bool) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", false
	}
	return strings.CutPrefix(r.TLS.PeerCertificates[0].Subject.CommonName, CommonName(""))
}

// accept turns the connection round: from now on this server asks.
func (h *Hub) accept(w http.ResponseWriter, r *http.Request) {
	id, ok := identity(r)
	if !ok {
		http.Error(w, "this certificate is no runner's", http.StatusForbidden)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this connection cannot be turned round", http.StatusInternalServerError)
		return
	}
	if _, err = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", linkProtocol); err == nil {
		err = rw.Flush()
	}
	if err != nil || conn.SetDeadline(time.Time{}) != nil {
		_ = conn.Close()
		return
	}
	gone := make(chan struct{})
	var once sync.Once
	turned := &closeNote{Conn: &bufferedConn{Conn: conn, r: rw.Reader}, note: func() error {
		once.Do(func() { close(gone) })
		return nil
	}}
	c := &Client{remote: true, cut: func() { _ = conn.Close() }, http: &http.Client{Transport: &http.Transport{
		DialContext: dialOnce(turned), Protocols: unencrypted2(), HTTP2: pings(), DisableCompression: true,
	}}}
	h.mu.Lock()
	h.links[id] = c
	h.mu.Unlock()
	h.log.Info("a runner is linked", "runner", id)
	// The first question opens the connection; pings keep looking at it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
	_, err = c.Info(ctx)
	cancel()
	if err == nil {
		<-gone
	}
	h.mu.Lock()
	if h.links[id] == c {
		delete(h.links, id)
	}
	h.mu.Unlock()
	c.Close()
	_ = conn.Close()
	h.log.Info("a runner's link ended", "runner", id)
}

// Close ends all links.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.links {
		if c.cut != nil {
			c.cut()
		}
	}
}

// dialOnce hands out a connection that is there already, and nothing after it.
func dialOnce(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	var once sync.Once
	return func(context.Context, string, string) (got net.Conn, err error) {
		err = fmt.Errorf("%w: its link has ended", ErrGone)
		once.Do(func() { got, err = conn, nil })
		return got, err
	}
}

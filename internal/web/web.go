// Package web is the server's face: pages for people, the JSON API for
// programs, webhooks for forges and one stream of events for both. It holds no
// state and makes no decisions; it asks a Backend.
//
// Words used here: a route is open (sign-in page, health, static files, signed
// webhooks) or closed, and every route is closed unless it is on the list of
// open ones. A page is one typed struct, rendered into a buffer before the first
// byte is sent. A handler returns an error, and one function (fail) turns it
// into status, page or problem JSON, and log level. A frame is what all pages
// share.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// maxForm bounds a posted form, in bytes; the largest legal one sets a secret
// of 64 KiB, percent-encoded.
const maxForm = 256 << 10

// Config is what New needs.
type Config struct {
	Backend   Backend
	Auth      Authenticator
	PublicURL string // absolute; https makes the cookie Secure
	Version   string
	Mailbox   bool // show the demo's mailbox
	Design    bool // show what the pages are made of at /ui
	Log       *slog.Logger
	Clock     delivery.Clock
}

type server struct {
	Config
	mux    *http.ServeMux // all routes; those of one project are behind project
	open   map[string]bool
	inner  *http.ServeMux
	assets *assets
	secure bool
	making making
}

// ReservedNames are the first path segments that pages and the API use; a
// project cannot have them as its name.
func ReservedNames() []string {
	return []string{"a", "api", "mail", "hooks", "login", "logout", "assets", "events", "livez", "readyz", "badge", "ui", "openapi.json"}
}

// New returns the handler of everything that a Shunt server answers.
func New(cfg Config) (http.Handler, error) {
	u, err := url.Parse(cfg.PublicURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("public URL %q: want http://host or https://host", cfg.PublicURL)
	}
	files, err := loadAssets()
	if err != nil {
		return nil, err
	}
	s := &server{Config: cfg, mux: http.NewServeMux(), inner: http.NewServeMux(), open: map[string]bool{}, assets: files, making: making{answers: map[string]*queue{}}, secure: u.Scheme == "https"}
	if err := s.apiRoutes(); err != nil {
		return nil, err
	}
	s.openRoutes()
	s.pageRoutes()
	s.formRoutes()
	return s.outer(), nil
}

// outer wraps all routes: every answer has the headers, every panic an answer,
// and no request reaches a route before it was asked where it comes from and
// who sent it.
func (s *server) outer() http.Handler {
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &delivery.Error{Kind: delivery.KindForbidden, What: "this request came from another site", Why: "only Shunt's own pages may change something", Next: "Open the page in Shunt and do it there"})
	}))
	return s.headers(s.recovered(cross.Handler(s.guard(s.mux))))
}

func (s *server) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func (s *server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler:
				panic(p)
			default:
				s.fail(w, r, fmt.Errorf("panic: %v", p))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// openRoutes are all the routes that answer without sign-in, apart from
// openapi.json.
func (s *server) openRoutes() {
	s.public("GET /livez", func(w http.ResponseWriter, _ *http.Request) error {
		return writeText(w, "ok\n")
	})
	s.public("GET /readyz", func(w http.ResponseWriter, r *http.Request) error {
		if err := s.Backend.Ready(r.Context()); err != nil {
			return &delivery.Error{Kind: delivery.KindUnavailable, What: "not ready", Err: err}
		}
		return writeText(w, "ready\n")
	})
	s.public("GET /assets/{hash}/{name}", s.asset)
	s.public("GET /login", s.loginPage)
	s.public("POST /login", s.login)
	s.public("POST /hooks/{project}", s.hook)
}

type handler func(w http.ResponseWriter, r *http.Request) error

func (s *server) handle(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	}
}

func (s *server) public(pattern string, h handler) {
	s.open[pattern] = true
	s.mux.HandleFunc(pattern, s.handle(h))
}

// HandleFunc and ServeHTTP let huma register its routes; they are closed.
func (s *server) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	s.mux.HandleFunc(pattern, h)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func writeText(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, err := w.Write([]byte(text)); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

// actor is who sent r.
func (s *server) actor(ctx context.Context) Actor {
	c := callerOf(ctx)
	from := "page"
	if c.token {
		from = "api"
	}
	host, _, err := net.SplitHostPort(c.addr)
	if err != nil {
		host = c.addr
	}
	return Actor{User: c.user.Name, From: host + ", " + from}
}

// wantsJSON tells whether the caller is a program.
func wantsJSON(r *http.Request) bool {
	switch path := r.URL.Path; path {
	case "/events", "/livez", "/readyz", "/openapi.json":
		return true
	default:
		return strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/hooks/")
	}
}

func gone(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, http.ErrHandlerTimeout) || errors.Is(err, net.ErrClosed)
}

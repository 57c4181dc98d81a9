package web

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"

	"github.com/shuntcd/shunt/internal/delivery"
)

// problem is an error as the API answers it: RFC 9457, with Shunt's kind and
// next step. It never holds an internal cause.
type problem struct {
	Status int           `json:"status"`
	Title  string        `json:"title"`
	Detail string        `json:"detail,omitempty"`
	Kind   delivery.Kind `json:"kind"`
	Next   string        `json:"next,omitempty"`
}

func (p *problem) Error() string { return p.Title }

// GetStatus makes it an error that huma answers as it is.
func (p *problem) GetStatus() int { return p.Status }

// ContentType is asked by huma.
func (p *problem) ContentType(string) string { return "application/problem+json" }

// explain turns an error into what its reader may know, and logs it. The page
// and the log share a number when the reader is told nothing more.
func (s *server) explain(ctx context.Context, method, path string, err error) *problem {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil { // nobody reads the answer
		return &problem{Status: http.StatusServiceUnavailable, Title: "the request was given up", Kind: delivery.KindUnavailable}
	}
	if big, ok := errors.AsType[*http.MaxBytesError](err); ok {
		s.Log.DebugContext(ctx, "request too large", "method", method, "path", path, "limit", big.Limit)
		return &problem{Status: http.StatusRequestEntityTooLarge, Title: "the request is too large", Kind: delivery.KindInvalid}
	}
	e, ok := errors.AsType[*delivery.Error](err)
	if !ok || e.Kind == delivery.KindInternal {
		id := rand.Text()[:8]
		s.Log.ErrorContext(ctx, "request failed", "method", method, "path", path, "number", id, "error", err)
		return &problem{Status: http.StatusInternalServerError, Title: "something broke inside Shunt", Detail: "the server's log says more under the number " + id, Kind: delivery.KindInternal, Next: "Try again; if it stays, look at the log and at:  shunt doctor"}
	}
	level := slog.LevelDebug
	if e.Kind == delivery.KindUnavailable {
		level = slog.LevelWarn
	}
	s.Log.Log(ctx, level, "request refused", "method", method, "path", path, "kind", e.Kind, "error", err, "cause", e.Err)
	return &problem{Status: e.Kind.HTTPStatus(), Title: e.What, Detail: e.Why, Kind: e.Kind, Next: e.Next}
}

// fail answers a request that cannot be done.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if gone(err) {
		return
	}
	p := s.explain(r.Context(), r.Method, r.URL.Path, err)
	if wantsJSON(r) {
		w.Header().Set("Content-Type", p.ContentType(""))
		b := marshalProblem(p)
		w.WriteHeader(p.Status)
		_, _ = w.Write(b) //nolint:gosec // JSON, with its type; nobody is left to tell of an error
		return
	}
	s.show(w, r, p.Status, errorPage(errorView{frame: s.frame(r, p.Title), Problem: p, Back: backOf(r), Written: r.PostForm.Get("reason")}))
}

func notFound(what string) *delivery.Error {
	return &delivery.Error{Kind: delivery.KindNotFound, What: what, Why: "nothing is known under this address", Next: "Look at the list of projects at /"}
}

// backOf is the page from which a form was sent.
func backOf(r *http.Request) string {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return ""
	}
	return parentPage(r.URL.Path)
}

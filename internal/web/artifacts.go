package web

import (
	"context"
	"mime"
	"net/http"
	"path"
	"time"
)

// apiArtifact sends an artifact as a file to save. It is hostile content on our
// own origin: it must never be shown as a page, whatever it holds (T42).
func (s *server) apiArtifact(ctx context.Context, in *inArtifact) (handler, error) {
	a, body, err := s.Backend.Artifact(ctx, in.Project, in.Number, in.Name)
	if err != nil {
		return nil, err //nolint:wrapcheck // explained by fail
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		defer body.Close()                                              //nolint:errcheck // only read
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // as long as it takes
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": path.Base("/" + a.File)}))
		h.Set("Content-Security-Policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "private, no-cache")
		h.Set("ETag", `"`+a.SHA256+`"`)
		http.ServeContent(w, r, "", time.Time{}, body)
		return nil
	}, nil
}

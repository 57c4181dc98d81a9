package web

import (
	"fmt"
	"io"
	"net/http"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// maxHook bounds a webhook's body, in bytes (T73). Forges send some 100 KiB for
// a big push, and Shunt reads nothing in it anyway.
const maxHook = 1 << 20

// hook takes a webhook. The signature is the only sign-in here, so whatever is
// wrong before it was checked has one answer: also a project that does not
// exist.
func (s *server) hook(w http.ResponseWriter, r *http.Request) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHook))
	if err != nil {
		return fmt.Errorf("read webhook: %w", err)
	}
	wait := r.URL.Query().Get("wait") == "1"
	pushes, err := s.Backend.Hook(r.Context(), r.PathValue("project"), r.Header, body, wait)
	switch {
	case delivery.IsKind(err, delivery.KindUnauthorized), delivery.IsKind(err, delivery.KindNotFound):
		return &delivery.Error{Kind: delivery.KindUnauthorized, What: "the webhook's signature is missing or wrong", Next: "Set the project's webhook secret in the forge, with content type JSON and HMAC-SHA256", Err: err}
	case err != nil:
		return err //nolint:wrapcheck // explained by fail
	case !wait:
		return writeJSON(w, http.StatusAccepted, struct{}{})
	case pushes == nil:
		pushes = []api.Push{}
	}
	return writeJSON(w, http.StatusOK, pushes)
}

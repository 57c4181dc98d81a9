package web

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"github.com/shuntcd/shunt/internal/api"
)

// Reconciler is what a restored server is asked.
type Reconciler interface {
	Reconcile(ctx context.Context) (api.Reconcile, error)
	ConfirmReconcile(ctx context.Context, who Actor, reason string) (api.Reconcile, error)
}

type inBecause struct{ Body api.Because }

func (s *server) reconcileRoutes(a huma.API) {
	const path = "/api/v1/reconcile"
	get(s, a, path, "reconcile", "How a restored database differs from git and the artifacts", func(ctx context.Context, _ *inNothing) (api.Reconcile, error) {
		return s.Backend.Reconcile(ctx)
	})
	post(s, a, path, "confirm-reconcile", "Adopt what git says, and work again", func(ctx context.Context, in *inBecause) (api.Reconcile, error) {
		return s.Backend.ConfirmReconcile(ctx, s.actor(ctx), in.Body.Reason)
	})
}

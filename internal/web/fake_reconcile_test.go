package web

import (
	"context"

	"github.com/shuntcd/shunt/internal/api"
)

func (f *fake) Reconcile(context.Context) (api.Reconcile, error) {
	return give(f, "Reconcile", api.Reconcile{Active: true, Since: now(), Why: "restored", Differences: []api.Difference{{Project: "petstore", Kind: "git", Words: "build 43 <b>"}}})
}

func (f *fake) ConfirmReconcile(_ context.Context, who Actor, reason string) (api.Reconcile, error) {
	return did(f, api.Reconcile{}, "ConfirmReconcile", who, reason)
}

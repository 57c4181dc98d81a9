package api

import (
	"context"
	"net/http"
	"time"
)

// Reconcile is how a restored database differs from the world. While it is
// active the server starts nothing and takes no decisions.
type Reconcile struct {
	Active      bool         `json:"active"`
	Since       time.Time    `json:"since"`
	Why         string       `json:"why"` // "restored from the backup of ..."
	Differences []Difference `json:"differences"`
}

// Difference is one line of it.
type Difference struct {
	Project string `json:"project"` // empty: of the installation
	Kind    string `json:"kind" enum:"git,remote,artifact,secret"`
	Words   string `json:"words"`
}

const reconcilePath = "/api/v1/reconcile"

// Reconcile compares the database of a restored server with git and the artifact store.
func (c *Client) Reconcile(ctx context.Context) (Reconcile, error) {
	return get[Reconcile](ctx, c, reconcilePath)
}

// ConfirmReconcile adopts what git says and lets the server work again.
func (c *Client) ConfirmReconcile(ctx context.Context, reason string) (Reconcile, error) {
	var out Reconcile
	err := c.Do(ctx, http.MethodPost, reconcilePath, Because{Reason: reason}, &out)
	return out, err
}

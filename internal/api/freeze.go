package api

import (
	"context"
	"strconv"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Freeze is a planned hold of a project's main lane. Hotfixes still ship.
type Freeze struct {
	ID        int64                `json:"id"`
	Project   string               `json:"project"`
	State     delivery.FreezeState `json:"state" enum:"planned,active,over,ended" doc:"over: its time has passed; ended: by a person, before that"`
	From      time.Time            `json:"from"`
	Until     time.Time            `json:"until" doc:"when it ends by itself"`
	Reason    string               `json:"reason"`
	By        string               `json:"by"`
	CreatedAt time.Time            `json:"created_at"`
	EndedBy   string               `json:"ended_by,omitempty"`
	EndedAt   time.Time            `json:"ended_at,omitzero"`
	EndedWhy  string               `json:"ended_why,omitempty"`
}

// PlanFreeze plans a freeze.
type PlanFreeze struct {
	From   time.Time `json:"from,omitzero" doc:"now, when it is left out or has passed"`
	Until  time.Time `json:"until" doc:"at most 400 days after its begin"`
	Reason string    `json:"reason" minLength:"1" maxLength:"2000"`
}

// Freezes lists a project's planned, active and past freezes, those that begin
// last first; at most 100.
func (c *Client) Freezes(ctx context.Context, project string) ([]Freeze, error) {
	return get[[]Freeze](ctx, c, projectPath(project)+"/freezes")
}

// PlanFreeze plans a time in which the main lane does not promote.
func (c *Client) PlanFreeze(ctx context.Context, project string, in PlanFreeze) (Freeze, error) {
	return post[Freeze](ctx, c, projectPath(project)+"/freezes", in)
}

// EndFreeze ends a freeze before its time, or takes it back before it has begun.
func (c *Client) EndFreeze(ctx context.Context, project string, id int64, reason string) (Freeze, error) {
	return post[Freeze](ctx, c, projectPath(project)+"/freezes/"+strconv.FormatInt(id, 10)+"/end", Because{Reason: reason})
}

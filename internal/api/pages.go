package api

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Lines is what the line map of a project shows: the latest builds, where
// hotfixes left production and where builds went into it.
type Lines struct {
	Project  string            `json:"project"`
	Branches delivery.Branches `json:"branches"`
	Stations []Station         `json:"stations" doc:"oldest first"`
	Debts    []BackMerge       `json:"debts" doc:"owed and paid"`
	Running  int64             `json:"running,omitempty" doc:"build that production runs"`
}

// Station is a build on the line map.
type Station struct {
	Build
	Base       int64              `json:"base,omitempty" doc:"build that was in production when a hotfix began"`
	GateID     string             `json:"gate_id,omitempty" doc:"its latest request, open or decided"`
	GateState  delivery.GateState `json:"gate_state,omitempty"`
	ReleasedAt time.Time          `json:"released_at,omitzero" doc:"when it went into production"`
	Tag        string             `json:"tag,omitempty" doc:"production tag"`
}

// Lines returns the line map of a project's latest builds (0: 40).
func (c *Client) Lines(ctx context.Context, project string, limit int) (Lines, error) {
	return get[Lines](ctx, c, projectPath(project)+"/lines?"+url.Values{"limit": {strconv.Itoa(limit)}}.Encode())
}

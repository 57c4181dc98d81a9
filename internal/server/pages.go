package server

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// Lines implements web.Reader.
func (s *Server) Lines(ctx context.Context, project string, limit int) (api.Lines, error) {
	p, err := s.store.Project(ctx, project)
	if err != nil {
		return api.Lines{}, err
	}
	v := api.Lines{Project: project, Branches: p.Branches, Stations: []api.Station{}, Debts: []api.BackMerge{}, Running: p.RunningBuild}
	builds, err := s.store.Builds(ctx, store.BuildQuery{Project: project, Limit: min(cmp.Or(max(limit, 0), 40), 200)})
	if err != nil || len(builds) == 0 {
		return v, err
	}
	slices.Reverse(builds)
	first := builds[0].Number
	releases, err := s.store.Releases(ctx, project, 400)
	if err != nil {
		return v, err
	}
	slices.Reverse(releases)
	// What production runs is always on the map, however old it is.
	if p.ProductionBuild > 0 && p.ProductionBuild < first {
		b, err := s.store.BuildByNumber(ctx, project, p.ProductionBuild)
		if err != nil {
			return v, err
		}
		builds = slices.Insert(builds, 0, b)
		first = b.Number
	}
	gates, err := s.store.GatesFrom(ctx, project, first)
	if err != nil {
		return v, err
	}
	released, based := map[int64]store.Release{}, map[string]int64{}
	for _, r := range releases {
		released[r.Number], based[r.Commit] = r, r.Number
	}
	gate := map[int64]store.BuildGate{}
	for _, g := range gates {
		gate[g.Number] = g
	}
	for _, b := range builds {
		st := api.Station{Build: s.build(b), GateID: gate[b.Number].ID, GateState: gate[b.Number].State, ReleasedAt: released[b.Number].At}
		if st.GateState == delivery.GateOpen {
			st.Gate = st.GateID
		}
		if !st.ReleasedAt.IsZero() {
			st.Tag = delivery.ExpandTag(p.Tags.Production, b.Number)
		}
		if b.Lane == delivery.LaneHotfix {
			st.Base = based[b.Production]
		}
		v.Stations = append(v.Stations, st)
	}
	v.Debts, err = s.debts(ctx, p)
	return v, err
}

// FeedKey implements web.Reader. It follows from the webhook's secret and says
// nothing of it.
func (s *Server) FeedKey(ctx context.Context, project string) (string, error) {
	p, err := s.store.Project(ctx, project)
	if err != nil {
		return "", err
	}
	h := hmac.New(sha256.New, []byte(p.WebhookSecret))
	h.Write([]byte("shunt feeds of " + p.Name))
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

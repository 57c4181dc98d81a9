package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/store"
)

// matrix is what the home matrix shows, read with one query for each kind of
// row however many projects there are.
type matrix struct {
	states      map[string]store.ProjectState
	paused      map[string][]api.Build
	latest      map[string]api.Build
	deployments map[string][]delivery.Deployment // newest first
	instances   map[string][]api.Instance
	debts       map[string][]delivery.BackMerge
	freezes     map[string][]delivery.Freeze // active or to come, those that begin first first
	now         time.Time
	places      func(pipeline string) ([]location, error)
}

// matrix reads the matrix of a project ("": of all).
func (s *Server) matrix(ctx context.Context, project string) (m matrix, err error) {
	m = matrix{states: map[string]store.ProjectState{}, latest: map[string]api.Build{}, paused: map[string][]api.Build{}, deployments: map[string][]delivery.Deployment{}, instances: map[string][]api.Instance{}, debts: map[string][]delivery.BackMerge{}, freezes: map[string][]delivery.Freeze{}, now: s.clock.Now(), places: s.places.of}
	states, err := s.store.ProjectStates(ctx, project)
	if err != nil {
		return m, err
	}
	for _, x := range states {
		m.states[x.Name] = x
	}
	paused, err := s.store.PausedBuilds(ctx, project)
	if err != nil {
		return m, err
	}
	latest, err := s.store.LatestBuilds(ctx, project)
	if err != nil {
		return m, err
	}
	views := make([]api.Build, 0, len(paused)+len(latest))
	for _, b := range append(paused, latest...) {
		views = append(views, s.build(b))
	}
	if err := s.gated(ctx, project, views); err != nil {
		return m, err
	}
	for i, b := range views {
		if i < len(paused) {
			m.paused[b.Project] = append(m.paused[b.Project], b)
		} else {
			m.latest[b.Project] = b
		}
	}
	deployments, err := s.store.CurrentDeployments(ctx, project)
	if err != nil {
		return m, err
	}
	for _, d := range deployments {
		m.deployments[d.Project] = append(m.deployments[d.Project], d)
	}
	instances, err := s.store.LivingInstances(ctx, project)
	if err != nil {
		return m, err
	}
	for _, i := range instances {
		m.instances[i.Project] = append(m.instances[i.Project], instance(i))
	}
	debts, err := s.store.OpenDebts(ctx, project)
	for _, d := range debts {
		m.debts[d.Project] = append(m.debts[d.Project], d)
	}
	if err != nil {
		return m, err
	}
	freezes, err := s.store.FreezesAhead(ctx, project, m.now)
	for _, f := range freezes {
		m.freezes[f.Project] = append(m.freezes[f.Project], f)
	}
	return m, err
}

// gated adds to builds the requests that wait for a person.
func (s *Server) gated(ctx context.Context, project string, builds []api.Build) error {
	gates, err := s.store.WaitingGates(ctx, project)
	if err != nil {
		return err
	}
	type key struct {
		project string
		number  int64
	}
	open := make(map[key]string, len(gates))
	for _, g := range gates {
		open[key{g.Project, g.Number}] = g.ID
	}
	for i, b := range builds {
		builds[i].Gate = open[key{b.Project, b.Number}]
	}
	return nil
}

// Projects implements web.Reader.
func (s *Server) Projects(ctx context.Context) ([]api.Project, error) {
	projects, err := s.store.Projects(ctx)
	if err != nil {
		return nil, err
	}
	m, err := s.matrix(ctx, "")
	if err != nil {
		return nil, err
	}
	out := make([]api.Project, 0, len(projects))
	for _, p := range projects {
		v, err := m.project(p)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// Project implements web.Reader.
func (s *Server) Project(ctx context.Context, name string) (api.Project, error) {
	p, err := s.store.Project(ctx, name)
	if err != nil {
		return api.Project{}, err
	}
	m, err := s.matrix(ctx, name)
	if err != nil {
		return api.Project{}, err
	}
	return m.project(p)
}

// project is one row of the matrix.
func (m matrix) project(p delivery.Project) (api.Project, error) {
	state := m.states[p.Name]
	v := api.Project{
		Name: p.Name, URL: p.URL, Branches: p.Branches, Tags: p.Tags, Hold: p.Hold, Incident: p.Incident, NextBuild: p.NextBuild, LastFetch: state.At, FetchError: state.Error,
		WebhookPath: "/hooks/" + p.Name, Waiting: append([]api.Build{}, m.paused[p.Name]...), BackMerges: []api.BackMerge{}, Environments: []api.EnvironmentState{},
	}
	if b, ok := m.latest[p.Name]; ok {
		v.Latest = &b
	}
	if ahead := m.freezes[p.Name]; len(ahead) > 0 {
		f := freeze(*cmp.Or(flow.Frozen(ahead, m.now), &ahead[0]), m.now)
		v.Freeze = &f
	}
	for _, d := range m.debts[p.Name] {
		v.BackMerges = append(v.BackMerges, debt(p, d))
	}
	return v, m.environments(p, &v)
}

// location is what a row shows of an environment in the stored pipeline. Reading no
// more of it is most of what makes many rows quick.
type location struct {
	Name       string `json:"name"`
	Ephemeral  bool   `json:"ephemeral"`
	Production bool   `json:"production"`
	URL        string `json:"url"`
}

// places remembers what it has read of pipelines, of which a page has as many as
// rows and which change with a push at most.
type places struct {
	mu    sync.Mutex
	known map[string][]location // by pipeline
}

const maxPlaces = 2000 // pipelines that are remembered

func (p *places) of(pipeline string) ([]location, error) {
	if pipeline == "" { // none was readable yet
		return nil, nil
	}
	p.mu.Lock()
	found, ok := p.known[pipeline]
	p.mu.Unlock()
	if ok {
		return found, nil
	}
	var pl struct {
		Environments []location `json:"environments"`
	}
	if err := json.Unmarshal([]byte(pipeline), &pl); err != nil {
		return nil, fmt.Errorf("stored policy: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxPlaces {
		p.known = map[string][]location{}
	}
	p.known[pipeline] = pl.Environments
	return pl.Environments, nil
}

// environments are the cells of a row: what runs, and what failed after it.
func (m matrix) environments(p delivery.Project, v *api.Project) error {
	deployments := m.deployments[p.Name]
	envs, err := m.places(m.states[p.Name].Pipeline)
	if err != nil {
		return err
	}
	if len(envs) == 0 && len(deployments) > 0 {
		envs = []location{{Name: deployments[0].Environment, Production: true}}
	}
	for _, env := range envs {
		state := api.EnvironmentState{Name: env.Name, Ephemeral: env.Ephemeral, Production: env.Production}
		for _, i := range m.instances[p.Name] {
			if i.Environment == env.Name {
				state.Instances = append(state.Instances, i)
			}
		}
		for _, d := range deployments {
			if d.Environment != env.Name {
				continue
			}
			r := &api.Running{Build: d.Number, Commit: d.Commit, Lane: d.Lane, Since: cmp.Or(d.FinishedAt, d.StartedAt), By: d.By, URL: env.URL}
			if d.State == delivery.DeploymentSucceeded {
				state.Running = r
				break
			}
			if state.Failed == nil && (d.State == delivery.DeploymentFailed || d.State == delivery.DeploymentUnknown) {
				state.Failed = r
			}
		}
		if env.Production && state.Running != nil {
			state.Running.RolledBack = p.RunningBuild != p.ProductionBuild
			if p.ProductionCommit != "" {
				state.Running.Tag = delivery.ExpandTag(p.Tags.Production, p.ProductionBuild)
			}
			v.Production = state.Running
		}
		v.Environments = append(v.Environments, state)
	}
	slices.SortStableFunc(v.Environments, func(a, b api.EnvironmentState) int {
		switch {
		case a.Production == b.Production:
			return 0
		case a.Production:
			return 1
		default:
			return -1
		}
	})
	return nil
}

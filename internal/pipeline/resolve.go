package pipeline

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/shuntcd/shunt/internal/delivery"
)

// resolve turns the shape of a file into a pipeline and checks what one key
// alone cannot tell: names that must exist, keys that exclude each other, cycles.
func resolve(c *collector, f *fileShape) *Pipeline {
	r := &resolver{collector: c, file: f, names: map[string]position{}}
	if r.tooMany() {
		return nil
	}
	p := &Pipeline{
		Version:  1,
		Name:     f.Name.V,
		Branches: r.branches(&f.Branches.V),
		Tags:     r.tags(&f.Tags.V),
		Jobs:     []Job{}, Publish: []Publish{}, Environments: []Environment{}, Notify: []Notify{},
	}
	for i := range f.Jobs.V {
		p.Jobs = append(p.Jobs, r.job(&f.Jobs.V[i]))
	}
	for i := range f.Environments.V {
		p.Environments = append(p.Environments, r.environment(&f.Environments.V[i]))
	}
	r.production(p)
	r.uniqueNames()
	r.knownNeeds()
	for i := range f.Notify.V {
		n := &f.Notify.V[i].V
		p.Notify = append(p.Notify, Notify{Email: n.Email.values(), On: n.On.values()})
	}
	if t := &f.Tickets.V; t.Pattern.V != "" || t.URL.V != "" {
		p.Tickets = delivery.Tickets{Pattern: t.Pattern.V, URL: t.URL.V}
		if t.Pattern.V == "" || t.URL.V == "" {
			r.add(f.Tickets.At, "give both", "tickets need a pattern and a url")
		}
	}
	if cyclic := r.cycles(); !cyclic {
		late := p.lateJobs()
		r.lanesHaveCI(p, late)
		r.publishing(p, late)
	}
	return p
}

// Making a graph takes time that grows with the square of these.
const (
	maxNames        = 250 // jobs, environments and destinations together
	maxEnvironments = 50
)

func (r *resolver) tooMany() bool {
	envs := len(r.file.Environments.V)
	count := len(r.file.Jobs.V) + envs
	for i := range r.file.Publish.V {
		count += len(r.file.Publish.V[i].V.V)
	}
	switch {
	case count > maxNames:
		r.add(r.file.Jobs.At, "let one job run several steps", "the file has %d jobs, environments and destinations; the limit is %d", count, maxNames)
	case envs > maxEnvironments:
		r.add(r.file.Environments.At, "let one deploy command serve several machines", "the file has %d environments; the limit is %d", envs, maxEnvironments)
	default:
		return false
	}
	return true
}

type resolver struct {
	*collector
	file  *fileShape
	names map[string]position // jobs and environments
}

func (r *resolver) branches(b *branchesShape) delivery.Branches {
	v := delivery.Branches{Integration: b.Integration.V, Production: b.Production.V, Hotfix: b.Hotfix.V}
	dir := strings.TrimSuffix(v.Hotfix, "/*")
	for _, t := range []text{b.Integration, b.Production} {
		matched, _ := path.Match(v.Hotfix, t.V) // a bad pattern was reported
		switch {
		case matched:
			r.add(at(t.At, b.Hotfix.At), "give hotfix branches their own prefix", "the hotfix pattern %s also matches the branch %s", quoted(v.Hotfix), quoted(t.V))
		case dir != v.Hotfix && (dir == t.V || strings.HasPrefix(dir, t.V+"/")):
			r.add(at(t.At, b.Hotfix.At), "git cannot hold both a branch and branches below it", "the branch %s blocks every branch of the hotfix pattern %s", quoted(t.V), quoted(v.Hotfix))
		}
	}
	return v
}

func (r *resolver) tags(t *tagsShape) delivery.Tags {
	v := delivery.Tags{Build: t.Build.V, Production: t.Production.V}
	if badTag(v.Build) == "" && badTag(v.Production) == "" && (tagBlocks(v.Build, v.Production) || tagBlocks(v.Production, v.Build)) {
		r.add(at(t.Production.At, t.Build.At), "give them different prefixes, such as build/$N and production/$N", "the tags %s and %s can be the same, or one can be a directory of the other", quoted(v.Build), quoted(v.Production))
	}
	return v
}

// tagBlocks tells whether a tag of template a may equal a tag of template b or
// be a directory above it. Numbers of one and two digits show every clash.
func tagBlocks(a, b string) bool {
	before, after, _ := strings.Cut(a, "$N")
	pattern := regexp.MustCompile("^" + regexp.QuoteMeta(before) + "[1-9][0-9]*" + regexp.QuoteMeta(after) + "(/|$)")
	for n := int64(1); n <= 20; n++ {
		if pattern.MatchString(delivery.ExpandTag(b, n)) {
			return true
		}
	}
	return false
}

func (r *resolver) job(n *named[group[jobShape]]) Job {
	s := &n.V.V
	j := Job{
		Name: n.Name, Line: n.At.line,
		Lanes: lanes(s.Lanes), Needs: s.Needs.values(), JUnit: s.Reports.V.JUnit.values(),
		Timeout: s.Timeout.V, Retry: s.Retry.V, Secrets: s.Secrets.values(),
		Env: r.variables(s.Env, s.Secrets), RunsOn: s.RunsOn.V,
		Steps: []Step{}, Artifacts: []ArtifactGlob{},
	}
	for i := range s.Steps.V {
		step := &s.Steps.V[i].V
		name := step.Name.V
		if name == "" {
			name = firstLine(step.Run.V)
		}
		j.Steps = append(j.Steps, Step{Name: name, Run: step.Run.V, Line: s.Steps.V[i].At.line})
	}
	for _, a := range s.Artifacts.V {
		j.Artifacts = append(j.Artifacts, ArtifactGlob{Name: a.Name, Path: a.V.V})
	}
	return j
}

// firstLine names a step after its command.
func firstLine(run string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(run), "\n")
	if utf8.RuneCountInString(line) > 80 {
		return string([]rune(line)[:79]) + "…"
	}
	return line
}

func lanes(t texts) []delivery.Lane {
	// In one order, so that [hotfix, main] is the same policy as [main, hotfix].
	list := []delivery.Lane{}
	for _, lane := range []delivery.Lane{delivery.LaneMain, delivery.LaneHotfix} {
		if slices.Contains(t.values(), string(lane)) {
			list = append(list, lane)
		}
	}
	return list
}

func (r *resolver) variables(env table[scalar], secrets texts) map[string]string {
	m := make(map[string]string, len(env.V))
	for _, v := range env.V {
		m[v.Name] = v.V.V
	}
	for _, s := range secrets.V {
		if _, both := m[s.V]; both {
			r.add(s.At, "remove one of them", "%s is both a secret and a variable of env", quoted(s.V))
		}
	}
	return m
}

func (r *resolver) environment(n *named[group[envShape]]) Environment {
	s := &n.V.V
	e := Environment{
		Name: n.Name, Line: n.At.line,
		Ephemeral: s.Ephemeral.V, Production: s.Production.V,
		Needs: s.Needs.values(), Lanes: lanes(s.Lanes),
		Up: s.Up.V, Ready: s.Ready.V, Down: s.Down.V, Deploy: s.Deploy.V, Verify: s.Verify.V, URL: s.URL.V,
		Keep: s.Keep.V, Timeout: s.Timeout.V,
		Secrets: s.Secrets.values(), Env: r.variables(s.Env, s.Secrets),
	}
	label := "environment " + short(n.Name)
	if !n.V.Set {
		return e
	}
	if e.Ephemeral {
		r.requires(n.V.At, label+" is ephemeral", "up", s.Up, "the command that makes an instance")
		r.requires(n.V.At, label+" is ephemeral", "down", s.Down, "the command that destroys the instance; without it instances stay for ever")
		r.refuses(label+" is ephemeral", "it is brought up and down instead", []keyAt{
			{"deploy", s.Deploy.Set, s.Deploy.At},
			{"verify", s.Verify.Set, s.Verify.At},
			{"approve", s.Approve.Set, s.Approve.At},
			{"production", s.Production.V, s.Production.At},
		})
		if e.Keep == 0 {
			e.Keep = 8 * time.Hour
		}
		return e
	}
	r.requires(n.V.At, label+" is permanent", "deploy", s.Deploy, "the command that puts the build in; or say ephemeral: true, with up and down")
	r.refuses(label+" is permanent", "say ephemeral: true if each build gets its own instance", []keyAt{
		{"up", s.Up.Set, s.Up.At},
		{"down", s.Down.Set, s.Down.At},
		{"keep", s.Keep.Set, s.Keep.At},
	})
	if s.Ready.Set && strings.HasPrefix(e.Ready, "/") && e.URL == "" {
		r.add(s.Ready.At, "add url: https://..., or make ready an absolute URL", "ready is a path, but %s has no url", label)
	}
	if s.Approve.Set {
		e.Approve = r.approve(&s.Approve.V)
	}
	return e
}

type keyAt struct {
	key string
	set bool
	at  position
}

func (r *resolver) requires(where position, why, key string, t text, hint string) {
	if t.At == (position{}) { // a value of the wrong type was reported
		r.add(where, "add "+key+": "+hint, "%s, so it must have the key %q", why, key)
	}
}

func (r *resolver) refuses(why, hint string, keys []keyAt) {
	for _, k := range keys {
		if k.set {
			r.add(k.at, hint, "%s, so it cannot have the key %q", why, k.key)
		}
	}
}

// approve fills in the hotfix lane's own times: a hotfix is never silent for
// as long as a normal build may be.
func (r *resolver) approve(s *approveShape) *Approve {
	a := &Approve{By: s.By.values(), Timeout: s.Timeout.V, Remind: s.Remind.V, Escalate: s.Escalate.values()}
	h := &s.Hotfix.V
	a.Hotfix = &Approve{Timeout: h.Timeout.V, Remind: h.Remind.V}
	if h.By.Set {
		a.Hotfix.By = h.By.values()
	}
	if h.Escalate.Set {
		a.Hotfix.Escalate = h.Escalate.values()
	}
	if !h.Remind.Set {
		a.Hotfix.Remind = min(a.Hotfix.Remind, a.Hotfix.Timeout/2)
	}
	if s.Remind.Set && a.Remind >= a.Timeout {
		r.add(s.Remind.At, "", "remind must be shorter than timeout (%s)", a.Timeout)
	}
	if h.Remind.Set && a.Hotfix.Remind >= a.Hotfix.Timeout {
		r.add(h.Remind.At, "", "remind must be shorter than timeout (%s)", a.Hotfix.Timeout)
	}
	return a
}

// production finds the one environment where the road ends, and gives it a gate.
func (r *resolver) production(p *Pipeline) {
	const hint = "write production: true in one environment, or name it production"
	var said, permanent []int
	named := -1
	for i := range p.Environments {
		e := &p.Environments[i]
		if e.Ephemeral {
			continue
		}
		permanent = append(permanent, i)
		if e.Production {
			said = append(said, i)
		}
		if e.Name == "production" && !r.file.Environments.V[i].V.V.Production.Set {
			named = i
		}
	}
	var chosen int
	switch {
	case len(said) > 1:
		second := r.file.Environments.V[said[1]].V.V.Production.At
		r.add(second, "a build has one production; the others are ordinary permanent environments", "both %s and %s are production", p.Environments[said[0]].Name, p.Environments[said[1]].Name)
		return
	case len(said) == 1:
		chosen = said[0]
	case named >= 0:
		chosen = named
	case len(permanent) == 1 && !r.file.Environments.V[permanent[0]].V.V.Production.Set:
		chosen = permanent[0]
	case len(p.Environments) > 0:
		r.add(r.file.Environments.At, hint, "no environment is production")
		return
	default:
		return // that there is none was reported
	}
	e, s := &p.Environments[chosen], &r.file.Environments.V[chosen].V.V
	e.Production = true
	if e.Approve == nil {
		e.Approve = r.approve(&s.Approve.V)
	}
	if len(e.Lanes) == 1 {
		r.add(s.Lanes.At, "remove lanes", "production must be in both lanes: both end there")
	}
}

func (r *resolver) uniqueNames() {
	for _, j := range r.file.Jobs.V {
		r.names[j.Name] = j.At
	}
	for _, e := range r.file.Environments.V {
		if first, both := r.names[e.Name]; both {
			r.add(e.At, "rename one of them: needs could not tell them apart", "%s is both an environment and a job (line %d)", quoted(e.Name), first.line)
		}
		r.names[e.Name] = e.At
	}
}

func (r *resolver) knownNeeds() {
	all := make([]string, 0, len(r.names))
	for name := range r.names {
		all = append(all, name)
	}
	slices.Sort(all)
	check := func(owner string, needs texts) {
		for _, n := range needs.V {
			if _, ok := r.names[n.V]; ok || r.broken(n.At) {
				continue
			}
			hint := "needs takes names of jobs and environments"
			if near := didYouMean(n.V, all); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			r.add(n.At, hint, "%s needs %s, which is neither a job nor an environment", owner, quoted(n.V))
		}
	}
	for i := range r.file.Jobs.V {
		check(labelIn(rule{key: "jobs"}, r.file.Jobs.V[i].Name), r.file.Jobs.V[i].V.V.Needs)
	}
	for i := range r.file.Environments.V {
		check(labelIn(rule{key: "environments"}, r.file.Environments.V[i].Name), r.file.Environments.V[i].V.V.Needs)
	}
}

// cycles reports each circle of needs once, at the need that closes it.
func (r *resolver) cycles() bool {
	needs := map[string]texts{}
	var order []string
	for i := range r.file.Jobs.V {
		needs[r.file.Jobs.V[i].Name] = r.file.Jobs.V[i].V.V.Needs
		order = append(order, r.file.Jobs.V[i].Name)
	}
	for i := range r.file.Environments.V {
		needs[r.file.Environments.V[i].Name] = r.file.Environments.V[i].V.V.Needs
		order = append(order, r.file.Environments.V[i].Name)
	}
	found := false
	done := map[string]bool{}
	var road []string
	var walk func(name string)
	walk = func(name string) {
		if done[name] {
			return
		}
		road = append(road, name)
		for _, n := range needs[name].V {
			if start := slices.Index(road, n.V); start >= 0 {
				found = true
				circle := append(slices.Clone(road[start:]), n.V)
				r.add(n.At, "a -> b means that a needs b; remove one of these needs", "needs go in a circle: %s", circleText(circle))
				continue
			}
			walk(n.V)
		}
		road = road[:len(road)-1]
		done[name] = true
	}
	for _, name := range order {
		walk(name)
	}
	return found
}

func circleText(circle []string) string {
	const shown = 12
	if len(circle) > shown {
		circle = slices.Concat(circle[:shown/2], []string{"..."}, circle[len(circle)-shown/2:])
	}
	words := make([]string, len(circle))
	for i, name := range circle {
		words[i] = short(name)
	}
	return strings.Join(words, " -> ")
}

// lanesHaveCI makes sure that no lane tags a commit that nothing has tested.
func (r *resolver) lanesHaveCI(p *Pipeline, late map[string]bool) {
	if len(p.Jobs) == 0 {
		return // reported
	}
	for _, lane := range []delivery.Lane{delivery.LaneMain, delivery.LaneHotfix} {
		if !slices.ContainsFunc(p.Jobs, func(j Job) bool { return !late[j.Name] && slices.Contains(j.Lanes, lane) }) {
			r.add(r.file.Jobs.At, "a commit is tagged when the CI jobs are green; there must be one", "the %s lane has no CI job: every job needs an environment or is in the other lane", lane)
		}
	}
}

// broken tells whether a problem was already reported at a place, so that what
// follows from it is not.
func (r *resolver) broken(where position) bool {
	return slices.ContainsFunc(r.list, func(p Problem) bool { return p.Line == where.line && p.Column == where.column })
}

// at is the first place that is known: a default has none.
func at(places ...position) position {
	for _, p := range places {
		if p != (position{}) {
			return p
		}
	}
	return position{}
}

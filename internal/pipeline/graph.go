package pipeline

import (
	"fmt"
	"maps"
	"slices"

	"github.com/shuntcd/shunt/internal/delivery"
)

// closure is, for every job and environment, what it needs, if only through
// others. The road does not go on behind a name for which stop is true. The
// needs must not go in a circle. Sets are shared upwards, because the file is
// hostile and walking each road anew would take minutes.
func (p *Pipeline) closure(stop func(name string) bool) map[string]map[string]bool {
	needs := make(map[string][]string, len(p.Jobs)+len(p.Environments))
	for _, j := range p.Jobs {
		needs[j.Name] = j.Needs
	}
	for _, e := range p.Environments {
		needs[e.Name] = e.Needs
	}
	sets := make(map[string]map[string]bool, len(needs))
	var of func(name string) map[string]bool
	of = func(name string) map[string]bool {
		if set, done := sets[name]; done {
			return set
		}
		set := map[string]bool{}
		for _, need := range needs[name] {
			set[need] = true
			if !stop(need) {
				maps.Copy(set, of(need))
			}
		}
		sets[name] = set
		return set
	}
	for name := range needs {
		of(name)
	}
	return sets
}

// lateJobs are the jobs that need an environment, if only through another job.
// The others are the CI jobs.
func (p *Pipeline) lateJobs() map[string]bool {
	before := p.closure(func(string) bool { return false })
	late := map[string]bool{}
	for _, j := range p.Jobs {
		for _, e := range p.Environments {
			if before[j.Name][e.Name] {
				late[j.Name] = true
			}
		}
	}
	return late
}

// Graph is the nodes of a build on a lane, in the order in which they are
// shown: all needs of a node stand before it. Nodes are pending, or skipped
// when the lane does not want them; BuildID and Attempt are zero.
//
//	job/NAME      CI jobs, then
//	tag           needs the lane's CI jobs
//	publish/NAME  needs tag; a second destination is publish/NAME-2
//	up/ENV        an ephemeral environment; needs tag and every publish
//	job/NAME      jobs that need an environment
//	gate/ENV      the decision before a permanent environment
//	down/ENV      needs every user of the environment to be final
//	deploy/ENV    needs its gate, and the down of what that decision ends
//	release/ENV   production only
//
// Who needs a skipped node also needs what that node needs: nobody runs ahead
// because the lane left something out.
func (p *Pipeline) Graph(lane delivery.Lane) []delivery.Node {
	g := &graph{
		p: p, lane: lane, index: map[string]int{}, late: p.lateJobs(),
		before: p.closure(func(string) bool { return false }),
		uses: p.closure(func(name string) bool {
			e := p.Environment(name)
			return e != nil && !e.Ephemeral
		}),
	}
	g.ci()
	g.environments()
	g.inherit()
	return g.sorted()
}

type graph struct {
	p      *Pipeline
	lane   delivery.Lane
	nodes  []delivery.Node
	index  map[string]int             // of a node by name
	before map[string]map[string]bool // needs, if only through others
	uses   map[string]map[string]bool // needs, if only through jobs and ephemeral environments
	late   map[string]bool            // Pipeline.lateJobs
}

func names[T any](list []T, name func(T) string) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = name(v)
	}
	return out
}

// node adds a node; reason is why the lane skips it, or "".
func (g *graph) node(kind delivery.NodeKind, target, name, reason string, needs []string) {
	n := delivery.Node{Name: name, Kind: kind, Target: target, State: delivery.NodePending, Reason: reason}
	if reason != "" {
		n.State = delivery.NodeSkipped
	}
	for _, need := range needs {
		if !slices.Contains(n.Needs, need) {
			n.Needs = append(n.Needs, need)
		}
	}
	g.index[name] = len(g.nodes)
	g.nodes = append(g.nodes, n)
}

func (g *graph) outside(lanes []delivery.Lane) string {
	if slices.Contains(lanes, g.lane) {
		return ""
	}
	return fmt.Sprintf("not in the %s lane", g.lane)
}

// jobReason is why the lane skips a job: itself, or an environment that it
// would run against, is not in the lane.
func (g *graph) jobReason(j *Job) string {
	if reason := g.outside(j.Lanes); reason != "" {
		return reason
	}
	for _, name := range j.Needs {
		if e := g.p.Environment(name); e != nil && g.outside(e.Lanes) != "" {
			return fmt.Sprintf("environment %s is %s", name, g.outside(e.Lanes))
		}
	}
	return ""
}

// nodesOf are the nodes behind names in needs.
func (g *graph) nodesOf(needs []string) []string {
	var list []string
	for _, name := range needs {
		e := g.p.Environment(name)
		switch {
		case e == nil:
			list = append(list, "job/"+name)
		case e.Ephemeral:
			list = append(list, "up/"+name)
		case e.Production:
			list = append(list, "release/"+name)
		default:
			list = append(list, "deploy/"+name)
		}
	}
	return list
}

// ci adds what comes before any environment.
func (g *graph) ci() {
	var green []string
	skipped := map[string]string{} // artifact -> why the lane does not make it
	for i := range g.p.Jobs {
		j := &g.p.Jobs[i]
		if g.late[j.Name] {
			continue
		}
		reason := g.jobReason(j)
		g.node(delivery.NodeJob, j.Name, "job/"+j.Name, reason, g.nodesOf(j.Needs))
		if reason == "" {
			green = append(green, "job/"+j.Name)
			continue
		}
		for _, a := range j.Artifacts {
			skipped[a.Name] = fmt.Sprintf("job %s, which makes it, is %s", j.Name, reason)
		}
	}
	g.node(delivery.NodeTag, "", "tag", "", green)
	for _, d := range g.p.Publish {
		g.node(delivery.NodePublish, d.Artifact, d.Node, skipped[d.Artifact], []string{"tag"})
	}
}

// environments adds the environments and what needs them.
func (g *graph) environments() {
	p := g.p
	packaged := append([]string{"tag"}, names(p.Publish, func(d Publish) string { return d.Node })...)
	for _, e := range p.Environments {
		if e.Ephemeral {
			g.node(delivery.NodeUp, e.Name, "up/"+e.Name, g.outside(e.Lanes), append(slices.Clone(packaged), g.nodesOf(e.Needs)...))
		}
	}
	for i := range p.Jobs {
		if j := &p.Jobs[i]; g.late[j.Name] {
			g.node(delivery.NodeJob, j.Name, "job/"+j.Name, g.jobReason(j), g.nodesOf(j.Needs))
		}
	}
	for _, e := range p.Environments {
		if e.Approve != nil {
			g.node(delivery.NodeGate, e.Name, "gate/"+e.Name, g.outside(e.Lanes), append(slices.Clone(packaged), g.nodesOf(e.Needs)...))
		}
	}
	for _, e := range p.Environments {
		if e.Ephemeral {
			g.node(delivery.NodeDown, e.Name, "down/"+e.Name, g.outside(e.Lanes), g.users(e.Name))
		}
	}
	for _, e := range p.Environments {
		if e.Ephemeral {
			continue
		}
		needs := []string{"gate/" + e.Name}
		if e.Approve == nil {
			needs = append(slices.Clone(packaged), g.nodesOf(e.Needs)...)
		}
		g.node(delivery.NodeDeploy, e.Name, "deploy/"+e.Name, g.outside(e.Lanes), needs)
		if e.Production {
			g.node(delivery.NodeRelease, e.Name, "release/"+e.Name, g.outside(e.Lanes), []string{"deploy/" + e.Name})
		}
	}
	g.endings()
}

// users are the nodes that must be final before an ephemeral environment is
// destroyed: its up, what runs against it, and the decisions about it. A job
// behind a deployment runs against what was deployed, and is no user.
func (g *graph) users(env string) []string {
	list := []string{"up/" + env}
	for _, j := range g.p.Jobs {
		if g.uses[j.Name][env] {
			list = append(list, "job/"+j.Name)
		}
	}
	for _, e := range g.p.Environments {
		switch {
		case e.Approve != nil:
			if g.before[e.Name][env] {
				list = append(list, "gate/"+e.Name)
			}
		case !g.uses[e.Name][env]:
		case e.Ephemeral:
			list = append(list, "down/"+e.Name)
		default:
			list = append(list, "deploy/"+e.Name)
		}
	}
	return list
}

// endings makes a deployment wait until the environments that its decision
// ends are gone. A decision ends an environment when every other decision about
// it comes earlier, and when nothing behind the deployment still uses it.
func (g *graph) endings() {
	for _, e := range g.p.Environments {
		if e.Ephemeral || e.Approve == nil {
			continue
		}
		behind := g.behind("deploy/" + e.Name)
		for _, env := range g.p.Environments {
			if !env.Ephemeral || !g.before[e.Name][env.Name] {
				continue
			}
			last := !slices.ContainsFunc(g.p.Environments, func(other Environment) bool {
				return other.Approve != nil && other.Name != e.Name && g.before[other.Name][env.Name] && !g.before[e.Name][other.Name]
			})
			deploy, down := g.index["deploy/"+e.Name], "down/"+env.Name
			if last && !behind[down] {
				g.nodes[deploy].Needs = append(g.nodes[deploy].Needs, down)
			}
		}
	}
}

// behind are the nodes that need a node, if only through others.
func (g *graph) behind(name string) map[string]bool {
	neededBy := map[string][]string{}
	for _, n := range g.nodes {
		for _, need := range n.Needs {
			neededBy[need] = append(neededBy[need], n.Name)
		}
	}
	seen := map[string]bool{}
	todo := []string{name}
	for len(todo) > 0 {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, n := range neededBy[next] {
			if !seen[n] {
				seen[n] = true
				todo = append(todo, n)
			}
		}
	}
	return seen
}

// inherit gives the dependents of skipped nodes the needs of those.
func (g *graph) inherit() {
	for i := range g.nodes {
		n := &g.nodes[i]
		for k := 0; k < len(n.Needs); k++ { // grows while it runs
			need := g.nodes[g.index[n.Needs[k]]]
			if need.State != delivery.NodeSkipped {
				continue
			}
			for _, more := range need.Needs {
				if !slices.Contains(n.Needs, more) {
					n.Needs = append(n.Needs, more)
				}
			}
		}
	}
}

// sorted brings the nodes into an order in which needs come first, and that is
// otherwise the order in which they were added.
func (g *graph) sorted() []delivery.Node {
	placed := make(map[string]bool, len(g.nodes))
	list := make([]delivery.Node, 0, len(g.nodes))
	for len(list) < len(g.nodes) {
		next := slices.IndexFunc(g.nodes, func(n delivery.Node) bool {
			return !placed[n.Name] && !slices.ContainsFunc(n.Needs, func(need string) bool { return !placed[need] })
		})
		if next < 0 {
			panic("pipeline: the graph has a circle, which Parse must have refused")
		}
		n := g.nodes[next]
		n.Position = len(list)
		placed[n.Name] = true
		list = append(list, n)
	}
	return list
}

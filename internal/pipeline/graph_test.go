package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shuntcd/shunt/internal/delivery"
)

type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// ancestors are all nodes that a node needs, if only through others.
func ancestors(nodes []delivery.Node, name string) map[string]bool {
	byName := map[string]delivery.Node{}
	for _, n := range nodes {
		byName[n.Name] = n
	}
	seen := map[string]bool{}
	todo := []string{name}
	for len(todo) > 0 {
		n := todo[0]
		todo = todo[1:]
		for _, need := range byName[n].Needs {
			if !seen[need] {
				seen[need] = true
				todo = append(todo, need)
			}
		}
	}
	return seen
}

// checkGraph checks what holds for the graph of any pipeline on any lane.
func checkGraph(t failer, p *Pipeline, nodes []delivery.Node) {
	t.Helper()
	seen := map[string]delivery.Node{}
	for i, n := range nodes {
		if _, double := seen[n.Name]; double {
			t.Fatalf("%s is there twice", n.Name)
		}
		if n.Position != i || n.BuildID != 0 || n.Attempt != 0 {
			t.Fatalf("%+v at %d", n, i)
		}
		if want := string(n.Kind) + "/" + n.Target; n.Kind != delivery.NodeTag && n.Kind != delivery.NodePublish && n.Name != want {
			t.Fatalf("%s should be %s", n.Name, want)
		}
		if n.Kind == delivery.NodePublish && p.Publication(n.Name) == nil {
			t.Fatalf("%s has no destination", n.Name)
		}
		if (n.State == delivery.NodeSkipped) != (n.Reason != "") {
			t.Fatalf("%+v", n)
		}
		for _, need := range n.Needs {
			before, ok := seen[need]
			if !ok {
				t.Fatalf("%s needs %s, which is not before it: no such node, or a circle", n.Name, need)
			}
			// Nobody runs ahead because a need was skipped.
			if before.State == delivery.NodeSkipped {
				for _, more := range before.Needs {
					if !slices.Contains(n.Needs, more) {
						t.Fatalf("%s needs the skipped %s but not its need %s", n.Name, need, more)
					}
				}
			}
		}
		seen[n.Name] = n
	}
	prod := p.Production().Name
	gate, deploy, release := "gate/"+prod, "deploy/"+prod, "release/"+prod
	for _, name := range []string{"tag", gate, deploy, release} {
		if seen[name].State != delivery.NodePending {
			t.Fatalf("%s is %q", name, seen[name].State)
		}
	}
	if !slices.Contains(seen[deploy].Needs, gate) || !slices.Contains(seen[release].Needs, deploy) {
		t.Fatalf("production can be reached without its gate")
	}
	if up := ancestors(nodes, gate); !up["tag"] || up[deploy] || up[release] {
		t.Fatalf("the gate comes at the wrong time: %v", up)
	}
	for _, n := range nodes {
		// What waits for down of an environment is a deployment whose decision
		// ends it, or what is behind such a deployment; never a user of it.
		if n.Kind != delivery.NodeDown {
			continue
		}
		for _, user := range n.Needs {
			if ancestors(nodes, user)[n.Name] {
				t.Fatalf("%s waits for %s, which waits for it", user, n.Name)
			}
		}
	}
}

// drawFile makes a random valid pipeline file. Needs point backwards only, over
// a mixed order of jobs and environments.
func drawFile(t *rapid.T) string {
	type thing struct{ job, ephemeral bool }
	things := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) thing {
		return thing{rapid.Bool().Draw(t, "job"), rapid.Bool().Draw(t, "ephemeral")}
	}), 0, 9).Draw(t, "things")
	lanes := func() string {
		return rapid.SampledFrom([]string{"", "", ", lanes: [main]", ", lanes: [hotfix]"}).Draw(t, "lanes")
	}
	needs := func(i int) string {
		var list []string
		for k := range i {
			if rapid.IntRange(0, 2).Draw(t, "need") == 0 {
				list = append(list, fmt.Sprintf("n%d", k))
			}
		}
		return ", needs: [" + strings.Join(list, ", ") + "]"
	}
	jobs, envs := "  first: { steps: [make], artifacts: { app: a } }\n", ""
	for i, th := range things {
		switch {
		case th.job:
			jobs += fmt.Sprintf("  n%d: { steps: [make]%s%s, artifacts: { a%d: f } }\n", i, lanes(), needs(i), i)
		case th.ephemeral:
			envs += fmt.Sprintf("  n%d: { ephemeral: true, up: u, down: d%s%s }\n", i, lanes(), needs(i))
		default:
			gate := rapid.SampledFrom([]string{"", ", approve: {}"}).Draw(t, "gate")
			envs += fmt.Sprintf("  n%d: { deploy: d%s%s%s }\n", i, lanes(), gate, needs(i))
		}
	}
	envs += fmt.Sprintf("  production: { deploy: d%s }\n", needs(len(things)))
	jobs += "  last: { steps: [make], needs: production }\n"
	return "jobs:\n" + jobs + "publish: { app: [{ files: true }, { files: true }] }\nenvironments:\n" + envs
}

func TestEveryGraphIsSound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		file := drawFile(t)
		p, err := Parse(FileName, []byte(file))
		if err != nil {
			t.Fatalf("%v\n%s", err, file)
		}
		for _, lane := range []delivery.Lane{delivery.LaneMain, delivery.LaneHotfix} {
			nodes := p.Graph(lane)
			checkGraph(t, p, nodes)
			// Both lanes have the same nodes, and the production gate waits in
			// both for every environment that it needs and that the lane has.
			if want := len(p.Graph(delivery.LaneMain)); len(nodes) != want {
				t.Fatalf("%d nodes, the main lane has %d", len(nodes), want)
			}
			up := ancestors(nodes, "gate/production")
			before := p.closure(func(string) bool { return false })
			for _, e := range p.Environments {
				if e.Ephemeral && before["production"][e.Name] && !up["up/"+e.Name] {
					t.Fatalf("gate/production does not wait for up/%s in the %s lane\n%s", e.Name, lane, file)
				}
			}
		}
	})
}

func BenchmarkGraphOfManyEnvironments(b *testing.B) {
	p := mustParse(b, bombs()["many environments"])
	for b.Loop() {
		p.Graph(delivery.LaneHotfix)
	}
}

package engine

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/pipeline"
)

// TestEveryBuildGoesOnOrEnds plays drives over graphs of random pipelines with
// random outcomes: whatever happens, a build can go on, waits for a person, or
// has ended; and what came up comes down.
func TestEveryBuildGoesOnOrEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := "version: 1\njobs:\n  build: {steps: [{run: x}], artifacts: {app: x}}\n"
		needs := []string{"build"}
		envs := ""
		if rapid.Bool().Draw(t, "publish") {
			text += "publish: {app: {files: true}}\n"
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "environments") {
			name := fmt.Sprint("e", i)
			if rapid.Bool().Draw(t, "ephemeral") {
				envs += fmt.Sprintf("  %s: {ephemeral: true, up: x, down: x}\n", name)
			} else {
				gate := ""
				if rapid.Bool().Draw(t, "gate") {
					gate = ", approve: {timeout: 1h}"
				}
				envs += fmt.Sprintf("  %s: {needs: [%s], deploy: x%s}\n", name, rapid.SampledFrom(needs).Draw(t, "need"), gate)
			}
			needs = append(needs, name)
		}
		late := ""
		if rapid.Bool().Draw(t, "late") {
			late = "  late: {needs: [" + needs[len(needs)-1] + "], lanes: [main], steps: [{run: x}]}\n"
			needs = append(needs, "late")
		}
		text = "version: 1\njobs:\n  build: {steps: [{run: x}], artifacts: {app: x}}\n" + late + text[len("version: 1\njobs:\n  build: {steps: [{run: x}], artifacts: {app: x}}\n"):]
		text += "environments:\n" + envs + "  production: {needs: [" + rapid.SampledFrom(needs).Draw(t, "production") + "], approve: {timeout: 1h}, deploy: x}\n"
		pl, err := pipeline.Parse(pipeline.FileName, []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		nodes := pl.Graph(rapid.SampledFrom([]delivery.Lane{delivery.LaneMain, delivery.LaneHotfix}).Draw(t, "lane"))
		play(t, nodes)
	})
}

// play drives a graph by the engine's rules until it ends.
func play(t *rapid.T, nodes []delivery.Node) {
	set := func(name string, s delivery.NodeState, reason string) {
		for i := range nodes {
			if nodes[i].Name == name {
				nodes[i].State, nodes[i].Reason = s, reason
			}
		}
	}
	cancelled := false
	for range 200 {
		if !cancelled && rapid.IntRange(0, 20).Draw(t, "cancel") == 0 {
			if _, asks := stopped(nodes); !asks {
				cancelled = true
			}
		}
		if cancelled {
			for _, n := range nodes {
				if (n.State == delivery.NodePending || n.State == delivery.NodeWaiting) && n.Kind != delivery.NodeDown && n.Kind != delivery.NodeRelease {
					set(n.Name, delivery.NodeCancelled, "cancelled")
				}
			}
		}
		start, unreached := flow.NextNodes(nodes)
		for _, name := range unreached {
			set(name, delivery.NodeUnreached, "")
		}
		if len(start) > 0 {
			name := rapid.SampledFrom(start).Draw(t, "node")
			var n delivery.Node
			for _, x := range nodes {
				if x.Name == name {
					n = x
				}
			}
			states := []delivery.NodeState{delivery.NodeSucceeded, delivery.NodeSucceeded, delivery.NodeSucceeded, delivery.NodeFailed}
			switch n.Kind { //nolint:exhaustive // the others end well or not
			case delivery.NodeGate:
				states = []delivery.NodeState{delivery.NodeWaiting}
			case delivery.NodeDeploy:
				states = append(states, delivery.NodeUnknown, delivery.NodeWaiting)
			case delivery.NodeRelease:
				states = states[2:]
			}
			s := rapid.SampledFrom(states).Draw(t, "state")
			set(name, s, "")
			continue
		}
		if len(unreached) > 0 {
			continue
		}
		status, _ := flow.Outcome(nodes)
		switch status {
		case delivery.BuildRunning:
			t.Fatalf("it can neither go on nor end: %+v", nodes)
		case delivery.BuildWaiting:
			for _, n := range nodes {
				if n.State == delivery.NodeWaiting && n.Kind == delivery.NodeGate {
					s, why := delivery.NodeSucceeded, "promoted by bob"
					if rapid.Bool().Draw(t, "reject") {
						s, why = delivery.NodeFailed, "rejected by bob"
					}
					set(n.Name, s, why)
				} else if n.State == delivery.NodeWaiting {
					set(n.Name, delivery.NodePending, "")
				}
			}
		case delivery.BuildStopped:
			n, asks := stopped(nodes)
			if !asks {
				t.Fatalf("it stopped and asks nothing: %+v", nodes)
			}
			set(n.Name, rapid.SampledFrom([]delivery.NodeState{delivery.NodePending, delivery.NodeCancelled}).Draw(t, "answer"), "")
			if cancelled {
				set(n.Name, delivery.NodeCancelled, "")
			}
		default:
			for _, n := range nodes {
				if !n.State.Final() {
					t.Fatalf("it ended as %s with %s %s", status, n.Name, n.State)
				}
			}
			return
		}
	}
}

package flow_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
)

func TestSupersedes(t *testing.T) {
	t.Parallel()
	older := delivery.Build{Project: "p", Number: 1, Lane: delivery.LaneMain, Ref: "refs/heads/develop", Status: delivery.BuildQueued}
	newer := older
	newer.Number = 2
	with := func(b delivery.Build, change func(*delivery.Build)) delivery.Build { change(&b); return b }
	equal(t, flow.Supersedes(newer, older), true)
	equal(t, flow.Supersedes(older, newer), false)
	equal(t, flow.Supersedes(older, older), false)
	for _, change := range []func(*delivery.Build){
		func(b *delivery.Build) { b.Project = "q" },
		func(b *delivery.Build) { b.Ref = "refs/heads/x" },
		func(b *delivery.Build) { b.Status = delivery.BuildRunning },
		func(b *delivery.Build) { b.Lane = delivery.LaneHotfix },
	} {
		equal(t, flow.Supersedes(newer, with(older, change)), false)
	}
	fix := func(b *delivery.Build) { b.Lane = delivery.LaneHotfix }
	equal(t, flow.Supersedes(with(newer, fix), with(older, fix)), false)
}

func TestBefore(t *testing.T) {
	t.Parallel()
	build := rapid.Custom(func(rt *rapid.T) delivery.Build {
		return delivery.Build{
			ID: rapid.Int64Range(1, 4).Draw(rt, "id"), Number: rapid.Int64Range(1, 3).Draw(rt, "number"),
			Lane: rapid.SampledFrom([]delivery.Lane{delivery.LaneMain, delivery.LaneHotfix}).Draw(rt, "lane"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		a, b, c := build.Draw(rt, "a"), build.Draw(rt, "b"), build.Draw(rt, "c")
		switch {
		case flow.Before(a, b) && flow.Before(b, a):
			rt.Fatal("both before each other")
		case flow.Before(a, b) && flow.Before(b, c) && !flow.Before(a, c):
			rt.Fatal("not transitive")
		case a.Lane == delivery.LaneHotfix && b.Lane == delivery.LaneMain && !flow.Before(a, b):
			rt.Fatal("a hotfix waits for the main lane")
		case a.Lane == b.Lane && a.ID < b.ID && !flow.Before(a, b):
			rt.Fatal("the older one waits")
		}
	})
}

func TestJobAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attempt, retry int
		state          delivery.AttemptState
		lost           int
		want           bool
	}{
		{1, 0, delivery.AttemptFailed, 0, false},
		{1, 1, delivery.AttemptFailed, 0, true},
		{2, 1, delivery.AttemptFailed, 0, false},
		{2, 1, delivery.AttemptTimedOut, 1, true}, // the first was lost, and is not held against it
		{1, 0, delivery.AttemptLost, 0, true},
		{3, 0, delivery.AttemptLost, 2, true},
		{4, 9, delivery.AttemptLost, 3, false},
		{1, 9, delivery.AttemptSucceeded, 0, false},
		{1, 9, delivery.AttemptCancelled, 0, false},
		{1, 9, delivery.AttemptRunning, 0, false},
	} {
		equal(t, flow.JobAgain(c.attempt, c.retry, c.state, c.lost), c.want)
	}
}

// graph reads nodes from lines "name state needs... # reason".
func graph(lines ...string) []delivery.Node {
	nodes := make([]delivery.Node, len(lines))
	for i, line := range lines {
		line, reason, _ := strings.Cut(line, " # ")
		f := strings.Fields(line)
		kind, target, _ := strings.Cut(f[0], "/")
		nodes[i] = delivery.Node{Name: f[0], Kind: delivery.NodeKind(kind), Target: target, State: delivery.NodeState(f[1]), Needs: f[2:], Position: i, Reason: reason}
	}
	return nodes
}

func TestNextNodes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		nodes            []delivery.Node
		start, unreached []string
	}{
		"begin":          {graph("job/a pending", "job/b pending job/a", "job/c pending"), []string{"job/a", "job/c"}, nil},
		"skipped is met": {graph("job/a succeeded", "job/b skipped", "tag pending job/a job/b"), []string{"tag"}, nil},
		"failure spreads, down starts": {
			graph("job/a failed", "tag pending job/a", "up/qa pending tag", "deploy/p pending up/qa", "down/qa pending up/qa deploy/p"),
			[]string{"down/qa"},
			[]string{"tag", "up/qa", "deploy/p"},
		},
		"spreads against the order given":    {graph("tag pending job/b", "job/b pending job/a", "job/a cancelled"), nil, []string{"tag", "job/b"}},
		"after unreached":                    {graph("job/a unreached", "job/b pending job/a"), nil, []string{"job/b"}},
		"unknown and waiting are waited for": {graph("job/a unknown", "gate/p waiting", "job/b pending job/a", "deploy/p pending gate/p", "down/qa pending gate/p"), nil, nil},
		"a failed down blocks no fix":        {graph("down/qa failed", "deploy/p pending down/qa"), []string{"deploy/p"}, nil},
		"what does not exist":                {graph("job/b pending job/x", "down/qa pending up/x"), []string{"down/qa"}, []string{"job/b"}},
		"circle":                             {graph("job/a pending job/b", "job/b pending job/a"), nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start, unreached := flow.NextNodes(c.nodes)
			equal(t, start, c.start)
			equal(t, unreached, c.unreached)
		})
	}
}

// TestGraphsEnd drives random graphs with random luck: each ends, nothing starts
// before its needs, every environment comes down, and success is never a lie.
func TestGraphsEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		kinds := []delivery.NodeKind{delivery.NodeJob, delivery.NodePublish, delivery.NodeUp, delivery.NodeDown, delivery.NodeGate, delivery.NodeDeploy}
		nodes := make([]delivery.Node, rapid.IntRange(0, 12).Draw(rt, "nodes"))
		at := map[string]int{}
		for i := range nodes {
			kind := rapid.SampledFrom(kinds).Draw(rt, "kind")
			nodes[i] = delivery.Node{Name: fmt.Sprintf("%s/%d", kind, i), Kind: kind, Position: i, State: delivery.NodePending}
			at[nodes[i].Name] = i
			for j := range i {
				if rapid.IntRange(0, 2).Draw(rt, "need") == 0 {
					nodes[i].Needs = append(nodes[i].Needs, nodes[j].Name)
				}
			}
		}
		if rapid.Bool().Draw(rt, "reversed") {
			slices.Reverse(nodes)
			for i := range nodes {
				at[nodes[i].Name] = i
			}
		}
		for range len(nodes) + 1 {
			start, unreached := flow.NextNodes(nodes)
			if len(start)+len(unreached) == 0 {
				break
			}
			for _, name := range unreached {
				nodes[at[name]].State = delivery.NodeUnreached
			}
			for _, name := range start {
				n := &nodes[at[name]]
				for _, need := range n.Needs {
					finality := n.Kind == delivery.NodeDown || nodes[at[need]].Kind == delivery.NodeDown
					if s := nodes[at[need]].State; !s.Satisfied() && (!finality || !s.Final()) {
						rt.Fatalf("%s starts while %s is %s", name, need, s)
					}
				}
				n.State = rapid.SampledFrom([]delivery.NodeState{delivery.NodeSucceeded, delivery.NodeSucceeded, delivery.NodeSkipped, delivery.NodeFailed, delivery.NodeCancelled}).Draw(rt, "luck")
			}
		}
		happy, touched := true, false
		for _, n := range nodes {
			if !n.State.Final() {
				rt.Fatalf("%s stays %s", n.Name, n.State)
			}
			if n.Kind == delivery.NodeDown && n.State == delivery.NodeUnreached {
				rt.Fatalf("%s was never taken down", n.Name)
			}
			happy = happy && n.State.Satisfied()
			touched = touched || n.Kind == delivery.NodeDeploy && n.State == delivery.NodeFailed
		}
		status, reason := flow.Outcome(nodes)
		if happy != (status == delivery.BuildSucceeded) || touched != (status == delivery.BuildStopped) || happy == (reason != "") {
			rt.Fatalf("%v ends %s: %s", nodes, status, reason)
		}
	})
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		nodes  []delivery.Node
		status delivery.BuildStatus
		reason string
	}{
		"shipped":               {graph("deploy/production succeeded", "release succeeded", "down/qa succeeded"), delivery.BuildSucceeded, ""},
		"shipped, but it leaks": {graph("deploy/production succeeded", "release succeeded", "down/qa failed # exit code 1"), delivery.BuildSucceeded, "down qa failed: exit code 1"},
		"no production at all":  {graph("job/a succeeded", "job/b skipped"), delivery.BuildSucceeded, ""},
		"nothing to do":         {nil, delivery.BuildSucceeded, ""},
		"job failed": {
			graph("job/build succeeded", "job/smoke failed # exit code 1", "job/unit failed # timed out", "tag unreached"),
			delivery.BuildFailed, "job smoke failed: exit code 1",
		},
		"first in position":    {slices.Concat(graph("x unreached", "job/late failed # b")[1:], graph("tag failed # a")), delivery.BuildFailed, "tag failed: a"},
		"rejected":             {graph("gate/production failed # rejected by ben: too big", "deploy/production unreached", "down/qa failed"), delivery.BuildRejected, "rejected by ben: too big"},
		"expired":              {graph("gate/production failed # expired after 4h", "deploy/production unreached"), delivery.BuildExpired, "expired after 4h"},
		"gate broke":           {graph("gate/production failed # refs/tags/production is in the way"), delivery.BuildFailed, "gate production failed: refs/tags/production is in the way"},
		"a job says rejected":  {graph("job/a failed # rejected"), delivery.BuildFailed, "job a failed: rejected"},
		"cancelled":            {graph("job/a failed", "job/b cancelled # by ana"), delivery.BuildCancelled, "job b was cancelled: by ana"},
		"gate waits":           {graph("job/a failed", "gate/production waiting", "deploy/production pending gate/production"), delivery.BuildWaiting, "gate production waits for a decision"},
		"lock":                 {graph("gate/production succeeded", "deploy/production waiting"), delivery.BuildWaiting, "deploy production waits for the environment's lock"},
		"lock, named":          {graph("deploy/production waiting # for build 42"), delivery.BuildWaiting, "deploy production waits for build 42"},
		"deploy failed":        {graph("deploy/production failed # exit code 1\x1b[2J", "release unreached"), delivery.BuildStopped, "deploy production failed: exit code 1?[2J"},
		"deploy unknown":       {graph("gate/x waiting", "deploy/production unknown"), delivery.BuildStopped, "deploy production is unknown"},
		"rollback failed":      {graph("release succeeded", "rollback/production failed # ready"), delivery.BuildStopped, "rollback production failed: ready"},
		"deployed, not tagged": {graph("deploy/production succeeded", "release failed # push was rejected"), delivery.BuildStopped, "release failed: push was rejected"},
		"tag unknown":          {graph("tag unknown # no answer"), delivery.BuildStopped, "tag is unknown: no answer"},
		"runs":                 {graph("job/a running", "job/b failed"), delivery.BuildRunning, ""},
		"could start":          {graph("job/a pending"), delivery.BuildRunning, ""},
		"only unreached":       {graph("job/a unreached"), delivery.BuildFailed, "job a was not reached"},
		"circle":               {graph("job/a pending job/b", "job/b pending job/a"), delivery.BuildFailed, "job a cannot start: its needs go in a circle"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, reason := flow.Outcome(c.nodes)
			equal(t, status, c.status)
			equal(t, reason, c.reason)
		})
	}
}

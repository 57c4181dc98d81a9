package flow

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// maxLost is how often a job runs again because its runner died.
const maxLost = 3

// JobAgain tells whether a build's job runs again after its attempt (1, 2, ...)
// ended in state. Lost attempts are not the job's fault: they run again up to
// three times and use up no retry; lostBefore counts those before this one.
func JobAgain(attempt, retry int, state delivery.AttemptState, lostBefore int) bool {
	switch state {
	case delivery.AttemptLost:
		return lostBefore < maxLost
	case delivery.AttemptFailed, delivery.AttemptTimedOut:
		return attempt-lostBefore <= retry
	case delivery.AttemptRunning, delivery.AttemptSucceeded, delivery.AttemptCancelled:
	}
	return false
}

// NextNodes names the pending nodes that may start now and those that never will,
// each in the order given. A node starts when all that it needs is satisfied, and
// is unreached when something that it needs ended otherwise; a need that does not
// exist is never satisfied. A down node starts when all that it needs is final,
// however it ended: what was built up has to come down. And a down that failed
// holds up nobody: it is tried again until the environment is gone, and production
// does not wait for that. Nodes that are unreached
// because of one that this call names are named too.
func NextNodes(nodes []delivery.Node) (start []string, unreached []string) {
	states := make(map[string]delivery.NodeState, len(nodes))
	downs := map[string]bool{}
	for _, n := range nodes {
		states[n.Name] = n.State
		downs[n.Name] = n.Kind == delivery.NodeDown
	}
	blocked := func(name string) bool {
		state, exists := states[name]
		return !exists || state.Final() && !state.Satisfied() && !downs[name]
	}
	satisfied := func(name string) bool { return states[name].Satisfied() || downs[name] && states[name].Final() }
	final := func(name string) bool {
		state, exists := states[name]
		return !exists || state.Final()
	}
	for changed := true; changed; {
		changed = false
		for _, n := range nodes {
			if states[n.Name] == delivery.NodePending && n.Kind != delivery.NodeDown && slices.ContainsFunc(n.Needs, blocked) {
				states[n.Name] = delivery.NodeUnreached
				changed = true
			}
		}
	}
	for _, n := range nodes {
		ready := satisfied
		if n.Kind == delivery.NodeDown {
			ready = final
		}
		switch {
		case n.State != delivery.NodePending:
		case states[n.Name] == delivery.NodeUnreached:
			unreached = append(unreached, n.Name)
		case !slices.ContainsFunc(n.Needs, func(name string) bool { return !ready(name) }):
			start = append(start, n.Name)
		}
	}
	return start, unreached
}

// Outcome is the status of a build, and why, when its nodes cannot go on without a
// person. The first that applies counts:
//
//   - a deploy, rollback or release failed, or any node is unknown: stopped;
//   - a gate or the lock of an environment is waited for: waiting;
//   - something runs or could start: running;
//   - the release succeeded: succeeded, whatever an environment's end says;
//   - a gate was rejected or expired (its node failed, and its reason starts with
//     that word): rejected, expired;
//   - a node was cancelled, as a deploy is that a person gave up: cancelled;
//   - a node failed or was never reached: failed, naming the first in position;
//   - everything succeeded or was skipped: succeeded.
func Outcome(nodes []delivery.Node) (status delivery.BuildStatus, reason string) {
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, func(a, b delivery.Node) int { return cmp.Compare(a.Position, b.Position) })
	find := func(match func(delivery.Node) bool) (delivery.Node, bool) {
		i := slices.IndexFunc(nodes, match)
		if i < 0 {
			return delivery.Node{}, false
		}
		return nodes[i], true
	}
	in := func(state delivery.NodeState) func(delivery.Node) bool {
		return func(n delivery.Node) bool { return n.State == state }
	}
	gateSays := func(prefix string) func(delivery.Node) bool {
		return func(n delivery.Node) bool {
			return n.Kind == delivery.NodeGate && n.State == delivery.NodeFailed && strings.HasPrefix(n.Reason, prefix)
		}
	}

	if n, ok := find(touchedProduction); ok {
		return delivery.BuildStopped, nodeWords(n)
	}
	if n, ok := find(in(delivery.NodeUnknown)); ok {
		return delivery.BuildStopped, nodeWords(n)
	}
	if n, ok := find(func(n delivery.Node) bool { return n.State == delivery.NodeWaiting && n.Kind == delivery.NodeGate }); ok {
		return delivery.BuildWaiting, nodeWords(n)
	}
	if n, ok := find(in(delivery.NodeWaiting)); ok {
		return delivery.BuildWaiting, nodeWords(n)
	}
	if start, unreached := NextNodes(nodes); len(start)+len(unreached) > 0 || slices.ContainsFunc(nodes, in(delivery.NodeRunning)) {
		return delivery.BuildRunning, ""
	}
	failure, failed := find(in(delivery.NodeFailed))
	if _, ok := find(func(n delivery.Node) bool {
		return n.Kind == delivery.NodeRelease && n.State == delivery.NodeSucceeded
	}); ok {
		if failed {
			return delivery.BuildSucceeded, nodeWords(failure)
		}
		return delivery.BuildSucceeded, ""
	}
	if n, ok := find(gateSays("rejected")); ok {
		return delivery.BuildRejected, clean(n.Reason)
	}
	if n, ok := find(gateSays("expired")); ok {
		return delivery.BuildExpired, clean(n.Reason)
	}
	if n, ok := find(in(delivery.NodeCancelled)); ok {
		return delivery.BuildCancelled, nodeWords(n)
	}
	if failed {
		return delivery.BuildFailed, nodeWords(failure)
	}
	if n, ok := find(in(delivery.NodeUnreached)); ok {
		return delivery.BuildFailed, nodeWords(n)
	}
	if n, ok := find(in(delivery.NodePending)); ok {
		return delivery.BuildFailed, nodeWords(n) + ": its needs go in a circle"
	}
	return delivery.BuildSucceeded, ""
}

// touchedProduction finds a node after whose end production may not be what the
// records say, so that a person has to choose.
func touchedProduction(n delivery.Node) bool {
	switch n.Kind {
	case delivery.NodeDeploy, delivery.NodeRollback, delivery.NodeRelease:
		return n.State == delivery.NodeFailed || n.State == delivery.NodeUnknown
	case delivery.NodeJob, delivery.NodeTag, delivery.NodePublish, delivery.NodeUp, delivery.NodeDown, delivery.NodeGate:
	}
	return false
}

// nodeWords names a node, its state and the reason: "job smoke failed: exit code 1".
func nodeWords(n delivery.Node) string {
	name := string(n.Kind)
	if n.Target != "" {
		name += " " + clean(n.Target)
	}
	var state string
	switch n.State {
	case delivery.NodeUnknown:
		state = "is unknown"
	case delivery.NodeUnreached:
		state = "was not reached"
	case delivery.NodeCancelled:
		state = "was cancelled"
	case delivery.NodePending:
		state = "cannot start"
	case delivery.NodeWaiting:
		state = "waits"
		if n.Reason == "" {
			n.Reason = "for the environment's lock"
			if n.Kind == delivery.NodeGate {
				n.Reason = "for a decision"
			}
			return fmt.Sprintf("%s %s %s", name, state, n.Reason)
		}
	case delivery.NodeRunning, delivery.NodeSucceeded, delivery.NodeFailed, delivery.NodeSkipped:
		state = string(n.State)
	}
	switch reason := clean(n.Reason); {
	case reason == "":
	case n.State == delivery.NodeWaiting && strings.HasPrefix(reason, "for "):
		state += " " + reason
	default:
		state += ": " + reason
	}
	return name + " " + state
}

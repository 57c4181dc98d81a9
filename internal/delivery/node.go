package delivery

import "time"

// NodeKind says what a node of a build's graph does.
type NodeKind string

// The kinds of node.
const (
	NodeJob      NodeKind = "job"      // run a job of the pipeline file
	NodeTag      NodeKind = "tag"      // push the annotated tag build/N
	NodePublish  NodeKind = "publish"  // push one artifact to its repository
	NodeUp       NodeKind = "up"       // create an ephemeral environment
	NodeDown     NodeKind = "down"     // destroy it
	NodeGate     NodeKind = "gate"     // wait for a person
	NodeDeploy   NodeKind = "deploy"   // put the build into a permanent environment
	NodeRelease  NodeKind = "release"  // push production/N and the production branch
	NodeRollback NodeKind = "rollback" // deploy the stored bytes of this earlier build again
)

// NodeState is the state of a node.
type NodeState string

// The states of a node. Succeeded, failed, skipped, unreached and cancelled
// are final; unknown waits for a probe or a person.
const (
	NodePending   NodeState = "pending"
	NodeRunning   NodeState = "running"
	NodeWaiting   NodeState = "waiting" // for a person (gate), or for the environment's lock (deploy)
	NodeSucceeded NodeState = "succeeded"
	NodeFailed    NodeState = "failed"
	NodeSkipped   NodeState = "skipped"   // the lane does not want it; those behind it go on
	NodeUnreached NodeState = "unreached" // something before it did not succeed
	NodeCancelled NodeState = "cancelled"
	NodeUnknown   NodeState = "unknown" // started, and nobody knows how it ended
)

// Final tells whether the node is done with.
func (s NodeState) Final() bool {
	switch s {
	case NodeSucceeded, NodeFailed, NodeSkipped, NodeUnreached, NodeCancelled:
		return true
	case NodePending, NodeRunning, NodeWaiting, NodeUnknown:
	}
	return false
}

// Satisfied tells whether nodes that need this one may start.
func (s NodeState) Satisfied() bool { return s == NodeSucceeded || s == NodeSkipped }

// Node is one step of a build's graph. Names are unique in a build and start
// with the kind: "job/smoke", "tag", "publish/app", "up/qa", "gate/production".
type Node struct {
	BuildID    int64
	Name       string
	Kind       NodeKind
	Target     string   // the job, artifact or environment; empty for tag
	Needs      []string // names of nodes
	Position   int      // order in the pipeline file, for display
	State      NodeState
	Reason     string // why it failed, waits or was skipped, in words
	Attempt    int    // 0 before the first
	StartedAt  time.Time
	FinishedAt time.Time
}

// AttemptState is the state of one attempt of a job on a runner.
type AttemptState string

// The states of an attempt.
const (
	AttemptRunning   AttemptState = "running"
	AttemptSucceeded AttemptState = "succeeded"
	AttemptFailed    AttemptState = "failed"
	AttemptTimedOut  AttemptState = "timed_out"
	AttemptCancelled AttemptState = "cancelled"
	AttemptLost      AttemptState = "lost" // its runner died; nobody knows how it ended
)

// Attempt is one run of a node's shell steps by a runner.
type Attempt struct {
	ID         string // the runner's job id: unique, safe in a path
	BuildID    int64
	Node       string
	Attempt    int // 1, 2, ...
	Fence      int64
	State      AttemptState
	ExitCode   int
	Reason     string
	StartedAt  time.Time
	FinishedAt time.Time
}

// Artifact is a named file of a build.
type Artifact struct {
	BuildID int64
	Name    string // the name in the pipeline file: "app"
	File    string // base name of the file: "petstore.tar.gz"; hostile
	SHA256  string // 64 hex digits
	Size    int64  // bytes
	Node    string // the node that made it
}

// TestCase is one test of a JUnit report.
type TestCase struct {
	Suite   string
	Class   string
	Name    string
	State   TestState
	Millis  int64
	Message string // of a failure; at most 4 KiB
}

// TestState is the outcome of a test case.
type TestState string

// The outcomes of a test case.
const (
	TestPassed  TestState = "passed"
	TestFailed  TestState = "failed"
	TestSkipped TestState = "skipped"
	TestFlaky   TestState = "flaky" // failed first, then passed in the same run
)

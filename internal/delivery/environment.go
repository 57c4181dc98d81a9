package delivery

import "time"

// InstanceState is the state of an ephemeral environment's instance.
type InstanceState string

// The states of an instance. It is created in `creating` before `up` runs and
// ends in `down`, whatever happens between.
const (
	InstanceCreating   InstanceState = "creating"
	InstanceUp         InstanceState = "up"
	InstanceFailed     InstanceState = "failed" // up or ready failed; down still has to run
	InstanceDestroying InstanceState = "destroying"
	InstanceDown       InstanceState = "down"
)

// Instance is one ephemeral environment of one build.
type Instance struct {
	ID          string // "petstore-qa-43": project, environment, build; the label that scripts get
	Project     string
	Environment string
	BuildID     int64
	Number      int64 // the build's number
	State       InstanceState
	URL         string            // absolute http or https, or empty
	Outputs     map[string]string // what `up` wrote to $SHUNT_OUTPUT; given to `down`
	Pinned      bool
	Reason      string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	DownAt      time.Time
	DownTries   int
}

// DeploymentState is the state of one attempt to put a build into an environment.
type DeploymentState string

// The states of a deployment.
const (
	DeploymentRunning   DeploymentState = "running" // holds the environment's lock
	DeploymentSucceeded DeploymentState = "succeeded"
	DeploymentFailed    DeploymentState = "failed"
	DeploymentUnknown   DeploymentState = "unknown"  // nobody knows; holds the lock until a person or `verify` tells
	DeploymentGivenUp   DeploymentState = "given_up" // a person closed it
)

// Deployment is one attempt to put a build into a permanent environment.
type Deployment struct {
	ID          string // SHUNT_DEPLOY_ID
	Project     string
	Environment string
	BuildID     int64
	Number      int64
	Commit      string
	Lane        Lane
	Kind        string // "promote", "rollback" or "takeover"
	Fence       int64  // SHUNT_FENCE: grows with every deployment of the environment
	State       DeploymentState
	Before      string // commit in the environment before
	After       string // what runs now, in words, after a failure
	By          string
	Reason      string
	StartedAt   time.Time
	FinishedAt  time.Time
}

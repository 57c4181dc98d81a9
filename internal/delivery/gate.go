package delivery

import "time"

// GateState is the state of a gate.
type GateState string

// The states of a gate. One compare-and-set leads from open to promoted,
// rejected, expired or cancelled; a promoted gate whose binding no longer holds when
// the deployment is about to start becomes open again under a new version.
const (
	GateOpen      GateState = "open"
	GatePromoted  GateState = "promoted"
	GateRejected  GateState = "rejected"
	GateExpired   GateState = "expired"
	GateCancelled GateState = "cancelled"
)

// Binding is what a decision is about. It is compared again in the transaction
// that starts the deployment; anything changed voids the decision.
type Binding struct {
	Commit       string            `json:"commit"`
	Tree         string            `json:"tree"`
	PolicyDigest string            `json:"policy_digest"`
	Artifacts    map[string]string `json:"artifacts"`  // name -> SHA-256
	Production   string            `json:"production"` // commit in production; empty when there is none
	Branch       string            `json:"branch"`     // tip of the production branch; empty when there is none
}

// Gate is the human decision before an environment.
type Gate struct {
	ID          string // short public name, as in /a/7KQ2MXPA; carries no authority
	BuildID     int64
	Environment string
	Version     int64 // grows when the gate is opened again; forms carry it
	State       GateState
	Binding     Binding
	Stale       string // why it can no longer be promoted, in words; empty when it can
	OpenedAt    time.Time
	ExpiresAt   time.Time
	RemindAt    time.Time // zero: no further reminder
	Reminders   int
	DecidedBy   string
	DecidedAt   time.Time
	DecidedFrom string // address and client of the one who decided
	Reason      string
	Without     int64 // the production build knowingly left out; 0: none
}

// Decision is a click on a gate.
type Decision struct {
	GateID  string
	Version int64 // the version that the person saw; 0: whatever is open now
	Commit  string
	Promote bool
	By      string
	From    string
	Reason  string
	Without int64 // accept that this production build is only contained as an equal patch
}

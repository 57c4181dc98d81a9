package delivery

import (
	"strconv"
	"strings"
	"time"
)

// Lane is a road to production.
type Lane string

// The two lanes.
const (
	LaneMain   Lane = "main"
	LaneHotfix Lane = "hotfix"
)

// BuildStatus is the state of a build as a person sees it.
type BuildStatus string

// The states of a build. Queued, running, waiting and stopped are open: the
// build can still move. The others are final, except that a failed build is
// reopened by a re-run and a succeeded one by a rollback to it.
const (
	BuildQueued     BuildStatus = "queued"
	BuildRunning    BuildStatus = "running"
	BuildWaiting    BuildStatus = "waiting"    // a gate waits for a decision
	BuildStopped    BuildStatus = "stopped"    // a deployment failed or is unknown; a person chooses retry, rollback or give up
	BuildSucceeded  BuildStatus = "succeeded"  // it reached production
	BuildFailed     BuildStatus = "failed"     // a job, tag, publish or environment failed
	BuildRejected   BuildStatus = "rejected"   // a person said no
	BuildExpired    BuildStatus = "expired"    // nobody decided in time
	BuildCancelled  BuildStatus = "cancelled"  // a person stopped it
	BuildSuperseded BuildStatus = "superseded" // a newer push of its branch came while it was queued
)

// Final tells whether the build has ended.
func (s BuildStatus) Final() bool {
	switch s {
	case BuildQueued, BuildRunning, BuildWaiting, BuildStopped:
		return false
	case BuildSucceeded, BuildFailed, BuildRejected, BuildExpired, BuildCancelled, BuildSuperseded:
	}
	return true
}

// ExitCode is the exit code of `shunt watch` for a build in this state.
func (s BuildStatus) ExitCode() int {
	switch s {
	case BuildSucceeded:
		return 0
	case BuildRejected:
		return 3
	case BuildQueued, BuildRunning, BuildWaiting:
		return 4
	case BuildExpired, BuildCancelled, BuildSuperseded:
		return 5
	case BuildStopped, BuildFailed:
	}
	return 1
}

// CanBecome tells whether a build may go from s to next.
func (s BuildStatus) CanBecome(next BuildStatus) bool {
	if s == next {
		return true
	}
	switch s {
	case BuildQueued:
		return next == BuildRunning || next == BuildCancelled || next == BuildSuperseded || next == BuildFailed
	case BuildRunning:
		return next != BuildSuperseded && next != BuildQueued
	case BuildWaiting, BuildStopped:
		return next != BuildSuperseded && next != BuildQueued
	case BuildFailed, BuildSucceeded, BuildCancelled:
		return next == BuildRunning // re-run, rollback, retry
	case BuildRejected, BuildExpired, BuildSuperseded:
	}
	return false
}

// Build is one commit on one lane.
type Build struct {
	ID           int64  // unique in the installation
	Project      string // the project's name
	Number       int64  // unique in the project, starting at 1 or at --next-build
	Lane         Lane
	Ref          string // the full ref that was pushed: refs/heads/develop
	Commit       string // 40 or 64 hex digits
	Tree         string
	Parent       string // first parent of the commit; empty for a root commit
	Subject      string // first line of the commit message; hostile
	AuthorName   string // hostile
	AuthorEmail  string // hostile
	Pipeline     []byte // the pipeline file as read at Commit
	PolicyDigest string // SHA-256 of the resolved pipeline: what an approval binds
	Production   string // commit that was in production when the build began; may be empty
	Status       BuildStatus
	Reason       string // why it ended or waits, in words
	CreatedAt    time.Time
	StartedAt    time.Time // zero while queued
	FinishedAt   time.Time // zero while open
	LeaseOwner   string
	LeaseFence   int64
	LeaseUntil   time.Time
	CancelledBy  string // set when a person asked to cancel; the driver obeys
	TagObject    string // object id of the annotated build tag, once pushed
}

// Branch is the short name of the pushed branch: "hotfix/cart-500".
func (b *Build) Branch() string { return strings.TrimPrefix(b.Ref, "refs/heads/") }

// ExpandTag replaces $N in a tag template by the build number: "build/$N" -> "build/43".
func ExpandTag(template string, number int64) string {
	return strings.ReplaceAll(template, "$N", strconv.FormatInt(number, 10))
}

// ShortHash is the first seven digits of an object id.
func ShortHash(id string) string {
	if len(id) > 7 {
		return id[:7]
	}
	return id
}

// Package api holds the JSON wire types of Shunt's HTTP API and its Go client.
// Pages and the command line show the same types, so that they cannot disagree.
// Times are RFC 3339 in UTC; a zero time is left out. Every text that comes from
// a repository, a report or a script is hostile and is escaped where it is shown.
package api

import (
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Project is one row of the home matrix.
type Project struct {
	Name         string             `json:"name"`
	URL          string             `json:"url" doc:"git remote, without credentials"`
	Branches     delivery.Branches  `json:"branches"`
	Tags         delivery.Tags      `json:"tags"`
	Production   *Running           `json:"production,omitempty" doc:"what production runs; absent when nothing was deployed yet"`
	Environments []EnvironmentState `json:"environments" doc:"in pipeline order; production is last"`
	Waiting      []Build            `json:"waiting" doc:"builds that wait for a person"`
	Latest       *Build             `json:"latest,omitempty"`
	Hold         string             `json:"hold,omitempty" doc:"why promotions of the main lane wait"`
	Freeze       *Freeze            `json:"freeze,omitempty" doc:"for which promotions of the main lane wait, or else the next one that is planned"`
	Incident     string             `json:"incident,omitempty" doc:"why nothing ships until a person has looked"`
	BackMerges   []BackMerge        `json:"back_merges" doc:"open debts"`
	NextBuild    int64              `json:"next_build"`
	WebhookPath  string             `json:"webhook_path"`
	LastFetch    time.Time          `json:"last_fetch,omitzero"`
	FetchError   string             `json:"fetch_error,omitempty"`
}

// Frozen is the freeze for which promotions of the main lane wait; nil: none.
func (p Project) Frozen() *Freeze {
	if p.Freeze == nil || p.Freeze.State != delivery.FreezeActive {
		return nil
	}
	return p.Freeze
}

// Running says what an environment runs.
type Running struct {
	Build      int64         `json:"build"`
	Commit     string        `json:"commit"`
	Lane       delivery.Lane `json:"lane"`
	Since      time.Time     `json:"since"`
	By         string        `json:"by"`
	URL        string        `json:"url,omitempty"`
	RolledBack bool          `json:"rolled_back,omitempty" doc:"an earlier build than the latest production tag runs"`
	Tag        string        `json:"tag,omitempty" doc:"latest production tag"`
}

// EnvironmentState is one cell of the home matrix. A failed attempt never
// replaces what runs.
type EnvironmentState struct {
	Name       string     `json:"name"`
	Ephemeral  bool       `json:"ephemeral"`
	Production bool       `json:"production"`
	Running    *Running   `json:"running,omitempty"`
	Failed     *Running   `json:"failed,omitempty" doc:"last attempt, when it failed after what runs began"`
	Instances  []Instance `json:"instances,omitempty" doc:"of an ephemeral environment: what is up"`
}

// Build is a build in a list.
type Build struct {
	Project    string               `json:"project"`
	Number     int64                `json:"number"`
	Lane       delivery.Lane        `json:"lane"`
	Branch     string               `json:"branch"`
	Commit     string               `json:"commit"`
	Subject    string               `json:"subject"`
	Author     string               `json:"author"`
	Status     delivery.BuildStatus `json:"status"`
	Reason     string               `json:"reason,omitempty" doc:"why it ended or waits"`
	CreatedAt  time.Time            `json:"created_at"`
	StartedAt  time.Time            `json:"started_at,omitzero"`
	FinishedAt time.Time            `json:"finished_at,omitzero"`
	URL        string               `json:"url" doc:"its page"`
	Gate       string               `json:"gate,omitempty" doc:"id of the request that waits for a person"`
}

// BuildDetail is all that is known of one build.
type BuildDetail struct {
	Build
	Tree          string           `json:"tree"`
	PolicyDigest  string           `json:"policy_digest"`
	DrivenBy      string           `json:"driven_by,omitempty" doc:"installation/process of the server that drives it now"`
	BuildTag      string           `json:"build_tag,omitempty" doc:"once pushed"`
	ProductionTag string           `json:"production_tag,omitempty" doc:"once pushed"`
	Nodes         []Node           `json:"nodes"`
	Artifacts     []Artifact       `json:"artifacts"`
	Tests         TestSummary      `json:"tests"`
	Gates         []Gate           `json:"gates"`
	Instances     []Instance       `json:"instances"`
	Deployments   []Deployment     `json:"deployments"`
	Effects       []Effect         `json:"effects"`
	WhyFailed     *WhyFailed       `json:"why_failed,omitempty"`
	Tickets       delivery.Tickets `json:"tickets,omitzero" doc:"what in commit messages names a ticket, and where that is"`
	Actions       []Action         `json:"actions" doc:"what a person may do now, and what is refused and why"`
}

// Action is something a person may do to a build now, or may not and why.
type Action struct {
	Name    string `json:"name" enum:"cancel,rerun,retry,give-up,rollback,confirm-live,confirm-not-live"`
	Refused string `json:"refused,omitempty" doc:"why not, and the way out"`
}

// Node is one step of the build's graph.
type Node struct {
	Name       string             `json:"name"`
	Kind       delivery.NodeKind  `json:"kind"`
	Target     string             `json:"target,omitempty"`
	Stage      string             `json:"stage" doc:"the column it is shown in: ci, publish, the environment's name"`
	Needs      []string           `json:"needs"`
	State      delivery.NodeState `json:"state"`
	Reason     string             `json:"reason,omitempty"`
	Attempts   []Attempt          `json:"attempts,omitempty"`
	StartedAt  time.Time          `json:"started_at,omitzero"`
	FinishedAt time.Time          `json:"finished_at,omitzero"`
	Usual      time.Duration      `json:"usual,omitempty" doc:"median duration of the last 20 successes, in nanoseconds"`
}

// Attempt is one run of a node on a runner.
type Attempt struct {
	Attempt    int                   `json:"attempt"`
	State      delivery.AttemptState `json:"state"`
	ExitCode   int                   `json:"exit_code"`
	Reason     string                `json:"reason,omitempty"`
	StartedAt  time.Time             `json:"started_at"`
	FinishedAt time.Time             `json:"finished_at,omitzero"`
	LogBytes   int64                 `json:"log_bytes"`
}

// Artifact is a named file of a build.
type Artifact struct {
	Name      string   `json:"name"`
	File      string   `json:"file"`
	SHA256    string   `json:"sha256"`
	Size      int64    `json:"size"`
	Published []string `json:"published,omitempty" doc:"where it was published"`
}

// TestSummary counts the test cases of a build and names those that failed.
type TestSummary struct {
	Passed       int        `json:"passed"`
	Failed       int        `json:"failed"`
	Skipped      int        `json:"skipped"`
	Flaky        int        `json:"flaky"`
	New          int        `json:"new" doc:"not in the production build's report"`
	Gone         int        `json:"gone" doc:"in the production build's report and no longer here"`
	Failing      []TestCase `json:"failing,omitempty" doc:"at most 50"`
	NewlyFailing []string   `json:"newly_failing,omitempty" doc:"failed here and passed in production's build; at most 50"`
	Fixed        []string   `json:"fixed,omitempty" doc:"passed here and failed in production's build; at most 50"`
}

// TestCase is one failing test.
type TestCase struct {
	Node    string `json:"node"`
	Class   string `json:"class,omitempty"`
	Name    string `json:"name"`
	Message string `json:"message,omitempty"`
}

// WhyFailed is what a failed build opens on.
type WhyFailed struct {
	Node     string   `json:"node"`
	Attempt  int      `json:"attempt"`
	ExitCode int      `json:"exit_code"`
	Reason   string   `json:"reason"`
	Tail     []string `json:"tail,omitempty" doc:"last 20 lines of its log, without escapes"`
}

// Gate is a decision that waits or was made.
type Gate struct {
	ID          string             `json:"id"`
	Project     string             `json:"project"`
	Number      int64              `json:"number"`
	Environment string             `json:"environment"`
	Version     int64              `json:"version" doc:"send it back with the decision; another version is answered 409"`
	State       delivery.GateState `json:"state"`
	Stale       string             `json:"stale,omitempty" doc:"why it cannot be promoted"`
	Binding     delivery.Binding   `json:"binding"`
	OpenedAt    time.Time          `json:"opened_at"`
	ExpiresAt   time.Time          `json:"expires_at"`
	DecidedBy   string             `json:"decided_by,omitempty"`
	DecidedAt   time.Time          `json:"decided_at,omitzero"`
	DecidedFrom string             `json:"decided_from,omitempty"`
	Reason      string             `json:"reason,omitempty"`
	Without     int64              `json:"without,omitempty"`
	URL         string             `json:"url"`
}

// GateDetail is the promote page, in its order.
type GateDetail struct {
	Gate
	Build       BuildDetail           `json:"build"`
	Title       string                `json:"title" doc:"hotfix name or branch"`
	Replaces    *Running              `json:"replaces,omitempty"`
	QA          []Instance            `json:"qa" doc:"environments to try it in"`
	Commits     []Commit              `json:"commits" doc:"against what is in production; at most 200"`
	CommitCount int                   `json:"commit_count"`
	Files       []delivery.FileChange `json:"files" doc:"at most 500"`
	Added       int                   `json:"added"`
	Deleted     int                   `json:"deleted"`
	Diff        string                `json:"diff,omitempty" doc:"unified diff, at most 512 KiB"`
	DiffCut     bool                  `json:"diff_cut,omitempty"`
	Skipped     []Node                `json:"skipped" doc:"jobs that this lane skips, with their usual duration"`
	Forecast    Forecast              `json:"forecast"`
	Warnings    []string              `json:"warnings" doc:"only when true"`
	Refused     string                `json:"refused,omitempty" doc:"why Promote would be refused now"`
	Mend        []string              `json:"mend,omitempty" doc:"commands that bring it up to date"`
	EqualPatch  int64                 `json:"equal_patch,omitempty" doc:"production build that is contained only as an equal patch; a person may accept it with a reason"`
	Next        []string              `json:"next" doc:"what happens after Promote, in order"`
	WayBack     string                `json:"way_back"`
	CanDecide   bool                  `json:"can_decide"`
}

// Commit is a git commit.
type Commit struct {
	ID      string    `json:"id"`
	Subject string    `json:"subject"`
	Author  string    `json:"author"`
	At      time.Time `json:"at"`
}

// Forecast says how merging the production branch back would go.
type Forecast struct {
	Branch    string   `json:"branch" doc:"the integration branch"`
	Contained bool     `json:"contained"`
	Conflicts []string `json:"conflicts" doc:"files; empty: merges clean"`
	Words     string   `json:"words" doc:"one sentence"`
}

// Instance is an ephemeral environment of one build.
type Instance struct {
	ID          string                 `json:"id"`
	Project     string                 `json:"project"`
	Environment string                 `json:"environment"`
	Number      int64                  `json:"number"`
	State       delivery.InstanceState `json:"state"`
	URL         string                 `json:"url,omitempty"`
	Pinned      bool                   `json:"pinned"`
	Reason      string                 `json:"reason,omitempty"`
	CreatedAt   time.Time              `json:"created_at"`
	ExpiresAt   time.Time              `json:"expires_at"`
	DownAt      time.Time              `json:"down_at,omitzero"`
}

// Deployment is one attempt to put a build into a permanent environment.
type Deployment struct {
	ID          string                   `json:"id"`
	Environment string                   `json:"environment"`
	Number      int64                    `json:"number"`
	Commit      string                   `json:"commit"`
	Kind        string                   `json:"kind" enum:"promote,rollback,takeover"`
	State       delivery.DeploymentState `json:"state"`
	Before      string                   `json:"before,omitempty"`
	After       string                   `json:"after,omitempty" doc:"what runs now, in words, after a failure"`
	By          string                   `json:"by"`
	Reason      string                   `json:"reason,omitempty"`
	StartedAt   time.Time                `json:"started_at"`
	FinishedAt  time.Time                `json:"finished_at,omitzero"`
}

// Effect is one act outside the database.
type Effect struct {
	Key        string               `json:"key"`
	Kind       string               `json:"kind"`
	State      delivery.EffectState `json:"state"`
	Error      string               `json:"error,omitempty"`
	StartedAt  time.Time            `json:"started_at,omitzero"`
	FinishedAt time.Time            `json:"finished_at,omitzero"`
}

// BackMerge is the debt of a production commit that the integration branch lacks.
type BackMerge struct {
	Project   string    `json:"project"`
	Commit    string    `json:"commit"`
	Number    int64     `json:"number"`
	Owner     string    `json:"owner"`
	OpenedAt  time.Time `json:"opened_at"`
	ClosedAt  time.Time `json:"closed_at,omitzero"`
	ClosedBy  string    `json:"closed_by,omitempty"`
	Conflicts []string  `json:"conflicts"`
	Commands  []string  `json:"commands" doc:"what to type to pay it"`
}

// Push is what became of a pushed ref: a build, or a refusal in words.
type Push struct {
	Project string    `json:"project"`
	Ref     string    `json:"ref"`
	Commit  string    `json:"commit"`
	At      time.Time `json:"at"`
	Build   int64     `json:"build,omitempty"`
	URL     string    `json:"url,omitempty"`
	Refused string    `json:"refused,omitempty" doc:"why no build was made, with the commands that mend it"`
}

// HotfixBase says where a hotfix must start.
type HotfixBase struct {
	Project string  `json:"project"`
	Commit  string  `json:"commit"`
	Tag     string  `json:"tag"`
	Pattern string  `json:"pattern" doc:"hotfix/*"`
	Open    []Build `json:"open" doc:"hotfix builds that have not ended"`
}

// AddProject takes a repository over.
type AddProject struct {
	Name         string `json:"name" pattern:"^[a-z0-9][a-z0-9-]{0,62}$"`
	URL          string `json:"url"`
	Local        bool   `json:"local,omitempty" doc:"URL is a path on the server that the operator registers hereby"`
	InProduction string `json:"in_production,omitempty" doc:"tag, branch or commit that production runs now"`
	NextBuild    int64  `json:"next_build,omitempty" doc:"number of the next build, above the old server's; default 1"`
	InstallHook  bool   `json:"install_hook,omitempty" doc:"install a post-receive hook in a local bare repository"`
}

// AddedProject answers AddProject.
type AddedProject struct {
	Project
	WebhookSecret string `json:"webhook_secret" doc:"shown once"`
	HookInstalled string `json:"hook_installed,omitempty"`
}

// Decide is a click on a gate.
type Decide struct {
	Promote bool   `json:"promote"`
	Reason  string `json:"reason,omitempty" maxLength:"2000" doc:"needed to reject, and with without"`
	Version int64  `json:"version,omitempty" doc:"gate version that was seen; 0: what is open now"`
	Commit  string `json:"commit,omitempty" doc:"commit that was seen; empty: what is open now"`
	Without int64  `json:"without,omitempty" doc:"accept that this production build is contained only as an equal patch"`
}

// Because is a request that needs only a reason.
type Because struct {
	Reason string `json:"reason" minLength:"1" maxLength:"2000"`
}

// Resolve answers what a stopped build asks.
type Resolve struct {
	Action string `json:"action" enum:"retry,give-up,confirm-live,confirm-not-live"`
	Reason string `json:"reason" minLength:"1" maxLength:"2000"`
}

// Rollback puts an earlier production build back.
type Rollback struct {
	To     int64  `json:"to,omitempty" doc:"0: the last build that ran healthy before"`
	Reason string `json:"reason" minLength:"1" maxLength:"2000"`
}

// Keep changes how long an ephemeral environment lives.
type Keep struct {
	Extend string `json:"extend,omitempty" doc:"duration from now, such as 2h"`
	Pin    *bool  `json:"pin,omitempty" doc:"a pinned environment does not expire; the decision still ends it"`
}

// Secret is a value for the scripts of a project; it can be written and never read.
type Secret struct {
	Value string `json:"value" minLength:"1" maxLength:"65536"`
}

// Mail is a message in the demo's mailbox.
type Mail struct {
	ID      string    `json:"id"`
	Subject string    `json:"subject"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	At      time.Time `json:"at"`
	Text    string    `json:"text"`
	HTML    string    `json:"html,omitempty"`
}

// Check is one line of `shunt doctor`.
type Check struct {
	Name  string `json:"name"`
	State string `json:"state" enum:"ok,warn,fail"`
	Words string `json:"words"`
}

// Event says that something changed. Pages fetch again what it names.
type Event struct {
	ID      int64  `json:"id"`
	Project string `json:"project"`
	Number  int64  `json:"number,omitempty"`
	Kind    string `json:"kind" doc:"build, node, log, gate, deployment, environment, project, mail"`
}

// Me is who asks.
type Me struct {
	Name     string `json:"name"`
	Email    string `json:"email,omitempty"`
	Operator bool   `json:"operator"`
}

// Token is a new token of the command line.
type Token struct {
	Name  string `json:"name" minLength:"1" maxLength:"63"`
	Token string `json:"token,omitempty" doc:"shown once"`
}

// BuildFilter narrows a list of builds.
type BuildFilter struct {
	Lane   string `query:"lane" enum:"main,hotfix,"`
	Status string `query:"status"`
	Branch string `query:"branch"`
	Commit string `query:"commit"`
	Before int64  `query:"before" doc:"only numbers below; 0: from the newest"`
	Limit  int    `query:"limit" minimum:"0" maximum:"200" doc:"default 30"`
}

// AuditRow is one line of the audit log. Hash chains it to the row before.
type AuditRow struct {
	Seq     int64     `json:"seq"`
	At      time.Time `json:"at"`
	Project string    `json:"project,omitempty"`
	Number  int64     `json:"number,omitempty"`
	Actor   string    `json:"actor"`
	Action  string    `json:"action"`
	Detail  string    `json:"detail,omitempty"`
	Hash    string    `json:"hash"`
}

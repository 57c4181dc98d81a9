package api

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Lines is what the line map of a project shows: the latest builds, where
// hotfixes left production and where builds went into it.
type Lines struct {
	Project  string            `json:"project"`
	Branches delivery.Branches `json:"branches"`
	Stations []Station         `json:"stations" doc:"oldest first"`
	Debts    []BackMerge       `json:"debts" doc:"owed and paid"`
	Running  int64             `json:"running,omitempty" doc:"build that production runs"`
}

// Station is a build on the line map.
type Station struct {
	Build
	Base       int64              `json:"base,omitempty" doc:"build that was in production when a hotfix began"`
	GateID     string             `json:"gate_id,omitempty" doc:"its latest request, open or decided"`
	GateState  delivery.GateState `json:"gate_state,omitempty"`
	ReleasedAt time.Time          `json:"released_at,omitzero" doc:"when it went into production"`
	Tag        string             `json:"tag,omitempty" doc:"production tag"`
}

// Lines returns the line map of a project's latest builds (0: 40).
func (c *Client) Lines(ctx context.Context, project string, limit int) (Lines, error) {
	return get[Lines](ctx, c, projectPath(project)+"/lines?"+url.Values{"limit": {strconv.Itoa(limit)}}.Encode())
}

// Comparison is what differs between two builds.
type Comparison struct {
	Project     string                `json:"project"`
	From        Build                 `json:"from"`
	To          Build                 `json:"to"`
	Commits     []Commit              `json:"commits" doc:"in to and not in from, newest first; at most 200"`
	CommitCount int                   `json:"commit_count"`
	Missing     []Commit              `json:"missing" doc:"in from and not in to; at most 200"`
	Files       []delivery.FileChange `json:"files" doc:"at most 500"`
	FileCount   int                   `json:"file_count"`
	Added       int                   `json:"added"`
	Deleted     int                   `json:"deleted"`
	Diff        string                `json:"diff,omitempty" doc:"unified diff, at most 512 KiB"`
	DiffCut     bool                  `json:"diff_cut,omitempty"`
	Tests       TestChanges           `json:"tests"`
	Tickets     delivery.Tickets      `json:"tickets,omitzero" doc:"what in commit messages names a ticket, and where that is"`
	Artifacts   []ArtifactChange      `json:"artifacts"`
}

// TestChanges compares the test cases of two builds by name.
type TestChanges struct {
	Failing []string     `json:"failing" doc:"failed in to and not in from"`
	Fixed   []string     `json:"fixed" doc:"passed in to and failed in from"`
	New     []string     `json:"new"`
	Gone    []string     `json:"gone"`
	Slower  []SlowerTest `json:"slower" doc:"at least twice as long, and half a second longer; the worst first"`
}

// SlowerTest is a test case that takes much longer.
type SlowerTest struct {
	Name string        `json:"name"`
	Was  time.Duration `json:"was" doc:"nanoseconds"`
	Is   time.Duration `json:"is" doc:"nanoseconds"`
}

// ArtifactChange is an artifact of either build.
type ArtifactChange struct {
	Name string    `json:"name"`
	From *Artifact `json:"from,omitempty"`
	To   *Artifact `json:"to,omitempty"`
}

// Compare compares two builds; from 0 is what production runs.
func (c *Client) Compare(ctx context.Context, project string, from, to int64) (Comparison, error) {
	q := url.Values{"from": {strconv.FormatInt(from, 10)}, "to": {strconv.FormatInt(to, 10)}}
	return get[Comparison](ctx, c, projectPath(project)+"/compare?"+q.Encode())
}

// Moment is something that happened to a project's environments.
type Moment struct {
	At          time.Time                `json:"at"`
	Kind        string                   `json:"kind" enum:"promote,rollback,takeover,hold,hold released,freeze,freeze planned,freeze ended,incident,incident cleared"`
	Environment string                   `json:"environment,omitempty"`
	Number      int64                    `json:"number,omitempty"`
	Lane        delivery.Lane            `json:"lane,omitempty"`
	State       delivery.DeploymentState `json:"state,omitempty" doc:"of a deployment"`
	Took        time.Duration            `json:"took,omitempty" doc:"of a deployment that has ended, in nanoseconds"`
	Until       time.Time                `json:"until,omitzero" doc:"of a freeze that began: its end"`
	By          string                   `json:"by"`
	Words       string                   `json:"words,omitempty" doc:"why, and what became of it"`
}

// Timeline lists what happened to a project's environments before a time (zero:
// now), newest first, at most 100.
func (c *Client) Timeline(ctx context.Context, project string, before time.Time) ([]Moment, error) {
	q := url.Values{}
	if !before.IsZero() {
		q.Set("before", before.UTC().Format(time.RFC3339Nano))
	}
	return get[[]Moment](ctx, c, projectPath(project)+"/timeline?"+q.Encode())
}

// BuildArtifact is an artifact in the list of a project's artifacts.
type BuildArtifact struct {
	Artifact
	Number    int64                `json:"number"`
	Lane      delivery.Lane        `json:"lane"`
	Status    delivery.BuildStatus `json:"status"`
	CreatedAt time.Time            `json:"created_at" doc:"of the build"`
}

// Artifacts lists the artifacts of builds below a number (0: from the newest),
// newest first, at most 100.
func (c *Client) Artifacts(ctx context.Context, project string, before int64) ([]BuildArtifact, error) {
	return get[[]BuildArtifact](ctx, c, projectPath(project)+"/artifacts?before="+strconv.FormatInt(before, 10))
}

// TestMail tells to whom a test mail is on its way.
type TestMail struct {
	To []string `json:"to"`
}

// TestMail sends a mail to all that the project's pipeline file tells.
func (c *Client) TestMail(ctx context.Context, project string) (TestMail, error) {
	return post[TestMail](ctx, c, projectPath(project)+"/test-mail", nil)
}

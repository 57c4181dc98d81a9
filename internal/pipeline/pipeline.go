package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// FileName is the name of the pipeline file, at the root of the repository.
const FileName = ".shunt.yml"

// Pipeline is a pipeline file with its defaults filled in.
type Pipeline struct {
	Version      int               `json:"version"` // always 1
	Name         string            `json:"name"`    // may be empty: the project has its own name
	Branches     delivery.Branches `json:"branches"`
	Tags         delivery.Tags     `json:"tags"`
	Jobs         []Job             `json:"jobs"`         // in the order of the file
	Publish      []Publish         `json:"publish"`      // in the order of the file
	Environments []Environment     `json:"environments"` // in the order of the file
	Notify       []Notify          `json:"notify"`
	Tickets      delivery.Tickets  `json:"tickets,omitzero"` // absent, it leaves older digests as they are
}

// Job is shell steps that one runner executes in one work directory.
type Job struct {
	Name      string            `json:"name"`
	Lanes     []delivery.Lane   `json:"lanes"`     // never empty
	Needs     []string          `json:"needs"`     // names of jobs and environments
	Steps     []Step            `json:"steps"`     // at least one
	JUnit     []string          `json:"junit"`     // globs of test reports
	Artifacts []ArtifactGlob    `json:"artifacts"` // what the job hands to the build
	Timeout   time.Duration     `json:"timeout"`   // of one attempt; default 1h
	Retry     int               `json:"retry"`     // 0..5 extra attempts after a failure
	Secrets   []string          `json:"secrets"`   // names; each becomes an environment variable
	Env       map[string]string `json:"env"`
	RunsOn    string            `json:"runs_on"` // runner pool; empty: any
	Line      int               `json:"-"`       // where it is in the file; not part of the policy
}

// ArtifactGlob names the one file that a job hands to the build.
type ArtifactGlob struct {
	Name string `json:"name"`
	Path string `json:"path"` // relative path or glob that must match exactly one file
}

// Step is one command, run by the shell.
type Step struct {
	Name string `json:"name"` // defaults to the first line of Run
	Run  string `json:"run"`
	Line int    `json:"-"`
}

// PublishKind says what kind of repository an artifact is published to.
type PublishKind string

// The kinds of artifact repository.
const (
	PublishFiles PublishKind = "files" // Shunt's own artifact store
	PublishRaw   PublishKind = "raw"   // one HTTP PUT to a URL
	PublishNexus PublishKind = "nexus" // Sonatype Nexus
)

// Publish is one destination of one artifact. $SHUNT_BUILD may stand in URL
// (raw), Coordinates and Directory.
type Publish struct {
	Artifact    string      `json:"artifact"`
	Node        string      `json:"node"` // its node in the graph: "publish/app", then "publish/app-2"
	Kind        PublishKind `json:"kind"`
	URL         string      `json:"url"`         // nexus: the server; raw: the file's URL
	Repository  string      `json:"repository"`  // nexus
	Format      string      `json:"format"`      // nexus: maven2 or raw
	Coordinates string      `json:"coordinates"` // nexus maven2: group:artifact:version:packaging[:classifier]
	Directory   string      `json:"directory"`   // nexus raw
	Secrets     []string    `json:"secrets"`
}

// Environment is a place that a build is put into.
type Environment struct {
	Name       string            `json:"name"`
	Ephemeral  bool              `json:"ephemeral"`  // one instance per build: Up and Down are set
	Production bool              `json:"production"` // true for exactly one, which is permanent and has a gate
	Needs      []string          `json:"needs"`      // names of jobs and environments
	Up         string            `json:"up"`         // shell; ephemeral only
	Ready      string            `json:"ready"`      // absolute URL, or a path below the environment's URL; may be empty
	Down       string            `json:"down"`       // shell; ephemeral only
	Deploy     string            `json:"deploy"`     // shell; permanent only
	Verify     string            `json:"verify"`     // shell; permanent only; may be empty
	URL        string            `json:"url"`        // http or https; may be empty
	Keep       time.Duration     `json:"keep"`       // life of an instance; ephemeral only; default 8h
	Timeout    time.Duration     `json:"timeout"`    // of up, down or deploy, with ready; default 10m
	Secrets    []string          `json:"secrets"`
	Approve    *Approve          `json:"approve"` // nil: no gate
	Env        map[string]string `json:"env"`
	Lanes      []delivery.Lane   `json:"lanes"` // never empty
	Line       int               `json:"-"`
}

// Approve says who decides at a gate and how long it waits.
type Approve struct {
	By       []string      `json:"by"`       // people and groups; empty: the operators
	Timeout  time.Duration `json:"timeout"`  // then the gate expires
	Remind   time.Duration `json:"remind"`   // between reminders; 0: none
	Escalate []string      `json:"escalate"` // mail addresses written to when a reminder is unanswered
	Hotfix   *Approve      `json:"hotfix"`   // what differs in the hotfix lane; unset fields are inherited
}

// For returns what holds in a lane; its Hotfix is nil.
func (a *Approve) For(lane delivery.Lane) Approve {
	r := *a
	r.Hotfix = nil
	if lane != delivery.LaneHotfix || a.Hotfix == nil {
		return r
	}
	if a.Hotfix.By != nil {
		r.By = a.Hotfix.By
	}
	if a.Hotfix.Timeout != 0 {
		r.Timeout = a.Hotfix.Timeout
	}
	if a.Hotfix.Remind != 0 {
		r.Remind = a.Hotfix.Remind
	}
	if a.Hotfix.Escalate != nil {
		r.Escalate = a.Hotfix.Escalate
	}
	return r
}

// Notify says who gets mail about what.
type Notify struct {
	Email []string `json:"email"`
	On    []string `json:"on"` // waiting, failed, promoted, rejected, back_merge, deploy_failed, reminder
}

// Digest is the SHA-256, as 64 hex digits, of the pipeline's JSON: the policy
// that an approval binds. Comments, layout and the order of keys in env do not
// change it; everything that acts does.
func (p *Pipeline) Digest() string {
	text, err := json.Marshal(p) // struct fields in order, map keys sorted: canonical
	if err != nil {
		panic("pipeline: cannot marshal a Pipeline: " + err.Error()) // strings and integers always marshal
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Production is the production environment; a parsed pipeline always has one.
func (p *Pipeline) Production() *Environment {
	i := slices.IndexFunc(p.Environments, func(e Environment) bool { return e.Production })
	if i < 0 {
		return nil
	}
	return &p.Environments[i]
}

// Environment finds an environment by name; nil when there is none.
func (p *Pipeline) Environment(name string) *Environment {
	i := slices.IndexFunc(p.Environments, func(e Environment) bool { return e.Name == name })
	if i < 0 {
		return nil
	}
	return &p.Environments[i]
}

// Job finds a job by name; nil when there is none.
func (p *Pipeline) Job(name string) *Job {
	i := slices.IndexFunc(p.Jobs, func(j Job) bool { return j.Name == name })
	if i < 0 {
		return nil
	}
	return &p.Jobs[i]
}

// Publication finds the destination behind a node name such as "publish/app-2";
// nil when there is none.
func (p *Pipeline) Publication(node string) *Publish {
	i := slices.IndexFunc(p.Publish, func(d Publish) bool { return d.Node == node })
	if i < 0 {
		return nil
	}
	return &p.Publish[i]
}

// Parse reads a pipeline file. file is its name for messages. The error is
// Problems, with every problem found.
func Parse(file string, data []byte) (*Pipeline, error) {
	src, problem := newSource(file, data)
	if problem != nil {
		return nil, Problems{*problem}
	}
	c := &collector{src: src}
	root := load(c)
	if root == nil {
		return nil, c.problems()
	}
	var shape group[fileShape]
	shape.read(c, root, rule{label: "the pipeline file"})
	p := resolve(c, &shape.V)
	if problems := c.problems(); len(problems) > 0 {
		return nil, problems
	}
	return p, nil
}

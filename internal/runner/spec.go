package runner

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Protocol is the version of the protocol that this package speaks: the 1 of /v1.
const Protocol = 1

// Defaults of a Spec.
const (
	DefaultGrace     = 10 * time.Second
	DefaultMaxOutput = 10 << 30 // bytes
)

// Bounds on what a job hands over.
const (
	MaxOutputs     = 64 << 10 // bytes of the $SHUNT_OUTPUT file
	MaxReportBytes = 32 << 20 // bytes of all report files
	MaxReports     = 1000     // report files
)

// ErrGone says that no runner answers: nothing listens on the socket.
var ErrGone = errors.New("no runner answers")

// ErrUnknownJob says that the runner does not know the job.
var ErrUnknownJob = errors.New("the runner does not know this job")

// ErrNoLease says that the runner does not hold a lease and takes no job.
var ErrNoLease = errors.New("the runner holds no lease")

// Spec is what a job is to do.
type Spec struct {
	ID        string // unique for ever, safe in a path
	Fence     int64  // of the server's lease
	Dir       string // working directory; absolute; the server's to make and to remove
	Steps     []Step
	Env       []string // KEY=VALUE; the runner adds PATH and LANG if absent, and HOME, TMPDIR, SHUNT_OUTPUT and the cookie in any case
	Secrets   []string // values to redact; never written to disk
	Timeout   time.Duration
	Grace     time.Duration // between interrupt and kill; 0 is DefaultGrace
	LogLimit  int64         // bytes; 0 is runlog.DefaultLimit
	Artifacts []Glob
	Reports   []string // doublestar patterns relative to Dir
	Daemons   bool     // processes with a session of their own may outlive the job
	MaxOutput int64    // bytes of all artifacts; 0 is DefaultMaxOutput
	// Asked is Info.Now of when the server last knew that it still drives the
	// build; 0: it is the only server. A start that comes later than AskedTime is
	// refused: the server may have slept meanwhile, and another drives the build.
	Asked time.Duration
}

// AskedTime is how long a server's word holds that it drives a build; it is
// shorter than the build's lease.
const AskedTime = 5 * time.Second

// Step is one shell script of a job, run by /bin/sh -e.
type Step struct {
	Name string
	Run  string
}

// Glob names the one file that matches a doublestar pattern relative to Spec.Dir.
type Glob struct {
	Name    string
	Pattern string
}

// Result is how a job ended.
type Result struct {
	State      delivery.AttemptState
	ExitCode   int    // of the last step that ran; 128 + signal if a signal ended it
	Reason     string // in words, unless it succeeded
	StartedAt  time.Time
	FinishedAt time.Time
	Outputs    map[string]string // what the steps wrote to $SHUNT_OUTPUT
	Artifacts  []File
	Reports    []string // absolute paths of copied report files
	LogSize    int64    // bytes of the stored log
}

// File is a collected artifact.
type File struct {
	Name   string // of its Glob
	Path   string // absolute, in the job's out directory
	Base   string // its own file name; hostile, valid UTF-8
	SHA256 string // 64 hex digits
	Size   int64  // bytes
}

// Status is what the runner knows of a job. Result is nil while it runs.
type Status struct {
	ID      string
	Fence   int64
	Running bool
	Result  *Result
	LogSize int64 // bytes of whole stored lines
}

// Info describes a runner.
type Info struct {
	Protocol int
	Version  string
	PID      int
	Instance string   // new with every start of a runner
	Jobs     []string // IDs of running and of unreleased jobs, sorted
	Draining bool     // it takes no new jobs and ends with its last one
	Work     string   // directory in which it unpacks trees (Client.Send)
	// Now is the machine's time since it started, for Spec.Asked.
	Now time.Duration
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// check refuses a Spec that cannot be run, and fills in the defaults.
func (s *Spec) check() error {
	bad := func(why string) error {
		return delivery.Errf(delivery.KindInvalid, "cannot start the job", why)
	}
	if !idPattern.MatchString(s.ID) {
		return bad(fmt.Sprintf("%q is no job id", s.ID))
	}
	if !filepath.IsAbs(s.Dir) {
		return bad(fmt.Sprintf("its directory %q is not absolute", s.Dir))
	}
	if info, err := os.Stat(s.Dir); err != nil || !info.IsDir() {
		return bad(fmt.Sprintf("its directory %q does not exist", s.Dir))
	}
	if len(s.Steps) == 0 {
		return bad("it has no steps")
	}
	for _, step := range s.Steps {
		if strings.IndexByte(step.Run, 0) >= 0 {
			return bad("a step holds a NUL byte")
		}
	}
	for _, kv := range s.Env {
		if key, _, ok := strings.Cut(kv, "="); !ok || key == "" || strings.IndexByte(kv, 0) >= 0 {
			return bad(fmt.Sprintf("the environment variable %q has no name or no value, or holds a NUL byte", key))
		}
	}
	patterns := append([]string{}, s.Reports...)
	for _, a := range s.Artifacts {
		patterns = append(patterns, a.Pattern)
	}
	for _, p := range patterns {
		if !doublestar.ValidatePattern(p) {
			return bad(fmt.Sprintf("%q is no file pattern", p))
		}
	}
	if s.Timeout < 0 || s.Grace < 0 {
		return bad("a duration is negative")
	}
	if s.Grace == 0 {
		s.Grace = DefaultGrace
	}
	if s.MaxOutput <= 0 {
		s.MaxOutput = DefaultMaxOutput
	}
	return nil
}

// wireSpec is a Spec on the wire. JSON strings must be UTF-8, but branch names,
// file names and secrets are bytes, so those travel as such.
type wireSpec struct {
	ID                  string
	Fence               int64
	Dir                 []byte
	Steps               []wireStep
	Env, Secrets        [][]byte
	Timeout, Grace      time.Duration
	LogLimit, MaxOutput int64
	Artifacts           []wireGlob
	Reports             [][]byte
	Daemons             bool
	Asked               time.Duration
}

type wireStep struct{ Name, Run []byte }

type wireGlob struct{ Name, Pattern []byte }

func toWire(s Spec) wireSpec {
	w := wireSpec{
		ID: s.ID, Fence: s.Fence, Dir: []byte(s.Dir), Env: byteLists(s.Env), Secrets: byteLists(s.Secrets),
		Timeout: s.Timeout, Grace: s.Grace, LogLimit: s.LogLimit, MaxOutput: s.MaxOutput,
		Reports: byteLists(s.Reports), Daemons: s.Daemons, Asked: s.Asked,
	}
	for _, step := range s.Steps {
		w.Steps = append(w.Steps, wireStep{[]byte(step.Name), []byte(step.Run)})
	}
	for _, a := range s.Artifacts {
		w.Artifacts = append(w.Artifacts, wireGlob{[]byte(a.Name), []byte(a.Pattern)})
	}
	return w
}

func (w wireSpec) spec() Spec {
	s := Spec{
		ID: w.ID, Fence: w.Fence, Dir: string(w.Dir), Env: stringLists(w.Env), Secrets: stringLists(w.Secrets),
		Timeout: w.Timeout, Grace: w.Grace, LogLimit: w.LogLimit, MaxOutput: w.MaxOutput,
		Reports: stringLists(w.Reports), Daemons: w.Daemons, Asked: w.Asked,
	}
	for _, step := range w.Steps {
		s.Steps = append(s.Steps, Step{string(step.Name), string(step.Run)})
	}
	for _, a := range w.Artifacts {
		s.Artifacts = append(s.Artifacts, Glob{string(a.Name), string(a.Pattern)})
	}
	return s
}

func byteLists(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

func stringLists(list [][]byte) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(bytes.Clone(b))
	}
	return out
}

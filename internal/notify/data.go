package notify

import (
	"strconv"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Kind is an occasion to write.
type Kind string

// The kinds of mail.
const (
	Waiting       Kind = "waiting"         // a gate is open and asks for a decision
	Reminder      Kind = "reminder"        // it still is
	Escalation    Kind = "escalation"      // it still is, and more people are asked
	Promoted      Kind = "promoted"        // a person promoted; with LiveSince: and it is in production
	Rejected      Kind = "rejected"        // a person rejected
	Failed        Kind = "failed"          // CI failed: to the author, with the last 20 lines
	DeployFailed  Kind = "deploy_failed"   // a deployment failed or, with Unknown, may have
	BackMerge     Kind = "back_merge"      // production has commits that develop lacks
	BackMergePaid Kind = "back_merge_paid" // develop has them now
	Refused       Kind = "refused"         // a push to a hotfix branch started nothing
	Incident      Kind = "incident"        // nothing ships until a person has looked
	Summary       Kind = "summary"         // what happened since Since
	Test          Kind = "test"            // somebody asked whether mail works
)

// Data is what the texts need. Each kind uses what it needs and leaves out what
// is empty. Every text may be hostile.
type Data struct {
	Key    string   // of the message; empty: made from project, number and kind
	Thread string   // of the message; empty: made from project and number
	To     []string // recipients

	Project     string
	Number      int64 // the build's
	Lane        delivery.Lane
	Name        string // of a hotfix: "cart-500"; "hotfix/cart-500" is cut to that
	Environment string // empty: "production"
	Integration string // the branch; empty: "develop"

	Fixes    string   // the hotfix's title, or the subject of the commit
	Incident string   // http(s) link to the trouble ticket
	Commits  int      // against what is in production now
	Files    int      // changed
	Added    int      // lines
	Deleted  int      // lines
	Authors  []string // names

	ReplacesBuild int64     // what runs in the environment now; 0: nothing
	ReplacesSince time.Time // since when

	QA      string    // http(s) address of the QA environment
	QAUntil time.Time // when it is destroyed

	Tests     *Tests    // nil: none were reported
	Skipped   []Skipped // jobs that the lane skips
	Merge     string    // the forecast in words: "clean into develop"
	Conflicts []string  // files
	Warnings  []string  // only what is true
	Artifacts []Artifact

	Link     string   // http(s) address of the page to open
	Commands []string // to type; the caller quotes what is hostile in them

	Who     string // who decided, pushed or asked
	Reason  string // why it was decided so, or why it failed
	Opened  time.Time
	Expires time.Time // when the request ends

	Job      string // that failed
	ExitCode int    // of it; 0: none
	Log      []string

	LiveSince time.Time // Promoted: the deployment has succeeded
	Unknown   bool      // DeployFailed: nobody knows how it ended
	Running   string    // what the environment runs now, in words; empty: unknown

	Foreign []delivery.Commit // Refused: commits on the branch that are not in production
	Since   time.Time         // Summary: the time it begins
	Rows    []Row             // Summary

	Now  time.Time
	Zone *time.Location // of all times in the text; nil: UTC, and it says so
}

// Tests counts the test cases of a build.
type Tests struct{ Passed, Failed, New int }

// Skipped is a job that the lane leaves out, and how long it usually takes; 0: not known.
type Skipped struct {
	Job   string
	Usual time.Duration
}

// Artifact is a file that would go into production.
type Artifact struct{ File, SHA256 string }

// Row is a labelled line.
type Row struct{ Label, Value string }

// normal returns d with its defaults filled in and its short texts on one line.
func (d Data) normal() Data {
	or := func(s, fallback string, limit int) string {
		if s = line(s, limit); s == "" {
			return fallback
		}
		return s
	}
	d.Project = or(d.Project, "shunt", 63)
	d.Name = line(strings.TrimPrefix(d.Name, "hotfix/"), 60)
	d.Environment = or(d.Environment, "production", 60)
	d.Integration = or(d.Integration, "develop", 60)
	d.Who = or(d.Who, "Somebody", 80)
	d.Fixes = line(d.Fixes, 150)
	d.Reason = line(d.Reason, 500)
	d.Running = line(d.Running, 200)
	d.Job = line(d.Job, 80)
	d.Link, d.QA, d.Incident = webURL(d.Link), webURL(d.QA), webURL(d.Incident)
	if d.Now.IsZero() {
		d.Now = delivery.SystemClock{}.Now()
	}
	return d
}

// build is "hotfix cart-500 (build 43)" or "build 43".
func (d Data) build() string {
	b := "build " + strconv.FormatInt(d.Number, 10)
	switch {
	case d.Lane == delivery.LaneHotfix && d.Name != "":
		return "hotfix " + d.Name + " (" + b + ")"
	case d.Lane == delivery.LaneHotfix:
		return "hotfix " + b
	}
	return b
}

// short is "hotfix cart-500" or "build 43".
func (d Data) short() string {
	if d.Lane == delivery.LaneHotfix && d.Name != "" {
		return "hotfix " + d.Name
	}
	return d.build()
}

// at is a time as the reader's clock shows it: "07:19", and with its day when
// that is not today.
func (d Data) at(t time.Time) string {
	zone, suffix := d.Zone, ""
	if zone == nil {
		zone, suffix = time.UTC, " UTC"
	}
	t, now := t.In(zone), d.Now.In(zone)
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04") + suffix
	}
	return d.day(t)
}

// day is "Thu 13 Nov 09:12".
func (d Data) day(t time.Time) string {
	if d.Zone == nil {
		return t.UTC().Format("Mon 2 Jan 15:04") + " UTC"
	}
	return t.In(d.Zone).Format("Mon 2 Jan 15:04")
}

package delivery

import (
	"path"
	"strings"
	"time"
)

// Branches names the branches that matter, as short names or patterns.
type Branches struct {
	Integration string `json:"integration"` // develop
	Production  string `json:"production"`  // master
	Hotfix      string `json:"hotfix"`      // hotfix/*
}

// LaneOf tells on which lane a push to a full ref travels; ok is false for refs
// that start nothing.
func (b Branches) LaneOf(ref string) (lane Lane, ok bool) {
	name, isBranch := strings.CutPrefix(ref, "refs/heads/")
	switch {
	case !isBranch:
		return "", false
	case name == b.Integration:
		return LaneMain, true
	}
	if m, err := path.Match(b.Hotfix, name); err == nil && m {
		return LaneHotfix, true
	}
	if prefix, star := strings.CutSuffix(b.Hotfix, "/*"); star && strings.HasPrefix(name, prefix+"/") {
		return LaneHotfix, true
	}
	return "", false
}

// Tags holds the tag templates; $N is the build number.
type Tags struct {
	Build      string `json:"build"`
	Production string `json:"production"`
}

// Tickets say what in a commit's message names a ticket of another system, and
// where that is. The zero value finds none.
type Tickets struct {
	Pattern string `json:"pattern"` // RE2; what it matches is the ticket
	URL     string `json:"url"`     // http or https, with {ticket}
}

// Project is one repository that Shunt delivers.
type Project struct {
	Name             string // ^[a-z0-9][a-z0-9-]{0,62}$
	URL              string
	Local            bool // URL is a path that the operator registered
	Branches         Branches
	Tags             Tags
	NextBuild        int64
	WebhookSecret    string
	PollEvery        time.Duration
	ProductionBuild  int64  // number of the build of the latest production tag; 0: none
	ProductionCommit string // its commit; empty: none
	BranchTip        string // the production branch as Shunt last left or accepted it
	RunningCommit    string // what production runs: differs from ProductionCommit after a rollback
	RunningBuild     int64
	Hold             string // why promotions of the main lane wait; empty: they do not
	Incident         string // why nothing ships until a person has looked; empty: nothing
	CreatedAt        time.Time
}

// BackMerge is the debt of a production commit that the integration branch does
// not contain yet.
type BackMerge struct {
	Project   string
	Commit    string // the production commit that is owed
	Number    int64  // its build
	Owner     string // who promoted it
	OpenedAt  time.Time
	ClosedAt  time.Time
	ClosedBy  string   // the integration commit that contains it
	Conflicts []string // files, by the last forecast; empty: merges clean
	CheckedAt time.Time
}

// Forecast is what `git merge-tree` says of a merge that nobody has made.
type Forecast struct {
	Into      string // commit of the branch that would take the merge
	Commit    string
	Contained bool     // nothing to merge
	Conflicts []string // files; empty: clean
}

// Commit is a git commit as pages and mails show it. Every text in it is hostile.
type Commit struct {
	ID          string
	Tree        string
	Parents     []string
	AuthorName  string
	AuthorEmail string
	AuthoredAt  time.Time
	Subject     string
}

// FileChange is one line of a diff's summary; Added and Deleted are -1 for a binary file.
type FileChange struct {
	Path    string
	Added   int
	Deleted int
}

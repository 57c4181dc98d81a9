package notify

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

const (
	maxLog     = 20 // lines of a log
	maxCommits = 20 // foreign commits
)

// body writes the words of a kind. d is normal already.
func (d Data) body(kind Kind) (b body, ok bool) {
	switch kind {
	case Waiting:
		b = d.waiting()
	case Reminder, Escalation:
		b = d.reminder(kind)
	case Promoted:
		b = d.promoted()
	case Rejected:
		b = d.rejected()
	case Failed:
		b = d.failed()
	case DeployFailed:
		b = d.deployFailed()
	case BackMerge:
		b = d.backMerge()
	case BackMergePaid:
		b = d.backMergePaid()
	case Refused:
		b = d.refused()
	case Incident:
		b = d.incident()
	case Summary:
		b = d.summary()
	case Test:
		b = d.test()
	default:
		return body{}, false
	}
	b.Link = d.Link
	for _, c := range d.Commands {
		if kind != Waiting && kind != Reminder && kind != Escalation {
			b.Type = append(b.Type, bound(strings.TrimSpace(printable(c)), 500))
		}
	}
	return b, true
}

// waiting is the mail that somebody reads at 3 a.m. on a phone.
func (d Data) waiting() body {
	return body{
		Subject: "Approve " + d.build() + " for " + d.Environment,
		Lead:    []string{fmt.Sprintf("%s of %s is ready for %s. It waits for you.", capital(d.short()), d.Project, d.Environment)},
		Rows:    d.rows(),
		Ask:     "Decide here",
		After:   d.how(),
	}
}

// how says that the link is harmless, and the way without a browser.
func (d Data) how() []string {
	var lines []string
	if d.Link != "" {
		lines = append(lines, "Opening the page changes nothing. You decide there, signed in.")
	}
	n := strconv.FormatInt(d.Number, 10)
	return append(lines, fmt.Sprintf("In a terminal:  shunt promote %s %s  |  shunt reject %s %s -m \"why\"", d.Project, n, d.Project, n))
}

func (d Data) rows() []row {
	var rows []row
	add := func(label, value string) {
		if value != "" {
			rows = append(rows, row{Label: label, Value: value})
		}
	}
	add(d.fixesLabel(), d.Fixes)
	if d.Incident != "" {
		rows = append(rows, row{Label: "Incident", Value: d.Incident, URL: d.Incident})
	}
	add("Change", d.change())
	add("Replaces", d.replaces())
	rows = append(rows, d.tryIt()...)
	add("Tests", d.tests())
	add("Skipped", d.skipped())
	add("Merge", d.merge())
	for _, w := range d.Warnings {
		add("Warning", line(w, 200))
	}
	for _, a := range d.Artifacts {
		add("Artifact", strings.TrimSpace(line(a.File, 100)+" sha256 "+shortSHA(a.SHA256)))
	}
	return rows
}

func (d Data) fixesLabel() string {
	if d.Lane == delivery.LaneHotfix {
		return "Fixes"
	}
	return "Commit"
}

func (d Data) tryIt() []row {
	if d.QA == "" {
		return nil
	}
	r := row{Label: "Try it", Value: d.QA, URL: d.QA}
	if !d.QAUntil.IsZero() {
		r.Note = "(up until " + d.at(d.QAUntil) + ")"
	}
	return []row{r}
}

func (d Data) change() string {
	if d.Commits == 0 {
		return ""
	}
	s := fmt.Sprintf("%s, %s, +%d -%d", count(d.Commits, "commit"), count(d.Files, "file"), d.Added, d.Deleted)
	if by := list(d.Authors, 3); by != "" {
		s += ", by " + by
	}
	return s
}

func (d Data) replaces() string {
	if d.ReplacesBuild == 0 {
		return ""
	}
	s := fmt.Sprintf("build %d", d.ReplacesBuild)
	if !d.ReplacesSince.IsZero() {
		s += fmt.Sprintf(", in %s since %s (%s)", d.Environment, d.day(d.ReplacesSince), span(d.Now.Sub(d.ReplacesSince)))
	}
	return s
}

func (d Data) tests() string {
	if d.Tests == nil {
		return "none were reported"
	}
	s := fmt.Sprintf("%d passed, %d failed", d.Tests.Passed, d.Tests.Failed)
	if d.Tests.New > 0 {
		s += fmt.Sprintf(" (%d new)", d.Tests.New)
	}
	return s
}

func (d Data) skipped() string {
	var jobs []string
	for _, s := range d.Skipped {
		job := line(s.Job, 60)
		if s.Usual > 0 {
			job += " (usually " + span(s.Usual) + ")"
		}
		jobs = append(jobs, job)
	}
	return strings.Join(jobs, ", ")
}

func (d Data) merge() string {
	if len(d.Conflicts) > 0 {
		return fmt.Sprintf("conflicts in %s: %s", count(len(d.Conflicts), "file"), list(d.Conflicts, 5))
	}
	return line(d.Merge, 200)
}

func shortSHA(s string) string {
	if len(s) != 64 {
		return line(s, 64)
	}
	return line(s[:6]+"..."+s[60:], 20)
}

func (d Data) reminder(kind Kind) body {
	waited := "waits"
	if !d.Opened.IsZero() {
		waited = "has waited " + span(d.Now.Sub(d.Opened))
	}
	p := fmt.Sprintf("%s of %s %s for a decision about %s, and nobody has decided.", capital(d.build()), d.Project, waited, d.Environment)
	subject := "Reminder: approve " + d.build() + " for " + d.Environment
	if kind == Escalation {
		subject = "Nobody has decided: " + d.build() + " for " + d.Environment
		p += " The people who were asked first have not answered, so it is now your turn."
	}
	if !d.Expires.IsZero() {
		p += " The request ends at " + d.at(d.Expires) + "; after that it can no longer be promoted."
	}
	b := body{Subject: subject, Lead: []string{p}, Ask: "Decide here", After: d.how()}
	if d.Fixes != "" {
		b.Rows = append(b.Rows, row{Label: d.fixesLabel(), Value: d.Fixes})
	}
	b.Rows = append(b.Rows, d.tryIt()...)
	return b
}

func (d Data) promoted() body {
	p := fmt.Sprintf("%s promoted %s of %s to %s.", d.Who, d.build(), d.Project, d.Environment)
	if d.Reason != "" {
		p += " Reason: " + sentence(d.Reason)
	}
	subject := "Promoted: " + d.build() + " goes to " + d.Environment
	if d.LiveSince.IsZero() {
		p += " The deployment starts now; this mail does not say that it has succeeded."
	} else {
		subject = "In " + d.Environment + ": " + d.build()
		p += fmt.Sprintf(" It is in %s since %s.", d.Environment, d.at(d.LiveSince))
		if d.ReplacesBuild > 0 {
			p += fmt.Sprintf(" It replaced build %d.", d.ReplacesBuild)
		}
	}
	return body{Subject: subject, Lead: []string{p}, Ask: "See it"}
}

func (d Data) rejected() body {
	p := fmt.Sprintf("%s rejected %s of %s.", d.Who, d.build(), d.Project)
	if d.Reason != "" {
		p += " Reason: " + sentence(d.Reason)
	}
	p += " " + capital(d.Environment) + " is unchanged"
	if d.QA != "" {
		p += ", and the QA environment " + d.QA + " is being destroyed"
	}
	return body{Subject: "Rejected: " + d.build(), Lead: []string{p + "."}, Ask: "See it"}
}

func (d Data) failed() body {
	subject := capital(d.build()) + " failed"
	p := fmt.Sprintf("%s of %s failed", capital(d.build()), d.Project)
	if d.Job != "" {
		subject += ": " + d.Job
		p += " in " + d.Job
		if d.ExitCode != 0 {
			p += fmt.Sprintf(" with exit code %d", d.ExitCode)
		}
	}
	p += "."
	if d.Reason != "" {
		p += " Reason: " + sentence(d.Reason)
	}
	if d.Fixes != "" {
		p += " Commit: " + sentence(d.Fixes)
	}
	if by := list(d.Authors, 3); by != "" {
		p += " Author: " + sentence(by)
	}
	if d.Tests != nil && d.Tests.Failed > 0 {
		p += " Tests: " + d.tests() + "."
	}
	return d.withLog(body{Subject: subject, Lead: []string{p}, Ask: "See why"})
}

func (d Data) withLog(b body) body {
	b.Quote = d.logTail()
	b.Title = "The last lines of the log:"
	if n := len(b.Quote); n > 1 {
		b.Title = fmt.Sprintf("The last %d lines of the log:", n)
	}
	return b
}

// logTail is the last lines of the log, without empty ones at the end.
func (d Data) logTail() []string {
	var lines []string
	for _, l := range d.Log[max(0, len(d.Log)-2*maxLog):] {
		lines = append(lines, logLine(l))
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines[max(0, len(lines)-maxLog):]
}

func (d Data) deployFailed() body {
	b := body{Subject: fmt.Sprintf("DEPLOY FAILED: %s to %s", d.build(), d.Environment), Ask: "Decide what to do here"}
	p := fmt.Sprintf("Deploying %s of %s to %s failed.", d.build(), d.Project, d.Environment)
	if d.Unknown {
		b.Subject = fmt.Sprintf("DEPLOY UNKNOWN: %s to %s", d.build(), d.Environment)
		p = fmt.Sprintf("Nobody knows whether %s of %s was deployed to %s: the answer got lost. It is not repeated until a person has looked.", d.build(), d.Project, d.Environment)
	}
	if d.Reason != "" {
		p += " Reason: " + sentence(d.Reason)
	}
	running := "What " + d.Environment + " runs now is unknown."
	if d.Running != "" && d.Running != "unknown" {
		running = capital(d.Environment) + " runs now: " + sentence(d.Running)
	}
	b.Lead = []string{p, running}
	return d.withLog(b)
}

func (d Data) backMerge() body {
	p := fmt.Sprintf("%s has %s of %s, %s does not. Until it is merged, the next build of %s would bring the bug back, so it cannot be promoted.",
		capital(d.Environment), d.build(), d.Project, d.Integration, d.Integration)
	if m := d.merge(); m != "" {
		p += " Forecast: " + sentence(m)
	}
	return body{Subject: "Merge " + d.build() + " back into " + d.Integration, Lead: []string{p}, Ask: "See what is owed"}
}

func (d Data) backMergePaid() body {
	p := fmt.Sprintf("The branch %s contains %s of %s now. Nothing is owed for it.", d.Integration, d.build(), d.Project)
	return body{Subject: "Merged back: " + d.build() + " is in " + d.Integration, Lead: []string{p}, Ask: "See it"}
}

func (d Data) refused() body {
	branch := "A hotfix branch"
	if d.Name != "" {
		branch = "Hotfix branch " + d.Name
	}
	p := fmt.Sprintf("%s of %s was pushed by %s, but no build was started.", branch, d.Project, d.Who)
	if d.Reason != "" {
		p += " Reason: " + sentence(d.Reason)
	}
	if n := len(d.Foreign); n > 0 {
		p += fmt.Sprintf(" The branch carries %s that %s not in %s and would ship with the fix.",
			count(n, "commit"), map[bool]string{true: "is", false: "are"}[n == 1], d.Environment)
	}
	b := body{Subject: strings.TrimSuffix("Hotfix push refused: "+d.Name, ": "), Lead: []string{p}, Ask: "See it", Title: "Not in " + d.Environment + ":"}
	for _, c := range d.Foreign[:min(len(d.Foreign), maxCommits)] {
		b.Quote = append(b.Quote, fmt.Sprintf("%s %s (%s)", line(delivery.ShortHash(c.ID), 12), line(c.Subject, 100), line(c.AuthorName, 40)))
	}
	if more := len(d.Foreign) - maxCommits; more > 0 {
		b.Quote = append(b.Quote, fmt.Sprintf("and %s more", count(more, "commit")))
	}
	return b
}

func (d Data) incident() body {
	p := fmt.Sprintf("Nothing of %s ships until a person has looked.", d.Project)
	if d.Reason != "" {
		p += " Reason: " + sentence(d.Reason)
	}
	return d.withLog(body{Subject: "INCIDENT: nothing ships until a person has looked", Lead: []string{p}, Ask: "Look here"})
}

func (d Data) summary() body {
	p := "What happened in " + d.Project
	if !d.Since.IsZero() {
		p += " since " + d.day(d.Since)
	}
	b := body{Subject: "Summary", Lead: []string{p + "."}, Ask: "See it"}
	for _, r := range d.Rows {
		b.Rows = append(b.Rows, row{Label: line(r.Label, 40), Value: line(r.Value, 300)})
	}
	if len(b.Rows) == 0 {
		b.Lead = append(b.Lead, "Nothing did.")
	}
	return b
}

func (d Data) test() body {
	return body{
		Subject: "Test mail",
		Lead:    []string{d.Who + " asked Shunt for a test mail. You read it, so mail works. There is nothing to do."},
		Ask:     "The server is here",
	}
}

package engine

import (
	"context"
	"fmt"
	"net/mail"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/flow"
	"github.com/shuntcd/shunt/internal/notify"
	"github.com/shuntcd/shunt/internal/pipeline"
	"github.com/shuntcd/shunt/internal/runlog"
	"github.com/shuntcd/shunt/internal/store"
)

// mailData is what a mail is about. The facts that need git are gathered before
// the transaction; the mail is rendered and put into the outbox inside it.
type mailData struct {
	Project    delivery.Project
	Build      delivery.Build
	Gate       delivery.Gate
	Deployment delivery.Deployment
	Debt       delivery.BackMerge
	Refusal    *flow.Refusal
	Commit     delivery.Commit
	Branch     string
	After      string // what runs now, after a failed deployment
	Reason     string
	To         []string // beside those whom the pipeline file names
	evidence   notify.Data
}

// mailData gathers the evidence that mails about a waiting or shipped build show.
// What cannot be read is left out: a mail is better short than never.
func (e *Engine) mailData(ctx context.Context, b delivery.Build) mailData {
	d := mailData{Build: b}
	v := &d.evidence
	if c, err := e.Change(ctx, b); err == nil {
		if c.From != "" {
			v.Commits, v.Files, v.Added, v.Deleted = len(c.Commits), len(c.Files), c.Added, c.Deleted
		}
		v.Merge, v.Conflicts = c.Words, c.Forecast.Conflicts
		for _, commit := range c.Commits {
			if !slices.Contains(v.Authors, commit.AuthorName) {
				v.Authors = append(v.Authors, commit.AuthorName)
			}
		}
	}
	if p, err := e.Store.Project(ctx, b.Project); err == nil {
		if before, ok, err := e.Replaces(ctx, p, b.Number); err == nil && ok {
			v.ReplacesBuild, v.ReplacesSince = before.Number, before.FinishedAt
		}
	}
	if t, err := e.Tests(ctx, b); err == nil && t.Passed+t.Failed > 0 {
		v.Tests = &notify.Tests{Passed: t.Passed, Failed: t.Failed, New: t.New}
	}
	if instances, err := e.Store.InstancesOf(ctx, b.ID); err == nil {
		for _, i := range instances {
			if i.State == delivery.InstanceUp {
				v.QA, v.QAUntil = i.URL, i.ExpiresAt
			}
		}
	}
	if artifacts, err := e.Store.Artifacts(ctx, b.ID); err == nil {
		for _, a := range artifacts {
			v.Artifacts = append(v.Artifacts, notify.Artifact{File: a.File, SHA256: a.SHA256})
		}
	}
	usual, err := e.Usual(ctx, b.Project)
	if nodes, list := e.Store.Nodes(ctx, b.ID); list == nil && err == nil {
		for _, n := range nodes {
			if n.Kind == delivery.NodeJob && n.State == delivery.NodeSkipped {
				v.Skipped = append(v.Skipped, notify.Skipped{Job: n.Target, Usual: usual[n.Name].Round(time.Second)})
			}
		}
	}
	return d
}

// notifyKinds maps the words of the pipeline file to kinds of mail.
func notifyKinds(word string, g delivery.Gate) notify.Kind {
	if word == "reminder" && g.Reminders > 0 {
		return notify.Escalation
	}
	return notify.Kind(word)
}

// post puts a mail about a build into the outbox, for whom the pipeline file
// names and for d.To.
func (e *Engine) post(ctx context.Context, tx *store.Tx, pl *pipeline.Pipeline, word string, d mailData) error {
	to := slices.Clone(d.To)
	for _, n := range pl.Notify {
		if slices.Contains(n.On, word) || word == "reminder" && slices.Contains(n.On, "waiting") {
			to = append(to, n.Email...)
		}
	}
	slices.Sort(to)
	to = slices.Compact(to)
	if len(to) == 0 {
		return nil
	}
	b := d.Build
	v := d.evidence
	p, err := tx.Project(ctx, b.Project)
	if err != nil {
		return err
	}
	v.To, v.Project, v.Number, v.Lane, v.Name, v.Integration, v.Now = to, b.Project, b.Number, b.Lane, strings.TrimPrefix(title(b.Lane, b.Branch()), "hotfix "), p.Branches.Integration, tx.Now()
	v.Fixes, v.Link, v.Reason = b.Subject, e.buildURL(b), d.Reason
	if d.Gate.ID != "" {
		v.Environment, v.Link = d.Gate.Environment, e.URL+"/a/"+d.Gate.ID
		v.Opened, v.Expires = d.Gate.OpenedAt, d.Gate.ExpiresAt
		if d.Gate.DecidedBy != "" {
			v.Who, v.Reason = d.Gate.DecidedBy, d.Gate.Reason
		}
		if d.Gate.State == delivery.GateOpen {
			v.Commands = []string{fmt.Sprintf("shunt promote %s %d", b.Project, b.Number), fmt.Sprintf(`shunt reject %s %d -m "why"`, b.Project, b.Number)}
			if d.Gate.Stale != "" {
				v.Warnings = append(v.Warnings, d.Gate.Stale)
			}
		}
	}
	switch word {
	case "promoted":
		v.LiveSince, v.Link, v.QA = tx.Now(), e.buildURL(b), ""
	case "deploy_failed":
		v.Environment, v.Unknown, v.Running = d.Deployment.Environment, d.After == "unknown", d.After
		v.Commands = []string{fmt.Sprintf(`shunt resolve %s %d retry -m "why"`, b.Project, b.Number), fmt.Sprintf(`shunt rollback %s -m "why"`, b.Project), fmt.Sprintf(`shunt resolve %s %d give-up -m "why"`, b.Project, b.Number)}
	case "back_merge":
		v.Who, v.Conflicts, v.Link = d.Debt.Owner, d.Debt.Conflicts, e.URL+"/"+b.Project+"/back-merges"
		v.Commands = flow.BackMergeCommands(p.Branches, "origin", delivery.Forecast{Conflicts: d.Debt.Conflicts})
	}
	return e.render(ctx, tx, notifyKinds(word, d.Gate), v, b.Project)
}

// postProject puts a mail about a project, or a push that became no build that
// could run, into the outbox: for the team of the integration branch's file and d.To.
func (e *Engine) postProject(ctx context.Context, tx *store.Tx, p delivery.Project, word string, d mailData) error {
	var pl pipeline.Pipeline
	policy, err := tx.ProjectPipeline(ctx, p.Name)
	if err != nil {
		return err
	}
	if policy != "" {
		if err := parse(policy, &pl); err != nil {
			return err
		}
	}
	to := slices.Clone(d.To)
	for _, n := range pl.Notify {
		if word == "incident" || slices.Contains(n.On, word) {
			to = append(to, n.Email...)
		}
	}
	slices.Sort(to)
	if to = slices.Compact(to); len(to) == 0 {
		return nil
	}
	v := notify.Data{To: to, Project: p.Name, Reason: d.Reason, Integration: p.Branches.Integration, Now: tx.Now(), Link: e.URL + "/" + p.Name}
	switch {
	case d.Refusal != nil:
		v.Reason, v.Commands, v.Name, v.Lane, v.Who = d.Refusal.Why, d.Refusal.Mend, d.Branch, delivery.LaneHotfix, d.Commit.AuthorName
		v.Fixes = d.Commit.Subject
	case d.Build.Number != 0:
		v.Number, v.Lane, v.Fixes, v.Link = d.Build.Number, d.Build.Lane, d.Build.Subject, e.buildURL(d.Build)
	}
	return e.render(ctx, tx, notify.Kind(word), v, p.Name)
}

func (e *Engine) render(ctx context.Context, tx *store.Tx, kind notify.Kind, v notify.Data, project string) error {
	msg, err := notify.Render(kind, v, e.MailFrom, e.URL)
	if err != nil {
		return fmt.Errorf("write mail %s: %w", kind, err)
	}
	return tx.Post(ctx, project, string(kind), text(msg))
}

// mailEnd tells people how a build ended.
func (d *driver) mailEnd(ctx context.Context, tx *store.Tx) error {
	data := mailData{Build: d.build, Reason: d.build.Reason}
	switch d.build.Status {
	case delivery.BuildFailed:
		data.To = mailAddress(d.build.AuthorEmail)
		for _, n := range d.nodes {
			if n.State == delivery.NodeFailed {
				data.evidence.Job, data.evidence.Log = n.Target, d.tail(n)
				break
			}
		}
		return d.post(ctx, tx, d.pipeline, "failed", data)
	case delivery.BuildRejected:
		gates, err := tx.Gates(ctx, d.build.ID)
		if err != nil {
			return err
		}
		for _, g := range gates {
			if g.State == delivery.GateRejected {
				data.Gate = g
			}
		}
		return d.post(ctx, tx, d.pipeline, "rejected", data)
	case delivery.BuildQueued, delivery.BuildRunning, delivery.BuildWaiting, delivery.BuildStopped, delivery.BuildSucceeded, delivery.BuildExpired, delivery.BuildCancelled, delivery.BuildSuperseded:
	}
	return nil
}

func (d *driver) tail(n delivery.Node) []string {
	return Tail(d.LogPath(attemptID(d.build, n.Name, n.Attempt)), 20)
}

// Tail is the last lines of a stored log as plain text; nil when there is none.
func Tail(path string, lines int) (out []string) {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	offset, err := runlog.TailOffset(f, info.Size(), lines)
	if err != nil {
		return nil
	}
	got, _, err := runlog.Read(f, info.Size(), offset, lines)
	if err != nil {
		return nil
	}
	for _, l := range got {
		out = append(out, runlog.Strip(l.Text))
	}
	return out
}

// mailAddress takes an author's address if mail can go there. It is hostile:
// whoever pushes may write anything into a commit.
func mailAddress(s string) []string {
	a, err := mail.ParseAddress(s)
	if err != nil || strings.ContainsAny(a.Address, "\r\n,;<>\"") || strings.HasSuffix(a.Address, ".invalid") || strings.HasSuffix(a.Address, "@localhost") {
		return nil
	}
	return []string{a.Address}
}

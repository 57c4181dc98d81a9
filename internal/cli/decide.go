package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func asError(err error) (*delivery.Error, bool) { return errors.AsType[*delivery.Error](err) }

// decidePatience is how long a decision whose answer was lost is looked up.
const decidePatience = time.Minute

func (a *app) promoteCommand() *cobra.Command {
	var in api.Decide
	var noWait bool
	cmd := command("promote [project] build", "Put a waiting build into production, and follow it", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		c, project, number, err := a.target(ctx, args)
		if err != nil {
			return err
		}
		in.Promote = true
		if err := a.decide(ctx, c, project, number, in); err != nil {
			return err
		}
		if noWait {
			return nil
		}
		return a.follow(ctx, c, project, number, false)
	})
	f := cmd.Flags()
	f.StringVarP(&in.Reason, "message", "m", "", "why")
	f.Int64Var(&in.Without, "without", 0, "accept that this production build is contained only as an equal patch (needs -m)")
	f.BoolVar(&noWait, "no-wait", false, "do not follow the deployment")
	return cmd
}

func (a *app) rejectCommand() *cobra.Command {
	var in api.Decide
	cmd := command("reject [project] build", "Say no to a waiting build", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		if err := needReason(in.Reason, "reject"); err != nil {
			return err
		}
		c, project, number, err := a.target(ctx, args)
		if err != nil {
			return err
		}
		return a.decide(ctx, c, project, number, in)
	})
	cmd.Flags().StringVarP(&in.Reason, "message", "m", "", "why (needed)")
	return cmd
}

func needReason(reason, verb string) error {
	if strings.TrimSpace(reason) == "" {
		return usage(verb+" needs a reason", "Say why:  -m \"...\"")
	}
	return nil
}

// decide shows what the decision is about and sends it with the gate's version
// and commit, so that what was shown is what is decided.
func (a *app) decide(ctx context.Context, c *api.Client, project string, number int64, in api.Decide) error {
	b, err := c.Build(ctx, project, number)
	if err != nil {
		return err
	}
	g, ok := openGate(b)
	if !ok {
		return noOpenGate(b, in.Promote)
	}
	detail, err := c.Gate(ctx, g.ID)
	if err != nil {
		return err
	}
	in.Version, in.Commit = detail.Version, detail.Binding.Commit
	if !a.json {
		a.printQuestion(detail, in.Promote)
	}
	taken, err := a.send(ctx, c, project, number, detail.Gate, in)
	if err != nil {
		return err
	}
	if a.json {
		return a.emit(taken)
	}
	word := "rejected"
	if in.Promote {
		word = "promoted"
	}
	a.printf("%s  %s by %s\n", a.paint(green, "ok"), word, clean(taken.DecidedBy))
	return nil
}

// send sends a decision. When the answer is lost it is looked up: the gate says
// whether the decision was taken; only one that is still open is decided again,
// and the server's compare-and-set sees to it that this counts once.
func (a *app) send(ctx context.Context, c *api.Client, project string, number int64, g api.Gate, in api.Decide) (api.Gate, error) {
	lost := false
	for end := a.clock.Now().Add(decidePatience); ; {
		taken, err := c.Decide(ctx, project, number, in)
		if err == nil {
			return taken, nil
		}
		switch {
		case delivery.IsKind(err, delivery.KindConflict) && lost:
			if now, ok := a.lookUp(ctx, c, g, in.Promote); ok {
				return now, nil
			}
			return api.Gate{}, err
		case !delivery.IsKind(err, delivery.KindUnavailable), a.clock.Now().After(end):
			return api.Gate{}, err
		}
		if !lost {
			a.note("the answer was lost; looking up whether the decision was taken")
		}
		lost = true
		if err := sleep(ctx, lookEvery); err != nil {
			return api.Gate{}, err
		}
		if now, ok := a.lookUp(ctx, c, g, in.Promote); ok {
			return now, nil
		}
	}
}

// lookUp tells whether this very decision was taken by the one who asks.
func (a *app) lookUp(ctx context.Context, c *api.Client, g api.Gate, promote bool) (api.Gate, bool) {
	now, err := c.Gate(ctx, g.ID)
	if err != nil {
		return api.Gate{}, false
	}
	me, err := c.Me(ctx)
	if err != nil || now.Version != g.Version || now.DecidedBy != me.Name {
		return api.Gate{}, false
	}
	want := delivery.GateRejected
	if promote {
		want = delivery.GatePromoted
	}
	return now.Gate, now.State == want
}

func noOpenGate(b api.BuildDetail, promote bool) error {
	verb := "reject"
	if promote {
		verb = "promote"
	}
	e := &delivery.Error{Kind: delivery.KindConflict, What: "cannot " + verb + " build " + itoa(b.Number), Why: "it does not wait for a decision: it is " + string(b.Status), Next: "Follow it:  shunt watch " + b.Project + " " + itoa(b.Number)}
	if b.Reason != "" {
		e.Why += " (" + b.Reason + ")"
	}
	for _, g := range b.Gates {
		if g.DecidedBy != "" {
			e.Why = "it was " + string(g.State) + " by " + g.DecidedBy + " at " + at(g.DecidedAt)
		}
	}
	return e
}

// printQuestion is the promote page in a few lines.
func (a *app) printQuestion(g api.GateDetail, promote bool) {
	verb := "Rejecting"
	if promote {
		verb = "Promoting"
	}
	a.printf("%s build %d of %s to %s: %s\n", verb, g.Number, g.Project, g.Environment, clean(g.Title))
	if r := g.Replaces; r != nil {
		a.printf("  Replaces  build %d, in %s %s\n", r.Build, g.Environment, a.since(r.Since))
	}
	a.printf("  Change    %s, %s, +%d -%d\n", count(g.CommitCount, "commit"), count(len(g.Files), "file"), g.Added, g.Deleted)
	for _, c := range g.Commits {
		a.printf("            %s %s, %s\n", delivery.ShortHash(c.ID), clean(c.Subject), clean(c.Author))
	}
	t := g.Build.Tests
	a.printf("  Tests     %d passed, %d failed (%d new)\n", t.Passed, t.Failed, t.New)
	for _, n := range g.Skipped {
		a.printf("  Skipped   %s\n", clean(n.Target))
	}
	if g.Forecast.Words != "" {
		a.printf("  Merge     %s\n", clean(g.Forecast.Words))
	}
	for _, art := range g.Build.Artifacts {
		a.printf("  Artifact  %s sha256 %s\n", clean(art.File), art.SHA256)
	}
	for _, w := range g.Warnings {
		a.printf("  %s   %s\n", a.paint(yellow, "Warning"), clean(w))
	}
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return itoa(int64(n)) + " " + word + "s"
}

package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

const (
	// lookEvery is how often a followed build is looked at.
	lookEvery = 250 * time.Millisecond
	// appearTime is how long a pushed commit may take to become a build.
	appearTime = 20 * time.Second
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func (a *app) watchCommand() *cobra.Command {
	var noWait bool
	cmd := command("watch [project] [build]", "Follow a build, by default the one of the current commit", cobra.MaximumNArgs(2), func(ctx context.Context, args []string) error {
		if len(args) > 0 {
			if _, err := buildNumber(args[len(args)-1]); err == nil || len(args) == 2 {
				c, project, number, err := a.target(ctx, args)
				if err != nil {
					return err
				}
				return a.follow(ctx, c, project, number, noWait)
			}
		}
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		number, err := a.buildOfHead(ctx, c, project)
		if err != nil {
			return err
		}
		return a.follow(ctx, c, project, number, noWait)
	})
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "end with exit code 4 when a person is asked")
	return cmd
}

// buildOfHead finds the build of the checked-out commit. One that was pushed a
// moment ago may not be there yet.
func (a *app) buildOfHead(ctx context.Context, c *api.Client, project string) (int64, error) {
	commit, err := a.head(ctx)
	if err != nil {
		return 0, usage("which build?", "Name it, or stand in a clone:  shunt watch "+project+" 43")
	}
	for end := a.clock.Now().Add(appearTime); ; {
		builds, err := c.Builds(ctx, project, api.BuildFilter{Commit: commit, Limit: 1})
		if err != nil {
			return 0, err
		}
		if len(builds) > 0 {
			return builds[0].Number, nil
		}
		pushes, err := c.Pushes(ctx, project)
		if err != nil {
			return 0, err
		}
		for _, p := range pushes {
			if p.Commit == commit && p.Refused != "" {
				return 0, delivery.Errf(delivery.KindRefused, "no build was made of "+delivery.ShortHash(commit), p.Refused)
			}
		}
		if a.clock.Now().After(end) {
			return 0, &delivery.Error{Kind: delivery.KindNotFound, What: "there is no build of " + delivery.ShortHash(commit), Why: "it was not pushed to a branch that starts one", Next: "Push it:  git push   All builds:  shunt builds"}
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return 0, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// change is a JSON line of watch.
type change struct {
	At     time.Time `json:"at"`
	Build  int64     `json:"build"`
	Node   string    `json:"node,omitempty"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	URL    string    `json:"url,omitempty"`
}

// follow prints each change of a build until it ends, or asks a person and
// noWait is set. Its error is the exit code of the build's status.
func (a *app) follow(ctx context.Context, c *api.Client, project string, number int64, noWait bool) error {
	f := follower{a: a, nodes: map[string]api.Node{}}
	for {
		b, err := c.Build(ctx, project, number)
		if err != nil {
			return err
		}
		if err := f.show(b); err != nil {
			return err
		}
		if b.Status.Final() || b.Status == delivery.BuildStopped || noWait && b.Status == delivery.BuildWaiting {
			if code := b.Status.ExitCode(); code != 0 {
				return exitError(code)
			}
			return nil
		}
		if err := sleep(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// follower remembers what was printed.
type follower struct {
	a      *app
	nodes  map[string]api.Node
	status delivery.BuildStatus
	gate   string
}

func (f *follower) show(b api.BuildDetail) error {
	a := f.a
	if f.status == "" && !a.json {
		a.printf("build %d  %s  %s  %s  %s\n  %s\n", b.Number, b.Lane, clean(b.Branch), delivery.ShortHash(b.Commit), clean(b.Subject), b.URL)
	}
	for _, n := range b.Nodes {
		if last, seen := f.nodes[n.Name]; !worthALine(n, last, seen) {
			continue
		}
		f.nodes[n.Name] = n
		if err := f.showNode(b, n); err != nil {
			return err
		}
	}
	if g, waiting := openGate(b); waiting && b.Status == delivery.BuildWaiting && f.gate != g.ID+itoa(g.Version)+g.Stale {
		f.gate = g.ID + itoa(g.Version) + g.Stale
		if err := f.showGate(b, g); err != nil {
			return err
		}
	}
	if b.Status == f.status {
		return nil
	}
	f.status = b.Status
	if a.json {
		return a.emit(change{At: a.clock.Now(), Build: b.Number, State: string(b.Status), Reason: b.Reason, URL: b.URL})
	}
	if b.Status.Final() || b.Status == delivery.BuildStopped {
		f.showEnd(b)
	}
	return nil
}

func worthALine(n, last api.Node, seen bool) bool {
	if !seen {
		return n.State != delivery.NodePending
	}
	return n.State != last.State || n.Reason != last.Reason && n.Reason != ""
}

func (f *follower) showNode(b api.BuildDetail, n api.Node) error {
	a := f.a
	if a.json {
		return a.emit(change{At: a.clock.Now(), Build: b.Number, Node: n.Name, State: string(n.State), Reason: n.Reason})
	}
	word, color := nodeWord(n.State)
	line := "  " + a.paint(color, pad(word, 9)) + " " + pad(clean(n.Name), 18)
	if n.State.Final() && !n.StartedAt.IsZero() && !n.FinishedAt.IsZero() {
		line += " " + took(n.FinishedAt.Sub(n.StartedAt))
	}
	if n.Reason != "" {
		line += "  " + clean(n.Reason)
	}
	a.printf("%s\n", strings.TrimRight(line, " "))
	return nil
}

// nodeWord is a state in one word and its colour.
func nodeWord(s delivery.NodeState) (word, color string) {
	switch s {
	case delivery.NodeSucceeded:
		return "ok", green
	case delivery.NodeFailed:
		return "failed", red
	case delivery.NodeUnknown:
		return "unknown", red
	case delivery.NodeWaiting:
		return "waiting", yellow
	case delivery.NodeRunning:
		return "running", faint
	case delivery.NodePending, delivery.NodeSkipped, delivery.NodeUnreached, delivery.NodeCancelled:
	}
	return string(s), faint
}

func openGate(b api.BuildDetail) (api.Gate, bool) {
	for _, g := range b.Gates {
		if g.State == delivery.GateOpen {
			return g, true
		}
	}
	return api.Gate{}, false
}

func (f *follower) showGate(b api.BuildDetail, g api.Gate) error {
	a := f.a
	if a.json {
		return a.emit(change{At: a.clock.Now(), Build: b.Number, Node: "gate/" + g.Environment, State: string(g.State), Reason: g.Stale, URL: g.URL})
	}
	a.printf("\n%s\n", a.paint(yellow, "Build "+itoa(b.Number)+" waits for a person, until "+at(g.ExpiresAt)+"."))
	for _, i := range b.Instances {
		if i.State == delivery.InstanceUp && i.URL != "" {
			a.printf("  Try it   %s\n", clean(i.URL))
		}
	}
	a.printf("  Page     %s\n", g.URL)
	if g.Stale != "" {
		a.printf("  Stale    %s\n", clean(g.Stale))
	}
	a.printf("  shunt promote %s %d\n  shunt reject %s %d -m \"why\"\n\n", b.Project, b.Number, b.Project, b.Number)
	return nil
}

func (f *follower) showEnd(b api.BuildDetail) {
	a := f.a
	line := "build " + itoa(b.Number) + " " + string(b.Status)
	if b.Reason != "" {
		line += ": " + clean(b.Reason)
	}
	a.printf("%s\n", a.paint(statusColor(b.Status), line))
	if b.ProductionTag != "" && b.Status == delivery.BuildSucceeded {
		a.printf("  tagged %s and %s\n", clean(b.BuildTag), clean(b.ProductionTag))
	}
	if w := b.WhyFailed; w != nil {
		a.printf("  %s: %s\n", clean(w.Node), clean(w.Reason))
		for _, l := range w.Tail {
			a.printf("  | %s\n", clean(l))
		}
		a.printf("  whole log:  shunt log %s %d %s\n", b.Project, b.Number, clean(w.Node))
	}
	if b.Status != delivery.BuildStopped {
		return
	}
	for _, act := range b.Actions {
		if act.Refused == "" && act.Name != "rollback" && act.Name != "rerun" && act.Name != "cancel" {
			a.printf("  shunt resolve %s %d %s -m \"why\"\n", b.Project, b.Number, act.Name)
		}
	}
}

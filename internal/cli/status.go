package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func (a *app) statusCommand() *cobra.Command {
	return command("status [project]", "Show what runs where, what waits and what is owed", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		c, conf, err := a.client(ctx)
		if err != nil {
			return err
		}
		name := conf.Project
		if len(args) > 0 {
			name = args[0]
		}
		var projects []api.Project
		if name == "" {
			projects, err = c.Projects(ctx)
		} else {
			projects = make([]api.Project, 1)
			projects[0], err = c.Project(ctx, name)
		}
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, projects)
		}
		if len(projects) == 0 {
			a.printf("no project yet. Add one:  shunt project add URL\n")
		}
		for _, p := range projects {
			a.printProject(p)
		}
		return nil
	})
}

func (a *app) printProject(p api.Project) {
	a.printf("%s  %s\n", p.Name, clean(p.URL))
	for _, e := range p.Environments {
		if e.Ephemeral {
			for _, i := range e.Instances {
				a.printf("  %-11s build %d  %s until %s  %s\n", e.Name, i.Number, i.State, at(i.ExpiresAt), clean(i.URL))
			}
			continue
		}
		if r := e.Running; r != nil {
			a.printf("  %-11s build %d  %s  %s  %s by %s  %s\n", e.Name, r.Build, r.Lane, delivery.ShortHash(r.Commit), a.since(r.Since), clean(r.By), clean(r.URL))
			if r.RolledBack {
				a.printf("  %-11s %s\n", "", a.paint(yellow, "rolled back: the latest tag is "+clean(r.Tag)))
			}
		} else {
			a.printf("  %-11s nothing was deployed yet\n", e.Name)
		}
		if f := e.Failed; f != nil {
			a.printf("  %-11s %s\n", "", a.paint(red, "the last attempt failed: build "+itoa(f.Build)+" "+a.since(f.Since)))
		}
	}
	for _, b := range p.Waiting {
		a.printf("  %-11s build %d  %s  %s  %s\n", a.paint(yellow, "waiting"), b.Number, clean(b.Branch), clean(b.Subject), b.URL)
	}
	for _, b := range p.BackMerges {
		a.printf("  %-11s back-merge of build %d into %s, %s, %s\n", "owed", b.Number, p.Branches.Integration, a.since(b.OpenedAt), forecastWords(b.Conflicts))
	}
	if p.Hold != "" {
		a.printf("  %-11s the main lane waits: %s   Release it:  shunt release-hold %s -m \"why\"\n", a.paint(yellow, "hold"), clean(p.Hold), p.Name)
	}
	if f := p.Frozen(); f != nil {
		a.printf("  %-11s the main lane waits until %s: %s (%s)   End it:  shunt freeze end %s %d -m \"why\"\n", a.paint(yellow, "freeze"), dated(f.Until), clean(f.Reason), clean(f.By), p.Name, f.ID)
	} else if f := p.Freeze; f != nil {
		a.printf("  %-11s the main lane will wait %s: %s (%s)   Take it back:  shunt freeze end %s %d -m \"why\"\n", "freeze", fromUntil(*f), clean(f.Reason), clean(f.By), p.Name, f.ID)
	}
	if p.Incident != "" {
		a.printf("  %-11s nothing ships: %s\n", a.paint(red, "incident"), clean(p.Incident))
	}
	if p.FetchError != "" {
		a.printf("  %-11s the repository cannot be read: %s\n", a.paint(red, "git"), clean(p.FetchError))
	}
}

func forecastWords(conflicts []string) string {
	if len(conflicts) == 0 {
		return "merges clean"
	}
	return "conflicts in " + clean(strings.Join(conflicts, ", "))
}

func (a *app) buildsCommand() *cobra.Command {
	var f api.BuildFilter
	cmd := command("builds [project]", "List builds, newest first", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		builds, err := c.Builds(ctx, project, f)
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, builds)
		}
		for _, b := range builds {
			a.printBuild(b)
		}
		if len(builds) == 0 {
			a.note("no build matches")
		}
		return nil
	})
	fl := cmd.Flags()
	fl.StringVar(&f.Lane, "lane", "", "main or hotfix")
	fl.StringVar(&f.Status, "status", "", "such as waiting, failed, succeeded")
	fl.StringVar(&f.Branch, "branch", "", "branch")
	fl.StringVar(&f.Commit, "commit", "", "commit")
	fl.Int64Var(&f.Before, "before", 0, "only numbers below")
	fl.IntVar(&f.Limit, "limit", 0, "how many (30)")
	return cmd
}

func (a *app) printBuild(b api.Build) {
	a.printf("%5d  %s  %-6s  %s  %s  %s  %s\n", b.Number, a.paint(statusColor(b.Status), pad(string(b.Status), 10)), b.Lane, delivery.ShortHash(b.Commit), at(b.CreatedAt), clean(b.Branch), clean(b.Subject))
}

// pad fills before painting: escape sequences have no width.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-len(s)))
}

func statusColor(s delivery.BuildStatus) string {
	switch s {
	case delivery.BuildSucceeded:
		return green
	case delivery.BuildFailed, delivery.BuildStopped, delivery.BuildRejected:
		return red
	case delivery.BuildWaiting:
		return yellow
	case delivery.BuildQueued, delivery.BuildRunning, delivery.BuildExpired, delivery.BuildCancelled, delivery.BuildSuperseded:
	}
	return faint
}

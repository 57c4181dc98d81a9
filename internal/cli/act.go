package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
)

// done prints the outcome of an act on a build.
func (a *app) done(b api.Build, err error) error {
	if err != nil {
		return err
	}
	if a.json {
		return a.emit(b)
	}
	a.printf("%s  build %d of %s is %s  %s\n", a.paint(green, "ok"), b.Number, b.Project, b.Status, b.URL)
	return nil
}

func (a *app) cancelCommand() *cobra.Command {
	var reason string
	cmd := command("cancel [project] build", "Stop a build that has not ended", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		if err := needReason(reason, "cancel"); err != nil {
			return err
		}
		c, project, number, err := a.target(ctx, args)
		if err != nil {
			return err
		}
		return a.done(c.Cancel(ctx, project, number, reason))
	})
	cmd.Flags().StringVarP(&reason, "message", "m", "", "why (needed)")
	return cmd
}

func (a *app) rerunCommand() *cobra.Command {
	return command("rerun [project] build", "Run the failed jobs again on the same commit", cobra.RangeArgs(1, 2), func(ctx context.Context, args []string) error {
		c, project, number, err := a.target(ctx, args)
		if err != nil {
			return err
		}
		return a.done(c.Rerun(ctx, project, number))
	})
}

func (a *app) resolveCommand() *cobra.Command {
	actions := []string{"retry", "give-up", "confirm-live", "confirm-not-live"}
	var in api.Resolve
	cmd := command("resolve [project] build "+strings.Join(actions, "|"), "Answer what a stopped build asks", cobra.RangeArgs(2, 3), func(ctx context.Context, args []string) error {
		in.Action = args[len(args)-1]
		if !slices.Contains(actions, in.Action) {
			return usage("unknown answer "+clean(in.Action), "One of:  "+strings.Join(actions, "  "))
		}
		if err := needReason(in.Reason, "resolve"); err != nil {
			return err
		}
		c, project, number, err := a.target(ctx, args[:len(args)-1])
		if err != nil {
			return err
		}
		return a.done(c.Resolve(ctx, project, number, in))
	})
	cmd.Flags().StringVarP(&in.Reason, "message", "m", "", "why (needed)")
	return cmd
}

func (a *app) rollbackCommand() *cobra.Command {
	var in api.Rollback
	cmd := command("rollback [project]", "Put the build back that ran healthy before", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		if err := needReason(in.Reason, "rollback"); err != nil {
			return err
		}
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		b, err := c.Rollback(ctx, project, in)
		if err := a.done(b, err); err != nil || a.json {
			return err
		}
		a.printf("    it deploys the stored bytes, builds nothing and moves no branch; a database is not rolled back.\n")
		a.printf("    Promotions of the main lane wait until:  shunt release-hold %s -m \"why\"\n", project)
		return nil
	})
	cmd.Long = "Rollback deploys the stored bytes of an earlier production build, builds nothing, moves no branch,\nand holds promotions of the main lane until they are released. It does not roll a database back."
	cmd.Flags().Int64Var(&in.To, "to", 0, "build (the last one that ran healthy before)")
	cmd.Flags().StringVarP(&in.Reason, "message", "m", "", "why (needed)")
	return cmd
}

// projectAct makes a command that needs a project and a reason.
func (a *app) projectAct(name, short, done string, act func(*api.Client, context.Context, string, string) (api.Project, error)) *cobra.Command {
	var reason string
	cmd := command(name+" [project]", short, cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		if err := needReason(reason, name); err != nil {
			return err
		}
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		p, err := act(c, ctx, project, reason)
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(p)
		}
		a.printf("%s  %s\n", a.paint(green, "ok"), done)
		return nil
	})
	cmd.Flags().StringVarP(&reason, "message", "m", "", "why (needed)")
	return cmd
}

func (a *app) holdCommand() *cobra.Command {
	return a.projectAct("hold", "Stop promotions of the main lane", "the main lane promotes nothing until it is released; hotfixes still ship", (*api.Client).Hold)
}

func (a *app) releaseHoldCommand() *cobra.Command {
	return a.projectAct("release-hold", "Let the main lane promote again", "the main lane promotes again", (*api.Client).ReleaseHold)
}

func (a *app) clearIncidentCommand() *cobra.Command {
	return a.projectAct("clear-incident", "Accept the production branch and tags as they are now", "the production branch and tags are accepted as they are", (*api.Client).ClearIncident)
}

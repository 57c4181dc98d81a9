package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func (a *app) hotfixCommand() *cobra.Command {
	start := command("start NAME", "Make a hotfix branch at what production runs", cobra.ExactArgs(1), a.hotfixStart)
	list := command("list [project]", "List the hotfixes that are on their way", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		base, err := c.Hotfix(ctx, project)
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, base.Open)
		}
		a.printf("a hotfix starts at %s (%s)\n", clean(base.Tag), delivery.ShortHash(base.Commit))
		for _, b := range base.Open {
			a.printBuild(b)
		}
		return nil
	})
	return group("hotfix", "Take a fix straight to production", start, list)
}

func (a *app) hotfixStart(ctx context.Context, args []string) error {
	what := "cannot start hotfix " + clean(args[0])
	c, project, err := a.project(ctx, nil)
	if err != nil {
		return err
	}
	base, err := c.Hotfix(ctx, project)
	if err != nil {
		return err
	}
	branch := hotfixBranch(base.Pattern, args[0])
	if _, err := a.git(ctx, "check-ref-format", "refs/heads/"+branch); err != nil || strings.HasPrefix(branch, "-") || strings.ContainsAny(args[0], "*") {
		return &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: "git does not allow that name", Next: "Use letters, digits and dashes:  shunt hotfix start cart-500"}
	}
	if _, err := a.git(ctx, "rev-parse", "--git-dir"); err != nil {
		return &delivery.Error{Kind: delivery.KindInvalid, What: what, Why: "this is not a clone of " + project, Next: "Run it in one."}
	}
	if _, err := a.git(ctx, "show-ref", "--verify", "--quiet", "refs/heads/"+branch); err == nil {
		return &delivery.Error{Kind: delivery.KindConflict, What: what, Why: "the branch " + branch + " is here already", Next: "Go on with it:  git switch " + branch + "   or choose another name"}
	}
	remote := a.remote(ctx)
	if _, err := a.git(ctx, "fetch", "--quiet", "--tags", "--end-of-options", remote); err != nil {
		return err
	}
	if _, err := a.git(ctx, "cat-file", "-e", base.Commit+"^{commit}"); err != nil {
		return &delivery.Error{Kind: delivery.KindNotFound, What: what, Why: "the commit in production, " + delivery.ShortHash(base.Commit) + ", did not come with git fetch " + remote, Next: "Is this a clone of " + project + "?  shunt status " + project}
	}
	if _, err := a.git(ctx, "switch", "--quiet", "--no-track", "--create", branch, base.Commit); err != nil {
		return &delivery.Error{Kind: delivery.KindConflict, What: what, Why: "git cannot switch with the changes in your work tree:\n" + whyOf(err), Next: "Put them aside:  git stash   then again:  shunt hotfix start " + args[0], Err: err}
	}
	// So that a plain `git push` takes the new branch there.
	if _, err := a.git(ctx, "config", "branch."+branch+".pushRemote", remote); err != nil {
		return err
	}
	if _, err := a.git(ctx, "config", "--get", "push.autoSetupRemote"); err != nil {
		if _, err := a.git(ctx, "config", "push.autoSetupRemote", "true"); err != nil {
			return err
		}
	}
	if a.json {
		return a.emit(map[string]string{"branch": branch, "commit": base.Commit, "tag": base.Tag})
	}
	a.printf("%s  on branch %s at %s (%s), which production runs\n", a.paint(green, "ok"), branch, clean(base.Tag), delivery.ShortHash(base.Commit))
	for _, b := range base.Open {
		a.printf("    on its way too: build %d of %s (%s); when one ships, the other must take it in\n", b.Number, clean(b.Branch), b.Status)
	}
	a.printf("\n  edit, then try it here   shunt run\n  commit and push          git commit -a && git push\n  follow                   shunt watch\n")
	return nil
}

// hotfixBranch puts a name into the pattern: hotfix/* and cart-500 make
// hotfix/cart-500. A name that carries the prefix already is left alone.
func hotfixBranch(pattern, name string) string {
	prefix, suffix, _ := strings.Cut(pattern, "*")
	return prefix + strings.TrimSuffix(strings.TrimPrefix(name, prefix), suffix) + suffix
}

func whyOf(err error) string {
	if e, ok := asError(err); ok {
		return e.Why
	}
	return err.Error()
}

func (a *app) backmergeCommand() *cobra.Command {
	return command("backmerge [project]", "Show what the integration branch owes, how the merge would go, and what to type", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		debts, err := c.BackMerges(ctx, project)
		if err != nil {
			return err
		}
		open := make([]api.BackMerge, 0, len(debts))
		for _, d := range debts {
			if d.ClosedAt.IsZero() {
				open = append(open, d)
			}
		}
		if a.json {
			return emitAll(a, open)
		}
		if len(open) == 0 {
			a.printf("nothing is owed: the integration branch contains what is in production\n")
		}
		for _, d := range open {
			a.printf("owed   build %d (%s), %s, by %s\n", d.Number, delivery.ShortHash(d.Commit), a.since(d.OpenedAt), clean(d.Owner))
			a.printf("merge  %s\n", forecastWords(d.Conflicts))
			a.printf("type\n")
			for _, line := range d.Commands {
				a.printf("  %s\n", clean(line))
			}
		}
		return nil
	})
}

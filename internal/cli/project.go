package cli

import (
	"context"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func (a *app) projectCommand() *cobra.Command {
	list := command("list", "List the projects", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		c, _, err := a.client(ctx)
		if err != nil {
			return err
		}
		projects, err := c.Projects(ctx)
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, projects)
		}
		for _, p := range projects {
			a.printf("%s  %s\n", p.Name, clean(p.URL))
		}
		return nil
	})
	show := command("show [project]", "Show one project", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		p, err := c.Project(ctx, project)
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(p)
		}
		a.printProject(p)
		a.printf("  branches    %s, %s, %s\n  tags        %s, %s\n  next build  %d\n  webhook     %s\n",
			clean(p.Branches.Integration), clean(p.Branches.Production), clean(p.Branches.Hotfix), clean(p.Tags.Build), clean(p.Tags.Production), p.NextBuild, p.WebhookPath)
		return nil
	})
	return group("project", "Add and show projects", a.projectAdd(), list, show)
}

func (a *app) projectAdd() *cobra.Command {
	var in api.AddProject
	cmd := command("add URL", "Take a repository over", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		c, _, err := a.client(ctx)
		if err != nil {
			return err
		}
		in.URL = args[0]
		if info, err := os.Stat(in.URL); err == nil && info.IsDir() {
			if in.URL, err = filepath.Abs(in.URL); err != nil {
				return err
			}
			in.Local = true
		}
		if in.Name == "" {
			in.Name = projectName(in.URL)
		}
		p, err := c.AddProject(ctx, in)
		if err != nil {
			return err
		}
		if a.json {
			return a.emit(p)
		}
		a.printf("%s  project %s  %s\n", a.paint(green, "ok"), p.Name, clean(p.URL))
		if r := p.Production; r != nil {
			a.printf("    in production: %s, taken over as build %d\n", delivery.ShortHash(r.Commit), r.Build)
		}
		if p.HookInstalled != "" {
			a.printf("    post-receive hook: %s\n", clean(p.HookInstalled))
			return nil
		}
		a.printf("    webhook: POST %s   secret, shown once: %s\n    without one, pushes are noticed by polling\n", p.WebhookPath, p.WebhookSecret)
		return nil
	})
	f := cmd.Flags()
	f.StringVar(&in.Name, "name", "", "name (from the URL)")
	f.StringVar(&in.InProduction, "in-production", "", "tag, branch or commit that production runs now")
	f.Int64Var(&in.NextBuild, "next-build", 0, "number of the next build, above the old server's (1)")
	f.BoolVar(&in.InstallHook, "install-hook", false, "install a post-receive hook in a local bare repository")
	return cmd
}

// projectName is the last part of a URL or path, as far as a project may be
// called so: https://example.org/shop/Petstore.git is petstore.
func projectName(address string) string {
	p := address
	if u, err := url.Parse(address); err == nil && u.Path != "" {
		p = u.Path
	}
	name := strings.ToLower(strings.TrimSuffix(path.Base(strings.TrimSuffix(p, "/")), ".git"))
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, name)
	return strings.Trim(name, "-")
}

func (a *app) secretCommand() *cobra.Command {
	set := command("set NAME", "Store a secret, read from the standard input", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, nil)
		if err != nil {
			return err
		}
		value, err := a.readSecret()
		if err != nil {
			return err
		}
		if err := c.SetSecret(ctx, project, args[0], value); err != nil {
			return err
		}
		a.printf("%s  secret %s of %s is set\n", a.paint(green, "ok"), clean(args[0]), project)
		return nil
	})
	del := command("delete NAME", "Remove a secret", cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, nil)
		if err != nil {
			return err
		}
		if err := c.DeleteSecret(ctx, project, args[0]); err != nil {
			return err
		}
		a.printf("%s  secret %s of %s is removed\n", a.paint(green, "ok"), clean(args[0]), project)
		return nil
	})
	list := command("list [project]", "List the names of the secrets", cobra.MaximumNArgs(1), func(ctx context.Context, args []string) error {
		c, project, err := a.project(ctx, args)
		if err != nil {
			return err
		}
		names, err := c.Secrets(ctx, project)
		if err != nil {
			return err
		}
		if a.json {
			return emitAll(a, names)
		}
		for _, n := range names {
			a.printf("%s\n", clean(n))
		}
		return nil
	})
	return group("secret", "Values for the scripts of a project, which can be written and never read", set, list, del)
}

// maxSecret is what the server takes, in bytes.
const maxSecret = 64 << 10

// readSecret reads a secret from the standard input, without echo from a
// terminal; never from the arguments, which every process on the machine can see.
func (a *app) readSecret() (string, error) {
	var b []byte
	var err error
	if f, ok := a.stdin.(*os.File); ok && term.IsTerminal(f.Fd()) {
		a.note("value (it is not shown):")
		b, err = term.ReadPassword(f.Fd())
	} else {
		b, err = io.ReadAll(io.LimitReader(a.stdin, maxSecret+2))
	}
	if err != nil {
		return "", err
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if value == "" || len(value) > maxSecret {
		return "", usage("a secret has 1 to 65536 bytes", "Give it on the standard input:  shunt secret set NAME <file")
	}
	return value, nil
}

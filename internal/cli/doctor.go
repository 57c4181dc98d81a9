package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shuntcd/shunt/internal/api"
)

func (a *app) doctorCommand() *cobra.Command {
	return command("doctor", "Check this machine and the server", cobra.NoArgs, func(ctx context.Context, _ []string) error {
		checks := []api.Check{a.checkGit(ctx)}
		c, conf, err := a.client(ctx)
		if err == nil {
			var server []api.Check
			server, err = c.Doctor(ctx)
			checks = append(checks, server...)
		}
		if err != nil {
			words := strings.ReplaceAll(err.Error(), "\n", "  ")
			checks = append(checks, api.Check{Name: "server", State: "fail", Words: words})
		} else {
			checks = append(checks, api.Check{Name: "server", State: "ok", Words: conf.Server + " answers"})
		}
		failed := false
		for _, ch := range checks {
			failed = failed || ch.State == "fail"
			if a.json {
				if err := a.emit(ch); err != nil {
					return err
				}
				continue
			}
			color := map[string]string{"ok": green, "warn": yellow, "fail": red}[ch.State]
			a.printf("%s  %-10s %s\n", a.paint(color, pad(ch.State, 4)), ch.Name, clean(ch.Words))
		}
		if failed {
			return exitError(1)
		}
		return nil
	})
}

func (a *app) checkGit(ctx context.Context) api.Check {
	v, err := a.git(ctx, "--version")
	if err != nil {
		return api.Check{Name: "git here", State: "fail", Words: "git cannot be run: " + whyOf(err)}
	}
	return api.Check{Name: "git here", State: "ok", Words: v}
}

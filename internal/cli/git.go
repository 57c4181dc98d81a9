package cli

import (
	"bytes"
	"context"
	"os/exec"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// git runs git in the current directory and returns its output without the last newline.
func (a *app) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(slices.Clip(a.env), "LC_ALL=C", "GIT_TERMINAL_PROMPT=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		why := strings.TrimSpace(stderr.String())
		if why == "" {
			why = err.Error()
		}
		return "", &delivery.Error{Kind: delivery.KindInternal, What: "git " + args[0] + " failed", Why: why, Err: err}
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// remote is the remote of the current branch, or origin.
func (a *app) remote(ctx context.Context) string {
	branch := a.branch(ctx)
	if branch != "" {
		if r, err := a.git(ctx, "config", "--get", "branch."+branch+".remote"); err == nil && r != "" && r != "." {
			return r
		}
	}
	return "origin"
}

// branch is the current branch, or "" on a detached head or outside of a repository.
func (a *app) branch(ctx context.Context) string {
	b, err := a.git(ctx, "symbolic-ref", "--quiet", "--short", "HEAD")
	if err != nil {
		return ""
	}
	return b
}

func (a *app) head(ctx context.Context) (string, error) {
	return a.git(ctx, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
}

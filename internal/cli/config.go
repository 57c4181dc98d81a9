package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// config says which server to ask, as whom, and about what.
type config struct {
	Server  string `json:"server"`
	Token   string `json:"token"`
	Project string `json:"project"`
}

// or fills what is empty from another.
func (c config) or(d config) config {
	return config{Server: cmp.Or(c.Server, d.Server), Token: cmp.Or(c.Token, d.Token), Project: cmp.Or(c.Project, d.Project)}
}

// configure looks each value up: flags, environment, git configuration, file.
func (a *app) configure(ctx context.Context) (config, error) {
	c := a.conf.or(config{Server: a.getenv("SHUNT_SERVER"), Token: a.getenv("SHUNT_TOKEN"), Project: a.getenv("SHUNT_PROJECT")})
	c = c.or(a.gitConfig(ctx))
	dir := a.getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(a.getenv("HOME"), ".config")
	}
	file := filepath.Join(dir, "shunt", "config.json")
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	var d config
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil {
		return c, &delivery.Error{Kind: delivery.KindInvalid, What: "cannot read " + file, Why: err.Error(), Err: err}
	}
	return c.or(d), nil
}

// gitConfig reads shunt.server, shunt.token and shunt.project of the current
// repository; outside of one it finds the user's.
func (a *app) gitConfig(ctx context.Context) config {
	out, err := a.git(ctx, "config", "--null", "--get-regexp", `^shunt\.(server|token|project)$`)
	if err != nil {
		return config{} // none is set, or there is no git
	}
	var c config
	for entry := range strings.SplitSeq(out, "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		switch strings.ToLower(key) {
		case "shunt.server":
			c.Server = value
		case "shunt.token":
			c.Token = value
		case "shunt.project":
			c.Project = value
		}
	}
	return c
}

// client returns a client of the configured server, and the configuration.
func (a *app) client(ctx context.Context) (*api.Client, config, error) {
	c, err := a.configure(ctx)
	if err != nil {
		return nil, c, err
	}
	if c.Server == "" {
		return nil, c, usage("no Shunt server is configured", "Say which:  git config shunt.server http://localhost:8080   (or --server, SHUNT_SERVER)\nNone yet?   shunt demo")
	}
	if c.Token == "" {
		return nil, c, usage("no token is configured for "+c.Server, "Make one on the server:  shunt token create NAME --data DIR\nand keep it here:        git config shunt.token TOKEN   (or SHUNT_TOKEN)")
	}
	return api.NewClient(c.Server, c.Token, patientClient(a.patience, a.note)), c, nil
}

// project returns the client and the project: the argument if there is one, the
// configured one, or the only one that the server has.
func (a *app) project(ctx context.Context, args []string) (*api.Client, string, error) {
	c, conf, err := a.client(ctx)
	switch {
	case err != nil:
		return nil, "", err
	case len(args) > 0:
		return c, args[0], nil
	case conf.Project != "":
		return c, conf.Project, nil
	}
	projects, err := c.Projects(ctx)
	if err != nil {
		return nil, "", err
	}
	if len(projects) == 1 {
		return c, projects[0].Name, nil
	}
	return nil, "", usage("which project?", "Name it as the first argument, or once and for all:  git config shunt.project NAME")
}

// target reads `[project] build`.
func (a *app) target(ctx context.Context, args []string) (*api.Client, string, int64, error) {
	if len(args) == 0 {
		return nil, "", 0, usage("which build?", "shunt builds   lists them")
	}
	last := len(args) - 1
	number, err := buildNumber(args[last])
	if err != nil {
		return nil, "", 0, err
	}
	c, project, err := a.project(ctx, args[:last])
	return c, project, number, err
}

func buildNumber(s string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(s, "#"), 10, 64)
	if err != nil || n < 1 {
		return 0, usage(fmt.Sprintf("%q is not a build number", clean(s)), "shunt builds   lists them")
	}
	return n, nil
}

package demo

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed petstore
var petstore embed.FS

// The bug and the fix: one line of one template.
const (
	bugFile = "shop/templates/cart.html"
	bugLine = `<td class="price">{{.Price.Amount}}</td>`
	fixLine = `<td class="price">{{with .Price}}{{.Amount}}{{else}}no longer sold{{end}}</td>`
)

// The sample project's names.
const (
	projectName = "petstore"
	integration = "develop"
	production  = "master"
)

// Repo is the sample project: a bare repository and its clone.
type Repo struct {
	Bare  string // absolute path
	Clone string // absolute path
	Env   []string
}

// Values are what the sample project's files need to know of this machine.
type Values struct {
	Exe        string // the shunt binary that its scripts call
	Dir        string // the demo's folder
	Production string // host:port
}

// Git runs git in the clone and returns what it printed, both streams joined.
func (r Repo) Git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = r.Clone
	cmd.Env = r.Env
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return strings.TrimSpace(out.String()), nil
}

// gits runs git several times, up to the first failure.
func (r Repo) gits(ctx context.Context, commands ...[]string) error {
	for _, args := range commands {
		if _, err := r.Git(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// plainGit is an environment in which git obeys no configuration but the
// repository's own: a person's signing keys and hooks are no part of the story.
func plainGit(env []string) []string {
	out := make([]string, 0, len(env)+3)
	for _, kv := range env {
		if !strings.HasPrefix(kv, "GIT_") {
			out = append(out, kv)
		}
	}
	return append(out, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0")
}

// MakeRepo makes the bare repository and the clone, with the shop committed on
// develop and an empty beginning on master; only master is pushed.
func MakeRepo(ctx context.Context, dir string, v Values, env []string) (Repo, error) {
	r := Repo{Bare: filepath.Join(dir, projectName+".git"), Clone: filepath.Join(dir, projectName), Env: plainGit(env)}
	at := r
	at.Clone = dir
	if err := at.gits(ctx,
		[]string{"init", "--quiet", "--bare", "--initial-branch=" + production, r.Bare},
		[]string{"init", "--quiet", "--initial-branch=" + production, r.Clone}); err != nil {
		return r, err
	}
	if err := r.gits(ctx,
		[]string{"remote", "add", "origin", r.Bare},
		[]string{"config", "user.name", "Ana Ruiz"}, []string{"config", "user.email", "ana@example.org"},
		[]string{"config", "commit.gpgSign", "false"}, []string{"config", "tag.gpgSign", "false"},
		[]string{"config", "push.default", "simple"}, []string{"config", "pull.rebase", "false"},
		[]string{"commit", "--quiet", "--allow-empty", "--message", "An empty shop"},
		[]string{"push", "--quiet", "--set-upstream", "origin", production},
		[]string{"switch", "--quiet", "--create", integration}); err != nil {
		return r, err
	}
	if err := r.writeShop(v); err != nil {
		return r, err
	}
	return r, r.commit(ctx, "A shop with products, carts and a pipeline")
}

func (r Repo) commit(ctx context.Context, message string) error {
	return r.gits(ctx, []string{"add", "--all"}, []string{"commit", "--quiet", "--message", message})
}

// writeShop copies the sample files into the clone.
func (r Repo) writeShop(v Values) error {
	fill := strings.NewReplacer("@PRODUCTION@", v.Production, "@FIX@", fixLine)
	settings := "SHUNT=" + shellQuote(v.Exe) + "\nDEMO=" + shellQuote(v.Dir) + "\nPRODUCTION=" + shellQuote(v.Production) + "\n"
	err := fs.WalkDir(petstore, "petstore", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := petstore.ReadFile(name)
		if err != nil {
			return err
		}
		to := strings.TrimPrefix(name, "petstore/")
		mode := fs.FileMode(0o644)
		switch {
		case to == "shunt.yml", to == "gitignore":
			to = "." + to
		case strings.HasSuffix(to, ".sh"):
			mode = 0o755
		}
		return r.write(to, fill.Replace(string(b)), mode)
	})
	return errors.Join(err, r.write("ci/demo.env", "# Where the demo is on this machine.\n"+settings, 0o644))
}

func (r Repo) write(name, text string, mode fs.FileMode) error {
	file := filepath.Join(r.Clone, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil { //nolint:gosec // G301: a work tree
		return err
	}
	return os.WriteFile(file, []byte(text), mode)
}

// shellQuote makes one word of a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Unfinished puts three commits on develop that must not ship: a wish list
// whose page does not exist yet, though the acceptance test asks for it.
func (r Repo) Unfinished(ctx context.Context) error {
	if _, err := r.Git(ctx, "switch", "--quiet", integration); err != nil {
		return err
	}
	if err := r.write("shop/wishes.json", "{\"1\": [4]}\n", 0o644); err != nil {
		return err
	}
	if err := r.commit(ctx, "Wish list: first sketch of the data (unfinished)"); err != nil {
		return err
	}
	if err := r.replace("shop/templates/layout.html", `<a href="/">Petstore</a>`, `<a href="/">Petstore</a> <a href="/wishlist">Wish list</a>`); err != nil {
		return err
	}
	if err := r.commit(ctx, "Wish list: the link, before the page (unfinished)"); err != nil {
		return err
	}
	if err := r.replace("shop/acceptance.txt", "Cat tree\n", "Cat tree\n/wishlist     200     Wish list\n"); err != nil {
		return err
	}
	return r.commit(ctx, "Wish list: the test that it must pass one day (unfinished)")
}

// Fix edits the one line.
func (r Repo) Fix() error { return r.replace(bugFile, bugLine, fixLine) }

func (r Repo) replace(name, from, to string) error {
	file := filepath.Join(r.Clone, filepath.FromSlash(name))
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if strings.Count(string(b), from) != 1 {
		return fmt.Errorf("%s does not have the line %q once", name, from)
	}
	return os.WriteFile(file, []byte(strings.Replace(string(b), from, to, 1)), 0o644) //nolint:gosec // G306: a work tree
}

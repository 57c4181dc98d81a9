package gitrepo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/shuntcd/shunt/internal/delivery"
)

// hookMark is the line by which Shunt knows its own hook again.
const hookMark = "# Installed by Shunt: changes to this file are lost."

// HookPath is the post-receive hook of a local remote, or "" for any other.
func (r *Repo) HookPath() string {
	if r.invalid != nil || r.path == "" {
		return ""
	}
	return filepath.Join(r.path, "hooks", "post-receive")
}

// InstallHook makes script, which begins with a #! line, the post-receive hook
// of a local bare remote. A hook that is not Shunt's is never replaced: then the
// script is put beside it as post-receive.shunt, and unless the foreign hook calls
// that already, the error says which line to add.
func (r *Repo) InstallHook(ctx context.Context, script string) error {
	const what = "cannot install the post-receive hook"
	switch {
	case r.invalid != nil:
		return r.invalid
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case r.path == "":
		return delivery.Errf(delivery.KindInvalid, what, "the repository is not on this machine")
	case !strings.HasPrefix(script, "#!"):
		return delivery.Errf(delivery.KindInvalid, what, "the script does not begin with #!")
	}
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(r.path, name)); err != nil {
			return &delivery.Error{
				Kind: delivery.KindInvalid, What: what, Why: r.path + " is not a bare git repository",
				Next: "Register a bare one (git init --bare, git clone --bare).", Err: err,
			}
		}
	}
	shebang, rest, _ := strings.Cut(script, "\n")
	script = shebang + "\n" + hookMark + "\n" + `[ -z "$SHUNT_PUSH" ] || exec cat >/dev/null` + "\n" + rest
	hook := r.HookPath()
	if err := os.MkdirAll(filepath.Dir(hook), 0o755); err != nil { //nolint:gosec // G301: the repository's own permission
		return fmt.Errorf("%s: %w", what, err)
	}
	old, err := oldHook(hook)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case old.ours:
		return replace(hook, script)
	}
	if err = replace(hook+".shunt", script); err != nil || strings.Contains(old.text, hook+".shunt") {
		return err
	}
	return &delivery.Error{
		Kind: delivery.KindConflict, What: what, Why: hook + " is there already and is not Shunt's",
		Next: `Add this line to the end of it:  "` + hook + `.shunt" </dev/null`,
	}
}

type hookFile struct {
	text string
	ours bool // may be replaced
}

// oldHook looks at the hook that is there. A symbolic link is somebody else's,
// wherever it leads.
func oldHook(hook string) (hookFile, error) {
	info, err := os.Lstat(hook)
	if errors.Is(err, fs.ErrNotExist) {
		return hookFile{ours: true}, nil
	}
	if err != nil {
		return hookFile{}, err
	}
	b, err := os.ReadFile(hook)
	if err != nil {
		return hookFile{}, err
	}
	ours := info.Mode().IsRegular() && (len(b) == 0 || strings.Contains(string(b), hookMark))
	return hookFile{text: string(b), ours: ours}, nil
}

// replace writes an executable beside its place and moves it there, so that git
// never runs half of one.
func replace(file, content string) error {
	if old, err := os.ReadFile(file); err == nil && string(old) == content {
		if info, err := os.Lstat(file); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o100 != 0 {
			return nil
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".shunt-hook-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // moved away, or rubbish
	_, err = tmp.WriteString(content)
	if err = errors.Join(err, tmp.Chmod(0o755), tmp.Close()); err == nil { // whoever pushes runs it
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}

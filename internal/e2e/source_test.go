package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sources makes a repository of Shunt's own sources as they are now, with one
// commit, and returns its directory. It works in a checkout with changes, in a
// shallow one and in an unpacked archive alike.
func sources(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	top, dir := strings.TrimSpace(string(out)), filepath.Join(t.TempDir(), "shunt")
	// What git would commit; without a repository, everything but what is hidden.
	list := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard")
	list.Dir = top
	names, err := list.Output()
	if err != nil {
		find := exec.CommandContext(t.Context(), "find", ".", "-type", "f", "-not", "-path", "./.git/*")
		find.Dir = top
		if names, err = find.Output(); err != nil {
			t.Fatal(err)
		}
	}
	for name := range strings.Lines(string(names)) {
		name = strings.TrimSpace(name)
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			continue // deleted and not committed yet
		}
		file := filepath.Join(dir, name)
		mode := os.FileMode(0o644)
		if strings.HasPrefix(string(text), "#!") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "--quiet", "--initial-branch=main"}, {"config", "user.name", "Ana Ruiz"}, {"config", "user.email", "ana@example.org"}, {"add", "--all"}, {"commit", "--quiet", "--message", "Shunt"}} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return dir
}

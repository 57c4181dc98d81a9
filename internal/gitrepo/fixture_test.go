package gitrepo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fixture is a remote with a small history, and the code under test beside it.
//
//	base --- dev1 --- dev2            develop
//	    \--- prod1                    master
//	              \--- fix1           hotfix/cart
type fixture struct {
	t      *testing.T
	dir    string
	remote string // path of the bare remote
	git    *Git
	repo   *Repo
	ids    map[string]string // by the names above
}

// realGit is the git that fixtures are made with, never the shim.
func realGit(tb testing.TB) string {
	tb.Helper()
	bin, err := exec.LookPath("git")
	if err != nil {
		tb.Fatal(err)
	}
	return bin
}

func newFixture(t *testing.T, edit ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), ids: map[string]string{}}
	f.remote = filepath.Join(f.dir, "remote.git")
	f.run(f.dir, nil, "init", "--quiet", "--bare", f.remote)
	files := map[string]string{"a.txt": "one\ntwo\nthree\n", "dir/b.txt": "b\n", ".shunt.yml": "version: 1\n"}
	f.ids["base"] = f.commit("refs/heads/develop", "", "base", files)
	f.setRef("refs/heads/master", f.ids["base"])
	f.ids["dev1"] = f.commit("refs/heads/develop", f.ids["base"], "dev one", map[string]string{"dev.txt": "d\n"})
	f.ids["dev2"] = f.commit("refs/heads/develop", f.ids["dev1"], "dev two", map[string]string{"a.txt": "one\nDEV\nthree\n"})
	f.ids["prod1"] = f.commit("refs/heads/master", f.ids["base"], "prod one", map[string]string{"prod.txt": "p\n"})
	f.ids["fix1"] = f.commit("refs/heads/hotfix/cart", f.ids["prod1"], "fix cart", map[string]string{"a.txt": "one\nFIX\nthree\n"})
	f.git = f.newGit(edit...)
	f.repo = f.git.Repo("petstore", f.remote, true)
	return f
}

func (f *fixture) newGit(edit ...func(*Config)) *Git {
	f.t.Helper()
	cfg := Config{Dir: filepath.Join(f.dir, "mirrors"), Home: filepath.Join(f.dir, "home"), Timeout: time.Minute}
	for _, e := range edit {
		e(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return g
}

// fetched is a fixture whose mirror is up to date.
func fetched(t *testing.T, edit ...func(*Config)) *fixture {
	t.Helper()
	f := newFixture(t, edit...)
	f.fetch()
	return f
}

func (f *fixture) fetch() map[string]string {
	f.t.Helper()
	refs, err := f.repo.Fetch(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return refs
}

// run runs the real git in dir and returns its trimmed output.
func (f *fixture) run(dir string, stdin []byte, args ...string) string {
	f.t.Helper()
	out, err := f.try(dir, stdin, args...)
	if err != nil {
		f.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return out
}

func (f *fixture) try(dir string, stdin []byte, args ...string) (string, error) {
	f.t.Helper()
	cmd := exec.CommandContext(context.Background(), realGit(f.t), args...)
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + f.dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LANG=C",
		"GIT_AUTHOR_NAME=Ann", "GIT_AUTHOR_EMAIL=ann@example.org", "GIT_COMMITTER_NAME=Ann", "GIT_COMMITTER_EMAIL=ann@example.org",
	}
	cmd.Stdin = strings.NewReader(string(stdin))
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// commit adds a commit to the remote; files with nil-like content "" are kept
// empty, "->x" makes a symbolic link to x, "@id" a submodule.
func (f *fixture) commit(ref, parent, message string, files map[string]string) string {
	f.t.Helper()
	var s strings.Builder
	fmt.Fprintf(&s, "feature done\ncommit %s\nmark :1\ncommitter Ann <ann@example.org> %d +0000\ndata %d\n%s\n",
		ref, 1700000000+len(f.ids)*60, len(message), message)
	if parent != "" {
		fmt.Fprintf(&s, "from %s\n", parent)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		mode, content := "100644", files[name]
		if target, ok := strings.CutPrefix(content, "->"); ok {
			mode, content = "120000", target
		}
		if id, ok := strings.CutPrefix(content, "@"); ok {
			fmt.Fprintf(&s, "M 160000 %s %s\n", id, name)
			continue
		}
		fmt.Fprintf(&s, "M %s inline %s\ndata %d\n%s\n", mode, name, len(content), content)
	}
	s.WriteString("get-mark :1\ndone\n")
	out := f.run(f.remote, []byte(s.String()), "fast-import", "--quiet", "--force")
	return out
}

func (f *fixture) setRef(ref, id string) {
	f.t.Helper()
	f.run(f.remote, nil, "update-ref", ref, id)
}

func (f *fixture) remoteRef(ref string) string {
	f.t.Helper()
	out, err := f.try(f.remote, nil, "rev-parse", "--verify", "--quiet", ref)
	if err != nil {
		return ""
	}
	return out
}

// hook installs a hook in the remote.
func (f *fixture) hook(name, body string) {
	f.t.Helper()
	write(f.t, filepath.Join(f.remote, "hooks", name), "#!/bin/sh\n"+body+"\n", 0o755)
}

func write(tb testing.TB, name, content string, mode os.FileMode) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		tb.Fatal(err)
	}
}

func read(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// shim is a git that writes its arguments down, one process a file.
type shim struct{ bin, log string }

func newShim(t *testing.T) shim {
	t.Helper()
	dir := t.TempDir()
	s := shim{bin: filepath.Join(dir, "git"), log: filepath.Join(dir, "log")}
	if err := os.Mkdir(s.log, 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, s.bin, fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$@\" '===' >> '%s/'$$\nexec '%s' \"$@\"\n", s.log, realGit(t)), 0o755)
	return s
}

// calls are the argument lists of all processes so far, in no order.
func (s shim) calls(t *testing.T) [][]string {
	t.Helper()
	entries, err := os.ReadDir(s.log)
	if err != nil {
		t.Fatal(err)
	}
	var calls [][]string
	for _, e := range entries {
		for call := range strings.SplitSeq(read(t, filepath.Join(s.log, e.Name())), "===\n") {
			if call != "" {
				calls = append(calls, strings.Split(strings.TrimSuffix(call, "\n"), "\n"))
			}
		}
	}
	return calls
}

// message is one that a release would use.
func message() Message {
	return Message{
		Subject: "Build 43", Body: "Made by Shunt.", Trailers: [][2]string{{"Shunt-Build", "43"}, {"Shunt-Commit", "abc"}},
		Name: "Shunt", Email: "shunt@example.org", At: time.Unix(1700000000, 5).UTC(),
	}
}

package gitrepo

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
)

// everything does with a branch of the remote what a delivery does.
func everything(t *testing.T, f *fixture, ref string) {
	t.Helper()
	r := f.repo
	refs := f.fetch()
	id := refs[ref]
	if id == "" {
		t.Errorf("%q was not fetched: %q", ref, refs)
		return
	}
	branch := strings.TrimPrefix(ref, heads)
	ctx := t.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%q: %s: %v", ref, what, err)
		}
	}
	_, err := r.RemoteRefs(ctx, ref)
	must("remote refs", err)
	got, err := r.Resolve(ctx, ref)
	must("resolve", err)
	if got != id {
		t.Errorf("%q resolves to %s", ref, got)
	}
	_, err = r.Log(ctx, []string{ref}, []string{"refs/heads/master"}, 10)
	must("log", err)
	_, err = r.PatchIDs(ctx, []string{ref}, []string{"refs/heads/master"})
	must("patch ids", err)
	_, err = r.DiffStat(ctx, "refs/heads/master", ref)
	must("diff stat", err)
	_, _, err = r.Diff(ctx, "refs/heads/master", ref, 1000)
	must("diff", err)
	_, err = r.ReadFile(ctx, ref, ".shunt.yml", 1000)
	must("read file", err)
	_, err = r.Forecast(ctx, ref, "refs/heads/master")
	must("forecast", err)
	_, err = r.MergeBase(ctx, ref, "refs/heads/master")
	must("merge base", err)
	tree, _, err := r.MergeTree(ctx, ref, "refs/heads/master")
	must("merge tree", err)
	merge, err := r.MergeCommit(ctx, tree, []string{id, refs["refs/heads/master"]}, message())
	must("merge commit", err)
	tag, err := r.MakeTag(ctx, "t/"+branch, id, message())
	must("tag", err)
	_, _, _, err = r.ReadTag(ctx, tag)
	must("read tag", err)
	must("push", r.Push(ctx, []RefUpdate{{Ref: ref, New: merge, Old: id}, {Ref: "refs/tags/t/" + branch, New: tag}}))
	dir := filepath.Join(t.TempDir(), "w")
	must("checkout", r.Checkout(ctx, CheckoutSpec{Dir: dir, Commit: merge, Branch: branch, Tags: map[string]string{"refs/tags/t/" + branch: tag}}))
	if head := strings.TrimSpace(read(t, filepath.Join(dir, ".git/HEAD"))); head != "ref: "+ref {
		t.Errorf("%q: HEAD is %q", ref, head)
	}
	if got := f.run(dir, nil, "-c", "core.warnAmbiguousRefs=false", "status", "--porcelain"); got != "" {
		t.Errorf("%q: %s", ref, got)
	}
}

func TestT01T02HostileBranchNames(t *testing.T) {
	t.Parallel()
	s := newShim(t)
	f := newFixture(t, func(c *Config) { c.Bin = s.bin })
	marker := filepath.Join(f.dir, "marker")
	var refs []string
	for _, name := range []string{
		"--upload-pack=touch${IFS}" + marker, "--output=" + marker, "-foo", "--end-of-options",
		"$(touch${IFS}" + marker + ")`touch${IFS}" + marker + "`;touch${IFS}" + marker + `|"'&`, "{{.Secret}}<script>%0a%0dümläut@",
		"HEAD", "refs/heads/develop",
	} {
		ref := heads + name
		f.setRef(ref, f.ids["dev2"])
		refs = append(refs, ref)
	}
	for _, ref := range refs {
		everything(t, f, ref)
	}
	if exists(marker) {
		t.Error("a branch name was run")
	}
	calls := s.calls(t)
	seen := map[string]bool{}
	for _, call := range calls {
		end := slices.Index(call, "--end-of-options")
		if end < 0 {
			end = len(call) - 1
		}
		for _, arg := range call[end+1:] {
			if strings.HasPrefix(arg, "-") {
				t.Errorf("an option behind the separator: %q", call)
			}
		}
		for _, arg := range call[:end] { // before it, a ref is only seen as part of a lease
			if strings.Contains(arg, marker) && !strings.HasPrefix(arg, "--force-with-lease=refs/") {
				t.Errorf("data among the options: %q", call)
			}
			seen[arg] = true
		}
	}
	for _, sub := range []string{"fetch", "ls-remote", "for-each-ref", "log", "patch-id", "diff-tree", "ls-tree", "cat-file", "merge-base", "merge-tree", "commit-tree", "mktag", "push", "read-tree"} {
		if !seen[sub] {
			t.Errorf("git %s was not tried", sub)
		}
	}
}

func TestOperandsThatLookLikeOptionsAreRefused(t *testing.T) {
	t.Parallel()
	s := newShim(t)
	f := newFixture(t, func(c *Config) { c.Bin = s.bin })
	for _, o := range []string{"-x", "--upload-pack=x", "a\x00b"} {
		if _, err := f.git.run(t.Context(), command{args: []string{"version"}, operands: []string{o}}); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%q: %v", o, err)
		}
	}
	if calls := s.calls(t); len(calls) > 0 {
		t.Error(calls)
	}
}

func TestT05SubmodulesAreNeverFetched(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	marker := filepath.Join(f.dir, "marker")
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(srv.Close)

	// A submodule like any other: its place stays empty.
	good := f.commit("refs/heads/develop", f.ids["dev2"], "sub", map[string]string{
		".gitmodules": "[submodule \"s\"]\n\tpath = s\n\turl = " + srv.URL + "/s.git\n\tupdate = checkout\n", "s": "@" + f.ids["base"],
	})
	f.fetch()
	dir := filepath.Join(f.dir, "w")
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: dir, Commit: good, Branch: "develop"}); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "s")); err != nil || len(entries) > 0 {
		t.Error(entries, err)
	}
	if asked.Load() > 0 {
		t.Error("the submodule's server was asked")
	}

	// CVE-2018-17456, CVE-2018-11235, CVE-2025-48384 and a helper URL: the
	// objects do not even come in, or do nothing.
	for name, modules := range map[string]string{
		"dash url":   "[submodule \"s\"]\n\tpath = s\n\turl = -u./p\n",
		"dash path":  "[submodule \"s\"]\n\tpath = -s\n\turl = https://h/x\n",
		"up name":    "[submodule \"../../x\"]\n\tpath = s\n\turl = https://h/x\n",
		"cr path":    "[submodule \"s\"]\n\tpath = \"s\r\"\n\turl = https://h/x\n",
		"helper url": "[submodule \"s\"]\n\tpath = s\n\turl = ext::touch% " + marker + "\n\tupdate = !touch " + marker + "\n",
	} {
		evil := f.commit("refs/heads/evil", f.ids["base"], name, map[string]string{
			".gitmodules": modules, "s": "@" + f.ids["base"], "p": "#!/bin/sh\ntouch " + marker + "\n", "x/hooks/post-checkout": "#!/bin/sh\ntouch " + marker + "\n",
		})
		_, err := f.repo.Fetch(t.Context())
		switch {
		case delivery.IsKind(err, delivery.KindInvalid):
			t.Logf("%s: %v", name, err)
		case err != nil:
			t.Errorf("%s: %v", name, err)
		default:
			if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: filepath.Join(t.TempDir(), "w"), Commit: evil}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.run(f.remote, nil, "update-ref", "-d", "refs/heads/evil")
	}
	if f.fetch(); exists(marker) {
		t.Error("a submodule ran something")
	}
}

func TestT06BareRepositoryInTheTree(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	marker := filepath.Join(f.dir, "marker")
	config := "[core]\n\tbare = true\n\trepositoryformatversion = 0\n\tfsmonitor = touch " + marker + "\n\thooksPath = hooks\n[diff \"x\"]\n\tcommand = touch " + marker + "\n\ttextconv = touch " + marker + "\n[filter \"x\"]\n\tsmudge = touch " + marker + "\n"
	id := f.commit("refs/heads/develop", f.ids["dev2"], "bare", map[string]string{
		"sub/HEAD": "ref: refs/heads/x\n", "sub/config": config, "sub/objects/x": "", "sub/refs/x": "", "sub/hooks/post-checkout": "#!/bin/sh\ntouch " + marker + "\n",
		".gitattributes": "* diff=x filter=x merge=x\n", ".gitconfig": config,
	})
	f.fetch()
	everything(t, f, "refs/heads/develop")
	if _, _, err := f.repo.Diff(t.Context(), "", id, 1<<20); err != nil {
		t.Error(err)
	}
	dir := filepath.Join(f.dir, "w")
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: dir, Commit: id}); err != nil {
		t.Fatal(err)
	}
	// Standing in the content, Shunt's options find no repository to obey.
	inside := f.git.Repo("petstore", f.remote, true)
	inside.git = &Git{dir: filepath.Join(dir, "sub"), bin: f.git.bin, env: f.git.env, log: f.git.log, timeout: f.git.timeout}
	if _, err := inside.git.run(t.Context(), command{args: []string{"status"}}); err == nil {
		t.Error("git took the bare repository in the tree")
	}
	if exists(marker) {
		t.Error("configuration of the tree was obeyed")
	}
}

func TestT07LFSIsSkipped(t *testing.T) {
	t.Parallel()
	s := newShim(t)
	f := newFixture(t, func(c *Config) { c.Bin = s.bin })
	marker := filepath.Join(f.dir, "marker")
	// A git-lfs that would tell on us, where git looks for it.
	write(t, filepath.Join(filepath.Dir(s.bin), "git-lfs"), "#!/bin/sh\ntouch '"+marker+"'\n", 0o755)
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(srv.Close)
	pointer := "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("1", 64) + "\nsize 3\n"
	id := f.commit("refs/heads/develop", f.ids["dev2"], "lfs", map[string]string{
		".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", ".lfsconfig": "[lfs]\n\turl = " + srv.URL + "\n", "x.bin": pointer,
	})
	f.fetch()
	// Even a machine whose own configuration has LFS.
	write(t, filepath.Join(f.dir, "home/.gitconfig"), "[filter \"lfs\"]\n\tsmudge = touch "+marker+"\n\tprocess = touch "+marker+"\n\trequired = true\n", 0o600)
	dir := filepath.Join(f.dir, "w")
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: dir, Commit: id, Branch: "develop"}); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(dir, "x.bin")); got != pointer {
		t.Error(got)
	}
	if exists(marker) || asked.Load() > 0 {
		t.Error("LFS ran")
	}
}

func TestT18MovedTagIsSeenAndTheCommitStays(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	tag, err := f.repo.MakeTag(t.Context(), "build/1", f.ids["dev1"], message())
	if err != nil {
		t.Fatal(err)
	}
	if err = f.repo.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/build/1", New: tag}}); err != nil {
		t.Fatal(err)
	}
	f.setRef("refs/tags/build/1", f.ids["fix1"]) // by force
	f.setRef("refs/heads/develop", f.ids["base"])
	if refs := f.fetch(); refs["refs/tags/build/1"] != f.ids["fix1"] {
		t.Error(refs)
	}
	f.run(f.remote, nil, "update-ref", "-d", "refs/tags/build/1")
	if refs := f.fetch(); refs["refs/tags/build/1"] != "" {
		t.Error(refs)
	}
	// What was recorded is deployed, although no ref leads there any more.
	dir := filepath.Join(f.dir, "w")
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: dir, Commit: f.ids["dev1"], Tags: map[string]string{"refs/tags/build/1": tag}}); err != nil {
		t.Fatal(err)
	}
	if got := f.run(dir, nil, "describe"); got != "build/1" {
		t.Error(got)
	}
}

func TestEnvironmentOfGit(t *testing.T) {
	t.Setenv("GIT_DIR", "/nonexistent")
	t.Setenv("GIT_SSH_COMMAND", "touch /nonexistent")
	t.Setenv("SHUNT_SECRET", "canary")
	t.Setenv("GIT_CONFIG_COUNT", "1")
	env := filepath.Join(t.TempDir(), "env")
	fake := filepath.Join(t.TempDir(), "git")
	write(t, fake, "#!/bin/sh\nenv >> '"+env+"'\nexec '"+realGit(t)+"' \"$@\"\n", 0o755)
	f := fetched(t, func(c *Config) { c.Bin = fake })
	f.fetch()
	got := read(t, env)
	for _, bad := range []string{"canary", "GIT_DIR=", "touch", "GIT_CONFIG_COUNT"} {
		if strings.Contains(got, bad) {
			t.Errorf("git sees %s", bad)
		}
	}
	for _, want := range []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=file", "-oBatchMode=yes", "HOME=" + f.dir + "/home"} {
		if !strings.Contains(got, want) {
			t.Errorf("git does not see %s:\n%s", want, got)
		}
	}
}

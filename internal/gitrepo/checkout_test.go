package gitrepo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

func TestCheckout(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run(f.remote, nil, "tag", "-a", "-m", "x", "build/1", f.ids["dev1"])
	refs := f.fetch()
	dir := filepath.Join(f.dir, "work space", `"quoted"`)
	err := f.repo.Checkout(t.Context(), CheckoutSpec{
		Dir: dir, Commit: f.ids["dev2"], Branch: "develop",
		Tags: map[string]string{"refs/tags/build/1": refs["refs/tags/build/1"], "refs/tags/a": f.ids["base"]},
	})
	if err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"":                                {"status", "--porcelain"},
		f.ids["dev2"]:                     {"rev-parse", "HEAD"},
		"develop":                         {"symbolic-ref", "--short", "HEAD"},
		"build/1-1-g" + f.ids["dev2"][:7]: {"describe", "--abbrev=7"},
		"a\nbuild/1":                      {"tag", "--list"},
		f.remote:                          {"remote", "get-url", "origin"},
		"* develop":                       {"branch", "--list"},
	} {
		if got := f.run(dir, nil, args...); got != want {
			t.Errorf("git %s: %q, want %q", args, got, want)
		}
	}
	if got := read(t, filepath.Join(dir, "a.txt")); got != "one\nDEV\nthree\n" {
		t.Error(got)
	}
	f.run(dir, nil, "fsck", "--strict")
	// A build may commit; the mirror does not see it.
	write(t, filepath.Join(dir, "new"), "x", 0o600)
	f.run(dir, nil, "add", "new")
	f.run(dir, nil, "commit", "--quiet", "-m", "new")

	detached := filepath.Join(f.dir, "detached")
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: detached, Commit: f.ids["fix1"]}); err != nil {
		t.Fatal(err)
	}
	if got, err := f.try(detached, nil, "symbolic-ref", "HEAD"); err == nil {
		t.Error(got)
	}
	if got := f.run(detached, nil, "status", "--porcelain"); got != "" {
		t.Error(got)
	}
}

func TestAWholeCheckoutCanBeMoved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run(f.remote, nil, "tag", "-a", "-m", "x", "build/1", f.ids["dev1"])
	refs := f.fetch()
	dir := filepath.Join(f.dir, "whole")
	tag := refs["refs/tags/build/1"]
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: dir, Commit: f.ids["dev2"], Branch: "develop", Tags: map[string]string{"refs/tags/build/1": tag}, Whole: true}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(f.dir, "mirrors")); err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(f.dir, "moved")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	f.run(moved, nil, "fsck", "--strict")
	if got := f.run(moved, nil, "status", "--porcelain"); got != "" {
		t.Error(got)
	}
	if got, want := f.run(moved, nil, "describe", "--abbrev=7"), "build/1-1-g"+f.ids["dev2"][:7]; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestASharedRepositoryFetchesWhatItLacks(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fetch()
	other, err := New(Config{Dir: filepath.Join(f.dir, "others"), Home: filepath.Join(f.dir, "home"), Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	repo := other.Repo("shop", f.remote, true)
	if err := repo.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if is, err := repo.IsAncestor(t.Context(), f.ids["base"], f.ids["dev2"]); err != nil || !is {
		t.Fatal(is, err)
	}
	if _, err := repo.Resolve(t.Context(), strings.Repeat("1", 40)); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Fatal(err)
	}
}

func TestCheckoutRefuses(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	full := filepath.Join(f.dir, "full")
	write(t, filepath.Join(full, "x"), "", 0o600)
	fresh := func() string { return filepath.Join(t.TempDir(), "w") }
	for name, c := range map[string]struct {
		spec CheckoutSpec
		kind delivery.Kind
	}{
		"not empty":  {CheckoutSpec{Dir: full, Commit: f.ids["base"]}, delivery.KindConflict},
		"relative":   {CheckoutSpec{Dir: "w", Commit: f.ids["base"]}, delivery.KindInvalid},
		"commit":     {CheckoutSpec{Dir: fresh(), Commit: "HEAD"}, delivery.KindInvalid},
		"no commit":  {CheckoutSpec{Dir: fresh(), Commit: strings.Repeat("1", 40)}, delivery.KindNotFound},
		"branch":     {CheckoutSpec{Dir: fresh(), Commit: f.ids["base"], Branch: "a\n[core]"}, delivery.KindInvalid},
		"tag ref":    {CheckoutSpec{Dir: fresh(), Commit: f.ids["base"], Tags: map[string]string{"refs/heads/x": f.ids["base"]}}, delivery.KindInvalid},
		"tag name":   {CheckoutSpec{Dir: fresh(), Commit: f.ids["base"], Tags: map[string]string{"refs/tags/../x": f.ids["base"]}}, delivery.KindInvalid},
		"tag object": {CheckoutSpec{Dir: fresh(), Commit: f.ids["base"], Tags: map[string]string{"refs/tags/x": "y"}}, delivery.KindInvalid},
	} {
		if err := f.repo.Checkout(t.Context(), c.spec); !delivery.IsKind(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestT08HooksOfABuildDoNotComeBack(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	marker := filepath.Join(f.dir, "marker")
	evil := "#!/bin/sh\ntouch '" + marker + "'\n"
	one := filepath.Join(f.dir, "one")
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: one, Commit: f.ids["dev2"]}); err != nil {
		t.Fatal(err)
	}
	for _, hook := range []string{"post-checkout", "post-index-change", "reference-transaction"} {
		write(t, filepath.Join(one, ".git/hooks", hook), evil, 0o755)
	}
	// The build cannot reach the HOME of Shunt's git; if it does, that is not read.
	write(t, filepath.Join(f.dir, "home/.gitconfig"), "[core]\n\thooksPath = "+filepath.Join(one, ".git/hooks")+"\n\tfsmonitor = touch "+marker+"\n", 0o600)
	two := filepath.Join(f.dir, "two")
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: two, Commit: f.ids["fix1"], Branch: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: one, Commit: f.ids["fix1"]}); !delivery.IsKind(err, delivery.KindConflict) {
		t.Errorf("a used work tree was taken again: %v", err)
	}
	f.fetch()
	if exists(marker) || exists(filepath.Join(two, ".git/hooks")) {
		t.Error("a hook came back")
	}
}

// BenchmarkCheckout stands beside the price of a process that does nothing.
func BenchmarkCheckout(b *testing.B) {
	b.Run("fork+exec", func(b *testing.B) {
		for b.Loop() {
			if err := exec.CommandContext(b.Context(), "/bin/true").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("git version", func(b *testing.B) {
		for b.Loop() {
			if err := exec.CommandContext(b.Context(), realGit(b), "version").Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	// A fixture wants a *testing.T; the benchmark makes its own small remote.
	dir := b.TempDir()
	f := benchFixture(b, dir)
	n := 0
	for name, act := range map[string]func() error{
		"checkout": func() error {
			n++
			return f.repo.Checkout(b.Context(), CheckoutSpec{Dir: filepath.Join(dir, "w", strconv.Itoa(n)), Commit: f.ids["tip"], Branch: "develop"})
		},
		"fetch nothing": func() error {
			_, err := f.repo.Fetch(b.Context())
			return err
		},
		"remote refs": func() error {
			_, err := f.repo.RemoteRefs(b.Context())
			return err
		},
		"push tag": func() error {
			n++
			return f.repo.Push(b.Context(), []RefUpdate{{Ref: "refs/tags/build/" + strconv.Itoa(n), New: f.ids["tip"]}})
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := act(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchFixture(b *testing.B, dir string) *fixture {
	b.Helper()
	remote := filepath.Join(dir, "remote.git")
	script := "feature done\ncommit refs/heads/develop\ncommitter A <a@b> 1700000000 +0000\ndata 1\nx\n"
	for i := range 30 {
		script += "M 100644 inline dir" + strconv.Itoa(i%5) + "/f" + strconv.Itoa(i) + "\ndata 2\nx\n\n"
	}
	for _, c := range []struct {
		stdin string
		args  []string
	}{{"", []string{"init", "-q", "--bare", remote}}, {script + "done\n", []string{"--git-dir=" + remote, "fast-import", "--quiet"}}} {
		cmd := exec.CommandContext(b.Context(), realGit(b), c.args...)
		cmd.Stdin = strings.NewReader(c.stdin)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	g, err := New(Config{Dir: filepath.Join(dir, "mirrors"), Home: filepath.Join(dir, "home"), Timeout: time.Minute})
	if err != nil {
		b.Fatal(err)
	}
	f := &fixture{repo: g.Repo("bench", remote, true), ids: map[string]string{}}
	refs, err := f.repo.Fetch(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	f.ids["tip"] = refs["refs/heads/develop"]
	return f
}

package gitrepo

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/delivery"
)

func TestFetchMirrorsTheRemote(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.setRef("refs/tags/production", f.ids["base"])
	f.run(f.remote, nil, "tag", "-a", "-m", "x", "build/1", f.ids["dev1"])
	f.setRef("refs/other/x", f.ids["dev1"])
	want := map[string]string{
		"refs/heads/develop": f.ids["dev2"], "refs/heads/master": f.ids["prod1"], "refs/heads/hotfix/cart": f.ids["fix1"],
		"refs/tags/production": f.ids["base"], "refs/tags/build/1": f.remoteRef("refs/tags/build/1"),
	}
	if diff := cmp.Diff(want, f.fetch()); diff != "" {
		t.Error(diff)
	}

	// A rewritten branch, a deleted one, and a tag that becomes a directory.
	f.setRef("refs/heads/develop", f.ids["fix1"])
	f.run(f.remote, nil, "update-ref", "-d", "refs/heads/hotfix/cart")
	f.run(f.remote, nil, "update-ref", "-d", "refs/tags/production")
	f.setRef("refs/tags/production/1", f.ids["base"])
	want = map[string]string{
		"refs/heads/develop": f.ids["fix1"], "refs/heads/master": f.ids["prod1"],
		"refs/tags/production/1": f.ids["base"], "refs/tags/build/1": want["refs/tags/build/1"],
	}
	if diff := cmp.Diff(want, f.fetch()); diff != "" {
		t.Error(diff)
	}
	if err := f.repo.Maintain(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, f.fetch()); diff != "" {
		t.Error(diff)
	}
	// What no ref reaches any more is still there: builds borrow it.
	if _, err := f.repo.Commit(t.Context(), f.ids["dev2"]); err != nil {
		t.Error(err)
	}
}

func TestFetchOfAnEmptyRemote(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	empty := filepath.Join(f.dir, "empty.git")
	f.run(f.dir, nil, "init", "--quiet", "--bare", empty)
	refs, err := f.git.Repo("empty", empty, true).Fetch(t.Context())
	if err != nil || len(refs) != 0 {
		t.Errorf("refs %v, error %v", refs, err)
	}
}

func TestFetchOfASHA256Remote(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.remote = filepath.Join(f.dir, "new.git")
	f.run(f.dir, nil, "init", "--quiet", "--bare", "--object-format=sha256", f.remote)
	id := f.commit("refs/heads/master", "", "x", map[string]string{"f": "x\n"})
	r := f.git.Repo("new", f.remote, true)
	if refs, err := r.RemoteRefs(t.Context()); err != nil || refs["refs/heads/master"] != id {
		t.Fatalf("refs %v, error %v", refs, err)
	}
	if refs, err := r.Fetch(t.Context()); err != nil || refs["refs/heads/master"] != id || len(id) != 64 {
		t.Fatalf("refs %v, error %v", refs, err)
	}
	if b, err := r.ReadFile(t.Context(), id, "f", 10); err != nil || string(b) != "x\n" {
		t.Errorf("%q, %v", b, err)
	}
	if changes, err := r.DiffStat(t.Context(), "", id); err != nil || len(changes) != 1 {
		t.Errorf("%v, %v", changes, err)
	}
	dir := filepath.Join(f.dir, "w")
	if err := r.Checkout(t.Context(), CheckoutSpec{Dir: dir, Commit: id, Branch: "master"}); err != nil {
		t.Fatal(err)
	}
	if got := f.run(dir, nil, "status", "--porcelain"); got != "" {
		t.Error(got)
	}
}

func TestFetchAtTheSameTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			r := f.git.Repo("petstore", f.remote, true) // a Repo of its own, the same mirror
			if refs, err := r.Fetch(t.Context()); err != nil || len(refs) != 3 {
				t.Errorf("refs %v, error %v", refs, err)
			}
		})
	}
	wg.Wait()
}

func TestMirrorLockGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	done, err := f.repo.lock.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.repo.Fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	done()
	f.fetch()
}

func TestLockFilesOfAKilledServerAreRemoved(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	write(t, filepath.Join(f.repo.mirror, "refs/heads/develop.lock"), "", 0o600)
	write(t, filepath.Join(f.repo.mirror, "packed-refs.lock"), "", 0o600)
	f.setRef("refs/heads/develop", f.ids["dev1"])
	f.repo = f.newGit().Repo("petstore", f.remote, true) // the server started again
	if refs := f.fetch(); refs["refs/heads/develop"] != f.ids["dev1"] {
		t.Error(refs)
	}
}

func TestFetchFromARemoteThatIsAway(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	away := f.remote + ".away"
	if err := os.Rename(f.remote, away); err != nil {
		t.Fatal(err)
	}
	_, err := f.repo.Fetch(t.Context())
	if !delivery.IsKind(err, delivery.KindUnavailable) {
		t.Errorf("error %v", err)
	}
	if _, err = f.repo.RemoteRefs(t.Context()); !delivery.IsKind(err, delivery.KindUnavailable) {
		t.Errorf("error %v", err)
	}
	if err = os.Rename(away, f.remote); err != nil {
		t.Fatal(err)
	}
	f.fetch()
}

func TestFetchTimesOutAndRecovers(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	// An upload-pack that never answers, with a child that ignores SIGTERM.
	stuck := f.newGit(func(c *Config) {
		c.Timeout = 200 * time.Millisecond
		c.SSHCommand = "trap '' TERM; sleep 600 #"
	}).Repo("petstore", "ssh://git@localhost/x", false)
	_, err := stuck.Fetch(t.Context())
	if !delivery.IsKind(err, delivery.KindUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	f.fetch()
}

func TestRemoteRefs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run(f.remote, nil, "tag", "-a", "-m", "x", "build/1", f.ids["dev1"])
	f.setRef("refs/tags/build/10", f.ids["base"])
	f.setRef("refs/heads/refs/tags/build/1", f.ids["fix1"]) // ends like the tag
	tag := f.remoteRef("refs/tags/build/1")
	for _, c := range []struct {
		patterns []string
		want     map[string]string
	}{
		{[]string{"refs/tags/build/1"}, map[string]string{"refs/tags/build/1": tag, "refs/tags/build/1^{}": f.ids["dev1"]}},
		{[]string{"refs/tags/build/*"}, map[string]string{"refs/tags/build/1": tag, "refs/tags/build/1^{}": f.ids["dev1"], "refs/tags/build/10": f.ids["base"]}},
		{[]string{"refs/heads/master", "refs/tags/none"}, map[string]string{"refs/heads/master": f.ids["prod1"]}},
	} {
		got, err := f.repo.RemoteRefs(t.Context(), c.patterns...)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: %s", c.patterns, diff)
		}
	}
	if all, err := f.repo.RemoteRefs(t.Context()); err != nil || len(all) != 7 {
		t.Errorf("%v, %v", all, err)
	}
	for _, bad := range []string{"develop", "-x", "refs/he[a]ds/x", "refs/heads/../x", ""} {
		if _, err := f.repo.RemoteRefs(t.Context(), bad); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestBlockedBy(t *testing.T) {
	t.Parallel()
	refs := map[string]string{"refs/tags/production": "x", "refs/tags/build/42/x": "x", "refs/tags/build/42/x^{}": "x"}
	for ref, want := range map[string]string{
		"refs/tags/production/1": "refs/tags/production",
		"refs/tags/build/42":     "refs/tags/build/42/x",
		"refs/tags/build/4":      "",
		"refs/tags/production":   "",
	} {
		if got := BlockedBy(refs, ref); got != want {
			t.Errorf("%s: %q, want %q", ref, got, want)
		}
	}
}

func TestBadProjectName(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, name := range []string{"", "../x", "a/b", "-x", "A", strings.Repeat("a", 64)} {
		if err := f.git.Repo(name, f.remote, true).Ensure(t.Context()); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	t.Parallel()
	for v, ok := range map[string]bool{
		"2.39.5": true, "2.39.4": true, "2.39.3": false, "2.38.9": false, "1.9.0": false, "2.43.0": true, "2.45.0": false,
		"2.45.1": true, "2.50.1.windows.1": true, "2.51.0-rc1": true, "3.0.0": true, "2.40.1": false, "": false, "x": false,
	} {
		if err := CheckVersion(v); (err == nil) != ok {
			t.Errorf("%s: %v", v, err)
		}
	}
	v, err := Version(t.Context(), "")
	if err != nil || CheckVersion(v) != nil {
		t.Errorf("%s: %v, %v", v, err, CheckVersion(v))
	}
	old := filepath.Join(t.TempDir(), "git")
	write(t, old, "#!/bin/sh\necho git version 2.39.3\n", 0o755)
	if v, err = Version(t.Context(), old); err != nil || CheckVersion(v) == nil {
		t.Errorf("%s: %v", v, err)
	}
	if _, err = Version(t.Context(), "/nonexistent/git"); !delivery.IsKind(err, delivery.KindUnavailable) {
		t.Error(err)
	}
}

// A power loss may leave names without objects: such a mirror is thrown away, and
// a work tree of a commit that it lost is made after a fetch.
func TestADamagedMirrorIsFetchedAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if whole, err := f.repo.Verify(t.Context()); err != nil || !whole {
		t.Fatalf("no mirror: %v, %v", whole, err)
	}
	commit := f.fetch()["refs/heads/develop"]
	if whole, err := f.repo.Verify(t.Context()); err != nil || !whole {
		t.Fatalf("a whole mirror: %v, %v", whole, err)
	}
	for _, damage := range []func(file string) error{os.Remove, func(file string) error { return os.Truncate(file, 0) }} {
		objects, err := filepath.Glob(filepath.Join(f.repo.mirror, "objects", "*", "*"))
		if err != nil || len(objects) == 0 {
			t.Fatalf("no objects: %v", err)
		}
		for _, o := range objects {
			if err := os.Chmod(o, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := damage(o); err != nil {
				t.Fatal(err)
			}
		}
		if whole, err := f.repo.Verify(t.Context()); err != nil || whole {
			t.Fatalf("a damaged mirror: %v, %v", whole, err)
		}
		if err := f.repo.Checkout(t.Context(), CheckoutSpec{Dir: filepath.Join(t.TempDir(), "src"), Commit: commit}); err != nil {
			t.Fatal(err)
		}
	}
}

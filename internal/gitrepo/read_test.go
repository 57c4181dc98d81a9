package gitrepo

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/delivery"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.run(f.remote, nil, "tag", "-a", "-m", "x", "build/1", f.ids["dev1"])
	f.run(f.remote, nil, "tag", "-a", "-m", "x", "outer", "build/1")
	f.setRef("refs/heads/refs/heads/gone", f.ids["dev2"]) // git's own guess for refs/heads/gone
	f.setRef("refs/heads/"+f.ids["base"][:10], f.ids["dev2"])
	f.fetch()
	for rev, want := range map[string]string{
		"refs/heads/develop": "dev2", "refs/tags/build/1": "dev1", "refs/tags/outer": "dev1",
		f.ids["base"]: "base", f.remoteRef("refs/tags/outer"): "dev1",
	} {
		if got, err := f.repo.Resolve(t.Context(), rev); err != nil || got != f.ids[want] {
			t.Errorf("%s: %s, %v; want %s", rev, got, err, want)
		}
	}
	for _, rev := range []string{"refs/heads/gone", "refs/heads/hotfix", "refs/heads/refs", strings.Repeat("1", 40)} {
		if _, err := f.repo.Resolve(t.Context(), rev); !delivery.IsKind(err, delivery.KindNotFound) {
			t.Errorf("%s: %v", rev, err)
		}
	}
	for _, rev := range []string{"develop", "HEAD", "", "-x", "--all", "refs/heads/develop~1", "refs/heads/*", "refs/heads/x@{1}", f.ids["base"][:10], "refs/heads/x\ny", "refs/heads/.x", "refs/heads/a.lock", "refs/heads/a//b"} {
		if _, err := f.repo.Resolve(t.Context(), rev); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%q: %v", rev, err)
		}
	}
	if tree := f.remoteRef("refs/heads/develop^{tree}"); tree != "" {
		if _, err := f.repo.Resolve(t.Context(), tree); !delivery.IsKind(err, delivery.KindNotFound) {
			t.Errorf("a tree: %v", err)
		}
	}
}

func TestCommitAndLog(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	c, err := f.repo.Commit(t.Context(), f.ids["fix1"])
	if err != nil {
		t.Fatal(err)
	}
	want := delivery.Commit{
		ID: f.ids["fix1"], Tree: f.remoteRef(f.ids["fix1"] + "^{tree}"), Parents: []string{f.ids["prod1"]},
		AuthorName: "Ann", AuthorEmail: "ann@example.org", AuthoredAt: time.Unix(1700000240, 0).UTC(), Subject: "fix cart",
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		include, exclude []string
		limit            int
		want             string
	}{
		{[]string{f.ids["dev2"]}, nil, 0, "dev two, dev one, base"},
		{[]string{"refs/heads/hotfix/cart"}, []string{"refs/heads/master"}, 0, "fix cart"},
		{[]string{f.ids["dev2"]}, []string{f.ids["fix1"]}, 1, "dev two"},
		{[]string{f.ids["base"]}, []string{f.ids["fix1"], f.ids["dev1"]}, 0, ""},
		{[]string{f.ids["prod1"], f.ids["fix1"]}, []string{f.ids["base"]}, 9, "fix cart, prod one"},
		{nil, []string{f.ids["fix1"]}, 0, ""},
	} {
		commits, err := f.repo.Log(t.Context(), c.include, c.exclude, c.limit)
		var subjects []string
		for _, c := range commits {
			subjects = append(subjects, c.Subject)
		}
		if got := strings.Join(subjects, ", "); err != nil || got != c.want {
			t.Errorf("%s, %v; want %s", got, err, c.want)
		}
	}
	none := strings.Repeat("1", 40)
	if _, err = f.repo.Commit(t.Context(), none); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
	if _, err = f.repo.Commit(t.Context(), "HEAD"); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Error(err)
	}
	if _, err = f.repo.Log(t.Context(), []string{none}, nil, 0); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
}

func TestHostileCommit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	raw := "tree " + f.remoteRef(f.ids["base"]+"^{tree}") + "\n" +
		"author \xff\x1b[31m\x01evil\xfe <\xffx@y> 99999999999999999999 +0000\n" +
		"committer <> 1700000000 +0000\n\n" +
		"sub\xffject\x1b]0;x\x07 \x1e\x1f\nsecond line\n\ncommit " + f.ids["dev1"] + "\n"
	id := f.run(f.remote, []byte(raw), "hash-object", "-t", "commit", "-w", "--stdin", "--literally")
	f.setRef("refs/heads/evil", id)
	// Such a commit is refused by the checks of a fetch; the mirror may have it
	// from elsewhere.
	if _, err := f.repo.Fetch(t.Context()); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Errorf("fetched: %v", err)
	}
	f.run(f.remote, nil, "update-ref", "-d", "refs/heads/evil")
	f.fetch()
	if got := f.run(f.repo.mirror, []byte(raw), "hash-object", "-t", "commit", "-w", "--stdin", "--literally"); got != id {
		t.Fatal(got)
	}
	commits, err := f.repo.Log(t.Context(), []string{id, f.ids["dev1"]}, []string{f.ids["base"]}, 0)
	if err != nil || len(commits) != 2 {
		t.Fatalf("%d commits, %v", len(commits), err)
	}
	c, err := f.repo.Commit(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{c.Subject, c.AuthorName, c.AuthorEmail} {
		if !utf8.ValidString(s) {
			t.Errorf("%q is not UTF-8", s)
		}
	}
	if !c.AuthoredAt.IsZero() || !strings.Contains(c.Subject, "ject") || !strings.Contains(c.AuthorName, "evil") {
		t.Errorf("%+v", c)
	}
}

func TestAncestors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.ids["alien"] = f.commit("refs/heads/alien", "", "alien", map[string]string{"x": "x\n"})
	f.fetch()
	for _, c := range []struct {
		a, b, base string
		ancestor   bool
	}{
		{"base", "dev2", "base", true},
		{"dev2", "base", "base", false},
		{"dev2", "dev2", "dev2", true},
		{"fix1", "dev2", "base", false},
		{"alien", "dev2", "", false},
	} {
		is, err := f.repo.IsAncestor(t.Context(), f.ids[c.a], f.ids[c.b])
		if err != nil || is != c.ancestor {
			t.Errorf("%v: %t, %v", c, is, err)
		}
		base, err := f.repo.MergeBase(t.Context(), f.ids[c.a], f.ids[c.b])
		if err != nil || base != f.ids[c.base] {
			t.Errorf("%v: %s, %v", c, base, err)
		}
	}
	none := strings.Repeat("1", 40)
	_, err := f.repo.IsAncestor(t.Context(), none, f.ids["base"])
	_, err2 := f.repo.MergeBase(t.Context(), f.ids["base"], none)
	if !delivery.IsKind(err, delivery.KindNotFound) || !delivery.IsKind(err2, delivery.KindNotFound) {
		t.Error(err, err2)
	}
}

func TestPatchIDs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	// The fix again on develop, under another message that looks like a patch.
	msg := "picked\n\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+x\ncommit " + f.ids["base"]
	picked := f.commit("refs/heads/picked", f.ids["dev1"], msg, map[string]string{"a.txt": "one\nFIX\nthree\n"})
	bin1 := f.commit("refs/heads/bin1", f.ids["base"], "binary", map[string]string{"bin": "\x00one"})
	bin2 := f.commit("refs/heads/bin2", f.ids["base"], "binary", map[string]string{"bin": "\x00two"})
	bin3 := f.commit("refs/heads/bin3", f.ids["dev1"], "binary again", map[string]string{"bin": "\x00one"})
	f.fetch()
	ids, err := f.repo.PatchIDs(t.Context(), []string{picked, f.ids["fix1"], bin1, bin2, bin3}, []string{f.ids["base"]})
	if err != nil {
		t.Fatal(err)
	}
	if len(ids) != 7 || ids[picked] == "" || ids[picked] != ids[f.ids["fix1"]] || ids[picked] == ids[f.ids["prod1"]] {
		t.Errorf("%v", ids)
	}
	if ids[bin1] == ids[bin2] || ids[bin1] != ids[bin3] || ids[bin1] == "" {
		t.Errorf("binary: %q %q %q", ids[bin1], ids[bin2], ids[bin3])
	}
	if ids, err = f.repo.PatchIDs(t.Context(), nil, nil); err != nil || len(ids) != 0 {
		t.Error(ids, err)
	}
	if _, err = f.repo.PatchIDs(t.Context(), []string{strings.Repeat("1", 40)}, nil); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.commit("refs/heads/x", f.ids["base"], "x", map[string]string{"a.txt": "one\nTWO\nthree\nfour\n", "bin": "\x00\x01", "ümlaut": "\xff\n"})
	f.fetch()
	changes, err := f.repo.DiffStat(t.Context(), f.ids["base"], id)
	want := []delivery.FileChange{{Path: "a.txt", Added: 2, Deleted: 1}, {Path: "bin", Added: -1, Deleted: -1}, {Path: "ümlaut", Added: 1}}
	if err != nil || !cmp.Equal(want, changes) {
		t.Error(cmp.Diff(want, changes), err)
	}
	if changes, err = f.repo.DiffStat(t.Context(), "", "refs/heads/x"); err != nil || len(changes) != 5 {
		t.Error(changes, err)
	}
	whole, truncated, err := f.repo.Diff(t.Context(), f.ids["base"], id, 1<<20)
	if err != nil || truncated || !strings.Contains(whole, "+TWO\n") || !utf8.ValidString(whole) {
		t.Error(whole, truncated, err)
	}
	part, truncated, err := f.repo.Diff(t.Context(), f.ids["base"], id, 100)
	if err != nil || !truncated || part == "" || !strings.HasPrefix(whole, part) || !strings.HasSuffix(part, "\n") {
		t.Errorf("%q %t %v", part, truncated, err)
	}
	if part, truncated, err = f.repo.Diff(t.Context(), f.ids["base"], id, 0); part != "" || !truncated || err != nil {
		t.Error(part, truncated, err)
	}
	if same, truncated, err := f.repo.Diff(t.Context(), id, id, 10); same != "" || truncated || err != nil {
		t.Error(same, truncated, err)
	}
	if _, err = f.repo.DiffStat(t.Context(), strings.Repeat("1", 40), id); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
}

func TestT09ReadFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.commit("refs/heads/x", f.ids["base"], "x", map[string]string{
		"link": "->/etc/passwd", "up": "->../secret", "dirlink": "->dir", "sub": "@" + f.ids["base"], "big": strings.Repeat("CONTENT", 100), "*": "star\n", "empty": "",
	})
	f.fetch()
	for file, want := range map[string]string{".shunt.yml": "version: 1\n", "dir/b.txt": "b\n", "*": "star\n", "empty": ""} {
		if b, err := f.repo.ReadFile(t.Context(), id, file, 100); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", file, b, err)
		}
	}
	for file, kind := range map[string]delivery.Kind{
		"link": delivery.KindInvalid, "up": delivery.KindInvalid, "sub": delivery.KindInvalid, "big": delivery.KindInvalid, "dir": delivery.KindInvalid,
		"none": delivery.KindNotFound, "dirlink/b.txt": delivery.KindNotFound, "dir/none": delivery.KindNotFound, "?": delivery.KindNotFound,
		"": delivery.KindInvalid, "/dir/b.txt": delivery.KindInvalid, "dir/../a.txt": delivery.KindInvalid, "dir/": delivery.KindInvalid,
		"-x": delivery.KindInvalid, "a\x00": delivery.KindInvalid, "../x": delivery.KindInvalid,
	} {
		b, err := f.repo.ReadFile(t.Context(), id, file, 100)
		e, ok := errors.AsType[*delivery.Error](err)
		if b != nil || !ok || e.Kind != kind {
			t.Errorf("%s: %q, %v", file, b, err)
			continue
		}
		if isPlain := !strings.ContainsAny(file, "\x00/") && file != "" && file != "-x"; isPlain && !strings.Contains(e.Error(), file) {
			t.Errorf("%s is not named: %v", file, e)
		}
		for _, content := range []string{"passwd", "secret", "CONTENT"} {
			if strings.Contains(allOf(err), content) {
				t.Errorf("%s: content is shown: %v", file, err)
			}
		}
	}
	if _, err := f.repo.ReadFile(t.Context(), strings.Repeat("1", 40), "a.txt", 10); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
}

func TestForecast(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.ids["alien"] = f.commit("refs/heads/alien", "", "alien", map[string]string{"x": "x\n"})
	f.fetch()
	for _, c := range []struct {
		into, commit string
		contained    bool
		conflicts    []string
	}{
		{"dev2", "prod1", false, nil},
		{"dev2", "fix1", false, []string{"a.txt"}},
		{"fix1", "prod1", true, nil},
	} {
		got, err := f.repo.Forecast(t.Context(), f.ids[c.into], f.ids[c.commit])
		want := delivery.Forecast{Into: f.ids[c.into], Commit: f.ids[c.commit], Contained: c.contained, Conflicts: c.conflicts}
		if err != nil || !cmp.Equal(want, got) {
			t.Error(cmp.Diff(want, got), err)
		}
	}
	if _, err := f.repo.Forecast(t.Context(), f.ids["dev2"], f.ids["alien"]); !delivery.IsKind(err, delivery.KindConflict) {
		t.Error(err)
	}
	if _, err := f.repo.Forecast(t.Context(), f.ids["dev2"], strings.Repeat("1", 40)); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
}

func TestMergeCommit(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	tree, conflicts, err := f.repo.MergeTree(t.Context(), f.ids["dev2"], f.ids["prod1"])
	if err != nil || len(conflicts) != 0 {
		t.Fatal(conflicts, err)
	}
	parents := []string{f.ids["dev2"], f.ids["prod1"]}
	id, err := f.repo.MergeCommit(t.Context(), tree, parents, message())
	if err != nil {
		t.Fatal(err)
	}
	again := f.newGit(func(c *Config) { c.Dir += "2" }).Repo("petstore", f.remote, true)
	if _, err = again.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err = again.MergeTree(t.Context(), f.ids["dev2"], f.ids["prod1"]); err != nil {
		t.Fatal(err)
	}
	if id2, err := again.MergeCommit(t.Context(), tree, parents, message()); err != nil || id2 != id {
		t.Errorf("%s, %s, %v", id, id2, err)
	}
	c, err := f.repo.Commit(t.Context(), id)
	want := delivery.Commit{ID: id, Tree: tree, Parents: parents, AuthorName: "Shunt", AuthorEmail: "shunt@example.org", AuthoredAt: time.Unix(1700000000, 0).UTC(), Subject: "Build 43"}
	if err != nil || !cmp.Equal(want, c) {
		t.Error(cmp.Diff(want, c), err)
	}
	if err = f.repo.Push(t.Context(), []RefUpdate{{Ref: "refs/heads/develop", New: id, Old: f.ids["dev2"]}}); err != nil {
		t.Error(err)
	}
	if got := f.run(f.remote, nil, "log", "-1", "--format=%(trailers:key=Shunt-Build,valueonly)", id); got != "43" {
		t.Error(got)
	}
	if _, err = f.repo.MergeCommit(t.Context(), strings.Repeat("1", 40), parents, message()); err == nil {
		t.Error("a tree that is not there")
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	tag, err := f.repo.MakeTag(t.Context(), "build/43", f.ids["dev2"], message())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := f.repo.MakeTag(t.Context(), "build/43", f.ids["dev2"], message()); err != nil || again != tag {
		t.Error(again, err)
	}
	later := message()
	later.At = later.At.Add(time.Second)
	if other, err := f.repo.MakeTag(t.Context(), "build/43", f.ids["dev2"], later); err != nil || other == tag {
		t.Error(other, err)
	}
	commit, trailers, subject, err := f.repo.ReadTag(t.Context(), tag)
	want := map[string][]string{"Shunt-Build": {"43"}, "Shunt-Commit": {"abc"}}
	if err != nil || commit != f.ids["dev2"] || subject != "Build 43" || !cmp.Equal(want, trailers) {
		t.Error(commit, trailers, subject, err)
	}
	info, err := f.repo.TagInfo(t.Context(), tag)
	if err != nil || info.Commit != f.ids["dev2"] || !cmp.Equal(want, info.Trailers) || !info.At.Equal(message().At.Truncate(time.Second)) || info.Tagger != message().Name+" <"+message().Email+">" {
		t.Errorf("%+v, %v", info, err)
	}
	if info, err = f.repo.TagInfo(t.Context(), f.ids["dev1"]); err != nil || info.Commit != f.ids["dev1"] || !info.At.IsZero() {
		t.Errorf("a tag without annotation: %+v, %v", info, err)
	}
	if err = f.repo.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/build/43", New: tag}}); err != nil {
		t.Fatal(err)
	}
	if got := f.run(f.remote, nil, "cat-file", "-t", "refs/tags/build/43"); got != "tag" {
		t.Error(got)
	}
	f.run(f.remote, nil, "tag", "-a", "-m", "nested\n\nKey: v\nno trailer", "nested", "build/43")
	refs := f.fetch()
	if commit, trailers, subject, err = f.repo.ReadTag(t.Context(), refs["refs/tags/nested"]); err != nil || commit != f.ids["dev2"] || subject != "nested" || len(trailers) != 0 {
		t.Error(commit, trailers, subject, err)
	}
	if commit, _, subject, err = f.repo.ReadTag(t.Context(), f.ids["dev1"]); err != nil || commit != f.ids["dev1"] || subject != "" {
		t.Error(commit, subject, err)
	}
	if _, _, _, err = f.repo.ReadTag(t.Context(), strings.Repeat("1", 40)); !delivery.IsKind(err, delivery.KindNotFound) {
		t.Error(err)
	}
	if _, _, _, err = f.repo.ReadTag(t.Context(), f.remoteRef("refs/heads/develop^{tree}")); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Error(err)
	}
	if _, err = f.repo.MakeTag(t.Context(), "x", strings.Repeat("1", 40), message()); err == nil {
		t.Error("a tag of nothing")
	}
}

func TestHostileMessage(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	m := message()
	m.Subject = "Build\n43 \x1b[31m\xff\x00\r\ntagger x"
	m.Body = "a\x00b\r\n\n\x07Forged: yes\xff"
	m.Trailers = [][2]string{{"Shunt-Reason", "x\nShunt-By: eve\x00"}}
	tag, err := f.repo.MakeTag(t.Context(), "build/1", f.ids["dev2"], m)
	if err != nil {
		t.Fatal(err)
	}
	_, trailers, subject, err := f.repo.ReadTag(t.Context(), tag)
	want := map[string][]string{"Shunt-Reason": {"x Shunt-By: eve"}}
	if err != nil || subject != "Build 43 [31m\uFFFD tagger x" || !cmp.Equal(want, trailers) {
		t.Errorf("%q %q %v", subject, trailers, err)
	}
	for _, edit := range []func(*Message){
		func(m *Message) { m.Name = "a<b" }, func(m *Message) { m.Name = "" }, func(m *Message) { m.Name = "x\ny" }, func(m *Message) { m.Email = "a b" },
		func(m *Message) { m.Subject = " \n" }, func(m *Message) { m.At = time.Time{} }, func(m *Message) { m.Trailers = [][2]string{{"a b", "c"}} },
	} {
		m := message()
		edit(&m)
		if _, err := f.repo.MakeTag(t.Context(), "x", f.ids["dev2"], m); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%+v: %v", m, err)
		}
		if _, err := f.repo.MergeCommit(t.Context(), f.remoteRef("refs/heads/develop^{tree}"), nil, m); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	if _, err := f.repo.MakeTag(t.Context(), "../x", f.ids["dev2"], message()); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Error(err)
	}
}

func TestInstallHook(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	marker := filepath.Join(f.dir, "marker")
	script := "#!/bin/sh\necho one >> '" + marker + "'\n"
	for _, s := range []string{strings.Replace(script, "one", "old", 1), script, script} {
		if err := f.repo.InstallHook(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.repo.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/x", New: f.ids["dev2"]}}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("our own push told us of itself")
	}
	if err := exec.Command(f.repo.HookPath()).Run(); err != nil || read(t, marker) != "one\n" {
		t.Error(err, read(t, marker))
	}
	hook := f.repo.HookPath()
	if hook != filepath.Join(f.remote, "hooks/post-receive") {
		t.Error(hook)
	}
	foreign := "#!/bin/sh\ncat >/dev/null\n"
	write(t, hook, foreign, 0o755)
	err := f.repo.InstallHook(t.Context(), script)
	e, ok := errors.AsType[*delivery.Error](err)
	if !ok || e.Kind != delivery.KindConflict || read(t, hook) != foreign {
		t.Fatal(err, read(t, hook))
	}
	_, line, _ := strings.Cut(e.Next, ":  ")
	write(t, hook, foreign+line+"\n", 0o755) // what the error says
	if err = f.repo.InstallHook(t.Context(), script); err != nil {
		t.Error(err)
	}
	if err := exec.Command(hook).Run(); err != nil || read(t, marker) != "one\none\n" {
		t.Error(err, read(t, marker))
	}
	target := filepath.Join(f.dir, "target")
	write(t, target, "#!/bin/sh\n", 0o755)
	if err := errors.Join(os.Remove(hook), os.Symlink(target, hook)); err != nil {
		t.Fatal(err)
	}
	if err := f.repo.InstallHook(t.Context(), script); !delivery.IsKind(err, delivery.KindConflict) || read(t, target) != "#!/bin/sh\n" {
		t.Error(err)
	}

	far := f.git.Repo("far", "https://example.org/x", false)
	if err := far.InstallHook(t.Context(), script); !delivery.IsKind(err, delivery.KindInvalid) || far.HookPath() != "" {
		t.Error(err)
	}
	if err := f.git.Repo("nogit", f.dir, true).InstallHook(t.Context(), script); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Error(err)
	}
	if err := f.repo.InstallHook(t.Context(), "echo"); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Error(err)
	}
	if leftovers, err := filepath.Glob(filepath.Join(f.remote, "hooks", ".shunt-hook-*")); err != nil || len(leftovers) > 0 {
		t.Error(leftovers, err)
	}
}

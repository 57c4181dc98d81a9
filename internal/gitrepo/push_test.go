package gitrepo

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

func wantPush(t *testing.T, err error, outcome PushOutcome, kind delivery.Kind) *PushError {
	t.Helper()
	e, ok := errors.AsType[*PushError](err)
	if !ok {
		t.Fatalf("no PushError: %v", err)
	}
	if e.Outcome != outcome || !delivery.IsKind(err, kind) {
		t.Errorf("%s, %s, want %s, %s: %v\n%s", e.Outcome, delivery.KindOf(err), outcome, kind, err, e.Output)
	}
	return e
}

func TestPushTagAndBranchTogether(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	tag, err := f.repo.MakeTag(t.Context(), "production/1", f.ids["fix1"], message())
	if err != nil {
		t.Fatal(err)
	}
	updates := []RefUpdate{
		{Ref: "refs/tags/production/1", New: tag},
		{Ref: "refs/heads/master", New: f.ids["fix1"], Old: f.ids["prod1"]},
	}
	for range 2 { // the second time all is done already
		if err := f.repo.Push(t.Context(), updates); err != nil {
			t.Fatal(err)
		}
		if f.remoteRef("refs/tags/production/1") != tag || f.remoteRef("refs/heads/master") != f.ids["fix1"] {
			t.Fatal("refs did not move")
		}
	}
	if err := f.repo.Push(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestPushIsAtomic(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	f.setRef("refs/heads/master", f.ids["dev1"]) // somebody pushed meanwhile
	e := wantPush(t, f.repo.Push(t.Context(), []RefUpdate{
		{Ref: "refs/tags/production/1", New: f.ids["fix1"]},
		{Ref: "refs/heads/master", New: f.ids["fix1"], Old: f.ids["prod1"]},
	}), PushRejected, delivery.KindConflict)
	if !strings.Contains(e.Error(), `branch "master" has changed on the remote`) || strings.Contains(e.Error(), "production/1") {
		t.Error(e)
	}
	if f.remoteRef("refs/tags/production/1") != "" || f.remoteRef("refs/heads/master") != f.ids["dev1"] {
		t.Error("a ref moved")
	}
}

func TestPushNeverForces(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	f.setRef("refs/tags/build/1", f.ids["dev1"])
	for name, u := range map[string]RefUpdate{
		"branch to the side": {Ref: "refs/heads/develop", New: f.ids["fix1"], Old: f.ids["dev2"]},
		"branch back":        {Ref: "refs/heads/develop", New: f.ids["dev1"], Old: f.ids["dev2"]},
		"tag moved":          {Ref: "refs/tags/build/1", New: f.ids["dev2"], Old: f.ids["dev1"]},
		"unknown old commit": {Ref: "refs/heads/develop", New: f.ids["dev2"], Old: strings.Repeat("1", 40)},
	} {
		e := wantPush(t, f.repo.Push(t.Context(), []RefUpdate{u}), PushRejected, delivery.KindRefused)
		t.Log(name, e)
	}
	for _, u := range []RefUpdate{
		{Ref: "develop", New: f.ids["dev1"]},
		{Ref: "refs/heads/x:y", New: f.ids["dev1"]},
		{Ref: "refs/heads/x", New: ""}, // would delete
		{Ref: "refs/heads/x", New: "develop"},
		{Ref: "refs/heads/x", New: "+" + f.ids["dev1"]},
		{Ref: "refs/heads/x", New: f.ids["dev1"], Old: "develop"},
	} {
		if err := f.repo.Push(t.Context(), []RefUpdate{u}); !delivery.IsKind(err, delivery.KindInvalid) {
			t.Errorf("%v: %v", u, err)
		}
	}
	if f.remoteRef("refs/heads/develop") != f.ids["dev2"] || f.remoteRef("refs/tags/build/1") != f.ids["dev1"] {
		t.Error("a ref moved")
	}
}

func TestT16TagAtAnotherCommit(t *testing.T) {
	t.Parallel()
	s := newShim(t)
	f := fetched(t, func(c *Config) { c.Bin = s.bin })
	f.setRef("refs/tags/prod/42", f.ids["base"])
	e := wantPush(t, f.repo.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/prod/42", New: f.ids["fix1"]}}), PushRejected, delivery.KindConflict)
	if !strings.Contains(e.Error(), `tag "prod/42" exists already`) {
		t.Error(e)
	}
	if f.remoteRef("refs/tags/prod/42") != f.ids["base"] {
		t.Error("the tag moved")
	}
	pushes := 0
	for _, call := range s.calls(t) {
		if !strings.Contains(strings.Join(call, " "), " push ") {
			continue
		}
		pushes++
		for _, arg := range call {
			if arg == "--force" || arg == "-f" || strings.HasPrefix(arg, "+") || arg == "--force-with-lease" || arg == "--mirror" {
				t.Errorf("forced: %q", call)
			}
		}
	}
	if pushes != 1 {
		t.Errorf("%d pushes", pushes)
	}
}

func TestT17NameInTheWay(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	f.setRef("refs/tags/prod", f.ids["base"])
	f.setRef("refs/tags/build/7/x", f.ids["base"])
	for ref, want := range map[string]string{"refs/tags/prod/42": `beside tag "prod"`, "refs/tags/build/7": `beside tag "build/7/x"`} {
		refs, err := f.repo.RemoteRefs(t.Context())
		if err != nil || BlockedBy(refs, ref) == "" {
			t.Errorf("not seen before the push: %v, %v", refs, err)
		}
		err = f.repo.Push(t.Context(), []RefUpdate{
			{Ref: ref, New: f.ids["fix1"]},
			{Ref: "refs/heads/master", New: f.ids["fix1"], Old: f.ids["prod1"]},
		})
		e := wantPush(t, err, PushRejected, delivery.KindConflict)
		if !strings.Contains(e.Error(), want) {
			t.Errorf("%s: %v\n%s", ref, e, e.Output)
		}
		if f.remoteRef("refs/heads/master") != f.ids["prod1"] {
			t.Error("master moved")
		}
	}
}

func TestPushRejectedByAHook(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	f.hook("pre-receive", "echo 'not on fridays' >&2; exit 1")
	e := wantPush(t, f.repo.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/x", New: f.ids["fix1"]}}), PushRejected, delivery.KindConflict)
	if !strings.Contains(e.Output, "not on fridays") || !strings.Contains(e.Error(), "hook") {
		t.Error(e, e.Output)
	}
}

func TestPushRemoteKilled(t *testing.T) {
	t.Parallel()
	for hook, moved := range map[string]bool{
		"pre-receive":           false,
		"reference-transaction": true, // after the refs have moved
	} {
		f := fetched(t)
		f.hook(hook, `if [ "$1" = committed ] || [ $# = 0 ]; then kill -9 $PPID; fi; exit 0`)
		_ = wantPush(t, f.repo.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/x", New: f.ids["fix1"]}}), PushUnknown, delivery.KindUnavailable)
		if got := f.remoteRef("refs/tags/x") != ""; got != moved {
			t.Errorf("%s: moved is %t", hook, got)
		}
	}
}

func TestPushCutShortIsUnknown(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	pid := filepath.Join(f.dir, "pid")
	f.hook("pre-receive", "trap '' TERM; echo x > '"+pid+"'; exec sleep 600")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // cut it once the remote is at work
		defer cancel()
		for !exists(pid) {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	err := f.repo.Push(ctx, []RefUpdate{{Ref: "refs/tags/x", New: f.ids["fix1"]}})
	close(done)
	_ = wantPush(t, err, PushUnknown, delivery.KindUnavailable)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestPushToARemoteThatIsAwayIsUnknown(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	r := f.git.Repo("petstore", f.remote+".none", true)
	_ = wantPush(t, r.Push(t.Context(), []RefUpdate{{Ref: "refs/tags/x", New: f.ids["fix1"]}}), PushUnknown, delivery.KindUnavailable)
}

func TestPushDoesNotRunHooksOfTheMirror(t *testing.T) {
	t.Parallel()
	f := fetched(t)
	marker := filepath.Join(f.dir, "marker")
	write(t, filepath.Join(f.repo.mirror, "hooks/pre-push"), "#!/bin/sh\ntouch '"+marker+"'\n", 0o755)
	write(t, filepath.Join(f.repo.mirror, "hooks/reference-transaction"), "#!/bin/sh\ntouch '"+marker+"'\n", 0o755)
	if err := f.repo.Push(t.Context(), []RefUpdate{{Ref: "refs/heads/new", New: f.ids["fix1"]}}); err != nil {
		t.Fatal(err)
	}
	f.fetch()
	if exists(marker) {
		t.Error("a hook ran")
	}
}

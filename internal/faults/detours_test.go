package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// The detours are what the demo's story does not pass: a job that fails and is run
// again, a rejection, a cancelled build, a push whose answer is lost, a deployment
// that fails, is looked up and tried again, a rollback, a backup that is restored,
// and the restored server that is let work. A script that fails does so once.
var detour = map[string]string{
	".shunt.yml": `version: 1
name: shop
jobs:
  build:
    steps: [{ run: ./build.sh }]
    artifacts: { app: app.txt }
publish:
  app: { files: true }
environments:
  qa:
    ephemeral: true
    up: echo "$SHUNT_ENVIRONMENT_ID" >>@DIR@/ups
    down: echo "$SHUNT_ENVIRONMENT_ID" >>@DIR@/downs
    keep: 8h
  production:
    needs: [qa]
    deploy: ./deploy.sh
    verify: test "$(cat @DIR@/live)" = "$SHUNT_DEPLOY_ID"
`,
	"build.sh": `#!/bin/sh
set -eu
if mkdir @DIR@/build-failed 2>/dev/null; then exit 1; fi
cp text app.txt
`,
	"deploy.sh": `#!/bin/sh
set -eu
echo "$SHUNT_DEPLOY_ID $SHUNT_FENCE $SHUNT_BUILD" >>@DIR@/deploys
if mkdir @DIR@/deploy-failed 2>/dev/null; then exit 1; fi
echo "$SHUNT_DEPLOY_ID" >@DIR@/live
`,
	"text": "1\n",
}

// loses is a hook of the remote: it takes the tag of build 3 and dies before it answers.
const loses = `#!/bin/sh
while read -r old new ref; do
	if [ "$ref" = refs/tags/build/3 ] && mkdir @DIR@/answer-lost 2>/dev/null; then kill -9 $PPID; fi
done
`

func (s suite) detours(ctx context.Context, dir, database string, env []string) (err error) {
	w, err := s.newWorld(ctx, dir, database, env, detour)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s\n%s", err, w.told(), logOf(w.in("server.log")))
		}
		w.stop()
	}()
	acts := []struct {
		words string
		do    func() error
	}{
		{"the server starts", func() error { return w.begin(loses) }},
		{"a job fails and is run again", w.failAndRerun},
		{"a person says no", func() error { return w.reject(1) }},
		{"a waiting build is cancelled", w.cancel},
		{"an answer is lost, a deployment fails and is tried again", w.retry},
		{"the next build is released", w.release},
		{"it is rolled back", w.rollback},
		{"a backup is restored", w.restore},
		{"the restored server goes on", w.goOn},
		{"all that was made is gone, and nothing was done twice", w.check},
	}
	for _, act := range acts {
		if err := act.do(); err != nil {
			return fmt.Errorf("%s: %w", act.words, err)
		}
	}
	return nil
}

func (w *world) failAndRerun() error {
	if err := w.reach(1, delivery.BuildFailed); err != nil {
		return err
	}
	err := w.click("re-run 1", func(b api.BuildDetail) bool { return b.Status != delivery.BuildFailed }, 1, func() error {
		_, err := w.api.Rerun(w.ctx, shop, 1)
		return err
	})
	return errors.Join(err, w.reach(1, delivery.BuildWaiting))
}

func (w *world) decide(number int64, promote bool, want delivery.GateState) error {
	return w.click(string(want), func(b api.BuildDetail) bool { return len(b.Gates) > 0 && b.Gates[0].State == want }, number, func() error {
		_, err := w.api.Decide(w.ctx, shop, number, api.Decide{Promote: promote, Reason: "because"})
		return err
	})
}

func (w *world) reject(number int64) error {
	return errors.Join(w.decide(number, false, delivery.GateRejected), w.reach(number, delivery.BuildRejected))
}

func (w *world) cancel() error {
	if err := errors.Join(w.push(2), w.reach(2, delivery.BuildWaiting)); err != nil {
		return err
	}
	err := w.click("cancel 2", func(b api.BuildDetail) bool {
		return b.Gates[0].State == delivery.GateCancelled
	}, 2, func() error {
		_, err := w.api.Cancel(w.ctx, shop, 2, "no longer wanted")
		return err
	})
	return errors.Join(err, w.reach(2, delivery.BuildCancelled))
}

func (w *world) retry() error {
	if err := errors.Join(w.push(3), w.reach(3, delivery.BuildWaiting)); err != nil {
		return err
	}
	if _, err := os.Stat(w.in("answer-lost")); err != nil {
		return err
	}
	if err := errors.Join(w.decide(3, true, delivery.GatePromoted), w.reach(3, delivery.BuildStopped)); err != nil {
		return err
	}
	err := w.click("retry 3", func(b api.BuildDetail) bool { return b.Status != delivery.BuildStopped }, 3, func() error {
		_, err := w.api.Resolve(w.ctx, shop, 3, api.Resolve{Action: "retry", Reason: "the disk was full"})
		return err
	})
	return errors.Join(err, w.reach(3, delivery.BuildSucceeded))
}

func (w *world) release() error {
	return errors.Join(w.push(4), w.reach(4, delivery.BuildWaiting), w.decide(4, true, delivery.GatePromoted), w.reach(4, delivery.BuildSucceeded))
}

func (w *world) rollback() error {
	rolled := func(b api.BuildDetail) *api.Node {
		for i, n := range b.Nodes {
			if n.Kind == delivery.NodeRollback {
				return &b.Nodes[i]
			}
		}
		return nil
	}
	err := w.click("roll back to 3", func(b api.BuildDetail) bool { return rolled(b) != nil }, 3, func() error {
		_, err := w.api.Rollback(w.ctx, shop, api.Rollback{To: 3, Reason: "the cart is empty"})
		return err
	})
	return errors.Join(err, w.reach(3, delivery.BuildSucceeded), w.until("it was rolled back", func() error {
		b, err := w.api.Build(w.ctx, shop, 3)
		if n := rolled(b); err == nil && (n.State != delivery.NodeSucceeded || b.Status != delivery.BuildSucceeded) {
			err = fmt.Errorf("it is %s: %s", n.State, n.Reason)
		}
		return err
	}), w.until("the hold is released", func() error {
		_, err := w.api.ReleaseHold(w.ctx, shop, "it was the other cart")
		return err
	}))
}

// restore makes a backup, and starts a server on what is restored of it.
func (w *world) restore() error {
	what := []string{"backup", "--data", w.data, "--to", w.in("backup.tar")}
	into := []string{"restore", w.in("backup.tar"), "--data", w.in("restored")}
	if w.database != "" {
		what, into = append(what, "--files-only"), append(into, "--database", w.database)
	}
	err := w.until("there is a backup", func() error {
		if _, err := os.Stat(w.in("backup.tar")); err == nil {
			return w.shunt("backup", "verify", w.in("backup.tar"))
		}
		return w.shunt(what...)
	})
	if err != nil {
		return err
	}
	w.stop()
	err = w.until("it is restored", func() error {
		if _, err := os.Stat(w.in("restored")); err == nil {
			return nil // and its command was killed before it could say so
		}
		return w.shunt(into...)
	})
	if err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(w.data, "secret.key"), filepath.Join(w.in("restored"), "secret.key")); err != nil {
		return err
	}
	w.data = w.in("restored")
	if err := w.serve(); err != nil {
		return err
	}
	return w.until("it works again", func() error {
		err := w.shunt("reconcile", "--confirm", "-m", "it is a drill")
		if err != nil && strings.Contains(err.Error(), "the server is not in it") {
			return nil
		}
		return err
	})
}

func (w *world) goOn() error {
	return errors.Join(w.push(5), w.reach(5, delivery.BuildWaiting), w.reject(5))
}

// check compares what is outside with what happened.
func (w *world) check() error {
	err := w.until("all environments are gone", func() error {
		ups, downs := w.lines("ups"), w.lines("downs")
		for _, id := range ups {
			if !slices.Contains(downs, id) {
				return fmt.Errorf("%s is not: %q", id, downs)
			}
		}
		return nil
	})
	var builds []string
	seen, fence := map[string]bool{}, 0
	for _, line := range w.lines("deploys") {
		var id, build string
		var f int
		if _, e := fmt.Sscan(line, &id, &f, &build); e != nil || seen[id] || f <= fence {
			err = errors.Join(err, e, fmt.Errorf("%q came twice, or late: %q", id, w.lines("deploys")))
		}
		seen[id], fence = true, f
		builds = append(builds, build)
	}
	if got := strings.Join(builds, " "); got != "3 3 4 3" {
		err = errors.Join(err, fmt.Errorf("deployed were %s", got))
	}
	refs, e := w.git(w.bare, "for-each-ref", "--format=%(refname:short) %(*objectname)%(objectname)", "refs/tags", "refs/heads/master")
	if err = errors.Join(err, e); err != nil {
		return err
	}
	at := map[string]string{}
	for line := range strings.Lines(refs) {
		name, commit, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(name, "rollback/") {
			name = "rollback"
		}
		if _, twice := at[name]; twice {
			err = errors.Join(err, fmt.Errorf("two %s:\n%s", name, refs))
		}
		at[name] = commit[:40]
	}
	want := map[string]string{"master": w.commits[4], "production/3": w.commits[3], "production/4": w.commits[4], "rollback": w.commits[3]}
	for n := range int64(5) {
		want[fmt.Sprintf("build/%d", n+1)] = w.commits[n+1]
	}
	for name, commit := range want {
		if at[name] != commit {
			err = errors.Join(err, fmt.Errorf("%s is at %q, want %s", name, at[name], commit))
		}
	}
	if len(at) != len(want) {
		err = errors.Join(err, fmt.Errorf("there are more refs:\n%s", refs))
	}
	list, e := w.api.Builds(w.ctx, shop, api.BuildFilter{Limit: 100})
	if len(list) != 5 {
		err = errors.Join(err, fmt.Errorf("there are %d builds", len(list)))
	}
	return errors.Join(err, e)
}

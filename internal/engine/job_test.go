package engine

import (
	"context"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// job is a pipeline with one job and a production that is never reached.
func job(more, run string) string {
	return "version: 1\njobs:\n  build:\n    env: {DIR: '@DIR'}\n" + more + "    steps: [{run: '" + run + "'}]\nenvironments:\n  production: {approve: {timeout: 1h}, deploy: 'false'}\n" + team
}

func TestAFailedJobIsRunAgainOnTheSameCommit(t *testing.T) {
	w := newWorld(t, jobs+`  regression:
    needs: qa
    env: {DIR: '@DIR'}
    steps: [{run: 'echo "$SHUNT_QA_URL" >> $DIR/seen; test ! -e $DIR/broken'}]
environments:
`+qa+production+"    needs: [qa, regression]\n"+team)
	w.write("broken", "")
	w.add("")
	b := w.reach(1, delivery.BuildFailed)
	w.says(b.Reason, "job regression failed: step 1 exited with code 1")
	w.want("QA", w.instance("petstore-qa-1").State, delivery.InstanceDown)
	w.want("recipients", w.mail("failed", "regression").To, "[ana@example.org team@example.org]")
	w.want("gate", w.node(1, "gate/production").State, delivery.NodeUnreached)
	w.sh("rm broken")
	w.ok(w.engine.Rerun(w.ctx, project, 1, "bob"))
	w.refused(w.engine.Rerun(w.ctx, project, 1, "bob"), delivery.KindConflict)
	again := w.ship(1)
	w.want("commit", again.Commit, b.Commit)
	w.want("environments", w.lines("envs"), "[up petstore-qa-1 down petstore-qa-1 up petstore-qa-1-2 down petstore-qa-1-2]")
	w.want("its address", w.lines("seen"), []string{w.web.URL, w.web.URL})
	w.want("attempts of build", w.node(1, "job/build").Attempt, 1)
	w.want("attempts of regression", w.node(1, "job/regression").Attempt, 2)
	w.audited(1, "bob", "re-run")
}

func TestAJobIsTriedAgainAndEndsInTime(t *testing.T) {
	t.Parallel()
	t.Run("retry", func(t *testing.T) {
		w := newWorld(t, job("    retry: 1\n", "echo try >> $DIR/tries; test $(wc -l < $DIR/tries) -ge 2"))
		w.add("")
		w.reach(1, delivery.BuildWaiting)
		w.want("tries", len(w.lines("tries")), 2)
		attempts, err := w.store.Attempts(w.ctx, w.build(1).ID)
		w.ok(err)
		w.want("attempts", len(attempts), 2)
		w.want("first", attempts[0].State, delivery.AttemptFailed)
	})
	t.Run("timeout", func(t *testing.T) {
		w := newWorld(t, job("    timeout: 1s\n", "sleep 60"))
		w.add("")
		b := w.reach(1, delivery.BuildFailed)
		w.says(b.Reason, "job build failed")
		attempts, err := w.store.Attempts(w.ctx, b.ID)
		w.ok(err)
		w.want("attempt", attempts[0].State, delivery.AttemptTimedOut)
	})
}

func TestAJobWhoseRunnerDiedRunsAgain(t *testing.T) {
	w := newWorld(t, job("", "echo try >> $DIR/tries; while [ -e $DIR/slow ]; do sleep 0.02; done"))
	w.write("slow", "")
	w.add("")
	for n := range 2 {
		w.until("it runs", func() bool { return len(w.lines("tries")) == n+1 })
		w.killRunner()
		w.spawn()
	}
	w.until("it runs", func() bool { return len(w.lines("tries")) == 3 })
	w.sh("rm slow")
	w.reach(1, delivery.BuildWaiting)
	attempts, err := w.store.Attempts(w.ctx, w.build(1).ID)
	w.ok(err)
	w.want("attempts", attempts[0].State+attempts[1].State+attempts[2].State, delivery.AttemptLost+delivery.AttemptLost+delivery.AttemptSucceeded)
}

func TestReportsAreComparedWithProduction(t *testing.T) {
	file := strings.Replace(plain, "    artifacts:", "    reports: {junit: '*.xml'}\n    artifacts:", 1)
	w := newWorld(t, file)
	report := func(cases string) {
		w.write("clone/r.xml", `<testsuite name="s">`+cases+`</testsuite>`)
		w.git("add r.xml")
	}
	w.add("")
	report(`<testcase classname="a" name="old"/><testcase classname="a" name="mended"><failure/></testcase><testcase name="gone"/>`)
	w.ship(w.push("develop", "", "two"))
	report(`<testcase classname="a" name="old"><failure message="no"/></testcase><testcase classname="a" name="mended"/><testcase name="new"/><testcase name="later"><skipped/></testcase>`)
	n := w.push("develop", "", "three")
	b := w.reach(n, delivery.BuildWaiting)
	got, err := w.engine.Tests(w.ctx, b)
	w.ok(err)
	w.want("tests", []any{got.Passed, got.Failed, got.Skipped, got.New, got.Gone, got.NewlyFailing, got.Fixed, got.Failing[0].Node}, []any{2, 1, 1, 2, 1, []string{"a.old"}, []string{"a.mended"}, "job/build"})
	change, err := w.engine.Change(w.ctx, b)
	w.ok(err)
	w.want("change", []any{len(change.Commits), len(change.Files), change.Forecast.Contained}, []any{1, 2, true})
	diff, cut, err := w.engine.Diff(w.ctx, b, 1<<20)
	w.ok(err)
	w.says(diff, "-two", "+three")
	w.want("cut", cut, false)
	usual, err := w.engine.Usual(w.ctx, project)
	w.ok(err)
	if usual["job/build"] <= 0 {
		w.Fatal("nobody knows how long a build takes")
	}
	report(`<testsuite`)
	n = w.push("develop", "", "four")
	w.reach(n, delivery.BuildWaiting)
	w.says(w.node(n, "job/build").Reason, "a test report cannot be read")
}

func TestAPipelineFileThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	t.Run("it has errors", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("")
		w.git("checkout -q develop")
		w.write("clone/.shunt.yml", "version: 1\njobs: {build: {stps: []}}\n")
		n := w.push("develop", "", "two")
		b := w.build(n)
		w.want("build", b.Status, delivery.BuildFailed)
		w.says(b.Reason, "the pipeline file has errors", "stps", "shunt lint")
		w.mail("failed", "stps")
		w.refused(w.engine.Rerun(w.ctx, project, n, "bob"), delivery.KindConflict, "its pipeline file has errors")
	})
	t.Run("there is none", func(t *testing.T) {
		w := newWorld(t, plain)
		w.add("")
		w.git("rm -q .shunt.yml")
		n := w.push("develop", "", "two")
		w.want("build", w.build(n).Status, delivery.BuildFailed)
		w.says(w.build(n).Reason, ".shunt.yml")
	})
}

func TestSecretsReachTheStepAndNoLog(t *testing.T) {
	w := newWorld(t, job("    secrets: [TOKEN]\n", "echo \"$TOKEN\" > $DIR/token; echo \"the token is $TOKEN\""))
	w.add("")
	b := w.reach(1, delivery.BuildFailed)
	w.says(b.Reason, "secret TOKEN is not set", "the pipeline file asks for it")
	attempts, err := w.store.Attempts(w.ctx, b.ID)
	w.ok(err)
	w.want("attempt", attempts[0].State, delivery.AttemptFailed)
	w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error {
		return tx.SetSecret(ctx, project, "TOKEN", "sealed:hunter2-hunter2")
	}))
	w.ok(w.engine.Rerun(w.ctx, project, 1, "bob"))
	w.reach(1, delivery.BuildWaiting)
	w.want("what the step got", w.read("token"), "hunter2-hunter2\n")
	log := w.log("petstore-1-job-build-2")
	w.says(log, "the token is")
	if strings.Contains(log, "hunter2") {
		w.Fatalf("the log has the secret: %s", log)
	}
}

func TestWhatAStepGets(t *testing.T) {
	w := newWorld(t, job("", "env > $DIR/env; git log -1 --format=%H > $DIR/head"))
	w.add("")
	b := w.reach(1, delivery.BuildWaiting)
	w.says(w.read("env"), "CI=true\n", "SHUNT_PROJECT=petstore\n", "SHUNT_BUILD=1\n", "SHUNT_COMMIT="+b.Commit+"\n", "SHUNT_BRANCH=develop\n", "SHUNT_LANE=main\n", "BUILD_NUMBER=1\n", "GIT_COMMIT="+b.Commit+"\n")
	w.want("HEAD", w.read("head"), b.Commit+"\n")
	w.until("its work directory is gone", func() bool { return w.sh("ls work") == "" })
}

package e2e

import (
	"fmt"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/cutter"
	"github.com/shuntcd/shunt/internal/testkit/pg"
)

// behindProxy starts a PostgreSQL of its own and a proxy before an empty database of it.
func behindProxy(t *testing.T) (server *pg.Server, proxy *cutter.Proxy, database string) {
	t.Helper()
	server = pg.ForTest(t)
	direct, err := server.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if proxy, database, err = cutter.New(direct); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	return server, proxy, database
}

// F06: the database is away for longer than a lease while a job runs; it answers
// nothing; it crashes and comes back. Writes are answered 503, the job runs on
// once, and in the end all is done.
func TestF06TheDatabaseIsAway(t *testing.T) {
	takesLong(t)
	t.Parallel()
	server, proxy, database := behindProxy(t)
	w := newWorld(t, shop(map[string]string{"ci/build.sh": shop(nil)["ci/build.sh"] + waits("build"), "ci/deploy.sh": shop(nil)["ci/deploy.sh"] + waits("deploy")}), "--database", database)
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.await("build-begun")

	proxy.Cut()
	cut := time.Now()
	w.until("a write is refused", func() bool { return w.unavailable(w.api.Cancel(t.Context(), w.project, b.Number, "why")) })
	if status := w.answer("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("without a database /readyz is answered %d", status)
	}
	if status := w.answer("/livez"); status != http.StatusOK {
		t.Errorf("without a database /livez is answered %d", status)
	}
	w.allow("build-go") // the job ends while nobody can write that down
	w.until("a lease has run out", func() bool { return time.Since(cut) > 8*time.Second })
	proxy.Heal()
	w.reach(b.Number, delivery.BuildWaiting)

	proxy.Stall()
	w.until("a write is refused", func() bool { return w.unavailable(w.api.Cancel(t.Context(), w.project, b.Number, "why")) })
	proxy.Heal()
	w.again(b.Number, func() error {
		_, err := w.api.Decide(t.Context(), w.project, b.Number, api.Decide{Promote: true})
		return err
	})
	w.await("deploy-begun")
	server.Kill() // a crash of the database in the middle of a deployment
	w.must(server.Run())
	w.allow("deploy-go")
	w.reach(b.Number, delivery.BuildSucceeded)
	w.shipped(b.Number, 1)
	if runs := w.journal("builds"); len(runs) != 1 {
		t.Errorf("the job ran %d times: %q", len(runs), runs)
	}
}

// unavailable tells whether a call was answered 503. The cancellation that the
// tests ask for is never to succeed.
func (w *world) unavailable(_ api.Build, err error) bool {
	w.Helper()
	if err == nil {
		w.Fatal("a write was accepted without a database")
	}
	return delivery.IsKind(err, delivery.KindUnavailable)
}

func (w *world) answer(path string) int {
	w.Helper()
	resp, err := http.Get(w.url + path)
	w.must(err)
	defer resp.Body.Close()
	return resp.StatusCode
}

// again clicks promote until it is so, as a person who looks before they repeat it.
func (w *world) again(number int64, click func() error) {
	w.Helper()
	w.until("it is promoted", func() bool {
		b, err := w.api.Build(w.Context(), w.project, number)
		if err != nil {
			return false
		}
		if b.Gates[0].State == delivery.GatePromoted {
			return true
		}
		if err := click(); err != nil && !delivery.IsKind(err, delivery.KindUnavailable) && !delivery.IsKind(err, delivery.KindConflict) {
			w.Fatal(err)
		}
		return false
	})
}

// F06: the connection breaks after the server has carried a COMMIT out, again and
// again, in the middle of everything. Nobody guesses: it is looked up.
func TestF06AnswersOfCommitsAreLost(t *testing.T) {
	t.Parallel()
	_, proxy, database := behindProxy(t)
	w := newWorld(t, shop(nil), "--database", database)
	w.add(api.AddProject{InstallHook: true})
	proxy.LoseCommits(8)
	pushes, builds := int64(1), 0
	if *long {
		pushes = 5
	}
	for n := range pushes {
		w.write(map[string]string{"text": fmt.Sprint(n)})
		w.commit("More pets")
		w.git("push", "--quiet", "origin", "develop") // the hook's answer may be lost; the push is not
		commit := w.git("rev-parse", "HEAD")
		w.until("the push is seen", func() bool {
			_, _ = w.api.Sync(t.Context(), w.project)
			list, err := w.api.Builds(t.Context(), w.project, api.BuildFilter{Limit: 100})
			builds = len(list)
			return err == nil && builds > 0 && list[0].Commit == commit
		})
		w.reach(n+1, delivery.BuildWaiting)
		w.again(n+1, func() error {
			_, err := w.api.Decide(t.Context(), w.project, n+1, api.Decide{Promote: true})
			return err
		})
		w.reach(n+1, delivery.BuildSucceeded)
	}
	proxy.LoseCommits(0)
	if builds != int(pushes) {
		t.Errorf("%d pushes made %d builds", pushes, builds)
	}
	w.shipped(pushes, int(pushes))
	t.Logf("%d answers of COMMIT were lost", proxy.Lost())
}

// F06: the database is stopped for longer than a lease, as a machine that is
// paused, and goes on: what was under way then is done once.
func TestF06TheDatabaseIsPaused(t *testing.T) {
	takesLong(t)
	t.Parallel()
	server, _, database := behindProxy(t)
	w := newWorld(t, shop(map[string]string{"ci/deploy.sh": shop(nil)["ci/deploy.sh"] + waits("deploy")}), "--database", database)
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.reach(b.Number, delivery.BuildWaiting)
	_, err := w.api.Decide(t.Context(), w.project, b.Number, api.Decide{Promote: true})
	w.must(err)
	w.await("deploy-begun")
	w.must(server.Signal(syscall.SIGSTOP))
	paused := time.Now()
	w.allow("deploy-go")
	w.until("a lease has run out", func() bool { return time.Since(paused) > 8*time.Second })
	w.must(server.Signal(syscall.SIGCONT))
	w.reach(b.Number, delivery.BuildSucceeded)
	w.shipped(b.Number, 1)
}

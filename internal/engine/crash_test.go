package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

// TestAServerThatDiesAnywhereEndsTheSame ends the server as kill -9 does, after
// some number of events and a moment more, and starts another one on its data.
func TestAServerThatDiesAnywhereEndsTheSame(t *testing.T) {
	t.Parallel()
	const points = 30
	for lane := range 6 {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			w := newWorld(t, full)
			w.add("master")
			rnd := rand.New(rand.NewPCG(uint64(lane), 1))
			for range points / 6 {
				n := w.push("develop", "", fmt.Sprint("change ", w.project().NextBuild))
				var b delivery.Build
				for crashes := 0; ; crashes++ {
					if crashes < 2 {
						w.crashAfter(rnd.IntN(25), time.Duration(rnd.IntN(30))*time.Millisecond, n)
					}
					w.until("it waits or is done", func() bool { s := w.build(n).Status; return s == delivery.BuildWaiting || s == delivery.BuildSucceeded })
					if b = w.build(n); b.Status == delivery.BuildWaiting {
						w.decideAnyhow(n)
					}
					if crashes < 2 {
						continue
					}
					b = w.reach(n, delivery.BuildSucceeded)
					break
				}
				deploys := 0
				for _, line := range w.lines("deploys") {
					if strings.HasPrefix(line, fmt.Sprintf("petstore-%d-deploy-", n)) {
						deploys++
					}
				}
				w.want("deploys", deploys, 1)
				w.want("master", w.remote("master"), b.Commit)
				w.want("tag", w.remote(fmt.Sprintf("production/%d^{commit}", n)), b.Commit)
				w.want("QA", w.instance(fmt.Sprintf("petstore-qa-%d", n)).State, delivery.InstanceDown)
				w.want("incident", w.project().Incident, "")
				w.audited(n, "shunt", "released")
			}
		})
	}
}

// crashAfter ends the server after some events, or when nothing moves.
func (w *world) crashAfter(events int, more time.Duration, number int64) {
	w.Helper()
	ch, cancel := w.store.Subscribe()
	for seen := 0; seen < events; seen++ {
		select {
		case <-ch:
			continue
		case <-time.After(150 * time.Millisecond):
		}
		switch w.build(number).Status { //nolint:exhaustive // the others move by themselves
		case delivery.BuildWaiting:
			w.decideAnyhow(number)
		case delivery.BuildSucceeded:
			seen = events
		}
	}
	time.Sleep(more) // anywhere: the point of the test
	cancel()
	w.crash()
	w.open()
}

// decideAnyhow promotes; the gate may have been opened again in this moment.
func (w *world) decideAnyhow(number int64) {
	w.Helper()
	if err := w.decide(number, true, ""); err != nil && !delivery.IsKind(err, delivery.KindConflict) {
		w.Fatal(err)
	}
}

func TestAServerThatStopsHandsOver(t *testing.T) {
	w := newWorld(t, strings.Replace(full, "cp app.txt out.txt", "touch @DIR/started; while [ -e @DIR/slow ]; do sleep 0.02; done; cp app.txt out.txt", 1))
	w.write("slow", "")
	w.add("")
	w.until("the job runs", w.exists("started"))
	w.close()
	w.sh("rm slow")
	w.open()
	w.ship(1)
	w.want("attempts", w.node(1, "job/build").Attempt, 1)
	w.engine.Stop() // again
}

func TestADriverThatLostItsLeaseWritesNothing(t *testing.T) {
	w := newWorld(t, strings.Replace(plain, "cp app.txt out.txt", "touch @DIR/started; while [ -e @DIR/slow ]; do sleep 0.02; done; cp app.txt out.txt", 1))
	w.write("slow", "")
	w.add("")
	w.until("the job runs", w.exists("started"))
	var fence int64
	w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error { // another server takes over
		if err := tx.ClearLeases(ctx, "test"); err != nil {
			return err
		}
		b, ok, err := tx.Lease(ctx, w.build(1).ID, "another/1", time.Hour)
		if !ok {
			w.Error("no lease")
		}
		fence = b.LeaseFence
		return err
	}))
	w.sh("rm slow")
	w.until("the drive has ended", func() bool {
		w.engine.mu.Lock()
		defer w.engine.mu.Unlock()
		return len(w.engine.drives) == 0
	})
	b := w.build(1)
	w.want("owner and fence", []any{b.LeaseOwner, b.LeaseFence}, []any{"another/1", fence})
	w.want("job", w.node(1, "job/build").State, delivery.NodeRunning)
	w.ok(w.store.Write(w.ctx, func(ctx context.Context, tx *store.Tx) error { return tx.ClearLeases(ctx, "another") }))
	w.ship(1)
	w.want("attempts", w.node(1, "job/build").Attempt, 1)
}

// A server that adopts a job goes on with its log where the dead one was.
func TestALogGoesOnWhereADeadServerWas(t *testing.T) {
	w := newWorld(t, strings.Replace(plain, "cp app.txt out.txt", "x=first; y=last; echo $x line; while [ -e @DIR/slow ]; do sleep 0.02; done; echo $y line; cp app.txt out.txt", 1))
	w.write("slow", "")
	w.add("")
	const attempt = "petstore-1-job-build-1"
	w.until("the first line is copied", func() bool { return strings.Contains(w.log(attempt), "first line") })
	w.crash()
	w.sh("rm slow")
	w.open()
	w.ship(1)
	log := w.log(attempt)
	w.want("each line", []int{strings.Count(log, "first line"), strings.Count(log, "last line")}, "[1 1]")
}

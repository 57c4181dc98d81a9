package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// F12: the machine's clock is set an hour forth or back, or ten years forth, while
// a person is asked, an environment is kept and a job runs. Nothing expires, nobody
// takes a lease that is held, and what comes later stays later; the time that
// people have is as long as it was.
func TestF12TheClockIsSet(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"an hour forth": time.Hour, "an hour back": -time.Hour, "ten years forth": 10 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			file := strings.Replace(full, "cp app.txt out.txt", "if [ $SHUNT_BUILD = 2 ]; then touch @DIR/started; while [ -e @DIR/slow ]; do sleep 0.02; done; fi; cp app.txt out.txt", 1)
			w := newWorld(t, file)
			w.write("slow", "")
			w.add("")
			w.reach(1, delivery.BuildWaiting)
			gate, qa := w.gate(1), w.instance("petstore-qa-1")
			w.push("develop", "", "two")
			w.until("the job runs", w.exists("started"))
			fence := w.build(2).LeaseFence

			w.clock.off.Add(int64(by))
			w.until("the deadlines moved", func() bool { return !w.gate(1).ExpiresAt.Equal(gate.ExpiresAt) })
			for range 5 { // some looks after everything
				last := w.engine.Store.Now()
				w.until("time passes", func() bool { return w.engine.Store.Now().Sub(last) > 2*w.engine.every })
			}
			moved := w.gate(1).ExpiresAt.Sub(gate.ExpiresAt) - by
			if moved.Abs() > time.Second || w.instance("petstore-qa-1").ExpiresAt.Sub(qa.ExpiresAt)-by-moved != 0 {
				w.Fatalf("the gate's end moved by %s more than the clock, the environment's from %s to %s", moved, qa.ExpiresAt, w.instance("petstore-qa-1").ExpiresAt)
			}
			w.want("the gate", []any{w.gate(1).State, w.gate(1).Reminders, w.build(1).Status}, []any{delivery.GateOpen, 0, delivery.BuildWaiting})
			w.want("the QA", w.instance("petstore-qa-1").State, delivery.InstanceUp)
			w.want("the lease of the build whose job runs", w.build(2).LeaseFence, fence)
			w.sh("rm slow")
			w.ship(1)
			w.ship(2)
			w.want("attempts of the job", w.node(2, "job/build").Attempt, 1)
			b, err := w.engine.Rollback(w.ctx, project, 0, "bob", "the cart is empty")
			w.ok(err)
			w.want("what ran before", b.Number, 1)
			w.reach(1, delivery.BuildSucceeded)
			w.until("it runs", func() bool { return w.project().RunningBuild == 1 })

			w.ok(w.engine.Hold(w.ctx, project, "bob", "", true))
			w.push("develop", "", "three")
			w.reach(3, delivery.BuildWaiting)
			w.clock.step(73 * time.Hour) // time that passes
			w.reach(3, delivery.BuildExpired)
			w.audited(3, "shunt", "gate expired")
		})
	}
}

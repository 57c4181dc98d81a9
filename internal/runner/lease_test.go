package runner

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
)

// A shim whose runner hangs ends its job by itself when the lease ends. Here the
// runner is the test, which never renews.
func TestAShimEndsItsJobWithTheLease(t *testing.T) {
	t.Parallel()
	shim, err := startShim()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shim.discard)
	work := shimSpec{Steps: [][]byte{[]byte("sleep 300")}, Env: byteLists([]string{"PATH=" + defaultPath}), Dir: []byte(t.TempDir()), Until: sinceBoot() + 300*time.Millisecond}
	if err := shim.send(work); err != nil {
		t.Fatal(err)
	}
	ended := make(chan shimFinal, 1)
	go func() {
		for events := json.NewDecoder(shim.status); ; {
			var e shimEvent
			if events.Decode(&e) != nil {
				return
			}
			if e.Final != nil {
				ended <- *e.Final
				return
			}
		}
	}()
	select {
	case final := <-ended:
		if final.State != delivery.AttemptLost || sinceBoot() < work.Until {
			t.Errorf("it ended as %+v, %s before its lease", final, work.Until-sinceBoot())
		}
	case <-time.After(patience):
		t.Error("the job runs on after the lease of its runner")
	}
}

// A runner that has to hold a lease and has none starts nothing; nor does it start
// what was asked for too long ago.
func TestNothingStartsWithoutALease(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	late := b.spec("late", "true")
	late.Asked = sinceBoot() - AskedTime - time.Second
	if _, err := b.Start(t.Context(), late); !errors.Is(err, delivery.ErrLeaseLost) {
		t.Errorf("a job that was asked for too long ago: %v", err)
	}
	late.Asked = sinceBoot()
	b.want(b.run(late), delivery.AttemptSucceeded)

	b.killRunner(9)
	if err := save(linkPath(b.dir), Link{}); err != nil { // there are servers, and it hears none
		t.Fatal(err)
	}
	b.spawn()
	if _, err := b.Start(t.Context(), b.spec("alone", "true")); !errors.Is(err, ErrNoLease) {
		t.Errorf("a job of a runner without a lease: %v", err)
	}
}

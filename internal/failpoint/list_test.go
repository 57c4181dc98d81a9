package failpoint_test

import (
	"slices"
	"testing"

	"github.com/shuntcd/shunt/internal/failpoint"
)

var all = []string{failpoint.BeforeIntent, failpoint.AfterIntent, failpoint.BeforeCall, failpoint.BeforeRecord, failpoint.AfterRecord, failpoint.BeforeAnswer}

// Every effect has points before and after it, known and in order.
func TestEveryEffectHasItsPoints(t *testing.T) {
	t.Parallel()
	for effect, positions := range failpoint.Effects() {
		last := -1
		for _, p := range positions {
			at := slices.Index(all, p)
			if at <= last {
				t.Errorf("%s.%s is unknown, or out of order", effect, p)
			}
			last = at
		}
		if len(positions) < 2 || slices.Index(all, positions[0]) > slices.Index(all, failpoint.BeforeCall) || last < slices.Index(all, failpoint.BeforeRecord) {
			t.Errorf("%s has no point before or none after its call: %v", effect, positions)
		}
	}
	names := failpoint.Names()
	if len(slices.Compact(slices.Clone(names))) != len(names) {
		t.Error("a point is listed twice")
	}
}

// In a normal binary a point does nothing, and costs nothing that is counted.
func TestAPointCostsNothing(t *testing.T) { //nolint:paralleltest // counts allocations
	if n := testing.AllocsPerRun(1000, func() {
		if failpoint.Hit("deploy", failpoint.BeforeCall) != nil {
			t.Error("a point of a normal binary answered an error")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

package server

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/store"
)

func TestTestChanges(t *testing.T) {
	t.Parallel()
	test := func(name string, state delivery.TestState, millis int64) store.NodeTest {
		return store.NodeTest{Node: "job/a", TestCase: delivery.TestCase{Class: "cart", Name: name, State: state, Millis: millis}}
	}
	was := []store.NodeTest{test("A", delivery.TestPassed, 100), test("B", delivery.TestFailed, 100), test("C", delivery.TestPassed, 300), test("D", delivery.TestPassed, 1), test("E", delivery.TestFailed, 1)}
	is := []store.NodeTest{test("A", delivery.TestFailed, 100), test("B", delivery.TestFlaky, 599), test("C", delivery.TestPassed, 900), test("E", delivery.TestFailed, 1), test("N", delivery.TestFailed, 9000)}
	want := api.TestChanges{Failing: []string{"cart.A", "cart.N"}, Fixed: []string{"cart.B"}, New: []string{"cart.N"}, Gone: []string{"cart.D"}, Slower: []api.SlowerTest{{Name: "cart.C", Was: 300 * time.Millisecond, Is: 900 * time.Millisecond}}}
	if d := cmp.Diff(want, testChanges(was, is)); d != "" {
		t.Error(d)
	}
	many := make([]store.NodeTest, 0, 250)
	for i := range 250 {
		many = append(many, test(fmt.Sprintf("T%03d", i), delivery.TestPassed, 1))
	}
	if got := testChanges(nil, many).New; len(got) != namesShown+1 || got[namesShown] != "and 150 more" {
		t.Errorf("%d names, the last is %q", len(got), got[len(got)-1])
	}
}

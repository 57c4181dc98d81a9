package server

import (
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/testkit/fill"
)

// A freeze is seen wherever a hold is: of the freezes of the first project builds
// 35 and 42 have brought the active ones, and that of build 35 ends last.
func TestAFreezeIsSeenOnPages(t *testing.T) {
	t.Parallel()
	size := fill.Size{Projects: 2, Builds: 42, Open: 4, Jobs: 1, Tests: 2, Living: 1, Lines: 2, Rest: 4}
	c := countedServer(t, size)
	p := fill.Project(0)
	gate := func(number int64) string { return "/a/" + fill.Gate(p, number, "production") }
	const until = "frozen until 20"
	for path, want := range map[string][]string{
		"/":                                  {"▲</span> frozen</span>"},
		"/" + p:                              {"Frozen: the main lane does not promote", "/" + p + "/timeline/freezes/5/end"},
		gate(42):                             {"Look twice", "the main lane is " + until, "thaw (ana)", "Promote build 42"}, // a hotfix
		gate(41):                             {"It cannot be promoted now", "promotions of the main lane are " + until, "shunt freeze end " + p + " 5"},
		"/" + p + "/timeline":                {"Take the freeze back", "End the freeze now", "The main lane was frozen", "A freeze was planned"},
		"/badge/" + p + "/deployments.ics":   {"SUMMARY:" + p + ": the main lane is frozen"},
		"/api/v1/projects/" + p + "/freezes": {`"state":"planned"`, `"state":"active"`},
	} {
		body := c.page(t, path)
		for _, w := range want {
			if !strings.Contains(body, w) {
				t.Errorf("%s lacks %q", path, w)
			}
		}
	}
	if other := c.page(t, "/api/v1/projects/"+fill.Project(1)); strings.Contains(other, "freeze") {
		t.Errorf("the other project is frozen, too: %s", other)
	}
}

package web

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// tracker is what a pipeline file says of tickets.
func tracker() delivery.Tickets {
	return delivery.Tickets{Pattern: `SHOP-[0-9]+`, URL: "https://tracker.example.org/browse/{ticket}"}
}

func TestTicketsOfASubject(t *testing.T) {
	t.Parallel()
	const at = "https://tracker.example.org/browse/"
	anything := delivery.Tickets{Pattern: `\S+`, URL: at + "{ticket}?x=1"}
	for name, c := range map[string]struct {
		text string
		t    delivery.Tickets
		want []namedText
	}{
		"none asked":   {"Fix SHOP-1", delivery.Tickets{}, []namedText{{"Fix SHOP-1", ""}}},
		"none there":   {"Fix the cart", tracker(), []namedText{{"Fix the cart", ""}}},
		"empty":        {"", tracker(), []namedText{{"", ""}}},
		"two":          {"SHOP-1, SHOP-22: fix", tracker(), []namedText{{"SHOP-1", at + "SHOP-1"}, {", ", ""}, {"SHOP-22", at + "SHOP-22"}, {": fix", ""}}},
		"bad pattern":  {"SHOP-1", delivery.Tickets{Pattern: "(", URL: at + "{ticket}"}, []namedText{{"SHOP-1", ""}}},
		"bad address":  {"SHOP-1", delivery.Tickets{Pattern: "SHOP-1", URL: "javascript:alert({ticket})"}, []namedText{{"SHOP-1", ""}}},
		"other path":   {"../../admin?a=b&c=d#e", anything, []namedText{{"../../admin?a=b&c=d#e", at + "..%2F..%2Fadmin%3Fa%3Db%26c%3Dd%23e?x=1"}}},
		"a plus":       {"a+b", anything, []namedText{{"a+b", at + "a%2Bb?x=1"}}},
		"a tag":        {"<b>", anything, []namedText{{"<b>", at + "%3Cb%3E?x=1"}}},
		"another name": {"{ticket}", anything, []namedText{{"{ticket}", at + "%7Bticket%7D?x=1"}}},
		"blanks":       {"a b", delivery.Tickets{Pattern: "a b", URL: at + "{ticket}"}, []namedText{{"a b", at + "a%20b"}}},
		"nothing":      {"ab", delivery.Tickets{Pattern: "x*", URL: at + "{ticket}"}, []namedText{{"ab", ""}}},
	} {
		if diff := cmp.Diff(c.want, namedTexts(c.text, c.t), cmp.AllowUnexported(namedText{})); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
	many := namedTexts(strings.Repeat("SHOP-1 ", 1000), tracker())
	if len(many) != 2*maxTickets {
		t.Errorf("%d parts of a long text", len(many))
	}
	all := ticketsOf([]api.Commit{{Subject: "SHOP-1"}, {Subject: "x"}, {Subject: "SHOP-2 and SHOP-1"}}, tracker())
	if len(all) != 2 || all[1].text != "SHOP-2" {
		t.Errorf("of commits: %v", all)
	}
}

// A ticket in a commit's subject is a link on the three pages that show commits,
// and what stands beside it stays text.
func TestTicketsOnPages(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.tickets = tracker()
	f.subject = `SHOP-7 <img src=x onerror=alert(1)>" onmouseover="alert(1) javascript:alert(1)`
	f.gate = f.newGate()
	ts := serve(t, f)
	for _, path := range []string{"/petstore/43", "/a/7KQ2MXPA", "/petstore/compare?from=41&to=43"} {
		got := ask(t, ts, http.MethodGet, path, goodSession, "")
		if got.status != http.StatusOK {
			t.Fatalf("%s: %d", path, got.status)
		}
		elements, text := parse(t, got.body)
		harmless(t, path, elements)
		links := 0
		for _, e := range elements {
			if e.name == "a" && e.attrs["href"] == "https://tracker.example.org/browse/SHOP-7" && e.text == "SHOP-7" {
				links++
			}
		}
		if links == 0 || !strings.Contains(text, strings.TrimPrefix(f.subject, "SHOP-7")) {
			t.Errorf("%s: %d links\n%s", path, links, text)
		}
	}
}

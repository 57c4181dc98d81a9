package web

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
)

// unseen are the forms that do the same whatever has changed.
func unseen() []string {
	return []string{"/logout", "/petstore/sync", "/petstore/settings/test-mail"}
}

// TestEveryFormSaysWhatItsSenderSaw finds no form on any page without the number
// of what was seen; a request has a version of its own.
func TestEveryFormSaysWhatItsSenderSaw(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.incident = "master was moved"
	f.happen(0, "shunt", "incident", f.incident)
	ts := serve(t, f)
	found := map[string]bool{}
	for _, path := range pagePaths() {
		elements, _ := parse(t, ask(t, ts, http.MethodGet, path, goodSession, "").body)
		for i, e := range elements {
			if e.name != "form" || e.attrs["method"] != "post" || slices.Contains(unseen(), e.attrs["action"]) {
				continue
			}
			fields := map[string]string{}
			for _, in := range elements[i+1:] {
				if in.name == "form" {
					break
				}
				fields[in.attrs["name"]] = in.attrs["value"]
			}
			found[e.attrs["action"]] = true
			if fields["seen"] != "13" && (fields["version"] != "1" || fields["commit"] != commitOf("43")) {
				t.Errorf("%s: the form of %s does not say what was seen: %v", path, e.attrs["action"], fields)
			}
		}
	}
	if len(found) < 12 {
		t.Errorf("only the forms of %v were found", found)
	}
}

// TestAnOldPageDoesNothing sends every form of a page that was opened before
// somebody else did something.
func TestAnOldPageDoesNothing(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	of := map[string]Subject{
		"/petstore/hold":                                {Concern: OfProject},
		"/petstore/release-hold":                        {Concern: OfProject},
		"/petstore/clear-incident":                      {Concern: OfProject},
		"/petstore/timeline/freezes":                    {Concern: OfProject},
		"/petstore/timeline/freezes/7/end":              {Concern: OfProject, Name: "7"},
		"/petstore/rollback":                            {Concern: OfProject},
		"/petstore/43/rollback":                         {Concern: OfProject, Number: 43},
		"/petstore/43/cancel":                           {Concern: OfBuild, Number: 43},
		"/petstore/43/rerun":                            {Concern: OfBuild, Number: 43},
		"/petstore/43/resolve":                          {Concern: OfBuild, Number: 43},
		"/petstore/environments/petstore-qa-43/keep":    {Concern: OfEnvironment, Name: "petstore-qa-43"},
		"/petstore/environments/petstore-qa-43/destroy": {Concern: OfEnvironment, Name: "petstore-qa-43"},
		"/petstore/settings/secrets":                    {Concern: OfSecret, Name: "KEY"},
		"/petstore/settings/delete-secret":              {Concern: OfSecret, Name: "KEY"},
	}
	const form = "reason=because+%3Cb%3E&action=retry&extend=8h&name=+KEY&value=hush"
	const evil = "<script>alert(1)</script>"
	f.happen(43, "ben", "cancel", "too "+evil+" late")
	f.happen(0, "shunt", "incident", "")
	for _, path := range formPaths() {
		if slices.Contains(unseen(), path) || path == "/a/7KQ2MXPA" {
			continue
		}
		for _, broken := range []string{"", "seen=&", "seen=x&", "seen=-1&", "seen=99999999999999999999&"} {
			if got := ask(t, ts, http.MethodPost, path, goodSession, broken+form); got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, "does not say what you saw") {
				t.Errorf("%s with %q: %d", path, broken, got.status)
			}
		}
		got := ask(t, ts, http.MethodPost, path, goodSession, "seen=12&"+form)
		if got.status != http.StatusConflict {
			t.Errorf("%s: %d", path, got.status)
		}
		if want := fmt.Sprint("Since petstore ", of[path], " 12"); f.last() != want {
			t.Errorf("%s asked %q, want %q", path, f.last(), want)
		}
		elements, text := parse(t, got.body)
		harmless(t, path, elements)
		for _, want := range []string{"the page was old", "shunt: incident, Sun 22 Nov 03:12 UTC\nben: cancel (build 43), Sun 22 Nov 03:12 UTC: too " + evil + " late", "Look again", "You had written: because <b>"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not say %q:\n%s", path, want, text)
			}
		}
		if strings.Contains(got.body, "hush") {
			t.Errorf("%s shows the secret", path)
		}
		if back := parentPage(path); !strings.Contains(got.body, `<a href="`+back+`">Back to the page</a>`) {
			t.Errorf("%s leads not back to %s", path, back)
		}
		if f.count() != 0 {
			t.Fatalf("%s did something: %v", path, f.calls)
		}
	}
	// A refusal of the act itself keeps what was written, too, and so does a gate.
	f.failing = notFound("no such build")
	if got := ask(t, ts, http.MethodPost, "/petstore/43/cancel", goodSession, "seen=14&reason=why"); got.status != http.StatusNotFound || !strings.Contains(got.body, "</strong> why") {
		t.Errorf("a refusal: %d %s", got.status, got.body)
	}
	f.failing = nil
	if got := ask(t, ts, http.MethodPost, "/a/7KQ2MXPA", goodSession, "decision=reject&version=9&reason=why&commit="+commitOf("43")); got.status != http.StatusConflict || !strings.Contains(got.body, "</strong> why") {
		t.Errorf("a gate: %d %s", got.status, got.body)
	}
}

// TestFormsFollowTheirPage has somebody write a reason while others act: the page
// shows what they do, and so the form may be sent. When no events come any more,
// the page is old, and the form is refused.
func TestFormsFollowTheirPage(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	inner := ts.Config.Handler
	var cut atomic.Bool
	ts.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cut.Load() && r.Header.Get("HX-Request") != "" { // the stream, and the page that is fetched again
			http.Error(w, "cut", http.StatusServiceUnavailable)
			return
		}
		inner.ServeHTTP(w, r)
	})
	ctx, complaints := browse(t, ts, 1280, 800, "0")
	write := func(page, ask, half string) {
		t.Helper()
		do(t, ctx, chromedp.Navigate(ts.URL+page))
		eventually(t, ctx, `document.querySelector("#events")`)
		do(t, ctx, chromedp.Click(chromedp.CSS(ask+" summary")))
		do(t, ctx, chromedp.SendKeys(chromedp.CSS(ask+" textarea"), half))
	}
	send := func(ask, rest string) {
		t.Helper()
		do(t, ctx, chromedp.SendKeys(chromedp.CSS(ask+" textarea"), rest))
		do(t, ctx, chromedp.Click(chromedp.CSS(ask+" button")))
	}

	write("/petstore", "#ask-hold", "the till ")
	f.mu.Lock()
	f.incident = "master was moved"
	f.mu.Unlock()
	f.happen(0, "shunt", "incident", "master was moved")
	f.emit("project")
	eventually(t, ctx, `document.querySelector("#ask-clear-incident")`) // above it, a form like it
	eventually(t, ctx, `document.activeElement === document.querySelector("#ask-hold[open] textarea")`)
	send("#ask-hold", "is broken")
	eventually(t, ctx, `location.pathname === "/petstore" && document.querySelector("#ask-hold:not([open])")`)
	for _, call := range []string{"Since petstore {project 0 } 13", "Hold {ana 127.0.0.1, page} petstore the till is broken"} {
		f.mu.Lock()
		if !slices.Contains(f.calls, call) {
			t.Errorf("lacks %q: %q", call, f.calls)
		}
		f.mu.Unlock()
	}
	if c := complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %s", strings.Join(c, "\n"))
	}

	write("/petstore/43", "#ask-cancel", "not ")
	cut.Store(true)
	ts.CloseClientConnections()
	eventually(t, ctx, `document.querySelector(".lost").checkVisibility()`)
	f.happen(43, "ben", "promoted", "it is fine")
	f.emit("gate")
	send("#ask-cancel", "this one")
	eventually(t, ctx, `document.querySelector("h1").textContent.includes("the page was old") && document.body.innerText.includes("ben: promoted (build 43)") && document.body.innerText.includes("it is fine") && document.body.innerText.includes("You had written: not this one")`)
	if f.count() != 1 {
		t.Error("something was done")
	}
	do(t, ctx, chromedp.Click(chromedp.CSS("main a")))
	eventually(t, ctx, `location.pathname === "/petstore/43" && document.querySelector("#ask-cancel [name=seen]").value === "14"`)
}

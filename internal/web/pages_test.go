package web

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func TestSignIn(t *testing.T) {
	t.Parallel()
	ts := serve(t, newFake())
	page := ask(t, ts, http.MethodGet, "/login?once="+goodOnce+"&next=/a/7KQ2MXPA", "", "")
	if page.status != http.StatusOK || !strings.Contains(page.body, goodOnce) || page.header.Get("Referrer-Policy") != "same-origin" {
		t.Errorf("page: %d %v", page.status, page.header)
	}
	if got := ask(t, ts, http.MethodGet, "/login", "", ""); !strings.Contains(got.body, "shunt login-link") {
		t.Error("the page does not say how to get a link")
	}
	got := ask(t, ts, http.MethodPost, "/login", "", "once="+goodOnce+"&next=/a/7KQ2MXPA")
	cookie := got.header.Get("Set-Cookie")
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/a/7KQ2MXPA" || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") || strings.Contains(cookie, "Secure") {
		t.Errorf("login: %d %v", got.status, got.header)
	}
	if got := ask(t, ts, http.MethodPost, "/login", "", "once="+goodOnce); got.status != http.StatusUnauthorized || !strings.Contains(got.body, "shunt login-link") || got.header.Get("Set-Cookie") != "" {
		t.Errorf("second use: %d", got.status)
	}
	if got := ask(t, ts, http.MethodPost, "/logout", goodSession, "x=y"); got.status != http.StatusSeeOther || !strings.Contains(got.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout: %d %v", got.status, got.header)
	}
	// From a web mail: the cookie was kept back, so our own page asks again.
	mail := ask(t, ts, http.MethodGet, "/a/7KQ2MXPA?x=1", "", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate")
	if mail.status != http.StatusOK || !strings.Contains(mail.body, `content="0;url=/a/7KQ2MXPA?x=1"`) {
		t.Errorf("bounce: %d %s", mail.status, mail.body)
	}
	for next, want := range map[string]string{"/": "/", "/a/b?c=d": "/a/b?c=d", "//evil": "/", "/\\evil": "/", "https://evil": "/", "": "/", "/\t/evil": "/", "a": "/", "/%0d%0aX:y": "/%0d%0aX:y"} {
		if got := safeNext(next); got != want {
			t.Errorf("safeNext(%q) = %q", next, got)
		}
	}
	secure := serveConfig(t, Config{Backend: newFake(), PublicURL: "https://shunt.example.org"})
	if got := ask(t, secure, http.MethodPost, "/login", "", "once="+goodOnce); !strings.Contains(got.header.Get("Set-Cookie"), "Secure") {
		t.Errorf("https without Secure: %v", got.header)
	}
	if got := ask(t, secure, http.MethodGet, "/ui", goodSession, ""); got.status != http.StatusNotFound {
		t.Errorf("design page outside development: %d", got.status)
	}
	if got := ask(t, secure, http.MethodGet, "/mail", goodSession, ""); got.status != http.StatusNotFound {
		t.Errorf("mailbox outside the demo: %d", got.status)
	}
}

func TestPagesSayWhatTheyMust(t *testing.T) {
	t.Parallel()
	ts := serve(t, newFake())
	for path, want := range map[string][]string{
		"/":                                 {"petstore", "Decide build 43", `href="/a/7KQ2MXPA"`, "by Ben Okafor", "build <a href=\"/petstore/42\">42</a> failed 26 h", "1 back-merge owed"},
		"/?q=ANA+hotfix":                    {"1 of 1 project", "Decide build 43"},
		"/?q=nothing":                       {"0 of 1 project", "Show all"},
		"/petstore":                         {"Cart answers 500", "does not start at production/41"},
		"/petstore/43":                      {"Decide: put build 43 into production?", "usually 38 min", "412 passed", "nothing failed: promote or reject it", "job/build", "GET /cart/7 200"},
		"/petstore/42":                      {"Why it failed", "smoke: want 200, got 500", "exit code 1", "TestDiscontinued", "Roll back to this build"},
		"/petstore/hotfixes":                {"production/41", "shunt hotfix start NAME", "What it changes in production"},
		"/petstore/hotfixes?name=cart-500":  {"shunt hotfix start cart-500", "git switch -c hotfix/cart-500 " + commitOf("41")},
		"/petstore/hotfixes?name=$(reboot)": {"begins with a letter or a digit", "shunt hotfix start NAME"},
		"/petstore/environments":            {"http://qa-43.example.org", "Keep until the decision", "Destroy it now"},
		"/petstore/back-merges":             {"git merge origin/master", "cart/cart.go"},
		"/petstore/compare":                 {"Build 41 against build 43", "1 commit of build 41 missing in build 43", "cart.TestTotal", "300ms before, 2s now", "+115 B, +2.8 %", "new, 100 B"},
		"/petstore/timeline":                {"was put back into production", "did not get into production", "The main lane was held", "Incident: nothing ships", "ran in production before Shunt came", "in 41 s", "The main lane was frozen", "A freeze was planned", "A freeze was ended"},
		"/petstore/timeline?before=2026-11-01T00:00:00Z": {"went into production"},
		"/petstore/artifacts":                            {"petstore.tar.gz", digest("artifact"), "of build"},
		"/petstore/settings?mailed=2":                    {"on its way to 2 addresses"},
		"/petstore/audit":                                {"gate opened", "Ana Ruiz"},
		"/petstore/settings":                             {"/hooks/petstore", "PROD_SSH_KEY"},
		"/mail/m2":                                       {"Decide here:  <a href=\"http://localhost/a/7KQ2MXPA\""},
		"/petstore/43/log/job/build":                     {"step 1: make test", `<span class="fg-2">ok</span>`, "see https://example.org/docs"},
	} {
		got := ask(t, ts, http.MethodGet, path, goodSession, "")
		for _, w := range want {
			if !strings.Contains(got.body, w) {
				t.Errorf("%s (%d) lacks %q", path, got.status, w)
			}
		}
		if strings.Contains(got.body, "never shown") {
			t.Errorf("%s shows the HTML part", path)
		}
		if n := len(got.body); n > 60_000 {
			t.Errorf("%s: %d bytes", path, n)
		}
	}
}

// TestGateOrder checks the order of the promote page, and that Enter cannot
// send its forms.
func TestGateOrder(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.gate.Warnings = []string{"The pipeline file differs."}
	body := ask(t, serve(t, f), http.MethodGet, "/a/7KQ2MXPA", goodSession, "").body
	at := 0
	for _, want := range []string{
		"Put build 43 into production?", "it replaces build", "9 days", "hotfix cart-500", "Asked by Ana Ruiz", "The request ends", "http://qa-43.example.org", "The change", "1 commit, 2 files", "d-add",
		"412 passed", "3 new", "job/regression", "usually 38 min", "It merges clean into develop.", "The pipeline file differs.", digest("artifact"), "After Promote", "The way back", "The database is not rolled back",
		"Promote build 43 to production", "Reject build 43 ...",
	} {
		i := strings.Index(body[at:], want)
		if i < 0 {
			t.Errorf("%q is missing, or above what it must follow", want)
			continue
		}
		at += i
	}
	elements, _ := parse(t, body)
	for _, e := range elements {
		if e.name == "input" && e.attrs["type"] != "hidden" {
			t.Errorf("a field that Enter would send: %v", e.attrs)
		}
		if _, ok := e.attrs["autofocus"]; ok {
			t.Errorf("%s is focused", e.name)
		}
	}
}

func TestGateIsDecidedOnce(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	form := func(decision, version, more string) string {
		return "decision=" + decision + "&version=" + version + "&commit=" + commitOf("43") + more
	}
	for _, bad := range []string{"", "decision=promote", form("promote", "", ""), form("promote", "0", ""), form("maybe", "1", ""), form("reject", "1", ""), form("reject", "1", "&reason=+++"), form("promote", "1", "&without=40"), form("promote", "1", "&reason="+strings.Repeat("a", 2001))} {
		if got := ask(t, ts, http.MethodPost, "/a/7KQ2MXPA", goodSession, bad); got.status != http.StatusUnprocessableEntity {
			t.Errorf("%.60s: %d", bad, got.status)
		}
	}
	got := ask(t, ts, http.MethodPost, "/a/7KQ2MXPA", goodSession, form("promote", "9", ""))
	if got.status != http.StatusConflict || !strings.Contains(got.body, "QA was run again") || !strings.Contains(got.body, "Promote build 43") {
		t.Errorf("old page: %d", got.status)
	}
	if f.count() != 0 {
		t.Fatalf("changed: %v", f.calls)
	}
	got = ask(t, ts, http.MethodPost, "/a/7KQ2MXPA", goodSession, form("promote", "1", ""))
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/a/7KQ2MXPA" {
		t.Fatalf("promote: %d %s", got.status, got.body)
	}
	if i := slices.IndexFunc(f.calls, func(c string) bool { return strings.HasPrefix(c, "Decide") }); i < 0 || f.calls[i] != "Decide {ana 127.0.0.1, page} petstore 43 {true  1 "+commitOf("43")+" 0}" {
		t.Errorf("calls: %v", f.calls)
	}
	got = ask(t, ts, http.MethodPost, "/a/7KQ2MXPA", goodSession, form("reject", "1", "&reason=no"))
	if got.status != http.StatusConflict || !strings.Contains(got.body, "ana said promoted") || !strings.Contains(got.body, "by ana") || strings.Contains(got.body, "<form method=\"post\" action=\"/a/") {
		t.Errorf("second: %d %s", got.status, got.body)
	}
	got = ask(t, ts, http.MethodGet, "/a/7KQ2MXPA", goodSession, "")
	if got.status != http.StatusOK || !strings.Contains(got.body, "Build 43: promoted") || !strings.Contains(got.body, "petstore.tar.gz") || !strings.Contains(got.body, `data-log="/api/v1/projects/petstore/builds/43/log?`) {
		t.Errorf("record: %d %s", got.status, got.body)
	}
	if f.count() != 1 {
		t.Errorf("%d decisions", f.count())
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	for _, tt := range []struct{ path, form, call, back string }{
		{"/petstore/sync", "a=b", "Sync petstore", "/petstore"},
		{"/petstore/hold", "reason=freeze", "Hold {ana 127.0.0.1, page} petstore freeze", "/petstore"},
		{"/petstore/release-hold", "reason=go", "ReleaseHold {ana 127.0.0.1, page} petstore go", "/petstore"},
		{"/petstore/timeline/freezes", "reason=Christmas&from=2026-12-24+18:00&until=+2027-01-02+08:00+", "PlanFreeze {ana 127.0.0.1, page} petstore 2026-12-24T18:00:00Z 2027-01-02T08:00:00Z Christmas", "/petstore/timeline"},
		{"/petstore/timeline/freezes", "reason=Now&from=&until=2027-01-02+08:00", "PlanFreeze {ana 127.0.0.1, page} petstore 0001-01-01T00:00:00Z 2027-01-02T08:00:00Z Now", "/petstore/timeline"},
		{"/petstore/timeline/freezes/7/end", "reason=no+sale", "EndFreeze {ana 127.0.0.1, page} petstore 7 no sale", "/petstore/timeline"},
		{"/petstore/clear-incident", "reason=seen", "ClearIncident {ana 127.0.0.1, page} petstore seen", "/petstore"},
		{"/petstore/rollback", "reason=bad", "Rollback {ana 127.0.0.1, page} petstore {0 bad}", "/petstore"},
		{"/petstore/41/rollback", "reason=bad", "Rollback {ana 127.0.0.1, page} petstore {41 bad}", "/petstore/41"},
		{"/petstore/43/cancel", "reason=stop", "Cancel {ana 127.0.0.1, page} petstore 43 stop", "/petstore/43"},
		{"/petstore/43/rerun", "a=b", "Rerun {ana 127.0.0.1, page} petstore 43", "/petstore/43"},
		{"/petstore/43/resolve", "reason=r&action=confirm-live", "Resolve {ana 127.0.0.1, page} petstore 43 {confirm-live r}", "/petstore/43"},
		{"/petstore/environments/petstore-qa-43/keep", "extend=8h", "Keep {ana 127.0.0.1, page} petstore petstore-qa-43 8h nil", "/petstore/environments"},
		{"/petstore/environments/petstore-qa-43/keep", "pin=true", "Keep {ana 127.0.0.1, page} petstore petstore-qa-43  true", "/petstore/environments"},
		{"/petstore/environments/petstore-qa-43/destroy", "a=b", "Destroy {ana 127.0.0.1, page} petstore petstore-qa-43", "/petstore/environments"},
		{"/petstore/settings/secrets", "name=KEY&value=a%0D%0Ab", "SetSecret {ana 127.0.0.1, page} petstore KEY a\nb", "/petstore/settings"},
		{"/petstore/settings/test-mail", "a=b", "TestMail {ana 127.0.0.1, page} petstore", "/petstore/settings?mailed=2#mail"},
		{"/petstore/settings/delete-secret", "name=KEY", "DeleteSecret {ana 127.0.0.1, page} petstore KEY", "/petstore/settings"},
	} {
		got := ask(t, ts, http.MethodPost, tt.path, goodSession, "seen=12&"+tt.form)
		if got.status != http.StatusSeeOther || got.header.Get("Location") != tt.back || f.last() != tt.call {
			t.Errorf("%s: %d to %s: %q", tt.path, got.status, got.header.Get("Location"), f.last())
		}
		if strings.Contains(tt.form, "reason") {
			if got := ask(t, ts, http.MethodPost, tt.path, goodSession, "seen=12&reason=+"); got.status != http.StatusUnprocessableEntity {
				t.Errorf("%s without a reason: %d", tt.path, got.status)
			}
		}
	}
	if got := ask(t, ts, http.MethodPost, "/petstore/settings/secrets", goodSession, "name=A&value="+strings.Repeat("a", maxForm)); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("huge form: %d", got.status)
	}
	f.failing = &delivery.Error{Kind: delivery.KindRefused, What: "cannot hold", Why: "because", Next: "do that"}
	got := ask(t, ts, http.MethodPost, "/petstore/hold", goodSession, "seen=12&reason=x")
	if got.status != http.StatusConflict || !strings.Contains(got.body, "cannot hold") || !strings.Contains(got.body, "do that") || !strings.Contains(got.body, `href="/petstore"`) {
		t.Errorf("refusal: %d %s", got.status, got.body)
	}
}

// A freeze is where people look: what is planned on the timeline, what is active
// beside the project's name, and both with a way to end it.
func TestFreezesAreShown(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	page := func(path string) string { return ask(t, ts, http.MethodGet, path, goodSession, "").body }
	timeline := page("/petstore/timeline")
	at := 0
	for _, want := range []string{
		"Planned", "active", "the till moves", `action="/petstore/timeline/freezes/4/end"`, "End the freeze now", "planned", "Fri 25 Dec 2026 11:12 UTC", "Christmas", `action="/petstore/timeline/freezes/7/end"`, "Take the freeze back",
		`action="/petstore/timeline/freezes"`, "From, in UTC", `placeholder="2026-11-22 03:12"`, "Until, in UTC", "it is now 2026-11-22 03:12", "Past", "was put back into production",
	} {
		i := strings.Index(timeline[at:], want)
		if i < 0 {
			t.Errorf("the timeline lacks %q, or has it above what it must follow", want)
			continue
		}
		at += i
	}
	for _, past := range []string{"the great sale", "the tax office", "/freezes/5/end"} {
		if strings.Contains(timeline, past) {
			t.Errorf("%q is planned", past)
		}
	}
	if older := page("/petstore/timeline?before=2026-11-01T00:00:00Z"); strings.Contains(older, "Planned") {
		t.Error("an older page begins with what is planned")
	}
	for path, words := range map[string][2]string{
		"/":            {"", " frozen</span>"},
		"/?q=till":     {"0 of 1", "1 of 1"},
		"/?q=frozen":   {"0 of 1", "1 of 1"},
		"/petstore":    {"A freeze is planned, from", "Frozen: the main lane does not promote"},
		"/petstore?x=": {"Fri 25 Dec 2026 11:12 UTC", `action="/petstore/timeline/freezes/4/end"`},
	} {
		for i, n := range []int{0, 2} { // planned, active
			f.freeze = &f.freezes()[n]
			got := page(path)
			if !strings.Contains(got, words[i]) || words[1-i] != "" && strings.Contains(got, words[1-i]) {
				t.Errorf("%s, freeze %d: want %q and not %q", path, n, words[i], words[1-i])
			}
		}
	}
	for _, form := range []string{"from=2026-12-24+18:00", "from=tomorrow&until=2027-01-02+08:00", "from=2026-12-24T18:00&until=2027-01-02+08:00", "until=2026-02-30+10:00", "until=%3Cb%3E" + strings.Repeat("a", 5000)} {
		got := ask(t, ts, http.MethodPost, "/petstore/timeline/freezes", goodSession, "seen=12&reason=x&"+form)
		if got.status != http.StatusUnprocessableEntity || !strings.Contains(got.body, "is no date and time in UTC, such as 2026-11-22 03:12") || len(got.body) > 5000 || strings.Contains(got.body, "<b>") {
			t.Errorf("%.60s: %d %.900s", form, got.status, got.body)
		}
	}
	if got := ask(t, ts, http.MethodPost, "/petstore/timeline/freezes/x/end", goodSession, "seen=12&reason=x"); got.status != http.StatusNotFound {
		t.Errorf("a freeze x: %d", got.status)
	}
	if f.count() != 0 {
		t.Errorf("the backend was changed: %v", f.calls)
	}
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	bad := ask(t, ts, http.MethodPost, "/hooks/petstore", "", `{}`)
	none := ask(t, ts, http.MethodPost, "/hooks/nothing", "", `{}`, "X-Shunt-Signature", "good")
	if bad.status != http.StatusUnauthorized || none.status != http.StatusUnauthorized || bad.body != none.body || strings.Contains(bad.body, "secret detail") {
		t.Errorf("401 differs: %d %s / %d %s", bad.status, bad.body, none.status, none.body)
	}
	if got := ask(t, ts, http.MethodPost, "/hooks/petstore", "", `{"a":1}`, "X-Shunt-Signature", "good"); got.status != http.StatusAccepted || strings.TrimSpace(got.body) != "{}" || f.last() != `Hook petstore {"a":1} false` {
		t.Errorf("hook: %d %q %q", got.status, got.body, f.last())
	}
	if got := ask(t, ts, http.MethodPost, "/hooks/petstore?wait=1", "", `{}`, "X-Shunt-Signature", "good"); got.status != http.StatusOK || !strings.Contains(got.body, `"build":44`) {
		t.Errorf("wait: %d %q", got.status, got.body)
	}
	if got := ask(t, ts, http.MethodPost, "/hooks/petstore", "", strings.Repeat("a", maxHook+1), "X-Shunt-Signature", "good"); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("huge body: %d", got.status)
	}
	// Forges send from anywhere; a browser's cookie changes nothing.
	if got := ask(t, ts, http.MethodPost, "/hooks/petstore", goodSession, `{}`); got.status != http.StatusUnauthorized {
		t.Errorf("by cookie: %d", got.status)
	}
}

func TestEventsResume(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	open := func(path, last string) (*bufio.Scanner, context.CancelFunc) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, ts.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(&http.Cookie{Name: cookieName, Value: goodSession})
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		resp, err := ts.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
			t.Fatalf("Content-Type %q", ct)
		}
		return bufio.NewScanner(resp.Body), cancel
	}
	next := func(s *bufio.Scanner) string {
		for s.Scan() {
			if strings.HasPrefix(s.Text(), "id: ") {
				id := s.Text()
				s.Scan()
				return id + ", " + s.Text()
			}
		}
		t.Fatalf("stream ended: %v", s.Err())
		return ""
	}
	s, cancel := open("/events?project=petstore&number=43", "")
	f.emit("node")
	f.emit("log")
	if got := next(s); got != "id: 1, event: change" {
		t.Errorf("first: %s", got)
	}
	if got := next(s); got != "id: 2, event: log" {
		t.Errorf("second: %s", got)
	}
	cancel()
	f.emit("gate")
	s, cancel = open("/events?project=petstore", "2")
	if got := next(s); got != "id: 3, event: change" {
		t.Errorf("after the break: %s", got)
	}
	cancel()
	s, cancel = open("/events?project=other", "1")
	defer cancel()
	f.mu.Lock()
	f.events = append(f.events, f.events[0])
	f.events[3].ID, f.events[3].Project = 4, "other"
	sub := f.subs[len(f.subs)-1]
	sub <- f.events[3]
	f.mu.Unlock()
	if got := next(s); got != "id: 4, event: change" {
		t.Errorf("another project's events came: %s", got)
	}
	if got := ask(t, ts, http.MethodGet, "/events", goodSession, "", "Last-Event-ID", "x"); got.status != http.StatusUnprocessableEntity {
		t.Errorf("bad id: %d", got.status)
	}
}

// TestLogWindows walks through a long log, page by page.
func TestLogWindows(t *testing.T) {
	t.Parallel()
	f := newFake()
	l := newLog()
	for i := range 2500 {
		l.add(fmt.Sprintf("|line %04d.", i))
	}
	f.logs["job/build"] = l.end()
	ts := serve(t, f)
	lines := func(path string) (first, last string, links map[string]string) {
		t.Helper()
		got := ask(t, ts, http.MethodGet, path, goodSession, "")
		elements, text := parse(t, got.body)
		if got.status != http.StatusOK {
			t.Fatalf("%s: %d", path, got.status)
		}
		links = map[string]string{}
		for _, e := range elements {
			links[e.text] = e.attrs["href"]
		}
		return text[strings.Index(text, "line "):][:9], text[strings.LastIndex(text, "line "):][:9], links
	}
	first, last, links := lines("/petstore/43/log/job/build")
	if first != "line 1500" || last != "line 2499" || links["Lines after"] != "" {
		t.Errorf("the end: %s to %s", first, last)
	}
	first, last, links = lines(links["Lines before"])
	if first != "line 0500" || last != "line 1499" {
		t.Errorf("before: %s to %s", first, last)
	}
	if first, last, _ := lines(links["Lines after"]); first != "line 1500" || last != "line 2499" {
		t.Errorf("after: %s to %s", first, last)
	}
	if first, last, _ := lines(links["First lines"]); first != "line 0000" || last != "line 0999" {
		t.Errorf("the beginning: %s to %s", first, last)
	}
	if first, last, _ := lines("/petstore/43/log/job/build?line=700"); first != "line 0679" || last != "line 1678" {
		t.Errorf("around line 700: %s to %s", first, last)
	}
	for path, want := range map[string]string{
		"?line=700&to=702":              `class="line chosen" id="L702"`,
		"?line=99999":                   "Lines 2500 to 2500 of 2500",
		"?line=x":                       "Lines 1501 to 2500 of 2500",
		"?attempt=x&first=-3":           "Lines 1501 to 2500 of 2500",
		"?q=LINE+21&line=2105":          "is match 5 of 100:",
		"?q=line+2499":                  `class="line chosen hit" id="L2500"`,
		"?q=nowhere":                    "No line has",
		"?time=relative&first=1":        `>0:00.0</span>`,
		"?q=line+00&time=relative":      "time=relative#L2",
		"?q=" + strings.Repeat("a", 99): "No line has",
	} {
		if got := ask(t, ts, http.MethodGet, "/petstore/43/log/job/build"+path, goodSession, ""); got.status != http.StatusOK || !strings.Contains(got.body, want) {
			t.Errorf("%s: %d lacks %q", path, got.status, want)
		}
	}
	found := ask(t, ts, http.MethodGet, "/api/v1/projects/petstore/builds/43/log/search?node=job/build&q=line+21&from=2105", goodSession, "")
	if !strings.Contains(found.body, `"count":100,"nth":5,"line":2105,"previous":2104,"next":2106`) {
		t.Errorf("search: %d %s", found.status, found.body)
	}
	if _, last, _ := lines("/petstore/43?node=job/build"); last != "line 2499" {
		t.Errorf("below the build: %s", last)
	}
}

// TestExpected adds up the usual times of what is still to do, along the longest
// way, up to the gate.
func TestExpected(t *testing.T) {
	t.Parallel()
	node := func(name string, kind delivery.NodeKind, state delivery.NodeState, usual time.Duration, needs ...string) api.Node {
		return api.Node{Name: name, Kind: kind, State: state, Usual: usual, Needs: needs, StartedAt: now().Add(-time.Minute)}
	}
	nodes := []api.Node{
		node("job/build", delivery.NodeJob, delivery.NodeRunning, 3*time.Minute),
		node("job/lint", delivery.NodeJob, delivery.NodeSucceeded, 9*time.Minute),
		node("job/test", delivery.NodeJob, delivery.NodePending, 10*time.Minute, "job/build", "job/lint"),
		node("job/slow", delivery.NodeJob, delivery.NodeSkipped, time.Hour, "job/build"),
		node("gate/production", delivery.NodeGate, delivery.NodePending, 0, "job/test", "job/slow"),
		node("deploy/production", delivery.NodeDeploy, delivery.NodePending, time.Hour, "gate/production"),
	}
	if got := expected(now(), nodes); got != 12*time.Minute {
		t.Errorf("%s", got)
	}
	nodes[0].StartedAt = now().Add(-time.Hour) // longer than usual: nobody knows how long yet
	if got := expected(now(), nodes); got != 10*time.Minute {
		t.Errorf("late: %s", got)
	}
	nodes[2].Usual = 0
	if got := expected(now(), nodes); got != 0 {
		t.Errorf("nothing known: %s", got)
	}
	nodes[0].Needs = []string{"job/test"} // a circle ends
	_ = expected(now(), nodes)
}

// TestLogFolds reads a log with steps and groups, with and without a search.
func TestLogFolds(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.logs["job/build"] = newLog("|before", "#step 1: make", "|::group::Download <b>", "|secret of the group", "|::endgroup::", "|after the group", "#step 2: test", "|::group::open at the end", "|last").end()
	ts := serve(t, f)
	body := ask(t, ts, http.MethodGet, "/petstore/43/log/job/build", goodSession, "").body
	for _, want := range []string{
		`<details class="fold" open><summary class="line marker" id="L2"><span class="ln">2</span>`, `<details class="fold group"><summary class="line" id="L3">`, `<span class="tx">Download &lt;b&gt;</span></summary><div class="line" id="L4">`,
		`</div></details><div class="line" id="L6">`, `</div></details><details class="fold" open><summary class="line marker" id="L7">`, `<span class="tx">last</span></div></details></details></div>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("lacks %s\n%s", want, body)
		}
	}
	for _, path := range []string{"?q=secret", "?line=4"} {
		if body := ask(t, ts, http.MethodGet, "/petstore/43/log/job/build"+path, goodSession, "").body; !strings.Contains(body, `<details class="fold group" open><summary class="line" id="L3">`) || strings.Contains(body, `group" open><summary class="line" id="L8">`) {
			t.Errorf("%s opens the wrong group", path)
		}
	}
}

func TestReservedNames(t *testing.T) {
	t.Parallel()
	for _, p := range slices.Concat([]string{"/login", "/livez", "/readyz", "/hooks/x", "/assets/x/y", "/openapi.json", "/events", "/api/v1/me"}, pagePaths(), formPaths()) {
		first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		first, _, _ = strings.Cut(first, "?")
		if first != "" && first != "petstore" && !slices.Contains(ReservedNames(), first) {
			t.Errorf("%s is not reserved", first)
		}
	}
}

func TestAssets(t *testing.T) {
	t.Parallel()
	ts := serve(t, newFake())
	page := ask(t, ts, http.MethodGet, "/login", "", "").body
	elements, _ := parse(t, page)
	total := len(page)
	for _, e := range elements {
		src := e.attrs["src"] + e.attrs["href"]
		if !strings.HasPrefix(src, "/assets/") {
			continue
		}
		got := ask(t, ts, http.MethodGet, src, "", "", "Accept-Encoding", "gzip")
		if got.status != http.StatusOK || !strings.Contains(got.header.Get("Cache-Control"), "immutable") || got.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: %d %v", src, got.status, got.header)
		}
		total += len(got.body)
	}
	if total > 100_000 {
		t.Errorf("the first load is %d bytes", total)
	}
	if got := ask(t, ts, http.MethodGet, "/assets/old/shunt.css", "", ""); got.status != http.StatusNotFound || strings.Contains(got.header.Get("Cache-Control"), "immutable") {
		t.Errorf("old hash: %d", got.status)
	}
}

func TestPanicIsAnswered(t *testing.T) {
	t.Parallel()
	ts := serveConfig(t, Config{Backend: nil})
	if got := ask(t, ts, http.MethodGet, "/", goodSession, ""); got.status != http.StatusInternalServerError || strings.Contains(got.body, "nil pointer") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if _, err := New(Config{PublicURL: "localhost:8080"}); err == nil {
		t.Error("a public URL without a scheme is taken")
	}
}

package web

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/shuntcd/shunt/internal/delivery"
)

// pagePaths are all the pages.
func pagePaths() []string {
	return []string{
		"/", "/?q=petstore", "/petstore", "/petstore?lane=hotfix&status=waiting&before=50", "/petstore/43", "/petstore/42", "/petstore/43?node=job/build&attempt=1",
		"/petstore/43/log/job/build", "/petstore/43/log/job/build?line=2&to=3&time=relative", "/petstore/43/log/job/build?q=ok&first=2", "/petstore/compare", "/petstore/compare?from=41&to=43", "/petstore/timeline", "/petstore/timeline?before=2026-11-01T00:00:00Z", "/petstore/artifacts", "/petstore/artifacts?before=9",
		"/petstore/hotfixes", "/petstore/hotfixes?name=x", "/petstore/environments", "/petstore/back-merges",
		"/petstore/audit", "/petstore/audit?before=11", "/petstore/settings", "/a/7KQ2MXPA", "/mail", "/mail/m2",
	}
}

// formPaths are all the forms.
func formPaths() []string {
	return []string{
		"/logout", "/a/7KQ2MXPA", "/petstore/sync", "/petstore/hold", "/petstore/release-hold", "/petstore/timeline/freezes", "/petstore/timeline/freezes/7/end", "/petstore/clear-incident", "/petstore/rollback", "/petstore/43/rollback", "/petstore/43/cancel",
		"/petstore/43/rerun", "/petstore/43/resolve", "/petstore/environments/petstore-qa-43/keep", "/petstore/environments/petstore-qa-43/destroy",
		"/petstore/settings/secrets", "/petstore/settings/delete-secret", "/petstore/settings/test-mail",
	}
}

// apiPaths are method and path of all operations that openapi.json lists.
func apiPaths(t *testing.T, doc string) [][2]string {
	t.Helper()
	var spec struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(doc), &spec); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("{project}", "petstore", "{number}", "43", "{id}", "7KQ2MXPA", "{name}", "app")
	var out [][2]string
	for path, ops := range spec.Paths {
		for method := range ops {
			out = append(out, [2]string{strings.ToUpper(method), fill.Replace(path)})
		}
	}
	if len(out) < 30 {
		t.Fatalf("only %d operations", len(out))
	}
	return out
}

// TestNobodyGetsIn covers T49: every route, every method, forty spellings.
func TestNobodyGetsIn(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	closed := func(method, path string, header ...string) {
		t.Helper()
		got := ask(t, ts, method, path, "", "", header...)
		switch {
		case got.status == http.StatusUnauthorized, got.status == http.StatusNotFound:
		case got.status == http.StatusSeeOther && strings.HasPrefix(got.header.Get("Location"), "/login?next="):
		case strings.HasPrefix(path, "/login") || strings.Contains(path, "//login"):
		default:
			t.Errorf("%s %s %v: %d %s", method, path, header, got.status, got.header.Get("Location"))
		}
	}
	routes := apiPaths(t, ask(t, ts, http.MethodGet, "/openapi.json", "", "").body)
	for _, p := range append(pagePaths(), "/badge/petstore/production.svg", "/badge/petstore/cc.xml", "/badge/petstore/nothing?key=", "/events", "/api/v1/nothing", "/no/such/page", "/petstore/43/nothing") {
		routes = append(routes, [2]string{http.MethodGet, p})
	}
	for _, p := range formPaths() {
		routes = append(routes, [2]string{http.MethodPost, p})
	}
	for _, r := range routes {
		for _, m := range []string{r[0], http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
			closed(m, r[1])
		}
		path, _, _ := strings.Cut(r[1], "?")
		for _, m := range []string{
			path + "/", "/" + path, "//" + path, path + ";.jsp", path + "/;/", "/livez/.." + path, "/livez/..;" + path, "/assets/x/..%2f.." + path, "/." + path, path + "/.",
			path + "%00", path + "%20", path + "?x=/livez", path + ".json", path + "#/livez", strings.ToUpper(path), "/%2e%2e" + path, path + "/%2e%2e", "/login%2f.." + path, "/openapi.json/.." + path,
			strings.Replace(path, "/", "/%2f", 1), path + "/..;/livez", path + "%2flivez", path + "\\livez", "/RPC2" + path,
		} {
			if _, err := url.Parse(m); err == nil {
				closed(r[0], m)
			}
		}
	}
	for _, h := range [][]string{
		{"X-HTTP-Method-Override", "GET"},
		{"X-Original-URL", "/livez"},
		{"X-Rewrite-URL", "/livez"},
		{"X-Forwarded-For", "127.0.0.1"},
		{"X-Forwarded-User", "ana"},
		{"Authorization", "Bearer"},
		{"Authorization", "Bearer wrong"},
		{"Authorization", "Basic YW5hOmFuYQ=="},
		{"Authorization", goodToken},
		{"Cookie", cookieName + "="},
		{"Cookie", cookieName + "=" + goodToken},
		{"Cookie", "x=" + goodSession},
	} {
		closed(http.MethodGet, "/petstore/43", h...)
		closed(http.MethodPost, "/api/v1/projects/petstore/sync", h...)
	}
	// A wrong token is not forgiven because of a right cookie.
	if got := ask(t, ts, http.MethodGet, "/petstore", goodSession, "", "Authorization", "Bearer wrong"); got.status == http.StatusOK {
		t.Error("a wrong token was forgiven")
	}
	if len(f.calls) != 0 {
		t.Errorf("the backend was asked: %v", f.calls)
	}
}

// TestViewerChangesNothing covers T46.
func TestViewerChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	for _, p := range formPaths()[1:] {
		if got := ask(t, ts, http.MethodPost, p, viewerSession, "reason=x&decision=promote&version=1&commit=c"); got.status != http.StatusForbidden {
			t.Errorf("%s: %d", p, got.status)
		}
	}
	for _, r := range apiPaths(t, ask(t, ts, http.MethodGet, "/openapi.json", "", "").body) {
		if got := ask(t, ts, r[0], r[1], viewerSession, "{}", "Content-Type", "application/json"); r[0] != http.MethodGet && got.status != http.StatusForbidden {
			t.Errorf("%v: %d", r, got.status)
		}
	}
	if f.count() != 0 {
		t.Errorf("the backend was changed: %v", f.calls)
	}
	if got := ask(t, ts, http.MethodGet, "/petstore/43", viewerSession, ""); got.status != http.StatusOK {
		t.Errorf("a viewer cannot look: %d", got.status)
	}
}

// element is a start tag.
type element struct {
	name  string
	attrs map[string]string
	text  string // directly behind the tag
}

// parse reads a page as a browser would read well-formed HTML.
func parse(t *testing.T, page string) (elements []element, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var all strings.Builder
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return elements, all.String()
		}
		if err != nil {
			t.Fatalf("page does not parse: %v\n%s", err, page)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			e := element{name: tok.Name.Local, attrs: map[string]string{}}
			for _, a := range tok.Attr {
				name := a.Name.Local
				if a.Name.Space != "" {
					name = a.Name.Space + ":" + name
				}
				e.attrs[name] = a.Value
			}
			elements = append(elements, e)
		case xml.CharData:
			all.Write(tok)
			if n := len(elements); n > 0 && elements[n-1].text == "" {
				elements[n-1].text = string(tok)
			}
		}
	}
}

// TestInjection covers T39 and T41: hostile words in every field of every page.
func TestInjection(t *testing.T) {
	t.Parallel()
	for name, poison := range map[string]string{
		"tags":       `"'><script>alert(1)</script><img src=x onerror=alert(1)></textarea></title></pre>`,
		"attributes": `" onmouseover="alert(1)" autofocus onfocus='alert(1)' x="`,
		"templates":  `{{.}}${7*7}&lt;script&gt;alert(1)&lt;/script&gt;`,
	} {
		f := newFake()
		f.poison = poison
		ts := serve(t, f)
		for _, path := range pagePaths() {
			got := ask(t, ts, http.MethodGet, f.poisoned(path), goodSession, "")
			if got.status != http.StatusOK {
				t.Errorf("%s: %s: %d %.300s", name, path, got.status, got.body)
				continue
			}
			elements, text := parse(t, got.body)
			if !strings.Contains(text, poison) && !strings.Contains(text, strings.TrimSpace(poison)) {
				t.Errorf("%s: %s does not show the text as it is", name, path)
			}
			harmless(t, name+": "+path, elements)
		}
	}
}

func harmless(t *testing.T, page string, elements []element) {
	t.Helper()
	for _, e := range elements {
		switch e.name {
		case "script":
			if !strings.HasPrefix(e.attrs["src"], "/assets/") {
				t.Errorf("%s: script %v", page, e.attrs)
			}
		case "style", "iframe", "object", "embed", "base", "img":
			t.Errorf("%s: <%s %v>", page, e.name, e.attrs)
		}
		for k, v := range e.attrs {
			switch {
			case strings.HasPrefix(k, "on"), k == "style", k == "hx-on", strings.HasPrefix(k, "hx-on:"), k == "autofocus" && e.name != "button":
				t.Errorf("%s: <%s %s=%q>", page, e.name, k, v)
			case k == "href" || k == "src" || k == "action" || strings.HasPrefix(k, "hx-get"):
				own := strings.HasPrefix(v, "/") && !strings.HasPrefix(v, "//") || strings.HasPrefix(v, "#")
				outside := external(v) && strings.Contains(e.attrs["rel"], "noopener")
				if !own && !outside {
					t.Errorf("%s: <%s %s=%q>", page, e.name, k, v)
				}
			}
		}
	}
}

// TestNothingHides covers control characters and turned text in names.
func TestNothingHides(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.poison = "\x1b]0;evil\x07\x7f\u009b31m\u202egnp.exe"
	ts := serve(t, f)
	for _, path := range []string{"/", "/petstore", "/petstore/43", "/a/7KQ2MXPA", "/petstore/audit"} {
		got := ask(t, ts, http.MethodGet, path, goodSession, "")
		if got.status != http.StatusOK || strings.ContainsAny(got.body, "\x1b\x07\x7f\u009b\u202e") || !strings.Contains(got.body, "␛]0;evil␇␡\ufffd31m\ufffdgnp.exe") {
			t.Errorf("%s: %d", path, got.status)
		}
	}
}

// TestExternal covers T41.
func TestExternal(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "javascript:alert(1)", "JAVASCRIPT:alert(1)", "java\tscript:alert(1)", " javascript:alert(1)", "data:text/html,x", "vbscript:x", "//evil.example", "/\\evil", "\\\\evil", "http:", "http://", "https:evil",
		"http:///x", "ftp://x/y", "file:///etc/passwd", "http://a\nb", "https://good@evil.example/", "Docs | javascript:alert(1)", "https://x/ y", "blob:https://x", "http\x00://x",
	} {
		if external(bad) {
			t.Errorf("%q would become a link", bad)
		}
	}
	for _, good := range []string{"http://localhost:9001", "https://petstore.example.org/a?b=c#d", "http://[::1]:80/"} {
		if !external(good) {
			t.Errorf("%q would not become a link", good)
		}
	}
}

// TestLookingChangesNothing covers T36, and the headers of T38.
func TestLookingChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	paths := append(pagePaths(), formPaths()...)
	for _, r := range apiPaths(t, ask(t, ts, http.MethodGet, "/openapi.json", "", "").body) {
		paths = append(paths, r[1])
	}
	paths = append(paths, "/login?once="+goodOnce, "/login", "/livez", "/readyz", "/hooks/petstore", "/assets/x/y", "/nope", "/petstore/44", "/petstore/x")
	for _, p := range paths {
		for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
			got := ask(t, ts, m, p, goodSession, "")
			h := got.header
			if !strings.Contains(h.Get("Content-Security-Policy"), "frame-ancestors 'none'") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") == "" || h.Get("Cache-Control") == "" {
				t.Errorf("%s %s: headers %v", m, p, h)
			}
			if strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
				t.Errorf("%s: CSP %s", p, h.Get("Content-Security-Policy"))
			}
			if len(h.Values("Set-Cookie")) > 0 {
				t.Errorf("%s %s sets a cookie", m, p)
			}
			if got.status >= http.StatusInternalServerError {
				t.Errorf("%s %s: %d", m, p, got.status)
			}
		}
	}
	if f.count() != 0 {
		t.Errorf("changed: %v", f.calls)
	}
}

// TestOtherSitesChangeNothing covers T35 and T37.
func TestOtherSitesChangeNothing(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	form := "decision=promote&version=1&reason=x&commit=" + commitOf("43")
	for _, h := range [][]string{
		{"Sec-Fetch-Site", "cross-site"},
		{"Sec-Fetch-Site", "same-site"},
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
		{"Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain"},
	} {
		for _, p := range append(formPaths(), "/login", "/api/v1/projects/petstore/sync") {
			if got := ask(t, ts, http.MethodPost, p, goodSession, form, h...); got.status != http.StatusForbidden {
				t.Errorf("%s %v: %d", p, h, got.status)
			}
		}
	}
	if got := ask(t, ts, http.MethodGet, "/events", goodSession, "", "Origin", "https://evil.example"); got.status != http.StatusForbidden {
		t.Errorf("events: %d", got.status)
	}
	if f.count() != 0 || f.gate.State != delivery.GateOpen {
		t.Errorf("changed: %v", f.calls)
	}
	if got := ask(t, ts, http.MethodPost, "/petstore/sync", goodSession, "x=y", "Origin", ts.URL, "Sec-Fetch-Site", "same-origin"); got.status != http.StatusSeeOther {
		t.Errorf("own page: %d", got.status)
	}
}

package web

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/shuntcd/shunt/internal/api"
)

// hostile is what a stranger may call a branch, a commit, an artifact or a test.
const hostile = `"'><script>alert(1)</script><img src=x onerror=alert(1)></textarea></title></pre></details></main>{{.}}`

// TestEveryPageIsAttacked holds pagePaths, by which all tests of this kind go, to
// the routes that there are.
func TestEveryPageIsAttacked(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	must(t, err)
	routes, inner := http.NewServeMux(), http.NewServeMux()
	attacked := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		must(t, err)
		for _, m := range regexp.MustCompile(`s\.(mux|inner)\.HandleFunc\("GET ([^"]+)"`).FindAllStringSubmatch(string(source), -1) {
			mux := routes
			if m[1] == "inner" {
				mux = inner
			}
			mux.HandleFunc(m[2], http.NotFound)
			if m[2] != "/events" && m[2] != "/ui" { // shows nothing from outside
				attacked[m[2]] = false
			}
		}
	}
	if len(attacked) < 15 {
		t.Fatalf("only %d routes were found: %v", len(attacked), attacked)
	}
	for _, path := range pagePaths() {
		for _, mux := range []*http.ServeMux{routes, inner} {
			_, pattern := mux.Handler(httptest.NewRequest(http.MethodGet, path, nil))
			attacked[pattern] = true
		}
	}
	for pattern, yes := range attacked {
		if !yes {
			t.Errorf("no path of pagePaths leads to %s", pattern)
		}
	}
}

// poisoned is a path with the names as the poisoned backend has them.
func (f *fake) poisoned(path string) string {
	for _, name := range []string{"/log/job/build", "/mail/m2"} {
		path = strings.Replace(path, name, name+url.PathEscape(f.poison), 1)
	}
	return path
}

// TestInjectionInABrowser opens every page on a phone, with hostile and endless
// words in every field: no script runs, nothing is loaded, and the page keeps its
// shape.
func TestInjectionInABrowser(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.poison = hostile + strings.Repeat("W", 400) + "\u202e" + strings.Repeat("無", 80)
	ts := serve(t, f)
	ctx, complaints := browse(t, ts, 360, 740, "1")
	look := func(path string) {
		t.Helper()
		do(t, ctx, chromedp.Navigate(ts.URL+path))
		for _, what := range []string{
			`document.querySelectorAll("details").forEach((d) => d.open = true) || true`,
			`document.documentElement.scrollWidth <= 360`,
			`[...document.body.children].map((e) => e.localName).filter((n) => n === "header" || n === "main" || n === "footer").join() === "header,main,footer"`,
			`!document.querySelector("img, iframe, object, embed, style, base, script:not([src^='/assets/'])")`,
		} {
			ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool](what))
			must(t, err)
			if !ok {
				wide, err := chromedp.Run(ctx, chromedp.Evaluate[string](`[...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > 360).map((e) => e.localName + "." + e.className).slice(0, 8).join(" ")`))
				must(t, err)
				t.Errorf("%s: not %s; wide: %s", path, what, wide)
			}
		}
		for _, c := range complaints() {
			if !strings.HasPrefix(c, "Failed to load resource") { // of names that are ours, and are not hostile in truth
				t.Fatalf("%s: the browser complains: %s", path, c)
			}
		}
	}
	for _, path := range pagePaths() {
		look(f.poisoned(path))
	}
	// What the reader's own address says is no more trusted.
	word := url.QueryEscape(f.poison[:190])
	for _, path := range []string{"/?q=%s", "/petstore?lane=%s&status=%s&branch=%s&before=%s", "/petstore/43/log/job/build?q=%s&time=%s&line=%s", "/petstore/compare?from=%s", "/petstore/hotfixes?name=%s", "/petstore/timeline?before=%s"} {
		look(f.poisoned(strings.ReplaceAll(path, "%s", word)))
	}
	_, err := f.Decide(ctx, Actor{"ana", "127.0.0.1, page"}, "petstore", 43, api.Decide{Reason: "it breaks" + f.poison})
	must(t, err)
	look("/a/7KQ2MXPA")
	// Pages that say what went wrong show what was asked for.
	for _, path := range []string{"/petstore/%s", "/%s", "/petstore/43/log/%s", "/mail/%s", "/a/%s"} {
		path = strings.ReplaceAll(path, "%s", url.PathEscape(hostile))
		got := ask(t, ts, http.MethodGet, path, goodSession, "")
		if got.status < 400 || got.status >= 500 {
			t.Errorf("%s: %d", path, got.status)
		}
		elements, _ := parse(t, got.body)
		harmless(t, path, elements)
	}
}

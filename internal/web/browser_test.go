package web

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// browse starts Chromium and signs in by the one-time link, as a person would.
// complaints returns what the browser had to say about the pages: errors of the
// script, violations of the policy, dialogs.
func browse(t *testing.T, ts *httptest.Server, width, height int, scheme string) (ctx context.Context, complaints func() []string) {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless-shell"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium in PATH")
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("headless", "new"), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("no-proxy-server", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("blink-settings", "preferredColorScheme="+scheme), chromedp.WindowSize(width, height))
	t.Cleanup(stop)
	var mu sync.Mutex
	var said []string
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithListener(func(ev any) {
		mu.Lock()
		defer mu.Unlock()
		switch ev := ev.(type) {
		case *cdplog.EventEntryAdded:
			if ev.Entry.Level == cdplog.EntryLevelError || ev.Entry.Source == cdplog.EntrySourceSecurity {
				said = append(said, ev.Entry.Text+" "+ev.Entry.URL)
			}
		case *runtime.EventExceptionThrown:
			said = append(said, ev.ExceptionDetails.Text)
		case *page.EventJavascriptDialogOpening:
			said = append(said, "dialog: "+ev.Message)
		}
	}))
	t.Cleanup(cancel)
	must(t, chromedp.Do(ctx, chromedp.EmulateViewport(int64(width), int64(height))))
	timed, done := context.WithTimeout(ctx, 8*time.Minute) // a busy machine is no failure
	t.Cleanup(done)
	do(t, timed, chromedp.Navigate(ts.URL+"/login?once="+goodOnce))
	do(t, timed, chromedp.Click(chromedp.CSS("button.primary")))
	do(t, timed, chromedp.WaitVisible(chromedp.CSS("form.me")))
	return timed, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return said
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, ctx context.Context, a chromedp.Action[chromedp.Void]) {
	t.Helper()
	must(t, chromedp.Do(ctx, a))
}

// eventually waits until an expression is true in the page.
func eventually(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if ok {
			return
		}
		if ctx.Err() != nil {
			text, _ := chromedp.Run(context.WithoutCancel(ctx), chromedp.Evaluate[string]("document.body.innerText"))
			t.Fatalf("%s never became true: %v\n%s", expression, err, text)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestPromoteInABrowser clicks Promote and watches the deployment's log grow.
func TestPromoteInABrowser(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	ctx, complaints := browse(t, ts, 360, 740, "1")

	do(t, ctx, chromedp.Navigate(ts.URL+"/a/7KQ2MXPA"))
	eventually(t, ctx, `document.querySelector(".decide button.primary")`)
	eventually(t, ctx, `document.activeElement === document.body`)
	eventually(t, ctx, `document.documentElement.scrollWidth <= 360`)
	eventually(t, ctx, `(() => { const [a, b] = [...document.querySelectorAll(".buttons .big")].map((e) => e.getBoundingClientRect()); return a.height === b.height && a.width === b.width && a.height >= 48; })()`)
	do(t, ctx, chromedp.Click(chromedp.CSS(".decide button.primary")))
	eventually(t, ctx, `document.querySelector("h1")?.innerText.includes("promoted")`)
	eventually(t, ctx, `document.querySelector("#log .state")?.textContent === "live"`)

	const hostile = `</script><img src=x onerror=alert(1)>`
	f.mu.Lock()
	l := f.logs["deploy/production"]
	f.mu.Unlock()
	l.add("|line \x1b[32mgreen\x1b[0m", "|"+hostile)
	eventually(t, ctx, `document.querySelector("#log .fg-2")?.textContent === "green"`)
	eventually(t, ctx, fmt.Sprintf(`[...document.querySelectorAll("#log .tx")].some((e) => e.textContent === %q)`, hostile))

	// The deployment ends: an event makes the page fetch itself again.
	f.mu.Lock()
	f.gate.Build.Status, f.gate.Build.Reason = "succeeded", "it is live"
	f.mu.Unlock()
	l.end()
	f.emit("build")
	eventually(t, ctx, `document.querySelector(".record")?.innerText.includes("it is live")`)
	eventually(t, ctx, `document.querySelector("#log .state")?.textContent === "ended"`)
	eventually(t, ctx, `!document.documentElement.classList.contains("stale")`)
	if c := complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %s", strings.Join(c, "\n"))
	}
	ts.CloseClientConnections() // every stream breaks; the page says so or has come back
	f.mu.Lock()
	f.gate.Build.Reason = "seen after the break"
	f.mu.Unlock()
	eventually(t, ctx, `document.querySelector(".record")?.innerText.includes("seen after the break")`)
}

// TestPageStaysTrue watches an open gate page while others act.
func TestPageStaysTrue(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	ctx, complaints := browse(t, ts, 1280, 800, "0")
	do(t, ctx, chromedp.Navigate(ts.URL+"/a/7KQ2MXPA"))
	eventually(t, ctx, `document.querySelector(".reject textarea")`)
	do(t, ctx, chromedp.Click(chromedp.CSS(".reject summary")))
	do(t, ctx, chromedp.SendKeys(chromedp.CSS(".reject textarea"), "it breaks\nthe till"))

	do(t, ctx, chromedp.Click(chromedp.CSS(".more summary")))

	// What somebody is typing survives a refresh, and Enter has sent nothing.
	f.mu.Lock()
	f.gate.Build.Subject, f.gate.Version = "A new subject", 2
	f.mu.Unlock()
	f.emit("build")
	eventually(t, ctx, `document.body.innerText.includes("A new subject")`)
	eventually(t, ctx, `document.querySelector(".reject[open] textarea").value === "it breaks\nthe till" && document.querySelector(".reject [name=version]").value === "2"`)
	eventually(t, ctx, `document.querySelector(".more[open] .diff")`)
	if f.count() != 0 {
		t.Fatalf("Enter decided: %v", f.calls)
	}
	if c := complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %s", strings.Join(c, "\n"))
	}

	// The server is ill: the page stays, says that it is old, and recovers.
	ill := func(err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failing = err
	}
	ill(delivery.Errf(delivery.KindUnavailable, "the database is away", ""))
	f.emit("build")
	eventually(t, ctx, `document.querySelector(".lost").checkVisibility()`)
	eventually(t, ctx, `document.body.innerText.includes("A new subject") && document.querySelector(".reject[open]")`)
	ill(nil)
	eventually(t, ctx, `!document.querySelector(".lost").checkVisibility()`)

	// Somebody else is first: the buttons go, and the page says who it was.
	_, err := f.Decide(ctx, Actor{"ben", "198.51.100.7, page"}, "petstore", 43, api.Decide{Reason: "not today"})
	must(t, err)
	eventually(t, ctx, `document.querySelector("h1").innerText.includes("rejected") && document.querySelector(".record").innerText.includes("by ben") && !document.querySelector(".decide")`)
}

// TestFirstStreamFails has a page that came while the server went: its stream
// never stood, and is asked for until it does.
func TestFirstStreamFails(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	inner := ts.Config.Handler
	var asked atomic.Int32
	ts.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" && r.URL.RawQuery != "" { // not of the page that signs in
			switch asked.Add(1) {
			case 1:
				panic(http.ErrAbortHandler)
			case 2:
				http.Error(w, "not yet", http.StatusServiceUnavailable)
				return
			}
		}
		inner.ServeHTTP(w, r)
	})
	ctx, _ := browse(t, ts, 1280, 800, "0")
	do(t, ctx, chromedp.Navigate(ts.URL+"/a/7KQ2MXPA"))
	eventually(t, ctx, `document.querySelector(".lost").checkVisibility()`)
	eventually(t, ctx, `!document.querySelector(".lost").checkVisibility()`)
	for asked.Load() < 3 {
		time.Sleep(20 * time.Millisecond)
		must(t, ctx.Err())
	}
	f.mu.Lock()
	f.gate.Build.Subject = "A new subject"
	f.mu.Unlock()
	for { // until somebody listens
		f.emit("build")
		if ok, _ := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.body.innerText.includes("A new subject")`)); ok {
			break
		}
		time.Sleep(50 * time.Millisecond)
		must(t, ctx.Err())
	}
}

// TestALeftPageIsTrueWhenSomebodyLooks has a page in a hidden tab whose stream was
// lost without a word, as overnight behind a router that forgets connections.
func TestALeftPageIsTrueWhenSomebodyLooks(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	ctx, _ := browse(t, ts, 1280, 800, "0")
	_, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: "window.setInterval = () => 0"}) // which refreshes it each minute
	must(t, err)
	do(t, ctx, chromedp.Navigate(ts.URL+"/a/7KQ2MXPA"))
	eventually(t, ctx, `document.querySelector(".decide button.primary")`)
	other, done := chromedp.NewContext(ctx, chromedp.WithNewWindow(false))
	t.Cleanup(done)
	do(t, other, chromedp.Navigate(ts.URL+"/petstore/audit"))
	eventually(t, ctx, `document.hidden`)
	f.mu.Lock()
	f.gate.Build.Subject = "What nobody told the page"
	f.mu.Unlock()
	chosen, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.body.innerText.includes("What nobody told the page")`))
	must(t, err)
	if chosen {
		t.Fatal("the page was told")
	}
	_, err = chromedp.Call(ctx, page.BringToFront, cdp.Empty{})
	must(t, err)
	eventually(t, ctx, `document.body.innerText.includes("What nobody told the page")`)
}

// TestLogInABrowser names lines by clicking and by address, and lets a log with
// steps and groups grow.
func TestLogInABrowser(t *testing.T) {
	t.Parallel()
	f := newFake()
	l := newLog("#step 1: make")
	for i := range 3000 {
		l.add(fmt.Sprint("|line of the log ", i+2))
	}
	f.logs["job/build"] = l
	f.gate.Build.Nodes[0].State = delivery.NodeRunning
	ts := serve(t, f)
	ctx, complaints := browse(t, ts, 1280, 800, "1")
	log := ts.URL + "/petstore/43/log/job/build"
	do(t, ctx, chromedp.Navigate(log+"#L12-L20"))
	eventually(t, ctx, `location.search.includes("line=12") && document.querySelectorAll(".line.chosen").length === 9 && document.querySelector("#L20.chosen")`)
	do(t, ctx, chromedp.Click(chromedp.CSS("#L14 .ln")))
	eventually(t, ctx, `location.hash === "#L14" && document.querySelectorAll(".line.chosen").length === 1`)
	eventually(t, ctx, `(() => { document.querySelector("#L17 .ln").dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true, shiftKey: true })); return location.hash === "#L14-L17" && location.search.includes("line=14") && location.search.includes("to=17"); })()`)

	do(t, ctx, chromedp.Navigate(log+"?first=1"))
	eventually(t, ctx, `document.querySelector("summary#L1")`)
	do(t, ctx, chromedp.Click(chromedp.CSS("#L1 .ln")))
	eventually(t, ctx, `location.hash === "#L1" && document.querySelector("details[open] > #L1.chosen")`)

	// At its end it grows; a group closes when it has ended.
	do(t, ctx, chromedp.Navigate(log))
	eventually(t, ctx, `document.querySelector("#log .state")?.textContent === "live"`)
	l.add("#step 2: test", "|::group::noise", "|inside", "|::endgroup::", "|outside")
	eventually(t, ctx, `document.querySelector("details.fold:last-of-type > #L3002 ~ details.group:not([open]) > div#L3004 .tx")?.textContent === "inside"`)
	eventually(t, ctx, `document.querySelector("details.fold > div#L3006 .tx")?.textContent === "outside"`)
	l.end()
	eventually(t, ctx, `document.querySelector("#log .state")?.textContent === "ended"`)
	if c := complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %s", strings.Join(c, "\n"))
	}
}

// TestKeys walks with the keyboard alone, and sees that no key decides.
func TestKeys(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	ctx, complaints := browse(t, ts, 1280, 800, "1")
	press := func(keys string) { t.Helper(); do(t, ctx, chromedp.KeyEvent(keys)) }
	do(t, ctx, chromedp.Navigate(ts.URL+"/petstore/audit"))
	eventually(t, ctx, `document.getElementById("keys")`)
	press("/")
	eventually(t, ctx, `location.pathname === "/" && document.activeElement.id === "search"`)
	press("?/jk") // are letters here
	eventually(t, ctx, `document.activeElement.value === "?/jk" && !document.getElementById("keys").open`)
	do(t, ctx, chromedp.Navigate(ts.URL+"/"))
	eventually(t, ctx, `document.getElementById("keys")`)
	press("?")
	eventually(t, ctx, `document.getElementById("keys").open`)
	press("\x1b")
	eventually(t, ctx, `!document.getElementById("keys").open`)
	press("j")
	eventually(t, ctx, `document.activeElement.textContent === "petstore"`)
	press("j")
	eventually(t, ctx, `document.activeElement.textContent === "Decide build 43"`)
	press("k")
	eventually(t, ctx, `document.activeElement.textContent === "petstore"`)
	press("\r")
	eventually(t, ctx, `location.pathname === "/petstore"`)

	do(t, ctx, chromedp.Navigate(ts.URL+"/a/7KQ2MXPA"))
	eventually(t, ctx, `document.querySelector(".decide button.primary")`)
	for c := '!'; c <= '~'; c++ {
		if c != '/' { // leads elsewhere
			press(string(c))
		}
	}
	press("\r")
	eventually(t, ctx, `location.pathname === "/a/7KQ2MXPA" && document.querySelector(".decide button.primary")`)
	if f.count() != 0 {
		t.Errorf("a key decided: %v", f.calls)
	}
	if c := complaints(); len(c) > 0 {
		t.Errorf("the browser complains: %s", strings.Join(c, "\n"))
	}
}

// TestAxe has axe-core look at every page in both palettes at three widths. A page
// is loaded once for each palette, and made wider.
func TestAxe(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile(filepath.Join("testdata", "axe.min.js"))
	must(t, err)
	for scheme, name := range map[string]string{"0": "dark", "1": "light"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			f.gate.Warnings = []string{"The pipeline file differs."}
			f.tickets, f.subject = tracker(), "SHOP-7: cart answers 500"
			ts := serve(t, f)
			ctx, _ := browse(t, ts, 360, 800, scheme)
			for _, path := range append(pagePaths(), "/petstore/99", "/ui") {
				do(t, ctx, chromedp.Navigate(ts.URL+path))
				_, err := chromedp.Run(ctx, chromedp.Evaluate[any](string(axe)+`;document.querySelectorAll("details").forEach((d) => d.open = true);0`))
				must(t, err)
				for _, width := range []int64{360, 768, 1280} {
					do(t, ctx, chromedp.EmulateViewport(width, 800))
					found, err := chromedp.Run(ctx, chromedp.Evaluate[string](`
						axe.run(document, {runOnly: {type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}, rules: {"target-size": {enabled: true}}})
							.then((r) => r.violations.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " + n.failureSummary.slice(0, 160)).join(" | ")).join("\n"))`, chromedp.EvalAwaitPromise))
					must(t, err)
					if found != "" {
						t.Errorf("%s at %d:\n%s", path, width, found)
					}
				}
			}
		})
	}
}

// TestScreenshots writes pictures of all pages into $SHUNT_SHOTS, for people.
func TestScreenshots(t *testing.T) { //nolint:paralleltest // many browsers at once are too slow
	dir := os.Getenv("SHUNT_SHOTS")
	if dir == "" {
		t.Skip("SHUNT_SHOTS is not set")
	}
	pages := map[string]string{
		"home": "/", "project": "/petstore", "build": "/petstore/43?node=job/build", "gate": "/a/7KQ2MXPA",
		"failed": "/petstore/42", "mail": "/mail/m2", "env": "/petstore/environments", "owed": "/petstore/back-merges", "audit": "/petstore/audit", "settings": "/petstore/settings", "log": "/petstore/43/log/job/build", "search": "/petstore/43/log/job/build?q=ok",
		"hotfixes": "/petstore/hotfixes?name=cart-500", "compare": "/petstore/compare", "timeline": "/petstore/timeline", "artifacts": "/petstore/artifacts", "design": "/ui", "error": "/petstore/99",
	}
	for scheme, word := range map[string]string{"0": "dark", "1": "light"} {
		for _, width := range []int{360, 768, 1280} {
			f := newFake()
			f.logs["job/build"].done = false
			ctx, complaints := browse(t, serve(t, f), width, 800, scheme)
			base, err := chromedp.Run(ctx, chromedp.Evaluate[string]("location.origin"))
			must(t, err)
			shoot := func(name string) {
				t.Helper()
				wide, err := chromedp.Run(ctx, chromedp.Evaluate[int]("document.documentElement.scrollWidth"))
				must(t, err)
				if wide > width {
					t.Errorf("%s is %d wide in %d", name, wide, width)
				}
				b, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
				must(t, err)
				must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, word)), fewColours(t, b), 0o644))
			}
			for name, path := range pages {
				do(t, ctx, chromedp.Navigate(base+path))
				shoot(name)
			}
			_, err = f.Decide(ctx, Actor{"ana", "127.0.0.1, page"}, "petstore", 43, api.Decide{Promote: true})
			must(t, err)
			do(t, ctx, chromedp.Navigate(base+"/a/7KQ2MXPA"))
			eventually(t, ctx, `document.querySelector("#log .state")?.textContent === "live"`)
			shoot("record")
			if c := complaints(); len(c) > 1 { // the error page is one
				t.Errorf("the browser complains: %s", strings.Join(c, "\n"))
			}
		}
	}
}

// fewColours makes a picture of a page a third as large: at most 256 colours
// that differ stay, the most frequent ones first, and the others become the
// nearest of them.
func fewColours(t *testing.T, picture []byte) []byte {
	t.Helper()
	in, err := png.Decode(bytes.NewReader(picture))
	must(t, err)
	count, bounds := map[color.RGBA]int{}, in.Bounds()
	at := func(x, y int) color.RGBA {
		r, g, b, _ := in.At(x, y).RGBA()
		return color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}
	}
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			count[at(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a.R, b.R), cmp.Compare(a.G, b.G), cmp.Compare(a.B, b.B))
	})
	var palette color.Palette
	for _, c := range colours { // a rare colour counts when no other is like it
		if len(palette) < 256 && (len(palette) == 0 || distance(c, palette[palette.Index(c)]) > 30) {
			palette = append(palette, c)
		}
	}
	index := map[color.RGBA]uint8{}
	for _, c := range colours {
		index[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(bounds, palette)
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			out.SetColorIndex(x, y, index[at(x, y)])
		}
	}
	var b bytes.Buffer
	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out))
	return b.Bytes()
}

func distance(a, b color.Color) (sum int) {
	ar, ag, ab, _ := a.RGBA()
	br, bg, bb, _ := b.RGBA()
	for _, d := range []int{int(ar>>8) - int(br>>8), int(ag>>8) - int(bg>>8), int(ab>>8) - int(bb>>8)} {
		sum += d * d
	}
	return sum
}

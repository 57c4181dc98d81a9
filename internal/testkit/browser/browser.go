// Package browser drives a real Chromium for tests, as a person would: by
// clicking and by keys. Expressions are JavaScript that is evaluated in the page.
package browser

import (
	"context"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// How long a test may use a tab in all, and how long it waits for one thing.
const (
	patience = 4 * time.Minute
	step     = time.Minute
)

// Tab is one tab of a browser.
type Tab struct {
	testing.TB
	ctx  context.Context
	mu   sync.Mutex
	said []string
}

// Open starts a browser with one tab. It skips the test where there is none.
func Open(tb testing.TB, width, height int, dark bool) *Tab {
	tb.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless-shell"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		tb.Skip("no Chromium in PATH")
	}
	scheme := "1"
	if dark {
		scheme = "0"
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(tb.TempDir()),
		chromedp.Flag("headless", "new"), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("no-proxy-server", true), chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("blink-settings", "preferredColorScheme="+scheme), chromedp.WindowSize(width, height), chromedp.WSURLReadTimeout(time.Minute))
	tb.Cleanup(stop)
	b := newTab(tb, alloc)
	b.Size(width, height)
	return b
}

// Other opens a tab of another person in the same process: it shares no cookies
// with the first.
func (b *Tab) Other() *Tab {
	b.Helper()
	return newTab(b.TB, b.ctx, chromedp.WithNewBrowserContext())
}

func newTab(tb testing.TB, parent context.Context, opts ...chromedp.ContextOption) *Tab {
	tb.Helper()
	b := &Tab{TB: tb}
	ctx, cancel := chromedp.NewContext(parent, append(opts, chromedp.WithListener(b.hear))...)
	tb.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // before the deadline, which is not the browser's
		tb.Fatal(err)
	}
	timed, done := context.WithTimeout(ctx, patience)
	tb.Cleanup(done)
	b.ctx = timed
	return b
}

func (b *Tab) hear(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *cdplog.EventEntryAdded:
		if ev.Entry.Level == cdplog.EntryLevelError || ev.Entry.Source == cdplog.EntrySourceSecurity {
			b.said = append(b.said, ev.Entry.Text+" "+ev.Entry.URL)
		}
	case *runtime.EventExceptionThrown:
		b.said = append(b.said, ev.ExceptionDetails.Text)
	case *page.EventJavascriptDialogOpening:
		b.said = append(b.said, "dialog: "+ev.Message)
	}
}

// Complaints are what the browser had to say about the pages: errors of the
// script and of the network, violations of the policy, dialogs.
func (b *Tab) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said
}

// NoComplaints fails the test when there are any.
func (b *Tab) NoComplaints() {
	b.Helper()
	if c := b.Complaints(); len(c) > 0 {
		b.Errorf("the browser complains: %s", strings.Join(c, "\n"))
	}
}

// Context is the tab's, for actions that this package has no word for.
func (b *Tab) Context() context.Context { return b.ctx }

// Do performs an action.
func (b *Tab) Do(a chromedp.Action[chromedp.Void]) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, step)
	defer cancel()
	if err := chromedp.Do(ctx, a); err != nil {
		b.Fatalf("%v\n%s", err, b.shown())
	}
}

// shown is what a person would see, for a test that fails.
func (b *Tab) shown() string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.ctx), step)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
	if err != nil {
		return err.Error()
	}
	return text
}

// Go opens an address.
func (b *Tab) Go(url string) { b.Helper(); b.Do(chromedp.Navigate(url)) }

// Click clicks the first visible element of a CSS selector, once it is there.
func (b *Tab) Click(selector string) { b.Helper(); b.Do(chromedp.Click(chromedp.CSS(selector))) }

// Type types into the field of a CSS selector.
func (b *Tab) Type(selector, text string) {
	b.Helper()
	b.Do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Press sends keys to whatever has the focus.
func (b *Tab) Press(keys string) { b.Helper(); b.Do(chromedp.KeyEvent(keys)) }

// Until waits until an expression is true in the page.
func (b *Tab) Until(expression string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, step)
	defer cancel()
	for {
		ok, _ := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if ok {
			return
		}
		if err := ctx.Err(); err != nil {
			b.Fatalf("%s never became true: %v\n%s", expression, err, b.shown())
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Text is the value of an expression.
func (b *Tab) Text(expression string) string {
	b.Helper()
	s, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// Size makes the page as wide and as high as that, in pixels.
func (b *Tab) Size(width, height int) {
	b.Helper()
	b.Do(chromedp.EmulateViewport(int64(width), int64(height)))
}

// Dark shows the dark or the light palette.
func (b *Tab) Dark(yes bool) {
	b.Helper()
	scheme := "light"
	if yes {
		scheme = "dark"
	}
	b.Do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

// NoScript keeps the page's scripts from running; those of this package still do.
func (b *Tab) NoScript() {
	b.Helper()
	b.Do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
}

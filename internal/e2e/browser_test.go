package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/browser"
)

// enter signs a tab in by a one-time link, as a person would.
func (w *world) enter(b *browser.Tab) {
	w.Helper()
	b.Go(w.shunt("login-link", "--data", w.data))
	b.Click("button.primary")
	b.Until(`document.querySelector("form.me")`)
}

// hotfix pushes a fix that starts at what production runs, and returns its build
// once it waits at the gate.
func (w *world) hotfix(name string) api.BuildDetail {
	w.Helper()
	w.git("fetch", "--quiet", "--tags", "origin")
	w.git("switch", "--quiet", "--create", "hotfix/"+name, "origin/master")
	return w.fix(name)
}

func (w *world) fix(name string) api.BuildDetail {
	w.Helper()
	w.write(map[string]string{"fix-" + name: name})
	w.commit("Fix " + name)
	said := w.git("push", "--quiet", "origin", "HEAD")
	return w.reach(w.buildOf(w.git("rev-parse", "HEAD"), said).Number, delivery.BuildWaiting)
}

// One server, one browser, and the hotfix story as people live it: with a phone at
// night, with keys alone, without a script, with somebody else at the same gate,
// and with a connection that breaks.
func TestTheHotfixStoryInABrowser(t *testing.T) {
	t.Parallel()
	b := browser.Open(t, 360, 740, true)
	w := newWorld(t, shop(nil))
	w.add(api.AddProject{InstallHook: true})
	w.git("push", "--quiet", "origin", "develop")
	w.promote(w.buildOf(w.git("rev-parse", "HEAD"), "").Number)
	w.commit("Unfinished work")
	w.git("push", "--quiet", "origin", "develop")
	w.enter(b)

	w.byClicking(b)
	b.NoComplaints()
	w.byKeys(b)
	b.NoComplaints()
	w.withoutScript(b.Other(), b)
	w.cut(b)
}

// byClicking starts, watches and promotes a hotfix on a phone in the dark, and
// pays the debt.
func (w *world) byClicking(b *browser.Tab) {
	b.Click(`.rowhead h2 a`)
	b.Click(`nav.tabs a[href$="/hotfixes"]`)
	b.Type(`input[name="name"]`, "cart-500")
	b.Click(`form.filter button`)
	b.Until(`[...document.querySelectorAll("pre.command")].some((e) => e.textContent.startsWith("git fetch"))`)
	w.onAPhone(b)
	for line := range strings.Lines(b.Text(`[...document.querySelectorAll("pre.command")].find((e) => e.textContent.startsWith("git fetch")).textContent`)) {
		w.run(w.clone, strings.Fields(line)...)
	}
	commit := w.git("rev-parse", "HEAD")
	if tip := w.git("rev-parse", "origin/master"); commit != tip {
		w.Errorf("the page's commands start a hotfix at %s, and production is %s", commit, tip)
	}
	number := w.fix("cart-500").Number
	b.Until(`document.querySelector(".cells .button")`) // the page has seen the push, the build and the gate by itself
	w.onAPhone(b)
	b.Click(`.cells a.num`)
	b.Until(`document.querySelector(".waiting .button")`)
	w.onAPhone(b)
	b.Click(`.waiting .button`)
	b.Until(fmt.Sprintf(`document.querySelector("h1").textContent === "Put build %d into production?"`, number))
	b.Until(`document.querySelector(".commits").textContent.includes("Fix cart-500") && !document.querySelector(".commits").textContent.includes("Unfinished")`)
	b.Until(`(() => { const c = getComputedStyle(document.body).backgroundColor.match(/\d+/g); return c.slice(0, 3).every((v) => +v < 60); })()`)
	w.onAPhone(b)
	b.Click(`.decide button.primary`)
	b.Until(`document.querySelector("h1").textContent.includes("promoted") && document.querySelector(".record .t-ok")`)
	w.reach(number, delivery.BuildSucceeded)
	b.Until(`document.querySelector(".record").innerText.includes("succeeded")`)
	w.onAPhone(b)

	b.Go(w.url + "/shop/back-merges")
	b.Until(`document.querySelector(".cards").textContent.includes("owed")`)
	w.onAPhone(b)
	w.git("switch", "--quiet", "develop")
	w.git("merge", "--quiet", "--no-edit", "hotfix/cart-500")
	w.git("push", "--quiet", "origin", "develop")
	b.Until(`document.querySelector(".cards").textContent.includes("paid")`)
}

// onAPhone looks whether the page fits a phone.
func (w *world) onAPhone(b *browser.Tab) {
	w.Helper()
	b.Until(`document.documentElement.scrollWidth <= 360`)
}

// byKeys does the same with the keyboard alone, at a desk.
func (w *world) byKeys(b *browser.Tab) {
	b.Size(1280, 800)
	b.Go(w.url + "/")
	b.Until(`document.getElementById("keys")`)
	tabTo := func(what string) {
		w.Helper()
		for range 300 {
			b.Press("\t")
			if b.Text(`String((() => { const e = document.activeElement; return `+what+`; })())`) == "true" {
				return
			}
		}
		w.Fatalf("no way by Tab to %s on %s", what, b.Text("location.href"))
	}
	tabTo(`e.textContent === "shop"`)
	b.Press("\r")
	b.Until(`location.pathname === "/shop" && document.readyState === "complete"`)
	tabTo(`e.textContent === "Hotfixes"`)
	b.Press("\r")
	b.Until(`location.pathname === "/shop/hotfixes" && document.readyState === "complete"`)
	tabTo(`e.name === "name"`)
	b.Press("keys\r")
	b.Until(`document.body.innerText.includes("shunt hotfix start keys")`)
	number := w.hotfix("keys").Number

	b.Go(w.url + "/")
	b.Until(`document.querySelector(".waiting .button")`)
	b.Press("j")
	b.Press("j")
	b.Until(fmt.Sprintf(`document.activeElement.textContent === "Decide build %d"`, number))
	b.Press("\r")
	b.Until(`document.querySelector(".decide button.primary") && document.activeElement === document.body`)
	tabTo(`e.matches(".decide button.primary")`)
	b.Press("\r")
	b.Until(`document.querySelector("h1").textContent.includes("promoted")`)
	w.reach(number, delivery.BuildSucceeded)
	b.Until(`document.querySelector(".record").innerText.includes("succeeded")`)
	tabTo(`e.textContent === "shop"`)
	b.Press("\r")
	b.Until(`location.pathname === "/shop" && document.readyState === "complete"`)
	tabTo(`e.textContent === "Back-merges"`)
	b.Press("\r")
	b.Until(`location.pathname === "/shop/back-merges" && document.querySelector(".cards").textContent.includes("owed")`)
}

// withoutScript reads and decides without a script, while somebody else decides
// in a second browser: one wins, and the other is told what happened.
func (w *world) withoutScript(plain, other *browser.Tab) {
	contested := w.hotfix("contested")
	plain.NoScript()
	w.enter(plain)
	plain.Click(`.waiting .button`)
	plain.Until(`document.querySelector("h1").textContent.startsWith("Put build")`)
	other.Go(w.url + "/a/" + contested.Gates[0].ID)
	other.Click(`.decide button.primary`)
	other.Until(`document.querySelector("h1").textContent.includes("promoted")`)
	plain.Click(`.decide button.primary`) // of a page that is old by now
	plain.Until(`document.querySelector("[role=alert]").textContent.includes("Not decided") && document.querySelector(".record").textContent.includes("by operator")`)
	w.reach(contested.Number, delivery.BuildSucceeded)
	if n := len(w.journal("deploys")); n != 4 { // of four builds
		w.Errorf("it was deployed %d times", n)
	}

	detail := w.hotfix("refused")
	other.Go(w.url + "/a/" + detail.Gates[0].ID)
	other.Until(`document.querySelector(".decide button.primary")`)
	plain.Go(w.url + "/")
	plain.Click(`.rowhead h2 a`)
	plain.Click(`.builds .what a, .builds a.num`)
	plain.Click(`.waiting .button`)
	plain.Click(`.reject summary`)
	plain.Type(`.reject textarea`, "not at night")
	plain.Click(`.reject button`)
	plain.Until(`document.querySelector("h1").textContent.includes("rejected") && document.querySelector(".record").textContent.includes("not at night")`)
	other.Until(`document.querySelector("h1").textContent.includes("rejected") && document.querySelector(".record").innerText.includes("not at night")`) // live
	w.reach(detail.Number, delivery.BuildRejected)
}

// cut breaks the connection between the page and the server, and the server
// itself: the page says so, and tells the truth afterwards.
func (w *world) cut(b *browser.Tab) {
	wire := w.wire()
	lost := `document.querySelector(".lost").checkVisibility()`
	detail := w.hotfix("cut")
	b.Go("http://" + wire.address + "/a/" + detail.Gates[0].ID)
	b.Until(`document.querySelector(".decide button.primary") && !` + lost)
	wire.cut()
	b.Until(lost)
	_, err := w.api.Decide(w.Context(), w.project, detail.Number, api.Decide{Reason: "while you were away"})
	w.must(err)
	wire.mend()
	b.Until(`document.querySelector("h1").textContent.includes("rejected") && document.querySelector(".record").innerText.includes("while you were away") && !` + lost)

	b.Go("http://" + wire.address + "/" + w.project)
	b.Until(`document.querySelector(".lost") && !` + lost)
	w.kill(syscall.SIGKILL)
	b.Until(lost)
	w.start()
	b.Until(`!` + lost)
	_, err = w.api.Hold(w.Context(), w.project, "seen without a reload")
	w.must(err)
	b.Until(`document.body.innerText.includes("seen without a reload")`)
}

// wire is a connection to the server that can be cut.
type wire struct {
	address string
	server  string
	mu      sync.Mutex
	down    bool
	open    map[net.Conn]bool
}

// wire listens beside the server.
func (w *world) wire() *wire {
	w.Helper()
	host, _, err := net.SplitHostPort(w.listen)
	w.must(err)
	l, err := (&net.ListenConfig{}).Listen(w.Context(), "tcp", host+":0")
	w.must(err)
	w.Cleanup(func() { _ = l.Close() })
	p := &wire{address: l.Addr().String(), server: w.listen, open: map[net.Conn]bool{}}
	w.Cleanup(p.cut)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.carry(c)
		}
	}()
	return p
}

func (p *wire) carry(c net.Conn) {
	defer c.Close()
	there, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.server)
	if err != nil {
		return
	}
	defer there.Close()
	p.mu.Lock()
	down := p.down
	p.open[c], p.open[there] = true, true
	p.mu.Unlock()
	if down {
		return
	}
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{c, there}, {there, c}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			ended <- struct{}{}
		}()
	}
	<-ended
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
	delete(p.open, there)
}

// cut breaks all connections and takes no new ones until mend.
func (p *wire) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.open {
		_ = c.Close()
	}
}

func (p *wire) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

package server

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/fill"
	"github.com/shuntcd/shunt/internal/web"
)

// person is somebody without a script, whose pages stay as they were opened.
type person struct {
	*testing.T
	server *counted
	cookie string
}

func (c *counted) enter(t *testing.T, name string) person {
	t.Helper()
	ctx := t.Context()
	if err := c.s.store.InsertUser(ctx, delivery.User{Name: name, Operator: true}); err != nil {
		t.Fatal(err)
	}
	once, err := c.s.auth.Once(ctx, name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cookie, err := c.s.auth.RedeemOnce(ctx, once)
	if err != nil {
		t.Fatal(err)
	}
	return person{t, c, cookie}
}

func (p person) ask(method, path, form string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+path, strings.NewReader(form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: "shunt_session", Value: p.cookie})
	w := httptest.NewRecorder()
	p.server.handler.ServeHTTP(w, r)
	return w
}

// open opens a page and returns how to send one of its forms, again and again.
func (p person) open(page string) (send func(form, fields string, status int, says ...string)) {
	p.Helper()
	body := p.ask(http.MethodGet, page, "").Body.String()
	return func(form, fields string, status int, says ...string) {
		p.Helper()
		found := regexp.MustCompile(`action="` + form + `">\s*<input type="hidden" name="seen" value="(\d+)"`).FindStringSubmatch(body)
		if found == nil {
			p.Fatalf("%s has no form %s:\n%s", page, form, body)
		}
		w := p.ask(http.MethodPost, form, "seen="+found[1]+"&"+fields)
		if w.Code != status {
			p.Errorf("%s is answered %d:\n%s", form, w.Code, w.Body)
		}
		for _, words := range says {
			if !strings.Contains(w.Body.String(), words) {
				p.Errorf("%s does not say %q:\n%s", form, words, w.Body)
			}
		}
	}
}

// Ana and Ben look at the same pages. What she has done he is told before he does
// the same, or the opposite.
func TestTwoPeopleOnOldPages(t *testing.T) {
	t.Parallel()
	size := fill.Size{Projects: 2, Builds: 6, Open: 3, Jobs: 1, Tests: 1, Stages: 1, Living: 6, Lines: 1}
	c := countedServer(t, size)
	ana, ben := c.enter(t, "ana"), c.enter(t, "ben")
	const done, stale = http.StatusSeeOther, http.StatusConflict
	shop := "/" + fill.Project(0)
	last, before := fmt.Sprint(shop, "/", size.Builds), fmt.Sprint(shop, "/", size.Builds-1)

	// A build, and the one before, whose page is not old.
	anas, bens, older := ana.open(last), ben.open(last), ben.open(before)
	anas(last+"/cancel", "reason=the+till+breaks", done)
	bens(last+"/cancel", "reason=not+this+one", stale, "ana: cancel (build 6)", "the till breaks", "You had written:</strong> not this one", `href="`+last+`"`)
	older(before+"/cancel", "reason=nor+this", done)
	ben.open(last)(last+"/cancel", "reason=I+have+seen+it", done)

	// What ships: a hold of one project is no news in the other.
	anas, bens = ana.open(shop), ben.open(shop)
	other := "/" + fill.Project(1)
	others := ben.open(other)
	anas(shop+"/hold", "reason=freeze", done)
	bens(shop+"/hold", "reason=mine", stale, "ana: hold,", "freeze")
	bens(shop+"/rollback", "reason=mine", stale, "ana: hold,")
	others(other+"/hold", "reason=here+too", done)
	ben.open(shop)(shop+"/release-hold", "reason=thaw", done)

	// An environment.
	environments := shop + "/environments"
	form := regexp.MustCompile(`"(` + environments + `/[^"]+/keep)"`).FindStringSubmatch(ana.ask(http.MethodGet, environments, "").Body.String())
	if form == nil {
		t.Fatal("no environment lives")
	}
	anas, bens = ana.open(environments), ben.open(environments)
	anas(form[1], "extend=8h", done)
	bens(form[1], "pin=true", stale, "ana: environment kept (build ")

	// Secrets: another one's change is no news.
	settings := shop + "/settings"
	if w := ana.ask(http.MethodPost, settings+"/secrets", "seen=1&name=KEY&value=old"); w.Code != done {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	anas, bens = ana.open(settings), ben.open(settings)
	anas(settings+"/secrets", "name=KEY&value=new", done)
	bens(settings+"/secrets", "name=OTHER&value=hush", done)
	bens(settings+"/delete-secret", "name=KEY", stale, "ana: secret set")

	// A database that was put back knows less than the page.
	if w := ben.ask(http.MethodPost, shop+"/hold", "seen=1000000&reason=x"); w.Code != stale || !strings.Contains(w.Body.String(), "put back to an earlier state") {
		t.Errorf("from the future: %d %s", w.Code, w.Body)
	}
	if p, err := c.s.store.Project(t.Context(), fill.Project(0)); err != nil || p.Hold != "" {
		t.Errorf("held: %q %v", p.Hold, err)
	}
}

// Every action that is written into the audit log either matters to a form, or is
// known to change nobody's choice; and what is said to matter is really written.
func TestEveryAuditActionIsJudged(t *testing.T) {
	t.Parallel()
	quiet := []string{
		"artifacts removed", "back-merge paid", "build created", "build read back", "files kept", "gate opened", "project added", "push refused",
		"reconcile confirmed", "restored", "rollback read back", "promote read back", "test mail",
	}
	var judged []string
	for _, k := range []web.Concern{web.OfBuild, web.OfProject, web.OfEnvironment, web.OfSecret} {
		judged = append(judged, matters(k)...)
	}
	// "build "+status and kind+" started" are the beginning and the end of actions;
	// a variable's values are literals of the same package.
	is := func(action, part string) bool {
		return action == part || strings.HasSuffix(part, " ") && strings.HasPrefix(action, part) || strings.HasPrefix(part, " ") && strings.HasSuffix(action, part)
	}
	var written []string
	literals := map[string]bool{}
	read := func(n ast.Node, each func(literal string)) {
		ast.Inspect(n, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok {
				each(strings.Trim(l.Value, `"`))
			}
			return true
		})
	}
	files, err := filepath.Glob("../*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		dir := filepath.Base(filepath.Dir(file))
		if dir != "engine" && dir != "server" || strings.HasSuffix(file, "_test.go") || strings.HasSuffix(file, "/stale.go") {
			continue
		}
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		read(tree, func(literal string) { literals[literal] = true })
		ast.Inspect(tree, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 6 {
				if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Audit" {
					read(call.Args[4], func(literal string) { written = append(written, literal) })
				}
			}
			return true
		})
	}
	if len(written) < 25 {
		t.Errorf("only %d audit rows were found in the source", len(written))
	}
	for _, part := range written {
		if !slices.ContainsFunc(append(quiet, judged...), func(action string) bool { return is(action, part) }) {
			t.Errorf("the audit action %q is new: say in matters which forms it makes old, or here that it makes none", part)
		}
	}
	for _, action := range judged {
		if !literals[action] && !slices.ContainsFunc(written, func(part string) bool { return is(action, part) }) {
			t.Errorf("nothing writes the audit action %q", action)
		}
	}
}

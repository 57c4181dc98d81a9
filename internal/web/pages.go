package web

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

// pageRoutes are the pages. Those of a project have a mux of their own, because
// /{project}/hotfixes and /mail/{id} would be ambiguous in one.
func (s *server) pageRoutes() {
	s.mux.HandleFunc("GET /{$}", s.handle(s.shared(s.home)))
	s.mux.HandleFunc("GET /events", s.handle(s.events))
	s.mux.HandleFunc("GET /a/{id}", s.handle(s.shared(s.gate)))
	s.mux.HandleFunc(feedPattern, s.handle(s.feed))
	s.mux.HandleFunc("GET /ui", s.handle(s.design))
	s.mux.HandleFunc("GET /mail", s.handle(s.mailbox))
	s.mux.HandleFunc("GET /mail/{id}", s.handle(s.mail))
	s.mux.HandleFunc("GET /{project}", s.handle(s.shared(s.forms(s.project))))
	s.mux.Handle("/{project}/{rest...}", s.inner)
	s.mux.HandleFunc("/", s.handle(func(_ http.ResponseWriter, r *http.Request) error { return notFound("no page " + r.URL.Path) }))

	s.inner.HandleFunc("GET /{project}/{number}", s.handle(s.shared(s.forms(s.build))))
	s.inner.HandleFunc("GET /{project}/{number}/log/{node...}", s.handle(s.logPage))
	s.inner.HandleFunc("GET /{project}/compare", s.handle(s.compare))
	s.inner.HandleFunc("GET /{project}/timeline", s.handle(s.shared(s.forms(s.timeline))))
	s.inner.HandleFunc("GET /{project}/artifacts", s.handle(s.artifactList))
	s.inner.HandleFunc("GET /{project}/hotfixes", s.handle(s.shared(s.hotfixes)))
	s.inner.HandleFunc("GET /{project}/environments", s.handle(s.shared(s.forms(s.environments))))
	s.inner.HandleFunc("GET /{project}/back-merges", s.handle(s.shared(s.backMerges)))
	s.inner.HandleFunc("GET /{project}/audit", s.handle(s.audit))
	s.inner.HandleFunc("GET /{project}/settings", s.handle(s.forms(s.settings)))
	s.inner.HandleFunc("/", s.handle(func(_ http.ResponseWriter, r *http.Request) error { return notFound("no page " + r.URL.Path) }))
}

// forms is a page with forms that act on what it shows. What they carry is read
// before all else, so that nothing falls between.
func (s *server) forms(page func(w http.ResponseWriter, r *http.Request, seen int64) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		seen, err := s.Backend.Seen(r.Context())
		if err != nil {
			return err //nolint:wrapcheck // explained by fail
		}
		return page(w, r, seen)
	}
}

type errorView struct {
	frame
	Problem *problem
	Back    string
	Written string // the reason that was typed, so that it is not lost
}

type loginView struct {
	frame
	Once string
	Next string
}

type homeView struct {
	frame
	Projects []api.Project // that match, those that wait for somebody first
	All      int
	Query    string
}

func (s *server) home(w http.ResponseWriter, r *http.Request) error {
	ps, err := s.Backend.Projects(r.Context())
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v := homeView{frame: s.frame(r, "Projects").live("", 0), All: len(ps), Query: strings.TrimSpace(r.URL.Query().Get("q"))}
	for _, p := range ps {
		if matches(p, v.Query) {
			v.Projects = append(v.Projects, p)
		}
	}
	slices.SortStableFunc(v.Projects, func(a, b api.Project) int { return cmp.Compare(urgency(a), urgency(b)) })
	return s.render(w, r, http.StatusOK, homePage(v))
}

// urgency orders the matrix: what is broken, what waits, the rest.
func urgency(p api.Project) int {
	switch {
	case p.Incident != "":
		return 0
	case len(p.Waiting) > 0:
		return 1
	default:
		return 2
	}
}

// matches tells whether each word of a query is in what the row of p shows.
func matches(p api.Project, query string) bool {
	text := []string{p.Name, p.Hold, p.Incident}
	if p.Hold != "" {
		text = append(text, "hold")
	}
	if f := p.Frozen(); f != nil {
		text = append(text, "frozen freeze", f.Reason)
	}
	if p.Incident != "" {
		text = append(text, "incident")
	}
	for _, b := range p.Waiting {
		text = append(text, "waiting", b.Branch, b.Author, b.Subject, num(b.Number))
	}
	if b := p.Latest; b != nil {
		text = append(text, string(b.Status), b.Branch, b.Author, b.Subject, num(b.Number))
	}
	if r := p.Production; r != nil {
		text = append(text, r.By, r.Commit, num(r.Build))
	}
	all := strings.ToLower(strings.Join(text, "\n"))
	for word := range strings.FieldsSeq(strings.ToLower(query)) {
		if !strings.Contains(all, word) {
			return false
		}
	}
	return true
}

type projectView struct {
	frame
	P       api.Project
	Builds  []api.Build
	Refused []api.Push
	Filter  api.BuildFilter
	Older   int64 // number below which older builds are; 0: none

	Lines     api.Lines
	MoreLines bool // there are older builds than those on the map
}

const (
	buildsPerPage = 30
	linesPerPage  = 40
)

func (s *server) project(w http.ResponseWriter, r *http.Request, seen int64) error {
	ctx, name, q := r.Context(), r.PathValue("project"), r.URL.Query()
	p, err := s.Backend.Project(ctx, name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	f := api.BuildFilter{Lane: q.Get("lane"), Status: q.Get("status"), Branch: q.Get("branch"), Limit: buildsPerPage}
	f.Before, _ = strconv.ParseInt(q.Get("before"), 10, 64) // not a number: from the newest
	builds, err := s.Backend.Builds(ctx, name, f)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	pushes, err := s.Backend.Pushes(ctx, name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v := projectView{frame: s.frame(r, name).live(name, 0).of(name, "builds").seeing(seen), P: p, Builds: builds, Filter: f}
	limit := linesPerPage
	if q.Get("map") == "200" {
		limit = 200
	}
	if v.Lines, err = s.Backend.Lines(ctx, name, limit); err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v.MoreLines = limit == linesPerPage && len(v.Lines.Stations) >= limit
	for _, push := range pushes[:min(len(pushes), 20)] {
		if push.Refused != "" && len(v.Refused) < 3 {
			v.Refused = append(v.Refused, push)
		}
	}
	if n := len(builds); n == buildsPerPage && builds[n-1].Number > 1 {
		v.Older = builds[n-1].Number
	}
	return s.render(w, r, http.StatusOK, projectPage(v))
}

type buildView struct {
	frame
	B    api.BuildDetail
	Gate *api.Gate // that waits
	Log  logView
	Auto bool // the log follows what runs, because nobody chose another
}

func numberOf(r *http.Request) (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("number"), 10, 64)
	if err != nil || n < 1 {
		return 0, notFound("no page " + r.URL.Path)
	}
	return n, nil
}

func (s *server) build(w http.ResponseWriter, r *http.Request, seen int64) error {
	name := r.PathValue("project")
	number, err := numberOf(r)
	if err != nil {
		return err
	}
	b, err := s.Backend.Build(r.Context(), name, number)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v := buildView{frame: s.frame(r, name+" "+num(number)).live(name, number).of(name, "builds").seeing(seen), B: b}
	if g, ok := openGate(b.Gates); ok {
		v.Gate = &g
	}
	node, auto := r.URL.Query().Get("node"), false
	if node == "" {
		node, auto = interesting(b), true
	}
	v.Auto = auto
	if v.Log, err = s.tail(r.Context(), b, node, r.URL.Query().Get("attempt")); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, buildPage(v))
}

// tail is the end of a node's log; without a node there is none.
func (s *server) tail(ctx context.Context, b api.BuildDetail, node, attempt string) (logView, error) {
	v := logView{Project: b.Project, Number: b.Number, Node: node}
	v.Attempt, _ = strconv.Atoi(attempt) // not a number: the latest
	i := slices.IndexFunc(b.Nodes, func(n api.Node) bool { return n.Name == node })
	if i < 0 || len(b.Nodes[i].Attempts) == 0 {
		v.Missing, v.Done = "Nothing has run here yet.", true
		if i < 0 {
			v.Node = ""
		}
		return v, nil
	}
	if v.Attempt <= 0 {
		v.Attempt = b.Nodes[i].Attempts[len(b.Nodes[i].Attempts)-1].Attempt
	}
	return s.readLog(ctx, v, 0, tailLines)
}

// interesting is the node whose log a build opens on: what failed, what runs, or
// what ran last.
func interesting(b api.BuildDetail) string {
	if b.WhyFailed != nil {
		return b.WhyFailed.Node
	}
	best := ""
	for _, n := range b.Nodes {
		if len(n.Attempts) == 0 {
			continue
		}
		if n.State == delivery.NodeRunning {
			return n.Name
		}
		best = n.Name
	}
	return best
}

type logPageView struct {
	frame
	B   api.BuildDetail
	Log logView
}

// logPage is a window on a log: around ?line= (to ?to=), around the match of
// ?q= at or behind ?line=, from ?first= on, or the end.
func (s *server) logPage(w http.ResponseWriter, r *http.Request) error {
	name, node, q := r.PathValue("project"), r.PathValue("node"), r.URL.Query()
	number, err := numberOf(r)
	if err != nil {
		return err
	}
	b, err := s.Backend.Build(r.Context(), name, number)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	if !slices.ContainsFunc(b.Nodes, func(n api.Node) bool { return n.Name == node }) {
		return notFound("build " + num(number) + " of " + name + " has no " + node)
	}
	v := logView{Project: name, Number: number, Node: node, Relative: q.Get("time") == "relative", Query: strings.TrimSpace(q.Get("q"))}
	if len(v.Query) > 200 {
		return &delivery.Error{Kind: delivery.KindInvalid, What: "cannot look for that", Why: "it has more than 200 letters"}
	}
	v.Attempt, _ = strconv.Atoi(q.Get("attempt")) // not a number: the latest
	at := func(name string) int64 {
		n, _ := strconv.ParseInt(q.Get(name), 10, 64) // not a number: none
		return max(0, n)
	}
	v.From = at("line")
	v.To = max(v.From, at("to"))
	first := at("first")
	if v.From > 0 {
		first = max(1, v.From-linesAbove)
	}
	if v, err = s.readLog(r.Context(), v, first, pageLines); err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, logPageHTML(logPageView{frame: s.frame(r, node+" of "+name+" "+num(number)).of(name, "builds"), B: b, Log: v}))
}

type gateView struct {
	frame
	G       api.GateDetail
	Change  *problem // why a decision was not taken; the page is shown with 409
	Written string   // the reason that was given for it
	Log     logView
	Node    *api.Node // that runs now, after a decision
}

func (s *server) gate(w http.ResponseWriter, r *http.Request) error {
	g, err := s.Backend.Gate(r.Context(), r.PathValue("id"))
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	return s.showGate(w, r, http.StatusOK, g, nil)
}

func (s *server) showGate(w http.ResponseWriter, r *http.Request, status int, g api.GateDetail, change *problem) error {
	v := gateView{frame: s.frame(r, "Build "+num(g.Number)+" of "+g.Project).live(g.Project, g.Number), G: g, Change: change, Written: r.PostForm.Get("reason")}
	v.Self = to("a", g.ID) // also when it was a form that led here
	if g.State == delivery.GatePromoted || g.State == delivery.GateRejected {
		if i := slices.IndexFunc(g.Build.Nodes, func(n api.Node) bool { return n.State == delivery.NodeRunning }); i >= 0 {
			v.Node = &g.Build.Nodes[i]
		}
		var err error
		if v.Log, err = s.tail(r.Context(), g.Build, interesting(g.Build), ""); err != nil {
			return err
		}
	}
	return s.render(w, r, status, gatePage(v))
}

func (s *server) mails(ctx context.Context) ([]api.Mail, error) {
	if !s.Mailbox {
		return nil, &delivery.Error{Kind: delivery.KindNotFound, What: "this server has no mailbox page", Why: "it sends real mail; only the demo keeps it here"}
	}
	return s.Backend.Mails(ctx) //nolint:wrapcheck // explained by fail
}

type mailView struct {
	frame
	Mails []api.Mail
	Open  *api.Mail
}

func (s *server) mailbox(w http.ResponseWriter, r *http.Request) error {
	ms, err := s.mails(r.Context())
	if err != nil {
		return err
	}
	return s.render(w, r, http.StatusOK, mailPage(mailView{frame: s.frame(r, "Mailbox").live("", 0), Mails: ms}))
}

func (s *server) mail(w http.ResponseWriter, r *http.Request) error {
	ms, err := s.mails(r.Context())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(ms, func(m api.Mail) bool { return m.ID == r.PathValue("id") })
	if i < 0 {
		return notFound("no such mail")
	}
	return s.render(w, r, http.StatusOK, mailPage(mailView{frame: s.frame(r, "Mailbox").live("", 0), Mails: ms, Open: &ms[i]}))
}

type hotfixView struct {
	frame
	H       api.HotfixBase
	Fixes   []api.Build // the newest open build of each hotfix
	Name    string      // of the hotfix that the reader wants to start
	Refused string      // why that is no name
}

// startCommands are what begins a hotfix without Shunt's own command.
func (v hotfixView) startCommands() []string {
	branch := strings.Replace(v.H.Pattern, "*", v.Name, 1)
	return []string{"git fetch --tags origin", "git switch -c " + branch + " " + v.H.Commit, "git push -u origin HEAD"}
}

// hotfixWord tells why a text cannot be the name of a hotfix; "" when it can.
func hotfixWord(name string) string {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", r)) {
			return "A name has letters, digits, dots, dashes and underscores, and begins with a letter or a digit."
		}
	}
	if len(name) > 60 || strings.Contains(name, "..") || strings.HasSuffix(name, ".lock") || strings.HasSuffix(name, ".") {
		return "Git does not take that name, or it is longer than 60 letters."
	}
	return ""
}

func (s *server) hotfixes(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("project")
	h, err := s.Backend.Hotfix(r.Context(), name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v := hotfixView{frame: s.frame(r, name+" hotfixes").live(name, 0).of(name, "hotfixes"), H: h, Name: strings.TrimSpace(r.URL.Query().Get("name"))}
	if v.Refused = hotfixWord(v.Name); v.Refused != "" {
		v.Name = ""
	}
	for _, b := range h.Open { // newest first
		if !slices.ContainsFunc(v.Fixes, func(o api.Build) bool { return o.Branch == b.Branch }) {
			v.Fixes = append(v.Fixes, b)
		}
	}
	return s.render(w, r, http.StatusOK, hotfixPage(v))
}

type environmentsView struct {
	frame
	Is []api.Instance
}

func (s *server) environments(w http.ResponseWriter, r *http.Request, seen int64) error {
	name := r.PathValue("project")
	is, err := s.Backend.Instances(r.Context(), name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	return s.render(w, r, http.StatusOK, environmentsPage(environmentsView{s.frame(r, name+" environments").live(name, 0).of(name, "environments").seeing(seen), is}))
}

type backMergesView struct {
	frame
	Debts []api.BackMerge
}

func (s *server) backMerges(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("project")
	d, err := s.Backend.BackMerges(r.Context(), name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	return s.render(w, r, http.StatusOK, backMergesPage(backMergesView{s.frame(r, name+" back-merges").live(name, 0).of(name, "back-merges"), d}))
}

type auditView struct {
	frame
	Rows []api.AuditRow
	Next int64 // sequence number below which older rows are; 0: none
}

func (s *server) audit(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("project")
	before, _ := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64) // not a number: from the newest
	rows, err := s.Backend.Audit(r.Context(), name, max(0, before))
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v := auditView{frame: s.frame(r, name+" audit").of(name, "audit"), Rows: rows}
	if n := len(rows); n > 0 && rows[n-1].Seq > 1 {
		v.Next = rows[n-1].Seq
	}
	return s.render(w, r, http.StatusOK, auditPage(v))
}

type settingsView struct {
	frame
	P       api.Project
	Hook    string // the webhook's full address
	Secrets []string
	Feeds   []string // full addresses
	Mailed  int      // addresses to which a test mail is on its way; 0: none was asked for
}

func (s *server) settings(w http.ResponseWriter, r *http.Request, seen int64) error {
	name := r.PathValue("project")
	p, err := s.Backend.Project(r.Context(), name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	secrets, err := s.Backend.Secrets(r.Context(), name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	key, err := s.Backend.FeedKey(r.Context(), name)
	if err != nil {
		return err //nolint:wrapcheck // explained by fail
	}
	v := settingsView{frame: s.frame(r, name+" settings").of(name, "settings").seeing(seen), P: p, Hook: publicURL(s.PublicURL, p.WebhookPath), Secrets: secrets}
	v.Mailed, _ = strconv.Atoi(r.URL.Query().Get("mailed")) // not a number: none
	for _, file := range feedFiles() {
		v.Feeds = append(v.Feeds, publicURL(s.PublicURL, to("badge", name, file))+"?key="+url.QueryEscape(key))
	}
	return s.render(w, r, http.StatusOK, settingsPage(v))
}

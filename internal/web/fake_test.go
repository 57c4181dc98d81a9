package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/runlog"
)

const (
	goodSession   = "session-of-ana"
	viewerSession = "session-of-vic"
	goodToken     = "token-of-ana"
	goodOnce      = "once-of-ana"
)

func now() time.Time { return time.Date(2026, 11, 22, 3, 12, 0, 0, time.UTC) }

type fixedClock struct{}

func (fixedClock) Now() time.Time { return now() }

// fakeAuth knows ana, an operator, and vic, who may only look.
type fakeAuth struct {
	mu   sync.Mutex
	used bool
	out  bool
}

func (*fakeAuth) Session(_ context.Context, secret string) (delivery.User, error) {
	switch secret {
	case goodSession:
		return delivery.User{Name: "ana", Email: "ana@example.org", Operator: true}, nil
	case viewerSession:
		return delivery.User{Name: "vic"}, nil
	}
	return delivery.User{}, anonymous()
}

func (*fakeAuth) Token(_ context.Context, secret string) (delivery.User, error) {
	if secret == goodToken {
		return delivery.User{Name: "ana", Email: "ana@example.org", Operator: true}, nil
	}
	return delivery.User{}, anonymous()
}

func (a *fakeAuth) RedeemOnce(_ context.Context, secret string) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if secret != goodOnce || a.used {
		return "", &delivery.Error{Kind: delivery.KindUnauthorized, What: "this link does not sign you in", Next: "shunt login-link"}
	}
	a.used = true
	return goodSession, nil
}

func (a *fakeAuth) SignOut(context.Context, string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.out = true
	return nil
}

func (*fakeAuth) NewToken(_ context.Context, user, name string) (string, error) {
	return "shunt_t_" + user + name, nil
}

// fakeLog is a log that a test writes.
type fakeLog struct {
	mu   sync.Mutex
	b    []byte
	done bool
	more chan struct{}
}

func newLog(lines ...string) *fakeLog {
	l := &fakeLog{more: make(chan struct{})}
	l.add(lines...)
	return l
}

func (l *fakeLog) add(lines ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range lines {
		l.b = fmt.Appendf(l.b, "%d %s\n", now().UnixMicro(), s)
	}
	close(l.more)
	l.more = make(chan struct{})
}

func (l *fakeLog) end() *fakeLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	close(l.more)
	l.more = make(chan struct{})
	return l
}

func (l *fakeLog) ReadAt(p []byte, off int64) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.NewReader(l.b).ReadAt(p, off)
}

func (l *fakeLog) Close() error { return nil }

func (l *fakeLog) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.b))
}

func (l *fakeLog) Done() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}

func (l *fakeLog) Index(ctx context.Context) (*runlog.Index, error) {
	x := &runlog.Index{}
	_, err := x.Extend(ctx, l, l.Size())
	return x, err
}

func (l *fakeLog) Wait(ctx context.Context, offset int64) error {
	for {
		l.mu.Lock()
		ready, more := l.done || int64(len(l.b)) > offset, l.more
		l.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-more:
		}
	}
}

// fake is a Backend with one project, petstore, whose hotfix build 43 waits.
type fake struct {
	mu       sync.Mutex
	poison   string // appended to every text
	subject  string // of the commit of build 43
	tickets  delivery.Tickets
	calls    []string
	changes  int
	gate     api.GateDetail
	logs     map[string]*fakeLog
	events   []api.Event
	subs     []chan api.Event
	failing  error
	incident string
	happened []api.AuditRow // since the audit row 12
	freeze   *api.Freeze    // of the project
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func commitOf(s string) string { return digest(s)[:40] }

func newFake() *fake {
	f := &fake{subject: "Cart answers 500 for a discontinued item", logs: map[string]*fakeLog{
		"job/build": newLog("#step 1: make test", "|\x1b[32mok\x1b[0m  example.org/petstore/cart 0.412s", "|\x1b[32mok\x1b[0m  example.org/petstore/pay 1.020s", "|see https://example.org/docs for the list", "#step 2: make package", "|dist/petstore.tar.gz  4211 bytes").end(),
		"job/smoke": newLog("#step 1: ./ci/smoke.sh", "|GET /healthz 200", "|GET /cart/7 200").end(),
	}}
	f.gate = f.newGate()
	return f
}

func (f *fake) build() api.Build {
	return api.Build{
		Project: "petstore", Number: 43, Lane: delivery.LaneHotfix, Branch: "hotfix/cart-500", Commit: commitOf("43"),
		Subject: f.subject, Author: "Ana Ruiz", Status: delivery.BuildWaiting,
		CreatedAt: now().Add(-14 * time.Minute), StartedAt: now().Add(-14 * time.Minute), URL: "http://localhost/petstore/43", Gate: "7KQ2MXPA",
	}
}

func (f *fake) node(name, stage string, state delivery.NodeState, took time.Duration, attempts int) api.Node {
	kind, target, _ := strings.Cut(name, "/")
	n := api.Node{Name: name, Kind: delivery.NodeKind(kind), Target: target, Stage: stage, State: state, Needs: []string{}, Usual: 2 * took}
	for i := range attempts {
		st := delivery.AttemptSucceeded
		if state == delivery.NodeRunning {
			st = delivery.AttemptRunning
		}
		n.Attempts = append(n.Attempts, api.Attempt{Attempt: i + 1, State: st, StartedAt: now().Add(-took)})
	}
	if state == delivery.NodeSucceeded || state == delivery.NodeFailed {
		n.StartedAt, n.FinishedAt = now().Add(-10*time.Minute), now().Add(-10*time.Minute+took)
	}
	if state == delivery.NodeRunning {
		n.StartedAt = now().Add(-took)
	}
	return n
}

func (f *fake) detail() api.BuildDetail {
	return api.BuildDetail{
		Build: f.build(), Tree: commitOf("tree"), PolicyDigest: digest("policy"), BuildTag: "build/43", Tickets: f.tickets,
		Nodes: []api.Node{
			f.node("job/build", "ci", delivery.NodeSucceeded, 41*time.Second, 2),
			f.node("job/smoke", "ci", delivery.NodeSucceeded, 6*time.Second, 1),
			f.node("job/acceptance", "ci", delivery.NodeSucceeded, 52*time.Second, 0),
			f.node("tag", "publish", delivery.NodeSucceeded, time.Second, 0),
			f.node("publish/app", "publish", delivery.NodeSucceeded, 2*time.Second, 0),
			f.node("up/qa", "qa", delivery.NodeSucceeded, 9*time.Second, 0),
			f.node("job/regression", "qa", delivery.NodeSkipped, 19*time.Minute, 0),
			f.node("gate/production", "production", delivery.NodeWaiting, 0, 0),
			f.node("down/qa", "production", delivery.NodePending, 0, 0),
			f.node("deploy/production", "production", delivery.NodePending, 0, 0),
			f.node("release", "production", delivery.NodePending, 0, 0),
		},
		Artifacts:   []api.Artifact{{Name: "app", File: "petstore.tar.gz", SHA256: digest("artifact"), Size: 4211, Published: []string{"https://nexus.example.org/repository/releases/org/example/petstore/1.0.43/petstore-1.0.43.tar.gz"}}},
		Tests:       api.TestSummary{Passed: 412, Skipped: 2, New: 3, Fixed: []string{"cart.TestDiscontinued"}},
		Instances:   f.instances(),
		Deployments: []api.Deployment{},
		Effects:     []api.Effect{{Key: "43/tag/1", Kind: "tag", State: delivery.EffectConfirmed, StartedAt: now().Add(-9 * time.Minute)}},
		Gates:       []api.Gate{},
		Actions:     []api.Action{{Name: "cancel"}, {Name: "rerun", Refused: "nothing failed: promote or reject it"}},
	}
}

func (f *fake) instances() []api.Instance {
	return []api.Instance{{ID: "petstore-qa-43", Project: "petstore", Environment: "qa", Number: 43, State: delivery.InstanceUp, URL: "http://qa-43.example.org", CreatedAt: now().Add(-8 * time.Minute), ExpiresAt: now().Add(8 * time.Hour)}}
}

func (f *fake) running() *api.Running {
	return &api.Running{Build: 41, Commit: commitOf("41"), Lane: delivery.LaneMain, Since: now().Add(-9 * 24 * time.Hour), By: "Ben Okafor", URL: "https://petstore.example.org", Tag: "production/41"}
}

func (f *fake) newGate() api.GateDetail {
	d := f.detail()
	return api.GateDetail{
		Gate:  api.Gate{ID: "7KQ2MXPA", Project: "petstore", Number: 43, Environment: "production", Version: 1, State: delivery.GateOpen, Binding: delivery.Binding{Commit: d.Commit}, OpenedAt: now().Add(-7 * time.Minute), ExpiresAt: now().Add(4 * time.Hour), URL: "http://localhost/a/7KQ2MXPA"},
		Build: d, Title: "hotfix cart-500", Replaces: f.running(), QA: f.instances(),
		Commits:     []api.Commit{{ID: d.Commit, Subject: d.Subject, Author: d.Author, At: now().Add(-20 * time.Minute)}},
		CommitCount: 1, Files: []delivery.FileChange{{Path: "cart/cart.go", Added: 4, Deleted: 2}, {Path: "cart/cart_test.go", Added: 5, Deleted: 0}}, Added: 9, Deleted: 2,
		Diff:     "diff --git a/cart/cart.go b/cart/cart.go\n--- a/cart/cart.go\n+++ b/cart/cart.go\n@@ -12,4 +12,6 @@ func total(c Cart) int {\n \tfor _, i := range c.Items {\n-\t\tsum += i.Item.Price\n+\t\tif i.Item == nil { // discontinued\n+\t\t\tcontinue\n+\t\t}\n \t}\n",
		Skipped:  []api.Node{f.node("job/regression", "qa", delivery.NodeSkipped, 19*time.Minute, 0), f.node("job/security", "qa", delivery.NodeSkipped, 35*time.Minute, 0)},
		Forecast: api.Forecast{Branch: "develop", Words: "It merges clean into develop."},
		Warnings: []string{}, CanDecide: true,
		Next:    []string{"The environment qa is destroyed (about 5 s).", "petstore.tar.gz is deployed to production (usually 40 s).", "The commit is tagged production/43 and master moves to it."},
		WayBack: "shunt rollback petstore production -m \"why\" puts build 41 back. The database is not rolled back.",
	}
}

func (f *fake) projects() []api.Project {
	b, freeze := f.build(), f.freeze
	if f.poison != "" {
		freeze = &f.freezes()[2]
	}
	return []api.Project{{
		Name: "petstore", URL: "https://git.example.org/shop/petstore.git", Branches: delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"}, Tags: delivery.Tags{Build: "build/$N", Production: "production/$N"},
		Production: f.running(), Waiting: []api.Build{b}, Latest: &b, NextBuild: 44, WebhookPath: "/hooks/petstore", LastFetch: now().Add(-20 * time.Second),
		Environments: []api.EnvironmentState{
			{Name: "qa", Ephemeral: true, Instances: f.instances()},
			{Name: "production", Production: true, Running: f.running(), Failed: &api.Running{Build: 42, Commit: commitOf("42"), Lane: delivery.LaneMain, Since: now().Add(-26 * time.Hour), By: "Ana Ruiz"}},
		},
		BackMerges: f.debts(), Freeze: freeze,
	}}
}

func (f *fake) debts() []api.BackMerge {
	return []api.BackMerge{{Project: "petstore", Commit: commitOf("40"), Number: 40, Owner: "Ana Ruiz", OpenedAt: now().Add(-50 * time.Hour), Conflicts: []string{"cart/cart.go"}, Commands: []string{"git switch develop", "git merge origin/master"}}}
}

// infect appends f.poison to every plain string that v holds.
func infect(v reflect.Value, poison string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			infect(v.Elem(), poison)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for _, field := range v.Fields() {
			infect(field, poison)
		}
	case reflect.Slice:
		for i := range v.Len() {
			infect(v.Index(i), poison)
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() {
			v.SetString(v.String() + poison)
		}
	default:
	}
}

// give is what every reader returns: a deep enough fresh value, infected when
// the test asks for it.
func give[T any](f *fake, call string, v T) (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	if f.poison != "" {
		infect(reflect.ValueOf(&v).Elem(), f.poison)
	}
	return v, f.failing
}

func did[T any](f *fake, v T, call string, args ...any) (T, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, strings.TrimSpace(fmt.Sprintln(append([]any{call}, args...)...)))
	f.changes++
	return v, f.failing
}

func (f *fake) known(project string) error {
	if project != "petstore" {
		return &delivery.Error{Kind: delivery.KindNotFound, What: "no project " + project}
	}
	return nil
}

func (f *fake) Projects(context.Context) ([]api.Project, error) {
	return give(f, "Projects", f.projects())
}

func (f *fake) Project(_ context.Context, name string) (api.Project, error) {
	if err := f.known(name); err != nil {
		return api.Project{}, err
	}
	p := f.projects()[0]
	f.mu.Lock()
	p.Incident = f.incident
	f.mu.Unlock()
	return give(f, "Project "+name, p)
}

func (f *fake) Pushes(_ context.Context, p string) ([]api.Push, error) {
	return give(f, "Pushes "+p, []api.Push{{Project: p, Ref: "refs/heads/hotfix/late", Commit: commitOf("late"), At: now().Add(-2 * time.Hour), Refused: "hotfix/late does not start at production/41.\nStart it there:  shunt hotfix start late"}})
}

func (f *fake) Builds(_ context.Context, p string, q api.BuildFilter) ([]api.Build, error) {
	b := f.build()
	old := b
	old.Number, old.Lane, old.Branch, old.Status, old.Subject = 42, delivery.LaneMain, "develop", delivery.BuildFailed, "Try the new checkout"
	older := old
	older.Number, older.Status, older.Subject = 41, delivery.BuildSucceeded, "Search finds plurals"
	return give(f, fmt.Sprintf("Builds %s %+v", p, q), []api.Build{b, old, older})
}

func (f *fake) Build(_ context.Context, p string, n int64) (api.BuildDetail, error) {
	if err := f.known(p); err != nil {
		return api.BuildDetail{}, err
	}
	f.mu.Lock()
	g := f.gate
	f.mu.Unlock()
	d := g.Build
	d.Nodes = slices.Clone(d.Nodes)
	d.Instances, d.Artifacts, d.Effects, d.Actions = f.instances(), slices.Clone(d.Artifacts), slices.Clone(d.Effects), slices.Clone(d.Actions)
	d.Gates = []api.Gate{g.Gate}
	switch n {
	case 43:
	case 42:
		d.Number, d.Status, d.Lane, d.Branch, d.Subject, d.Gates = 42, delivery.BuildFailed, delivery.LaneMain, "develop", "Try the new checkout", nil
		d.Nodes[1].State = delivery.NodeFailed
		d.WhyFailed = &api.WhyFailed{Node: "job/smoke", Attempt: 1, ExitCode: 1, Reason: "step 1 failed", Tail: []string{"GET /healthz 200", "GET /cart/7 500", "smoke: want 200, got 500"}}
		d.Tests.Failed, d.Tests.Failing = 1, []api.TestCase{{Node: "job/smoke", Class: "cart", Name: "TestDiscontinued", Message: "want 200\n got 500"}}
		d.Tests.NewlyFailing = []string{"cart.TestDiscontinued"}
		d.Actions = []api.Action{{Name: "rerun"}, {Name: "rollback"}, {Name: "retry"}}
	default:
		return d, &delivery.Error{Kind: delivery.KindNotFound, What: fmt.Sprintf("no build %d in %s", n, p)}
	}
	return give(f, fmt.Sprintf("Build %s %d", p, n), d)
}

// lines is a story of nine days: a hotfix that waits, one that shipped, one that
// was refused, and a merge that is owed.
func (f *fake) lines() api.Lines {
	day := func(d float64) time.Time { return now().Add(time.Duration((d - 10) * float64(24*time.Hour))) }
	st := func(n int64, branch string, status delivery.BuildStatus, at float64, gate delivery.GateState, released float64, base int64) api.Station {
		s := api.Station{Build: f.build(), Base: base, GateState: gate}
		s.Number, s.Branch, s.Status, s.CreatedAt = n, branch, status, day(at)
		if s.Lane = delivery.LaneMain; strings.HasPrefix(branch, "hotfix/") {
			s.Lane = delivery.LaneHotfix
		}
		if n != 43 {
			s.Subject = fmt.Sprintf("Subject of build %d", n)
		}
		if gate != "" {
			s.GateID = fmt.Sprintf("GATE%d", n)
		}
		if released > 0 {
			s.ReleasedAt, s.Tag = day(released), fmt.Sprintf("production/%d", n)
		}
		return s
	}
	return api.Lines{
		Project: "petstore", Branches: delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"}, Running: 41,
		Stations: []api.Station{
			st(35, "master", delivery.BuildSucceeded, 0, "", 0.1, 0),
			st(36, "develop", delivery.BuildSucceeded, 1, delivery.GatePromoted, 1.5, 0),
			st(37, "develop", delivery.BuildFailed, 2, "", 0, 0),
			st(38, "hotfix/login-loop", delivery.BuildFailed, 2.2, "", 0, 36),
			st(39, "hotfix/prices-of-discontinued-items", delivery.BuildRejected, 2.3, delivery.GateRejected, 0, 36),
			st(40, "hotfix/login-loop", delivery.BuildSucceeded, 2.5, delivery.GatePromoted, 2.9, 36),
			st(41, "develop", delivery.BuildSucceeded, 4, delivery.GatePromoted, 4.5, 0),
			st(42, "develop", delivery.BuildFailed, 8, "", 0, 0),
			st(43, "hotfix/cart-500", delivery.BuildWaiting, 9.99, delivery.GateOpen, 0, 41),
			st(44, "develop", delivery.BuildRunning, 9.995, "", 0, 0),
		},
		Debts: []api.BackMerge{
			{Project: "petstore", Commit: commitOf("41"), Number: 41, Owner: "Ana Ruiz", OpenedAt: day(4.5)},
			{Project: "petstore", Commit: commitOf("40"), Number: 40, Owner: "Ana Ruiz", OpenedAt: day(2.9), ClosedAt: day(3), ClosedBy: commitOf("m")},
		},
	}
}

func (f *fake) Lines(_ context.Context, p string, limit int) (api.Lines, error) {
	return give(f, fmt.Sprintf("Lines %s %d", p, limit), f.lines())
}

func (f *fake) Compare(_ context.Context, p string, from, until int64) (api.Comparison, error) {
	if from == 0 {
		from = 41
	}
	g := f.newGate()
	b := f.build()
	old := b
	old.Number, old.Lane, old.Branch, old.Status, old.Subject, old.Commit, old.CreatedAt = from, delivery.LaneMain, "develop", delivery.BuildSucceeded, "Search finds plurals", commitOf("41"), now().Add(-9*24*time.Hour)
	b.Number = until
	return give(f, fmt.Sprintf("Compare %s %d %d", p, from, until), api.Comparison{
		Project: p, From: old, To: b, Tickets: f.tickets, Commits: g.Commits, CommitCount: 1, Missing: []api.Commit{{ID: commitOf("x"), Subject: "Only in the older one", Author: "Ben Okafor", At: now()}}, Files: g.Files, FileCount: 2, Added: 9, Deleted: 2, Diff: g.Diff,
		Tests:     api.TestChanges{Failing: []string{"cart.TestTotal"}, Fixed: []string{"cart.TestDiscontinued"}, New: []string{"cart.TestNew"}, Gone: []string{"cart.TestOld"}, Slower: []api.SlowerTest{{Name: "search.TestAll", Was: 300 * time.Millisecond, Is: 2 * time.Second}}},
		Artifacts: []api.ArtifactChange{{Name: "app", From: &api.Artifact{Name: "app", SHA256: digest("old"), Size: 4096}, To: &api.Artifact{Name: "app", SHA256: digest("artifact"), Size: 4211}}, {Name: "docs", To: &api.Artifact{Name: "docs", Size: 100}}},
	})
}

func (f *fake) Timeline(_ context.Context, p string, before time.Time) ([]api.Moment, error) {
	ago := func(h int) time.Time { return now().Add(-time.Duration(h) * time.Hour) }
	return give(f, fmt.Sprintf("Timeline %s %v", p, before.IsZero()), []api.Moment{
		{At: ago(0), Kind: "freeze ended", By: "Ana Ruiz", Words: "freeze 5, from 2026-11-20T03:12:00Z until 2026-11-23T03:12:00Z: the stock is counted"},
		{At: ago(1), Kind: "hold released", By: "Ana Ruiz", Words: "the fix is in develop"},
		{At: ago(20), Kind: "rollback", Environment: "production", Number: 40, Lane: delivery.LaneHotfix, State: delivery.DeploymentSucceeded, Took: 8 * time.Second, By: "Ana Ruiz", Words: "checkout is down"},
		{At: ago(20), Kind: "hold", By: "Ana Ruiz", Words: "rolled back to build 40: checkout is down"},
		{At: ago(21), Kind: "promote", Environment: "production", Number: 41, Lane: delivery.LaneMain, State: delivery.DeploymentSucceeded, Took: 41 * time.Second, By: "Ben Okafor"},
		{At: ago(26), Kind: "promote", Environment: "production", Number: 42, Lane: delivery.LaneMain, State: delivery.DeploymentFailed, Took: 3 * time.Second, By: "Ana Ruiz", Words: "ssh: connection refused. Production still runs build 40."},
		{At: ago(48), Kind: "freeze", Until: ago(0), By: "Ben Okafor", Words: "stocktaking"},
		{At: ago(72), Kind: "freeze planned", By: "Ben Okafor", Words: "freeze 5, from 2026-11-20T03:12:00Z until 2026-11-23T03:12:00Z: stocktaking"},
		{At: ago(100), Kind: "incident", By: "shunt", Words: "refs/heads/master was moved by somebody else"},
		{At: ago(240), Kind: "takeover", Environment: "production", Number: 35, Lane: delivery.LaneMain, State: delivery.DeploymentSucceeded, By: "operator", Words: "it ran when Shunt took over"},
	})
}

// freezes are one of each state; one was taken back before it began.
func (f *fake) freezes() []api.Freeze {
	in := func(h int) time.Time { return now().Add(time.Duration(h) * time.Hour) }
	freeze := api.Freeze{ID: 7, Project: "petstore", State: delivery.FreezePlanned, From: in(800), Until: in(1010), Reason: "Christmas", By: "Ana Ruiz", CreatedAt: in(-1)}
	sale, active, ended, over := freeze, freeze, freeze, freeze
	sale.ID, sale.State, sale.From, sale.Until, sale.Reason, sale.EndedBy, sale.EndedAt, sale.EndedWhy = 6, delivery.FreezeEnded, in(400), in(410), "the great sale", "Ana Ruiz", in(-1), "no sale"
	active.ID, active.State, active.From, active.Until, active.Reason = 4, delivery.FreezeActive, in(-2), in(30), "the till moves"
	ended.ID, ended.State, ended.From, ended.Until, ended.Reason, ended.EndedBy, ended.EndedAt = 5, delivery.FreezeEnded, in(-48), in(24), "stocktaking", "Ana Ruiz", in(-3)
	over.ID, over.State, over.From, over.Until, over.Reason = 3, delivery.FreezeOver, in(-500), in(-400), "the tax office"
	return []api.Freeze{freeze, sale, active, ended, over}
}

func (f *fake) Freezes(_ context.Context, p string) ([]api.Freeze, error) {
	return give(f, "Freezes "+p, f.freezes())
}

func (f *fake) Artifacts(_ context.Context, p string, before int64) ([]api.BuildArtifact, error) {
	a := f.detail().Artifacts[0]
	return give(f, fmt.Sprintf("Artifacts %s %d", p, before), []api.BuildArtifact{
		{Artifact: a, Number: 43, Lane: delivery.LaneHotfix, Status: delivery.BuildWaiting, CreatedAt: now().Add(-14 * time.Minute)},
		{Artifact: a, Number: 41, Lane: delivery.LaneMain, Status: delivery.BuildSucceeded, CreatedAt: now().Add(-200 * time.Hour)},
	})
}

func (f *fake) Gate(_ context.Context, id string) (api.GateDetail, error) {
	f.mu.Lock()
	g := f.gate
	f.mu.Unlock()
	if id != g.ID {
		return g, &delivery.Error{Kind: delivery.KindNotFound, What: "no request " + id}
	}
	if f.poison != "" {
		fresh := f.newGate()
		fresh.State = g.State
		fresh.Warnings, fresh.Mend, fresh.Refused, fresh.EqualPatch = []string{"w"}, []string{"m"}, "r", 40
		g = fresh
	}
	return give(f, "Gate "+id, g)
}

func (f *fake) Hotfix(_ context.Context, p string) (api.HotfixBase, error) {
	return give(f, "Hotfix "+p, api.HotfixBase{Project: p, Commit: commitOf("41"), Tag: "production/41", Pattern: "hotfix/*", Open: []api.Build{f.build()}})
}

func (f *fake) BackMerges(_ context.Context, p string) ([]api.BackMerge, error) {
	return give(f, "BackMerges "+p, f.debts())
}

func (f *fake) Instances(_ context.Context, p string) ([]api.Instance, error) {
	return give(f, "Instances "+p, f.instances())
}

func (f *fake) FeedKey(_ context.Context, p string) (string, error) {
	if err := f.known(p); err != nil {
		return "", err
	}
	return "key-of-" + p, nil
}

func (f *fake) Secrets(_ context.Context, p string) ([]string, error) {
	return give(f, "Secrets "+p, []string{"NEXUS_USER", "PROD_SSH_KEY"})
}

func (f *fake) Audit(_ context.Context, p string, before int64) ([]api.AuditRow, error) {
	return give(f, fmt.Sprintf("Audit %s %d", p, before), []api.AuditRow{
		{Seq: 12, At: now().Add(-7 * time.Minute), Project: p, Number: 43, Actor: "shunt", Action: "gate opened", Detail: "production, until 07:12", Hash: digest("12")},
		{Seq: 11, At: now().Add(-14 * time.Minute), Project: p, Number: 43, Actor: "Ana Ruiz", Action: "push", Detail: "refs/heads/hotfix/cart-500", Hash: digest("11")},
	})
}

// happen writes an audit row.
func (f *fake) happen(number int64, actor, action, detail string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.happened = append(f.happened, api.AuditRow{Seq: int64(13 + len(f.happened)), At: now(), Project: "petstore", Number: number, Actor: actor, Action: action, Detail: detail})
}

func (f *fake) Seen(context.Context) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(12 + len(f.happened)), f.failing
}

func (f *fake) Since(_ context.Context, p string, of Subject, seen int64) ([]api.AuditRow, error) {
	f.mu.Lock()
	rows := slices.Clone(f.happened[max(0, seen-12):])
	f.mu.Unlock()
	slices.Reverse(rows)
	return give(f, fmt.Sprint("Since ", p, " ", of, " ", seen), rows)
}

func (f *fake) Mails(context.Context) ([]api.Mail, error) {
	text := "Hotfix cart-500 of petstore is ready for production. It waits for you.\n\n  Fixes     Cart answers 500 for a discontinued item\n  Change    1 commit, 2 files, +9 -2, by Ana Ruiz\n  Replaces  build 41, in production since Thu 13 Nov 09:12 (9 days)\n  Try it    http://qa-43.example.org          (up until 07:19)\n  Tests     412 passed, 0 failed (3 new)\n  Merge     clean into develop\n\nDecide here:  http://localhost/a/7KQ2MXPA\nOpening the page changes nothing. You decide there, signed in.\n"
	return give(f, "Mails", []api.Mail{
		{ID: "m2", Subject: "[petstore] Approve hotfix cart-500 (build 43) for production", From: "shunt@localhost", To: "petstore-team@example.org", At: now().Add(-7 * time.Minute), Text: text, HTML: "<b>never shown</b>"},
		{ID: "m1", Subject: "[petstore] Build 42 failed: job/smoke", From: "shunt@localhost", To: "ana@example.org", At: now().Add(-26 * time.Hour), Text: "smoke failed"},
	})
}

func (f *fake) Doctor(context.Context) ([]api.Check, error) {
	return give(f, "Doctor", []api.Check{{Name: "git", State: "ok", Words: "git 2.39"}})
}

func (f *fake) Log(_ context.Context, p string, n int64, node string, attempt int) (Log, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf("Log %s %d %s %d", p, n, node, attempt))
	if f.poison != "" {
		return newLog("|"+strings.ReplaceAll(f.poison, "\n", " "), "|\x1b]8;;javascript:alert(1)\x07x\x1b]8;;\x07", "#"+f.poison).end(), f.failing
	}
	l, ok := f.logs[node]
	if !ok {
		return nil, &delivery.Error{Kind: delivery.KindNotFound, What: "no log of " + node}
	}
	return l, f.failing
}

type readSeekNopCloser struct{ io.ReadSeeker }

func (readSeekNopCloser) Close() error { return nil }

func (f *fake) Artifact(_ context.Context, p string, n int64, name string) (api.Artifact, io.ReadSeekCloser, error) {
	a := api.Artifact{Name: name, File: "../evil\"\r\nX: y.html", SHA256: digest("artifact"), Size: 26}
	_, err := give(f, fmt.Sprintf("Artifact %s %d %s", p, n, name), 0)
	return a, readSeekNopCloser{strings.NewReader("<script>alert(1)</script>\n")}, err
}

func (f *fake) Subscribe(_ context.Context, after int64) (<-chan api.Event, func(), error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan api.Event, 100)
	if after > 0 {
		for _, e := range f.events {
			if e.ID > after {
				c <- e
			}
		}
	}
	f.subs = append(f.subs, c)
	f.calls = append(f.calls, fmt.Sprint("Subscribe ", after))
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.subs = slices.DeleteFunc(f.subs, func(x chan api.Event) bool { return x == c })
	}, nil
}

func (f *fake) emit(kind string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := api.Event{ID: int64(len(f.events) + 1), Project: "petstore", Number: 43, Kind: kind}
	f.events = append(f.events, e)
	for _, c := range f.subs {
		c <- e
	}
}

func (f *fake) Ready(context.Context) error { return nil }

func (f *fake) AddProject(_ context.Context, who Actor, in api.AddProject) (api.AddedProject, error) {
	return did(f, api.AddedProject{Project: f.projects()[0], WebhookSecret: "s"}, "AddProject", who, in)
}

func (f *fake) Sync(_ context.Context, p string) ([]api.Push, error) {
	return did(f, []api.Push{{Project: p, Ref: "refs/heads/develop", Build: 44}}, "Sync", p)
}

func (f *fake) Hook(_ context.Context, p string, h http.Header, body []byte, wait bool) ([]api.Push, error) {
	if err := f.known(p); err != nil {
		return nil, err
	}
	if h.Get("X-Shunt-Signature") != "good" {
		return nil, &delivery.Error{Kind: delivery.KindUnauthorized, What: "bad signature", Why: "secret detail"}
	}
	return did(f, []api.Push{{Project: p, Build: 44}}, "Hook", p, string(body), wait)
}

func (f *fake) Decide(_ context.Context, who Actor, p string, n int64, in api.Decide) (api.Gate, error) {
	f.mu.Lock()
	g := &f.gate
	switch {
	case f.failing != nil:
		defer f.mu.Unlock()
		return api.Gate{}, f.failing
	case g.State != delivery.GateOpen:
		defer f.mu.Unlock()
		return api.Gate{}, &delivery.Error{Kind: delivery.KindConflict, What: "build 43 is decided already", Why: g.DecidedBy + " said " + string(g.State)}
	case in.Version != 0 && in.Version != g.Version:
		defer f.mu.Unlock()
		return api.Gate{}, &delivery.Error{Kind: delivery.KindConflict, What: "the request has changed", Why: "QA was run again"}
	}
	g.State, g.DecidedBy, g.DecidedAt, g.DecidedFrom, g.Reason = delivery.GateRejected, who.User, now(), who.From, in.Reason
	if in.Promote {
		g.State = delivery.GatePromoted
		g.Build.Status = delivery.BuildRunning
		g.Build.Nodes = slices.Clone(g.Build.Nodes)
		i := slices.IndexFunc(g.Build.Nodes, func(n api.Node) bool { return n.Name == "deploy/production" })
		g.Build.Nodes[i] = f.node("deploy/production", "production", delivery.NodeRunning, time.Second, 1)
		f.logs["deploy/production"] = newLog("#step 1: ./ci/deploy.sh", "|upload \x1b[1mpetstore.tar.gz\x1b[0m")
	}
	out := g.Gate
	f.mu.Unlock()
	_, err := did(f, 0, "Decide", who, p, n, in)
	f.emit("gate")
	return out, err
}

func (f *fake) Cancel(_ context.Context, who Actor, p string, n int64, why string) (api.Build, error) {
	return did(f, f.build(), "Cancel", who, p, n, why)
}

func (f *fake) Rerun(_ context.Context, who Actor, p string, n int64) (api.Build, error) {
	return did(f, f.build(), "Rerun", who, p, n)
}

func (f *fake) Resolve(_ context.Context, who Actor, p string, n int64, in api.Resolve) (api.Build, error) {
	return did(f, f.build(), "Resolve", who, p, n, in)
}

func (f *fake) Rollback(_ context.Context, who Actor, p string, in api.Rollback) (api.Build, error) {
	return did(f, f.build(), "Rollback", who, p, in)
}

func (f *fake) Hold(_ context.Context, who Actor, p, why string) (api.Project, error) {
	return did(f, f.projects()[0], "Hold", who, p, why)
}

func (f *fake) ReleaseHold(_ context.Context, who Actor, p, why string) (api.Project, error) {
	return did(f, f.projects()[0], "ReleaseHold", who, p, why)
}

func (f *fake) PlanFreeze(_ context.Context, who Actor, p string, in api.PlanFreeze) (api.Freeze, error) {
	return did(f, f.freezes()[0], "PlanFreeze", who, p, in.From.Format(time.RFC3339), in.Until.Format(time.RFC3339), in.Reason)
}

func (f *fake) EndFreeze(_ context.Context, who Actor, p string, id int64, why string) (api.Freeze, error) {
	return did(f, f.freezes()[1], "EndFreeze", who, p, id, why)
}

func (f *fake) ClearIncident(_ context.Context, who Actor, p, why string) (api.Project, error) {
	return did(f, f.projects()[0], "ClearIncident", who, p, why)
}

func (f *fake) Keep(_ context.Context, who Actor, p, id string, in api.Keep) (api.Instance, error) {
	pin := "nil"
	if in.Pin != nil {
		pin = fmt.Sprint(*in.Pin)
	}
	return did(f, f.instances()[0], "Keep", who, p, id, in.Extend, pin)
}

func (f *fake) Destroy(_ context.Context, who Actor, p, id string) (api.Instance, error) {
	return did(f, f.instances()[0], "Destroy", who, p, id)
}

func (f *fake) TestMail(_ context.Context, who Actor, p string) (api.TestMail, error) {
	return did(f, api.TestMail{To: []string{"a@example.org", "b@example.org"}}, "TestMail", who, p)
}

func (f *fake) SetSecret(_ context.Context, who Actor, p, name, value string) error {
	_, err := did(f, 0, "SetSecret", who, p, name, value)
	return err
}

func (f *fake) DeleteSecret(_ context.Context, who Actor, p, name string) error {
	_, err := did(f, 0, "DeleteSecret", who, p, name)
	return err
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes
}

func (f *fake) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return ""
	}
	return f.calls[len(f.calls)-1]
}

// serve starts a server on a fake backend.
func serve(t *testing.T, f *fake) *httptest.Server {
	t.Helper()
	return serveConfig(t, Config{Backend: f, Mailbox: true, Design: true})
}

func serveConfig(t *testing.T, cfg Config) *httptest.Server {
	t.Helper()
	ts := httptest.NewUnstartedServer(nil)
	if cfg.PublicURL == "" {
		cfg.PublicURL = "http://" + ts.Listener.Addr().String()
	}
	cfg.Auth, cfg.Version, cfg.Log, cfg.Clock = &fakeAuth{}, "v0.0.0-test", slog.New(slog.DiscardHandler), fixedClock{}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ts.Config.Handler = h
	ts.Start()
	t.Cleanup(ts.Close)
	return ts
}

// reply is a read response.
type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends one request; the cookie is not sent when session is empty.
func ask(t *testing.T, ts *httptest.Server, method, path, session, body string, header ...string) reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, ts.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if session != "" {
		req.AddCookie(&http.Cookie{Name: cookieName, Value: session})
	}
	if body != "" && method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{resp.StatusCode, resp.Header, string(b)}
}

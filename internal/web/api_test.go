package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
)

func client(t *testing.T, f *fake) *api.Client {
	t.Helper()
	ts := serve(t, f)
	return api.NewClient(ts.URL, goodToken, ts.Client())
}

// TestClientAndServerAgree drives every method of api.Client.
func TestClientAndServerAgree(t *testing.T) {
	t.Parallel()
	f := newFake()
	c, ctx := client(t, f), t.Context()
	want := newFake() // the same values, asked directly
	ana := Actor{"ana", "127.0.0.1, api"}
	one := func(v any, err error) any {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", f.last(), err)
		}
		return v
	}
	same := func(name string, got, wanted any) {
		t.Helper()
		if d := cmp.Diff(wanted, got); d != "" {
			t.Errorf("%s differs (-want +got):\n%s", name, d)
		}
		if strings.SplitN(f.last(), " ", 2)[0] != name {
			t.Errorf("%s called %q", name, f.last())
		}
	}
	called := func(wanted string) {
		t.Helper()
		if f.last() != wanted {
			t.Errorf("backend got %q, want %q", f.last(), wanted)
		}
	}
	if got := one(c.Me(ctx)); got != (api.Me{Name: "ana", Email: "ana@example.org", Operator: true}) {
		t.Errorf("Me = %v", got)
	}
	same("Projects", one(c.Projects(ctx)), one(want.Projects(ctx)))
	same("Project", one(c.Project(ctx, "petstore")), one(want.Project(ctx, "petstore")))
	same("Pushes", one(c.Pushes(ctx, "petstore")), one(want.Pushes(ctx, "petstore")))
	filter := api.BuildFilter{Lane: "main", Status: "failed", Branch: "a/b&c", Commit: "abc", Before: 9, Limit: 5}
	same("Builds", one(c.Builds(ctx, "petstore", filter)), one(want.Builds(ctx, "petstore", filter)))
	called("Builds petstore {Lane:main Status:failed Branch:a/b&c Commit:abc Before:9 Limit:5}")
	one(c.Builds(ctx, "petstore", api.BuildFilter{}))
	same("Build", one(c.Build(ctx, "petstore", 43)), one(want.Build(ctx, "petstore", 43)))
	same("Build", one(c.Build(ctx, "petstore", 42)), one(want.Build(ctx, "petstore", 42)))
	same("Gate", one(c.Gate(ctx, "7KQ2MXPA")), one(want.Gate(ctx, "7KQ2MXPA")))
	same("Hotfix", one(c.Hotfix(ctx, "petstore")), one(want.Hotfix(ctx, "petstore")))
	same("BackMerges", one(c.BackMerges(ctx, "petstore")), one(want.BackMerges(ctx, "petstore")))
	same("Instances", one(c.Instances(ctx, "petstore")), one(want.Instances(ctx, "petstore")))
	same("Secrets", one(c.Secrets(ctx, "petstore")), one(want.Secrets(ctx, "petstore")))
	same("Audit", one(c.Audit(ctx, "petstore", 13)), one(want.Audit(ctx, "petstore", 13)))
	same("Lines", one(c.Lines(ctx, "petstore", 7)), one(want.Lines(ctx, "petstore", 7)))
	called("Lines petstore 7")
	same("Compare", one(c.Compare(ctx, "petstore", 0, 43)), one(want.Compare(ctx, "petstore", 0, 43)))
	same("Timeline", one(c.Timeline(ctx, "petstore", time.Time{})), one(want.Timeline(ctx, "petstore", time.Time{})))
	called("Timeline petstore true")
	one(c.Timeline(ctx, "petstore", now()))
	called("Timeline petstore false")
	same("Artifacts", one(c.Artifacts(ctx, "petstore", 44)), one(want.Artifacts(ctx, "petstore", 44)))
	called("Artifacts petstore 44")
	same("Freezes", one(c.Freezes(ctx, "petstore")), one(want.Freezes(ctx, "petstore")))
	same("TestMail", one(c.TestMail(ctx, "petstore")), api.TestMail{To: []string{"a@example.org", "b@example.org"}})
	same("Mails", one(c.Mails(ctx)), one(want.Mails(ctx)))
	same("Doctor", one(c.Doctor(ctx)), one(want.Doctor(ctx)))

	add := api.AddProject{Name: "petstore", URL: "https://git.example.org/x.git", NextBuild: 7}
	same("AddProject", one(c.AddProject(ctx, add)), one(want.AddProject(ctx, ana, add)))
	same("Sync", one(c.Sync(ctx, "petstore")), one(want.Sync(ctx, "petstore")))
	one(c.Cancel(ctx, "petstore", 43, "why"))
	called("Cancel " + "{ana 127.0.0.1, api} petstore 43 why")
	one(c.Rerun(ctx, "petstore", 43))
	one(c.Resolve(ctx, "petstore", 43, api.Resolve{Action: "give-up", Reason: "r"}))
	one(c.Rollback(ctx, "petstore", api.Rollback{To: 41, Reason: "r"}))
	same("Reconcile", one(c.Reconcile(ctx)), one(want.Reconcile(ctx)))
	one(c.ConfirmReconcile(ctx, "the disk died"))
	called("ConfirmReconcile {ana 127.0.0.1, api} the disk died")
	one(c.Hold(ctx, "petstore", "h"))
	one(c.ReleaseHold(ctx, "petstore", "h"))
	plan := api.PlanFreeze{From: now(), Until: now().Add(time.Hour), Reason: "r"}
	same("PlanFreeze", one(c.PlanFreeze(ctx, "petstore", plan)), one(want.PlanFreeze(ctx, ana, "petstore", plan)))
	one(c.PlanFreeze(ctx, "petstore", api.PlanFreeze{Until: now(), Reason: "from now on"}))
	called("PlanFreeze {ana 127.0.0.1, api} petstore 0001-01-01T00:00:00Z " + now().Format(time.RFC3339) + " from now on")
	one(c.EndFreeze(ctx, "petstore", 7, "why"))
	called("EndFreeze {ana 127.0.0.1, api} petstore 7 why")
	one(c.ClearIncident(ctx, "petstore", "h"))
	one(c.Keep(ctx, "petstore", "petstore-qa-43", api.Keep{Pin: new(true)}))
	called("Keep {ana 127.0.0.1, api} petstore petstore-qa-43  true")
	one(c.Keep(ctx, "petstore", "x/y", api.Keep{Extend: "2h"}))
	called("Keep {ana 127.0.0.1, api} petstore x/y 2h nil")
	one(c.Destroy(ctx, "petstore", "petstore-qa-43"))
	one(nil, c.SetSecret(ctx, "petstore", "KEY", "v"))
	one(nil, c.DeleteSecret(ctx, "petstore", "KEY"))
	called("DeleteSecret {ana 127.0.0.1, api} petstore KEY")
	if got := one(c.CreateToken(ctx, "laptop")); got != (api.Token{Name: "laptop", Token: "shunt_t_analaptop"}) {
		t.Errorf("CreateToken = %v", got)
	}
	g, err := c.Decide(ctx, "petstore", 43, api.Decide{Promote: true})
	if err != nil || g.State != delivery.GatePromoted || g.DecidedFrom != "127.0.0.1, api" {
		t.Errorf("Decide = %+v, %v", g, err)
	}
	if _, err := c.Decide(ctx, "petstore", 43, api.Decide{Promote: true}); !delivery.IsKind(err, delivery.KindConflict) || !strings.Contains(err.Error(), "ana said promoted") {
		t.Errorf("second Decide: %v", err)
	}

	text, err := c.Log(ctx, "petstore", 43, "job/build", 0, 0, true, "text")
	if err != nil {
		t.Fatal(err)
	}
	if b := readAll(t, text); !strings.HasPrefix(b, "step 1: make test\nok  example.org/petstore/cart 0.412s\n") {
		t.Errorf("text log = %q", b)
	}
	stored, err := c.Log(ctx, "petstore", 43, "job/build", 1, 0, false, "stored")
	if err != nil {
		t.Fatal(err)
	}
	if b := readAll(t, stored); b != string(f.logs["job/build"].b) {
		t.Errorf("stored log = %q", b)
	}
	called("Log petstore 43 job/build 1")
	file, err := c.Artifact(ctx, "petstore", 43, "app/x y")
	if err != nil {
		t.Fatal(err)
	}
	if b := readAll(t, file); b != "<script>alert(1)</script>\n" {
		t.Errorf("artifact = %q", b)
	}
	called("Artifact petstore 43 app/x y")
}

func readAll(t *testing.T, r io.ReadCloser) string {
	t.Helper()
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestErrorsOfTheAPI(t *testing.T) {
	t.Parallel()
	f := newFake()
	ts := serve(t, f)
	c, ctx := api.NewClient(ts.URL, goodToken, ts.Client()), t.Context()

	_, err := c.Project(ctx, "nope")
	if !delivery.IsKind(err, delivery.KindNotFound) || err.Error() != "no project nope" {
		t.Errorf("unknown project: %v", err)
	}
	f.failing = &delivery.Error{Kind: delivery.KindRefused, What: "cannot promote build 44", Why: "it lacks build 43", Next: "shunt backmerge petstore", Err: errors.New("inner")}
	_, err = c.Sync(ctx, "petstore")
	e, ok := errors.AsType[*delivery.Error](err)
	if !ok || e.Kind != delivery.KindRefused || e.What != "cannot promote build 44" || e.Why != "it lacks build 43" || e.Next != "shunt backmerge petstore" {
		t.Errorf("refusal came back as %#v", err)
	}
	f.failing = errors.New("SELECT secret FROM x: canary")
	for _, path := range []string{"/api/v1/projects", "/", "/petstore/43"} {
		got := ask(t, ts, http.MethodGet, path, goodSession, "")
		if got.status != http.StatusInternalServerError || strings.Contains(got.body, "canary") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	f.failing = nil
	for body, want := range map[string]int{
		`{"promote":true,"surprise":1}`: http.StatusUnprocessableEntity,
		`{"reason":"x"}`:                http.StatusUnprocessableEntity,
		`{"promote":"yes"}`:             http.StatusUnprocessableEntity,
		`{`:                             http.StatusBadRequest,
		`{"promote":true,"reason":"` + strings.Repeat("a", 2001) + `"}`: http.StatusUnprocessableEntity,
	} {
		got := ask(t, ts, http.MethodPost, "/api/v1/projects/petstore/builds/43/decision", "", body, "Authorization", "Bearer "+goodToken, "Content-Type", "application/json")
		if got.status != want || got.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.40s: %d %s %s", body, got.status, got.header.Get("Content-Type"), got.body)
		}
	}
	if f.count() != 1 { // the Sync above
		t.Errorf("%d changes", f.count())
	}
	doc := ask(t, ts, http.MethodGet, "/openapi.json", "", "")
	if doc.status != http.StatusOK || !strings.Contains(doc.body, `"openapi":"3.1.0"`) || !strings.Contains(doc.body, "/api/v1/projects/{project}/builds/{number}/decision") {
		t.Errorf("openapi.json: %d %.200s", doc.status, doc.body)
	}
}

func TestLogFollows(t *testing.T) {
	t.Parallel()
	f := newFake()
	l := newLog("|one")
	f.logs["job/slow"] = l
	c := client(t, f)
	for _, format := range []string{"stored", "text", "spans"} {
		l.mu.Lock()
		l.b, l.done = nil, false
		l.mu.Unlock()
		l.add("|one")
		ctx, cancel := context.WithCancel(t.Context())
		r, err := c.Log(ctx, "petstore", 43, "job/slow", 0, 0, true, format)
		if err != nil {
			t.Fatal(err)
		}
		read := func(want string) {
			t.Helper()
			buf := make([]byte, 0, 1000)
			for !strings.Contains(string(buf), want) {
				n, err := r.Read(buf[len(buf):cap(buf)])
				buf = buf[:len(buf)+n]
				if err != nil {
					t.Fatalf("%s: %q, then %v", format, buf, err)
				}
			}
		}
		read("one")
		l.add("+tw", "|o") // a line in two parts
		read("o")
		l.add("#three")
		read("three")
		l.end()
		if rest, err := io.ReadAll(r); err != nil {
			t.Fatalf("%s: %q, %v", format, rest, err)
		}
		cancel()
	}
	if r, err := c.Log(t.Context(), "petstore", 43, "job/slow", 0, 0, false, "text"); err != nil {
		t.Fatal(err)
	} else if got := readAll(t, r); got != "one\ntwo\nthree\n" {
		t.Errorf("text = %q", got)
	}
	if _, err := c.Log(t.Context(), "petstore", 43, "job/slow", 0, 1<<40, false, "text"); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Errorf("far offset: %v", err)
	}
}

// TestArtifactIsNeverAPage covers T42.
func TestArtifactIsNeverAPage(t *testing.T) {
	t.Parallel()
	ts := serve(t, newFake())
	const path = "/api/v1/projects/petstore/builds/43/artifacts/app"
	got := ask(t, ts, http.MethodGet, path, goodSession, "")
	h := got.header
	if !strings.HasPrefix(h.Get("Content-Disposition"), "attachment") || h.Get("Content-Type") != "application/octet-stream" || h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("headers: %v", h)
	}
	if h.Get("X") != "" || strings.Contains(h.Get("Content-Disposition"), "..") {
		t.Errorf("file name escapes: %q", h.Get("Content-Disposition"))
	}
	if got := ask(t, ts, http.MethodGet, path, goodSession, "", "Range", "bytes=1-6"); got.status != http.StatusPartialContent || got.body != "script" {
		t.Errorf("range: %d %q", got.status, got.body)
	}
	if got := ask(t, ts, http.MethodGet, path, goodSession, "", "If-None-Match", h.Get("ETag")); got.status != http.StatusNotModified {
		t.Errorf("ETag: %d", got.status)
	}
}

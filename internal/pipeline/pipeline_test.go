package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/delivery"
)

// golden compares with a file; UPDATE_GOLDEN=1 writes it instead.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// inputs reads testdata/dir/*.yml.
func inputs(tb testing.TB, dir string) map[string][]byte {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.yml"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no files in testdata/%s: %v", dir, err)
	}
	m := map[string][]byte{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		m[file] = data
	}
	return m
}

func mustParse(tb testing.TB, text string) *Pipeline {
	tb.Helper()
	p, err := Parse(FileName, []byte(text))
	if err != nil {
		tb.Fatalf("Parse: %v\n%s", err, text)
	}
	return p
}

func TestErrorsAreGolden(t *testing.T) {
	t.Parallel()
	for file, data := range inputs(t, "errors") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			p, err := Parse(FileName, data)
			if err == nil || p != nil {
				t.Fatal("Parse accepts it")
			}
			problems, ok := errors.AsType[Problems](err)
			if !ok || len(problems) == 0 {
				t.Fatalf("error is %T", err)
			}
			if !delivery.IsKind(err, delivery.KindInvalid) {
				t.Error("the error is not of kind invalid")
			}
			golden(t, strings.TrimSuffix(file, ".yml")+".golden", err.Error()+"\n")
		})
	}
}

func TestValidFilesAndGraphsAreGolden(t *testing.T) {
	t.Parallel()
	for file, data := range inputs(t, "valid") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			p := mustParse(t, string(data))
			var b strings.Builder
			for _, lane := range []delivery.Lane{delivery.LaneMain, delivery.LaneHotfix} {
				fmt.Fprintf(&b, "%s lane\n", lane)
				for _, n := range p.Graph(lane) {
					fmt.Fprintf(&b, "%3d %-22s %-8s %s\n", n.Position, n.Name, n.State, strings.Join(n.Needs, " "))
					if n.Reason != "" {
						fmt.Fprintf(&b, "    %s\n", n.Reason)
					}
				}
				checkGraph(t, p, p.Graph(lane))
			}
			golden(t, strings.TrimSuffix(file, ".yml")+".golden", b.String())
		})
	}
}

func TestPetstore(t *testing.T) {
	t.Parallel()
	p := mustParse(t, string(inputs(t, "valid")[filepath.Join("testdata", "valid", "petstore.yml")]))
	if p.Name != "petstore" || len(p.Jobs) != 5 || p.Job("build").Timeout != 10*time.Minute {
		t.Errorf("jobs: %+v", p.Jobs)
	}
	want := Publish{
		Artifact: "app", Node: "publish/app", Kind: PublishNexus, URL: "https://nexus.example.org", Repository: "releases",
		Format: "maven2", Coordinates: "org.example:petstore:1.0.$SHUNT_BUILD:tar.gz", Secrets: []string{"NEXUS_USER", "NEXUS_PASSWORD"},
	}
	if diff := cmp.Diff(&want, p.Publication("publish/app")); diff != "" {
		t.Error(diff)
	}
	prod := p.Production()
	if prod == nil || prod.Name != "production" || prod.Line != 51 {
		t.Fatalf("production: %+v", prod)
	}
	hotfix, main := prod.Approve.For(delivery.LaneHotfix), prod.Approve.For(delivery.LaneMain)
	if diff := cmp.Diff(Approve{By: []string{"on-call", "release-managers"}, Timeout: 4 * time.Hour, Remind: 15 * time.Minute, Escalate: []string{}}, hotfix); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Approve{By: []string{"release-managers"}, Timeout: 72 * time.Hour, Escalate: []string{}}, main); diff != "" {
		t.Error(diff)
	}
	if qa := p.Environment("qa"); qa.Approve != nil || qa.Keep != 8*time.Hour || qa.Timeout != 5*time.Minute {
		t.Errorf("qa: %+v", qa)
	}
	if p.Job("none") != nil || p.Environment("none") != nil || p.Publication("none") != nil {
		t.Error("found what is not there")
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	p := mustParse(t, "jobs: { build: { steps: [\"make\\nls\"] } }\nenvironments: { live: { deploy: ./d.sh } }")
	both := []delivery.Lane{delivery.LaneMain, delivery.LaneHotfix}
	want := &Pipeline{
		Version:  1,
		Branches: delivery.Branches{Integration: "develop", Production: "master", Hotfix: "hotfix/*"},
		Tags:     delivery.Tags{Build: "build/$N", Production: "production/$N"},
		Jobs: []Job{{
			Name: "build", Lanes: both, Needs: []string{}, Steps: []Step{{Name: "make", Run: "make\nls", Line: 1}},
			JUnit: []string{}, Artifacts: []ArtifactGlob{}, Timeout: time.Hour, Secrets: []string{}, Env: map[string]string{}, Line: 1,
		}},
		Publish: []Publish{},
		Environments: []Environment{{
			Name: "live", Production: true, Needs: []string{}, Deploy: "./d.sh", Timeout: 10 * time.Minute,
			Secrets: []string{}, Env: map[string]string{}, Lanes: both, Line: 2,
			Approve: &Approve{
				By: []string{}, Timeout: 72 * time.Hour, Escalate: []string{},
				Hotfix: &Approve{Timeout: 4 * time.Hour, Remind: 15 * time.Minute},
			},
		}},
		Notify: []Notify{},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
}

func TestHotfixInherits(t *testing.T) {
	t.Parallel()
	const head = "jobs: { b: { steps: [make] } }\nenvironments: { live: { deploy: d, approve: "
	a := mustParse(t, head+"{ by: [ana], escalate: [a@example.org], hotfix: { timeout: 10m } } } }").Production().Approve.For(delivery.LaneHotfix)
	want := Approve{By: []string{"ana"}, Timeout: 10 * time.Minute, Remind: 5 * time.Minute, Escalate: []string{"a@example.org"}}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Error(diff)
	}
	a = mustParse(t, head+"{ by: [ana], hotfix: { by: [] } } } }").Production().Approve.For(delivery.LaneHotfix)
	if len(a.By) != 0 {
		t.Errorf("by: [] must mean the operators, got %v", a.By)
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	const file = "jobs:\n  b: { steps: [make], env: { A: 1, B: 2 } }\nenvironments:\n  live: { deploy: d }\n"
	base := mustParse(t, file).Digest()
	if len(base) != 64 {
		t.Fatalf("digest %q", base)
	}
	for name, same := range map[string]string{
		"comment":          "# a comment\n\n" + file,
		"CRLF and BOM":     "\ufeff" + strings.ReplaceAll(file, "\n", "\r\n"),
		"order of env":     strings.ReplaceAll(file, "A: 1, B: 2", "B: 2, A: 1"),
		"written defaults": file + "tags: { build: build/$N }\n",
	} {
		if mustParse(t, same).Digest() != base {
			t.Errorf("%s changes the digest", name)
		}
	}
	for name, other := range map[string]string{
		"command":  strings.ReplaceAll(file, "make", "make x"),
		"deploy":   strings.ReplaceAll(file, "deploy: d", "deploy: e"),
		"approver": strings.ReplaceAll(file, "deploy: d", "deploy: d, approve: { by: ana }"),
	} {
		if mustParse(t, other).Digest() == base {
			t.Errorf("%s does not change the digest", name)
		}
	}
}

func TestLineEndsAndBlockScalars(t *testing.T) {
	t.Parallel()
	file := "jobs:\n  b:\n    steps:\n      - run: |\n          echo a\n          echo b\nenvironments:\n  live: { deploy: d }\n"
	for _, text := range []string{file, strings.ReplaceAll(file, "\n", "\r\n"), strings.ReplaceAll(file, "\n", "\r"), "\ufeff" + file} {
		p := mustParse(t, text)
		if got := p.Jobs[0].Steps[0]; got.Run != "echo a\necho b\n" || got.Name != "echo a" || got.Line != 4 {
			t.Errorf("step %+v of %q", got, text)
		}
	}
}

func TestAllProblemsAtOnceButBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, "key%d: 1\n", i)
	}
	_, err := Parse(FileName, []byte(b.String()))
	problems, _ := errors.AsType[Problems](err)
	if len(problems) != maxProblems {
		t.Errorf("%d problems, want %d", len(problems), maxProblems)
	}
}

func TestOneProblemPerPlaceAndMessage(t *testing.T) {
	t.Parallel()
	_, err := Parse(FileName, []byte("x-e: &e { A: [1] }\njobs:\n  a: { steps: [a], env: *e }\n  b: { steps: [a], env: *e }\nenvironments: { live: { deploy: d } }\n"))
	problems, _ := errors.AsType[Problems](err)
	if len(problems) != 2 || !slices.ContainsFunc(problems, func(p Problem) bool { return p.Line == 1 }) {
		t.Errorf("%v", err)
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "10m": 10 * time.Minute, "8h": 8 * time.Hour, "72h": 72 * time.Hour,
		"3d": 72 * time.Hour, "1h30m": 90 * time.Minute, "366d": 366 * 24 * time.Hour,
	} {
		if got, why := parseDuration(s); got != want || why != "" {
			t.Errorf("%s: %v %s", s, got, why)
		}
	}
	for _, s := range []string{"", "10", "m", "-5m", "1.5h", "5 m", "0s", "367d", "999999d999999d999999d999999d", "10M", "1h ", "١h"} {
		if got, why := parseDuration(s); why == "" {
			t.Errorf("%q is %v", s, got)
		}
	}
}

func TestEditDistance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"stepz", "steps", 1}, {"setps", "steps", 1}, {"kitten", "sitting", 3}, {"abc", "cba", 2}} {
		if got := editDistance(c.a, c.b); got != c.want {
			t.Errorf("%s %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestTickets(t *testing.T) {
	t.Parallel()
	const rest = "jobs: { build: { steps: [make] } }\nenvironments: { production: { deploy: ./d.sh } }\n"
	plain := mustParse(t, rest)
	if plain.Tickets != (delivery.Tickets{}) {
		t.Errorf("tickets out of nothing: %+v", plain.Tickets)
	}
	p := mustParse(t, rest+"tickets: { pattern: 'SHOP-[0-9]+', url: 'https://tracker.example.org/browse/{ticket}?from=shunt' }\n")
	if want := (delivery.Tickets{Pattern: "SHOP-[0-9]+", URL: "https://tracker.example.org/browse/{ticket}?from=shunt"}); p.Tickets != want {
		t.Errorf("tickets: %+v", p.Tickets)
	}
	// A file without them keeps the digest that its gates are bound to.
	if b, err := json.Marshal(plain); err != nil || strings.Contains(string(b), "tickets") {
		t.Errorf("%s %v", b, err)
	}
	for pattern, ok := range map[string]bool{strings.Repeat("x", 200): true, strings.Repeat("x", 201): false, "": false, "a|": false, `(?i)shop-\d+`: true, `(a+)+`: true, `(?=x)`: false} {
		if got := badRegexp(pattern) == ""; got != ok {
			t.Errorf("pattern %.20q: %q", pattern, badRegexp(pattern))
		}
	}
	for address, ok := range map[string]bool{
		"https://x.example/{ticket}": true, "http://x.example:8080/?q={ticket}": true, "https://x.example/#{ticket}": true, "https://x.example/{ticket}/{ticket}": false,
		"https://{ticket}/": false, "https://{ticket}.x.example/": false, "https://x.example:{ticket}/": false, "https://{ticket}@x.example/": false, "https://u:{ticket}@x.example/": false,
	} {
		if got := badTicketURL(address) == ""; got != ok {
			t.Errorf("address %q: %q", address, badTicketURL(address))
		}
	}
}

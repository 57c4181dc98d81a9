package notify_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/notify"
)

// golden compares with testdata; SHUNT_UPDATE_GOLDEN=1 writes it instead.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("SHUNT_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", file, diff)
	}
}

// hotfix is the story of ux.md: build 43 waits in the night of 22 November.
func hotfix() notify.Data {
	zone := time.FixedZone("CET", 3600)
	return notify.Data{
		To: []string{"petstore-team@example.org"}, Project: "petstore", Number: 43, Lane: delivery.LaneHotfix, Name: "hotfix/cart-500",
		Fixes: "Cart answers 500 for a discontinued item", Commits: 1, Files: 2, Added: 9, Deleted: 2, Authors: []string{"Ana Ruiz"},
		ReplacesBuild: 41, ReplacesSince: time.Date(2025, 11, 13, 9, 12, 0, 0, zone),
		QA: "http://qa-43.example.org", QAUntil: time.Date(2025, 11, 22, 7, 19, 0, 0, zone),
		Tests:     &notify.Tests{Passed: 412, New: 3},
		Skipped:   []notify.Skipped{{Job: "regression", Usual: 38 * time.Minute}, {Job: "security", Usual: 70 * time.Minute}},
		Merge:     "clean into develop",
		Artifacts: []notify.Artifact{{File: "petstore.tar.gz", SHA256: "9b1f2a" + strings.Repeat("0", 54) + "c044"}},
		Link:      "https://shunt.example.org/a/7KQ2", Now: time.Date(2025, 11, 22, 23, 19, 0, 0, zone).Add(-20 * time.Hour), Zone: zone,
		Opened: time.Date(2025, 11, 22, 3, 4, 0, 0, zone), Expires: time.Date(2025, 11, 22, 7, 4, 0, 0, zone),
	}
}

func stories() map[notify.Kind]notify.Data {
	d := hotfix()
	all := map[notify.Kind]notify.Data{
		notify.Waiting: d, notify.Reminder: d, notify.Escalation: d, notify.Test: {Who: "Ana Ruiz", Link: "https://shunt.example.org/", Now: d.Now},
	}
	d.Who, d.Link = "Maria Ochoa", "https://shunt.example.org/petstore/43"
	promoted := d
	promoted.Reason, promoted.LiveSince = "customers cannot pay", d.Now
	all[notify.Promoted] = promoted
	rejected := d
	rejected.Reason = "still 500 for item 9"
	all[notify.Rejected] = rejected
	failed := d
	failed.Job, failed.ExitCode, failed.Tests = "acceptance", 2, &notify.Tests{Passed: 410, Failed: 2}
	for i := range 30 {
		failed.Log = append(failed.Log, fmt.Sprintf("\x1b[31mline %d\x1b[0m of the log\r", i))
	}
	failed.Log = append(failed.Log, "\tcart_test.go:12: got 500, want 200", "make: *** [Makefile:7: acceptance] Error 1", "")
	all[notify.Failed] = failed
	deploy := d
	deploy.Reason, deploy.Running, deploy.Log = "deploy.sh ended with exit code 1", "build 41, healthy since 03:20", []string{"rsync: connection refused"}
	deploy.Commands = []string{"shunt retry petstore 43", `shunt rollback petstore -m "why"`}
	all[notify.DeployFailed] = deploy
	back := d
	back.Commands = []string{"shunt backmerge petstore"}
	all[notify.BackMerge] = back
	all[notify.BackMergePaid] = d
	refused := d
	refused.Foreign = []delivery.Commit{
		{ID: "3f9c1e2aaaaa", Subject: "Half of the new cart", AuthorName: "Ben Ito"}, {ID: "77aa00bbbbbb", Subject: "WIP: prices", AuthorName: "Ana Ruiz"},
	}
	refused.Who, refused.Commands = "Ana Ruiz", []string{"shunt hotfix start cart-500-again", "git cherry-pick <your fix>"}
	all[notify.Refused] = refused
	incident := d
	incident.Reason = "the tag production/43 exists already, at another commit than the one that was deployed"
	all[notify.Incident] = incident
	summary := d
	summary.Since = d.Now.Add(-24 * time.Hour)
	summary.Rows = []notify.Row{{"In production", "build 43 (hotfix cart-500) since 03:19"}, {"Waiting", "nothing"}, {"Failed", "build 42 in regression"}, {"Owed", "back-merge of build 43, 2 h"}}
	all[notify.Summary] = summary
	return all
}

func render(t *testing.T, kind notify.Kind, d notify.Data) notify.Message {
	t.Helper()
	m, err := notify.Render(kind, d, "Shunt <shunt@example.org>", "https://shunt.example.org")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestGoldenMails(t *testing.T) {
	t.Parallel()
	for kind, d := range stories() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			m := render(t, kind, d)
			golden(t, string(kind)+".txt", "Subject: "+m.Subject+"\n\n"+m.Text)
			golden(t, string(kind)+".html", m.HTML)
			if diff := cmp.Diff(words(m.Text), words(textOf(m.HTML))); diff != "" {
				t.Errorf("text and HTML have other words: %s", diff)
			}
			if again := render(t, kind, d); cmp.Diff(m, again) != "" {
				t.Error("a second rendering differs")
			}
		})
	}
}

func TestMainLaneAndUTC(t *testing.T) {
	t.Parallel()
	d := hotfix()
	d.Lane, d.Name, d.Zone, d.Tests, d.Skipped = delivery.LaneMain, "", nil, nil, nil
	d.Conflicts = []string{"cart.go", "stock.go"}
	d.Warnings = []string{"the change touches db/migrations"}
	d.QAUntil = d.QAUntil.Add(48 * time.Hour)
	m := render(t, notify.Waiting, d)
	golden(t, "waiting-main.txt", "Subject: "+m.Subject+"\n\n"+m.Text)
}

func TestUnknownDeploy(t *testing.T) {
	t.Parallel()
	d := hotfix()
	d.Unknown = true
	m := render(t, notify.DeployFailed, d)
	golden(t, "deploy_unknown.txt", "Subject: "+m.Subject+"\n\n"+m.Text)
}

func TestUnknownKind(t *testing.T) {
	t.Parallel()
	if _, err := notify.Render("birthday", hotfix(), "a@example.org", "x"); !delivery.IsKind(err, delivery.KindInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestEMLIsDeterministicAndThreaded(t *testing.T) {
	t.Parallel()
	m := render(t, notify.Waiting, hotfix())
	stored, err := json.Marshal(m) // the outbox keeps it as JSON
	if err != nil {
		t.Fatal(err)
	}
	var back notify.Message
	if err := json.Unmarshal(stored, &back); err != nil {
		t.Fatal(err)
	}
	eml := build(t, back)
	if eml != build(t, back) {
		t.Error("two builds differ")
	}
	golden(t, "waiting.eml", strings.ReplaceAll(eml, "\r\n", "\n"))
	for _, want := range []string{
		"Message-ID: <petstore.43.waiting.", "In-Reply-To: <petstore.build-43@shunt.example.org>", "References: <petstore.build-43@shunt.example.org>",
		"Auto-Submitted: auto-generated", "List-Id: <petstore.shunt.example.org>", "Date: Sat, 22 Nov 2025 03:19:00 +0100",
	} {
		if !strings.Contains(eml, want) {
			t.Errorf("no %q in the mail", want)
		}
	}
}

func build(t *testing.T, m notify.Message) string {
	t.Helper()
	msg, err := m.Build()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Every text of every kind is an attack: nothing of it may become a header,
// markup, a control character or a link.
func TestHostileValues(t *testing.T) {
	t.Parallel()
	evil := "x\r\nBcc: evil@example.com\r\n\r\n<script>alert(1)</script>\x1b[2J\u202e\x00=?utf-8?q?=0D=0ABcc:?= \xff " + strings.Repeat("long ", 10_000)
	evilURL := "javascript:alert(1)"
	d := notify.Data{
		Project: evil, Number: 1, Lane: delivery.LaneHotfix, Name: evil, Environment: evil, Integration: evil, Fixes: evil, Incident: evilURL,
		Key: evil, Thread: evil, To: []string{"team@example.org"},
		Commits: 1, Authors: []string{evil, evil, evil, evil, evil}, QA: evilURL, Merge: evil, Conflicts: []string{evil}, Warnings: []string{evil},
		Skipped: []notify.Skipped{{Job: evil}}, Artifacts: []notify.Artifact{{File: evil, SHA256: evil}, {SHA256: strings.Repeat("\n", 64)}},
		Link: "https://shunt.example.org/\r\nx", Commands: []string{evil}, Who: evil, Reason: evil, Job: evil, Log: []string{evil, "\t" + evil}, Running: evil,
		Foreign: []delivery.Commit{{ID: evil, Subject: evil, AuthorName: evil}}, Rows: []notify.Row{{evil, evil}}, Now: time.Unix(0, 0).UTC(),
	}
	for kind := range stories() {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			m := render(t, kind, d)
			if strings.ContainsFunc(m.Subject, func(r rune) bool { return !unicode.IsPrint(r) }) || len(m.Subject) > 700 || strings.Contains(m.Subject, "=?") {
				t.Errorf("subject %q", m.Subject)
			}
			for _, text := range []string{m.Text, m.HTML} {
				for l := range strings.SplitSeq(text, "\n") {
					if len(l) > 6000 || strings.ContainsFunc(l, func(r rune) bool { return !unicode.IsPrint(r) }) {
						t.Errorf("line of %d bytes %.200q", len(l), l)
					}
				}
			}
			low := strings.ToLower(m.HTML)
			for _, bad := range []string{"<script", "javascript:", "<a href"} { // no URL of it is one
				if strings.Contains(low, bad) {
					t.Errorf("%s in the HTML", bad)
				}
			}
			head, _, _ := strings.Cut(build(t, m), "\r\n\r\n")
			if strings.Contains(strings.ToLower(head), "\nbcc") || strings.Count(head, "Message-ID:") != 1 || strings.Count(head, "Subject:") != 1 {
				t.Errorf("headers:\n%s", head)
			}
			for l := range strings.SplitSeq(head, "\r\n") {
				if len(l) > 998 || strings.ContainsAny(l, "\r\n\x00") {
					t.Errorf("header line %q", l)
				}
			}
		})
	}
}

// T41: only absolute http and https addresses become links.
func TestT41OnlyWebAddresses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"javascript:alert(1)", "Docs | javascript:..", "java\tscript:alert(1)", "data:text/html,x", "//evil.example", "/a/b", "ftp://x/", "https:x",
		"https://", "http://a b/", "https://user:pw@x/", "vbscript:x", " https://x/", "https://x/\u202e", "HTTPS:///x", "http:\\\\x", "",
	} {
		d := hotfix()
		d.QA, d.Link, d.Incident = bad, bad, bad
		if m := render(t, notify.Waiting, d); strings.Contains(m.HTML, "<a ") || strings.Contains(m.Text, "Decide here") {
			t.Errorf("%q became a link", bad)
		}
	}
}

func TestAddressesAreChecked(t *testing.T) {
	t.Parallel()
	for _, to := range [][]string{nil, {"nobody"}, {"a@example.org\r\nBcc: b@example.org"}, {"a@example.org, b@example.org"}} {
		m := render(t, notify.Waiting, hotfix())
		m.To = to
		if _, err := m.Build(); !notify.IsPermanent(err) {
			t.Errorf("To %q: got %v, want a permanent error", to, err)
		}
	}
}

func textOf(page string) string {
	_, page, _ = strings.Cut(page, "</head>")
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(page, " "))
}

func words(s string) []string { return strings.Fields(s) }

package e2e

import (
	"database/sql"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/testkit/fill"
)

// F13: the git remote is away when a person promotes. The decision stands, nothing
// is deployed on what may no longer be true, and all goes on once it is back.
func TestF13TheGitRemoteIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(nil), "--poll", "300ms")
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.reach(b.Number, delivery.BuildWaiting)
	w.must(os.Rename(w.bare, w.bare+".away"))
	_, err := w.api.Decide(t.Context(), w.project, b.Number, api.Decide{Promote: true})
	w.must(err)
	w.until("the build says what it waits for", func() bool {
		now, err := w.api.Build(t.Context(), w.project, b.Number)
		w.must(err)
		for _, n := range now.Nodes {
			if n.Kind == delivery.NodeDeploy && strings.Contains(n.Reason, "the git remote cannot be read") {
				return true
			}
		}
		return false
	})
	w.until("the project says so", func() bool {
		checks, err := w.api.Doctor(t.Context())
		w.must(err)
		for _, c := range checks {
			if strings.Contains(c.Name+c.Words, "shop") && c.State != "ok" {
				return true
			}
		}
		return false
	})
	if n := len(w.journal("deploys")); n != 0 {
		t.Errorf("deployed %d times without a look at the remote", n)
	}
	w.must(os.Rename(w.bare+".away", w.bare))
	w.reach(b.Number, delivery.BuildSucceeded)
	w.shipped(b.Number, 1)
	w.write(map[string]string{"text": "two"})
	w.commit("Two")
	w.promote(w.push("develop").Number)
	w.shipped(b.Number+1, 2)
}

// F15: a hook of the remote refuses the production tag after the deployment. The
// build says that it is deployed and not tagged, the push is not tried again and
// again, and a person's retry tags without deploying twice.
func TestF15TheRemoteRefusesTheProductionTag(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shop(nil))
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.reach(b.Number, delivery.BuildWaiting)
	hook := filepath.Join(w.bare, "hooks", "pre-receive")
	w.must(os.WriteFile(hook, []byte("#!/bin/sh\necho push >>"+w.at("journal", "refused")+"\necho 'tags are frozen until Monday'\nexit 1\n"), 0o755))
	_, err := w.api.Decide(t.Context(), w.project, b.Number, api.Decide{Promote: true})
	w.must(err)
	stopped := w.reach(b.Number, delivery.BuildStopped)
	for _, words := range []string{"release", "tags are frozen until Monday"} {
		if !strings.Contains(stopped.Reason, words) {
			t.Errorf("it does not say %q: %s", words, stopped.Reason)
		}
	}
	p, err := w.api.Project(t.Context(), w.project)
	w.must(err)
	if d := stopped.Deployments; len(d) != 1 || d[0].State != delivery.DeploymentSucceeded || stopped.ProductionTag != "" || p.Production == nil || p.Production.Build != b.Number {
		t.Errorf("it is deployed and not tagged, and says %+v, tag %q, production %+v", d, stopped.ProductionTag, p.Production)
	}
	// Two polls and more than a lease pass: nobody pushes again.
	time.Sleep(3 * time.Second)
	if n := len(w.journal("refused")); n != 1 {
		t.Errorf("it was pushed %d times", n)
	}
	w.must(os.Remove(hook))
	_, err = w.api.Resolve(t.Context(), w.project, b.Number, api.Resolve{Action: "retry", Reason: "it is Monday"})
	w.must(err)
	w.reach(b.Number, delivery.BuildSucceeded)
	w.shipped(b.Number, 1)
}

// relay is a real SMTP server: it puts the first tries off, is slow, and takes the rest.
type relay struct {
	mu   sync.Mutex
	puts int // answers 450 to so many more
	slow time.Duration
	got  []string // texts
}

func (r *relay) NewSession(*smtp.Conn) (smtp.Session, error) { return relaySession{r}, nil }

type relaySession struct{ *relay }

func (relaySession) Reset()                               {}
func (relaySession) Logout() error                        { return nil }
func (relaySession) Mail(string, *smtp.MailOptions) error { return nil }
func (s relaySession) Rcpt(string, *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.puts > 0 {
		s.puts--
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 0}, Message: "greylisted, try again later"}
	}
	return nil
}

func (s relaySession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	time.Sleep(s.slow)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got = append(s.got, string(text))
	return err
}

var messageID = regexp.MustCompile(`(?mi)^Message-ID:\s*(\S+)`)

// F18: the mail server is down, then puts mails off, then is slow. The pipeline
// does not notice, and each mail comes once.
func TestF18TheMailServerIsDown(t *testing.T) {
	takesLong(t)
	t.Parallel()
	address := freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	file := shop(nil)[".shunt.yml"] + "notify:\n  - email: [team@example.org]\n    on: [waiting, promoted]\n"
	w := newWorld(t, shop(map[string]string{".shunt.yml": file}), "--mail-dir", "", "--smtp-host", host, "--smtp-port", port, "--smtp-tls", "none", "--mail-from", "shunt@example.org")
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.promote(b.Number) // with nobody listening
	w.shipped(b.Number, 1)

	r := &relay{puts: 2, slow: 2 * time.Second}
	server := smtp.NewServer(r)
	server.Addr, server.Domain, server.AllowInsecureAuth = address, "relay.example.org", true
	go func() { _ = server.ListenAndServe() }()
	t.Cleanup(func() { _ = server.Close() })
	count := func() map[string]int {
		r.mu.Lock()
		defer r.mu.Unlock()
		ids := map[string]int{}
		for _, text := range r.got {
			if m := messageID.FindStringSubmatch(text); m != nil {
				ids[m[1]]++
			}
		}
		return ids
	}
	w.until("both mails are there", func() bool { return len(count()) == 2 })
	w.kill(syscall.SIGTERM) // what is sent is written down
	w.start()
	time.Sleep(3 * time.Second) // a second copy would come now
	for id, n := range count() {
		if n != 1 {
			t.Errorf("mail %s came %d times", id, n)
		}
	}
}

// F22: an upgrade dies before, between and after the migrations of the new version
// while gates wait. The old version starts again, on the database or on the copy
// that was made before; the new one goes on where it died; every gate is as it was.
func TestF22AnUpgradeDiesInItsMigration(t *testing.T) {
	takesLong(t)
	t.Parallel()
	next := filepath.Join(t.TempDir(), "shunt-next")
	src := sources(t)
	for name, text := range map[string]string{
		"00090_next.sql": "-- +goose Up\nalter table builds add column next_note text not null default '';\nupdate builds set next_note = 'x';\ncreate table next_things (id bigint primary key);\ninsert into next_things values (1);\n",
		"00091_more.sql": "-- +goose Up\ninsert into next_things values (2);\ncreate table next_more (id bigint primary key);\n",
	} {
		if err := os.WriteFile(filepath.Join(src, "internal", "store", "migrations", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := build(src, next, "-buildvcs=false", "-tags=failpoints"); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, shop(nil))
	w.add(api.AddProject{InstallHook: true})
	gates := map[int64]api.Gate{}
	for n := range int64(3) {
		w.write(map[string]string{"text": itoa(n)})
		w.commit("More pets")
		b := w.reach(w.push("develop").Number, delivery.BuildWaiting)
		gates[b.Number] = b.Gates[0]
	}
	intact := func(when string) {
		t.Helper()
		for n, g := range gates {
			now := w.reach(n, delivery.BuildWaiting).Gates[0]
			if now.ID != g.ID || now.State != delivery.GateOpen || now.Version != g.Version || !now.ExpiresAt.Equal(g.ExpiresAt) {
				t.Errorf("%s the gate of build %d was %+v and is %+v", when, n, g, now)
			}
		}
	}
	database, old := filepath.Join(w.data, "shunt.db"), w.exe
	w.kill(syscall.SIGTERM)
	many := fill.Size{Projects: 20, Builds: 51, Open: 50, Jobs: 1}
	repo, err := fill.MakeRepo(t.Context(), w.at("many.git"), fill.Pipeline(many))
	w.must(err)
	w.must(fill.Database(t.Context(), w.data, repo, many, time.Now()))
	before := openGates(t, database)
	if len(before) != 1003 {
		t.Fatalf("%d gates are open", len(before))
	}
	w.start()
	for _, at := range []struct {
		point   string
		applied bool
	}{
		{"migrate.before_intent=kill@1", false},
		{"migrate.before_call=kill@1", false},
		{"migrate.before_call=error@1", false},
		{"migrate.after_record=kill@1", true},
		{"migrate.before_call=kill@2", true},
		{"migrate.after_record=kill@2", true},
	} {
		w.kill(syscall.SIGTERM)
		dies := exec.CommandContext(t.Context(), next, "serve", "--data", w.data, "--listen", w.listen)
		dies.Env = append(w.env(), "FAILPOINT_DIR="+t.TempDir(), "FAILPOINT="+at.point)
		if out, err := dies.CombinedOutput(); err == nil {
			t.Fatalf("%s: the new version started\n%s", at.point, out)
		}
		if at.applied {
			refused := exec.CommandContext(t.Context(), old, "serve", "--data", w.data, "--listen", w.listen)
			refused.Env = w.env()
			if out, err := refused.CombinedOutput(); err == nil || !strings.Contains(string(out), "a newer shunt has used it") {
				t.Errorf("%s: the old version says %v\n%s", at.point, err, out)
			}
			for _, file := range []string{database, database + "-wal", database + "-shm"} {
				_ = os.Remove(file)
			}
			w.must(os.Rename(database+".before-90", database))
		}
		w.start()
		intact("after " + at.point)
	}
	w.kill(syscall.SIGTERM)
	if now := openGates(t, database); !slices.Equal(now, before) {
		t.Errorf("%d gates were open, %d are, or others", len(before), len(now))
	}
	w.exe = next
	w.start()
	intact("with the new version")
	if now := openGates(t, database); !slices.Equal(now, before) {
		t.Errorf("with the new version %d gates are open, not %d, or others", len(now), len(before))
	}
	w.promote(3)
	w.shipped(3, 1)
}

// openGates lists the open gates of a database, with all that a decision binds.
func openGates(t *testing.T, database string) (list []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+database+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), `select id || ' ' || version || ' ' || expires_at || ' ' || binding from gates where state = 'open' order by id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var gate string
		if err := rows.Scan(&gate); err != nil {
			t.Fatal(err)
		}
		list = append(list, gate)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// beside starts a second server on the world's database, with a data directory and
// an address of its own. It is the same world seen from there.
func (w *world) beside() *world {
	w.Helper()
	other := *w
	other.data, other.listen = w.at("data-2"), freeAddress(w.T)
	other.url = "http://" + other.listen
	other.start()
	other.api = api.NewClient(other.url, w.token, &http.Client{Timeout: time.Minute})
	return &other
}

// F09, F10: a server is paused for three lease times while a job of its runner runs,
// and another one on the same PostgreSQL takes the build over and takes it to
// production. What the first one writes when it goes on is refused by the fence:
// each number, tag, gate and deployment is there once.
func TestF10APausedServerIsFenced(t *testing.T) {
	takesLong(t)
	t.Parallel()
	_, _, database := behindProxy(t)
	w := newWorld(t, shop(map[string]string{"ci/build.sh": shop(nil)["ci/build.sh"] + waits("build")}), "--database", database)
	w.add(api.AddProject{InstallHook: true})
	b := w.push("develop")
	w.await("build-begun")
	other := w.beside()
	w.must(w.server.Process.Signal(syscall.SIGSTOP))
	paused := time.Now()
	w.until("the other server has begun the job", func() bool { return len(w.journal("build-begun")) == 2 })
	w.allow("build-go")
	other.promote(b.Number)
	w.until("three lease times are over", func() bool { return time.Since(paused) > 18*time.Second })
	w.must(w.server.Process.Signal(syscall.SIGCONT))
	w.reach(b.Number, delivery.BuildSucceeded) // asked of the first
	w.shipped(b.Number, 1)
	now, err := w.api.Build(t.Context(), w.project, b.Number)
	w.must(err)
	if len(now.Gates) != 1 || now.Gates[0].Version != 1 || len(now.Deployments) != 1 {
		t.Errorf("there are the gates %+v and the deployments %+v", now.Gates, now.Deployments)
	}
	for _, n := range now.Nodes {
		if n.Kind == delivery.NodeTag && len(n.Attempts) > 1 {
			t.Errorf("%s was done %d times", n.Name, len(n.Attempts))
		}
	}
	w.kill(syscall.SIGTERM)
	other.kill(syscall.SIGTERM)
	w.start()
	w.reach(b.Number, delivery.BuildSucceeded)
	w.shipped(b.Number, 1)
}

package e2e

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/shuntcd/shunt/internal/api"
	"github.com/shuntcd/shunt/internal/delivery"
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

package notify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/shuntcd/shunt/internal/delivery"
	"github.com/shuntcd/shunt/internal/notify"
)

const password = "correct horse"

// relay is a real SMTP server whose answers can be scripted.
type relay struct {
	rcpt      map[string]*smtp.SMTPError // answers by recipient
	data      *smtp.SMTPError            // answer after the text
	needsAuth bool
	hang      chan struct{} // not nil: the answer to the text waits for it
	reset     bool          // the connection is reset instead of that answer

	mu  sync.Mutex
	got []received
}

type received struct {
	From string
	To   []string
	Text string
}

func (r *relay) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &relaySession{relay: r, conn: c}, nil
}

func (r *relay) received() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

type relaySession struct {
	relay  *relay
	conn   *smtp.Conn
	signed bool
	mail   received
}

func (s *relaySession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *relaySession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, pass string) error {
		if user != "shunt" || pass != password {
			return smtp.ErrAuthFailed
		}
		s.signed = true
		return nil
	}), nil
}
func (s *relaySession) Reset()        { s.mail = received{} }
func (s *relaySession) Logout() error { return nil }
func (s *relaySession) Mail(from string, _ *smtp.MailOptions) error {
	if s.relay.needsAuth && !s.signed {
		return smtp.ErrAuthRequired
	}
	s.mail.From = from
	return nil
}

func (s *relaySession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if no := s.relay.rcpt[to]; no != nil {
		return no
	}
	s.mail.To = append(s.mail.To, to)
	return nil
}

func (s *relaySession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.relay.hang != nil {
		<-s.relay.hang
	}
	if s.relay.reset {
		return s.conn.Close()
	}
	if s.relay.data != nil {
		return s.relay.data
	}
	s.mail.Text = string(text)
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	s.relay.got = append(s.relay.got, s.mail)
	return nil
}

// start serves the relay on loopback and returns a sender for it.
func (r *relay) start(t *testing.T, implicitTLS bool) notify.SMTP {
	t.Helper()
	cert, pool := certificate(t)
	server := smtp.NewServer(r)
	server.Domain = "relay.example.org"
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sender := notify.SMTP{Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, TLS: "starttls", HELO: "shunt.example.org", RootCAs: pool}
	if implicitTLS {
		sender.TLS = "tls"
		listener = tls.NewListener(listener, server.TLSConfig)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		_ = listener.Close() // the server does not, when it was closed before it served
		<-done
	})
	return sender
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func refusal(code int, words string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCodeNotSet, Message: words}
}

func TestSMTPDelivers(t *testing.T) {
	t.Parallel()
	for name, implicit := range map[string]bool{"starttls": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &relay{needsAuth: true}
			s := r.start(t, implicit)
			s.User, s.Password = "shunt", password
			m := render(t, notify.Waiting, hotfix())
			m.To = []string{"Ana Ruiz <ana@example.org>", "ben@example.org"}
			if err := s.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			got := r.received()
			if len(got) != 1 {
				t.Fatalf("%d mails arrived", len(got))
			}
			want := received{From: "shunt@example.org", To: []string{"ana@example.org", "ben@example.org"}, Text: build(t, m)}
			if diff := cmp.Diff(want, got[0]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSMTPRefusals(t *testing.T) {
	t.Parallel()
	const ana, ben = "ana@example.org", "ben@example.org"
	for name, c := range map[string]struct {
		rcpt        map[string]*smtp.SMTPError
		data        *smtp.SMTPError
		permanent   bool
		arrived     []string // recipients of what arrived
		undelivered []string
		words       string
	}{
		"greylisted": {rcpt: map[string]*smtp.SMTPError{ana: refusal(450, "try later"), ben: refusal(450, "try later")}, undelivered: []string{ana, ben}, words: "450"},
		"nobody":     {rcpt: map[string]*smtp.SMTPError{ana: refusal(550, "no such user"), ben: refusal(550, "no such user")}, permanent: true, undelivered: []string{ana, ben}, words: "550"},
		"one gone":   {rcpt: map[string]*smtp.SMTPError{ben: refusal(550, "no such user")}, permanent: true, arrived: []string{ana}, undelivered: []string{ben}, words: "no such user"},
		"one later":  {rcpt: map[string]*smtp.SMTPError{ben: refusal(452, "full")}, arrived: []string{ana}, undelivered: []string{ben}, words: "452"},
		"both kinds": {rcpt: map[string]*smtp.SMTPError{ana: refusal(450, "try later"), ben: refusal(550, "no such user")}, undelivered: []string{ana}, words: ben},
		"spam":       {data: refusal(554, "looks like\nspam"), permanent: true, words: "answered 554 looks like 5.0.0 spam"},
		"disk full":  {data: refusal(452, "no space"), words: "452"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &relay{rcpt: c.rcpt, data: c.data}
			s := r.start(t, false)
			m := render(t, notify.Waiting, hotfix())
			m.To = []string{ana, ben}
			err := s.Send(t.Context(), m)
			if err == nil || notify.IsPermanent(err) != c.permanent || !strings.Contains(err.Error(), c.words) {
				t.Fatalf("got %v, permanent %v", err, notify.IsPermanent(err))
			}
			e, _ := errors.AsType[*notify.SendError](err)
			if diff := cmp.Diff(c.undelivered, e.Undelivered); diff != "" {
				t.Error(diff)
			}
			var arrived []string
			for _, g := range r.received() {
				arrived = append(arrived, g.To...)
			}
			if diff := cmp.Diff(c.arrived, arrived); diff != "" {
				t.Error(diff)
			}
			if rest := notify.Rest(m, err); !c.permanent && len(c.undelivered) > 0 && cmp.Diff(c.undelivered, rest.To) != "" {
				t.Errorf("the next try goes to %v", rest.To)
			}
		})
	}
}

// A lost answer is unknown; mail is sent again under the same Message-ID.
func TestSMTPLostAnswersAreTemporary(t *testing.T) {
	t.Parallel()
	t.Run("reset", func(t *testing.T) {
		t.Parallel()
		r := &relay{reset: true}
		s := r.start(t, false)
		if err := s.Send(t.Context(), render(t, notify.Waiting, hotfix())); err == nil || notify.IsPermanent(err) {
			t.Errorf("got %v, want a temporary error", err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		t.Parallel()
		r := &relay{hang: make(chan struct{})}
		s := r.start(t, false)
		t.Cleanup(func() { close(r.hang) }) // runs before the server's own
		s.Timeout = 300 * time.Millisecond
		err := s.Send(t.Context(), render(t, notify.Waiting, hotfix()))
		if err == nil || notify.IsPermanent(err) || !strings.Contains(err.Error(), "in time") {
			t.Errorf("got %v, want a time-out", err)
		}
	})
	t.Run("silent", func(t *testing.T) { // accepts and never greets
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		s := notify.SMTP{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, TLS: "none"}
		ctx, cancel := context.WithCancel(t.Context())
		cancelled := time.AfterFunc(200*time.Millisecond, cancel)
		defer cancelled.Stop()
		if err := s.Send(ctx, render(t, notify.Waiting, hotfix())); err == nil || notify.IsPermanent(err) {
			t.Errorf("got %v, want a temporary error", err)
		}
	})
	t.Run("away", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		s := notify.SMTP{Host: "127.0.0.1", Port: port}
		if err := s.Send(t.Context(), render(t, notify.Waiting, hotfix())); err == nil || notify.IsPermanent(err) {
			t.Errorf("got %v, want a temporary error", err)
		}
	})
}

func TestSMTPCheckExplains(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*notify.SMTP)
		words  string
	}{
		"password":    {func(s *notify.SMTP) { s.User, s.Password = "shunt", "wrong secret" }, "does not accept user and password"},
		"certificate": {func(s *notify.SMTP) { s.RootCAs = x509.NewCertPool() }, "certificate"},
		"mode":        {func(s *notify.SMTP) { s.TLS = "ssl3" }, "not known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := (&relay{needsAuth: true}).start(t, false)
			c.change(&s)
			err := s.Check(t.Context())
			if !delivery.IsKind(err, delivery.KindUnavailable) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v", err)
			}
			if strings.Contains(err.Error(), "wrong secret") {
				t.Error("the error tells the password")
			}
		})
	}
}

// A relay that offers no TLS gets neither the mail nor the password.
func TestSMTPStartTLSIsMandatory(t *testing.T) {
	t.Parallel()
	r := &relay{}
	s := r.start(t, false)
	plain := smtp.NewServer(r)
	plain.AllowInsecureAuth = true
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = plain.Serve(l) }()
	t.Cleanup(func() { _ = errors.Join(plain.Close(), l.Close()) })
	s.Port = l.Addr().(*net.TCPAddr).Port
	if err := s.Send(t.Context(), render(t, notify.Waiting, hotfix())); err == nil || len(r.received()) != 0 {
		t.Errorf("got %v, %d mails", err, len(r.received()))
	}
	for _, mode := range []string{"opportunistic", "none"} {
		s.TLS = mode
		if err := s.Send(t.Context(), render(t, notify.Waiting, hotfix())); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if n := len(r.received()); n != 2 {
		t.Errorf("%d mails, want 2", n)
	}
}

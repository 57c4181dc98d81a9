package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"github.com/shuntcd/shunt/internal/delivery"
)

// SMTP sends through a mail relay.
type SMTP struct {
	Host     string
	Port     int // 0: 465 for tls, 25 for none, otherwise 587
	User     string
	Password string
	TLS      string         // "starttls" (also when empty), "tls", "opportunistic" or "none"
	HELO     string         // our name; empty: the machine's
	Timeout  time.Duration  // for one mail; 0: 30 s
	RootCAs  *x509.CertPool // nil: the system's
}

// Send hands a message to the relay. A recipient that the relay refuses does not
// keep it from the others; the error, a *SendError, names those without it.
func (s SMTP) Send(ctx context.Context, m Message) error {
	msg, err := m.Build()
	if err != nil {
		return err
	}
	from, err := msg.GetSender(false)
	if err != nil {
		return permanent("it has no sender", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	conn, err := s.dial(ctx)
	if err != nil {
		return temporary(s.explain(err), err)
	}
	defer conn.close()
	if err := conn.Mail(from); err != nil {
		return s.sorted("the sender was refused", err, nil)
	}
	rcpts, err := msg.GetRecipients()
	if err != nil || len(rcpts) != len(m.To) {
		return permanent("its recipients cannot be read", err)
	}
	var later, never []string
	var lastErr error
	for i, rcpt := range rcpts {
		err := conn.Rcpt(rcpt)
		switch code, _, ok := replied(err); {
		case err == nil:
		case ok && code >= 500:
			never, lastErr = append(never, m.To[i]), err
		case ok:
			later, lastErr = append(later, m.To[i]), err
		default:
			return temporary(s.explain(err), err) // the connection broke
		}
	}
	if len(later)+len(never) < len(rcpts) {
		if err := conn.data(msg); err != nil {
			return s.sorted("the text was refused", err, nil)
		}
	}
	switch {
	case len(later) > 0: // those in never stay without it; the words of the error say so
		why := "recipients were refused for now"
		if len(never) > 0 {
			why += ", and for good: " + list(never, 5)
		}
		e := s.sorted(why, lastErr, later)
		e.Permanent = false
		return e
	case len(never) > 0:
		return s.sorted("recipients were refused", lastErr, never)
	}
	return nil
}

// sorted makes a SendError from a reply: 5xx is permanent, all else temporary.
func (s SMTP) sorted(why string, err error, people []string) *SendError {
	code, text, ok := replied(err)
	if ok {
		why = fmt.Sprintf("%s: %s answered %d %s", why, s.Host, code, text)
	} else if people == nil {
		why = s.explain(err)
	}
	return &SendError{Permanent: ok && code >= 500, Undelivered: people, Why: why, Err: err}
}

// Check connects, greets and signs in, for `shunt doctor`. It sends nothing.
func (s SMTP) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	conn, err := s.dial(ctx)
	if err == nil {
		defer conn.close()
		err = conn.Noop()
	}
	if err != nil {
		return &delivery.Error{
			Kind: delivery.KindUnavailable, What: "cannot send mail through " + line(s.Host, 100), Why: s.explain(err),
			Next: "Check host, port, TLS mode, user and password of the mail relay.", Err: err,
		}
	}
	return nil
}

func (s SMTP) timeout() time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return 30 * time.Second
}

// explain says what is wrong with the relay, or between it and us.
func (s SMTP) explain(err error) string {
	host := line(s.Host, 100)
	code, text, ok := replied(err)
	switch {
	case ok && (code == 534 || code == 535):
		return fmt.Sprintf("%s does not accept user and password (%d %s)", host, code, text)
	case ok:
		return fmt.Sprintf("%s answered %d %s", host, code, text)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, net.ErrClosed), isTimeout(err): // closed by us, when the time was over
		return host + " did not answer in time"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the certificate of " + host + " is not valid"
	}
	return host + ": " + line(err.Error(), 200)
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// session is a connection that is ready for mail.
type session struct {
	*smtp.Client
	conn net.Conn
	stop func() bool
}

func (c *session) close() {
	_ = c.Quit() // whatever it says, the mail was answered for before
	c.stop()
	_ = c.conn.Close()
}

func (c *session) data(msg *mail.Msg) error {
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := msg.WriteTo(w); err != nil {
		// Without the final dot the relay throws it away. QUIT would write the dot
		// first, and half a mail would be delivered.
		return errors.Join(err, c.conn.Close())
	}
	return w.Close()
}

// dial connects and signs in. The connection is ours, because go-mail does not
// close one that fails half-way and does not watch the context.
func (s SMTP) dial(ctx context.Context) (*session, error) {
	config := &tls.Config{ServerName: s.Host, RootCAs: s.RootCAs, MinVersion: tls.VersionTLS12}
	options := []mail.Option{mail.WithTimeout(s.timeout()), mail.WithTLSConfig(config), mail.WithTLSPolicy(mail.TLSMandatory)}
	port := 587
	switch s.TLS {
	case "", "starttls":
	case "tls":
		port = 465
		options = append(options, mail.WithSSL())
	case "opportunistic":
		options = append(options, mail.WithTLSPolicy(mail.TLSOpportunistic))
	case "none":
		port = 25
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		return nil, fmt.Errorf("the TLS mode %q is not known; use starttls, tls, opportunistic or none", line(s.TLS, 40))
	}
	if s.Port != 0 {
		port = s.Port
	}
	if s.HELO != "" {
		options = append(options, mail.WithHELO(s.HELO))
	}
	if s.User != "" {
		// Passwords in the clear only go over TLS or to this machine.
		options = append(options, mail.WithUsername(s.User), mail.WithPassword(s.Password),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin, mail.SMTPAuthCramMD5))
	}
	own := &session{stop: func() bool { return true }}
	sessionCtx := ctx
	options = append(options, mail.WithPort(port), mail.WithDialContextFunc(func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(s.Host, strconv.Itoa(port)))
		if err != nil {
			return nil, err
		}
		// A relay that drips gets a new deadline with every step of go-mail; this
		// ends them all.
		own.conn = conn
		own.stop = context.AfterFunc(sessionCtx, func() { _ = conn.Close() })
		if s.TLS != "tls" {
			return conn, nil
		}
		secure := tls.Client(conn, config) // go-mail wants to see its type
		return secure, secure.HandshakeContext(ctx)
	}))
	client, err := mail.NewClient(s.Host, options...)
	if err != nil {
		return nil, err
	}
	own.Client, err = client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		own.stop()
		if own.conn != nil {
			_ = own.conn.Close()
		}
		return nil, err
	}
	return own, nil
}

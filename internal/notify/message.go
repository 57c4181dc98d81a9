package notify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/shuntcd/shunt/internal/delivery"
)

// Message is one mail, ready to be stored in the outbox as JSON.
type Message struct {
	Key     string    `json:"key"`    // unique; local part of the Message-ID
	Thread  string    `json:"thread"` // key of the thread's root; empty: none
	Host    string    `json:"host"`   // domain of Message-ID, References and List-Id
	Date    time.Time `json:"date"`   // zero: when it is built
	From    string    `json:"from"`
	To      []string  `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	HTML    string    `json:"html"`
	List    string    `json:"list"` // List-Id without its brackets; empty: none
}

// Sender takes messages away. IsPermanent tells about its errors.
type Sender interface {
	Send(ctx context.Context, m Message) error
}

// Build makes the mail of a message. Equal messages with a Date give equal
// bytes. An error is permanent: the message itself is at fault.
func (m Message) Build() (*mail.Msg, error) {
	if m.Date.IsZero() {
		m.Date = delivery.SystemClock{}.Now()
	}
	// The boundary is a hash over the bodies, so no body can contain it.
	sum := sha256.Sum256([]byte(m.Key + "\x00" + m.Text + "\x00" + m.HTML))
	msg := mail.NewMsg(mail.WithCharset(mail.CharsetUTF8), mail.WithEncoding(mail.EncodingQP),
		mail.WithNoDefaultUserAgent(), mail.WithBoundary(hex.EncodeToString(sum[:20])))
	if err := msg.From(m.From); err != nil {
		return nil, permanent("the sender "+line(m.From, 100)+" is not a mail address", err)
	}
	if len(m.To) == 0 {
		return nil, permanent("it has no recipient", nil)
	}
	for _, to := range m.To {
		if err := msg.AddTo(to); err != nil {
			return nil, permanent("the recipient "+line(to, 100)+" is not a mail address", err)
		}
	}
	host := hostName(m.Host)
	msg.Subject(header(m.Subject))
	msg.SetDateWithValue(m.Date)
	msg.SetMessageIDWithValue(idPart(m.Key) + "@" + host)
	if m.Thread != "" && m.Thread != m.Key {
		root := "<" + idPart(m.Thread) + "@" + host + ">"
		msg.SetGenHeader(mail.HeaderInReplyTo, root)
		msg.SetGenHeader(mail.HeaderReferences, root)
	}
	// No vacation answers, please (RFC 3834).
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	if m.List != "" {
		msg.SetGenHeader("List-Id", "<"+idPart(m.List)+">")
	}
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	return msg, nil
}

// idPart makes any text fit for one side of a Message-ID (a dot-atom of RFC
// 5322) and for a file name.
func idPart(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '-'
	}, s)
	for strings.Contains(s, "..") {
		s = strings.ReplaceAll(s, "..", ".-")
	}
	if len(s) > 120 { // cutting alone could make two keys one
		sum := sha256.Sum256([]byte(s))
		s = s[:100] + "-" + hex.EncodeToString(sum[:8])
	}
	s = strings.Trim(s, ".")
	if s == "" {
		return "-"
	}
	return s
}

// hostName is the bare host of a host, host:port or URL.
func hostName(s string) string {
	if !strings.Contains(s, "//") {
		s = "//" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" {
		return "localhost"
	}
	return idPart(u.Hostname())
}
